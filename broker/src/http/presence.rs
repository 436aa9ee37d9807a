//! Who is in a room.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, Refused};
use super::caller::Caller;
use super::devices::raw;
use super::extract::{Named, Params};
use super::page::{after, cursor, limit};
use crate::auth::secret::Scope;
use crate::rooms::{PageQuery, PresentUser};

/// One who is in a room.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PresentView {
    user: String,
    /// What the user's token says of him; null for nothing.
    #[schema(value_type = Value)]
    info: Option<Box<RawValue>>,
    /// 0 while a user whose connection was lost may come back.
    connections: u32,
    since_unix_ms: u64,
}

/// Who is in a room.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PresenceView {
    /// Rises with every change.
    version: u64,
    /// All users; where they are more than the broker lists in a room, also those that `items` never shows.
    users: u32,
    connections: u32,
    /// By name.
    items: Vec<PresentView>,
    /// `cursor` of the next page; null at the end.
    next: Option<String>,
}

/// Which part.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PresenceQuery {
    /// With an operator's key: the tenant; `default` unless given.
    tenant: Option<String>,
    /// Only how many, not who.
    #[serde(default)]
    counts_only: bool,
    /// Items of a page; one with much info may have fewer and still a next one.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Who is in a room now, by name.
#[utoipa::path(get, path = "/v1/rooms/{room}/presence", tag = "rooms",
    params(PresenceQuery, ("room" = String, Path)), responses((status = 200, body = PresenceView)))]
pub(super) async fn get_presence(
    State(api): State<Api>,
    caller: Caller,
    Named(room): Named<String>,
    Params(query): Params<PresenceQuery>,
) -> Answer<PresenceView> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Rooms)?;
    let after = after(query.cursor.as_deref())?;
    let asked = PageQuery {
        after: after.as_deref(),
        limit: limit(query.limit)? as u32,
        counts_only: query.counts_only,
    };
    let page = api.hub.presence(&tenant, &room, asked)?;
    let last = page.page.last().filter(|_| page.more);
    let next = last.map(|last| cursor(last.user.as_str()));
    let items: Result<Vec<_>, Refused> = page.page.into_iter().map(view).collect();
    Ok(Json(PresenceView {
        version: page.version,
        users: page.users,
        connections: page.connections,
        items: items?,
        next,
    }))
}

fn view(present: PresentUser) -> Result<PresentView, Refused> {
    let info = (!present.info.is_empty()).then(|| raw(&present.info));
    Ok(PresentView {
        user: present.user.to_string(),
        info: info.transpose()?,
        connections: present.connections,
        since_unix_ms: present.since_unix_ms,
    })
}
