//! Who reads what the plugs say: clients in the rooms of devices, each with a ledger for each plug.
//!
//! An update belongs to a frame if the stamp is among what changed; the others are the broker's own, which learns a plug's make
//! by asking, and are counted apart.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cauce_fleet::Timestamp;
use cauce_protocol::wire as proto;
use hdrhistogram::Histogram;
use prost::Message as _;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::way::Way;
use super::{Shared, note};
use crate::clock::as_ns;
use crate::engine::{close_words, histogram};
use crate::ledger::{Ledger, Seen};
use crate::poll::{Interest, Poller, Wait};
use crate::socket::{BUFFER_BYTES, READ_BYTES, Socket};
use crate::tls::Handshakes;
use crate::wire;

/// For a watcher to be let in: to connect and to upgrade, and then to the answer to subscribe.
const JOINING: Duration = Duration::from_secs(10);
/// To hello and to subscribe.
const ANSWERS: u8 = 2;
const FRAME_BYTES_MAX: usize = READ_BYTES - 16;

/// The part of a `device-update` that is looked at.
#[derive(Deserialize)]
struct Update<'a> {
    device: &'a str,
    changed: Changed,
    state: Stamped,
}

#[derive(Deserialize)]
struct Changed {
    x_sent: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Stamped {
    x_sent: Option<Stamp>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
struct Stamp {
    us: u64,
    n: u64,
}

/// The device and the stamp of an update that a frame has caused.
fn stamp_of(payload: &[u8]) -> Option<(&str, Stamp)> {
    let update: Update<'_> = serde_json::from_slice(payload).ok()?;
    update.changed.x_sent?;
    Some((update.device, update.state.x_sent?))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// So many answers are missing.
    Joining(u8),
    Ready,
}

/// A watcher to be.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) token: String,
    pub(super) rooms: Vec<String>,
    /// Whose updates it gets in them.
    pub(super) plugs: Vec<u32>,
}

struct Watcher {
    socket: Option<Socket>,
    stage: Stage,
    rooms: Vec<String>,
    token: String,
    /// The broker's number for a room and the last message's in it.
    joined: Vec<(u64, u64)>,
    /// By plug; empty for those it does not watch.
    ledgers: HashMap<u32, Ledger>,
}

/// What the watchers read.
#[derive(Debug)]
pub(super) struct Heard {
    /// Updates that frames have caused, each once for each watcher.
    pub(super) updates: u64,
    pub(super) in_window: u64,
    /// Other messages of the rooms.
    pub(super) others: u64,
    pub(super) latency: Histogram<u64>,
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
    pub(super) sequence_breaks: u64,
    pub(super) told_lost: u64,
    /// Updates of devices that are not ours.
    pub(super) foreign: u64,
    pub(super) disconnected: u64,
    pub(super) handshakes: Handshakes,
    pub(super) reasons: BTreeMap<String, u64>,
    /// On reading in the measurement.
    pub(super) spent: Duration,
}

pub(super) struct Watchers {
    shared: Arc<Shared>,
    watchers: Vec<Watcher>,
    /// Plugs by their name.
    plugs: HashMap<String, u32>,
    poller: Poller,
    buffer: Vec<u8>,
    heard: Heard,
}

impl Watchers {
    /// Connects one watcher for each seat, and waits until it has joined its rooms. `names` are the plugs'.
    ///
    /// # Errors
    /// If one is not let in; in words for people.
    pub(super) fn join(
        way: &Way,
        seats: Vec<Seat>,
        names: &[String],
        shared: Arc<Shared>,
    ) -> Result<Self, String> {
        let plugs = names.iter().cloned().zip(0..).collect();
        let mut all = Self {
            shared,
            watchers: Vec::with_capacity(seats.len()),
            plugs,
            poller: Poller::new().map_err(|e| e.to_string())?,
            buffer: vec![0; BUFFER_BYTES],
            heard: Heard {
                updates: 0,
                in_window: 0,
                others: 0,
                latency: histogram(),
                lost: 0,
                duplicates: 0,
                reordered: 0,
                sequence_breaks: 0,
                told_lost: 0,
                foreign: 0,
                disconnected: 0,
                handshakes: Handshakes::default(),
                reasons: BTreeMap::new(),
                spent: Duration::ZERO,
            },
        };
        for Seat { token, rooms, plugs } in seats {
            let ledgers = plugs.into_iter().map(|plug| (plug, Ledger::default()));
            all.watchers.push(Watcher {
                socket: None,
                stage: Stage::Joining(ANSWERS),
                rooms,
                token,
                joined: Vec::new(),
                ledgers: ledgers.collect(),
            });
            all.dial(way)
                .map_err(|e| format!("who watches the plugs was not let in: {e}"))?;
        }
        Ok(all)
    }

    /// Connects the newest watcher, blocking until it has joined.
    fn dial(&mut self, way: &Way) -> Result<(), String> {
        let words = |e: std::io::Error| e.to_string();
        let at = self.watchers.len() - 1;
        let lines = format!(
            "Sec-WebSocket-Protocol: {}\r\n",
            cauce_protocol::SUBPROTOCOL_PROTO
        );
        let socket = way.upgrade("/v1/ws", &lines, JOINING, &mut self.buffer)?;
        if let Some(tls) = socket.tls() {
            self.heard.handshakes.count(tls.facts());
        }
        self.watchers[at].socket = Some(socket);
        self.introduce(at).map_err(words)?;
        let until = Instant::now() + JOINING;
        while self.watchers[at].stage != Stage::Ready {
            self.receive(at).map_err(words)?;
            if Instant::now() > until {
                return Err("no answer to hello and subscribe".to_owned());
            }
        }
        let Some(socket) = &self.watchers[at].socket else {
            return Err("it left at once".to_owned());
        };
        socket.stream.set_nonblocking(true).map_err(words)?;
        self.poller
            .add(&socket.stream, at as u64, Interest::Read)
            .map_err(words)
    }

    pub(super) fn poller(&self) -> &Poller {
        &self.poller
    }

    /// What was heard, of so many frames of each plug.
    pub(super) fn finish(mut self, sent: &[u64]) -> Heard {
        self.heard.lost = self.missing(sent.iter().copied());
        for ledger in self.watchers.iter().flat_map(|watcher| watcher.ledgers.values()) {
            self.heard.duplicates += u64::from(ledger.doubles);
            self.heard.reordered += u64::from(ledger.late);
        }
        self.heard
    }

    /// Updates that have not come yet, where each plug has sent so many frames.
    pub(super) fn missing(&self, sent: impl Iterator<Item = u64>) -> u64 {
        let sent: Vec<u64> = sent.collect();
        let ledgers = self.watchers.iter().flat_map(|watcher| &watcher.ledgers);
        let missing =
            ledgers.map(|(&plug, ledger)| ledger.lost(sent.get(plug as usize).copied().unwrap_or(0)));
        missing.sum()
    }

    /// Reads from those for whom something has come, and calls `between` after each.
    pub(super) fn hear(&mut self, between: &mut dyn FnMut()) {
        // It fails only for a descriptor that is not one.
        let events = self.poller.wait(Wait::Not).unwrap_or(0);
        for event in 0..events {
            let Some(ready) = self.poller.ready(event) else {
                continue;
            };
            let (at, since) = (ready.key as usize, self.shared.clock.now());
            if let Err(error) = self.receive(at)
                && self.watchers[at].socket.take().is_some()
            {
                self.heard.disconnected += 1;
                note(&mut self.heard.reasons, format!("who watches: {error}"));
            }
            if self.shared.measures(since) {
                self.heard.spent += self.shared.clock.now().since(since);
            }
            between();
        }
    }

    fn receive(&mut self, at: usize) -> std::io::Result<()> {
        let Some(socket) = &mut self.watchers[at].socket else {
            return Ok(());
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let filled = socket.fill(&mut buffer);
        let outcome = filled.and_then(|filled| filled.map_or(Ok(()), |end| self.read(at, &buffer[..end])));
        self.buffer = buffer;
        outcome
    }

    fn read(&mut self, at: usize, input: &[u8]) -> std::io::Result<()> {
        let now = self.shared.clock.now();
        let mut from = 0;
        while let Some(frame) = wire::frame(&input[from..], FRAME_BYTES_MAX).map_err(std::io::Error::other)? {
            let payload = &input[from + frame.payload.start..from + frame.payload.end];
            from += frame.payload.end;
            match frame.opcode {
                wire::BINARY => {
                    let mut rest = payload;
                    while !rest.is_empty() {
                        let message = wire::take_message(&mut rest)
                            .ok_or_else(|| std::io::Error::other("a frame that ends in the middle"))?;
                        match wire::push(message) {
                            Some(push) => self.pushed(at, &push, now),
                            None => self.told(at, message)?,
                        }
                    }
                }
                wire::PING => {
                    let mut pong = Vec::new();
                    wire::put_client_frame(&mut pong, wire::PONG, payload);
                    self.write(at, &pong)?;
                }
                wire::CLOSE => return Err(std::io::Error::other(close_words(payload))),
                _ => {}
            }
        }
        self.keep(at, &input[from..])
    }

    fn keep(&mut self, at: usize, rest: &[u8]) -> std::io::Result<()> {
        if let Some(socket) = &mut self.watchers[at].socket {
            socket.keep(rest);
        }
        Ok(())
    }

    /// A watcher writes so little that what the kernel does not take is as good as a broken connection.
    fn write(&mut self, at: usize, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.watchers[at].socket {
            Some(socket) => socket.write_or_queue(bytes).map(|_| ()),
            None => Ok(()),
        }
    }

    fn introduce(&mut self, at: usize) -> std::io::Result<()> {
        let watcher = &self.watchers[at];
        let hello = proto::Hello {
            version: cauce_protocol::VERSION,
            features: (proto::Feature::Advance as u64) | (proto::Feature::Gap as u64),
            token: watcher.token.clone(),
            client: "loadtest".into(),
            previous: Vec::new(),
        };
        let subscriptions = watcher.rooms.iter().map(|room| proto::Subscription {
            room: room.clone(),
            ..proto::Subscription::default()
        });
        let subscribe = proto::Subscribe {
            subscriptions: subscriptions.collect(),
            ..proto::Subscribe::default()
        };
        let mut out = wire::request(1, proto::client_frame::Request::Hello(hello));
        out.extend(wire::request(
            2,
            proto::client_frame::Request::Subscribe(subscribe),
        ));
        self.write(at, &out)
    }

    fn pushed(&mut self, at: usize, push: &wire::Push<'_>, now: Timestamp) {
        let watcher = &mut self.watchers[at];
        match watcher.joined.iter_mut().find(|(number, _)| *number == push.room) {
            Some((_, seq)) => {
                self.heard.sequence_breaks += u64::from(push.seq != *seq + 1);
                *seq = push.seq.max(*seq);
            }
            None => self.heard.foreign += 1,
        }
        let Some((device, stamp)) = stamp_of(push.payload) else {
            self.heard.others += 1;
            return;
        };
        let ledger = self
            .plugs
            .get(device)
            .and_then(|plug| watcher.ledgers.get_mut(plug));
        let Some(ledger) = ledger else {
            self.heard.foreign += 1;
            return;
        };
        if stamp.n == 0 {
            self.shared.greeted();
        }
        if ledger.see(stamp.n) == Seen::Double {
            return;
        }
        self.heard.updates += 1;
        let due = Timestamp::from_micros(stamp.us);
        if self.shared.measures(due) {
            self.heard.in_window += 1;
            self.heard.latency.saturating_record(as_ns(now.since(due)));
        }
    }

    /// Anything but a push.
    fn told(&mut self, at: usize, message: &[u8]) -> std::io::Result<()> {
        use proto::reply::Outcome;
        use proto::server_frame::Message;
        let frame = proto::ServerFrame::decode(message).map_err(std::io::Error::other)?;
        let watcher = &mut self.watchers[at];
        let mut skip = |room: u64, to: u64| {
            let joined = watcher.joined.iter_mut();
            if let Some((_, seq)) = joined.into_iter().find(|(number, _)| *number == room) {
                *seq = to;
            }
        };
        let refused = |error: Option<proto::Error>, what: &str| {
            let error = error.unwrap_or_default();
            std::io::Error::other(format!("{what}: {} ({})", error.message, error.name))
        };
        match frame.message {
            Some(Message::Reply(reply)) => match reply.outcome {
                Some(Outcome::Error(error)) => return Err(refused(Some(error), "refused")),
                Some(Outcome::Welcome(_)) => watcher.answered(),
                Some(Outcome::Subscribed(subscribed)) => {
                    let rooms = subscribed.rooms.iter();
                    watcher.joined = rooms.map(|room| (room.room, room.seq)).collect();
                    watcher.answered();
                }
                _ => {}
            },
            Some(Message::Goaway(goaway)) => return Err(refused(goaway.error, "goaway")),
            Some(Message::Ended(ended)) => return Err(refused(ended.error, "subscription ended")),
            Some(Message::Gap(gap)) => {
                self.heard.told_lost += gap.to.saturating_sub(gap.from) + 1;
                skip(gap.room, gap.to);
            }
            Some(Message::Advance(advance)) => skip(advance.room, advance.seq),
            _ => {}
        }
        Ok(())
    }
}

impl Watcher {
    fn answered(&mut self) {
        self.stage = match self.stage {
            Stage::Joining(2..) => Stage::Joining(1),
            _ => Stage::Ready,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_belongs_to_a_frame_if_the_stamp_has_changed() {
        let of = |changed: &str| {
            let update = format!(
                r#"{{"device":"AABB","src":"x","changed":{changed},"state":{{"sys":{{}},"x_sent":{{"us":7,"n":3}}}},"readings":[]}}"#
            );
            stamp_of(update.as_bytes()).map(|(device, stamp)| (device.to_owned(), stamp.n))
        };
        let frame = Some(("AABB".to_owned(), 3));
        assert_eq!(of(r#"{"switch:0":{"apower":1},"x_sent":{"us":7,"n":3}}"#), frame);
        // Two frames were due at the same moment: the number alone has changed.
        assert_eq!(of(r#"{"x_sent":{"n":3}}"#), frame);
        // The broker has learnt the make, derived a zero, or asked for the status and got one without a stamp.
        assert_eq!(of("{}"), None);
        assert_eq!(of(r#"{"switch:0":{"apower":0}}"#), None);
        assert_eq!(of(r#"{"x_sent":null}"#), None);
    }

    #[test]
    fn what_is_no_update_has_no_stamp() {
        for payload in [&b""[..], b"{}", br#"{"device":"A","online":false}"#, b"\xff"] {
            assert_eq!(stamp_of(payload), None);
        }
    }
}
