//! What waits to be written, and when it is due. Pure: no lock, no clock, no database.
//!
//! What must stay true:
//! - Of a device's states only the newest waits; readings, events, audit and connection rows all wait, and leave in order of arrival; readings, in that of
//!   each device.
//! - What waits and what is on its way into the database together stay within [`StoreLimits`].
//! - A row that was accepted leaves in exactly one [`Batch`], and batches leave in order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem::{size_of, take};
use std::ops::Range;

use cauce_protocol::{DeviceId, TenantId};

use super::config::{
    AUDIT_RESERVE_ROWS, FLUSH_BYTES_DIVISOR, ROW_BYTES_MAX, STATE_RESERVE_DIVISOR, StoreLimits,
};
use super::rows::{
    Admission, AuditRow, ConnectionEvent, ConnectionLogRow, DeviceStateRow, EventRow, Numbered, ReadingRow,
    Unwritten,
};

type Map<K, V> = HashMap<K, V, foldhash::quality::RandomState>;

/// Memory of a row, in bytes: the struct and what it may hold on the heap. Names of tenants, devices and channels are
/// bounded and shared, and not counted.
pub(crate) trait Weight {
    fn weight(&self) -> usize;
}

impl Weight for DeviceStateRow {
    fn weight(&self) -> usize {
        let names = self.src.len() + self.model.as_ref().map_or(0, |m| m.len());
        // The key beside the row in the map is two shared names.
        size_of::<Self>() + size_of::<(TenantId, DeviceId)>() + names + self.state.len()
    }
}

impl Weight for ReadingRow {
    fn weight(&self) -> usize {
        size_of::<Numbered<Self>>()
    }
}

impl Weight for EventRow {
    fn weight(&self) -> usize {
        let component = self.component.as_ref().map_or(0, |c| c.len());
        size_of::<Numbered<Self>>() + component + self.event.len() + self.data.len()
    }
}

impl Weight for AuditRow {
    fn weight(&self) -> usize {
        let names = self.actor.len() + self.action.len() + self.target.len();
        size_of::<Numbered<Self>>() + names + self.detail.len()
    }
}

impl Weight for ConnectionLogRow {
    fn weight(&self) -> usize {
        let message = match &self.event {
            ConnectionEvent::Closed { message, .. } => message.as_ref().map_or(0, |m| m.len()),
            ConnectionEvent::Opened => 0,
        };
        let client = self.client.as_ref().map_or(0, |c| c.len());
        size_of::<Numbered<Self>>() + self.address.len() + client + message
    }
}

/// How much of the bounds something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) states: usize,
    /// Readings, events, audit and comings and goings of clients.
    pub(crate) log_rows: usize,
    pub(crate) bytes: usize,
}

impl Load {
    pub(crate) fn rows(&self) -> usize {
        self.states + self.log_rows
    }

    /// Whether as much waits as is written without waiting for more: what is let in must not meet a bound while the writer sleeps.
    fn is_much(&self, limits: &StoreLimits) -> bool {
        self.rows() >= limits.flush_rows || self.bytes >= limits.bytes_max / FLUSH_BYTES_DIVISOR
    }

    fn add(&mut self, other: Load) {
        self.states += other.states;
        self.log_rows += other.log_rows;
        self.bytes += other.bytes;
    }

    fn remove(&mut self, other: Load) {
        self.states -= other.states;
        self.log_rows -= other.log_rows;
        self.bytes -= other.bytes;
    }
}

/// The answer to a push, and whether the writer has something new to consider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Pushed {
    pub(crate) admission: Admission,
    pub(crate) wake: bool,
}

#[derive(Debug)]
pub(crate) struct Pending {
    limits: StoreLimits,
    states: Map<(TenantId, DeviceId), DeviceStateRow>,
    readings: Vec<Numbered<ReadingRow>>,
    events: Vec<Numbered<EventRow>>,
    audits: Vec<Numbered<AuditRow>>,
    connections: Vec<Numbered<ConnectionLogRow>>,
    /// What waits here, by tenant; audit is nobody's.
    by_tenant: Map<TenantId, Load>,
    waiting: Load,
    in_flight: Load,
    /// Since when the oldest row waits, on the monotonic clock.
    since_ms: Option<u64>,
    /// The number of the last row that was let in.
    last: u64,
    closed: bool,
}

impl Pending {
    /// Numbers rows from `first + 1`.
    pub(crate) fn new(limits: StoreLimits, first: u64) -> Self {
        Self {
            limits,
            states: Map::default(),
            readings: Vec::new(),
            events: Vec::new(),
            audits: Vec::new(),
            connections: Vec::new(),
            by_tenant: Map::default(),
            waiting: Load::default(),
            in_flight: Load::default(),
            since_ms: None,
            last: first,
            closed: false,
        }
    }

    pub(crate) fn push_state(&mut self, row: DeviceStateRow, mono_ms: u64) -> Pushed {
        let new = Load {
            states: 1,
            log_rows: 0,
            bytes: row.weight(),
        };
        if let Some(why) = self.obstacle(new) {
            return refused(why);
        }
        let reserve = self.limits.bytes_max / STATE_RESERVE_DIVISOR;
        let bytes_all = self.load().bytes;
        let beyond = self.beyond(&row.tenant, new);
        match self.states.entry((row.tenant.clone(), row.device.clone())) {
            Entry::Occupied(old) if old.get().seq > row.seq => Pushed {
                admission: Admission::Stale,
                wake: false,
            },
            Entry::Occupied(mut old) => {
                let was_much = self.waiting.is_much(&self.limits);
                let before = old.get().weight();
                let grows = new.bytes > before;
                if grows && bytes_all - before + new.bytes > self.limits.bytes_max.saturating_add(reserve) {
                    return refused(Unwritten::Full);
                }
                if let Some(share) = self.by_tenant.get_mut(&row.tenant) {
                    share.bytes = share.bytes - before + new.bytes;
                }
                self.waiting.bytes = self.waiting.bytes - before + new.bytes;
                self.last += 1;
                old.insert(row);
                Pushed {
                    admission: Admission::Replaced,
                    wake: !was_much && self.waiting.is_much(&self.limits),
                }
            }
            Entry::Vacant(place) => {
                if let Some(why) = beyond {
                    return refused(why);
                }
                let tenant = row.tenant.clone();
                place.insert(row);
                self.admitted(Some(&tenant), new, mono_ms)
            }
        }
    }

    pub(crate) fn push_reading(&mut self, row: ReadingRow, mono_ms: u64) -> Pushed {
        let new = Load {
            states: 0,
            log_rows: 1,
            bytes: row.weight(),
        };
        if let Some(why) = self.obstacle(new).or_else(|| self.beyond(&row.tenant, new)) {
            return refused(why);
        }
        let pushed = self.admitted(Some(&row.tenant), new, mono_ms);
        self.readings.push(Numbered { seq: self.last, row });
        pushed
    }

    pub(crate) fn push_event(&mut self, row: EventRow, mono_ms: u64) -> Pushed {
        let new = Load {
            states: 0,
            log_rows: 1,
            bytes: row.weight(),
        };
        if let Some(why) = self.obstacle(new).or_else(|| self.beyond(&row.tenant, new)) {
            return refused(why);
        }
        let pushed = self.admitted(Some(&row.tenant), new, mono_ms);
        self.events.push(Numbered { seq: self.last, row });
        pushed
    }

    pub(crate) fn push_audit(&mut self, row: AuditRow, mono_ms: u64) -> Pushed {
        let new = Load {
            states: 0,
            log_rows: 1,
            bytes: row.weight(),
        };
        if let Some(why) = self.obstacle(new) {
            return refused(why);
        }
        if self.load().log_rows >= self.limits.rows_max + AUDIT_RESERVE_ROWS {
            return refused(Unwritten::Full);
        }
        let pushed = self.admitted(None, new, mono_ms);
        self.audits.push(Numbered { seq: self.last, row });
        pushed
    }

    pub(crate) fn push_connection_log(&mut self, row: ConnectionLogRow, mono_ms: u64) -> Pushed {
        let new = Load {
            states: 0,
            log_rows: 1,
            bytes: row.weight(),
        };
        if let Some(why) = self.obstacle(new).or_else(|| self.beyond(&row.tenant, new)) {
            return refused(why);
        }
        let pushed = self.admitted(Some(&row.tenant), new, mono_ms);
        self.connections.push(Numbered { seq: self.last, row });
        pushed
    }

    /// When writing should begin, on the monotonic clock; none while nothing waits.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        let since_ms = self.since_ms?;
        if self.waiting.is_much(&self.limits) || self.closed {
            Some(since_ms)
        } else {
            Some(since_ms.saturating_add(self.limits.flush_age_ms))
        }
    }

    /// Everything that waits. It counts against the bounds until [`Pending::settled`] says it is written. Moves whole
    /// lists and touches no row: the caller holds the lock that every push needs.
    pub(crate) fn take(&mut self) -> Option<Taken> {
        self.since_ms.take()?;
        self.by_tenant.clear();
        self.in_flight.add(take(&mut self.waiting));
        Some(Taken {
            states: take(&mut self.states),
            readings: take(&mut self.readings),
            events: take(&mut self.events),
            audits: take(&mut self.audits),
            connections: take(&mut self.connections),
            last: self.last,
        })
    }

    pub(crate) fn settled(&mut self, written: Load) {
        self.in_flight.remove(written);
    }

    /// From now on nothing is let in.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// What waits and what is on its way.
    pub(crate) fn load(&self) -> Load {
        let mut load = self.waiting;
        load.add(self.in_flight);
        load
    }

    /// The number of the last row that was let in.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    fn obstacle(&self, new: Load) -> Option<Unwritten> {
        if self.closed {
            Some(Unwritten::Closed)
        } else if new.bytes > ROW_BYTES_MAX {
            Some(Unwritten::TooLarge)
        } else {
            None
        }
    }

    /// Which bound `new` would exceed. Only the kinds of row it adds are compared, so that full logs leave states alone.
    fn beyond(&self, tenant: &TenantId, new: Load) -> Option<Unwritten> {
        let exceeds = |held: Load, percent: usize| {
            let part = |bound: usize| bound / 100 * percent + bound % 100 * percent / 100;
            let over = |held: usize, new: usize, bound: usize| new > 0 && held + new > part(bound);
            over(held.states, new.states, self.limits.states_max)
                || over(held.log_rows, new.log_rows, self.limits.rows_max)
                || over(held.bytes, new.bytes, self.limits.bytes_max)
        };
        if exceeds(self.load(), 100) {
            return Some(Unwritten::Full);
        }
        let share = self.by_tenant.get(tenant).copied().unwrap_or_default();
        exceeds(share, usize::from(self.limits.tenant_share_percent)).then_some(Unwritten::TenantFull)
    }

    fn admitted(&mut self, tenant: Option<&TenantId>, new: Load, mono_ms: u64) -> Pushed {
        self.last += 1;
        let was_much = self.waiting.is_much(&self.limits);
        self.waiting.add(new);
        if let Some(tenant) = tenant {
            match self.by_tenant.get_mut(tenant) {
                Some(share) => share.add(new),
                None => {
                    self.by_tenant.insert(tenant.clone(), new);
                }
            }
        }
        let first = self.since_ms.is_none();
        self.since_ms.get_or_insert(mono_ms);
        let is_much = self.waiting.is_much(&self.limits);
        Pushed {
            admission: Admission::Accepted,
            wake: first || (!was_much && is_much),
        }
    }
}

fn refused(why: Unwritten) -> Pushed {
    Pushed {
        admission: Admission::Refused(why),
        wake: false,
    }
}

/// What left [`Pending`] at once, to be made a [`Batch`] once the lock is released.
#[derive(Debug)]
pub(crate) struct Taken {
    states: Map<(TenantId, DeviceId), DeviceStateRow>,
    readings: Vec<Numbered<ReadingRow>>,
    events: Vec<Numbered<EventRow>>,
    audits: Vec<Numbered<AuditRow>>,
    connections: Vec<Numbered<ConnectionLogRow>>,
    last: u64,
}

/// What left [`Pending`] at once, in the order of writing. Written in pieces; what is written is never offered again.
#[derive(Debug)]
pub(crate) struct Batch {
    states: Vec<DeviceStateRow>,
    readings: Vec<Numbered<ReadingRow>>,
    events: Vec<Numbered<EventRow>>,
    audits: Vec<Numbered<AuditRow>>,
    connections: Vec<Numbered<ConnectionLogRow>>,
    /// Rows already written, counted through the lists in the order above.
    done: usize,
    /// The number of the last row let in before this batch left.
    last: u64,
}

/// The next rows of a batch, for one transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) states: &'a [DeviceStateRow],
    pub(crate) readings: &'a [Numbered<ReadingRow>],
    pub(crate) events: &'a [Numbered<EventRow>],
    pub(crate) audits: &'a [Numbered<AuditRow>],
    pub(crate) connections: &'a [Numbered<ConnectionLogRow>],
}

impl Piece<'_> {
    pub(crate) fn load(&self) -> Load {
        fn bytes<'r, T: Weight + 'r>(rows: impl Iterator<Item = &'r T>) -> usize {
            rows.map(Weight::weight).sum()
        }
        Load {
            states: self.states.len(),
            log_rows: self.readings.len() + self.events.len() + self.audits.len() + self.connections.len(),
            bytes: bytes(self.states.iter())
                + bytes(self.readings.iter().map(|n| &n.row))
                + bytes(self.events.iter().map(|n| &n.row))
                + bytes(self.audits.iter().map(|n| &n.row))
                + bytes(self.connections.iter().map(|n| &n.row)),
        }
    }
}

impl From<Taken> for Batch {
    fn from(taken: Taken) -> Self {
        // By device, as the tables are: a page of either is then read, changed and written once for all its rows of a transaction, and
        // not once for each. The order of one device's rows stays.
        let mut states: Vec<_> = taken.states.into_values().collect();
        states.sort_unstable_by(|a, b| (&a.tenant, &a.device).cmp(&(&b.tenant, &b.device)));
        let mut readings = taken.readings;
        readings.sort_by(|a, b| (&a.row.tenant, &a.row.device).cmp(&(&b.row.tenant, &b.row.device)));
        Self {
            states,
            readings,
            events: taken.events,
            audits: taken.audits,
            connections: taken.connections,
            done: 0,
            last: taken.last,
        }
    }
}

impl Batch {
    /// Up to `rows_max` rows that are not written yet; none when all are.
    pub(crate) fn piece(&self, rows_max: usize) -> Option<Piece<'_>> {
        let mut skip = self.done;
        let mut room = rows_max;
        let mut cut = |len: usize| -> Range<usize> {
            let start = skip.min(len);
            skip -= start;
            let end = len.min(start + room);
            room -= end - start;
            start..end
        };
        let piece = Piece {
            states: &self.states[cut(self.states.len())],
            readings: &self.readings[cut(self.readings.len())],
            events: &self.events[cut(self.events.len())],
            audits: &self.audits[cut(self.audits.len())],
            connections: &self.connections[cut(self.connections.len())],
        };
        (piece.load().rows() > 0).then_some(piece)
    }

    /// The next `rows` rows are in the database.
    pub(crate) fn advance(&mut self, rows: usize) {
        self.done += rows;
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
