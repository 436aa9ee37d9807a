//! The rooms that the application wants, what became of asking for them, and where each stands.
//!
//! What must stay true: a reader's messages rise by one within an epoch; what is missing is announced first; a push for a
//! number that is not joined now belongs to the past and is dropped. A room is here as long as it has a reader.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use cauce_protocol::{Advice, Code, Epoch, Payload, RoomName, Seq, wire};
use slab::Slab;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};
use crate::event::{Continuity, Event, Message, Position, SeqRange};
use crate::queue::Queue;

pub(super) type Joined = oneshot::Sender<Result<Position, Error>>;

#[derive(Debug, Default)]
pub(super) struct Rooms {
    rooms: Slab<Room>,
    by_name: HashMap<RoomName, usize>,
    /// Joined rooms by the number that pushes carry. Numbers are good for one connection.
    by_number: HashMap<u64, usize>,
    /// Rooms to ask for, in order. May name a room that is gone or was asked for meanwhile: [`Membership`] decides.
    wanted: VecDeque<usize>,
    /// Rooms of each subscribe that waits for its answer, in its order.
    asked: HashMap<u32, Vec<usize>>,
}

#[derive(Debug)]
struct Room {
    name: RoomName,
    readers: Vec<Reader>,
    membership: Membership,
    /// From the first join on, across connections.
    position: Option<Position>,
    /// With how many rooms at most it is asked for. Halved when a list was refused, until the guilty one stands alone.
    together_max: usize,
    /// The last event name: most rooms repeat few, and sharing it saves a copy a message.
    event: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    Wanted,
    Asked(u32),
    Joined(u64),
    /// Refused for now.
    Later(Instant),
}

#[derive(Debug)]
struct Reader {
    queue: Arc<Queue<Event>>,
    /// Until the room is joined for this reader.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    joined: Joined,
    expires: Instant,
}

/// What is to be done after a refused subscribe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// These wait for [`Rooms::retry`] at the time given to [`Rooms::refuse`].
    Later(Vec<usize>),
    Settled,
}

/// Whether the broker has to be told that a room is left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    Tell,
    Silent,
}

impl Rooms {
    /// A new reader. The room's key, if its answer has to be waited for.
    pub(super) fn add(
        &mut self,
        name: RoomName,
        queue: Arc<Queue<Event>>,
        joined: Joined,
        expires: Instant,
        together_max: usize,
    ) -> Option<usize> {
        // The application gave up before we heard of it.
        if queue.is_abandoned() {
            return None;
        }
        let key = match self.by_name.get(&name) {
            Some(&key) => key,
            None => {
                let key = self.rooms.insert(Room {
                    name: name.clone(),
                    readers: Vec::with_capacity(1),
                    membership: Membership::Wanted,
                    position: None,
                    together_max,
                    event: Arc::from(""),
                });
                self.by_name.insert(name, key);
                self.wanted.push_back(key);
                key
            }
        };
        let room = self.rooms.get_mut(key)?;
        let waiting = match (room.membership, room.position) {
            (Membership::Joined(_), Some(position)) => {
                let _ = joined.send(Ok(position));
                None
            }
            _ => Some(Waiting { joined, expires }),
        };
        let waits = waiting.is_some();
        room.readers.push(Reader { queue, waiting });
        waits.then_some(key)
    }

    /// The reader is gone.
    pub(super) fn remove(&mut self, name: &RoomName, queue: &Arc<Queue<Event>>) -> Left {
        let Some(&key) = self.by_name.get(name) else {
            return Left::Silent;
        };
        if let Some(room) = self.rooms.get_mut(key) {
            room.readers.retain(|reader| !Arc::ptr_eq(&reader.queue, queue));
        }
        self.forget_if_unread(key)
    }

    fn forget_if_unread(&mut self, key: usize) -> Left {
        if self.rooms.get(key).is_none_or(|room| !room.readers.is_empty()) {
            return Left::Silent;
        }
        let room = self.rooms.remove(key);
        self.by_name.remove(&room.name);
        match room.membership {
            Membership::Joined(number) => {
                self.by_number.remove(&number);
                Left::Tell
            }
            // The broker reads in order: our leave comes behind the join that is on its way.
            Membership::Asked(_) => Left::Tell,
            Membership::Wanted | Membership::Later(_) => Left::Silent,
        }
    }

    /// The next list of rooms to ask for under this id, at most `rooms_max` long.
    pub(super) fn ask(&mut self, id: u32, rooms_max: usize) -> Option<Vec<String>> {
        let (mut keys, mut names) = (Vec::new(), Vec::new());
        let mut together_max = rooms_max.max(1);
        while let Some(&key) = self.wanted.front() {
            match self.rooms.get_mut(key) {
                Some(room) if room.membership == Membership::Wanted => {
                    together_max = together_max.min(room.together_max);
                    if keys.len() >= together_max.max(1) {
                        break;
                    }
                    room.membership = Membership::Asked(id);
                    names.push(room.name.as_str().to_owned());
                    keys.push(key);
                }
                _ => {}
            }
            self.wanted.pop_front();
        }
        if keys.is_empty() {
            return None;
        }
        self.asked.insert(id, keys);
        Some(names)
    }

    /// Whether [`Rooms::ask`] may find something.
    pub(super) fn is_any_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    pub(super) fn is_asked(&self, id: u32) -> bool {
        self.asked.contains_key(&id)
    }

    /// The broker joined the rooms of `id`.
    ///
    /// # Errors
    /// If the answer does not fit what was asked: the broker cannot be believed any further.
    pub(super) fn join(&mut self, id: u32, subscribed: &wire::Subscribed) -> Result<(), Error> {
        let keys = self.asked.remove(&id).unwrap_or_default();
        if keys.len() != subscribed.rooms.len() {
            return Err(Error::new(
                ErrorKind::Protocol,
                "the broker answered a subscribe with another number of rooms",
            ));
        }
        for (key, answer) in keys.into_iter().zip(&subscribed.rooms) {
            let Some(room) = self.rooms.get_mut(key) else {
                continue;
            };
            // Left, and perhaps wanted again, since it was asked for.
            if room.membership != Membership::Asked(id) {
                continue;
            }
            if room.name.as_str() != answer.name {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    "the broker answered a subscribe with other rooms",
                ));
            }
            room.join(answer);
            self.by_number.insert(answer.room, key);
        }
        Ok(())
    }

    /// The broker refused the rooms of `id`. Readers who wait for their first answer get this one; those who had joined
    /// before try again at `later` if the reason may pass.
    pub(super) fn refuse(&mut self, id: u32, error: &Error, later: Instant) -> Refused {
        let keys = self.asked.remove(&id).unwrap_or_default();
        let passing = error.is_retryable() || error.advice() == Some(Advice::RenewToken);
        // All or nothing: one guilty room, or one too many, refuses the list.
        if keys.len() > 1 && (!passing || error.code() == Some(Code::QuotaExceeded)) {
            let half = keys.len().div_ceil(2);
            for key in keys {
                if let Some(room) = self.asked_room(key, id) {
                    room.together_max = half;
                    room.membership = Membership::Wanted;
                    self.wanted.push_back(key);
                }
            }
            return Refused::Settled;
        }
        let mut waits = Vec::new();
        for key in keys {
            let Some(room) = self.asked_room(key, id) else {
                continue;
            };
            room.membership = Membership::Later(later);
            if passing {
                room.readers
                    .retain_mut(|reader| reader.answer_waiting(error).is_kept());
            } else {
                for mut reader in room.readers.drain(..) {
                    reader.end(error);
                }
            }
            self.forget_if_unread(key);
            if self.rooms.contains(key) {
                waits.push(key);
            }
        }
        if waits.is_empty() {
            Refused::Settled
        } else {
            Refused::Later(waits)
        }
    }

    fn asked_room(&mut self, key: usize, id: u32) -> Option<&mut Room> {
        self.rooms
            .get_mut(key)
            .filter(|room| room.membership == Membership::Asked(id))
    }

    /// The time for which [`Refused::Later`] told to wait has come.
    pub(super) fn retry(&mut self, key: usize, now: Instant) {
        if let Some(room) = self.rooms.get_mut(key)
            && matches!(room.membership, Membership::Later(at) if at <= now)
        {
            room.membership = Membership::Wanted;
            self.wanted.push_back(key);
        }
    }

    /// Readers of the room who have waited too long for their first answer get this one. The room's name, if nobody is left
    /// and the broker has to be told.
    pub(super) fn expire(&mut self, key: usize, now: Instant, error: &Error) -> Option<RoomName> {
        let room = self.rooms.get_mut(key)?;
        let name = room.name.clone();
        room.readers.retain_mut(|reader| {
            let expired = reader.waiting.as_ref().is_some_and(|w| w.expires <= now);
            !expired || reader.answer_waiting(error).is_kept()
        });
        (self.forget_if_unread(key) == Left::Tell).then_some(name)
    }

    /// The connection is gone. Every room is wanted again, from where it stood.
    pub(super) fn lose(&mut self) {
        self.by_number.clear();
        self.asked.clear();
        self.wanted.clear();
        for (key, room) in &mut self.rooms {
            room.membership = Membership::Wanted;
            self.wanted.push_back(key);
        }
    }

    /// Another connection may allow longer lists, and rights may have changed.
    pub(super) fn welcome(&mut self, together_max: usize) {
        for (_, room) in &mut self.rooms {
            room.together_max = together_max;
        }
    }

    pub(super) fn push(&mut self, push: wire::Push) {
        use wire::push::Payload as P;
        let Some(room) = self
            .by_number
            .get(&push.room)
            .and_then(|&key| self.rooms.get_mut(key))
        else {
            tracing::trace!(room = push.room, "push for a room that is not joined");
            return;
        };
        let payload = match push.payload {
            None => Payload::NULL,
            Some(P::Json(json)) => Payload::Json(json),
            Some(P::Text(text)) => Payload::Text(text.into()),
            Some(P::Binary(binary)) => Payload::Binary(binary),
        };
        room.push(push.seq, &push.event, payload);
    }

    pub(super) fn advance(&mut self, advance: wire::Advance) {
        if let Some(room) = self
            .by_number
            .get(&advance.room)
            .and_then(|&key| self.rooms.get_mut(key))
            && let Some(position) = &mut room.position
        {
            position.seq = position.seq.max(Seq(advance.seq));
        }
    }

    /// The client is closed. Without a reason the streams simply end.
    pub(super) fn close(&mut self, reason: Option<&Error>, closed: &Error) {
        for room in self.rooms.drain() {
            for mut reader in room.readers {
                match reason {
                    Some(reason) => reader.end(reason),
                    None => {
                        reader.answer_waiting(closed);
                        reader.queue.finish();
                    }
                }
            }
        }
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rooms.len()
    }
}

impl Room {
    fn join(&mut self, answer: &wire::RoomPosition) {
        self.membership = Membership::Joined(answer.room);
        let position = Position {
            epoch: Epoch(answer.epoch),
            seq: Seq(answer.seq),
        };
        let continuity = self.position.map(|last| continuity(last, position));
        self.position = Some(position);
        for reader in &mut self.readers {
            match (reader.waiting.take(), continuity) {
                (Some(waiting), _) => {
                    let _ = waiting.joined.send(Ok(position));
                }
                (None, Some(continuity)) => reader.queue.push(Event::Resubscribed { position, continuity }),
                (None, None) => {}
            }
        }
    }

    fn push(&mut self, seq: u64, event: &str, payload: Payload) {
        let Some(position) = &mut self.position else {
            return;
        };
        let next = position.seq.0.saturating_add(1);
        if seq < next {
            tracing::debug!(room = %self.name, seq, "push that was seen before");
            return;
        }
        position.seq = Seq(seq);
        let epoch = position.epoch;
        if seq > next {
            let missed = SeqRange {
                first: Seq(next),
                last: Seq(seq - 1),
            };
            self.tell(Event::Gap { missed });
        }
        if *self.event != *event {
            self.event = event.into();
        }
        self.tell(Event::Message(Message {
            room: self.name.clone(),
            epoch,
            seq: Seq(seq),
            event: Arc::clone(&self.event),
            payload,
        }));
    }

    /// Every reader gets it; the last one without a copy.
    fn tell(&self, event: Event) {
        if let Some((last, others)) = self.readers.split_last() {
            for reader in others {
                reader.queue.push(event.clone());
            }
            last.queue.push(event);
        }
    }
}

/// What a new join says to a reader who stood at `last`.
fn continuity(last: Position, now: Position) -> Continuity {
    if last.epoch != now.epoch || now.seq < last.seq {
        Continuity::Reset
    } else if now.seq == last.seq {
        Continuity::Continued
    } else {
        Continuity::Lost(SeqRange {
            first: Seq(last.seq.0.saturating_add(1)),
            last: now.seq,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Kept,
    Gone,
}

impl Answered {
    fn is_kept(self) -> bool {
        self == Self::Kept
    }
}

impl Reader {
    /// A reader who still waits for its first answer gets this one and is gone; one who had joined stays.
    fn answer_waiting(&mut self, error: &Error) -> Answered {
        match self.waiting.take() {
            Some(waiting) => {
                let _ = waiting.joined.send(Err(error.clone()));
                Answered::Gone
            }
            None => Answered::Kept,
        }
    }

    fn end(&mut self, reason: &Error) {
        if self.answer_waiting(reason).is_kept() {
            self.queue.push(Event::Ended {
                reason: reason.clone(),
            });
        }
        self.queue.finish();
    }
}
