//! The plainest client there can be: a socket, a handshake, frames. It costs the generator next to nothing.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use bytes::{BufMut as _, Bytes, BytesMut};
use cauce_protocol::wire;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Longest answer to a handshake, in bytes.
const HEAD_BYTES_MAX: usize = 4 * 1024;

/// Ports of one source address that we use before taking the next: the system's range holds some 28,000.
const PORTS_AN_ADDRESS: u32 = 20_000;

/// One connection.
pub(crate) struct Peer {
    stream: TcpStream,
    input: BytesMut,
}

impl Peer {
    /// Connects to `target`, from the loopback address that the `index`-th peer has, and authenticates with a hello.
    pub(crate) async fn connect(target: SocketAddr, index: u32, token: &str) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if target.ip().is_loopback() {
            let source = Ipv4Addr::new(127, 0, 0, 1 + (index / PORTS_AN_ADDRESS) as u8);
            socket.bind(SocketAddrV4::new(source, 0).into())?;
        }
        let mut stream = socket.connect(target).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {target}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {}\r\n\r\n",
            cauce_protocol::SUBPROTOCOL_PROTO
        );
        stream.write_all(head.as_bytes()).await?;
        let mut peer = Self {
            stream,
            input: BytesMut::new(),
        };
        peer.read_head().await?;
        let hello = wire::Hello {
            version: cauce_protocol::VERSION,
            features: 0,
            token: token.into(),
            client: "loadtest".into(),
            previous: Vec::new(),
        };
        peer.send(wire::client_frame::Request::Hello(hello)).await?;
        match peer.reply().await? {
            wire::reply::Outcome::Welcome(_) => Ok(peer),
            outcome => Err(refused("hello", &outcome)),
        }
    }

    pub(crate) async fn subscribe(&mut self, room: &str) -> io::Result<()> {
        let subscribe = wire::Subscribe {
            rooms: vec![room.into()],
            ..wire::Subscribe::default()
        };
        self.send(wire::client_frame::Request::Subscribe(subscribe))
            .await?;
        match self.reply().await? {
            wire::reply::Outcome::Subscribed(_) => Ok(()),
            outcome => Err(refused("subscribe", &outcome)),
        }
    }

    async fn send(&mut self, request: wire::client_frame::Request) -> io::Result<()> {
        let frame = wire::ClientFrame {
            id: 1,
            request: Some(request),
        }
        .encode_length_delimited_to_vec();
        let mut out = BytesMut::with_capacity(frame.len() + 14);
        out.put_u8(0x82);
        match frame.len() {
            len @ 0..126 => out.put_u8(0x80 | len as u8),
            len => {
                out.put_u8(0x80 | 126);
                out.put_u16(u16::try_from(len).map_err(|_| io::Error::other("the request is too long"))?);
            }
        }
        // A mask of zeros masks nothing, and is a mask.
        out.put_u32(0);
        out.put_slice(&frame);
        self.stream.write_all(&out).await
    }

    async fn reply(&mut self) -> io::Result<wire::reply::Outcome> {
        loop {
            let payload = self.message().await?;
            let frame = wire::ServerFrame::decode_length_delimited(payload).map_err(io::Error::other)?;
            match frame.message {
                Some(wire::server_frame::Message::Reply(wire::Reply {
                    outcome: Some(outcome),
                    ..
                })) => return Ok(outcome),
                Some(wire::server_frame::Message::Goaway(goaway)) => {
                    let words = goaway.error.map(|e| format!("{}: {}", e.name, e.message));
                    return Err(io::Error::other(words.unwrap_or_default()));
                }
                _ => {}
            }
        }
    }

    /// The payload of the next WebSocket frame.
    async fn message(&mut self) -> io::Result<Bytes> {
        loop {
            if let [_, len, rest @ ..] = &self.input[..] {
                let (len, header) = match (len & 0x7f, rest) {
                    (len @ 0..126, _) => (Some(usize::from(len)), 2),
                    (126, [high, low, ..]) => (Some(usize::from(u16::from_be_bytes([*high, *low]))), 4),
                    _ => (None, 0),
                };
                if let Some(len) = len.filter(|len| self.input.len() >= header + len) {
                    let mut frame = self.input.split_to(header + len);
                    return Ok(frame.split_off(header).freeze());
                }
            }
            self.fill().await?;
        }
    }

    async fn read_head(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = self.input.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.input.split_to(end + 4);
                if head.starts_with(b"HTTP/1.1 101") {
                    return Ok(());
                }
                let first = head[..].split(|&b| b == b'\r').next().unwrap_or_default();
                return Err(io::Error::other(format!(
                    "refused: {}",
                    String::from_utf8_lossy(first)
                )));
            }
            if self.input.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("the answer to the handshake does not end"));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.stream.read_buf(&mut self.input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

fn refused(what: &str, outcome: &wire::reply::Outcome) -> io::Error {
    match outcome {
        wire::reply::Outcome::Error(e) => {
            io::Error::other(format!("{what} was refused: {} ({})", e.message, e.name))
        }
        _ => io::Error::other(format!("{what} was answered with something else")),
    }
}
