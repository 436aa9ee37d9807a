//! Notifications: left for people until they have read them, the same in all their tabs and devices.

mod stream;

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cauce_protocol::limits::{INTEGER_MAX, MARK_READ_MAX};
use cauce_protocol::message::{NotificationKind, Priority};
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome};
use futures_util::Stream;
use serde::Deserialize;

pub use self::stream::{NotificationEvent, Notifications};

use crate::client::{Handle, unexpected};
use crate::connection::Delivery;
use crate::error::Error;
use crate::queue::Item;

/// One notification. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// Rises with time; unique among the user's own.
    pub id: u64,
    pub kind: NotificationKind,
    pub title: String,
    pub message: String,
    /// JSON; empty means none.
    pub json: Bytes,
    pub priority: Priority,
    /// Milliseconds since 1970, by the broker's clock.
    pub created_unix_ms: u64,
    pub expires_unix_ms: u64,
    pub read: bool,
}

impl Notification {
    /// [`Notification::json`] as a value; `None` if there is nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if it is not of that type.
    pub fn data<'a, T: Deserialize<'a>>(&'a self) -> Result<Option<T>, Error> {
        match self.json.is_empty() {
            true => Ok(None),
            false => Ok(Some(serde_json::from_slice(&self.json)?)),
        }
    }
}

impl From<wire::Notification> for Notification {
    fn from(notification: wire::Notification) -> Self {
        Self {
            id: notification.id,
            // A kind or priority of a later version is shown as an ordinary one.
            kind: NotificationKind::try_from(notification.kind).unwrap_or(NotificationKind::Info),
            title: notification.title,
            message: notification.message,
            json: notification.json,
            priority: Priority::try_from(notification.priority).unwrap_or(Priority::Normal),
            created_unix_ms: notification.created_unix_ms,
            expires_unix_ms: notification.expires_unix_ms,
            read: notification.read,
        }
    }
}

/// What the connection hears of notifications, for everyone who listens.
#[derive(Clone, Debug)]
pub(crate) enum Noticed {
    Notification(Notification),
    /// On this or another of the user's connections.
    Read {
        ids: Vec<u64>,
        up_to: u64,
    },
    /// The broker has said for the first time what there is: this is the newest.
    Begins(u64),
    /// The broker has welcomed us: what came meanwhile is to be asked for.
    Online,
    Lagged(u64),
}

impl Item for Noticed {
    fn bytes(&self) -> usize {
        match self {
            Self::Notification(n) => n.title.len() + n.message.len() + n.json.len(),
            Self::Read { ids, .. } => ids.len() * size_of::<u64>(),
            Self::Begins(_) | Self::Online | Self::Lagged(_) => 0,
        }
    }

    fn messages(&self) -> u64 {
        match self {
            Self::Notification(_) => 1,
            Self::Lagged(missed) => *missed,
            Self::Read { .. } | Self::Begins(_) | Self::Online => 0,
        }
    }

    fn lagged(missed: u64) -> Self {
        Self::Lagged(missed)
    }
}

/// Some of the user's notifications, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotificationPage {
    pub notifications: Vec<Notification>,
    /// How many are unread in all.
    pub unread: u32,
    /// Older ones lie beyond the last of them.
    pub more: bool,
}

/// The user's own notifications, from [`crate::Client::inbox`]: what is kept, and what was read.
#[derive(Clone)]
pub struct NotificationInbox {
    handle: Arc<Handle>,
}

impl NotificationInbox {
    pub(crate) fn new(handle: &Arc<Handle>) -> Self {
        Self {
            handle: Arc::clone(handle),
        }
    }

    /// Those older than `before` (0: from the newest), at most `limit` (0: as the broker has it), newest first. Cancel-safe.
    ///
    /// # Errors
    /// As of any request.
    pub async fn page(&self, before: u64, limit: u32) -> Result<NotificationPage, Error> {
        self.ask(before, limit, false).await
    }

    /// The same of those that are unread.
    ///
    /// # Errors
    /// As of any request.
    pub async fn unread_page(&self, before: u64, limit: u32) -> Result<NotificationPage, Error> {
        self.ask(before, limit, true).await
    }

    /// All that are kept, newest first, page after page.
    ///
    /// # Errors
    /// The stream ends with the first error.
    pub fn all(&self) -> impl Stream<Item = Result<Notification, Error>> + Send + 'static {
        let pages = futures_util::stream::try_unfold((self.clone(), Some(0)), |(inbox, before)| async move {
            let Some(before) = before else {
                return Ok::<_, Error>(None);
            };
            let page = inbox.page(before, 0).await?;
            let next = page
                .notifications
                .last()
                .filter(|_| page.more)
                .map(|last| last.id);
            let notifications = futures_util::stream::iter(page.notifications.into_iter().map(Ok));
            Ok(Some((notifications, (inbox, next))))
        });
        futures_util::TryStreamExt::try_flatten(pages)
    }

    /// Marks these as read, in steps of 100; how many are left unread. Dropping the future may leave some unmarked.
    ///
    /// # Errors
    /// As of any request; what was marked stays so.
    pub async fn mark_read(&self, ids: &[u64]) -> Result<u32, Error> {
        let mut unread = None;
        for ids in ids.chunks(MARK_READ_MAX) {
            unread = Some(self.mark(ids.to_vec(), 0).await?);
        }
        match unread {
            Some(unread) => Ok(unread),
            None => Ok(self.ask(0, 1, true).await?.unread),
        }
    }

    /// Marks all up to and including this one as read; how many are left unread.
    ///
    /// # Errors
    /// As of any request.
    pub async fn mark_read_up_to(&self, id: u64) -> Result<u32, Error> {
        match id {
            0 => self.mark_read(&[]).await,
            id => self.mark(Vec::new(), id).await,
        }
    }

    /// Marks everything as read, also what comes while this is under way; how many are left unread. To spare what the user has
    /// not seen, name the newest that he has: [`NotificationInbox::mark_read_up_to`].
    ///
    /// # Errors
    /// As of any request.
    pub async fn mark_all_read(&self) -> Result<u32, Error> {
        self.mark(Vec::new(), INTEGER_MAX).await
    }

    async fn mark(&self, ids: Vec<u64>, up_to: u64) -> Result<u32, Error> {
        let request = Request::MarkRead(wire::MarkRead { ids, up_to });
        let timeout = self.handle.request_timeout;
        // Marking twice is marking once.
        match self.handle.request(request, Delivery::Repeat, timeout).await? {
            Outcome::NotificationsRead(read) => {
                // The user's other connections are told by the broker, this one has its answer.
                self.handle.inboxes().notified(&Noticed::Read {
                    ids: read.ids,
                    up_to: read.up_to,
                });
                self.handle.inboxes().set_unread(read.unread);
                Ok(read.unread)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, before: u64, limit: u32, unread_only: bool) -> Result<NotificationPage, Error> {
        let request = Request::Notifications(wire::Notifications {
            before,
            limit,
            unread_only,
        });
        let timeout = self.handle.request_timeout;
        match self.handle.request(request, Delivery::Repeat, timeout).await? {
            Outcome::NotificationPage(page) => Ok(NotificationPage {
                notifications: page.notifications.into_iter().map(Into::into).collect(),
                unread: page.unread,
                more: page.more,
            }),
            other => Err(unexpected(&other)),
        }
    }
}

impl fmt::Debug for NotificationInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotificationInbox").finish_non_exhaustive()
    }
}

/// Whom a notification is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    User(String),
    Role(String),
    /// Everyone in the tenant.
    Everyone,
}

/// From [`crate::Client::notify`]. Await it for the notification's id; it is kept until it is read or expires.
#[must_use = "nothing is left for anybody before it is awaited"]
pub struct Notify<'a> {
    handle: &'a Handle,
    notify: wire::Notify,
    json: Result<(), Error>,
}

impl<'a> Notify<'a> {
    pub(crate) fn new(handle: &'a Handle, to: Audience, title: &str) -> Self {
        use wire::notify::To;
        let to = match to {
            Audience::User(user) => To::User(user),
            Audience::Role(role) => To::Role(role),
            Audience::Everyone => To::Tenant(true),
        };
        Self {
            handle,
            notify: wire::Notify {
                to: Some(to),
                title: title.to_owned(),
                ..wire::Notify::default()
            },
            json: Ok(()),
        }
    }

    /// More than the title says. At most 4,096 bytes.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.notify.message = message.into();
        self
    }

    /// Default [`NotificationKind::Info`].
    pub fn kind(mut self, kind: NotificationKind) -> Self {
        self.notify.kind = kind.into();
        self
    }

    /// [`Priority::High`] overtakes what waits for the receiver. Default [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.notify.priority = priority.into();
        self
    }

    /// Data for the program that shows it. What cannot be JSON is an error when this is awaited.
    pub fn json<T: serde::Serialize + ?Sized>(mut self, data: &T) -> Self {
        match serde_json::to_vec(data) {
            Ok(json) => self.notify.json = json.into(),
            Err(error) => self.json = Err(error.into()),
        }
        self
    }

    /// After this time it is forgotten, read or not. Without, the broker's default holds.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.notify.expires_in_ms = u64::try_from(time.as_millis()).unwrap_or(INTEGER_MAX);
        self
    }

    /// A repeat with the same key by the same user is answered like the first. Without one, a key is made, so that a
    /// notification whose answer was lost with the connection is not left twice.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.notify.idempotency_key = key.into();
        self
    }

    async fn notified(mut self) -> Result<u64, Error> {
        self.json?;
        if self.notify.idempotency_key.is_empty()
            && let Some(key) = self.handle.automatic_key()
        {
            self.notify.idempotency_key = key;
        }
        let delivery = match self.notify.idempotency_key.is_empty() {
            true => Delivery::Once,
            false => Delivery::Repeat,
        };
        let timeout = self.handle.request_timeout;
        let request = Request::Notify(self.notify);
        match self.handle.request(request, delivery, timeout).await? {
            Outcome::Notified(notified) => Ok(notified.id),
            other => Err(unexpected(&other)),
        }
    }
}

impl<'a> IntoFuture for Notify<'a> {
    type Output = Result<u64, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.notified())
    }
}

impl fmt::Debug for Notify<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notify")
            .field("to", &self.notify.to)
            .finish_non_exhaustive()
    }
}
