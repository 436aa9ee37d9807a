//! What a room has kept, a page at a time.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cauce_protocol::limits::INTEGER_MAX;
use cauce_protocol::message::{Direction, History};
use cauce_protocol::{Code, Epoch, Payload, RoomName, Seq};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, Refused};
use super::caller::Caller;
use super::devices::raw;
use super::extract::{Named, Params};
use super::page::limit;
use super::publish::bad_name;
use crate::auth::secret::Scope;
use crate::publication::Publication;

/// A message that the room has kept. One of `json`, `text` and `binary` is there.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageView {
    seq: u64,
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    json: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Bytes in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<String>,
    /// What it is about within its event.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    unix_ms: u64,
    /// Who published it; null for a device, the API and the embedding program.
    user: Option<String>,
}

/// Messages in the order that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryView {
    /// Which numbering this is; 0 if the room has none now.
    epoch: u64,
    /// The oldest number that was found to be kept, 0 if none is. Of a durable room older ones may lie on the disk.
    first: u64,
    /// The last number given.
    head: u64,
    items: Vec<MessageView>,
    /// More lie beyond the last item: ask again with `from` its `seq`.
    more: bool,
}

/// Which part.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// With an operator's key: the tenant; `default` unless given.
    tenant: Option<String>,
    /// As of which numbering; the present one unless given. Of another nothing is left: the page is empty.
    #[param(maximum = 9007199254740991u64)]
    epoch: Option<u64>,
    /// Forwards, messages after this number; backwards, messages before it, from the newest unless given.
    #[serde(default)]
    #[param(maximum = 9007199254740991u64)]
    from: u64,
    /// Newest first.
    #[serde(default)]
    backwards: bool,
    /// Items of a page; one of large messages may have fewer and still more to come.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

/// What a room has kept: from memory, or of a durable room from the store.
#[utoipa::path(get, path = "/v1/rooms/{room}/history", tag = "rooms",
    params(HistoryQuery, ("room" = String, Path)), responses((status = 200, body = HistoryView)))]
pub(super) async fn get_history(
    State(api): State<Api>,
    caller: Caller,
    Named(room): Named<String>,
    Params(query): Params<HistoryQuery>,
) -> Answer<HistoryView> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Rooms)?;
    if query.from > INTEGER_MAX || query.epoch.is_some_and(|epoch| epoch > INTEGER_MAX) {
        return Err(Refused::new(Code::Invalid, "from and epoch are at most 2^53 - 1"));
    }
    let asked = History {
        room: RoomName::new(&room).map_err(|e| bad_name("room", e))?,
        epoch: query.epoch.map(Epoch),
        from: Seq(query.from),
        direction: match query.backwards {
            false => Direction::Forwards,
            true => Direction::Backwards,
        },
        limit: limit(query.limit)? as u32,
    };
    let page = api.hub.history(&tenant, &asked).await?;
    let items: Result<Vec<_>, Refused> = page.messages.iter().map(|message| view(message)).collect();
    Ok(Json(HistoryView {
        epoch: page.epoch.0,
        first: page.first.0,
        head: page.head.0,
        items: items?,
        more: page.more,
    }))
}

fn view(message: &Publication) -> Result<MessageView, Refused> {
    let mut view = MessageView {
        seq: message.seq.0,
        event: message.event.as_str().into(),
        json: None,
        text: None,
        binary: None,
        key: Some(message.topic.as_str())
            .filter(|key| !key.is_empty())
            .map(Into::into),
        unix_ms: message.unix_ms,
        user: message.user.as_ref().map(|user| user.as_str().into()),
    };
    match &message.payload {
        Payload::Json(json) => view.json = Some(raw(json)?),
        Payload::Text(text) => view.text = Some(String::from_utf8_lossy(text).into_owned()),
        Payload::Binary(binary) => view.binary = Some(BASE64_STANDARD.encode(binary)),
    }
    Ok(view)
}
