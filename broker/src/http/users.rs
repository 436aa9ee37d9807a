//! Users who are connected, and their connections: who is there, what they have joined, and sending them away.

use axum::Json;
use axum::extract::State;
use cauce_protocol::limits::INTEGER_MAX;
use cauce_protocol::{Code, ConnectionId, Refusal, UserId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, Done};
use super::caller::Caller;
use super::extract::{Body, Named, Params};
use super::page::{ListQuery, Page, TenantQuery, after, bad_cursor, cursor, limit};
use super::publish::bad_name;
use crate::admin::{Afterwards, Disconnect};
use crate::auth::secret::Scope;
use crate::hub::{ConnectionInfo, Tenant};

/// Connections that are shown with their user; the list of connections has all.
const SHOWN_MAX: usize = 100;

/// A user with at least one connection to this node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserView {
    user: String,
    connections: u32,
}

/// Whether a user is connected to this node, and how.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserDetail {
    user: String,
    is_connected: bool,
    connections: u32,
    /// The first hundred of them; `/v1/clients?user=` has all.
    clients: Vec<ClientView>,
}

/// An open connection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClientView {
    #[schema(maximum = 9007199254740991u64)]
    id: u64,
    user: String,
    /// The network that it came from, without the part that names the machine.
    network: String,
    /// Name and version that the client gave.
    client: Option<String>,
    /// Since when it is authenticated.
    since_unix_ms: u64,
    /// How many it has joined.
    rooms: u32,
    /// What waits to be written to it; more than a little for long means that it reads slowly.
    queued_bytes: u64,
}

impl From<ConnectionInfo> for ClientView {
    fn from(info: ConnectionInfo) -> Self {
        Self {
            id: info.id.0,
            user: info.user.to_string(),
            network: info.network,
            client: info.client.map(String::from),
            since_unix_ms: info.since_unix_ms,
            rooms: info.rooms,
            queued_bytes: info.queued_bytes,
        }
    }
}

/// A room that connections of a user have joined.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JoinedView {
    room: String,
    /// How many of them.
    connections: u32,
}

/// Why connections are ended.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DisconnectBody {
    /// For people at the other end.
    #[serde(default)]
    #[schema(max_length = 123)]
    reason: String,
    /// Whether clients should connect again. If not they stay away until somebody starts them; their tokens are still good.
    #[serde(default = "yes")]
    #[schema(default = true)]
    reconnect: bool,
}

fn yes() -> bool {
    true
}

/// What was ended.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Disconnected {
    connections: u32,
}

/// Which users.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsersQuery {
    /// With an operator's key: the tenant; `default` unless given. A tenant's key has its own.
    tenant: Option<String>,
    /// Only users whose names begin so.
    prefix: Option<String>,
    /// Items of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Which connections.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ClientsQuery {
    /// With an operator's key: the tenant; `default` unless given. A tenant's key has its own.
    tenant: Option<String>,
    /// Only this user's.
    user: Option<String>,
    /// Items of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Whose connection, and why it is ended.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DisconnectQuery {
    /// With an operator's key: the tenant; `default` unless given. A tenant's key has its own.
    tenant: Option<String>,
    /// For people at the other end, in at most 123 bytes.
    reason: Option<String>,
    /// Whether the client should connect again.
    #[param(default = true)]
    reconnect: Option<bool>,
}

/// Connected users by name.
#[utoipa::path(get, path = "/v1/users", tag = "users", params(UsersQuery),
    responses((status = 200, body = Page<UserView>)))]
pub(super) async fn list_users(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<UsersQuery>,
) -> Answer<Page<UserView>> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Stats)?;
    let (limit, after) = (limit(query.limit)?, after(query.cursor.as_deref())?);
    let (prefix, after) = (query.prefix.unwrap_or_default(), after.unwrap_or_default());
    let users = tenant.users(&prefix, &after, limit + 1);
    let view = |(user, connections): (UserId, u32)| UserView {
        user: user.to_string(),
        connections,
    };
    let views = users.into_iter().map(view).collect();
    Ok(Json(Page::cut(views, limit, |user| &user.user)))
}

/// Whether a user is connected, and how.
#[utoipa::path(get, path = "/v1/users/{user}", tag = "users", params(TenantQuery, ("user" = String, Path)),
    responses((status = 200, body = UserDetail)))]
pub(super) async fn get_user(
    State(api): State<Api>,
    caller: Caller,
    Named(user): Named<String>,
    Params(query): Params<TenantQuery>,
) -> Answer<UserDetail> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Stats)?;
    let user = user_id(&user)?;
    let clients = api
        .hub
        .connections_of(&tenant, Some(&user), None, SHOWN_MAX)
        .await;
    let connections = tenant.connections_of(user.as_str());
    Ok(Json(UserDetail {
        user: user.to_string(),
        is_connected: connections > 0,
        connections,
        clients: clients.into_iter().map(ClientView::from).collect(),
    }))
}

/// Rooms that a user has joined, by name.
#[utoipa::path(get, path = "/v1/users/{user}/rooms", tag = "users", params(ListQuery, ("user" = String, Path)),
    responses((status = 200, body = Page<JoinedView>)))]
pub(super) async fn list_user_rooms(
    State(api): State<Api>,
    caller: Caller,
    Named(user): Named<String>,
    Params(query): Params<ListQuery>,
) -> Answer<Page<JoinedView>> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Stats)?;
    let (limit, after) = (query.limit()?, query.after()?.unwrap_or_default());
    let rooms = api
        .hub
        .rooms_of(&tenant, &user_id(&user)?, &after, limit + 1)
        .await;
    let views = rooms
        .into_iter()
        .map(|(room, connections)| JoinedView {
            room: room.to_string(),
            connections,
        })
        .collect();
    Ok(Json(Page::cut(views, limit, |joined| &joined.room)))
}

/// End all connections that a user has now. Whoever holds a good token may connect again.
#[utoipa::path(post, path = "/v1/users/{user}/disconnect", tag = "users",
    params(TenantQuery, ("user" = String, Path)), request_body = DisconnectBody,
    responses((status = 200, body = Disconnected)))]
pub(super) async fn disconnect_user(
    State(api): State<Api>,
    caller: Caller,
    Named(user): Named<String>,
    Params(query): Params<TenantQuery>,
    Body(body): Body<DisconnectBody>,
) -> Answer<Disconnected> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Connections)?;
    let why = why(body.reason, body.reconnect);
    let connections = api
        .admin
        .disconnect_user(&caller.actor(), &tenant, &user_id(&user)?, &why)?;
    Ok(Json(Disconnected { connections }))
}

/// Connections by id, of a tenant or of one user.
#[utoipa::path(get, path = "/v1/clients", tag = "users", params(ClientsQuery),
    responses((status = 200, body = Page<ClientView>)))]
pub(super) async fn list_clients(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ClientsQuery>,
) -> Answer<Page<ClientView>> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Stats)?;
    let user = query.user.as_deref().map(user_id).transpose()?;
    let limit = limit(query.limit)?;
    let after = match after(query.cursor.as_deref())? {
        None => None,
        Some(id) => Some(ConnectionId(id.parse().map_err(|_| bad_cursor())?)),
    };
    let clients = api
        .hub
        .connections_of(&tenant, user.as_ref(), after, limit + 1)
        .await;
    Ok(Json(page(clients, limit)))
}

/// One connection.
#[utoipa::path(get, path = "/v1/clients/{id}", tag = "users", params(TenantQuery, ("id" = u64, Path)),
    responses((status = 200, body = ClientView)))]
pub(super) async fn get_client(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<TenantQuery>,
) -> Answer<ClientView> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Stats)?;
    Ok(Json(api.client(&tenant, connection_id(&id)?).await?))
}

/// End one connection.
#[utoipa::path(delete, path = "/v1/clients/{id}", tag = "users", params(DisconnectQuery, ("id" = u64, Path)),
    responses((status = 200, body = Done)))]
pub(super) async fn disconnect_client(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<DisconnectQuery>,
) -> Answer<Done> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Connections)?;
    let why = why(query.reason.unwrap_or_default(), query.reconnect.unwrap_or(true));
    api.admin
        .disconnect_client(&caller.actor(), &tenant, connection_id(&id)?, &why)
        .await?;
    Ok(Json(Done {}))
}

impl Api {
    async fn client(&self, tenant: &Tenant, id: ConnectionId) -> Result<ClientView, Refusal> {
        match self.hub.connection_of(tenant, id).await {
            Some(info) => Ok(info.into()),
            None => Err(Refusal::new(Code::NotFound, "there is no such connection now")),
        }
    }
}

fn why(reason: String, reconnect: bool) -> Disconnect {
    Disconnect {
        reason,
        afterwards: match reconnect {
            true => Afterwards::Reconnect,
            false => Afterwards::StayAway,
        },
    }
}

fn page(mut clients: Vec<ConnectionInfo>, limit: usize) -> Page<ClientView> {
    let more = clients.len() > limit;
    clients.truncate(limit);
    let next = clients.last().filter(|_| more);
    Page {
        next: next.map(|last| cursor(&last.id.0.to_string())),
        items: clients.into_iter().map(ClientView::from).collect(),
    }
}

pub(super) fn user_id(user: &str) -> Result<UserId, Refusal> {
    UserId::new(user).map_err(|e| bad_name("user", e))
}

/// What is no id of ours is not there either.
fn connection_id(id: &str) -> Result<ConnectionId, Refusal> {
    let id = id.parse().ok().filter(|&id: &u64| id <= INTEGER_MAX);
    id.map(ConnectionId)
        .ok_or_else(|| Refusal::new(Code::NotFound, "there is no such connection now"))
}
