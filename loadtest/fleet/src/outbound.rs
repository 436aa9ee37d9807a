//! The driver of a device that dials out: carries bytes and time between a socket and a pure [`Device`], and
//! decides nothing that the device could decide. One task per device.

use crate::backoff::Backoff;
use crate::device::{Device, Ending, Output};
use crate::rng::Rng;
use crate::stats::{Counters, Sent};
use crate::target::{DialError, Offer, SecretUrl, Socket, Target};
use crate::time::{FleetClock, Timestamp};
use futures_util::{SinkExt as _, StreamExt as _};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

/// Name of the server in frames on an outbound connection.
const OUTBOUND_DST: &str = "ws";
/// A dial that takes longer has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that takes no bytes for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a device waits for the server's side of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a half-open socket is held before the kernel may end it after all.
const HALF_OPEN_HOLD: Duration = Duration::from_secs(600);
/// Most half-open sockets of one device.
const HALF_OPEN_MAX: usize = 4;

/// What one device's task needs.
pub(crate) struct Driver {
    pub(crate) device: Device,
    pub(crate) clock: FleetClock,
    pub(crate) target: Arc<Target>,
    pub(crate) url: SecretUrl,
    pub(crate) counters: Arc<Counters>,
    /// Becomes true when the fleet stops.
    pub(crate) stop: watch::Receiver<bool>,
    /// Chance that belongs to the connection, not to the device: how often a server is away may not change
    /// what a device says.
    pub(crate) rng: Rng,
    /// When to dial for the first time.
    pub(crate) first_dial: Timestamp,
}

/// A link that got slow: how much, and until when.
#[derive(Clone, Copy, Debug)]
struct Slowness {
    delay: Duration,
    until: Instant,
}

/// A connection, as seen by its driver.
struct Session {
    socket: Socket,
    slowness: Option<Slowness>,
}

/// How a session came to its end.
enum SessionEnd {
    /// The device ended it in this way; the socket is still here.
    Device(Ending, Box<Session>),
    /// The peer or the network did.
    Lost(&'static str),
    /// The fleet stops.
    Stopped(Box<Session>),
}

/// A wait that ended early because the fleet stops.
struct Stopped;

impl Driver {
    /// Runs until the fleet stops. Dropping the future instead ends the device without a close, and frames of
    /// that moment may be on their way uncounted.
    pub(crate) async fn run(mut self) {
        let offer = Offer::draw(&mut self.rng);
        let mut backoff = Backoff::new();
        let mut graveyard: VecDeque<(Instant, Box<Session>)> = VecDeque::new();
        let mut dial_at = self.first_dial;
        loop {
            let Ok(()) = self.wait_to_dial(dial_at).await else {
                return;
            };
            let Ok(dialled) = self.dial(offer).await else {
                return;
            };
            let socket = match dialled {
                Ok(socket) => socket,
                Err(error) => {
                    self.counters.connect_failed();
                    tracing::debug!(device = %self.device.id(), %error, "dial failed");
                    dial_at = self.clock.now().plus(backoff.next_delay(&mut self.rng));
                    continue;
                }
            };
            self.counters.connected();
            let connected_at = self.clock.now();
            let end = self
                .session(Box::new(Session {
                    socket,
                    slowness: None,
                }))
                .await;
            self.device.disconnected();
            self.counters.disconnected();
            match end {
                SessionEnd::Stopped(session) => return session.bye(CloseCode::Away, "fleet stopped").await,
                SessionEnd::Device(Ending::Bye, session) => session.bye(CloseCode::Normal, "Bye").await,
                SessionEnd::Device(Ending::Drop, session) => session.hang_up().await,
                SessionEnd::Device(Ending::Vanish, session) => {
                    self.counters.went_half_open();
                    graveyard.push_back((Instant::now(), session));
                }
                SessionEnd::Lost(why) => tracing::debug!(device = %self.device.id(), why, "connection lost"),
            }
            graveyard.retain(|(died_at, _)| died_at.elapsed() < HALF_OPEN_HOLD);
            if graveyard.len() > HALF_OPEN_MAX {
                graveyard.pop_front();
            }
            let now = self.clock.now();
            backoff.connection_ended(now.since(connected_at));
            dial_at = now.plus(backoff.next_delay(&mut self.rng));
        }
    }

    /// Lets time pass for the device until it is awake and `dial_at` has come.
    async fn wait_to_dial(&mut self, dial_at: Timestamp) -> Result<(), Stopped> {
        let mut out = Vec::new();
        loop {
            self.device.poll(self.clock.now(), &mut out);
            // Without a connection there is nobody to tell.
            out.clear();
            let until = if self.device.is_awake() {
                dial_at
            } else {
                self.device.next_wakeup()
            };
            let now = self.clock.now();
            if self.device.is_awake() && until <= now {
                return Ok(());
            }
            // A device that wakes up dials at once; one that is awake keeps its steps while it waits.
            let until = until.min(self.device.next_wakeup().max(now.plus(Duration::from_millis(1))));
            let Some(instant) = self.clock.instant_at(until) else {
                stopped(&mut self.stop).await;
                return Err(Stopped);
            };
            tokio::select! {
                () = sleep_until(instant.into()) => {}
                () = stopped(&mut self.stop) => return Err(Stopped),
            }
        }
    }

    async fn dial(&mut self, offer: Offer) -> Result<Result<Socket, DialError>, Stopped> {
        let (target, url) = (self.target.clone(), self.url.clone());
        let dial = timeout(DIAL_TIMEOUT, target.dial(&url, offer));
        tokio::select! {
            dialled = dial => Ok(dialled.unwrap_or(Err(DialError::Other("the server did not answer in time")))),
            () = stopped(&mut self.stop) => Err(Stopped),
        }
    }

    async fn session(&mut self, mut session: Box<Session>) -> SessionEnd {
        let mut out = Vec::new();
        self.device.connected(self.clock.now(), &mut out);
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        loop {
            match session.perform(&mut out, &self.counters).await {
                Ok(None) => {}
                Ok(Some(ending)) => return SessionEnd::Device(ending, session),
                Err(why) => return SessionEnd::Lost(why),
            }
            match self.clock.instant_at(self.device.next_wakeup()) {
                Some(instant) => timer.as_mut().reset(instant.into()),
                None => timer.as_mut().reset(Instant::now() + HALF_OPEN_HOLD),
            }
            tokio::select! {
                () = stopped(&mut self.stop) => return SessionEnd::Stopped(session),
                () = &mut timer => self.device.poll(self.clock.now(), &mut out),
                message = session.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        self.counters.received(text.len());
                        session.linger().await;
                        self.device.handle_frame(self.clock.now(), text.as_str(), &mut out);
                    }
                    // Pings are answered by the library; a device ignores binary frames.
                    Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Close(_))) => return SessionEnd::Lost("closed by the server"),
                    Some(Err(error)) => return SessionEnd::Lost(describe(&error)),
                    None => return SessionEnd::Lost("ended by the server"),
                },
            }
        }
    }
}

impl Session {
    /// Carries out what the device wants, and empties `out`. Frames are counted once they are flushed: those
    /// of a failed flush are not, though the last may have got through.
    async fn perform(
        &mut self,
        out: &mut Vec<Output>,
        counters: &Counters,
    ) -> Result<Option<Ending>, &'static str> {
        let mut handed_over: Vec<(Sent, usize)> = Vec::with_capacity(out.len());
        let mut ending = None;
        for output in out.drain(..) {
            let (what, text) = match output {
                Output::Reply(text) => (Sent::Reply, text),
                Output::Notify(notification) => (
                    Sent::Notification(notification.kind()),
                    notification.to_json(OUTBOUND_DST),
                ),
                Output::Close(how) => {
                    ending = Some(how);
                    break;
                }
                Output::Slow { lasting, delay } => {
                    self.slowness = Some(Slowness {
                        delay,
                        until: Instant::now() + lasting,
                    });
                    continue;
                }
            };
            self.linger().await;
            let bytes = text.len();
            within_time(self.socket.feed(Message::Text(text.into()))).await?;
            handed_over.push((what, bytes));
        }
        if !handed_over.is_empty() {
            within_time(self.socket.flush()).await?;
            for (what, bytes) in handed_over {
                counters.sent(what, bytes);
            }
        }
        Ok(ending)
    }

    /// Waits as long as a slow link takes for one frame.
    async fn linger(&mut self) {
        if let Some(slowness) = self.slowness {
            if Instant::now() < slowness.until {
                tokio::time::sleep(slowness.delay).await;
            } else {
                self.slowness = None;
            }
        }
    }

    /// Closes with a WebSocket close, and waits a moment for the server's.
    async fn bye(mut self: Box<Self>, code: CloseCode, reason: &'static str) {
        let close = CloseFrame {
            code,
            reason: reason.into(),
        };
        let goodbye = async {
            if self.socket.close(Some(close)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        // Too late an answer is no answer; the socket is dropped either way.
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
    }

    /// Ends TCP without a WebSocket close. What was sent before still arrives: unread bytes on our side would
    /// turn the FIN into an RST, which may discard it, so they are read first.
    async fn hang_up(mut self: Box<Self>) {
        let hang_up = async {
            if self.socket.get_mut().shutdown().await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, hang_up).await;
    }
}

/// Returns when the fleet stops. Cancel-safe.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the fleet was dropped, which stops it too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn within_time(write: impl Future<Output = Result<(), WsError>>) -> Result<(), &'static str> {
    match timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => Err("the server takes no bytes"),
    }
}

/// What went wrong, without anything a peer or a URL put into the error.
fn describe(error: &WsError) -> &'static str {
    match error {
        WsError::ConnectionClosed | WsError::AlreadyClosed => "closed",
        WsError::Io(_) => "network error",
        WsError::Tls(_) => "TLS error",
        WsError::Capacity(_) => "the server sent too large a frame",
        WsError::Protocol(_) => "the server broke the WebSocket protocol",
        WsError::Utf8(_) => "the server sent text that is not UTF-8",
        _ => "failed",
    }
}
