//! Messages of durable rooms on their way to the disk, and who waits for that. Pure: no lock, no clock, no database.
//!
//! What must stay true:
//! - Messages leave in the order in which they came, so those of a room are committed in the order of their numbers.
//! - What is reserved, waits, or is on its way counts against the bounds until it is settled.
//! - Whoever waits for a commit is answered exactly once: by the commit or by the end of the store. Before that he may be
//!   told, once, that it is late.

use std::collections::{HashMap, VecDeque};
use std::mem::replace;
use std::time::Instant;

use cauce_protocol::{Epoch, RoomName, Seq, TenantId};

use super::config::{COMMIT_BYTES_MAX, COMMIT_ROWS_MAX, MessageLimits};
use super::messages::{Callback, Late, MessageRow};
use crate::rooms::Keep;

type Map<K, V> = HashMap<K, V, foldhash::quality::RandomState>;

/// Why nothing was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotReserved {
    Closed,
    Full,
    TenantFull,
    /// More than a tenant may ever hold.
    TooLarge,
}

/// One message in the order of arrival.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Counts all messages of a run, from 1.
    pub(crate) ticket: u64,
    /// What it holds of the bounds, and what it counts for in its room.
    pub(crate) bytes: usize,
    pub(crate) since: Instant,
    /// Apart, so that a queue that grows moves little while every publisher waits for its lock.
    pub(crate) row: Box<MessageRow>,
}

struct Awaited {
    ticket: u64,
    late_ms: u64,
    late: Late,
    callback: Option<Callback>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Nothing more is reserved; what was reserved may still come.
    Closing,
    Ended,
}

/// Who has something new to do after a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Wakes {
    pub(crate) writer: bool,
    /// Who looks after time-outs.
    pub(crate) watch: bool,
}

pub(crate) struct MessageQueue {
    limits: MessageLimits,
    waiting: VecDeque<Waiting>,
    awaited: VecDeque<Awaited>,
    by_tenant: Map<TenantId, usize>,
    /// Reserved, waiting and on their way.
    bytes: usize,
    /// Handed over and not settled.
    rows: u64,
    /// Reserved and not handed over yet.
    reserved: u64,
    /// When the oldest of `waiting` came, on the monotonic clock.
    since_ms: u64,
    /// The last ticket.
    last: u64,
    stage: Stage,
    /// Up to this ticket, all that are late have been told.
    told: u64,
    /// Somebody wakes up when the next one is late.
    watched: bool,
}

impl std::fmt::Debug for MessageQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageQueue")
            .field("waiting", &self.waiting.len())
            .field("awaited", &self.awaited.len())
            .field("rows", &self.rows)
            .field("reserved", &self.reserved)
            .field("bytes", &self.bytes)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl MessageQueue {
    pub(crate) fn new(limits: MessageLimits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            awaited: VecDeque::new(),
            by_tenant: Map::default(),
            bytes: 0,
            rows: 0,
            reserved: 0,
            since_ms: 0,
            last: 0,
            stage: Stage::Open,
            told: 0,
            watched: false,
        }
    }

    /// Room for one message.
    pub(crate) fn reserve(&mut self, tenant: &TenantId, bytes: usize) -> Result<(), NotReserved> {
        if self.stage != Stage::Open {
            return Err(NotReserved::Closed);
        }
        let share = self.limits.tenant_bytes_max();
        if bytes > share {
            return Err(NotReserved::TooLarge);
        }
        if self.bytes + bytes > self.limits.bytes_max {
            return Err(NotReserved::Full);
        }
        match self.by_tenant.get_mut(tenant) {
            Some(held) if *held + bytes > share => return Err(NotReserved::TenantFull),
            Some(held) => *held += bytes,
            None => {
                self.by_tenant.insert(tenant.clone(), bytes);
            }
        }
        self.bytes += bytes;
        self.reserved += 1;
        Ok(())
    }

    /// Gives back what was reserved and is not needed.
    pub(crate) fn release(&mut self, tenant: &TenantId, bytes: usize) {
        self.reserved = self.reserved.saturating_sub(1);
        self.forget(tenant, bytes);
    }

    /// Takes the message for which room was reserved.
    ///
    /// # Errors
    /// After the end, with whom to tell.
    pub(crate) fn push(
        &mut self,
        mut row: Box<MessageRow>,
        bytes: usize,
        mono_ms: u64,
        since: Instant,
    ) -> Result<Wakes, Option<Callback>> {
        let callback = row.committed.0.take();
        if self.stage == Stage::Ended {
            return Err(callback);
        }
        self.reserved = self.reserved.saturating_sub(1);
        self.rows += 1;
        self.last += 1;
        let first = self.waiting.is_empty();
        if first {
            self.since_ms = mono_ms;
        }
        let late = std::mem::take(&mut row.late);
        let watch = late.0.is_some() && !replace(&mut self.watched, true);
        if callback.is_some() || late.0.is_some() {
            self.awaited.push_back(Awaited {
                ticket: self.last,
                late_ms: mono_ms.saturating_add(self.limits.answer_ms),
                late,
                callback,
            });
        }
        self.waiting.push_back(Waiting {
            ticket: self.last,
            bytes,
            since,
            row,
        });
        Ok(Wakes {
            writer: first || self.waiting.len() == COMMIT_ROWS_MAX,
            watch,
        })
    }

    /// When the next commit should begin, on the monotonic clock; none while nothing waits.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        if self.waiting.is_empty() {
            return None;
        }
        if self.waiting.len() >= COMMIT_ROWS_MAX || self.stage != Stage::Open {
            return Some(self.since_ms);
        }
        Some(self.since_ms.saturating_add(self.limits.commit_delay_ms))
    }

    /// Everything that waits. It counts against the bounds until it is settled.
    pub(crate) fn take(&mut self) -> VecDeque<Waiting> {
        // About as many come during the commit.
        let capacity = self.waiting.len().min(COMMIT_ROWS_MAX);
        replace(&mut self.waiting, VecDeque::with_capacity(capacity))
    }

    /// All messages up to this ticket are on the disk or were given up, and hold nothing any more. Who waits for them, with
    /// their tickets.
    pub(crate) fn settled(
        &mut self,
        ticket: u64,
        rows: u64,
        held: impl Iterator<Item = (TenantId, usize)>,
    ) -> Vec<(u64, Callback)> {
        self.rows = self.rows.saturating_sub(rows);
        for (tenant, bytes) in held {
            self.forget(&tenant, bytes);
        }
        let answered = self.awaited.partition_point(|awaited| awaited.ticket <= ticket);
        self.awaited
            .drain(..answered)
            .filter_map(|awaited| Some((awaited.ticket, awaited.callback?)))
            .collect()
    }

    /// Who is late now, and when to look again; if nobody will be, the next one wakes the watch.
    pub(crate) fn late(&mut self, mono_ms: u64) -> (Vec<Late>, Option<u64>) {
        let told = self
            .awaited
            .partition_point(|awaited| awaited.ticket <= self.told);
        let late = self
            .awaited
            .partition_point(|awaited| awaited.late_ms <= mono_ms)
            .max(told);
        let next_ms = self.awaited.get(late).map(|awaited| awaited.late_ms);
        self.watched = next_ms.is_some();
        let mut all = Vec::new();
        for awaited in self.awaited.range_mut(told..late) {
            self.told = awaited.ticket;
            all.push(std::mem::take(&mut awaited.late));
        }
        (all, next_ms)
    }

    /// From now on nothing is reserved.
    pub(crate) fn close(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Closing;
        }
    }

    /// From now on nothing is taken. Whoever still waits.
    pub(crate) fn end(&mut self) -> Vec<Callback> {
        self.stage = Stage::Ended;
        self.waiting.clear();
        self.awaited
            .drain(..)
            .filter_map(|awaited| awaited.callback)
            .collect()
    }

    /// The last ticket that was given.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Messages that are not on the disk.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// What they hold, and what is reserved besides.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every message that was reserved has come and is settled: no number is unaccounted for.
    pub(crate) fn is_clean(&self) -> bool {
        self.rows == 0 && self.reserved == 0
    }

    fn forget(&mut self, tenant: &TenantId, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(held) = self.by_tenant.get_mut(tenant) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.by_tenant.remove(tenant);
            }
        }
    }
}

/// What one room gains by a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadRow {
    pub(crate) tenant: TenantId,
    pub(crate) room: RoomName,
    pub(crate) epoch: Epoch,
    pub(crate) last: Seq,
    pub(crate) lease: Seq,
    pub(crate) kept: u64,
    pub(crate) bytes: u64,
    pub(crate) oldest_ms: u64,
    pub(crate) written_ms: u64,
    pub(crate) keep: Keep,
}

/// The messages of one transaction. An attempt after trouble writes the very same ones: that is how a commit that
/// succeeded although its answer was an error is recognised.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) rows: Vec<Waiting>,
    /// One a room, for all of `rows`; no room has rows of two epochs here.
    pub(crate) heads: Vec<HeadRow>,
    /// Of each row, its place in `heads`.
    pub(crate) head_of: Vec<usize>,
}

impl Piece {
    /// Takes the next messages from the front; none if there are none.
    pub(crate) fn cut(backlog: &mut VecDeque<Waiting>) -> Option<Self> {
        let mut piece = Self {
            rows: Vec::with_capacity(backlog.len().min(COMMIT_ROWS_MAX)),
            heads: Vec::new(),
            head_of: Vec::new(),
        };
        let mut places: Map<(TenantId, RoomName), usize> = Map::default();
        let mut bytes = 0;
        while let Some(next) = backlog.front() {
            let over = bytes + next.bytes > COMMIT_BYTES_MAX && !piece.rows.is_empty();
            if over || piece.rows.len() == COMMIT_ROWS_MAX {
                break;
            }
            let row = &next.row;
            let heads = &mut piece.heads;
            let at = *places
                .entry((row.tenant.clone(), row.room.clone()))
                .or_insert_with(|| {
                    heads.push(HeadRow {
                        tenant: row.tenant.clone(),
                        room: row.room.clone(),
                        epoch: row.epoch,
                        last: row.seq,
                        lease: row.lease,
                        kept: 0,
                        bytes: 0,
                        oldest_ms: row.unix_ms,
                        written_ms: row.unix_ms,
                        keep: row.keep,
                    });
                    heads.len() - 1
                });
            let head = &mut heads[at];
            if head.epoch != row.epoch {
                break;
            }
            head.last = head.last.max(row.seq);
            head.lease = head.lease.max(row.lease);
            head.kept += 1;
            head.bytes += next.bytes as u64;
            head.written_ms = row.unix_ms;
            head.keep = row.keep;
            bytes += next.bytes;
            piece.head_of.push(at);
            piece.rows.extend(backlog.pop_front());
        }
        (!piece.rows.is_empty()).then_some(piece)
    }

    /// The heads if these rows, given by their places in ascending order, are not kept. Their numbers stay taken.
    pub(crate) fn heads_without(&self, given_up: &[usize]) -> Vec<HeadRow> {
        let mut heads = self.heads.clone();
        for &at in given_up {
            let head = &mut heads[self.head_of[at]];
            head.kept = head.kept.saturating_sub(1);
            head.bytes = head.bytes.saturating_sub(self.rows[at].bytes as u64);
        }
        heads
    }

    /// What the piece holds of the bounds, by tenant.
    pub(crate) fn held(&self) -> Map<TenantId, usize> {
        let mut held: Map<TenantId, usize> = Map::default();
        for waiting in &self.rows {
            match held.get_mut(&waiting.row.tenant) {
                Some(bytes) => *bytes += waiting.bytes,
                None => {
                    held.insert(waiting.row.tenant.clone(), waiting.bytes);
                }
            }
        }
        held
    }

    /// Nothing before and including this ticket is left to write once the piece is.
    pub(crate) fn last_ticket(&self) -> u64 {
        self.rows.last().map_or(0, |waiting| waiting.ticket)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
