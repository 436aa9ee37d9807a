//! How plugs and their watchers come to the broker: one after another, each until the server speaks WebSocket with it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::engine::head_end;
use crate::socket::Socket;
use crate::tls::Dialer;

/// The same for all of them.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) target: SocketAddr,
    /// How to speak TLS, where the target does.
    pub(super) tls: Option<Dialer>,
}

impl Way {
    /// Connects, secures the connection, and asks for WebSocket at `path`, with these lines in the head of the request. Blocks until the server
    /// has agreed or `patience` has passed; the socket still blocks then.
    ///
    /// Each connection has a TLS session of its own and resumes none: nobody here has been connected before.
    ///
    /// # Errors
    /// If it does not agree; in words for people. No error repeats the path, which may hold a token.
    pub(super) fn upgrade(
        &self,
        path: &str,
        lines: &str,
        patience: Duration,
        buffer: &mut [u8],
    ) -> Result<Socket, String> {
        let words = |e: std::io::Error| e.to_string();
        let Self { target, tls } = self;
        let until = Instant::now() + patience;
        let session = tls.as_ref().map(|tls| tls.credentials().session());
        let session = session.transpose().map_err(words)?;
        let mut socket = Socket::dial(*target, session, patience, buffer).map_err(words)?;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {target}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{lines}\r\n"
        );
        socket.write_or_queue(head.as_bytes()).map_err(words)?;
        loop {
            if let Some(end) = socket.fill(buffer).map_err(words)? {
                let head = head_end(&buffer[..end]).map_err(words)?;
                socket.keep(&buffer[head.unwrap_or(0)..end]);
                if head.is_some() {
                    return Ok(socket);
                }
            }
            if Instant::now() > until {
                return Err("no answer to the WebSocket handshake".to_owned());
            }
        }
    }
}
