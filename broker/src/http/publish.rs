//! Messages: to a room, many at once, and to people.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cauce_protocol::limits::{EXCLUDE_MAX, IDEMPOTENCY_KEY_BYTES_MAX, INTEGER_MAX, KEY_BYTES_MAX};
use cauce_protocol::message::{Ack, Recipient, Text, check_event};
use cauce_protocol::{Code, ConnectionId, NameError, Payload, Refusal, Role, RoomName, UserId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, Done, ErrorBody, Refused};
use super::caller::Caller;
use super::extract::{Body, Object, Params};
use super::page::TenantQuery;
use crate::auth::secret::Scope;
use crate::hub::{Begun, Hub, Tenant};
use crate::publication::Draft;
use crate::rooms::{Repeat, Written};

/// Messages of one batch.
const BATCH_MAX: usize = 100;

/// All keys of a tenant are one publisher, so that a retry after a change of keys is still recognised. No user is called so:
/// user ids have no control characters.
const PUBLISHER: &str = "\u{0}api";

/// A message for a room. The bounds of its members are here in words, because in a batch each message is judged for itself. At
/// most one of `json`, `text` and `binary`; none means JSON `null`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishBody {
    /// 1 to 200 bytes.
    room: String,
    /// What the message is about, in 1 to 100 bytes.
    event: String,
    /// Any JSON.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Value>)]
    json: Option<Box<RawValue>>,
    text: Option<String>,
    /// Bytes in base64.
    binary: Option<String>,
    /// A repeat with the same key is answered like the first and not sent again. At most 128 bytes.
    idempotency_key: Option<String>,
    /// Connections that the message is not for, at most 64.
    #[serde(default)]
    #[schema(value_type = Vec<u64>)]
    exclude: Vec<Connection>,
    /// What the message is about within its event, as an order's number: for filters and for readers who want the newest of
    /// each. At most 100 bytes.
    key: Option<String>,
    #[serde(default)]
    ack: AckBody,
}

/// `null` is a payload too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// The id of a connection, as the broker gives them: exact in every JSON.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u64")]
struct Connection(ConnectionId);

impl TryFrom<u64> for Connection {
    type Error = &'static str;

    fn try_from(id: u64) -> Result<Self, Self::Error> {
        match id {
            0..=INTEGER_MAX => Ok(Self(ConnectionId(id))),
            _ => Err("a connection's id is at most 2^53 - 1"),
        }
    }
}

/// Where a message has its place.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Published {
    room: String,
    /// Which numbering `seq` belongs to.
    epoch: u64,
    seq: u64,
    /// Subscribers at that moment.
    receivers: u32,
    /// The idempotency key had been seen: nothing was sent, and this is the first answer.
    repeated: bool,
    /// It is on the disk.
    durable: bool,
}

/// When to answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum AckBody {
    /// On the disk in durable rooms, in memory elsewhere.
    #[default]
    Default,
    Memory,
    Durable,
}

impl From<AckBody> for Ack {
    fn from(ack: AckBody) -> Self {
        match ack {
            AckBody::Default => Self::Default,
            AckBody::Memory => Self::Memory,
            AckBody::Durable => Self::Durable,
        }
    }
}

/// Many messages, each for itself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchBody {
    #[schema(value_type = Vec<PublishBody>, min_items = 1, max_items = 100)]
    messages: Vec<Object<PublishBody>>,
}

/// In the order of the messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchResult {
    results: Vec<BatchItem>,
}

/// One message's place, or why it has none.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum BatchItem {
    Published(Published),
    Refused(ErrorBody),
}

/// A message for people or a connection: exactly one of `user`, `role`, `connection` and `tenant`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SendBody {
    user: Option<String>,
    role: Option<String>,
    #[schema(value_type = Option<u64>, maximum = 9007199254740991u64)]
    connection: Option<Connection>,
    /// True for everybody.
    #[serde(default)]
    tenant: bool,
    #[schema(min_length = 1, max_length = 100)]
    event: String,
    /// Any JSON.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Value>)]
    json: Option<Box<RawValue>>,
    text: Option<String>,
    /// Bytes in base64.
    #[schema(content_encoding = "base64")]
    binary: Option<String>,
}

/// A message for everybody who is connected, in every tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BroadcastBody {
    #[schema(min_length = 1, max_length = 100)]
    event: String,
    /// Any JSON.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Value>)]
    json: Option<Box<RawValue>>,
    text: Option<String>,
    /// Bytes in base64.
    #[schema(content_encoding = "base64")]
    binary: Option<String>,
}

/// How far a broadcast went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Broadcast {
    /// Tenants whose connections get it.
    tenants: u64,
    /// Tenants that could not take it now, because queues are full.
    refused: u64,
}

/// A message that has its number.
struct InPlace {
    room: String,
    begun: Begun,
}

impl InPlace {
    async fn written(self) -> Result<Published, Refusal> {
        let accepted = self.begun.written().await?;
        Ok(Published {
            room: self.room,
            epoch: accepted.epoch.0,
            seq: accepted.seq.0,
            receivers: accepted.receivers,
            repeated: accepted.repeated,
            durable: accepted.written == Written::Yes,
        })
    }
}

impl Api {
    /// Counts what became of a message.
    fn counted<T>(&self, tenant: &Tenant, published: Result<T, Refusal>) -> Result<T, Refusal> {
        match &published {
            Ok(_) => self.counters.publications.increment(),
            Err(refusal) => {
                self.counters.publications_refused.increment();
                tenant.logbook.refused(refusal.code);
            }
        }
        published
    }

    /// Publishes when it is this tenant's turn, and does not wait for the disk.
    async fn place(&self, tenant: &Tenant, body: PublishBody, until: Instant) -> Result<InPlace, Refusal> {
        let room = RoomName::new(&body.room).map_err(|e| bad_name("room", e))?;
        if room.is_reserved() {
            let message = "rooms that begin with $ are written by the broker alone";
            return Err(Refusal::new(Code::Forbidden, message));
        }
        if body.exclude.len() > EXCLUDE_MAX {
            let message = format!("exclude has more than {EXCLUDE_MAX} connections");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        let key = body.idempotency_key.as_deref().filter(|key| !key.is_empty());
        if key.is_some_and(|key| key.len() > IDEMPOTENCY_KEY_BYTES_MAX) {
            let message = format!("idempotency_key is longer than {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        let mut draft = self.draft(&body.event, payload(body.json, body.text, body.binary)?)?;
        let topic = body.key.unwrap_or_default();
        if topic.len() > KEY_BYTES_MAX {
            let message = format!("key is longer than {KEY_BYTES_MAX} bytes");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        draft.topic = Text::from(topic);
        draft.excluded = body.exclude.into_iter().map(|connection| connection.0).collect();
        let repeat = key.map(|key| Repeat {
            publisher: PUBLISHER,
            key,
            now_ms: self.hub.clock.now().mono_ms,
            window_ms: self.hub.tunables().dedup_window_ms,
            keys_max: self.hub.tunables().dedup_keys_max,
        });
        let turn = self.hub.pace(tenant, until).await?;
        self.charge(tenant, &draft)?;
        let begun = self
            .hub
            .begin_publish(tenant, room.as_str(), draft, repeat, body.ack.into())?;
        drop(turn);
        Ok(InPlace {
            room: body.room,
            begun,
        })
    }

    /// What comes through the API counts for the tenant, as what its clients publish does.
    fn charge(&self, tenant: &Tenant, draft: &Draft) -> Result<(), Refusal> {
        let (quotas, now_ms) = (self.hub.tunables().publishing, self.hub.clock.now().mono_ms);
        let charged = tenant.charge(None, &quotas, now_ms, draft.payload.len());
        charged.map_err(|(limit, refusal)| {
            self.hub.publish_limited(limit);
            refusal
        })
    }

    fn draft(&self, event: &str, payload: Payload) -> Result<Draft, Refusal> {
        check_event(event)?;
        let tunables = self.hub.tunables();
        payload.check(tunables.payload_bytes_max, tunables.payload_depth_max)?;
        Ok(Draft::new(Text::from(event), payload))
    }
}

/// Publish to a room.
#[utoipa::path(post, path = "/v1/publish", tag = "messages", params(TenantQuery), request_body = PublishBody,
    responses((status = 200, body = Published)))]
pub(super) async fn publish(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<TenantQuery>,
    Body(body): Body<PublishBody>,
) -> Answer<Published> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Publish)?;
    let published = async {
        api.place(&tenant, body, Hub::paced_until())
            .await?
            .written()
            .await
    };
    Ok(Json(api.counted(&tenant, published.await)?))
}

/// Publish up to a hundred messages, in order. One that is refused does not keep the others back.
#[utoipa::path(post, path = "/v1/publish/batch", tag = "messages", params(TenantQuery), request_body = BatchBody,
    responses((status = 200, body = BatchResult)))]
pub(super) async fn publish_batch(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<TenantQuery>,
    Body(body): Body<BatchBody>,
) -> Answer<BatchResult> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Publish)?;
    if body.messages.is_empty() || body.messages.len() > BATCH_MAX {
        return Err(Refused::new(
            Code::Invalid,
            format!("a batch has 1 to {BATCH_MAX} messages"),
        ));
    }
    // One after the other, so that their numbers are in their order; all have one before the first waits for the disk, so that
    // one commit serves them.
    let until = Hub::paced_until();
    let mut placed = Vec::with_capacity(body.messages.len());
    for Object(message) in body.messages {
        placed.push(api.place(&tenant, message, until).await);
    }
    let answer = |placed: Result<InPlace, Refusal>| async {
        let published = async { placed?.written().await };
        match api.counted(&tenant, published.await) {
            Ok(published) => BatchItem::Published(published),
            Err(refusal) => BatchItem::Refused(Refused::from(refusal).body()),
        }
    };
    let results = futures_util::future::join_all(placed.into_iter().map(answer)).await;
    Ok(Json(BatchResult { results }))
}

/// Send to whoever is connected of these. The message has no number and is kept for nobody.
#[utoipa::path(post, path = "/v1/send", tag = "messages", params(TenantQuery), request_body = SendBody,
    responses((status = 200, body = Done)))]
pub(super) async fn send(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<TenantQuery>,
    Body(body): Body<SendBody>,
) -> Answer<Done> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Publish)?;
    let to = recipient(body.user, body.role, body.connection, body.tenant)?;
    let draft = api.draft(&body.event, payload(body.json, body.text, body.binary)?)?;
    let _turn = api.hub.pace(&tenant, Hub::paced_until()).await?;
    api.charge(&tenant, &draft)?;
    api.hub.send(&tenant, to, draft)?;
    Ok(Json(Done {}))
}

/// Send to everybody who is connected, in every tenant. For the operator: a word before maintenance.
#[utoipa::path(post, path = "/v1/broadcast", tag = "messages", request_body = BroadcastBody,
    responses((status = 200, body = Broadcast)))]
pub(super) async fn broadcast(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<BroadcastBody>,
) -> Answer<Broadcast> {
    caller.operator(Scope::Publish)?;
    let draft = api.draft(&body.event, payload(body.json, body.text, body.binary)?)?;
    let mut sent = Broadcast {
        tenants: 0,
        refused: 0,
    };
    api.hub.tenants.for_each(
        |tenant| match api.hub.send(tenant, Recipient::Tenant, draft.clone()) {
            Ok(()) => sent.tenants += 1,
            Err(_) => sent.refused += 1,
        },
    );
    Ok(Json(sent))
}

fn recipient(
    user: Option<String>,
    role: Option<String>,
    connection: Option<Connection>,
    tenant: bool,
) -> Result<Recipient, Refusal> {
    match (user, role, connection, tenant) {
        (Some(user), None, None, false) => UserId::new(&user)
            .map(Recipient::User)
            .map_err(|e| bad_name("user", e)),
        (None, Some(role), None, false) => Role::new(&role)
            .map(Recipient::Role)
            .map_err(|e| bad_name("role", e)),
        (None, None, Some(connection), false) => Ok(Recipient::Connection(connection.0)),
        (None, None, None, true) => Ok(Recipient::Tenant),
        _ => {
            let message = "give exactly one of user, role, connection and tenant: true";
            Err(Refusal::new(Code::Invalid, message))
        }
    }
}

fn payload(
    json: Option<Box<RawValue>>,
    text: Option<String>,
    binary: Option<String>,
) -> Result<Payload, Refusal> {
    match (json, text, binary) {
        (None, None, None) => Ok(Payload::NULL),
        (Some(json), None, None) => Ok(Payload::Json(String::from(Box::<str>::from(json)).into())),
        (None, Some(text), None) => Ok(Payload::text(text)),
        (None, None, Some(binary)) => BASE64_STANDARD
            .decode(binary)
            .map(Payload::binary)
            .map_err(|e| Refusal::new(Code::Invalid, format!("binary is not base64: {e}"))),
        _ => Err(Refusal::new(
            Code::Invalid,
            "give at most one of json, text and binary",
        )),
    }
}

pub(super) fn bad_name(what: &str, error: NameError) -> Refusal {
    Refusal::new(error.code(), format!("{what} {error}"))
}
