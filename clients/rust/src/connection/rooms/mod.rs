//! The rooms that the application wants, what became of asking for them, and where each stands.
//!
//! What must stay true: a push for a number that is not joined now belongs to the past and is dropped. A room is here as long
//! as it has a reader. All readers of a room share one subscription at the broker, so they follow it in one [`Manner`].

mod room;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use cauce_protocol::limits::REQUEST_ENTRIES_MAX;
use cauce_protocol::{Advice, Code, RoomName, Seq, wire};
use slab::Slab;

use self::room::{Room, Waiting};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::queue::Queue;
use crate::subscribe::{Manner, Start};

pub(crate) use self::room::{Beginning, Interest, Joined};

/// Names and options of one subscribe take at most this part of a frame, by our estimate: what a list takes beyond its
/// strings is less than the rest.
const FRAME_SHARE: usize = 2;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Membership {
    Wanted,
    Asked(u32),
    Joined,
    /// Refused for now.
    Later(Instant),
}

/// A reader that comes.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) room: RoomName,
    pub(crate) queue: Arc<Queue<Event>>,
    pub(crate) joined: Joined,
    pub(crate) manner: Manner,
    pub(crate) start: Start,
    pub(crate) interest: Interest,
}

/// What is to be done after [`Rooms::add`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// Nothing: it was answered.
    Settled,
    /// The answer for the room of this key has to be waited for.
    Waits(usize),
    /// The same, and the broker has to be told that the room is left, so that it can be joined in another way.
    Rejoins(usize),
}

/// What bounds one subscribe.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListBounds {
    pub(super) rooms_max: usize,
    pub(super) frame_bytes_max: usize,
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
    /// A new reader.
    pub(super) fn add(&mut self, joining: Joining, expires: Instant, together_max: usize) -> Added {
        let Joining {
            room: name,
            queue,
            joined,
            manner,
            start,
            interest,
        } = joining;
        // The application gave up before we heard of it.
        if queue.is_abandoned() {
            return Added::Settled;
        }
        let key = match self.by_name.get(&name) {
            Some(&key) => key,
            None => {
                let room = Room::new(name.clone(), manner.clone(), start, together_max);
                let key = self.rooms.insert(room);
                self.by_name.insert(name, key);
                self.wanted.push_back(key);
                key
            }
        };
        let Some(room) = self.rooms.get_mut(key) else {
            return Added::Settled;
        };
        // Who only looks who is there takes the room as it is, and gives way to one who wants more.
        let fits = interest == Interest::PresenceOnly || (room.manner == manner && start == Start::Now);
        let adopts = !fits && room.is_watched_only();
        if !fits && !adopts && !room.readers.is_empty() {
            let _ = joined.send(Err(Error::new(
                ErrorKind::Invalid,
                "this client follows the room already, and in another way: share that subscription's options, read what \
                 was before from the history, or follow the room with a client of its own",
            )));
            return Added::Settled;
        }
        let asked = matches!(room.membership, Membership::Asked(_) | Membership::Joined);
        let rejoins = asked && (adopts || interest.watch() > room.watch);
        if adopts {
            if let Some(number) = room.begin(manner, start) {
                self.by_number.remove(&number);
            }
        } else if rejoins {
            room.rejoins = room.membership == Membership::Joined;
        }
        if rejoins {
            room.membership = Membership::Wanted;
            self.wanted.push_back(key);
        }
        let waiting = Waiting {
            joined,
            expires,
            start,
        };
        match (room.add(queue, interest, waiting), rejoins) {
            (true, true) => Added::Rejoins(key),
            (true, false) => Added::Waits(key),
            (false, _) => Added::Settled,
        }
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
        if let Some(number) = room.number {
            self.by_number.remove(&number);
        }
        match room.membership {
            // The broker reads in order: our leave comes behind the join that is on its way.
            Membership::Joined | Membership::Asked(_) => Left::Tell,
            Membership::Wanted | Membership::Later(_) => Left::Silent,
        }
    }

    /// The next list of rooms to ask for under this id.
    pub(super) fn ask(&mut self, id: u32, bounds: ListBounds) -> Option<wire::Subscribe> {
        let (mut plain, mut with_options) = (Vec::new(), Vec::new());
        let mut subscribe = wire::Subscribe::default();
        let mut together_max = bounds.rooms_max.max(1);
        let (mut bytes, mut entries) = (0, 0);
        while let Some(&key) = self.wanted.front() {
            match self.rooms.get_mut(key) {
                Some(room) if room.membership == Membership::Wanted => {
                    let count = plain.len() + with_options.len();
                    together_max = together_max.min(room.together_max);
                    bytes += room.name.as_str().len() + room.manner.bytes();
                    entries += room.manner.entries();
                    let full = count >= together_max.max(1)
                        || bytes > bounds.frame_bytes_max / FRAME_SHARE
                        || entries > REQUEST_ENTRIES_MAX;
                    if full && count > 0 {
                        break;
                    }
                    room.membership = Membership::Asked(id);
                    match room.request() {
                        None => {
                            subscribe.rooms.push(room.name.as_str().to_owned());
                            plain.push(key);
                        }
                        Some(subscription) => {
                            subscribe.subscriptions.push(subscription);
                            with_options.push(key);
                        }
                    }
                }
                _ => {}
            }
            self.wanted.pop_front();
        }
        // The broker answers in this order.
        plain.append(&mut with_options);
        if plain.is_empty() {
            return None;
        }
        self.asked.insert(id, plain);
        Some(subscribe)
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
            if let Some(before) = room.number {
                self.by_number.remove(&before);
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
            room.lose();
            self.wanted.push_back(key);
        }
    }

    /// Another connection may allow longer lists, and rights may have changed.
    pub(super) fn welcome(&mut self, together_max: usize) {
        for (_, room) in &mut self.rooms {
            room.together_max = together_max;
        }
    }

    fn numbered(&mut self, number: u64) -> Option<&mut Room> {
        let room = self
            .by_number
            .get(&number)
            .and_then(|&key| self.rooms.get_mut(key));
        if room.is_none() {
            tracing::trace!(number, "a message for a room that is not joined");
        }
        room
    }

    pub(super) fn push(&mut self, push: wire::Push) {
        if let Some(room) = self.numbered(push.room) {
            room.push(push);
        }
    }

    pub(super) fn advance(&mut self, advance: wire::Advance) {
        if let Some(room) = self.numbered(advance.room) {
            room.advance(Seq(advance.seq));
        }
    }

    pub(super) fn gap(&mut self, gap: wire::Gap) {
        if let Some(room) = self.numbered(gap.room) {
            room.gap(gap.from, gap.to);
        }
    }

    pub(super) fn state(&mut self, state: wire::State) {
        if let Some(room) = self.numbered(state.room) {
            room.state(state);
        }
    }

    pub(super) fn presence(&mut self, change: wire::PresenceChange) {
        if let Some(room) = self.numbered(change.room) {
            room.presence(change);
        }
    }

    /// The broker has ended the subscription.
    pub(super) fn end(&mut self, number: u64, reason: &Error) {
        let Some(key) = self.by_number.remove(&number) else {
            return;
        };
        // Asked for again meanwhile: the answer to that counts.
        if let Some(room) = self.rooms.get_mut(key)
            && room.membership != Membership::Joined
        {
            room.number = None;
            return;
        }
        if let Some(mut room) = self.rooms.try_remove(key) {
            self.by_name.remove(&room.name);
            for reader in &mut room.readers {
                reader.end(reason);
            }
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
