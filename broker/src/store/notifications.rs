//! Notifications: what is left, what is read, and the queue between those who ask and the database.
//!
//! What must stay true:
//! - A change is answered after the transaction it was part of has been committed and synced, and in no other case with a
//!   success.
//! - Changes of a tenant are carried out, and answered, in the order in which they came. So ids rise in the order of the
//!   answers, and whoever pushes from an answer pushes in the order of the ids.
//! - Many changes share one sync: while one transaction is written, the next gathers. Nothing waits for a timer.
//! - Tenants take turns within a transaction, and none may hold more than its part of the queue.
//! - Every change is answered exactly once, also when the store stops or its thread dies.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use cauce_protocol::message::{Audience, NotificationKind, Priority};
use cauce_protocol::{Code, Refusal, Role, TenantId, UserId};
use tokio::sync::oneshot;

use super::counters::Health;
use super::error::StoreError;
use super::handle::{Shared, StoreHandle};
use super::sql;

/// Changes that may wait, and the part of them that one tenant may have.
pub const CHANGES_MAX: usize = 10_000;
pub const CHANGES_PER_TENANT_MAX: usize = CHANGES_MAX / 2;

/// Bytes that may wait, in changes of all tenants and of one.
pub const CHANGE_BYTES_MAX: usize = 32 * 1024 * 1024;
pub const CHANGE_BYTES_PER_TENANT_MAX: usize = CHANGE_BYTES_MAX / 2;

/// Changes of one transaction. At some tens of microseconds each, the lane is free for others again after some tens of
/// milliseconds.
const TRANSACTION_CHANGES_MAX: usize = 500;

/// What a waiting change takes besides its text, in bytes.
const CHANGE_OVERHEAD_BYTES: usize = 512;

/// When to come again if the queue is full, in milliseconds: it is written in less.
const FULL_RETRY_MS: u32 = 1_000;

/// Longest that a notification may be kept, in milliseconds. A user's mark is kept for as long, for it may speak of one.
pub const NOTIFICATION_KEPT_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;

/// Longest that an idempotency key is recognised, in milliseconds.
pub const NOTIFICATION_KEY_MS_MAX: u64 = 60 * 60 * 1_000;

/// A notification to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationRow {
    pub tenant: TenantId,
    pub audience: Audience,
    pub sender: Sender,
    /// Empty means none.
    pub idempotency_key: Box<str>,
    /// How far back a repeat is recognised, in milliseconds.
    pub window_ms: u64,
    pub kind: NotificationKind,
    pub title: String,
    pub message: String,
    /// JSON, or empty.
    pub json: Bytes,
    pub priority: Priority,
    pub created_ms: u64,
    pub expires_ms: u64,
}

impl NotificationRow {
    /// What it takes to hold, in bytes.
    pub fn bytes(&self) -> usize {
        let texts = [self.title.len(), self.message.len(), self.json.len()];
        CHANGE_OVERHEAD_BYTES + texts.iter().sum::<usize>()
    }
}

/// Who left a notification: an idempotency key is his alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// All keys of a tenant are one sender, so that a retry after a change of keys is still recognised.
    Api,
    /// The embedding program.
    Program,
    User(UserId),
}

/// A notification's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub id: u64,
    /// The idempotency key had been seen: this is the first answer again.
    pub repeated: bool,
}

/// Who asks, and in which roles: they decide what there is for him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    pub user: UserId,
    pub roles: Box<[Role]>,
}

impl Reader {
    /// Whether what was left for this audience is for him.
    pub fn is_of(&self, audience: &Audience) -> bool {
        match audience {
            Audience::User(user) => *user == self.user,
            Audience::Role(role) => self.roles.contains(role),
            Audience::Tenant => true,
        }
    }
}

/// What a user has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRow {
    pub tenant: TenantId,
    pub reader: Reader,
    pub ids: Vec<u64>,
    /// Everything up to and including this one; 0 means none.
    pub up_to: u64,
    pub at_ms: u64,
}

/// How things stand for a user after he has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// Those of the ids that are for him, rising.
    pub ids: Vec<u64>,
    /// As far as there are notifications.
    pub up_to: u64,
    pub unread: u32,
}

/// A page of what there is for a user, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationQuery {
    pub tenant: TenantId,
    pub reader: Reader,
    /// Older than this one; 0 means from the newest.
    pub before: u64,
    pub limit: u32,
    pub unread_only: bool,
    /// Texts together; one notification is always given.
    pub bytes_max: usize,
    /// What has expired by then is not there.
    pub now_ms: u64,
}

/// What was found, and the user's unread ones in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationPage {
    pub notifications: Vec<StoredNotification>,
    pub unread: u32,
    /// Older ones lie beyond.
    pub more: bool,
}

/// A notification read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredNotification {
    pub id: u64,
    pub kind: NotificationKind,
    pub title: String,
    pub message: String,
    pub json: Bytes,
    pub priority: Priority,
    pub created_ms: u64,
    pub expires_ms: u64,
    pub read: bool,
}

impl StoredNotification {
    /// What its texts take, in bytes.
    pub fn bytes(&self) -> usize {
        self.title.len() + self.message.len() + self.json.len()
    }
}

/// Waits for a change. Called once, on the store's thread unless the change was refused at once.
pub struct Done<T>(Option<Box<dyn FnOnce(Result<T, Refusal>) + Send + Sync>>);

impl<T> Done<T> {
    pub fn new(done: impl FnOnce(Result<T, Refusal>) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(done)))
    }

    /// One whose answer is awaited. Safe to cancel; the change goes on.
    pub fn awaited() -> (Self, impl Future<Output = Result<T, Refusal>> + Send)
    where
        T: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        // Whoever gave up waiting has dropped the other end.
        let done = Self::new(move |result| drop(answer.send(result)));
        let answered = async {
            answered
                .await
                .unwrap_or_else(|_| Err(StoreError::closed().refusal()))
        };
        (done, answered)
    }

    /// Answers.
    pub fn call(mut self, result: Result<T, Refusal>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

/// Whoever loses a change has answered it all the same.
impl<T> Drop for Done<T> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(StoreError::closed().refusal()));
        }
    }
}

impl<T> fmt::Debug for Done<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Done")
    }
}

/// Something to be committed.
#[derive(Debug)]
pub(super) enum Change {
    Leave(Arc<NotificationRow>, Done<Left>),
    Read(ReadRow, Done<Marked>),
}

/// What became of a change.
#[derive(Debug)]
pub(super) enum Changed {
    Left(Left),
    Marked(Marked),
}

impl Change {
    pub(super) fn tenant(&self) -> &TenantId {
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
pub(super) struct Waiting {
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
    pub(super) fn close(&mut self) {
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

    /// A page of what there is for a user. Safe to cancel.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if too many queries wait, or the database cannot be read.
    pub async fn notifications(&self, query: NotificationQuery) -> Result<NotificationPage, StoreError> {
        self.read(move |c| Box::pin(async move { sql::notifications(c, &query).await }))
            .await
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
                let shared = Arc::clone(&self.shared);
                self.shared.runtime.spawn(async move { serve(&shared).await });
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

/// Until nothing waits.
async fn serve(shared: &Shared) {
    // If this task dies, the next change starts another.
    let mut serving = Serving { shared, ended: false };
    loop {
        let batch = shared.notifications.lock().take(TRANSACTION_CHANGES_MAX);
        if batch.is_empty() {
            serving.ended = true;
            return;
        }
        commit(shared, batch).await;
    }
}

struct Serving<'a> {
    shared: &'a Shared,
    /// `take` has noted the end itself.
    ended: bool,
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Nobody would serve those that wait: their end answers them.
        let waiting = std::mem::take(&mut *self.shared.notifications.lock());
        self.shared.notifications.lock().closed = waiting.closed;
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
