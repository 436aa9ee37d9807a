//! Notifications: left by programs, and looked at and marked on behalf of a user.

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use cauce_protocol::limits::{INTEGER_MAX, MARK_READ_MAX};
use cauce_protocol::message::{Audience, MarkRead, NotificationKind, Notifications, Notify, Priority};
use cauce_protocol::{Code, Refusal, Role, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, Refused};
use super::caller::Caller;
use super::devices::raw;
use super::extract::{Body, Named, Params};
use super::page::{TenantQuery, after, bad_cursor, cursor, limit};
use super::publish::bad_name;
use crate::auth::secret::Scope;
use crate::auth::token::ROLES_MAX;
use crate::store::{Done, Reader, Sender, StoredNotification};

/// Texts of one page, in bytes.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a notification tells at a glance.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Info,
    Success,
    Warning,
    Error,
    Alert,
}

/// High overtakes what waits to be written to the receiver; low may be left out for a slow one, who then finds it in the list.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Urgency {
    Low,
    #[default]
    Normal,
    High,
}

/// A notification for exactly one of `user`, `role` and `tenant`. Kept until it expires, for those who are not connected too.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NotificationBody {
    user: Option<String>,
    role: Option<String>,
    /// True for everybody.
    #[serde(default)]
    tenant: bool,
    #[serde(default)]
    kind: Kind,
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    #[serde(default)]
    #[schema(max_length = 4096)]
    message: String,
    /// Any JSON; `null` is none.
    #[schema(value_type = Option<Value>)]
    json: Option<Box<RawValue>>,
    #[serde(default)]
    priority: Urgency,
    /// How long it is kept; 0 means as configured.
    #[serde(default)]
    #[schema(maximum = 31622400000u64)]
    expires_in_ms: u64,
    /// A repeat with the same key is answered like the first.
    #[serde(default)]
    #[schema(max_length = 128)]
    idempotency_key: String,
}

/// It is committed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LeftView {
    /// Rises within the tenant.
    id: u64,
    /// The idempotency key had been seen: nothing was left, and this is the first answer.
    repeated: bool,
}

/// A notification as its reader finds it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NotificationView {
    id: u64,
    kind: Kind,
    title: String,
    message: String,
    #[schema(value_type = Value)]
    json: Option<Box<RawValue>>,
    priority: Urgency,
    created_unix_ms: u64,
    expires_unix_ms: u64,
    read: bool,
}

/// Part of what there is for a user, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NotificationsView {
    items: Vec<NotificationView>,
    /// In all.
    unread: u32,
    /// `cursor` of the next page; null at the end.
    next: Option<String>,
}

/// Which part of a user's notifications.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NotificationsQuery {
    /// With an operator's key: the tenant; `default` unless given. A tenant's key has its own.
    tenant: Option<String>,
    /// Roles of the user, with commas between: what was left for them is in the list too. The broker knows roles from tokens
    /// alone.
    roles: Option<String>,
    /// Only what he has not read.
    #[serde(default)]
    unread_only: bool,
    /// Items of a page; fewer come if they are large.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// What a user has read: some ids, or everything up to one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadBody {
    #[serde(default)]
    #[schema(max_items = 100)]
    ids: Vec<u64>,
    /// Everything up to and including this one; 0 means none.
    #[serde(default)]
    #[schema(maximum = 9007199254740991u64)]
    up_to: u64,
    /// Roles of the user, as in the list.
    #[serde(default)]
    #[schema(max_items = 32)]
    roles: Vec<String>,
}

/// How things now stand for the user.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadView {
    /// Those of the ids that are for him.
    ids: Vec<u64>,
    /// As far as there are notifications.
    up_to: u64,
    unread: u32,
}

/// Leave a notification for a user, a role or everybody. It is committed when this answers, and pushed to those who are
/// connected.
#[utoipa::path(post, path = "/v1/notifications", tag = "notifications", params(TenantQuery),
    request_body = NotificationBody, responses((status = 200, body = LeftView)))]
pub(super) async fn leave_notification(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<TenantQuery>,
    Body(body): Body<NotificationBody>,
) -> Answer<LeftView> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Publish)?;
    let notify = Notify::try_from(body)?;
    notify.check(api.hub.tunables().payload_bytes_max)?;
    let (done, left) = Done::awaited();
    api.hub.notify(&tenant, Sender::Api, notify, done);
    let left = left.await?;
    Ok(Json(LeftView {
        id: left.id,
        repeated: left.repeated,
    }))
}

/// What there is for a user, newest first.
#[utoipa::path(get, path = "/v1/users/{user}/notifications", tag = "notifications",
    params(NotificationsQuery, ("user" = String, Path)), responses((status = 200, body = NotificationsView)))]
pub(super) async fn list_notifications(
    State(api): State<Api>,
    caller: Caller,
    Named(user): Named<String>,
    Params(query): Params<NotificationsQuery>,
) -> Answer<NotificationsView> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Rooms)?;
    let roles = query.roles.as_deref().unwrap_or_default();
    let reader = reader(&user, roles.split(',').filter(|role| !role.is_empty()))?;
    let before = match after(query.cursor.as_deref())? {
        Some(key) => key.parse().map_err(|_| bad_cursor())?,
        None => 0,
    };
    let asked = Notifications {
        before,
        limit: limit(query.limit)? as u32,
        unread_only: query.unread_only,
    };
    let page = api.hub.notifications(&tenant, reader, &asked, PAGE_BYTES_MAX);
    let page = page.await?;
    let last = page.notifications.last().filter(|_| page.more);
    let next = last.map(|last| cursor(&last.id.to_string()));
    let items: Result<Vec<_>, Refusal> = page.notifications.into_iter().map(view).collect();
    Ok(Json(NotificationsView {
        items: items?,
        unread: page.unread,
        next,
    }))
}

/// Mark notifications as read for a user. His connections are told.
#[utoipa::path(post, path = "/v1/users/{user}/notifications/read", tag = "notifications",
    params(TenantQuery, ("user" = String, Path)), request_body = ReadBody, responses((status = 200, body = ReadView)))]
pub(super) async fn mark_notifications(
    State(api): State<Api>,
    caller: Caller,
    Named(user): Named<String>,
    Params(query): Params<TenantQuery>,
    Body(body): Body<ReadBody>,
) -> Answer<ReadView> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Publish)?;
    let reader = reader(&user, body.roles.iter().map(String::as_str))?;
    if body.ids.len() > MARK_READ_MAX {
        let message = format!("ids has more than {MARK_READ_MAX} entries");
        return Err(Refused::new(Code::TooLarge, message));
    }
    if body.ids.iter().any(|&id| id > INTEGER_MAX) {
        return Err(Refused::new(Code::Invalid, "an id is at most 2^53 - 1"));
    }
    if body.ids.is_empty() && body.up_to == 0 {
        return Err(Refused::new(Code::Invalid, "name ids, or up_to"));
    }
    if body.up_to > INTEGER_MAX {
        return Err(Refused::new(Code::Invalid, "up_to is at most 2^53 - 1"));
    }
    let mark = MarkRead {
        ids: body.ids,
        up_to: body.up_to,
    };
    let (done, marked) = Done::awaited();
    api.hub.mark_read(&tenant, reader, mark, None, done);
    let marked = marked.await?;
    Ok(Json(ReadView {
        ids: marked.ids,
        up_to: marked.up_to,
        unread: marked.unread,
    }))
}

fn reader<'a>(user: &str, roles: impl Iterator<Item = &'a str>) -> Result<Reader, Refusal> {
    let user = UserId::new(user).map_err(|e| bad_name("user", e))?;
    let roles = roles.map(|role| Role::new(role).map_err(|e| bad_name("role", e)));
    let roles: Box<[Role]> = roles.collect::<Result<_, _>>()?;
    if roles.len() > ROLES_MAX {
        let message = format!("more than {ROLES_MAX} roles");
        return Err(Refusal::new(Code::TooLarge, message));
    }
    Ok(Reader { user, roles })
}

impl TryFrom<NotificationBody> for Notify {
    type Error = Refusal;

    fn try_from(body: NotificationBody) -> Result<Self, Refusal> {
        let to = match (body.user, body.role, body.tenant) {
            (Some(user), None, false) => Audience::User(UserId::new(&user).map_err(|e| bad_name("user", e))?),
            (None, Some(role), false) => Audience::Role(Role::new(&role).map_err(|e| bad_name("role", e))?),
            (None, None, true) => Audience::Tenant,
            _ => {
                let message = "give exactly one of user, role and tenant: true";
                return Err(Refusal::new(Code::Invalid, message));
            }
        };
        let json = body.json.filter(|json| json.get() != "null");
        Ok(Self {
            to,
            kind: match body.kind {
                Kind::Info => NotificationKind::Info,
                Kind::Success => NotificationKind::Success,
                Kind::Warning => NotificationKind::Warning,
                Kind::Error => NotificationKind::Error,
                Kind::Alert => NotificationKind::Alert,
            },
            title: body.title,
            message: body.message,
            json: json.map_or_else(Bytes::new, |json| String::from(Box::<str>::from(json)).into()),
            priority: match body.priority {
                Urgency::Low => Priority::Low,
                Urgency::Normal => Priority::Normal,
                Urgency::High => Priority::High,
            },
            expires_in_ms: body.expires_in_ms,
            idempotency_key: body.idempotency_key,
        })
    }
}

fn view(stored: StoredNotification) -> Result<NotificationView, Refusal> {
    let json = (!stored.json.is_empty()).then(|| raw(&stored.json));
    Ok(NotificationView {
        id: stored.id,
        kind: match stored.kind {
            NotificationKind::Info => Kind::Info,
            NotificationKind::Success => Kind::Success,
            NotificationKind::Warning => Kind::Warning,
            NotificationKind::Error => Kind::Error,
            NotificationKind::Alert => Kind::Alert,
        },
        title: stored.title,
        message: stored.message,
        json: json.transpose()?,
        priority: match stored.priority {
            Priority::Low => Urgency::Low,
            Priority::Normal => Urgency::Normal,
            Priority::High => Urgency::High,
        },
        created_unix_ms: stored.created_ms,
        expires_unix_ms: stored.expires_ms,
        read: stored.read,
    })
}
