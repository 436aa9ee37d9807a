//! What the rest of the broker holds: pushes that never wait, and a way to wait for them where one may.

use std::sync::Arc;

use parking_lot::Mutex;
use sqlx::sqlite::SqlitePool;
use tokio::sync::{Notify, watch};

use super::batch::{Pending, Pushed};
use super::config::NotificationLimits;
use super::counters::{Counters, Health};
use super::error::StoreError;
use super::lane::Lane;
use super::notifications::Waiting;
use super::queue::MessageQueue;
use super::rows::{Admission, AuditRow, ConnectionLogRow, DeviceStateRow, EventRow, ReadingRow};
use super::slots::Slots;
use super::turns::Turns;
use crate::clock::Clock;

/// How far the writer has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    /// Every row let in up to this number is in the database or was given up.
    pub(super) last: u64,
    /// Every message up to this ticket, likewise.
    pub(super) messages: u64,
    pub(super) closed: bool,
}

/// Shared by all handles and the writer.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) pending: Mutex<Pending>,
    /// Never locked while `pending` is.
    pub(super) messages: Mutex<MessageQueue>,
    /// Something in `pending` or `messages` has become due, or the store is to stop.
    pub(super) wake: Notify,
    /// Somebody waits for a commit, after a time when nobody did.
    pub(super) watch: Notify,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
    pub(super) health: Mutex<Health>,
    pub(super) settled: watch::Sender<Settled>,
    /// The one connection that writes. Fair, so that admin operations and telemetry alternate.
    pub(super) lane: tokio::sync::Mutex<Lane>,
    pub(super) readers: SqlitePool,
    pub(super) admin_slots: Slots,
    pub(super) query_slots: Slots,
    pub(super) page_slots: Slots,
    pub(super) page_turns: Turns,
    /// Changes of notifications that wait for the lane.
    pub(super) notifications: Mutex<Waiting>,
    pub(super) notification_limits: NotificationLimits,
    pub(super) notification_queries: Turns,
    /// Of the store's own thread: whatever waits for the database waits there, also when the caller gives up.
    pub(super) runtime: tokio::runtime::Handle,
}

/// Hands rows to the store and asks it. Cheap to clone; works from any thread and any runtime.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    pub(super) shared: Arc<Shared>,
}

impl Shared {
    /// From now on nobody is let in, neither rows nor operations.
    pub(super) fn close(&self) {
        self.pending.lock().close();
        self.messages.lock().close();
        self.notifications.lock().close();
        self.admin_slots.close();
        self.query_slots.close();
        self.page_slots.close();
    }
}

/// Those who want something of the database, by what they want.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// As in metrics.
    pub name: &'static str,
    /// Waiting or served now.
    pub waiting: usize,
    /// Sent away because as many waited as may.
    pub refused: u64,
}

impl StoreHandle {
    /// Who wants something of the database beside what is written behind the traffic.
    pub fn demands(&self) -> [Demand; 4] {
        let shared = &*self.shared;
        let slots = |name, slots: &Slots| Demand {
            name,
            waiting: slots.taken(),
            refused: slots.refused(),
        };
        let turns = |name, turns: &Turns| Demand {
            name,
            waiting: turns.waiting(),
            refused: turns.refused(),
        };
        [
            slots("changes", &shared.admin_slots),
            slots("queries", &shared.query_slots),
            turns("pages", &shared.page_turns),
            turns("notifications", &shared.notification_queries),
        ]
    }

    /// Never blocks: a lock held for one push, and a wake-up.
    pub fn device_state(&self, row: DeviceStateRow) -> Admission {
        self.push(|pending, mono_ms| pending.push_state(row, mono_ms))
    }

    /// Never blocks: a lock held for one push, and a wake-up.
    pub fn reading(&self, row: ReadingRow) -> Admission {
        self.push(|pending, mono_ms| pending.push_reading(row, mono_ms))
    }

    /// Never blocks: a lock held for one push, and a wake-up.
    pub fn device_event(&self, row: EventRow) -> Admission {
        self.push(|pending, mono_ms| pending.push_event(row, mono_ms))
    }

    /// Never blocks: a lock held for one push, and a wake-up.
    pub fn audit(&self, row: AuditRow) -> Admission {
        self.push(|pending, mono_ms| pending.push_audit(row, mono_ms))
    }

    /// Never blocks: a lock held for one push, and a wake-up.
    pub fn connection_log(&self, row: ConnectionLogRow) -> Admission {
        self.push(|pending, mono_ms| pending.push_connection_log(row, mono_ms))
    }

    /// Waits until every row accepted before this call is in the database and synced, or was given up as one the
    /// database would never take.
    ///
    /// Safe to cancel. While the database is out of order this waits as long as that lasts: bring your own time-out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the store stops first.
    pub async fn flushed(&self) -> Result<(), StoreError> {
        let last = self.shared.pending.lock().last();
        let messages = self.shared.messages.lock().last();
        let written = |settled: &Settled| settled.last >= last && settled.messages >= messages;
        let mut settled = self.shared.settled.subscribe();
        let reached = settled.wait_for(|s| written(s) || s.closed).await;
        match reached {
            Ok(settled) if written(&settled) => Ok(()),
            _ => Err(StoreError::closed()),
        }
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub fn health(&self) -> Health {
        self.shared.health.lock().clone()
    }

    /// Rows and bytes in memory that are not in the database yet.
    pub fn queued(&self) -> Queued {
        let load = self.shared.pending.lock().load();
        Queued {
            rows: load.rows() as u64,
            bytes: load.bytes as u64,
        }
    }

    fn push(&self, push: impl FnOnce(&mut Pending, u64) -> Pushed) -> Admission {
        let mono_ms = self.shared.clock.now().mono_ms;
        let pushed = push(&mut self.shared.pending.lock(), mono_ms);
        if pushed.wake {
            self.shared.wake.notify_one();
        }
        self.shared.counters.admission(pushed.admission);
        pushed.admission
    }
}

/// What waits in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    pub rows: u64,
    pub bytes: u64,
}
