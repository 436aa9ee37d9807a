//! What a client asks, checked. Whoever holds a [`ClientMessage`] may use every name, size and list in it without looking again;
//! rights and rates are the connection's business.
//!
//! Publish is the hot one and is read by hand, in `publish`. The others go through the generated types, after a walk over
//! their fields that bounds what those may allocate.

use bytes::Bytes;
use prost::Message as _;

use crate::code::{Code, Refusal};
use crate::frame::DecodeError;
use crate::ids::{self, ConnectionId, NameError, Role, RoomName, UserId};
use crate::json;
use crate::limits::{
    CLIENT_NAME_BYTES_MAX, EVENT_BYTES_MAX, EXCLUDE_MAX, PAYLOAD_DEPTH_MAX, PREVIOUS_MAX,
    REQUEST_ENTRIES_MAX, TOKEN_BYTES_MAX,
};
use crate::payload::Payload;
use crate::publish;
pub use crate::publish::{Ack, Publish};
use crate::varint::{Reader, Value};
use crate::wire;

mod calls;
mod notifications;
mod rooms;

pub use calls::{Call, Callee, MethodPattern, Respond, Serve, check_method, check_params};
pub use notifications::{Audience, MarkRead, NotificationKind, Notifications, Notify, Priority};
pub use rooms::{Direction, Filter, History, Policy, Presence, Subscription, Watch};

/// A slice of the received frame that is UTF-8. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(Bytes);

impl Text {
    /// # Errors
    /// If it is not UTF-8.
    pub fn new(bytes: Bytes) -> Result<Self, DecodeError> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(DecodeError::Utf8),
        }
    }

    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    pub fn as_str(&self) -> &str {
        // Checked by the constructors; the empty string can not occur instead.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.as_str(), f)
    }
}

/// One frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMessage {
    /// 0 asks for no answer.
    pub id: u32,
    pub request: Request,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Hello(Hello),
    Subscribe(Vec<Subscription>),
    Unsubscribe(Vec<RoomName>),
    Publish(Publish),
    Send(Send),
    Call(Call),
    Ping,
    Refresh(Secret),
    History(History),
    Presence(Presence),
    Serve(Serve),
    Unserve(Vec<MethodPattern>),
    Respond(Respond),
    /// The request id of the call.
    Cancel(u32),
    Notify(Notify),
    Notifications(Notifications),
    MarkRead(MarkRead),
}

/// A token: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    pub version: u32,
    pub features: u64,
    /// A secret: it is never shown.
    pub token: String,
    pub client: String,
    /// This client's earlier connections.
    pub previous: Vec<ConnectionId>,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("version", &self.version)
            .field("features", &self.features)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub to: Recipient,
    pub event: Text,
    pub payload: Payload,
    pub exclude_sender: bool,
    pub exclude: Vec<ConnectionId>,
}

/// Whom a message without a room is for, always within one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Recipient {
    User(UserId),
    Connection(ConnectionId),
    Role(Role),
    Tenant,
}

/// One request is refused; the connection goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub id: u32,
    pub refusal: Refusal,
}

/// What became of a frame: a message, or a refusal to be sent back under its id.
pub type Decoded = Result<ClientMessage, Rejected>;

/// Reads one protobuf frame (without its length).
///
/// # Errors
/// If the bytes are not a frame of the schema: the connection cannot go on.
pub fn decode_proto(frame: &Bytes, payload_bytes_max: usize) -> Result<Decoded, DecodeError> {
    if let Some((id, publish)) = publish::decode(frame)? {
        return Ok(checked(
            id,
            publish
                .check(payload_bytes_max)
                .map(|()| Request::Publish(publish)),
        ));
    }
    if let Some(rejected) = too_many_fields(frame)? {
        return Ok(Err(rejected));
    }
    let frame = wire::ClientFrame::decode(frame.clone()).map_err(|_| DecodeError::Protobuf)?;
    Ok(check(frame, payload_bytes_max))
}

/// Reads one JSON text.
///
/// # Errors
/// If it is not a JSON object of the twin's form: the connection cannot go on.
pub fn decode_json(text: &[u8], payload_bytes_max: usize) -> Result<Decoded, DecodeError> {
    Ok(check(json::decode_client(text)?, payload_bytes_max))
}

/// Fields that a frame may have, with the entries of its lists: more than any request at its limits needs. Each costs at
/// least two bytes on the wire and up to 24 in memory, before the checks see it.
const FIELDS_MAX: usize = REQUEST_ENTRIES_MAX + EXCLUDE_MAX + 64;

/// Lists of numbers that may be packed into one field, by request and field.
const PACKED: [(u32, u32); 4] = [
    (field::HELLO, 5),
    (field::PUBLISH, 8),
    (field::SEND, 10),
    (field::MARK_READ, 1),
];

/// Numbers of the schema.
mod field {
    pub(super) const ID: u32 = 1;
    pub(super) const HELLO: u32 = 2;
    pub(super) const PUBLISH: u32 = 5;
    pub(super) const SEND: u32 = 6;
    pub(super) const MARK_READ: u32 = 18;
    pub(super) const LAST_REQUEST: u32 = 18;
}

/// Counts what a frame holds before the generated types keep every entry of its lists.
#[derive(Default)]
struct Census {
    id: u32,
    fields: usize,
}

impl Census {
    fn walk(&mut self, frame: &Bytes) -> Result<(), DecodeError> {
        let mut outer = Reader::new(frame);
        while let Some((number, value)) = outer.next()? {
            self.fields += 1;
            match value {
                Value::Varint(value) if number == field::ID => self.id = value as u32,
                Value::Bytes(request) if number <= field::LAST_REQUEST => {
                    let mut inner = Reader::new(&request);
                    while let Some((field, value)) = inner.next()? {
                        self.fields += match value {
                            // Each packed number ends with a byte below 128.
                            Value::Bytes(packed) if PACKED.contains(&(number, field)) => {
                                packed.iter().filter(|&&byte| byte < 0x80).count()
                            }
                            _ => 1,
                        };
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A frame with more than the generated types should be given.
fn too_many_fields(frame: &Bytes) -> Result<Option<Rejected>, DecodeError> {
    let mut census = Census::default();
    let walked = census.walk(frame);
    if census.fields <= FIELDS_MAX {
        // Also where the walk failed: what is wrong is theirs to say.
        return Ok(None);
    }
    walked?;
    Ok(Some(Rejected {
        id: census.id,
        refusal: Refusal::new(
            Code::TooLarge,
            format!("the request has more than {FIELDS_MAX} fields and list entries"),
        ),
    }))
}

fn checked(id: u32, request: Result<Request, Refusal>) -> Decoded {
    match request {
        Ok(request) => Ok(ClientMessage { id, request }),
        Err(refusal) => Err(Rejected { id, refusal }),
    }
}

pub(crate) fn check(frame: wire::ClientFrame, payload_bytes_max: usize) -> Decoded {
    use wire::client_frame::Request as Wire;
    let request = match frame.request {
        None => Err(Refusal::new(
            Code::Unsupported,
            "this broker does not know that request; upgrade it, or see docs/PROTOCOL.md",
        )),
        Some(Wire::Hello(hello)) => check_hello(hello),
        Some(Wire::Subscribe(subscribe)) => rooms::check_subscribe(&subscribe).map(Request::Subscribe),
        Some(Wire::Unsubscribe(unsubscribe)) => {
            rooms::check_rooms(&unsubscribe.rooms).map(Request::Unsubscribe)
        }
        Some(Wire::Publish(publish)) => {
            let publish = Publish::from(publish);
            publish
                .check(payload_bytes_max)
                .map(|()| Request::Publish(publish))
        }
        Some(Wire::Send(send)) => check_send(send, payload_bytes_max),
        Some(Wire::Call(call)) => calls::check_call(call, payload_bytes_max).map(Request::Call),
        Some(Wire::Ping(wire::Ping {})) => Ok(Request::Ping),
        Some(Wire::Refresh(refresh)) => check_refresh(refresh),
        Some(Wire::History(history)) => rooms::check_history(&history).map(Request::History),
        Some(Wire::Presence(presence)) => rooms::check_presence(&presence).map(Request::Presence),
        Some(Wire::Serve(serve)) => calls::check_serve(&serve).map(Request::Serve),
        Some(Wire::Unserve(unserve)) => calls::check_methods(&unserve.methods).map(Request::Unserve),
        Some(Wire::Respond(respond)) => {
            calls::check_respond(respond, payload_bytes_max).map(Request::Respond)
        }
        Some(Wire::Cancel(cancel)) => Ok(Request::Cancel(cancel.request)),
        Some(Wire::Notify(notify)) => {
            notifications::check_notify(notify, payload_bytes_max).map(Request::Notify)
        }
        Some(Wire::Notifications(asked)) => {
            notifications::check_notifications(&asked).map(Request::Notifications)
        }
        Some(Wire::MarkRead(mark)) => notifications::check_mark_read(mark).map(Request::MarkRead),
    };
    checked(frame.id, request)
}

fn check_hello(hello: wire::Hello) -> Result<Request, Refusal> {
    let wire::Hello {
        version,
        features,
        token,
        client,
        previous,
    } = hello;
    bounded("token", token.len(), TOKEN_BYTES_MAX)?;
    bounded("client", client.len(), CLIENT_NAME_BYTES_MAX)?;
    bounded_count("previous", previous.len(), PREVIOUS_MAX)?;
    Ok(Request::Hello(Hello {
        version,
        features,
        token,
        client,
        previous: previous.into_iter().map(ConnectionId).collect(),
    }))
}

fn check_refresh(refresh: wire::Refresh) -> Result<Request, Refusal> {
    bounded("token", refresh.token.len(), TOKEN_BYTES_MAX)?;
    if refresh.token.is_empty() {
        return Err(Refusal::new(Code::Invalid, "refresh has no token"));
    }
    Ok(Request::Refresh(Secret(refresh.token)))
}

fn check_send(send: wire::Send, payload_bytes_max: usize) -> Result<Request, Refusal> {
    use wire::send::{Payload as P, To};
    let to = match send.to {
        Some(To::User(user)) => Recipient::User(UserId::new(&user).map_err(|e| invalid("user", e))?),
        Some(To::Connection(connection)) => Recipient::Connection(ConnectionId(connection)),
        Some(To::Role(role)) => Recipient::Role(Role::new(&role).map_err(|e| invalid("role", e))?),
        Some(To::Tenant(true)) => Recipient::Tenant,
        Some(To::Tenant(false)) | None => {
            return Err(Refusal::new(
                Code::Invalid,
                "send needs a recipient: user, connection, role or tenant",
            ));
        }
    };
    let payload = match send.payload {
        None => Payload::NULL,
        Some(P::Json(json)) => Payload::Json(json),
        Some(P::Text(text)) => Payload::Text(text.into()),
        Some(P::Binary(binary)) => Payload::Binary(binary),
    };
    check_event(&send.event)?;
    payload.check(payload_bytes_max, PAYLOAD_DEPTH_MAX)?;
    bounded_count("exclude", send.exclude.len(), EXCLUDE_MAX)?;
    Ok(Request::Send(Send {
        to,
        event: send.event.into(),
        payload,
        exclude_sender: send.exclude_sender,
        exclude: send.exclude.into_iter().map(ConnectionId).collect(),
    }))
}

/// An event's name.
///
/// # Errors
/// `invalid` or `too_large`, with the reason.
pub fn check_event(event: &str) -> Result<(), Refusal> {
    ids::check(event, EVENT_BYTES_MAX).map_err(|e| invalid("event", e))
}

pub(crate) fn invalid(what: &str, error: NameError) -> Refusal {
    Refusal::new(error.code(), format!("{what} {error}"))
}

pub(crate) fn bounded(what: &str, bytes: usize, bytes_max: usize) -> Result<(), Refusal> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Refusal::new(
        Code::TooLarge,
        format!("{what} has {bytes} bytes, allowed are {bytes_max}"),
    ))
}

pub(crate) fn bounded_count(what: &str, count: usize, max: usize) -> Result<(), Refusal> {
    if count <= max {
        return Ok(());
    }
    Err(Refusal::new(
        Code::TooLarge,
        format!("{what} has more than {max} entries"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ROOMS_A_REQUEST_MAX;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_makes_the_twin_panic(text in "\\PC*") {
            let _ = json::decode_client(text.as_bytes());
            let _ = json::decode_server(text.as_bytes());
        }
    }

    #[test]
    fn an_unknown_request_fails_alone_and_keeps_its_id() {
        // Field 99, length-delimited, empty: a request of a later version.
        let frame = Bytes::from_static(&[0x08, 0x07, 0x9a, 0x06, 0x00]);
        let rejected = decode_proto(&frame, 100).unwrap().unwrap_err();
        assert_eq!((rejected.id, rejected.refusal.code), (7, Code::Unsupported));
        let rejected = decode_json(br#"{"id":7,"levitate":{}}"#, 100)
            .unwrap()
            .unwrap_err();
        assert_eq!((rejected.id, rejected.refusal.code), (7, Code::Unsupported));
    }

    #[test]
    fn long_lists_are_refused_before_the_generated_types_keep_them() {
        let refused = |frame: Vec<u8>| decode_proto(&frame.into(), 100).unwrap().unwrap_err();
        // 20,000 empty names, as one subscribe or as one each; and 20,000 excluded connections of a send, packed.
        let entries = 20_000;
        let message = |number: u8, content: &[u8]| {
            let mut frame = vec![0x08, 7, number << 3 | 2];
            crate::varint::put(&mut frame, content.len() as u64);
            frame.extend_from_slice(content);
            frame
        };
        let one = message(3, &[0x0a, 0].repeat(entries));
        let many = [&[0x08, 7][..], &[0x1a, 2, 0x0a, 0].repeat(entries)].concat();
        let mut packed = vec![0x52];
        crate::varint::put(&mut packed, entries as u64);
        packed.resize(packed.len() + entries, 1);
        for frame in [one, many, message(6, &packed)] {
            let mut census = Census::default();
            census.walk(&frame.clone().into()).unwrap();
            assert!(census.fields >= entries);
            let rejected = refused(frame);
            assert_eq!((rejected.id, rejected.refusal.code), (7, Code::TooLarge));
        }
        let names = vec!["\"a\""; entries].join(",");
        let text = format!(r#"{{"id":7,"subscribe":{{"rooms":[{names}]}}}}"#);
        let frame = json::decode_client(text.as_bytes()).unwrap();
        let Some(wire::client_frame::Request::Subscribe(subscribe)) = frame.request else {
            panic!("not a subscribe")
        };
        assert_eq!(subscribe.rooms.len(), ROOMS_A_REQUEST_MAX + 1);
    }

    #[test]
    fn a_request_at_all_its_limits_has_not_too_many_fields() {
        let send = wire::Send {
            exclude: vec![u64::MAX; EXCLUDE_MAX],
            ..wire::Send::default()
        };
        let rooms = vec!["r".into(); ROOMS_A_REQUEST_MAX];
        for request in [
            wire::client_frame::Request::Send(send),
            wire::client_frame::Request::Subscribe(wire::Subscribe {
                rooms,
                ..wire::Subscribe::default()
            }),
        ] {
            let frame = wire::ClientFrame {
                id: 7,
                request: Some(request),
            };
            assert_eq!(too_many_fields(&frame.encode_to_vec().into()), Ok(None));
        }
    }

    #[test]
    fn a_bad_name_or_payload_fails_alone() {
        let refused = |text: &str| {
            decode_json(text.as_bytes(), 50)
                .unwrap()
                .unwrap_err()
                .refusal
                .code
        };
        assert_eq!(refused(r#"{"id":1,"subscribe":{"rooms":[]}}"#), Code::Invalid);
        assert_eq!(
            refused(r#"{"id":1,"subscribe":{"rooms":["a\u0000"]}}"#),
            Code::Invalid
        );
        assert_eq!(
            refused(r#"{"id":1,"publish":{"room":"a","event":""}}"#),
            Code::Invalid
        );
        assert_eq!(
            refused(&format!(
                r#"{{"id":1,"publish":{{"room":"a","event":"e","text":"{}"}}}}"#,
                "x".repeat(51)
            )),
            Code::TooLarge
        );
        assert_eq!(
            refused(
                r#"{"id":1,"publish":{"room":"a","event":"e","json":[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}}"#
            ),
            Code::TooLarge
        );
        assert_eq!(
            refused(r#"{"id":1,"call":{"device":"d","method":"a b"}}"#),
            Code::Invalid
        );
        assert_eq!(
            refused(r#"{"id":1,"call":{"device":"d","method":"a","params":[1]}}"#),
            Code::Invalid
        );
        assert_eq!(refused(r#"{"id":1,"send":{"event":"a"}}"#), Code::Invalid);
    }

    #[test]
    fn what_is_not_a_frame_ends_the_connection() {
        for text in [
            "",
            "[]",
            "1",
            "{",
            r#"{"ping":{},"hello":{}}"#,
            r#"{"id":-1}"#,
            r#"{"id":1,"publish":{"json":1,"text":"a"}}"#,
        ] {
            assert!(decode_json(text.as_bytes(), 50).is_err(), "{text}");
        }
    }

    #[test]
    fn json_null_is_a_payload() {
        let decoded = decode_json(br#"{"id":1,"publish":{"room":"a","event":"e","json": null}}"#, 50)
            .unwrap()
            .unwrap();
        let Request::Publish(publish) = decoded.request else {
            panic!("not a publish")
        };
        assert_eq!(publish.payload, Payload::NULL);
    }
}
