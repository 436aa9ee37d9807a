//! A peer that writes any bytes at all, and reads frames as they lie on the wire.

use std::net::SocketAddr;

use cauce_protocol::wire::{ClientFrame, ServerFrame, client_frame, server_frame};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::PATIENCE;

/// A WebSocket key; any sixteen bytes will do.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What the broker sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping,
    Pong,
    Close(u16, String),
    /// The end of the stream, however it came.
    End,
}

pub struct Raw {
    pub stream: TcpStream,
    input: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the broker listens");
        stream.set_nodelay(true).expect("a socket option");
        Self {
            stream,
            input: Vec::new(),
        }
    }

    /// With a receive buffer as small as the system allows, so that a reader who stops is noticed soon.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket option");
        let stream = socket.connect(address).await.expect("the broker listens");
        Self {
            stream,
            input: Vec::new(),
        }
    }

    /// Writes; an error means that the broker has closed, which the next read will show.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .expect("the broker reads")
            .is_ok()
    }

    /// Asks for a WebSocket and answers the response's head.
    pub async fn upgrade(&mut self, target: &str, headers: &str) -> String {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
        );
        self.write(request.as_bytes()).await;
        self.head().await
    }

    /// The head of an HTTP response; what there is, if the connection ends before.
    pub async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.input.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.input.drain(..end + 4).collect();
                return String::from_utf8(head).expect("ASCII");
            }
            if !self.fill().await {
                return String::from_utf8_lossy(&std::mem::take(&mut self.input)).into_owned();
            }
        }
    }

    /// All until the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.input)
    }

    async fn fill(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.input);
        let read = tokio::time::timeout(PATIENCE, read)
            .await
            .expect("an answer within the test's patience");
        read.is_ok_and(|n| n > 0)
    }

    /// The next frame.
    pub async fn hear(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.take_frame() {
                return heard;
            }
            if !self.fill().await {
                return Heard::End;
            }
        }
    }

    fn take_frame(&mut self) -> Option<Heard> {
        let input = &self.input;
        let (&first, &second) = (input.first()?, input.get(1)?);
        assert_eq!(
            first & 0xf0,
            0x80,
            "the broker sends whole frames without extensions"
        );
        let (len, start) = match second {
            126 => (
                usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?)),
                4,
            ),
            127 => (
                usize::try_from(u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)).ok()?,
                10,
            ),
            len => (usize::from(len), 2),
        };
        let payload = input.get(start..start + len)?.to_vec();
        self.input.drain(..start + len);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Some(match first & 0x0f {
            1 => Heard::Text(text(&payload)),
            2 => Heard::Binary(payload),
            8 if payload.len() < 2 => Heard::Close(0, String::new()),
            8 => Heard::Close(u16::from_be_bytes([payload[0], payload[1]]), text(&payload[2..])),
            9 => Heard::Ping,
            10 => Heard::Pong,
            opcode => panic!("opcode {opcode}"),
        })
    }

    /// The next text as JSON, past pings.
    pub async fn hear_json(&mut self) -> serde_json::Value {
        loop {
            match self.hear().await {
                Heard::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Heard::Ping | Heard::Pong => {}
                other => panic!("expected a text, heard {other:?}"),
            }
        }
    }

    /// The close code, past everything that comes before it. Codes of goaways come with it.
    pub async fn farewell(&mut self) -> (Vec<u64>, u16) {
        let mut told = Vec::new();
        loop {
            match self.hear().await {
                Heard::Close(code, _) => return (told, code),
                Heard::Text(text) => {
                    let frame: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    told.extend(frame["goaway"]["error"]["code"].as_u64());
                }
                Heard::End => panic!("the connection ended without a close frame, after {told:?}"),
                _ => {}
            }
        }
    }

    pub async fn say(&mut self, message: serde_json::Value) -> bool {
        self.write(&masked(true, 1, message.to_string().as_bytes())).await
    }
}

/// A client's frame.
pub fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0xc3, 0x11, 0x9e];
    let mut out = vec![u8::from(fin) << 7 | opcode];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// A protobuf frame of a client: its length, then the message.
pub fn proto(id: u32, request: client_frame::Request) -> Vec<u8> {
    ClientFrame {
        id,
        request: Some(request),
    }
    .encode_length_delimited_to_vec()
}

/// The frames of one binary message of the broker.
pub fn server_frames(mut message: &[u8]) -> Vec<ServerFrame> {
    let mut frames = Vec::new();
    while !message.is_empty() {
        frames.push(ServerFrame::decode_length_delimited(&mut message).expect("a whole frame"));
    }
    frames
}

/// A peer that speaks protobuf.
pub struct ProtoPeer {
    pub raw: Raw,
    waiting: std::collections::VecDeque<ServerFrame>,
}

impl ProtoPeer {
    pub async fn join(address: SocketAddr, token: &str) -> Self {
        Self::over(Raw::connect(address).await, token).await
    }

    /// The same over a connection that is open already.
    pub async fn over(mut raw: Raw, token: &str) -> Self {
        let headers = format!("Sec-WebSocket-Protocol: cauce.v1.proto\r\nAuthorization: Bearer {token}\r\n");
        let head = raw.upgrade("/v1/ws", &headers).await;
        assert!(head.contains("Sec-WebSocket-Protocol: cauce.v1.proto"), "{head}");
        let mut peer = Self {
            raw,
            waiting: std::collections::VecDeque::new(),
        };
        let welcome = peer.receive().await;
        assert!(format!("{welcome:?}").contains("Welcome"), "{welcome:?}");
        peer
    }

    pub async fn ask(&mut self, id: u32, request: client_frame::Request) {
        self.raw.write(&masked(true, 2, &proto(id, request))).await;
    }

    /// The next message of the broker.
    pub async fn receive(&mut self) -> server_frame::Message {
        loop {
            if let Some(frame) = self.waiting.pop_front() {
                return frame.message.expect("a message");
            }
            match self.raw.hear().await {
                Heard::Binary(message) => self.waiting.extend(server_frames(&message)),
                Heard::Ping | Heard::Pong => {}
                other => panic!("expected a message, heard {other:?}"),
            }
        }
    }
}
