//! The other end for tests over a real socket: one thread of control per test, which reads and writes whole frames as it
//! pleases. What a broker does between them is the test's business.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cauce_protocol::frame::Frames;
use cauce_protocol::server::{self, Dialect};
use cauce_protocol::wire::{self, client_frame::Request};
use cauce_protocol::{Payload, RoomId, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO, Seq};
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{
    Callback, ErrorResponse, Request as Upgrade, Response,
};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// Long enough for a busy machine; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Broker {
    listener: TcpListener,
}

pub(crate) struct Peer<S = TcpStream> {
    socket: WebSocketStream<S>,
    pub(crate) dialect: Dialect,
    frames: std::collections::VecDeque<wire::ClientFrame>,
}

/// Takes what the client offers and remembers it.
struct Accept(Arc<std::sync::Mutex<Dialect>>);

impl Callback for Accept {
    fn on_request(self, request: &Upgrade, mut response: Response) -> Result<Response, ErrorResponse> {
        let offered = request.headers().get("sec-websocket-protocol").cloned();
        let json = offered.as_ref().is_some_and(|o| o == SUBPROTOCOL_JSON);
        let (dialect, answer) = match json {
            true => (Dialect::Json, SUBPROTOCOL_JSON),
            false => (Dialect::Proto, SUBPROTOCOL_PROTO),
        };
        *self.0.lock().unwrap() = dialect;
        response
            .headers_mut()
            .insert("sec-websocket-protocol", HeaderValue::from_static(answer));
        Ok(response)
    }
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self {
            listener: TcpListener::bind(("127.0.0.1", 0)).await.unwrap(),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/v1/ws", self.port())
    }

    /// The next socket, before any handshake.
    pub(crate) async fn accept_raw(&self) -> TcpStream {
        patiently(self.listener.accept()).await.unwrap().0
    }

    /// The next connection, before hello.
    pub(crate) async fn accept(&self) -> Peer {
        Peer::new(self.accept_raw().await).await
    }

    /// The next connection, after hello and welcome.
    pub(crate) async fn welcome(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.welcome().await;
        peer
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) async fn new(socket: S) -> Self {
        let dialect = Arc::new(std::sync::Mutex::new(Dialect::Proto));
        let accepted = tokio_tungstenite::accept_hdr_async(socket, Accept(Arc::clone(&dialect)));
        let socket = patiently(accepted).await.unwrap();
        let dialect = *dialect.lock().unwrap();
        Self {
            socket,
            dialect,
            frames: Default::default(),
        }
    }

    pub(crate) async fn welcome(&mut self) -> wire::Hello {
        let (id, Request::Hello(hello)) = self.next().await else {
            panic!("the first frame was not hello")
        };
        let welcome = wire::Welcome {
            connection: 7,
            version: 1,
            features: hello.features,
            tenant: "t".into(),
            user: "u".into(),
            heartbeat_ms: 30_000,
            ..wire::Welcome::default()
        };
        self.reply(id, welcome).await;
        hello
    }

    /// The next frame of the client. Close and end are failures.
    pub(crate) async fn next(&mut self) -> (u32, Request) {
        let frame = self.next_or_end().await.expect("the client closed");
        (frame.id, frame.request.expect("a request"))
    }

    /// The next frame of the client, `None` at its end.
    pub(crate) async fn next_or_end(&mut self) -> Option<wire::ClientFrame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            match patiently(self.socket.next()).await {
                Some(Ok(Message::Binary(bytes))) => {
                    for frame in Frames::new(bytes, 1 << 20) {
                        let frame = wire::ClientFrame::decode(frame.unwrap()).unwrap();
                        self.frames.push_back(frame);
                    }
                }
                Some(Ok(Message::Text(text))) => {
                    let frame = cauce_protocol::json::decode_client(text.as_bytes()).unwrap();
                    self.frames.push_back(frame);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Many frames in one message where the dialect can.
    pub(crate) async fn send(&mut self, frames: &[wire::ServerFrame]) {
        match self.dialect {
            Dialect::Proto => {
                let mut bytes = BytesMut::new();
                for frame in frames {
                    bytes.extend_from_slice(&server::encode(frame, Dialect::Proto));
                }
                self.send_message(Message::Binary(bytes.freeze())).await;
            }
            Dialect::Json => {
                for frame in frames {
                    let text = Utf8Bytes::try_from(server::encode(frame, Dialect::Json)).unwrap();
                    self.send_message(Message::Text(text)).await;
                }
            }
        }
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    pub(crate) async fn reply(&mut self, id: u32, outcome: impl Into<wire::reply::Outcome>) {
        self.send(&[server::reply(id, outcome)]).await;
    }

    /// Answers the next frame, which must be a subscribe, with these positions: number, epoch, sequence.
    pub(crate) async fn subscribed(&mut self, positions: &[(u64, u64, u64)]) -> Vec<String> {
        let (id, Request::Subscribe(subscribe)) = self.next().await else {
            panic!("not a subscribe")
        };
        let with_options = subscribe.subscriptions.into_iter().map(|wanted| wanted.room);
        let names: Vec<String> = subscribe.rooms.into_iter().chain(with_options).collect();
        assert_eq!(names.len(), positions.len());
        let rooms = names
            .iter()
            .zip(positions)
            .map(|(name, &(room, epoch, seq))| wire::RoomPosition {
                name: name.clone(),
                room,
                epoch,
                seq,
                ..wire::RoomPosition::default()
            })
            .collect();
        self.reply(id, wire::Subscribed { rooms }).await;
        names
    }

    pub(crate) async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame {
            code: code.into(),
            reason: Utf8Bytes::from_static(reason),
        };
        let _ = self.socket.close(Some(frame)).await;
        while let Some(Ok(_)) = patiently(self.socket.next()).await {}
    }
}

pub(crate) fn push(room: u64, seq: u64, json: &str) -> wire::ServerFrame {
    let payload = Payload::Json(Bytes::copy_from_slice(json.as_bytes()));
    let push = server::Push {
        room: RoomId(room),
        seq: Seq(seq),
        event: "e",
        payload: &payload,
        key: "",
    };
    let mut out = BytesMut::new();
    push.put(&mut out);
    wire::ServerFrame::decode_length_delimited(out.freeze()).unwrap()
}

pub(crate) async fn patiently<F: std::future::Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it took too long")
}
