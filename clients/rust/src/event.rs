//! What a subscription yields. Order and honesty are the promise: sequences rise by one within an epoch, nothing comes
//! twice, and whatever is missing is announced where it is missing.

use std::sync::Arc;

use cauce_protocol::{Epoch, Payload, Position, RoomName, Seq};
use serde::Deserialize;

use crate::error::Error;
use crate::presence::Presence;
use crate::queue::Item;

/// Messages from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeqRange {
    pub first: Seq,
    pub last: Seq,
}

impl SeqRange {
    /// How many messages these are: at least one.
    pub fn count(self) -> u64 {
        self.last.0.saturating_sub(self.first.0).saturating_add(1)
    }
}

/// One message of a room. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub room: RoomName,
    pub epoch: Epoch,
    pub seq: Seq,
    /// What it is about: `order_created`.
    pub event: Arc<str>,
    /// What it is about within its event, as an order's number; `None` if the publisher named nothing.
    pub key: Option<Arc<str>>,
    pub payload: Payload,
}

impl Message {
    /// Where a subscriber stands who has seen this message: what [`crate::Subscribe::since`] takes after a restart.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            seq: self.seq,
        }
    }

    /// The payload as a value.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the payload is not JSON, or not of that type.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        Ok(self.payload.parse()?)
    }
}

/// How a room went on after the connection, or the program, had been away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Continuity {
    /// Nothing is missing: what came meanwhile follows.
    Continued,
    /// Exactly these are missing; what came after them follows.
    Lost(SeqRange),
    /// Numbering began anew, and nobody knows what was missed: fetch the state again.
    Reset,
}

/// What a room's subject is like, before the changes that follow: for a room of devices one entry a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub room: RoomName,
    pub event: Arc<str>,
    /// The device, in a room of devices.
    pub key: Option<Arc<str>>,
    pub payload: Payload,
}

/// What happens in a subscription.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    Message(Message),
    /// What the room's subject is like before what follows.
    State(State),
    /// Who came and went; only for subscriptions that asked for it.
    Presence(Presence),
    /// The broker left these out on a live connection: the reader was too slow for what the room keeps.
    Gap {
        missed: SeqRange,
    },
    /// The room has been joined again, after a lost connection or from the position that the application brought. The next
    /// message carries the number after `position`; those up to `head` were published meanwhile.
    Resubscribed {
        position: Position,
        head: Seq,
        continuity: Continuity,
    },
    /// The application read too slowly and this many messages were dropped here, the oldest first. Announcements among them
    /// count with what they announced, states and changes of presence with nothing. Reading goes on with what the buffer
    /// still holds.
    Lagged {
        missed: u64,
    },
    /// The broker ended the subscription, or the client was refused for good. The stream ends after this.
    Ended {
        reason: Error,
    },
}

impl Event {
    /// The message, if it is one.
    pub fn into_message(self) -> Option<Message> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }
}

impl Item for Event {
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.payload.len(),
            Self::State(state) => state.payload.len(),
            Self::Presence(presence) => presence.bytes(),
            _ => 0,
        }
    }

    fn messages(&self) -> u64 {
        match self {
            Self::Message(_) => 1,
            Self::Gap { missed } => missed.count(),
            Self::Resubscribed {
                continuity: Continuity::Lost(missed),
                ..
            } => missed.count(),
            Self::Lagged { missed } => *missed,
            Self::State(_) | Self::Presence(_) | Self::Resubscribed { .. } | Self::Ended { .. } => 0,
        }
    }

    fn lagged(missed: u64) -> Self {
        Self::Lagged { missed }
    }
}

/// A message to this user, connection, role or tenant rather than to a room. It has no number: whoever was connected got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectMessage {
    pub event: Arc<str>,
    pub payload: Payload,
}

impl DirectMessage {
    /// The payload as a value.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the payload is not JSON, or not of that type.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        Ok(self.payload.parse()?)
    }
}

/// What happens in an inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Direct {
    Message(DirectMessage),
    /// The application read too slowly and this many messages were dropped here.
    Lagged {
        missed: u64,
    },
}

impl Item for Direct {
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.payload.len(),
            Self::Lagged { .. } => 0,
        }
    }

    fn messages(&self) -> u64 {
        match self {
            Self::Message(_) => 1,
            Self::Lagged { missed } => *missed,
        }
    }

    fn lagged(missed: u64) -> Self {
        Self::Lagged { missed }
    }
}
