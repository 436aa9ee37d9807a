//! The queue of what is to be kept, and the task that commits it.
//!
//! Many changes share one sync: while one transaction is written, the next gathers. Nothing waits for a timer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use cauce_protocol::{Code, Refusal, TenantId};

use super::{CHANGE_OVERHEAD_BYTES, Done, Left, Marked, NotificationRow, ReadRow};
use crate::store::counters::Health;
use crate::store::error::StoreError;
use crate::store::handle::{Shared, StoreHandle};
use crate::store::sql;

/// Changes that may wait, and the part of them that one tenant may have.
pub const CHANGES_MAX: usize = 10_000;
pub const CHANGES_PER_TENANT_MAX: usize = CHANGES_MAX / 2;

/// Bytes that may wait, in changes of all tenants and of one.
pub const CHANGE_BYTES_MAX: usize = 32 * 1024 * 1024;
pub const CHANGE_BYTES_PER_TENANT_MAX: usize = CHANGE_BYTES_MAX / 2;

/// Changes of one transaction. At some tens of microseconds each, the lane is free for others again after some tens of
/// milliseconds.
const TRANSACTION_CHANGES_MAX: usize = 500;

/// When to come again if the queue is full, in milliseconds: it is written in less.
const FULL_RETRY_MS: u32 = 1_000;

/// Something to be committed.
#[derive(Debug)]
pub(in crate::store) enum Change {
    Leave(Arc<NotificationRow>, Done<Left>),
    Read(ReadRow, Done<Marked>),
}

/// What became of a change.
#[derive(Debug)]
pub(in crate::store) enum Changed {
    Left(Left),
    Marked(Marked),
}

impl Change {
    pub(in crate::store) fn tenant(&self) -> &TenantId {
        match self {
            Self::Leave(row, _) => &row.tenant,
            Self::Read(row, _) => &row.tenant,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Leave(row, _) => row.bytes(),
            Self::Read(row, _) => CHANGE_OVERHEAD_BYTES + row.ids.len() * size_of::<u64>(),
        }
    }

    fn refuse(self, refusal: Refusal) {
        match self {
            Self::Leave(_, done) => done.call(Err(refusal)),
            Self::Read(_, done) => done.call(Err(refusal)),
        }
    }

    fn answer(self, changed: Changed) {
        match (self, changed) {
            (Self::Leave(_, done), Changed::Left(left)) => done.call(Ok(left)),
            (Self::Read(_, done), Changed::Marked(marked)) => done.call(Ok(marked)),
            // One that got the other's answer is told that it got none, by its end.
            (Self::Leave(..), Changed::Marked(_)) | (Self::Read(..), Changed::Left(_)) => {}
        }
    }
}

/// Changes that wait, by tenant.
#[derive(Debug, Default)]
pub(in crate::store) struct Waiting {
    tenants: HashMap<TenantId, Queue, foldhash::fast::RandomState>,
    /// Tenants that have changes waiting, whose turn is next in front.
    turns: VecDeque<TenantId>,
    count: usize,
    bytes: usize,
    /// A task is at work and will look again.
    served: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    changes: VecDeque<Change>,
    bytes: usize,
}

/// Why a change was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Closed,
    Store,
    Tenant,
}

impl Full {
    fn refusal(self) -> Refusal {
        let message = match self {
            Self::Closed => return StoreError::closed().refusal(),
            Self::Store => "too many notifications wait to be written",
            Self::Tenant => "too many notifications of this tenant wait to be written",
        };
        Refusal::new(Code::Overloaded, message).retry_after(FULL_RETRY_MS)
    }
}

impl Waiting {
    /// Takes a change, or gives it back with the reason. Answers whether somebody must begin to serve.
    fn push(&mut self, change: Change) -> Result<bool, (Change, Full)> {
        if self.closed {
            return Err((change, Full::Closed));
        }
        let bytes = change.bytes();
        let (count, tenant_bytes) = self
            .tenants
            .get(change.tenant())
            .map_or((0, 0), |queue| (queue.changes.len(), queue.bytes));
        if count >= CHANGES_PER_TENANT_MAX || tenant_bytes + bytes > CHANGE_BYTES_PER_TENANT_MAX {
            return Err((change, Full::Tenant));
        }
        if self.count >= CHANGES_MAX || self.bytes + bytes > CHANGE_BYTES_MAX {
            return Err((change, Full::Store));
        }
        let tenant = change.tenant().clone();
        let queue = self.tenants.entry(tenant.clone()).or_default();
        if queue.changes.is_empty() {
            self.turns.push_back(tenant);
        }
        queue.changes.push_back(change);
        queue.bytes += bytes;
        self.count += 1;
        self.bytes += bytes;
        Ok(!std::mem::replace(&mut self.served, true))
    }

    /// The next changes, a tenant's in their order, tenants in turn. Nothing means that nobody serves any more.
    fn take(&mut self, max: usize) -> Vec<Change> {
        let mut taken = Vec::with_capacity(self.count.min(max));
        while taken.len() < max {
            let Some(tenant) = self.turns.pop_front() else {
                break;
            };
            let Some(queue) = self.tenants.get_mut(&tenant) else {
                continue;
            };
            if let Some(change) = queue.changes.pop_front() {
                let bytes = change.bytes();
                queue.bytes -= bytes;
                self.bytes -= bytes;
                self.count -= 1;
                taken.push(change);
            }
            if queue.changes.is_empty() {
                self.tenants.remove(&tenant);
            } else {
                self.turns.push_back(tenant);
            }
        }
        self.served = !taken.is_empty();
        taken
    }

    /// From now on nothing is taken. What waits is still given out.
    pub(in crate::store) fn close(&mut self) {
        self.closed = true;
    }
}

impl StoreHandle {
    /// Keeps a notification. Never blocks. `done` is called once it is committed and synced, or has been refused, and then in
    /// the order of the ids of its tenant.
    ///
    /// # Errors
    /// `done` gets `overloaded` if too many wait, `unavailable` while the database is in trouble or after the store has
    /// stopped. Then nothing was kept, with one thing to know: when the disk fails while it syncs, nobody knows what it holds.
    /// Who repeats should do so with the same idempotency key.
    pub fn leave_notification(&self, row: Arc<NotificationRow>, done: Done<Left>) {
        self.change(Change::Leave(row, done));
    }

    /// Keeps what a user has read. Never blocks. `done` is called once it is committed and synced, or has been refused.
    ///
    /// # Errors
    /// As for [`StoreHandle::leave_notification`].
    pub fn mark_notifications(&self, row: ReadRow, done: Done<Marked>) {
        self.change(Change::Read(row, done));
    }

    /// Changes that wait.
    pub fn notifications_waiting(&self) -> usize {
        self.shared.notifications.lock().count
    }

    fn change(&self, change: Change) {
        let refused = match self.shared.trouble() {
            Some(refusal) => Err((change, refusal)),
            None => {
                let pushed = self.shared.notifications.lock().push(change);
                pushed.map_err(|(change, full)| (change, full.refusal()))
            }
        };
        match refused {
            Ok(false) => {}
            Ok(true) => {
                let serving = Serving {
                    shared: Arc::clone(&self.shared),
                    ended: false,
                };
                self.shared.runtime.spawn(serving.serve());
            }
            Err((change, refusal)) => {
                self.shared.counters.notifications_refused.fetch_add(1, Relaxed);
                change.refuse(refusal);
            }
        }
    }
}

impl Shared {
    /// While the database is in trouble the writer finds out when that ends; no need for everyone to wait for it.
    fn trouble(&self) -> Option<Refusal> {
        match *self.health.lock() {
            Health::Degraded { reason, .. } => Some(StoreError::database(reason).refusal()),
            Health::Closed | Health::Ready => None,
        }
    }
}

/// Whoever serves the queue. If it goes before its end, whether its task died or never ran because the store has stopped, those
/// that wait are answered by their own end.
struct Serving {
    shared: Arc<Shared>,
    /// `take` has noted that nothing waits and nobody serves.
    ended: bool,
}

impl Serving {
    /// Until nothing waits.
    async fn serve(mut self) {
        loop {
            let batch = self.shared.notifications.lock().take(TRANSACTION_CHANGES_MAX);
            if batch.is_empty() {
                self.ended = true;
                return;
            }
            commit(&self.shared, batch).await;
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let waiting = {
            let mut now = self.shared.notifications.lock();
            let closed = now.closed;
            std::mem::replace(
                &mut *now,
                Waiting {
                    closed,
                    ..Waiting::default()
                },
            )
        };
        // Answered without the lock.
        drop(waiting);
    }
}

/// Commits a batch and answers it. If a row of it is at fault, each change is tried alone, so that only that one is refused.
async fn commit(shared: &Shared, batch: Vec<Change>) {
    match write(shared, &batch).await {
        Ok(changed) => answer(shared, batch, changed),
        Err(StoreError::Invalid { .. }) if batch.len() > 1 => {
            for change in batch {
                let alone = [change];
                let written = write(shared, &alone).await;
                match written {
                    Ok(changed) => answer(shared, alone.into(), changed),
                    Err(error) => refuse(shared, alone.into(), &error),
                }
            }
        }
        Err(error) => refuse(shared, batch, &error),
    }
}

fn answer(shared: &Shared, batch: Vec<Change>, changed: Vec<Changed>) {
    let counters = &shared.counters;
    for (change, changed) in batch.into_iter().zip(changed) {
        match &changed {
            Changed::Left(left) if left.repeated => &counters.notifications_repeated,
            Changed::Left(_) => &counters.notifications_stored,
            Changed::Marked(_) => &counters.notification_marks,
        }
        .fetch_add(1, Relaxed);
        change.answer(changed);
    }
}

fn refuse(shared: &Shared, batch: Vec<Change>, error: &StoreError) {
    shared
        .counters
        .notifications_refused
        .fetch_add(batch.len() as u64, Relaxed);
    for change in batch {
        change.refuse(error.refusal());
    }
}

/// One transaction.
async fn write(shared: &Shared, batch: &[Change]) -> Result<Vec<Changed>, StoreError> {
    let mut lane = shared.lane.lock().await;
    // A shutdown waits for the transaction that has begun, not for those that have not.
    if shared.admin_slots.is_closed() {
        return Err(StoreError::closed());
    }
    let result = async {
        let mut transaction = lane.begin().await?;
        let changed = sql::change_notifications(&mut transaction, batch, shared.notification_limits).await?;
        transaction.commit().await?;
        Ok::<_, StoreError>(changed)
    }
    .await;
    if let Err(error @ (StoreError::Unavailable { .. } | StoreError::Damaged { .. })) = &result {
        lane.discard();
        shared.counters.errors.fetch_add(1, Relaxed);
        tracing::warn!(%error, changes = batch.len(), "notifications could not be written; their senders are told");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::notifications::Sender;
    use bytes::Bytes;
    use cauce_protocol::message::{Audience, NotificationKind, Priority};

    fn row(tenant: &str, n: u64) -> Arc<NotificationRow> {
        Arc::new(NotificationRow {
            tenant: TenantId::new(tenant).unwrap(),
            audience: Audience::Tenant,
            sender: Sender::Api,
            idempotency_key: "".into(),
            window_ms: 0,
            kind: NotificationKind::Info,
            title: n.to_string(),
            message: String::new(),
            json: Bytes::new(),
            priority: Priority::Normal,
            created_ms: n,
            expires_ms: n + 1,
        })
    }

    fn leave(tenant: &str, n: u64) -> Change {
        Change::Leave(row(tenant, n), Done::new(|_| {}))
    }

    fn named(taken: &[Change]) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::Leave(row, _) => format!("{}{}", row.tenant, row.title),
            Change::Read(row, _) => row.tenant.to_string(),
        };
        taken.iter().map(name).collect()
    }

    #[test]
    fn tenants_take_turns_and_each_keeps_its_order() {
        let mut waiting = Waiting::default();
        for n in 0..5 {
            assert_eq!(
                waiting.push(leave("a", n)).unwrap(),
                n == 0,
                "the first one starts"
            );
        }
        for n in 0..2 {
            assert!(!waiting.push(leave("b", n)).unwrap());
        }
        assert_eq!(named(&waiting.take(4)), ["a0", "b0", "a1", "b1"]);
        assert_eq!(named(&waiting.take(100)), ["a2", "a3", "a4"]);
        assert!(waiting.take(100).is_empty());
        assert_eq!((waiting.count, waiting.bytes, waiting.tenants.len()), (0, 0, 0));
        assert!(
            waiting.push(leave("a", 9)).unwrap(),
            "nobody serves: the next one starts"
        );
    }

    #[test]
    fn one_tenant_may_fill_its_part_of_the_queue_and_no_more() {
        let mut waiting = Waiting::default();
        for n in 0..CHANGES_PER_TENANT_MAX as u64 {
            waiting.push(leave("a", n)).unwrap();
        }
        assert_eq!(waiting.push(leave("a", 0)).unwrap_err().1, Full::Tenant);
        for n in 0..(CHANGES_MAX - CHANGES_PER_TENANT_MAX) as u64 {
            waiting.push(leave("b", n)).unwrap();
        }
        assert_eq!(waiting.push(leave("c", 0)).unwrap_err().1, Full::Store);
        waiting.take(1);
        waiting.push(leave("c", 0)).unwrap();
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut waiting = Waiting::default();
        let large = |n| {
            let mut row = NotificationRow::clone(&row("a", n));
            row.json = Bytes::from(vec![b'1'; 1024 * 1024]);
            Change::Leave(Arc::new(row), Done::new(|_| {}))
        };
        let mut taken = 0;
        while waiting.push(large(taken)).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 15, "sixteen and their overhead are more than the bound");
        waiting.take(1);
        assert!(waiting.push(large(0)).is_ok());
    }

    #[test]
    fn a_change_that_is_lost_is_answered_once() {
        let (answer, mut answered) = tokio::sync::oneshot::channel();
        let done =
            Done::new(move |result: Result<Left, Refusal>| answer.send(result.unwrap_err().code).unwrap());
        drop(Change::Leave(row("a", 1), done));
        assert_eq!(answered.try_recv().unwrap(), Code::Unavailable);
    }
}
