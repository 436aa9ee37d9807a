//! The driver of a device on a local network: a listener, up to six channels, and one task that owns the pure
//! [`Device`] and its guard. Connections talk to that task through bounded queues.
//!
//! A device is silent towards a channel until a request with a `src` came in on it; from then on each
//! notification goes there too, addressed to that `src`.

mod http;
mod peer;

use crate::device::{Device, Ending, Output};
use crate::digest::{Denial, Digest, Signature, Spelling, WEBSOCKET_HA2, http_ha2};
use crate::rpc::{Door, Request, RpcError};
use crate::stats::{Counters, Sent};
use crate::stop::Stop;
use crate::time::FleetClock;
use http::{Head, Response, Route};
use peer::{OUTBOX_FRAMES, Peer};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// WebSocket and HTTP channels a device serves at the same time.
pub const CHANNELS_MAX: usize = 6;
/// Connections beyond the channels that are told so at the same time; more are dropped at once.
const REFUSALS_MAX: usize = 16;
/// Messages from connections waiting for the device.
const INBOX_MESSAGES: usize = 32;
/// Pause after the system refused to accept, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long the connections may take to say goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection of a device, never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct PeerId(u64);

/// From a connection to its device.
enum ToDevice {
    Opened {
        peer: PeerId,
        outbox: mpsc::Sender<ToPeer>,
    },
    Frame {
        peer: PeerId,
        text: String,
    },
    Http {
        head: Head,
        route: Route,
        body: Vec<u8>,
        answer: oneshot::Sender<Response>,
    },
    Gone {
        peer: PeerId,
    },
}

/// From a device to a connection.
enum ToPeer {
    Frame(Sent, String),
    Slow { lasting: Duration, delay: Duration },
    Close(Ending),
}

struct Channel {
    outbox: mpsc::Sender<ToPeer>,
    /// What the peer calls itself; `None` until it did.
    src: Option<String>,
}

/// What one device's task needs.
pub(crate) struct LanDriver {
    pub(crate) device: Device,
    pub(crate) guard: Option<Digest>,
    pub(crate) clock: FleetClock,
    pub(crate) listener: TcpListener,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: Stop,
}

impl LanDriver {
    /// Runs until the fleet stops.
    pub(crate) async fn run(self) {
        let Self {
            device,
            guard,
            clock,
            listener,
            counters,
            mut stop,
        } = self;
        let spelling = if device.model().is_wall_display() {
            Spelling::WallDisplay
        } else {
            Spelling::Plain
        };
        let mut served = Served {
            device,
            guard,
            clock,
            spelling,
            channels: HashMap::new(),
            out: Vec::new(),
        };
        let (to_device, mut inbox) = mpsc::channel(INBOX_MESSAGES);
        let free_channels = Arc::new(Semaphore::new(CHANNELS_MAX));
        let mut peers = JoinSet::new();
        let mut next_peer = 0;
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        loop {
            if let Some(instant) = clock.instant_at(served.device.next_wakeup()) {
                timer.as_mut().reset(instant.into());
            }
            tokio::select! {
                () = stop.stopped() => break,
                () = &mut timer => served.poll(),
                Some(message) = inbox.recv() => served.handle(message),
                Some(_) = peers.join_next() => {}
                accepted = listener.accept() => match accepted {
                    // A device without power does not answer at all; to close at once is the nearest to it.
                    Ok(_) if !served.device.is_awake() || peers.len() > CHANNELS_MAX + REFUSALS_MAX => {}
                    Ok((stream, _)) => {
                        next_peer += 1;
                        let peer = Peer {
                            id: PeerId(next_peer),
                            device: to_device.clone(),
                            counters: counters.clone(),
                            channel: free_channels.clone().try_acquire_owned().ok(),
                        };
                        peers.spawn(serve(peer, stream));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
            }
        }
        served.channels.clear();
        drop(inbox);
        let all_gone = async { while peers.join_next().await.is_some() {} };
        // Those who are not gone by then are ended with the set.
        let _ = timeout(GOODBYE_TIMEOUT, all_gone).await;
    }
}

async fn serve(peer: Peer, stream: TcpStream) {
    // Without it answers are only slower.
    let _ = stream.set_nodelay(true);
    peer.serve(stream).await;
}

/// A device and those who talk to it.
struct Served {
    device: Device,
    guard: Option<Digest>,
    clock: FleetClock,
    spelling: Spelling,
    channels: HashMap<PeerId, Channel>,
    out: Vec<Output>,
}

impl Served {
    fn poll(&mut self) {
        self.device.poll(self.clock.now(), &mut self.out);
        self.dispatch(None);
    }

    fn handle(&mut self, message: ToDevice) {
        match message {
            ToDevice::Opened { peer, outbox } => {
                self.channels.insert(peer, Channel { outbox, src: None });
            }
            ToDevice::Gone { peer } => {
                self.channels.remove(&peer);
            }
            ToDevice::Frame { peer, text } => {
                if let Some(request) = Request::parse(&text) {
                    self.handle_request(peer, &request);
                }
            }
            ToDevice::Http {
                head,
                route,
                body,
                answer,
            } => {
                let response = self.respond(&head, route, &body);
                self.dispatch(None);
                // The peer may have left meanwhile.
                let _ = answer.send(response);
            }
        }
    }

    fn handle_request(&mut self, peer: PeerId, request: &Request) {
        if let (Some(channel), Some(src)) = (self.channels.get_mut(&peer), &request.src) {
            channel.src = Some(src.clone());
        }
        let signature = request.auth.as_ref().and_then(Signature::from_frame);
        let answer = match self.judge(&request.method, signature.as_ref(), WEBSOCKET_HA2) {
            Ok(()) => self.call(&request.method, &request.params, Door::LanWebSocket),
            Err(denial) => Err(denial.to_rpc_error(self.spelling)),
        };
        let reply = Output::Reply(request.reply(self.device.id().as_str(), answer));
        let place = if self.device.replies_first() {
            0
        } else {
            self.out.len()
        };
        self.out.insert(place, reply);
        self.dispatch(Some(peer));
    }

    fn respond(&mut self, head: &Head, route: Route, body: &[u8]) -> Response {
        let ha2 = http_ha2(&head.method, &head.uri);
        let signature = head
            .authorization
            .as_deref()
            .and_then(|value| Signature::from_header(value, &head.uri));
        match route {
            Route::Info => match self.call("Shelly.GetDeviceInfo", &Map::new(), Door::Http) {
                Ok(info) => Response::ok(info.to_string()),
                Err(error) => Response::error(&error),
            },
            Route::Method { name, params } => match self.judge(&name, signature.as_ref(), &ha2) {
                Ok(()) => match self.call(&name, &params, Door::Http) {
                    Ok(result) => Response::ok(result.to_string()),
                    Err(error) => Response::error(&error),
                },
                Err(denial) => self.deny(&denial),
            },
            Route::Frame => {
                let request = std::str::from_utf8(body).ok().and_then(Request::parse);
                // Clients that expect a challenge send an empty body first: it has to be challenged, too.
                let method = request.as_ref().map_or("", |request| request.method.as_str());
                match (self.judge(method, signature.as_ref(), &ha2), request) {
                    (Ok(()), Some(request)) => {
                        let answer = self.call(&request.method, &request.params, Door::Http);
                        Response::ok(request.reply(self.device.id().as_str(), answer))
                    }
                    (Ok(()), None) => Response::empty(400),
                    (Err(denial), _) => self.deny(&denial),
                }
            }
            Route::WebSocket(_) | Route::Nothing(_) => Response::empty(404),
        }
    }

    fn deny(&self, denial: &Denial) -> Response {
        let mut response = Response::error(&denial.to_rpc_error(self.spelling));
        if let Denial::Challenge(challenge) = denial {
            response.challenge = Some(challenge.to_header(self.spelling));
        }
        response
    }

    /// Whether the call may be carried out. Who the device is, it tells anyone.
    fn judge(&mut self, method: &str, signature: Option<&Signature>, ha2: &str) -> Result<(), Denial> {
        match &mut self.guard {
            Some(guard) if !method.eq_ignore_ascii_case("Shelly.GetDeviceInfo") => {
                guard.judge(self.clock.now(), signature, ha2)
            }
            _ => Ok(()),
        }
    }

    fn call(&mut self, method: &str, params: &Map<String, Value>, door: Door) -> Result<Value, RpcError> {
        self.device
            .call(self.clock.now(), method, params, door, &mut self.out)
    }

    /// Hands out what the device wants: answers to `asker`, the rest to everyone who gave a name.
    fn dispatch(&mut self, asker: Option<PeerId>) {
        for output in self.out.drain(..) {
            match output {
                Output::Reply(text) => {
                    if let Some(channel) = asker.and_then(|peer| self.channels.get(&peer)) {
                        send(channel, ToPeer::Frame(Sent::Reply, text));
                    }
                }
                Output::Notify(notification) => {
                    for channel in self.channels.values() {
                        if let Some(src) = &channel.src {
                            let sent = Sent::Notification(notification.kind());
                            send(channel, ToPeer::Frame(sent, notification.to_json(src)));
                        }
                    }
                }
                Output::Slow { lasting, delay } => {
                    self.channels
                        .values()
                        .for_each(|channel| send(channel, ToPeer::Slow { lasting, delay }));
                }
                Output::Close(ending) => {
                    self.channels
                        .values()
                        .for_each(|channel| send(channel, ToPeer::Close(ending)));
                    // A vanished connection holds its queue open to learn when the fleet stops.
                    if ending != Ending::Vanish {
                        self.channels.clear();
                    }
                }
            }
        }
    }
}

/// Queues for a connection. What does not fit is dropped, as firmware does with what it cannot deliver.
fn send(channel: &Channel, message: ToPeer) {
    if channel.outbox.try_send(message).is_err() {
        tracing::debug!(limit = OUTBOX_FRAMES, "a peer reads too slowly: frame dropped");
    }
}
