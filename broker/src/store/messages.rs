//! Messages of durable rooms, as the hub hands them over and gets them back.

use std::fmt;

use cauce_protocol::message::{Direction, Text};
use cauce_protocol::{Epoch, Payload, Refusal, RoomName, Seq, TenantId, UserId};

use crate::publication::Excluded;
use crate::rooms::Keep;

/// One numbered message of a durable room.
#[derive(Debug)]
pub struct MessageRow {
    pub tenant: TenantId,
    pub room: RoomName,
    pub epoch: Epoch,
    pub seq: Seq,
    pub event: Text,
    pub payload: Payload,
    /// See [`crate::publication::Publication::topic`].
    pub topic: Text,
    pub user: Option<UserId>,
    pub excluded: Excluded,
    pub unix_ms: u64,
    /// The publisher and his idempotency key, so that a repeat is recognised after a restart.
    pub repeat: Option<Box<str>>,
    /// Numbers up to this one may be given in this epoch without asking: committed with the row, so that after a crash
    /// numbering goes on behind it and no number is given twice.
    pub lease: Seq,
    /// How much of the room is kept, as its class says now.
    pub keep: Keep,
    /// Called once, on the store's thread: when the row is on the disk, has been given up, or will not be written because
    /// the store has stopped.
    pub committed: Committed,
    /// Called at most once, on the store's thread and before `committed`: the commit takes longer than
    /// [`super::MessageLimits::answer_ms`]. It is the answer for whoever does not wait longer; the row goes its way.
    pub late: Late,
}

/// What waits for a commit.
pub struct Committed(pub Option<Callback>);

/// What is told to those who do not wait for a late commit.
#[derive(Default)]
pub struct Late(pub Option<Box<dyn FnOnce(Refusal) + Send>>);

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Late(awaited)" } else { "Late" })
    }
}

/// Called when it is known what became of a message.
pub type Callback = Box<dyn FnOnce(Result<(), Refusal>) + Send>;

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Committed(awaited)"
        } else {
            "Committed"
        })
    }
}

/// Where a durable room stood when the broker last ran: what numbering must go on behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomHead {
    pub tenant: TenantId,
    pub room: RoomName,
    pub epoch: Epoch,
    /// The last number that is on the disk.
    pub last: Seq,
    /// The last number that may have been given: `last` after a clean stop, the lease after any other.
    pub given: Seq,
    /// The lease on the disk now: numbers behind `given` and up to this one may be given at once.
    pub lease: Seq,
}

/// An idempotency key that a durable room has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenKey {
    pub tenant: TenantId,
    pub room: RoomName,
    pub epoch: Epoch,
    pub seq: Seq,
    /// Publisher and key.
    pub repeat: Box<str>,
    pub unix_ms: u64,
}

/// A page of a durable room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageQuery {
    pub tenant: TenantId,
    pub room: RoomName,
    pub epoch: Epoch,
    /// Exclusive; backwards, 0 means from the newest.
    pub from: Seq,
    pub direction: Direction,
    pub limit: u32,
    /// Payloads together; one message is always given.
    pub bytes_max: usize,
}

/// What was found, in the order that was asked for.
#[derive(Debug)]
pub struct MessagePage {
    pub messages: Vec<StoredMessage>,
    /// The oldest number that is kept in the room; 0 if none is.
    pub first: Seq,
    /// More lie beyond.
    pub more: bool,
}

/// A message read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    pub seq: Seq,
    pub event: Text,
    pub payload: Payload,
    pub topic: Text,
    pub user: Option<UserId>,
    pub excluded: Excluded,
    pub unix_ms: u64,
    pub repeat: Option<Box<str>>,
}
