//! What the store tells about itself: counters for `/metrics`, and its health for `/ready`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::queue::NotReserved;
use super::rows::{Admission, Unwritten};
use crate::metrics::Histogram;

/// Only ever rising. Read them without a lock; what waits at the moment is [`super::StoreHandle::queued`].
#[derive(Debug, Default)]
pub struct Counters {
    pub device_states_written: AtomicU64,
    pub readings_written: AtomicU64,
    pub events_written: AtomicU64,
    pub audit_written: AtomicU64,
    pub connection_logs_written: AtomicU64,
    /// States that never needed writing because a newer one of the device came first.
    pub states_replaced: AtomicU64,
    pub states_stale: AtomicU64,
    pub refused_closed: AtomicU64,
    pub refused_full: AtomicU64,
    pub refused_tenant_full: AtomicU64,
    pub refused_too_large: AtomicU64,
    /// Rows the database itself would never take, for a reason that lies in the row.
    pub refused_by_database: AtomicU64,
    /// Committed transactions of telemetry.
    pub batches: AtomicU64,
    /// Attempts after an error.
    pub retries: AtomicU64,
    pub errors: AtomicU64,
    pub retention_deleted: AtomicU64,
    /// Notifications that were committed, and those that were answered like the first of their idempotency key.
    pub notifications_stored: AtomicU64,
    pub notifications_repeated: AtomicU64,
    /// Requests that marked notifications as read.
    pub notification_marks: AtomicU64,
    /// Notifications and marks that were not taken.
    pub notifications_refused: AtomicU64,
    pub admin_writes: AtomicU64,
    pub admin_refused: AtomicU64,
    /// How long a transaction of telemetry took.
    pub flush: Histogram,
    /// Messages of durable rooms that are on the disk through this run.
    pub messages_written: AtomicU64,
    /// Messages that were refused before they had a number, because their queue or their tenant's share was full.
    pub messages_refused_full: AtomicU64,
    pub messages_refused_tenant_full: AtomicU64,
    pub messages_refused_too_large: AtomicU64,
    pub messages_refused_closed: AtomicU64,
    /// Messages the database itself would never take.
    pub messages_given_up: AtomicU64,
    /// Publishers who were told that their message may or may not be committed in the end.
    pub messages_late: AtomicU64,
    /// Messages that retention deleted, and rooms that it forgot.
    pub messages_trimmed: AtomicU64,
    pub rooms_forgotten: AtomicU64,
    /// Committed transactions of messages.
    pub commits: AtomicU64,
    /// How long a transaction of messages took, the sync with it.
    pub commit: Histogram,
    /// From the hand-over of a message to its commit.
    pub durable: Histogram,
}

impl Counters {
    pub(crate) fn admission(&self, admission: Admission) {
        let counter = match admission {
            Admission::Accepted => return,
            Admission::Replaced => &self.states_replaced,
            Admission::Stale => &self.states_stale,
            Admission::Refused(Unwritten::Closed) => &self.refused_closed,
            Admission::Refused(Unwritten::Full) => &self.refused_full,
            Admission::Refused(Unwritten::TenantFull) => &self.refused_tenant_full,
            Admission::Refused(Unwritten::TooLarge) => &self.refused_too_large,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn flushed(&self, took: Duration) {
        self.flush.record(took);
        self.batches.fetch_add(1, Relaxed);
    }

    pub(crate) fn not_reserved(&self, why: NotReserved) {
        match why {
            NotReserved::Closed => &self.messages_refused_closed,
            NotReserved::Full => &self.messages_refused_full,
            NotReserved::TenantFull => &self.messages_refused_tenant_full,
            NotReserved::TooLarge => &self.messages_refused_too_large,
        }
        .fetch_add(1, Relaxed);
    }

    /// Telemetry rows that are in the database through this run.
    pub fn rows_written(&self) -> u64 {
        self.device_states_written.load(Relaxed)
            + self.readings_written.load(Relaxed)
            + self.events_written.load(Relaxed)
            + self.audit_written.load(Relaxed)
            + self.connection_logs_written.load(Relaxed)
    }

    /// Rows that were refused, for whatever reason.
    pub fn rows_refused(&self) -> u64 {
        self.refused_closed.load(Relaxed)
            + self.refused_full.load(Relaxed)
            + self.refused_tenant_full.load(Relaxed)
            + self.refused_too_large.load(Relaxed)
            + self.refused_by_database.load(Relaxed)
    }
}

/// Whether what is handed over reaches the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// Rows wait in memory and the writer keeps trying; nothing that was accepted is lost while the process lives.
    Degraded {
        since_unix_ms: u64,
        reason: Trouble,
    },
    /// Shut down.
    Closed,
}

/// What keeps the database from taking rows. The codes are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Damaged,
    DiskFull,
    Io,
    Locked,
    Other,
    ReadOnly,
}

impl Trouble {
    pub fn code(self) -> &'static str {
        match self {
            Self::Damaged => "store_damaged",
            Self::DiskFull => "store_disk_full",
            Self::Io => "store_io",
            Self::Locked => "store_locked",
            Self::Other => "store_error",
            Self::ReadOnly => "store_read_only",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "the database file is damaged; stop the broker and restore a backup",
            Self::DiskFull => "the disk is full; free some space, the store goes on by itself",
            Self::Io => "the disk reports errors; look at the system's log",
            Self::Locked => "another process holds the database; end it, the store goes on by itself",
            Self::Other => "the database reports an error; see the broker's log",
            Self::ReadOnly => "the database cannot be written; look at the rights of the data directory",
        })
    }
}
