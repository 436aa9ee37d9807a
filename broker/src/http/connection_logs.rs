//! Comings and goings of clients, as the database remembers them.

use axum::Json;
use axum::extract::State;
use cauce_protocol::limits::INTEGER_MAX;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::Answer;
use super::caller::Caller;
use super::extract::Params;
use super::history::{moment, number};
use super::page::{Page, after, cursor, limit};
use super::users::user_id;
use crate::admin::store_refusal;
use crate::auth::secret::Scope;
use crate::store::{ConnectionEvent, ConnectionEventKind, ConnectionLogQuery, ConnectionLogRow, Numbered};

/// What happened to a connection.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ConnectionEventName {
    Closed,
    Opened,
}

/// A client that came or went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConnectionLogView {
    seq: u64,
    at_unix_ms: u64,
    #[schema(maximum = 9007199254740991u64)]
    connection: u64,
    user: String,
    event: ConnectionEventName,
    /// Why it was closed: a code of the broker or of WebSocket. Null if the socket ended without one.
    code: Option<u16>,
    /// What was said with the code.
    message: Option<String>,
    /// The network that it came from, without the part that names the machine.
    network: String,
    /// Name and version that the client gave.
    client: Option<String>,
    /// How long it was authenticated; null when it opened.
    duration_ms: Option<u64>,
}

impl From<ConnectionEventName> for ConnectionEventKind {
    fn from(name: ConnectionEventName) -> Self {
        match name {
            ConnectionEventName::Closed => Self::Closed,
            ConnectionEventName::Opened => Self::Opened,
        }
    }
}

impl From<Numbered<ConnectionLogRow>> for ConnectionLogView {
    fn from(Numbered { seq, row }: Numbered<ConnectionLogRow>) -> Self {
        let (event, code, message, duration_ms) = match row.event {
            ConnectionEvent::Opened => (ConnectionEventName::Opened, None, None, None),
            ConnectionEvent::Closed {
                code,
                message,
                duration_ms,
            } => (ConnectionEventName::Closed, code, message, Some(duration_ms)),
        };
        Self {
            seq,
            at_unix_ms: row.at_ms,
            connection: row.connection.0,
            user: row.user.to_string(),
            event,
            code,
            message: message.map(String::from),
            network: row.address.into(),
            client: row.client.map(String::from),
            duration_ms,
        }
    }
}

/// Which comings and goings.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectionLogsQuery {
    /// With an operator's key: the tenant; `default` unless given. A tenant's key has its own.
    tenant: Option<String>,
    /// Only this user's.
    user: Option<String>,
    /// Only these.
    #[param(inline)]
    event: Option<ConnectionEventName>,
    /// At or after, in milliseconds since 1970.
    #[param(maximum = 9007199254740991u64)]
    since_ms: Option<u64>,
    /// Before, in milliseconds since 1970.
    #[param(maximum = 9007199254740991u64)]
    until_ms: Option<u64>,
    /// Items of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Clients that came and went, newest first. What happened in the last moment may not be there yet: rows are written behind
/// the traffic.
#[utoipa::path(get, path = "/v1/connection-logs", tag = "users", params(ConnectionLogsQuery),
    responses((status = 200, body = Page<ConnectionLogView>)))]
pub(super) async fn list_connection_logs(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ConnectionLogsQuery>,
) -> Answer<Page<ConnectionLogView>> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Stats)?;
    let rows = api.store()?.connection_logs(ConnectionLogQuery {
        tenant: tenant.id.clone(),
        user: query.user.as_deref().map(user_id).transpose()?,
        event: query.event.map(ConnectionEventKind::from),
        since_ms: moment("since_ms", query.since_ms)?.unwrap_or(0),
        until_ms: moment("until_ms", query.until_ms)?.unwrap_or(INTEGER_MAX),
        limit: limit(query.limit)? as u32,
        before_seq: number(after(query.cursor.as_deref())?)?,
    });
    let page = rows.await.map_err(|e| store_refusal(&e))?;
    let items = page.rows.into_iter().map(ConnectionLogView::from).collect();
    let next = page.next.map(|seq| cursor(&seq.to_string()));
    Ok(Json(Page { items, next }))
}
