//! Notifications: left for people until they have read them.

use bytes::Bytes;

use crate::code::{Code, Refusal};
use crate::ids::{Role, UserId};
use crate::limits::{
    MARK_READ_MAX, NOTIFICATION_MESSAGE_BYTES_MAX, NOTIFICATION_TITLE_BYTES_MAX, PAYLOAD_DEPTH_MAX,
};
use crate::payload::check_json;
use crate::wire;

use super::rooms::check_limit;
use super::{bounded, bounded_count, check_idempotency_key, invalid, storable, unknown, whole};

pub use wire::{NotificationKind, Priority};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    pub to: Audience,
    pub kind: NotificationKind,
    pub title: String,
    pub message: String,
    /// JSON, or empty.
    pub json: Bytes,
    pub priority: Priority,
    /// 0 means the default.
    pub expires_in_ms: u64,
    /// Empty means none.
    pub idempotency_key: String,
}

/// Whom a notification is for, within one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    User(UserId),
    Role(Role),
    Tenant,
}

/// A page of one's own notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notifications {
    /// Older than this one; 0 means from the newest.
    pub before: u64,
    /// 0 means the default.
    pub limit: u32,
    pub unread_only: bool,
}

/// What the user has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRead {
    pub ids: Vec<u64>,
    /// All up to and including this one.
    pub up_to: u64,
}

impl Notify {
    /// The checks that the type does not carry.
    ///
    /// # Errors
    /// `invalid`, `too_large` or `malformed`, with the field at fault.
    pub fn check(&self, payload_bytes_max: usize) -> Result<(), Refusal> {
        if self.title.is_empty() {
            return Err(Refusal::new(Code::Invalid, "title is empty"));
        }
        bounded("title", self.title.len(), NOTIFICATION_TITLE_BYTES_MAX)?;
        bounded("message", self.message.len(), NOTIFICATION_MESSAGE_BYTES_MAX)?;
        storable("title", &self.title)?;
        storable("message", &self.message)?;
        check_idempotency_key(&self.idempotency_key)?;
        whole("expires_in_ms", self.expires_in_ms)?;
        bounded("json", self.json.len(), payload_bytes_max)?;
        match self.json.is_empty() {
            true => Ok(()),
            false => check_json(&self.json, PAYLOAD_DEPTH_MAX),
        }
    }
}

pub(super) fn check_notify(notify: wire::Notify, payload_bytes_max: usize) -> Result<Notify, Refusal> {
    use wire::notify::To;
    let to = match notify.to {
        Some(To::User(user)) => Audience::User(UserId::new(&user).map_err(|e| invalid("user", e))?),
        Some(To::Role(role)) => Audience::Role(Role::new(&role).map_err(|e| invalid("role", e))?),
        Some(To::Tenant(true)) => Audience::Tenant,
        Some(To::Tenant(false)) | None => {
            let message = "notify needs an audience: user, role or tenant";
            return Err(Refusal::new(Code::Invalid, message));
        }
    };
    let notify = Notify {
        to,
        kind: NotificationKind::try_from(notify.kind).map_err(|_| unknown("kind"))?,
        title: notify.title,
        message: notify.message,
        json: notify.json,
        priority: Priority::try_from(notify.priority).map_err(|_| unknown("priority"))?,
        expires_in_ms: notify.expires_in_ms,
        idempotency_key: notify.idempotency_key,
    };
    notify.check(payload_bytes_max).map(|()| notify)
}

pub(super) fn check_notifications(asked: &wire::Notifications) -> Result<Notifications, Refusal> {
    check_limit(asked.limit)?;
    Ok(Notifications {
        before: whole("before", asked.before)?,
        limit: asked.limit,
        unread_only: asked.unread_only,
    })
}

pub(super) fn check_mark_read(mark: wire::MarkRead) -> Result<MarkRead, Refusal> {
    bounded_count("ids", mark.ids.len(), MARK_READ_MAX)?;
    if mark.ids.is_empty() && mark.up_to == 0 {
        return Err(Refusal::new(Code::Invalid, "name ids, or up_to"));
    }
    for &id in &mark.ids {
        whole("id", id)?;
    }
    Ok(MarkRead {
        up_to: whole("up_to", mark.up_to)?,
        ids: mark.ids,
    })
}
