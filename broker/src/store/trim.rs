//! What is no longer kept of a durable room. Pure: no clock, no database.
//!
//! What must stay true:
//! - Only a room's oldest messages go, and none that its class says to keep.
//! - A room that is over its high marks loses at least one message a step, so retention comes to an end.

use cauce_protocol::{Epoch, RoomName, Seq, TenantId};

use super::config::{TRIM_STEP_BYTES, TRIM_STEP_ROWS};
use crate::rooms::Keep;

/// Messages above what is kept before the oldest go: an eighth, within these bounds. Trimming a room costs a few
/// statements, whatever the number of messages; what is above is never shown.
const SLACK_MESSAGES: std::ops::RangeInclusive<u64> = 16..=1_000;

/// The same in bytes, at most; an eighth below that. What is above by size alone is still shown.
const SLACK_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Above either, a room is trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HighMarks {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl HighMarks {
    pub(crate) fn of(keep: &Keep) -> Self {
        let messages = u64::from(keep.messages);
        let slack = (messages / 8).clamp(*SLACK_MESSAGES.start(), *SLACK_MESSAGES.end());
        Self {
            messages: if keep.keeps() { messages + slack } else { 0 },
            bytes: match keep.bytes {
                0 => u64::MAX,
                bytes => bytes.saturating_add((bytes / 8).min(SLACK_BYTES_MAX)),
            },
        }
    }
}

/// What the head of a room says of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) tenant: TenantId,
    pub(crate) room: RoomName,
    pub(crate) epoch: Epoch,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) keep: Keep,
}

/// One of a room's oldest messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oldest {
    pub(crate) seq: Seq,
    pub(crate) cost: u64,
    pub(crate) unix_ms: u64,
}

/// What still may be deleted by the transaction at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl Budget {
    pub(crate) const STEP: Self = Self {
        rows: TRIM_STEP_ROWS,
        bytes: TRIM_STEP_BYTES,
    };

    pub(crate) fn is_spent(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }

    pub(crate) fn spend(&mut self, rows: u64, bytes: u64) {
        self.rows = self.rows.saturating_sub(rows);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What goes, and what the head says afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Surplus {
    /// Messages up to this number go; none if 0.
    pub(crate) up_to: Seq,
    pub(crate) rows: u64,
    pub(crate) freed: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) oldest_ms: u64,
}

/// `oldest` are the room's oldest messages in order: all of them, or one more than `budget` has rows.
pub(crate) fn surplus(kept: &Kept, oldest: &[Oldest], budget: Budget, now_ms: u64) -> Surplus {
    let all = (oldest.len() as u64) <= budget.rows;
    // If all messages are here, they are what the head should have said.
    let (mut messages, mut bytes) = if all {
        (oldest.len() as u64, oldest.iter().map(|m| m.cost).sum())
    } else {
        (kept.messages.max(oldest.len() as u64), kept.bytes)
    };
    let keep = &kept.keep;
    let (mut rows, mut freed, mut up_to) = (0, 0, Seq(0));
    for message in oldest {
        let old = keep.age_ms > 0 && message.unix_ms.saturating_add(keep.age_ms) < now_ms;
        // A message that is larger than all that may be kept is kept alone.
        let large = keep.bytes > 0 && bytes > keep.bytes && messages > 1;
        let many = messages > u64::from(keep.messages);
        if !(old || large || many) || rows == budget.rows || (rows > 0 && freed >= budget.bytes) {
            break;
        }
        rows += 1;
        freed += message.cost;
        up_to = message.seq;
        messages -= 1;
        bytes = bytes.saturating_sub(message.cost);
    }
    let next = usize::try_from(rows).ok().and_then(|rows| oldest.get(rows));
    Surplus {
        up_to,
        rows,
        freed,
        messages,
        bytes,
        oldest_ms: next.map_or(0, |message| message.unix_ms),
    }
}

#[cfg(test)]
#[path = "trim_tests.rs"]
mod tests;
