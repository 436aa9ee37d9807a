//! What clients say, as JSON.

use std::borrow::Cow;

use base64::Engine as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::list::at_most;
use super::{BASE64, at, choice, from_base64, is_zero, to_string, value};
use crate::frame::DecodeError;
use crate::limits::EXCLUDE_MAX;
use crate::wire;
use crate::wire::client_frame::Request;

/// A frame as it is read: of the requests, at most one is there.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(default)]
    id: u32,
    hello: Option<wire::Hello>,
    subscribe: Option<wire::Subscribe>,
    unsubscribe: Option<wire::Unsubscribe>,
    #[serde(borrow)]
    publish: Option<Publish<'a>>,
    #[serde(borrow)]
    send: Option<Send<'a>>,
    call: Option<wire::Call>,
    ping: Option<wire::Ping>,
    refresh: Option<wire::Refresh>,
    history: Option<wire::History>,
    presence: Option<wire::Presence>,
    serve: Option<wire::Serve>,
    unserve: Option<wire::Unserve>,
    #[serde(borrow)]
    respond: Option<Respond<'a>>,
    cancel: Option<wire::Cancel>,
    #[serde(borrow)]
    notify: Option<Notify<'a>>,
    notifications: Option<wire::Notifications>,
    mark_read: Option<wire::MarkRead>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Publish<'a> {
    room: Cow<'a, str>,
    event: Cow<'a, str>,
    #[serde(
        borrow,
        deserialize_with = "value::present",
        skip_serializing_if = "Option::is_none"
    )]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_zero")]
    idempotency_key: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    exclude_sender: bool,
    #[serde(
        deserialize_with = "at_most::<EXCLUDE_MAX, _, _>",
        skip_serializing_if = "is_zero"
    )]
    exclude: Vec<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    want_receivers: bool,
    #[serde(skip_serializing_if = "is_zero")]
    key: Cow<'a, str>,
    #[serde(
        serialize_with = "choice::write::<wire::Ack, _>",
        deserialize_with = "choice::read::<wire::Ack, _>",
        skip_serializing_if = "is_zero"
    )]
    ack: i32,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Send<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<bool>,
    event: Cow<'a, str>,
    #[serde(
        borrow,
        deserialize_with = "value::present",
        skip_serializing_if = "Option::is_none"
    )]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_zero")]
    exclude_sender: bool,
    #[serde(
        deserialize_with = "at_most::<EXCLUDE_MAX, _, _>",
        skip_serializing_if = "is_zero"
    )]
    exclude: Vec<u64>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Respond<'a> {
    call: u64,
    #[serde(
        borrow,
        deserialize_with = "value::present",
        skip_serializing_if = "Option::is_none"
    )]
    json: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Notify<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<bool>,
    #[serde(
        serialize_with = "choice::write::<wire::NotificationKind, _>",
        deserialize_with = "choice::read::<wire::NotificationKind, _>",
        skip_serializing_if = "is_zero"
    )]
    kind: i32,
    title: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    message: Cow<'a, str>,
    #[serde(
        borrow,
        deserialize_with = "value::present",
        skip_serializing_if = "Option::is_none"
    )]
    json: Option<&'a RawValue>,
    #[serde(
        serialize_with = "choice::write::<wire::Priority, _>",
        deserialize_with = "choice::read::<wire::Priority, _>",
        skip_serializing_if = "is_zero"
    )]
    priority: i32,
    #[serde(skip_serializing_if = "is_zero")]
    expires_in_ms: u64,
    #[serde(skip_serializing_if = "is_zero")]
    idempotency_key: Cow<'a, str>,
}

/// # Errors
/// If it is not JSON, not of this form, names two requests or carries two payloads. No request that this version knows is not
/// an error here: the caller refuses that one and goes on.
pub fn decode_client(text: &[u8]) -> Result<wire::ClientFrame, DecodeError> {
    let frame: Frame<'_> = serde_json::from_slice(text).map_err(|e| at(&e))?;
    let id = frame.id;
    let mut requests = [
        frame.publish.map(Publish::read).transpose()?,
        frame.send.map(Send::read).transpose()?,
        frame.respond.map(Respond::read).transpose()?,
        frame.notify.map(Notify::read).transpose()?,
        frame.hello.map(Request::Hello),
        frame.subscribe.map(Request::Subscribe),
        frame.unsubscribe.map(Request::Unsubscribe),
        frame.call.map(Request::Call),
        frame.ping.map(Request::Ping),
        frame.refresh.map(Request::Refresh),
        frame.history.map(Request::History),
        frame.presence.map(Request::Presence),
        frame.serve.map(Request::Serve),
        frame.unserve.map(Request::Unserve),
        frame.cancel.map(Request::Cancel),
        frame.notifications.map(Request::Notifications),
        frame.mark_read.map(Request::MarkRead),
    ]
    .into_iter()
    .flatten();
    let request = requests.next();
    match requests.next() {
        None => Ok(wire::ClientFrame { id, request }),
        Some(_) => Err(DecodeError::Choice),
    }
}

impl<'a> Publish<'a> {
    fn read(self) -> Result<Request, DecodeError> {
        Ok(Request::Publish(wire::Publish {
            payload: payload_from!(self, wire::publish::Payload),
            room: self.room.into_owned(),
            event: self.event.into_owned(),
            idempotency_key: self.idempotency_key.into_owned(),
            exclude_sender: self.exclude_sender,
            exclude: self.exclude,
            want_receivers: self.want_receivers,
            key: self.key.into_owned(),
            ack: self.ack,
        }))
    }

    fn of(publish: &'a wire::Publish) -> Self {
        let mut twin = Self {
            room: Cow::Borrowed(&publish.room),
            event: Cow::Borrowed(&publish.event),
            idempotency_key: Cow::Borrowed(&publish.idempotency_key),
            exclude_sender: publish.exclude_sender,
            exclude: publish.exclude.clone(),
            want_receivers: publish.want_receivers,
            key: Cow::Borrowed(&publish.key),
            ack: publish.ack,
            ..Self::default()
        };
        payload_into!(&publish.payload, wire::publish::Payload, twin);
        twin
    }
}

impl<'a> Send<'a> {
    fn read(self) -> Result<Request, DecodeError> {
        use wire::send::To;
        let to = match (self.user, self.connection, self.role, self.tenant) {
            (None, None, None, None) => None,
            (Some(user), None, None, None) => Some(To::User(user.into_owned())),
            (None, Some(connection), None, None) => Some(To::Connection(connection)),
            (None, None, Some(role), None) => Some(To::Role(role.into_owned())),
            (None, None, None, Some(tenant)) => Some(To::Tenant(tenant)),
            _ => return Err(DecodeError::Choice),
        };
        Ok(Request::Send(wire::Send {
            to,
            payload: payload_from!(self, wire::send::Payload),
            event: self.event.into_owned(),
            exclude_sender: self.exclude_sender,
            exclude: self.exclude,
        }))
    }

    fn of(send: &'a wire::Send) -> Self {
        use wire::send::To;
        let mut twin = Self {
            event: Cow::Borrowed(&send.event),
            exclude_sender: send.exclude_sender,
            exclude: send.exclude.clone(),
            ..Self::default()
        };
        match &send.to {
            None => {}
            Some(To::User(user)) => twin.user = Some(Cow::Borrowed(user)),
            Some(To::Connection(connection)) => twin.connection = Some(*connection),
            Some(To::Role(role)) => twin.role = Some(Cow::Borrowed(role)),
            Some(To::Tenant(tenant)) => twin.tenant = Some(*tenant),
        }
        payload_into!(&send.payload, wire::send::Payload, twin);
        twin
    }
}

impl<'a> Respond<'a> {
    fn read(self) -> Result<Request, DecodeError> {
        use wire::respond::Result as Outcome;
        let result = match (self.json, self.error) {
            (None, None) => None,
            (Some(json), None) => Some(Outcome::Json(value::copied(json))),
            (None, Some(error)) => Some(Outcome::Error(error.into_owned())),
            // Did it succeed or not?
            (Some(_), Some(_)) => return Err(DecodeError::Choice),
        };
        let call = self.call;
        Ok(Request::Respond(wire::Respond { call, result }))
    }

    fn of(respond: &'a wire::Respond) -> Self {
        use wire::respond::Result as Outcome;
        let (json, error) = match &respond.result {
            None => (None, None),
            Some(Outcome::Json(json)) => (Some(value::shown(json)), None),
            Some(Outcome::Error(error)) => (None, Some(Cow::Borrowed(&**error))),
        };
        let call = respond.call;
        Self { call, json, error }
    }
}

impl<'a> Notify<'a> {
    fn read(self) -> Result<Request, DecodeError> {
        use wire::notify::To;
        let to = match (self.user, self.role, self.tenant) {
            (None, None, None) => None,
            (Some(user), None, None) => Some(To::User(user.into_owned())),
            (None, Some(role), None) => Some(To::Role(role.into_owned())),
            (None, None, Some(tenant)) => Some(To::Tenant(tenant)),
            _ => return Err(DecodeError::Choice),
        };
        Ok(Request::Notify(wire::Notify {
            to,
            kind: self.kind,
            title: self.title.into_owned(),
            message: self.message.into_owned(),
            json: self.json.map(value::copied).unwrap_or_default(),
            priority: self.priority,
            expires_in_ms: self.expires_in_ms,
            idempotency_key: self.idempotency_key.into_owned(),
        }))
    }

    fn of(notify: &'a wire::Notify) -> Self {
        use wire::notify::To;
        let mut twin = Self {
            kind: notify.kind,
            title: Cow::Borrowed(&notify.title),
            message: Cow::Borrowed(&notify.message),
            json: (!notify.json.is_empty()).then(|| value::shown(&notify.json)),
            priority: notify.priority,
            expires_in_ms: notify.expires_in_ms,
            idempotency_key: Cow::Borrowed(&notify.idempotency_key),
            ..Self::default()
        };
        match &notify.to {
            None => {}
            Some(To::User(user)) => twin.user = Some(Cow::Borrowed(user)),
            Some(To::Role(role)) => twin.role = Some(Cow::Borrowed(role)),
            Some(To::Tenant(tenant)) => twin.tenant = Some(*tenant),
        }
        twin
    }
}

/// Writes a client's frame as JSON.
pub fn encode_client(frame: &wire::ClientFrame) -> String {
    to_string(&Written(frame))
}

struct Written<'a>(&'a wire::ClientFrame);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.0.id != 0 {
            map.serialize_entry("id", &self.0.id)?;
        }
        match &self.0.request {
            None => {}
            Some(Request::Hello(hello)) => map.serialize_entry("hello", hello)?,
            Some(Request::Subscribe(subscribe)) => map.serialize_entry("subscribe", subscribe)?,
            Some(Request::Unsubscribe(unsubscribe)) => map.serialize_entry("unsubscribe", unsubscribe)?,
            Some(Request::Publish(publish)) => map.serialize_entry("publish", &Publish::of(publish))?,
            Some(Request::Send(send)) => map.serialize_entry("send", &Send::of(send))?,
            Some(Request::Call(call)) => map.serialize_entry("call", call)?,
            Some(Request::Ping(ping)) => map.serialize_entry("ping", ping)?,
            Some(Request::Refresh(refresh)) => map.serialize_entry("refresh", refresh)?,
            Some(Request::History(history)) => map.serialize_entry("history", history)?,
            Some(Request::Presence(presence)) => map.serialize_entry("presence", presence)?,
            Some(Request::Serve(serve)) => map.serialize_entry("serve", serve)?,
            Some(Request::Unserve(unserve)) => map.serialize_entry("unserve", unserve)?,
            Some(Request::Respond(respond)) => map.serialize_entry("respond", &Respond::of(respond))?,
            Some(Request::Cancel(cancel)) => map.serialize_entry("cancel", cancel)?,
            Some(Request::Notify(notify)) => map.serialize_entry("notify", &Notify::of(notify))?,
            Some(Request::Notifications(asked)) => map.serialize_entry("notifications", asked)?,
            Some(Request::MarkRead(mark)) => map.serialize_entry("mark_read", mark)?,
        }
        map.end()
    }
}
