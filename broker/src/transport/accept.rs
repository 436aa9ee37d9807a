//! Taking connections: one thread accepts and places each on the client shard with the fewest, because long-lived sockets
//! spread by the kernel's hash stay as uneven as they fell.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::tls::Certificate;
use crate::hub::{Arrival, Hub, Purpose, ShardMessage};
use crate::socket::Parts;

/// Connections that the kernel keeps for us while we are busy: a herd's worth.
const BACKLOG: i32 = 4_096;

/// Pause after a failed accept. As a rule there are no file descriptors left, and trying at once would only burn the core.
const RETRY: Duration = Duration::from_millis(50);

/// Between two TCP keep-alives: they notice a dead peer while the kernel holds data for it, beside our own pings.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    pub address: SocketAddr,
}

impl Listener {
    /// Binds the address; port 0 takes a free one.
    ///
    /// # Errors
    /// As the system has it: most often the port is taken.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for connections of the life before to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket: TcpListener = socket.into();
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Registers it with the runtime of this thread.
    ///
    /// # Errors
    /// As the system has it.
    pub fn into_tokio(self) -> io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.socket)
    }
}

/// Accepts for one listener.
#[derive(Debug)]
pub struct Acceptor {
    pub listener: Listener,
    pub hub: Arc<Hub>,
    /// Present if the listener speaks TLS.
    pub certificate: Option<Arc<Certificate>>,
}

impl Acceptor {
    /// Accepts until the future is dropped; then the listener closes and nobody else is taken.
    ///
    /// # Errors
    /// If the listener cannot be registered with the runtime.
    pub async fn run(self) -> io::Result<()> {
        let Self {
            listener,
            hub,
            certificate,
        } = self;
        let listener = listener.into_tokio()?;
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    // A peer that is gone already is no loss.
                    if let Err(error) = place(&hub, certificate.as_deref(), stream, address) {
                        tracing::debug!(%address, %error, "a connection ended at the door");
                    }
                }
                Err(error) => {
                    hub.metrics.accept.errors.increment();
                    tracing::warn!(%error, "cannot accept connections; check the limit on open files");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn place(
    hub: &Hub,
    certificate: Option<&Certificate>,
    stream: tokio::net::TcpStream,
    address: SocketAddr,
) -> io::Result<()> {
    let permit = match hub.door.admit(address.ip(), hub.clock.now().mono_ms) {
        Ok(permit) => permit,
        Err(refusal) => {
            hub.metrics.accept.refused.increment();
            if certificate.is_none() {
                // One try: a stranger is not waited for. Past the runtime, which does not know yet that it may write.
                let answer = crate::websocket::handshake::refuse(429, &refusal);
                io::Write::write(&mut stream.into_std()?, answer.as_bytes())?;
            }
            return Ok(());
        }
    };
    hub.metrics.accept.accepted.increment();
    let stream = stream.into_std()?;
    // Small messages must not wait for each other's acknowledgements.
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    let tls = match certificate {
        None => None,
        Some(certificate) => {
            let session = certificate.accept().map_err(io::Error::other)?;
            Some(Box::new(RefCell::new(session)))
        }
    };
    let arrival = Arrival {
        parts: Parts { tcp: stream, tls },
        address: address.ip(),
        permit,
        purpose: Purpose::Fresh,
    };
    let shard = hub.place_client();
    hub.shards[shard].send(ShardMessage::Arrival(Box::new(arrival)));
    Ok(())
}
