//! Notifications on their way: kept first, then pushed to those of the audience who are connected.
//!
//! What must stay true:
//! - Whoever left one is answered after it has been committed, and it is pushed after that: nobody hears of what a crash
//!   could still undo.
//! - The store answers in the order of the ids, and the push is made from its answer. So each user gets those of one priority
//!   in the order of their ids.
//! - A push is an offer, the list is the promise. Nothing waits for a push, and none is made where there is no room.

use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::limits::PAYLOAD_DEPTH_MAX;
use cauce_protocol::message::{Audience, MarkRead, Notifications, Notify, Priority};
use cauce_protocol::server::Dialect;
use cauce_protocol::wire::{self, ServerFrame};
use cauce_protocol::{Code, ConnectionId, Payload, Refusal};

use super::Hub;
use super::delivery::ShardMessage;
use super::records::Later;
use super::tenants::Tenant;
use crate::publication::{Encoded, message_frame};
use crate::store::{
    Done, Left, Marked, NOTIFICATION_KEPT_MS_MAX, NOTIFICATION_KEY_MS_MAX, NotificationPage,
    NotificationQuery, NotificationRow, ReadRow, Reader, Sender, StoredNotification,
};

/// Notifications of a page unless asked otherwise.
pub const NOTIFICATIONS_PAGE_DEFAULT: u32 = 50;

/// Bookkeeping of a notice in a mailbox, in bytes: its record, its place and its frame's header.
const NOTICE_OVERHEAD_BYTES: usize = 256;

/// Something for connections of users who want to know of notifications.
#[derive(Debug)]
pub struct Notice {
    pub tenant: Arc<Tenant>,
    pub to: Audience,
    /// The connection that knows already.
    pub except: Option<ConnectionId>,
    pub news: News,
    cost: usize,
    encoded: Encoded,
}

/// What there is to know.
#[derive(Debug)]
pub enum News {
    /// A notification was left. `unread` in it is not told: it differs by user and roles, and counts on from the last answer.
    Left(wire::Notification),
    /// A user has read some. `unread` in it holds for connections in the same roles as this reader's.
    Read(Reader, wire::NotificationsRead),
}

impl Notice {
    fn left(tenant: Arc<Tenant>, row: &NotificationRow, id: u64) -> Self {
        let notification = wire::Notification {
            id,
            kind: row.kind as i32,
            title: row.title.clone(),
            message: row.message.clone(),
            json: row.json.clone(),
            priority: row.priority as i32,
            created_unix_ms: row.created_ms,
            expires_unix_ms: row.expires_ms,
            read: false,
            unread: 0,
        };
        Self {
            tenant,
            to: row.audience.clone(),
            except: None,
            news: News::Left(notification),
            cost: NOTICE_OVERHEAD_BYTES + row.bytes(),
            encoded: Encoded::default(),
        }
    }

    fn read(tenant: Arc<Tenant>, reader: Reader, marked: &Marked, except: Option<ConnectionId>) -> Self {
        Self {
            tenant,
            to: Audience::User(reader.user.clone()),
            except,
            cost: NOTICE_OVERHEAD_BYTES + marked.ids.len() * size_of::<u64>(),
            news: News::Read(reader, marked.into()),
            encoded: Encoded::default(),
        }
    }

    /// What it costs a mailbox, in bytes.
    pub fn cost(&self) -> usize {
        self.cost
    }

    pub fn priority(&self) -> Priority {
        match &self.news {
            News::Left(notification) => notification.priority(),
            News::Read(..) => Priority::Normal,
        }
    }

    /// The whole WebSocket frame for connections of this dialect.
    pub fn bytes(&self, dialect: Dialect) -> &Bytes {
        self.encoded.get(dialect, |dialect| {
            let frame: ServerFrame = match &self.news {
                News::Left(notification) => notification.clone().into(),
                News::Read(_, read) => read.clone().into(),
            };
            message_frame(&frame, dialect)
        })
    }
}

impl Hub {
    /// Leaves a notification. `notify` has been checked. `done` is called once it has been committed, after it was handed to the
    /// shards of those who are connected.
    ///
    /// # Errors
    /// `done` gets `invalid` or `malformed` for what breaks a limit, `unsupported` without a database, `overloaded` or
    /// `unavailable` if the store does not take it.
    pub fn notify(self: &Arc<Self>, tenant: &Arc<Tenant>, sender: Sender, notify: Notify, done: Done<Left>) {
        let row = match self.row(tenant, sender, notify) {
            Ok(row) => Arc::new(row),
            Err(refusal) => return done.call(Err(refusal)),
        };
        let (hub, tenant, kept) = (self.clone(), tenant.clone(), row.clone());
        let done = Done::new(move |left: Result<Left, Refusal>| {
            if let Ok(Left { id, repeated: false }) = left {
                hub.push(Notice::left(tenant, &kept, id));
            }
            done.call(left);
        });
        self.records.notify(row, done);
    }

    /// Notes what a user has read, and tells his connections but `except`. `done` is called once it has been committed.
    ///
    /// # Errors
    /// `done` gets `unsupported`, `overloaded` or `unavailable`.
    pub fn mark_read(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        reader: Reader,
        mark: MarkRead,
        except: Option<ConnectionId>,
        done: Done<Marked>,
    ) {
        let row = ReadRow {
            tenant: tenant.id.clone(),
            reader: reader.clone(),
            ids: mark.ids,
            up_to: mark.up_to,
            at_ms: self.clock.now().unix_ms,
        };
        let (hub, tenant) = (self.clone(), tenant.clone());
        let done = Done::new(move |marked: Result<Marked, Refusal>| {
            if let Ok(marked) = &marked {
                hub.push(Notice::read(tenant, reader, marked, except));
            }
            done.call(marked);
        });
        self.records.mark_read(row, done);
    }

    /// A page of what there is for a user in these roles.
    pub fn notifications(
        &self,
        tenant: &Tenant,
        reader: Reader,
        asked: &Notifications,
        bytes_max: usize,
    ) -> Later<NotificationPage> {
        self.records.notifications(NotificationQuery {
            tenant: tenant.id.clone(),
            reader,
            before: asked.before,
            limit: match asked.limit {
                0 => NOTIFICATIONS_PAGE_DEFAULT,
                limit => limit,
            },
            unread_only: asked.unread_only,
            bytes_max,
            now_ms: self.clock.now().unix_ms,
        })
    }

    fn row(&self, tenant: &Tenant, sender: Sender, notify: Notify) -> Result<NotificationRow, Refusal> {
        let tunables = self.tunables();
        if tunables.payload_depth_max < PAYLOAD_DEPTH_MAX && !notify.json.is_empty() {
            let payload = Payload::Json(notify.json.clone());
            payload.check(tunables.payload_bytes_max, tunables.payload_depth_max)?;
        }
        let kept_ms = match notify.expires_in_ms {
            0 => tunables.notifications_kept_ms,
            kept_ms => kept_ms,
        };
        if kept_ms > NOTIFICATION_KEPT_MS_MAX {
            let message = format!("expires_in_ms is at most {NOTIFICATION_KEPT_MS_MAX}");
            return Err(Refusal::new(Code::Invalid, message));
        }
        let created_ms = self.clock.now().unix_ms;
        Ok(NotificationRow {
            tenant: tenant.id.clone(),
            audience: notify.to,
            sender,
            idempotency_key: notify.idempotency_key.into(),
            window_ms: tunables.dedup_window_ms.min(NOTIFICATION_KEY_MS_MAX),
            kind: notify.kind,
            title: notify.title,
            message: notify.message,
            json: notify.json,
            priority: notify.priority,
            created_ms,
            expires_ms: created_ms.saturating_add(kept_ms),
        })
    }

    /// Hands a notice to the shards that may have somebody for it. A shard that is too far behind goes without.
    fn push(&self, notice: Notice) {
        if let Audience::User(user) = &notice.to
            && !notice.tenant.is_connected(user)
        {
            // Whoever connects from here on asks for the list, and it is there.
            return;
        }
        let notice = Arc::new(notice);
        for (shard, mailbox) in self.shards[..self.plan.clients].iter().enumerate() {
            if mailbox.reserve(notice.cost()) {
                mailbox.send(ShardMessage::Notice(notice.clone()));
            } else {
                self.metrics.shards[shard].notices_unpushed.increment();
            }
        }
    }
}

impl From<&Marked> for wire::NotificationsRead {
    fn from(marked: &Marked) -> Self {
        Self {
            ids: marked.ids.clone(),
            up_to: marked.up_to,
            unread: marked.unread,
        }
    }
}

impl From<NotificationPage> for wire::NotificationPage {
    fn from(page: NotificationPage) -> Self {
        Self {
            notifications: page.notifications.into_iter().map(Into::into).collect(),
            unread: page.unread,
            more: page.more,
        }
    }
}

impl From<StoredNotification> for wire::Notification {
    fn from(stored: StoredNotification) -> Self {
        Self {
            id: stored.id,
            kind: stored.kind as i32,
            title: stored.title,
            message: stored.message,
            json: stored.json,
            priority: stored.priority as i32,
            created_unix_ms: stored.created_ms,
            expires_unix_ms: stored.expires_ms,
            read: stored.read,
            unread: 0,
        }
    }
}
