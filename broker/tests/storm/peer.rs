//! The lightest client that can tell what it was sent: a socket and a buffer.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use cauce_protocol::wire::{
    self, ClientFrame, RoomPosition, ServerFrame, client_frame::Request, reply::Outcome,
    server_frame::Message,
};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::PATIENCE;
use crate::support::raw::KEY;

/// As small as the system allows, so that a reader who stops is noticed soon.
const NARROW_BYTES: u32 = 4_096;

/// `FEATURE_ADVANCE` and `FEATURE_GAP`.
const FEATURES: u64 = wire::Feature::Advance as u64 | wire::Feature::Gap as u64;

pub(crate) struct Peer {
    stream: TcpStream,
    input: BytesMut,
    /// Frames that came in one message of the WebSocket and have not been looked at.
    frames: Bytes,
    /// Frames that came before an answer.
    before: VecDeque<Message>,
    pub(crate) connection: u64,
}

impl Peer {
    pub(crate) async fn connect(address: SocketAddr, token: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the broker listens");
        Self::over(stream, address, token).await
    }

    /// With a receive buffer so small that the broker notices at once when nothing is read.
    pub(crate) async fn connect_narrow(address: SocketAddr, token: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(NARROW_BYTES)
            .expect("a socket option");
        let stream = socket.connect(address).await.expect("the broker listens");
        Self::over(stream, address, token).await
    }

    async fn over(mut stream: TcpStream, address: SocketAddr, token: &str) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        let head = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Protocol: {}\r\n\r\n",
            cauce_protocol::SUBPROTOCOL_PROTO
        );
        stream.write_all(head.as_bytes()).await.expect("the broker reads");
        let mut peer = Self {
            stream,
            input: BytesMut::new(),
            frames: Bytes::new(),
            before: VecDeque::new(),
            connection: 0,
        };
        peer.read_head().await;
        let hello = wire::Hello {
            version: cauce_protocol::VERSION,
            features: FEATURES,
            token: token.into(),
            ..wire::Hello::default()
        };
        match peer.ask(Request::Hello(hello)).await {
            Outcome::Welcome(welcome) => peer.connection = welcome.connection,
            other => panic!("not welcome: {other:?}"),
        }
        peer
    }

    async fn read_head(&mut self) {
        loop {
            if let Some(end) = self.input.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.input.split_to(end + 4);
                assert!(
                    head.starts_with(b"HTTP/1.1 101"),
                    "{}",
                    String::from_utf8_lossy(&head)
                );
                return;
            }
            assert!(self.fill().await, "the handshake is answered");
        }
    }

    /// Joins a room, from a position if there is one.
    pub(crate) async fn subscribe(&mut self, wanted: wire::Subscription) -> RoomPosition {
        let subscribe = wire::Subscribe {
            subscriptions: vec![wanted],
            ..wire::Subscribe::default()
        };
        match self.ask(Request::Subscribe(subscribe)).await {
            Outcome::Subscribed(mut subscribed) => subscribed.rooms.remove(0),
            other => panic!("not subscribed: {other:?}"),
        }
    }

    pub(crate) async fn unsubscribe(&mut self, room: &str) {
        let unsubscribe = wire::Unsubscribe {
            rooms: vec![room.into()],
        };
        match self.ask(Request::Unsubscribe(unsubscribe)).await {
            Outcome::Unsubscribed(_) => {}
            other => panic!("not unsubscribed: {other:?}"),
        }
    }

    /// The answer to a request. What comes before it is kept for [`Self::next`].
    pub(crate) async fn ask(&mut self, request: Request) -> Outcome {
        self.say(1, request).await;
        loop {
            match self.read().await.expect("the connection holds") {
                Message::Reply(reply) => return reply.outcome.expect("an outcome"),
                other => self.before.push_back(other),
            }
        }
    }

    /// Sends a request without waiting for the answer.
    pub(crate) async fn say(&mut self, id: u32, request: Request) {
        let bytes = masked(id, request);
        tokio::time::timeout(PATIENCE, self.stream.write_all(&bytes))
            .await
            .expect("the broker reads")
            .expect("the connection holds");
    }

    /// The next message of the broker; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        match self.before.pop_front() {
            Some(message) => Some(message),
            None => self.read().await,
        }
    }

    /// The next push: its number and its text.
    pub(crate) async fn push(&mut self) -> (u64, String) {
        match self.next().await {
            Some(Message::Push(push)) => (push.seq, text(&push)),
            other => panic!("not a push: {other:?}"),
        }
    }

    async fn read(&mut self) -> Option<Message> {
        loop {
            if !self.frames.is_empty() {
                let frame = ServerFrame::decode_length_delimited(&mut self.frames).expect("a whole frame");
                return Some(frame.message.expect("a message"));
            }
            match self.take_frame() {
                Some((2, payload)) => self.frames = payload,
                Some((8, _)) => return None,
                // Pings and pongs: nobody is idle for long enough to be missed.
                Some(_) => {}
                None if self.fill().await => {}
                None => return None,
            }
        }
    }

    /// The next frame of the WebSocket: its opcode and its payload.
    fn take_frame(&mut self) -> Option<(u8, Bytes)> {
        let [first, len, rest @ ..] = &self.input[..] else {
            return None;
        };
        let (len, header) = match (len & 0x7f, rest) {
            (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                let len = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                (usize::try_from(len).expect("a length"), 10)
            }
            (126 | 127, _) => return None,
            (len, _) => (usize::from(len), 2),
        };
        if self.input.len() < header + len {
            return None;
        }
        let opcode = first & 0x0f;
        let mut frame = self.input.split_to(header + len);
        Some((opcode, frame.split_off(header).freeze()))
    }

    async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
        matches!(read.expect("an answer within the test's patience"), Ok(n) if n > 0)
    }
}

pub(crate) fn text(push: &wire::Push) -> String {
    match &push.payload {
        Some(wire::push::Payload::Text(text)) => text.clone(),
        other => panic!("not a text: {other:?}"),
    }
}

/// A frame of a client, in a message of its own. A mask of zeros masks nothing, and is a mask.
pub(crate) fn masked(id: u32, request: Request) -> Vec<u8> {
    let frame = ClientFrame {
        id,
        request: Some(request),
    }
    .encode_length_delimited_to_vec();
    let mut out = Vec::with_capacity(frame.len() + 8);
    out.put_u8(0x82);
    match frame.len() {
        len @ 0..126 => out.put_u8(0x80 | len as u8),
        len => {
            out.put_u8(0x80 | 126);
            out.put_u16(u16::try_from(len).expect("a short request"));
        }
    }
    out.put_u32(0);
    out.put_slice(&frame);
    out
}
