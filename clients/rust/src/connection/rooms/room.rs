//! One room: where it stands, and what its readers are told of what comes.
//!
//! What must stay true: the position moves forwards only, within an epoch; no reader is told of a number twice; where every
//! message is due, whatever is missing between two numbers is told before the second.

use std::sync::Arc;
use std::time::Instant;

use cauce_protocol::message::Watch;
use cauce_protocol::{Epoch, Payload, Position, RoomName, Seq, wire};
use tokio::sync::oneshot;

use super::Membership;
use crate::error::Error;
use crate::event::{Continuity, Event, Message, SeqRange, State};
use crate::queue::Queue;
use crate::subscribe::{Manner, Start};

/// Where a reader begins: the position, and the room's last number at that moment.
pub(crate) type Joined = oneshot::Sender<Result<Beginning, Error>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beginning {
    pub(crate) position: Position,
    pub(crate) head: Seq,
}

#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: RoomName,
    pub(super) readers: Vec<Reader>,
    pub(super) membership: Membership,
    /// From the first join on, across connections; or what the application brought from before.
    pub(super) position: Option<Position>,
    /// The room's last number when it was last joined: up to there comes what is older than that join.
    head: Seq,
    /// For the first join, where there is no position yet: so many messages back.
    pub(super) recent: u32,
    pub(super) manner: Manner,
    /// What was last asked for. Raised by asking again; never lowered on a connection, which would cost more than it saves.
    pub(super) watch: Watch,
    /// With how many rooms at most it is asked for. Halved when a list was refused, until the guilty one stands alone.
    pub(super) together_max: usize,
    /// The number that stands for it in pushes of this connection.
    pub(super) number: Option<u64>,
    /// Asked for again on a connection that lives: readers need not know.
    pub(super) rejoins: bool,
    /// The last event name: most rooms repeat few, and sharing it saves a copy a message.
    event: Arc<str>,
}

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) queue: Arc<Queue<Event>>,
    pub(super) interest: Interest,
    /// Until the room is joined for this reader.
    pub(super) waiting: Option<Waiting>,
    /// Up to this number the messages are from before this reader's time.
    after: Seq,
}

/// What a reader wants of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Messages, and as much of presence.
    Messages(Watch),
    /// Who is there, and nothing else.
    PresenceOnly,
}

impl Interest {
    pub(super) fn watch(self) -> Watch {
        match self {
            Self::Messages(watch) => watch,
            Self::PresenceOnly => Watch::Users,
        }
    }
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) joined: Joined,
    pub(super) expires: Instant,
    pub(super) start: Start,
}

impl Room {
    pub(super) fn new(name: RoomName, manner: Manner, start: Start, together_max: usize) -> Self {
        let mut room = Self {
            name,
            readers: Vec::with_capacity(1),
            membership: Membership::Wanted,
            position: None,
            head: Seq(0),
            recent: 0,
            manner: Manner::default(),
            watch: Watch::None,
            together_max,
            number: None,
            rejoins: false,
            event: Arc::from(""),
        };
        room.begin(manner, start);
        room
    }

    /// Follows it in this way from here on. The number that no longer stands for it, if there was one: what comes under it is
    /// of the way before.
    pub(super) fn begin(&mut self, manner: Manner, start: Start) -> Option<u64> {
        (self.position, self.recent) = match start {
            Start::Now => (None, 0),
            Start::Recent(count) => (None, count),
            Start::Since(position) => (Some(position), 0),
        };
        self.manner = manner;
        self.number.take()
    }

    /// Whether it has readers, and none that wants its messages.
    pub(super) fn is_watched_only(&self) -> bool {
        let mut readers = self.readers.iter();
        !self.readers.is_empty() && readers.all(|reader| reader.interest == Interest::PresenceOnly)
    }

    /// What its readers want to know of presence.
    pub(super) fn watch_wanted(&self) -> Watch {
        let watches = self.readers.iter().map(|reader| reader.interest.watch());
        watches.max().unwrap_or_default()
    }

    /// Adds a reader; whether it has to wait for the room.
    pub(super) fn add(&mut self, queue: Arc<Queue<Event>>, interest: Interest, waiting: Waiting) -> bool {
        let mut reader = Reader {
            queue,
            interest,
            waiting: None,
            after: Seq(0),
        };
        match (self.membership, self.position) {
            (Membership::Joined, Some(position)) => {
                reader.after = self.head.max(position.seq);
                let position = Position {
                    seq: reader.after,
                    ..position
                };
                let _ = waiting.joined.send(Ok(Beginning {
                    position,
                    head: position.seq,
                }));
            }
            _ => reader.waiting = Some(waiting),
        }
        let waits = reader.waiting.is_some();
        self.readers.push(reader);
        waits
    }

    /// How to ask for it: by its name alone, or with options.
    pub(super) fn request(&mut self) -> Option<wire::Subscription> {
        self.watch = self.watch_wanted();
        let plain = self.position.is_none()
            && self.recent == 0
            && self.manner == Manner::default()
            && self.watch == Watch::None;
        if plain {
            return None;
        }
        let mut subscription = wire::Subscription {
            room: self.name.as_str().to_owned(),
            recent: self.recent,
            presence: match self.watch {
                Watch::None => wire::Watch::None,
                Watch::Counts => wire::Watch::Counts,
                Watch::Users => wire::Watch::Users,
            }
            .into(),
            ..wire::Subscription::default()
        };
        self.manner.fill(&mut subscription);
        if let Some(position) = self.position {
            subscription.epoch = position.epoch.0;
            subscription.seq = position.seq.0;
            subscription.recent = 0;
        }
        Some(subscription)
    }

    pub(super) fn join(&mut self, answer: &wire::RoomPosition) {
        self.membership = Membership::Joined;
        self.number = Some(answer.room);
        let rejoins = std::mem::take(&mut self.rejoins);
        let told = Position {
            epoch: Epoch(answer.epoch),
            seq: Seq(answer.seq),
        };
        let continuity = self.position.map(|last| continuity(last, told, answer));
        let mut position = told;
        if let (Some(Continuity::Continued | Continuity::Lost(_)), Some(last)) = (continuity, self.position) {
            // What came before the answer came in its time.
            position.seq = position.seq.max(last.seq);
        }
        self.position = Some(position);
        self.head = Seq(answer.head).max(position.seq);
        let resubscribed = Event::Resubscribed {
            position,
            head: self.head,
            continuity: continuity.unwrap_or(Continuity::Reset),
        };
        let again = continuity.and_then(|continuity| match (rejoins, continuity) {
            (true, Continuity::Continued) => None,
            (true, Continuity::Lost(missed)) => Some(Event::Gap { missed }),
            _ => Some(resubscribed.clone()),
        });
        let (head, first) = (self.head, continuity.is_none());
        for reader in &mut self.readers {
            if continuity == Some(Continuity::Reset) {
                reader.after = Seq(0);
            }
            let Some(waiting) = reader.waiting.take() else {
                match (&again, reader.interest) {
                    (Some(again), Interest::Messages(_)) => reader.tell_again(again),
                    (None, Interest::Messages(_)) => {}
                    // Whoever watches who is there has to look again, however the room was joined.
                    (_, Interest::PresenceOnly) => reader.queue.push(resubscribed.clone()),
                }
                continue;
            };
            let mut beginning = Beginning { position, head };
            // One who asks for what is new is not told what others have to catch up with.
            if waiting.start == Start::Now && !first {
                reader.after = head;
                beginning.position.seq = head;
            }
            let _ = waiting.joined.send(Ok(beginning));
            if let (Start::Since(_), Some(again)) = (waiting.start, &again) {
                reader.queue.push(again.clone());
            }
        }
    }

    pub(super) fn push(&mut self, push: wire::Push) {
        use wire::push::Payload as P;
        let Some(position) = &mut self.position else {
            return;
        };
        let (seq, next) = (push.seq, position.seq.0.saturating_add(1));
        if seq < next {
            tracing::debug!(room = %self.name, seq, "push that was seen before");
            return;
        }
        position.seq = Seq(seq);
        let epoch = position.epoch;
        if seq > next && self.manner.is_everything() {
            self.miss(next, seq - 1);
        }
        if *self.event != *push.event {
            self.event = push.event.into();
        }
        let payload = match push.payload {
            None => Payload::NULL,
            Some(P::Json(json)) => Payload::Json(json),
            Some(P::Text(text)) => Payload::Text(text.into()),
            Some(P::Binary(binary)) => Payload::Binary(binary),
        };
        let message = Message {
            room: self.name.clone(),
            epoch,
            seq: Seq(seq),
            event: Arc::clone(&self.event),
            key: some(&push.key),
            payload,
        };
        self.tell(Event::Message(message), |reader| {
            matches!(reader.interest, Interest::Messages(_)) && reader.after.0 < seq
        });
    }

    pub(super) fn advance(&mut self, seq: Seq) {
        if let Some(position) = &mut self.position {
            position.seq = position.seq.max(seq);
        }
    }

    /// The broker says that these will not come.
    pub(super) fn gap(&mut self, from: u64, to: u64) {
        let Some(position) = &mut self.position else {
            return;
        };
        let next = position.seq.0.saturating_add(1);
        if to < next {
            return;
        }
        position.seq = Seq(to);
        // Where everything is due, what lies before it is missing too.
        let first = match self.manner.is_everything() {
            true => next,
            false => from.max(next),
        };
        self.miss(first.min(to), to);
    }

    fn miss(&self, first: u64, last: u64) {
        for reader in &self.readers {
            let first = first.max(reader.after.0.saturating_add(1));
            if matches!(reader.interest, Interest::Messages(_)) && reader.waiting.is_none() && first <= last {
                let missed = SeqRange {
                    first: Seq(first),
                    last: Seq(last),
                };
                reader.queue.push(Event::Gap { missed });
            }
        }
    }

    pub(super) fn state(&self, state: wire::State) {
        let state = State {
            room: self.name.clone(),
            event: state.event.into(),
            key: some(&state.key),
            payload: Payload::Json(state.json),
        };
        self.tell(Event::State(state), |reader| {
            matches!(reader.interest, Interest::Messages(_))
        });
    }

    pub(super) fn presence(&self, change: wire::PresenceChange) {
        self.tell(Event::Presence(change.into()), |reader| {
            reader.interest.watch() != Watch::None
        });
    }

    /// Every reader that wants it gets it; the last one without a copy.
    fn tell(&self, event: Event, wants: impl Fn(&Reader) -> bool) {
        let mut readers = self
            .readers
            .iter()
            .filter(|reader| reader.waiting.is_none() && wants(reader));
        let Some(mut reader) = readers.next() else {
            return;
        };
        for next in readers {
            reader.queue.push(event.clone());
            reader = next;
        }
        reader.queue.push(event);
    }

    /// The connection is gone: wanted again, from where it stood.
    pub(super) fn lose(&mut self) {
        self.membership = Membership::Wanted;
        self.number = None;
        self.rejoins = false;
    }
}

/// What a new join says to a reader who stood at `last`.
fn continuity(last: Position, now: Position, answer: &wire::RoomPosition) -> Continuity {
    let reset = last.epoch != now.epoch;
    match wire::Recovery::try_from(answer.recovery) {
        Ok(wire::Recovery::Continued) if !reset => Continuity::Continued,
        Ok(wire::Recovery::Partial) if !reset => lost(last, answer.lost_from, answer.lost_to),
        // A broker that recovers nothing: what it tells is where the room stands.
        Ok(wire::Recovery::None) if !reset && now.seq >= last.seq => lost(last, 0, now.seq.0),
        _ => Continuity::Reset,
    }
}

/// Without what was seen meanwhile.
fn lost(last: Position, from: u64, to: u64) -> Continuity {
    let first = Seq(from.max(last.seq.0.saturating_add(1)));
    match first.0 > to {
        true => Continuity::Continued,
        false => Continuity::Lost(SeqRange { first, last: Seq(to) }),
    }
}

fn some(key: &str) -> Option<Arc<str>> {
    (!key.is_empty()).then(|| key.into())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Kept,
    Gone,
}

impl Answered {
    pub(super) fn is_kept(self) -> bool {
        self == Self::Kept
    }
}

impl Reader {
    /// How the room goes on, as far as it is of this reader's time.
    fn tell_again(&self, again: &Event) {
        let missed = |missed: SeqRange| {
            let first = missed.first.max(Seq(self.after.0.saturating_add(1)));
            (first <= missed.last).then_some(SeqRange { first, ..missed })
        };
        match *again {
            Event::Gap { missed: range } => {
                if let Some(missed) = missed(range) {
                    self.queue.push(Event::Gap { missed });
                }
            }
            Event::Resubscribed {
                position,
                head,
                continuity,
            } => {
                let continuity = match continuity {
                    Continuity::Lost(range) => missed(range).map_or(Continuity::Continued, Continuity::Lost),
                    other => other,
                };
                let seq = position.seq.max(self.after);
                self.queue.push(Event::Resubscribed {
                    position: Position { seq, ..position },
                    head: head.max(seq),
                    continuity,
                });
            }
            _ => {}
        }
    }

    /// A reader who still waits for its first answer gets this one and is gone; one who had joined stays.
    pub(super) fn answer_waiting(&mut self, error: &Error) -> Answered {
        match self.waiting.take() {
            Some(waiting) => {
                let _ = waiting.joined.send(Err(error.clone()));
                Answered::Gone
            }
            None => Answered::Kept,
        }
    }

    pub(super) fn end(&mut self, reason: &Error) {
        if self.answer_waiting(reason).is_kept() {
            self.queue.push(Event::Ended {
                reason: reason.clone(),
            });
        }
        self.queue.finish();
    }
}
