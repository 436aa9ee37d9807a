//! The twin of the schema for plain clients: the same messages, the same field names, as JSON.
//!
//! A frame towards the broker is an object with `id` and the request under its name:
//! `{"id":1,"publish":{"room":"a","event":"b","json":{}}}`. A frame towards the client is an object with the message under
//! its name. A payload lies beside the other fields as `json` (any value), `text` (a string) or `binary` (base64).
//! Fields that the schema does not have are ignored, as protobuf does.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::frame::DecodeError;
use crate::limits::EXCLUDE_MAX;
use crate::list::at_most;
use crate::payload::Payload;
use crate::server::{Direct, Push};
use crate::wire;

#[derive(Deserialize, Serialize)]
struct ClientFrame<'a> {
    #[serde(default, skip_serializing_if = "is_default")]
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    hello: Option<wire::Hello>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe: Option<wire::Subscribe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsubscribe: Option<wire::Unsubscribe>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    publish: Option<PublishTwin<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    send: Option<SendTwin<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    call: Option<CallTwin<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ping: Option<wire::Ping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh: Option<wire::Refresh>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<wire::History>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<wire::Presence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serve: Option<wire::Serve>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unserve: Option<wire::Unserve>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel: Option<wire::Cancel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notifications: Option<wire::Notifications>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark_read: Option<wire::MarkRead>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct PublishTwin<'a> {
    room: String,
    event: String,
    #[serde(borrow, deserialize_with = "raw", skip_serializing_if = "Option::is_none")]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_default")]
    idempotency_key: String,
    #[serde(skip_serializing_if = "is_default")]
    exclude_sender: bool,
    #[serde(
        deserialize_with = "at_most::<EXCLUDE_MAX, _, _>",
        skip_serializing_if = "is_default"
    )]
    exclude: Vec<u64>,
    #[serde(skip_serializing_if = "is_default")]
    want_receivers: bool,
    #[serde(skip_serializing_if = "is_default")]
    key: String,
    #[serde(skip_serializing_if = "is_default")]
    ack: i32,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct SendTwin<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<bool>,
    event: String,
    #[serde(borrow, deserialize_with = "raw", skip_serializing_if = "Option::is_none")]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_default")]
    exclude_sender: bool,
    #[serde(
        deserialize_with = "at_most::<EXCLUDE_MAX, _, _>",
        skip_serializing_if = "is_default"
    )]
    exclude: Vec<u64>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct CallTwin<'a> {
    device: String,
    method: String,
    #[serde(borrow, deserialize_with = "raw", skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "is_default")]
    timeout_ms: u32,
    #[serde(skip_serializing_if = "is_default")]
    retry: bool,
}

#[derive(Deserialize, Serialize)]
struct ServerFrame<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    push: Option<PushTwin<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    reply: Option<ReplyTwin<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    direct: Option<DirectTwin<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advance: Option<wire::Advance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goaway: Option<wire::Goaway>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct PushTwin<'a> {
    room: u64,
    seq: u64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "is_default")]
    key: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "raw", skip_serializing_if = "Option::is_none")]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct DirectTwin<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "raw", skip_serializing_if = "Option::is_none")]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Serialize)]
struct ReplyTwin<'a> {
    #[serde(default)]
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<wire::Error>,
    #[serde(skip_serializing_if = "Option::is_none")]
    welcome: Option<wire::Welcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribed: Option<wire::Subscribed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsubscribed: Option<wire::Unsubscribed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<wire::Published>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<wire::Sent>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerTwin<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pong: Option<wire::Pong>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct AnswerTwin<'a> {
    #[serde(borrow, deserialize_with = "raw", skip_serializing_if = "Option::is_none")]
    json: Option<&'a RawValue>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `"json":null` is a payload, not an absent one.
fn raw<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn copied(raw: &RawValue) -> Bytes {
    Bytes::copy_from_slice(raw.get().as_bytes())
}

/// A payload's bytes as they stand in JSON. What is not JSON cannot be shown as JSON, and shows as null.
fn shown(json: &[u8]) -> &RawValue {
    serde_json::from_slice(json).unwrap_or(RawValue::NULL)
}

fn from_base64(text: &str) -> Result<Bytes, DecodeError> {
    BASE64
        .decode(text)
        .map(Bytes::from)
        .map_err(|_| DecodeError::Base64)
}

fn at(error: &serde_json::Error) -> DecodeError {
    DecodeError::Json {
        column: error.column(),
    }
}

/// Reads the three forms of a payload into the generated choice.
macro_rules! payload_from {
    ($twin:expr, $choice:path) => {{
        use $choice as Choice;
        match ($twin.json, $twin.text, $twin.binary) {
            (None, None, None) => None,
            (Some(json), None, None) => Some(Choice::Json(copied(json))),
            (None, Some(text), None) => Some(Choice::Text(text.into_owned())),
            (None, None, Some(binary)) => Some(Choice::Binary(from_base64(&binary)?)),
            // Two payloads in one message: which was meant?
            _ => return Err(DecodeError::Choice),
        }
    }};
}

/// Writes the generated choice into the three forms of a payload.
macro_rules! payload_into {
    ($payload:expr, $choice:path, $twin:expr) => {{
        use $choice as Choice;
        match $payload {
            None => {}
            Some(Choice::Json(json)) => $twin.json = Some(shown(json)),
            Some(Choice::Text(text)) => $twin.text = Some(Cow::Borrowed(text)),
            Some(Choice::Binary(binary)) => $twin.binary = Some(Cow::Owned(BASE64.encode(binary))),
        }
    }};
}

/// # Errors
/// If it is not JSON, not of this form, names two requests or carries two payloads. No request that this version knows is not
/// an error here: the caller refuses that one and goes on.
pub fn decode_client(text: &[u8]) -> Result<wire::ClientFrame, DecodeError> {
    use wire::client_frame::Request;
    let frame: ClientFrame<'_> = serde_json::from_slice(text).map_err(|e| at(&e))?;
    let mut requests = Vec::with_capacity(1);
    requests.extend(frame.hello.map(Request::Hello));
    requests.extend(frame.subscribe.map(Request::Subscribe));
    requests.extend(frame.unsubscribe.map(Request::Unsubscribe));
    requests.extend(frame.ping.map(Request::Ping));
    requests.extend(frame.refresh.map(Request::Refresh));
    requests.extend(frame.history.map(Request::History));
    requests.extend(frame.presence.map(Request::Presence));
    requests.extend(frame.serve.map(Request::Serve));
    requests.extend(frame.unserve.map(Request::Unserve));
    requests.extend(frame.cancel.map(Request::Cancel));
    requests.extend(frame.notifications.map(Request::Notifications));
    requests.extend(frame.mark_read.map(Request::MarkRead));
    if let Some(twin) = frame.publish {
        requests.push(Request::Publish(wire::Publish {
            room: twin.room,
            event: twin.event,
            payload: payload_from!(twin, wire::publish::Payload),
            idempotency_key: twin.idempotency_key,
            exclude_sender: twin.exclude_sender,
            exclude: twin.exclude,
            want_receivers: twin.want_receivers,
            key: twin.key,
            ack: twin.ack,
        }));
    }
    if let Some(twin) = frame.send {
        use wire::send::To;
        let to = match (twin.user, twin.connection, twin.role, twin.tenant) {
            (None, None, None, None) => None,
            (Some(user), None, None, None) => Some(To::User(user)),
            (None, Some(connection), None, None) => Some(To::Connection(connection)),
            (None, None, Some(role), None) => Some(To::Role(role)),
            (None, None, None, Some(tenant)) => Some(To::Tenant(tenant)),
            _ => return Err(DecodeError::Choice),
        };
        requests.push(Request::Send(wire::Send {
            to,
            event: twin.event,
            payload: payload_from!(twin, wire::send::Payload),
            exclude_sender: twin.exclude_sender,
            exclude: twin.exclude,
        }));
    }
    if let Some(twin) = frame.call {
        requests.push(Request::Call(wire::Call {
            device: twin.device,
            method: twin.method,
            params: twin.params.map(copied).unwrap_or_default(),
            timeout_ms: twin.timeout_ms,
            retry: twin.retry,
        }));
    }
    if requests.len() > 1 {
        return Err(DecodeError::Choice);
    }
    Ok(wire::ClientFrame {
        id: frame.id,
        request: requests.pop(),
    })
}

/// Writes a client's frame as JSON.
pub fn encode_client(frame: &wire::ClientFrame) -> String {
    use wire::client_frame::Request;
    let mut twin = ClientFrame {
        id: frame.id,
        hello: None,
        subscribe: None,
        unsubscribe: None,
        publish: None,
        send: None,
        call: None,
        ping: None,
        refresh: None,
        history: None,
        presence: None,
        serve: None,
        unserve: None,
        cancel: None,
        notifications: None,
        mark_read: None,
    };
    match &frame.request {
        None => {}
        Some(Request::Hello(hello)) => twin.hello = Some(hello.clone()),
        Some(Request::Subscribe(subscribe)) => twin.subscribe = Some(subscribe.clone()),
        Some(Request::Unsubscribe(unsubscribe)) => twin.unsubscribe = Some(unsubscribe.clone()),
        Some(Request::Ping(ping)) => twin.ping = Some(*ping),
        Some(Request::Refresh(refresh)) => twin.refresh = Some(refresh.clone()),
        Some(Request::History(history)) => twin.history = Some(history.clone()),
        Some(Request::Presence(presence)) => twin.presence = Some(presence.clone()),
        Some(Request::Serve(serve)) => twin.serve = Some(serve.clone()),
        Some(Request::Unserve(unserve)) => twin.unserve = Some(unserve.clone()),
        Some(Request::Cancel(cancel)) => twin.cancel = Some(*cancel),
        Some(Request::Notifications(asked)) => twin.notifications = Some(*asked),
        Some(Request::MarkRead(mark)) => twin.mark_read = Some(mark.clone()),
        Some(Request::Respond(_) | Request::Notify(_)) => {}
        Some(Request::Publish(publish)) => {
            let mut out = PublishTwin {
                room: publish.room.clone(),
                event: publish.event.clone(),
                idempotency_key: publish.idempotency_key.clone(),
                exclude_sender: publish.exclude_sender,
                exclude: publish.exclude.clone(),
                want_receivers: publish.want_receivers,
                key: publish.key.clone(),
                ack: publish.ack,
                ..PublishTwin::default()
            };
            payload_into!(&publish.payload, wire::publish::Payload, out);
            twin.publish = Some(out);
        }
        Some(Request::Send(send)) => {
            use wire::send::To;
            let mut out = SendTwin {
                event: send.event.clone(),
                exclude_sender: send.exclude_sender,
                exclude: send.exclude.clone(),
                ..SendTwin::default()
            };
            match &send.to {
                None => {}
                Some(To::User(user)) => out.user = Some(user.clone()),
                Some(To::Connection(connection)) => out.connection = Some(*connection),
                Some(To::Role(role)) => out.role = Some(role.clone()),
                Some(To::Tenant(tenant)) => out.tenant = Some(*tenant),
            }
            payload_into!(&send.payload, wire::send::Payload, out);
            twin.send = Some(out);
        }
        Some(Request::Call(call)) => {
            twin.call = Some(CallTwin {
                device: call.device.clone(),
                method: call.method.clone(),
                params: Some(&call.params).filter(|p| !p.is_empty()).map(|p| shown(p)),
                timeout_ms: call.timeout_ms,
                retry: call.retry,
            });
        }
    }
    to_string(&twin)
}

/// # Errors
/// If it is not JSON of this form.
pub fn decode_server(text: &[u8]) -> Result<wire::ServerFrame, DecodeError> {
    use wire::server_frame::Message;
    let frame: ServerFrame<'_> = serde_json::from_slice(text).map_err(|e| at(&e))?;
    let message = if let Some(twin) = frame.push {
        Some(Message::Push(wire::Push {
            room: twin.room,
            seq: twin.seq,
            event: twin.event.into_owned(),
            payload: payload_from!(twin, wire::push::Payload),
            key: twin.key.into_owned(),
        }))
    } else if let Some(twin) = frame.direct {
        Some(Message::Direct(wire::Direct {
            event: twin.event.into_owned(),
            payload: payload_from!(twin, wire::direct::Payload),
        }))
    } else if let Some(twin) = frame.reply {
        Some(Message::Reply(wire::Reply {
            id: twin.id,
            outcome: outcome(twin),
        }))
    } else {
        frame
            .advance
            .map(Message::Advance)
            .or(frame.goaway.map(Message::Goaway))
    };
    Ok(wire::ServerFrame { message })
}

fn outcome(twin: ReplyTwin<'_>) -> Option<wire::reply::Outcome> {
    use wire::reply::Outcome;
    let answer = |twin: AnswerTwin<'_>| {
        Outcome::Answer(wire::Answer {
            json: twin.json.map(copied).unwrap_or_default(),
        })
    };
    twin.error
        .map(Outcome::Error)
        .or(twin.welcome.map(Outcome::Welcome))
        .or(twin.subscribed.map(Outcome::Subscribed))
        .or(twin.unsubscribed.map(Outcome::Unsubscribed))
        .or(twin.published.map(Outcome::Published))
        .or(twin.sent.map(Outcome::Sent))
        .or(twin.answer.map(answer))
        .or(twin.pong.map(Outcome::Pong))
}

/// Writes a broker's frame as JSON.
pub fn encode_server(frame: &wire::ServerFrame) -> String {
    use wire::server_frame::Message;
    let mut twin = ServerFrame {
        push: None,
        reply: None,
        direct: None,
        advance: None,
        goaway: None,
    };
    match &frame.message {
        None => {}
        Some(Message::Push(push)) => {
            let mut out = PushTwin {
                room: push.room,
                seq: push.seq,
                event: Cow::Borrowed(&push.event),
                key: Cow::Borrowed(&push.key),
                ..PushTwin::default()
            };
            payload_into!(&push.payload, wire::push::Payload, out);
            twin.push = Some(out);
        }
        Some(Message::Direct(direct)) => {
            let mut out = DirectTwin {
                event: Cow::Borrowed(&direct.event),
                ..DirectTwin::default()
            };
            payload_into!(&direct.payload, wire::direct::Payload, out);
            twin.direct = Some(out);
        }
        Some(Message::Reply(reply)) => twin.reply = Some(reply_twin(reply)),
        Some(Message::Advance(advance)) => twin.advance = Some(*advance),
        Some(Message::Goaway(goaway)) => twin.goaway = Some(goaway.clone()),
        Some(_) => {}
    }
    to_string(&twin)
}

fn reply_twin(reply: &wire::Reply) -> ReplyTwin<'_> {
    use wire::reply::Outcome;
    let mut twin = ReplyTwin {
        id: reply.id,
        error: None,
        welcome: None,
        subscribed: None,
        unsubscribed: None,
        published: None,
        sent: None,
        answer: None,
        pong: None,
    };
    match &reply.outcome {
        None => {}
        Some(Outcome::Error(error)) => twin.error = Some(error.clone()),
        Some(Outcome::Welcome(welcome)) => twin.welcome = Some(welcome.clone()),
        Some(Outcome::Subscribed(subscribed)) => twin.subscribed = Some(subscribed.clone()),
        Some(Outcome::Unsubscribed(unsubscribed)) => twin.unsubscribed = Some(*unsubscribed),
        Some(Outcome::Published(published)) => twin.published = Some(*published),
        Some(Outcome::Sent(sent)) => twin.sent = Some(*sent),
        Some(Outcome::Answer(answer)) => {
            twin.answer = Some(AnswerTwin {
                json: Some(&answer.json)
                    .filter(|json| !json.is_empty())
                    .map(|json| shown(json)),
            });
        }
        Some(Outcome::Pong(pong)) => twin.pong = Some(*pong),
        Some(_) => {}
    }
    twin
}

/// A push, written once for all JSON subscribers. The payload has been checked, so its bytes are copied, not parsed again.
pub(crate) fn push(push: &Push<'_>) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(64 + push.event.len() + push.payload.len() * 4 / 3);
    // Writing into a `String` cannot fail.
    let _ = write!(out, "{{\"push\":{{\"room\":{},\"seq\":{},", push.room, push.seq);
    put_event_and_payload(&mut out, push.event, push.payload);
    if !push.key.is_empty() {
        out.push_str(",\"key\":");
        out.push_str(&to_string(push.key));
    }
    out.push_str("}}");
    out
}

/// A direct message, in the same manner.
pub(crate) fn direct(direct: &Direct<'_>) -> String {
    let mut out = String::with_capacity(40 + direct.event.len() + direct.payload.len() * 4 / 3);
    out.push_str("{\"direct\":{");
    put_event_and_payload(&mut out, direct.event, direct.payload);
    out.push_str("}}");
    out
}

fn put_event_and_payload(out: &mut String, event: &str, payload: &Payload) {
    out.push_str("\"event\":");
    out.push_str(&to_string(event));
    match payload {
        Payload::Json(json) => {
            out.push_str(",\"json\":");
            out.push_str(std::str::from_utf8(json).unwrap_or("null"));
        }
        Payload::Text(text) => {
            out.push_str(",\"text\":");
            out.push_str(&to_string(std::str::from_utf8(text).unwrap_or_default()));
        }
        Payload::Binary(binary) => {
            out.push_str(",\"binary\":\"");
            BASE64.encode_string(binary, out);
            out.push('"');
        }
    }
}

/// Our types have string keys and no failing parts, so this always succeeds.
fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
