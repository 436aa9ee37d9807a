//! How a message is to be published, and what became of it.

use std::sync::Arc as StdArc;

use cauce_protocol::message::Ack;
use cauce_protocol::{Epoch, Refusal, Seq};

use super::durable::{Journal, OnCommit};
use super::repeats::Repeat;
use crate::mailbox::Share;

/// How a message is to be published.
#[derive(Clone, Copy, Default)]
pub struct Manner<'a> {
    pub repeat: Option<Repeat<'a>>,
    pub ack: Ack,
    /// Where durable rooms write. Without one they take nothing.
    pub journal: Option<&'a dyn Journal>,
    /// The publisher's tenant's part of the mailboxes. Without one only the mailboxes themselves bound it.
    pub share: Option<&'a StdArc<Share>>,
    /// Makes what is called when a durable publish is on the disk; without it nobody waits.
    pub on_commit: Option<&'a dyn Fn() -> OnCommit>,
}

impl std::fmt::Debug for Manner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manner")
            .field("repeat", &self.repeat)
            .field("ack", &self.ack)
            .finish_non_exhaustive()
    }
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub epoch: Epoch,
    pub seq: Seq,
    /// Subscribers at that moment.
    pub receivers: u32,
    /// The key had been seen: nothing was sent, and this is the first answer.
    pub repeated: bool,
    pub written: Written,
}

/// Whether a message is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Not asked for, or not a durable room.
    No,
    Yes,
    /// The publisher will be called.
    Awaited,
}

/// Why a room did not take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rooms) enum NotTaken {
    /// Look up the room again.
    Closed,
    /// This shard's mailbox is full.
    Full(usize),
    /// The tenant's part of it is.
    ShareFull(usize),
    Refused(Refusal),
}
