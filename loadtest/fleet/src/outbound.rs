//! The driver of a device that dials out: carries bytes and time between a socket and a pure [`Device`], and
//! decides nothing that the device could decide. One task per device.

use crate::backoff::Backoff;
use crate::device::{Device, Ending, Output};
use crate::rng::Rng;
use crate::secret::SecretUrl;
use crate::session::{HALF_OPEN_HOLD, Session};
use crate::stats::{Counters, Sent};
use crate::stop::Stop;
use crate::target::{DialError, Offer, Socket, Stream, Target};
use crate::time::{FleetClock, Timestamp};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Name of the server in frames on an outbound connection.
const OUTBOUND_DST: &str = "ws";
/// A dial that takes longer has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most half-open sockets of one device.
const HALF_OPEN_MAX: usize = 4;

type OutboundSession = Box<Session<Stream>>;

/// What one device's task needs.
pub(crate) struct Driver {
    pub(crate) device: Device,
    pub(crate) clock: FleetClock,
    pub(crate) target: Arc<Target>,
    pub(crate) url: SecretUrl,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: Stop,
    /// Chance that belongs to the connection, not to the device: how often a server is away may not change
    /// what a device says.
    pub(crate) rng: Rng,
    /// When to dial for the first time.
    pub(crate) first_dial: Timestamp,
}

/// How a session came to its end.
enum SessionEnd {
    /// The device ended it in this way; the socket is still here.
    Device(Ending, OutboundSession),
    /// The peer or the network did.
    Lost(&'static str),
    /// The fleet stops.
    Stopped(OutboundSession),
}

/// A wait that ended early because the fleet stops.
struct Stopped;

impl Driver {
    /// Runs until the fleet stops. Dropping the future instead ends the device without a close, and frames of
    /// that moment may be on their way uncounted.
    pub(crate) async fn run(mut self) {
        let offer = Offer::draw(&mut self.rng);
        let mut backoff = Backoff::new();
        let mut graveyard: VecDeque<(Instant, OutboundSession)> = VecDeque::new();
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
            let end = self.session(Box::new(Session::new(socket))).await;
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
                self.stop.stopped().await;
                return Err(Stopped);
            };
            tokio::select! {
                () = sleep_until(instant.into()) => {}
                () = self.stop.stopped() => return Err(Stopped),
            }
        }
    }

    async fn dial(&mut self, offer: Offer) -> Result<Result<Socket, DialError>, Stopped> {
        let (target, url) = (self.target.clone(), self.url.clone());
        let dial = timeout(DIAL_TIMEOUT, target.dial(&url, offer));
        tokio::select! {
            dialled = dial => Ok(dialled.unwrap_or(Err(DialError::Other("the server did not answer in time")))),
            () = self.stop.stopped() => Err(Stopped),
        }
    }

    async fn session(&mut self, mut session: OutboundSession) -> SessionEnd {
        let mut out = Vec::new();
        self.device.connected(self.clock.now(), &mut out);
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        loop {
            let ending = take_ending(&mut out);
            for output in &out {
                if let Output::Slow { lasting, delay } = output {
                    session.slow_down(*lasting, *delay);
                }
            }
            if let Err(why) = session
                .send(out.drain(..).filter_map(frame_of), &self.counters)
                .await
            {
                return SessionEnd::Lost(why);
            }
            if let Some(ending) = ending {
                return SessionEnd::Device(ending, session);
            }
            // A device always has something planned; far off, so that the timer takes it, is as good as never.
            let wakeup = self.clock.instant_at(self.device.next_wakeup());
            timer
                .as_mut()
                .reset(wakeup.map_or_else(|| Instant::now() + HALF_OPEN_HOLD, Instant::from));
            tokio::select! {
                () = self.stop.stopped() => return SessionEnd::Stopped(session),
                () = &mut timer => self.device.poll(self.clock.now(), &mut out),
                received = session.receive(&self.counters) => match received {
                    Ok(text) => {
                        session.linger().await;
                        self.device.handle_frame(self.clock.now(), &text, &mut out);
                    }
                    Err(why) => return SessionEnd::Lost(why),
                },
            }
        }
    }
}

/// Cuts `out` off at the first close, behind which nothing may be sent, and returns how it closes.
fn take_ending(out: &mut Vec<Output>) -> Option<Ending> {
    let place = out.iter().position(|output| matches!(output, Output::Close(_)))?;
    match out.drain(place..).next() {
        Some(Output::Close(ending)) => Some(ending),
        _ => None,
    }
}

fn frame_of(output: Output) -> Option<(Sent, String)> {
    match output {
        Output::Reply(text) => Some((Sent::Reply, text)),
        Output::Notify(notification) => Some((
            Sent::Notification(notification.kind()),
            notification.to_json(OUTBOUND_DST),
        )),
        Output::Close(_) | Output::Slow { .. } => None,
    }
}
