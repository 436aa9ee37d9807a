//! Notifications: what is left, what is read, and how those who ask for either wait for the database.
//!
//! What must stay true:
//! - A change is answered after the transaction it was part of has been committed and synced, and in no other case with a
//!   success.
//! - Changes of a tenant are carried out, and answered, in the order in which they came. So ids rise in the order of the
//!   answers, and whoever pushes from an answer pushes in the order of the ids.
//! - Every change is answered exactly once, also when the store stops or its thread dies.
//! - Tenants take turns at both, and none may hold more than its part of what waits.

mod changes;
mod queries;

use std::fmt;

use bytes::Bytes;
use cauce_protocol::message::{Audience, NotificationKind, Priority};
use cauce_protocol::{Refusal, Role, TenantId, UserId};
use tokio::sync::oneshot;

pub use changes::{CHANGE_BYTES_MAX, CHANGE_BYTES_PER_TENANT_MAX, CHANGES_MAX, CHANGES_PER_TENANT_MAX};
pub use queries::{QUERIES_PER_TENANT_MAX, QUERIES_WAITING_MAX};

pub(super) use changes::{Change, Changed, Waiting};
pub(super) use queries::QUERIES;

use super::error::StoreError;

/// What a waiting change takes besides its text, in bytes.
const CHANGE_OVERHEAD_BYTES: usize = 512;

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
pub struct Done<T>(Option<Callback<T>>);

type Callback<T> = Box<dyn FnOnce(Result<T, Refusal>) + Send + Sync>;

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
