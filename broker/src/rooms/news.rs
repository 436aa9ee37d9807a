//! A change of presence on its way to watchers: its bytes are written once for each form and dialect, and shared.

use std::sync::Arc as StdArc;

use bytes::Bytes;
use cauce_protocol::server::Dialect;
use cauce_protocol::wire;

use super::presence::{Change, PresentUser};
use super::room::Room;
use crate::publication::{Encoded, message_frame};

/// Bookkeeping of a change in a mailbox, in bytes.
const NEWS_OVERHEAD_BYTES: usize = 512;

/// Whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewsKind {
    /// All who watch.
    Change,
    /// Those who could not be told an earlier change: nothing has changed since.
    Missed,
}

/// How much a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewsForm {
    Counts,
    Names,
    /// Counts, and that names were missed.
    Truncated,
}

/// What became known of who is in a room.
#[derive(Debug)]
pub struct PresenceNews {
    pub room: StdArc<Room>,
    pub kind: NewsKind,
    pub change: Change,
    cost: usize,
    counts: Encoded,
    names: Encoded,
    truncated: Encoded,
}

impl PresenceNews {
    pub(super) fn new(room: StdArc<Room>, kind: NewsKind, change: Change, cost: usize) -> Self {
        Self {
            room,
            kind,
            change,
            cost,
            counts: Encoded::default(),
            names: Encoded::default(),
            truncated: Encoded::default(),
        }
    }

    pub(super) fn cost_of(bytes: usize) -> usize {
        NEWS_OVERHEAD_BYTES + bytes
    }

    /// What it costs a mailbox, in bytes.
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Whether who gets this form must take pages to know who is there.
    pub fn is_truncated(&self, form: NewsForm) -> bool {
        match form {
            NewsForm::Counts => false,
            NewsForm::Names => self.change.truncated,
            NewsForm::Truncated => true,
        }
    }

    /// The whole WebSocket frame.
    pub fn bytes(&self, form: NewsForm, dialect: Dialect) -> &Bytes {
        let encoded = match form {
            NewsForm::Counts => &self.counts,
            NewsForm::Names => &self.names,
            NewsForm::Truncated => &self.truncated,
        };
        encoded.get(dialect, |dialect| {
            message_frame(&self.message(form).into(), dialect)
        })
    }

    fn message(&self, form: NewsForm) -> wire::PresenceChange {
        let Change {
            version,
            users,
            connections,
            joined,
            left,
            ..
        } = &self.change;
        let mut message = wire::PresenceChange {
            room: self.room.id.0,
            version: *version,
            users: *users,
            connections: *connections,
            truncated: self.is_truncated(form),
            ..wire::PresenceChange::default()
        };
        if form == NewsForm::Names {
            message.joined = joined.iter().map(wire::PresenceUser::from).collect();
            message.left = left.iter().map(|user| user.as_str().to_owned()).collect();
        }
        message
    }
}

impl From<&PresentUser> for wire::PresenceUser {
    fn from(present: &PresentUser) -> Self {
        Self {
            user: present.user.as_str().to_owned(),
            info: present.info.clone(),
            connections: present.connections,
            since_unix_ms: present.since_unix_ms,
        }
    }
}
