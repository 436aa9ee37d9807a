//! Rooms: which there are, and where their numbering stands.

use axum::Json;
use axum::extract::State;
use cauce_protocol::Code;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, Refused};
use super::caller::Caller;
use super::extract::{Named, Params};
use super::page::{Page, TenantQuery, after, first_after, limit};
use crate::auth::secret::Scope;

/// A room that exists: somebody listens, or did a moment ago.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RoomView {
    name: String,
    /// Which numbering `seq` belongs to.
    epoch: u64,
    /// The last number given.
    seq: u64,
    subscribers: u32,
}

impl From<&crate::rooms::Room> for RoomView {
    fn from(room: &crate::rooms::Room) -> Self {
        Self {
            name: room.name.to_string(),
            epoch: room.epoch.0,
            seq: room.seq().0,
            subscribers: room.subscribers(),
        }
    }
}

/// Which rooms.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RoomsQuery {
    /// With an operator's key: the tenant; `default` unless given.
    tenant: Option<String>,
    /// Only rooms whose names begin so.
    prefix: Option<String>,
    /// Items of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Rooms by name.
#[utoipa::path(get, path = "/v1/rooms", tag = "rooms", params(RoomsQuery),
    responses((status = 200, body = Page<RoomView>)))]
pub(super) async fn list_rooms(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<RoomsQuery>,
) -> Answer<Page<RoomView>> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Rooms)?;
    let (limit, after) = (limit(query.limit)?, after(query.cursor.as_deref())?);
    let (prefix, after) = (query.prefix.unwrap_or_default(), after.unwrap_or_default());
    let mut names = Vec::new();
    tenant.rooms.for_each(|room| {
        if room.name.as_str().starts_with(&prefix) && room.name.as_str() > after.as_str() {
            names.push(room.name.clone());
        }
    });
    let rooms = first_after(names, limit)
        .iter()
        .filter_map(|name| tenant.rooms.get(name.as_str()))
        .map(|room| RoomView::from(&*room))
        .collect();
    Ok(Json(Page::cut(rooms, limit, |room| &room.name)))
}

/// One room.
#[utoipa::path(get, path = "/v1/rooms/{room}", tag = "rooms", params(TenantQuery, ("room" = String, Path)),
    responses((status = 200, body = RoomView)))]
pub(super) async fn get_room(
    State(api): State<Api>,
    caller: Caller,
    Named(room): Named<String>,
    Params(query): Params<TenantQuery>,
) -> Answer<RoomView> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Rooms)?;
    match tenant.rooms.get(&room) {
        Some(room) => Ok(Json(RoomView::from(&*room))),
        None => Err(Refused::new(Code::NotFound, "there is no such room now")),
    }
}
