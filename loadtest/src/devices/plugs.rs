//! The emulated plugs: pure devices of the fleet, driven with one epoll, as the engine drives its clients, and one frame at a time.
//!
//! What must stay true: a frame is due by its plug's own schedule, whatever became of the frames before it; it carries when it
//! was due and its number; it counts as sent once it was made, so that what a lost connection could not say is lost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cauce_fleet::{Cadence, Device, FrameKind, ModelMix, Output, Setup, Stamp, Timestamp};
use hdrhistogram::Histogram;

use super::way::Way;
use super::{Shared, note};
use crate::clock::as_ns;
use crate::engine::{close_words, histogram};
use crate::poll::{Interest, Poller, Wait};
use crate::socket::{BUFFER_BYTES, Flushed, READ_BYTES, Socket};
use crate::tls::Handshakes;
use crate::wire;

/// The name that plugs give the server in their frames.
const SERVER: &str = "ws";
/// For connecting, and for the answers to the handshakes.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest frame of the server: a call with its parameters.
const FRAME_BYTES_MAX: usize = READ_BYTES - 16;

/// What the plugs are to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) plugs: u32,
    pub(super) frames_per_second: f64,
    pub(super) models: String,
    pub(super) seed: u64,
    pub(super) ramp: Duration,
    pub(super) way: Way,
}

struct Plug {
    device: Device,
    socket: Option<Socket>,
    interest: Interest,
    /// When it wants to be polled next.
    planned: Timestamp,
    /// Frames with a stamp so far.
    stamped: u64,
}

/// What the plugs did.
#[derive(Debug)]
pub(super) struct Sent {
    /// Frames with a stamp, of each plug.
    pub(super) stamped: Vec<u64>,
    /// All frames, answers to the server's questions among them.
    pub(super) frames: u64,
    /// Those with a stamp that were due within the measurement.
    pub(super) in_window: u64,
    /// How much later than due the frames of the measurement were made.
    pub(super) lateness: Histogram<u64>,
    pub(super) disconnected: u64,
    pub(super) handshakes: Handshakes,
    pub(super) reasons: BTreeMap<String, u64>,
    /// On the measurement's frames and answers.
    pub(super) spent: Duration,
}

pub(super) struct Plugs {
    plan: Plan,
    shared: Arc<Shared>,
    plugs: Vec<Plug>,
    /// How many have connected, and since when they do.
    connected: usize,
    began: Option<Timestamp>,
    /// Who wants to be polled when. An entry that is not its plug's `planned` any more is passed over.
    order: BinaryHeap<Reverse<(Timestamp, usize)>>,
    poller: Poller,
    out: Vec<Output>,
    frames: Vec<u8>,
    buffer: Vec<u8>,
    sent: Sent,
}

impl Plugs {
    /// Makes the devices; nothing is dialled yet.
    ///
    /// # Errors
    /// If there are no such models, or they do not stay connected; in words for people.
    pub(super) fn new(plan: Plan, shared: Arc<Shared>) -> Result<Self, String> {
        let mix = ModelMix::parse(&plan.models).map_err(|e| format!("shape.models: {e}"))?;
        let now = shared.clock.now();
        let setup = Arc::new(Setup {
            seed: plan.seed,
            started_at: now,
            cadence: Cadence::Every(Duration::from_secs_f64(1.0 / plan.frames_per_second)),
            spread_over: NonZeroU32::new(plan.plugs),
            stamp: Stamp::DueTime,
            ..Setup::default()
        });
        let mut plugs = Vec::with_capacity(plan.plugs as usize);
        for index in 0..plan.plugs {
            let model = mix.model_of(index);
            let device = Device::new(Arc::clone(model), Arc::clone(&setup), index, now);
            if !model.has_outbound_websocket() || !device.is_awake() {
                return Err(format!(
                    "shape.models: {} does not stay connected; name models that do, as plugsg3",
                    model.name()
                ));
            }
            plugs.push(Plug {
                device,
                socket: None,
                interest: Interest::Read,
                planned: Timestamp::NEVER,
                stamped: 0,
            });
        }
        Ok(Self {
            plan,
            shared,
            plugs,
            connected: 0,
            began: None,
            order: BinaryHeap::new(),
            poller: Poller::new().map_err(|e| e.to_string())?,
            out: Vec::new(),
            frames: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            sent: Sent {
                stamped: Vec::new(),
                frames: 0,
                in_window: 0,
                lateness: histogram(),
                disconnected: 0,
                handshakes: Handshakes::default(),
                reasons: BTreeMap::new(),
                spent: Duration::ZERO,
            },
        })
    }

    /// Hardware addresses as the broker names devices, in the plugs' order.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.plugs.iter().map(|plug| plug.device.mac().to_upper_hex())
    }

    /// How long until the next plug is to connect; None when all have.
    pub(super) fn next_to_connect(&mut self) -> Option<Duration> {
        let all = self.plugs.len();
        if self.connected == all {
            return None;
        }
        let now = self.shared.clock.now();
        let began = *self.began.get_or_insert(now);
        let due = began.plus(self.plan.ramp.mul_f64(self.connected as f64 / all as f64));
        Some(due.since(now))
    }

    /// Connects it.
    ///
    /// # Errors
    /// If it is not let in; in words for people.
    pub(super) fn connect_next(&mut self, token: &str) -> Result<(), String> {
        let at = self.connected;
        self.connect(at, token)
            .map_err(|e| format!("plug {} of {} could not connect: {e}", at + 1, self.plugs.len()))?;
        self.connected += 1;
        Ok(())
    }

    /// # Errors
    /// If some that had connected are gone; in words for people.
    pub(super) fn all_connected(&self) -> Result<(), String> {
        match self.sent.reasons.iter().next() {
            None => Ok(()),
            Some((why, _)) => Err(format!("{} plugs were sent away: {why}", self.sent.disconnected)),
        }
    }

    /// Frames with a stamp so far, of each plug.
    pub(super) fn stamped(&self) -> impl Iterator<Item = u64> {
        self.plugs.iter().map(|plug| plug.stamped)
    }

    pub(super) fn poller(&self) -> &Poller {
        &self.poller
    }

    /// Blocks until the server has answered: plugs connect one after another, and before anything is measured.
    fn connect(&mut self, at: usize, token: &str) -> Result<(), String> {
        let words = |e: std::io::Error| e.to_string();
        let path = format!("/shelly?token={token}");
        let way = &self.plan.way;
        let socket = way.upgrade(&path, "", HANDSHAKE, &mut self.buffer)?;
        if let Some(tls) = socket.tls() {
            self.sent.handshakes.count(tls.facts());
        }
        socket.stream.set_nonblocking(true).map_err(words)?;
        self.poller
            .add(&socket.stream, at as u64, Interest::Read)
            .map_err(words)?;
        let now = self.shared.clock.now();
        let plug = &mut self.plugs[at];
        plug.socket = Some(socket);
        plug.device.connected(now, &mut self.out);
        self.say(at, now, None);
        self.plan_next(at);
        Ok(())
    }

    /// Lets one plug speak whose moment has come.
    pub(super) fn act(&mut self) {
        let now = self.shared.clock.now();
        while let Some(&Reverse((due, at))) = self.order.peek()
            && due <= now
        {
            self.order.pop();
            if self.plugs[at].planned != due || self.plugs[at].socket.is_none() {
                continue;
            }
            self.plugs[at].device.poll(now, &mut self.out);
            self.say(at, now, Some(due));
            self.plan_next(at);
            self.spend(now);
            break;
        }
    }

    /// What was begun at `since` is done.
    fn spend(&mut self, since: Timestamp) {
        if self.shared.measures(since) {
            self.sent.spent += self.shared.clock.now().since(since);
        }
    }

    fn plan_next(&mut self, at: usize) {
        let plug = &mut self.plugs[at];
        let next = plug.device.next_wakeup();
        if plug.socket.is_some() && plug.planned != next {
            plug.planned = next;
            self.order.push(Reverse((next, at)));
        }
    }

    /// How long until one has something to say, in nanoseconds.
    pub(super) fn due_in_ns(&self) -> u64 {
        match self.order.peek() {
            Some(&Reverse((due, _))) => as_ns(due.since(self.shared.clock.now())),
            None => u64::MAX,
        }
    }

    /// Writes what a plug has to say; `due` is when it was to be polled.
    fn say(&mut self, at: usize, now: Timestamp, due: Option<Timestamp>) {
        if self.out.is_empty() {
            return;
        }
        self.frames.clear();
        let plug = &mut self.plugs[at];
        let mut leaves = false;
        for output in self.out.drain(..) {
            let text = match output {
                Output::Reply(text) => text,
                Output::Notify(notification) => {
                    if matches!(
                        notification.kind(),
                        FrameKind::Full | FrameKind::Greeting | FrameKind::Status
                    ) {
                        plug.stamped += 1;
                        let due = due.unwrap_or(now);
                        if self.shared.measures(due) {
                            self.sent.in_window += 1;
                            self.sent.lateness.saturating_record(as_ns(now.since(due)));
                        }
                    }
                    notification.to_json(SERVER)
                }
                // What a peer may ask for, and no server does in a load test.
                Output::Close(_) => {
                    leaves = true;
                    break;
                }
                Output::Slow { .. } => continue,
            };
            self.sent.frames += 1;
            wire::put_client_frame(&mut self.frames, wire::TEXT, text.as_bytes());
        }
        let written = match &mut plug.socket {
            Some(socket) => socket.write_or_queue(&self.frames),
            None => return,
        };
        match written {
            Ok(flushed) => self.watch(at, flushed),
            Err(error) => self.lose(at, &error.to_string()),
        }
        if leaves {
            self.lose(at, "the plug was told to restart");
        }
    }

    /// Attends to the sockets that are ready, and calls `between` after each.
    pub(super) fn hear(&mut self, between: &mut dyn FnMut()) {
        // It fails only for a descriptor that is not one.
        let events = self.poller.wait(Wait::Not).unwrap_or(0);
        for event in 0..events {
            let Some(ready) = self.poller.ready(event) else {
                continue;
            };
            let (at, since) = (ready.key as usize, self.shared.clock.now());
            if ready.writable {
                self.flush(at);
            }
            if ready.readable
                && let Err(error) = self.receive(at)
            {
                self.lose(at, &error.to_string());
            }
            self.spend(since);
            between();
        }
    }

    fn flush(&mut self, at: usize) {
        match self.plugs[at].socket.as_mut().map(Socket::flush) {
            None => {}
            Some(Ok(flushed)) => self.watch(at, flushed),
            Some(Err(error)) => self.lose(at, &error.to_string()),
        }
    }

    fn watch(&mut self, at: usize, flushed: Flushed) {
        let plug = &mut self.plugs[at];
        let interest = match flushed {
            Flushed::All => Interest::Read,
            Flushed::Blocked => Interest::ReadWrite,
        };
        if plug.interest != interest
            && let Some(socket) = &plug.socket
        {
            plug.interest = interest;
            // It fails only for a socket that is gone, and reading finds that.
            let _ = self.poller.change(&socket.stream, at as u64, interest);
        }
    }

    /// Reads once, and lets the plug answer what it is asked.
    fn receive(&mut self, at: usize) -> std::io::Result<()> {
        let Some(socket) = &mut self.plugs[at].socket else {
            return Ok(());
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let filled = socket.fill(&mut buffer);
        let outcome = filled.and_then(|filled| filled.map_or(Ok(()), |end| self.read(at, &buffer[..end])));
        self.buffer = buffer;
        outcome
    }

    fn read(&mut self, at: usize, input: &[u8]) -> std::io::Result<()> {
        let mut from = 0;
        while let Some(frame) = wire::frame(&input[from..], FRAME_BYTES_MAX).map_err(std::io::Error::other)? {
            let payload = &input[from + frame.payload.start..from + frame.payload.end];
            from += frame.payload.end;
            match frame.opcode {
                wire::TEXT => {
                    let now = self.shared.clock.now();
                    let text = String::from_utf8_lossy(payload);
                    self.plugs[at].device.handle_frame(now, &text, &mut self.out);
                    self.say(at, now, None);
                    self.plan_next(at);
                }
                wire::PING => {
                    self.frames.clear();
                    wire::put_client_frame(&mut self.frames, wire::PONG, payload);
                    if let Some(socket) = &mut self.plugs[at].socket {
                        let flushed = socket.write_or_queue(&self.frames)?;
                        self.watch(at, flushed);
                    }
                }
                wire::CLOSE => return Err(std::io::Error::other(close_words(payload))),
                _ => {}
            }
        }
        if let Some(socket) = &mut self.plugs[at].socket {
            socket.keep(&input[from..]);
        }
        Ok(())
    }

    /// A plug that is gone stays away, and the run says so: it would be another run if it came back.
    fn lose(&mut self, at: usize, why: &str) {
        let plug = &mut self.plugs[at];
        if plug.socket.take().is_some() {
            plug.device.disconnected();
            self.sent.disconnected += 1;
            note(&mut self.sent.reasons, format!("a plug: {why}"));
        }
    }

    /// The kernel has taken everything.
    pub(super) fn is_flushed(&self) -> bool {
        let mut sockets = self.plugs.iter().filter_map(|plug| plug.socket.as_ref());
        sockets.all(Socket::is_flushed)
    }

    /// Ends all connections, and tells what was done.
    pub(super) fn hang_up(mut self) -> Sent {
        self.frames.clear();
        // 1001, going away.
        wire::put_client_frame(&mut self.frames, wire::CLOSE, &1001u16.to_be_bytes());
        for plug in &mut self.plugs {
            if let Some(mut socket) = plug.socket.take() {
                // The broker takes an end without a farewell as well.
                let _ = socket.write_or_queue(&self.frames);
            }
        }
        self.sent.stamped = self.plugs.iter().map(|plug| plug.stamped).collect();
        self.sent
    }
}
