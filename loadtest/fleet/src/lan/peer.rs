//! One connection to a device: reads a request, asks the device's task, writes the answer, or becomes a WebSocket
//! and carries frames both ways.

use super::http::{BODY_BYTES_MAX, Head, Response, Route, Upgrade, parse_head, route};
use super::{PeerId, ToDevice, ToPeer};
use crate::device::Ending;
use crate::session::{FRAME_BYTES_MAX, HALF_OPEN_HOLD, Session, socket_config};
use crate::stats::{Counters, Sent};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// A request that is not complete by then is not coming.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames waiting for one peer; the firmware's ancestor queues as many.
pub(super) const OUTBOX_FRAMES: usize = 25;
const _: () = assert!(
    BODY_BYTES_MAX <= FRAME_BYTES_MAX,
    "what fits a frame in a body fits one on a socket"
);

/// What a connection needs.
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) device: mpsc::Sender<ToDevice>,
    pub(super) counters: Arc<Counters>,
    /// Held as long as the connection occupies one of the device's channels; `None` if all were taken.
    pub(super) channel: Option<OwnedSemaphorePermit>,
}

impl Peer {
    /// Serves `stream` until either side is done.
    pub(super) async fn serve(self, mut stream: TcpStream) {
        let Ok(request) = timeout(REQUEST_TIMEOUT, read_request(&mut stream)).await else {
            return respond(&mut stream, &Response::empty(408)).await;
        };
        let (head, body) = match request {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(status) => return respond(&mut stream, &Response::empty(status)).await,
        };
        if self.channel.is_none() {
            return respond(&mut stream, &Response::empty(503)).await;
        }
        match route(&head, &body) {
            Route::WebSocket(upgrade) => self.upgrade(stream, &upgrade, body).await,
            Route::Nothing(status) => respond(&mut stream, &Response::empty(status)).await,
            route => {
                self.counters.received(body.len());
                let (answer, answered) = oneshot::channel();
                if self
                    .device
                    .send(ToDevice::Http {
                        head,
                        route,
                        body,
                        answer,
                    })
                    .await
                    .is_err()
                {
                    return;
                }
                if let Ok(response) = answered.await {
                    let bytes = response.body.len();
                    respond(&mut stream, &response).await;
                    self.counters.sent(Sent::Reply, bytes);
                }
            }
        }
    }

    async fn upgrade(mut self, mut stream: TcpStream, upgrade: &Upgrade, early: Vec<u8>) {
        let protocol = if upgrade.offers_json_rpc {
            "Sec-WebSocket-Protocol: json-rpc\r\n"
        } else {
            ""
        };
        let switching = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
            derive_accept_key(upgrade.key.as_bytes())
        );
        if stream.write_all(switching.as_bytes()).await.is_err() {
            return;
        }
        let socket =
            WebSocketStream::from_partially_read(stream, early, Role::Server, Some(socket_config())).await;
        let (outbox, frames) = mpsc::channel(OUTBOX_FRAMES);
        if self
            .device
            .send(ToDevice::Opened {
                peer: self.id,
                outbox,
            })
            .await
            .is_err()
        {
            return;
        }
        self.counters.connected();
        self.converse(Session::new(socket), frames).await;
        self.counters.disconnected();
        // The device's task may be gone already; then nobody needs to know.
        let _ = self.device.send(ToDevice::Gone { peer: self.id }).await;
    }

    async fn converse(&mut self, mut session: Session<TcpStream>, mut frames: mpsc::Receiver<ToPeer>) {
        loop {
            tokio::select! {
                received = session.receive(&self.counters) => {
                    let Ok(text) = received else { return };
                    session.linger().await;
                    if self.device.send(ToDevice::Frame { peer: self.id, text }).await.is_err() {
                        return session.bye(CloseCode::Away, "device gone").await;
                    }
                }
                instruction = frames.recv() => match instruction {
                    Some(ToPeer::Frame(what, text)) => {
                        if session.send([(what, text)], &self.counters).await.is_err() {
                            return;
                        }
                    }
                    Some(ToPeer::Slow { lasting, delay }) => session.slow_down(lasting, delay),
                    Some(ToPeer::Close(Ending::Bye)) => return session.bye(CloseCode::Normal, "Bye").await,
                    Some(ToPeer::Close(Ending::Drop)) => return session.hang_up().await,
                    Some(ToPeer::Close(Ending::Vanish)) => {
                        self.counters.went_half_open();
                        // The device itself has forgotten the connection.
                        self.channel = None;
                        // Nothing is read or written any more, yet the socket stays, until the fleet stops.
                        let stopped = async { while frames.recv().await.is_some() {} };
                        let _ = timeout(HALF_OPEN_HOLD, stopped).await;
                        return;
                    }
                    None => return session.bye(CloseCode::Away, "fleet stopped").await,
                },
            }
        }
    }
}

/// Reads one request. `Ok(None)` if the peer left before it was complete; bytes behind the head of an upgrade
/// are returned as body.
async fn read_request(stream: &mut TcpStream) -> Result<Option<(Head, Vec<u8>)>, u16> {
    let mut bytes = Vec::with_capacity(1024);
    let (head, head_bytes) = loop {
        if let Some(parsed) = parse_head(&bytes)? {
            break parsed;
        }
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return Ok(None);
        }
    };
    let mut body = bytes.split_off(head_bytes);
    while body.len() < head.body_bytes {
        if !matches!(stream.read_buf(&mut body).await, Ok(1..)) {
            return Ok(None);
        }
    }
    if head.upgrade.is_none() {
        body.truncate(head.body_bytes);
    }
    Ok(Some((head, body)))
}

async fn respond(stream: &mut TcpStream, response: &Response) {
    // A peer that left before its answer has nobody to complain to.
    if stream.write_all(&response.to_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}
