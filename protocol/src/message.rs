//! What a client asks, checked. Whoever holds a [`ClientMessage`] may use every name, size and list in it without looking again;
//! rights and rates are the connection's business.
//!
//! Publish is the hot one: it is read by hand, in place, without an allocation. The others go through the generated types.
//! A property test holds both readings against each other.

use bytes::Bytes;
use prost::Message as _;

use crate::code::{Code, Refusal};
use crate::frame::DecodeError;
use crate::ids::{self, ConnectionId, DeviceId, NameError, Role, RoomName, UserId};
use crate::json;
use crate::limits::{
    CLIENT_NAME_BYTES_MAX, EVENT_BYTES_MAX, EXCLUDE_MAX, IDEMPOTENCY_KEY_BYTES_MAX, METHOD_BYTES_MAX,
    NAME_BYTES_MAX, PAYLOAD_DEPTH_MAX, ROOMS_A_REQUEST_MAX, TOKEN_BYTES_MAX,
};
use crate::payload::{Payload, check_json};
use crate::varint::{Reader, Value};
use crate::wire;

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
    Subscribe(Vec<RoomName>),
    Unsubscribe(Vec<RoomName>),
    Publish(Publish),
    Send(Send),
    Call(Call),
    Ping,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    pub version: u32,
    pub features: u64,
    /// A secret: it is never shown.
    pub token: String,
    pub client: String,
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

/// Room and event are checked names, kept as slices of the frame so that a publish allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub room: Text,
    pub event: Text,
    pub payload: Payload,
    /// Empty means none.
    pub idempotency_key: Text,
    pub exclude_sender: bool,
    pub exclude: Vec<ConnectionId>,
    pub want_receivers: bool,
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub device: DeviceId,
    pub method: String,
    /// A JSON object, or empty.
    pub params: Bytes,
    /// 0 means the default.
    pub timeout_ms: u32,
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
    if let Some((id, publish)) = decode_publish(frame)? {
        return Ok(checked(
            id,
            publish
                .check(payload_bytes_max)
                .map(|()| Request::Publish(publish)),
        ));
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

fn checked(id: u32, request: Result<Request, Refusal>) -> Decoded {
    match request {
        Ok(request) => Ok(ClientMessage { id, request }),
        Err(refusal) => Err(Rejected { id, refusal }),
    }
}

fn check(frame: wire::ClientFrame, payload_bytes_max: usize) -> Decoded {
    use wire::client_frame::Request as Wire;
    let request = match frame.request {
        None => Err(Refusal::new(
            Code::Unsupported,
            "this broker does not know that request; upgrade it, or see docs/PROTOCOL.md",
        )),
        Some(Wire::Hello(hello)) => check_hello(hello),
        Some(Wire::Subscribe(subscribe)) => check_rooms(&subscribe.rooms).map(Request::Subscribe),
        Some(Wire::Unsubscribe(unsubscribe)) => check_rooms(&unsubscribe.rooms).map(Request::Unsubscribe),
        Some(Wire::Publish(publish)) => {
            let publish = Publish::from(publish);
            publish
                .check(payload_bytes_max)
                .map(|()| Request::Publish(publish))
        }
        Some(Wire::Send(send)) => check_send(send, payload_bytes_max),
        Some(Wire::Call(call)) => check_call(call, payload_bytes_max),
        Some(Wire::Ping(wire::Ping {})) => Ok(Request::Ping),
    };
    checked(frame.id, request)
}

fn check_hello(hello: wire::Hello) -> Result<Request, Refusal> {
    let wire::Hello {
        version,
        features,
        token,
        client,
    } = hello;
    bounded("token", token.len(), TOKEN_BYTES_MAX)?;
    bounded("client", client.len(), CLIENT_NAME_BYTES_MAX)?;
    Ok(Request::Hello(Hello {
        version,
        features,
        token,
        client,
    }))
}

fn check_rooms(rooms: &[String]) -> Result<Vec<RoomName>, Refusal> {
    if rooms.is_empty() {
        return Err(Refusal::new(
            Code::Invalid,
            "rooms is empty: name at least one room",
        ));
    }
    bounded_count("rooms", rooms.len(), ROOMS_A_REQUEST_MAX)?;
    rooms
        .iter()
        .map(|room| RoomName::new(room).map_err(|e| invalid("room", e)))
        .collect()
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

fn check_call(call: wire::Call, payload_bytes_max: usize) -> Result<Request, Refusal> {
    let device = DeviceId::new(&call.device).map_err(|e| invalid("device", e))?;
    check_method(&call.method)?;
    check_params(&call.params, payload_bytes_max)?;
    Ok(Request::Call(Call {
        device,
        method: call.method,
        params: call.params,
        timeout_ms: call.timeout_ms,
    }))
}

/// A method's name: ASCII letters, digits, dots, dashes and underscores.
///
/// # Errors
/// `invalid` or `too_large`, with the reason.
pub fn check_method(method: &str) -> Result<(), Refusal> {
    if method.is_empty() {
        return Err(Refusal::new(Code::Invalid, "method is empty"));
    }
    bounded("method", method.len(), METHOD_BYTES_MAX)?;
    if method
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        Ok(())
    } else {
        Err(Refusal::new(
            Code::Invalid,
            "method may have letters, digits, '.', '_' and '-' only",
        ))
    }
}

/// Parameters of a call: nothing, or a JSON object within the limits.
///
/// # Errors
/// `too_large`, `malformed` or `invalid`.
pub fn check_params(params: &[u8], bytes_max: usize) -> Result<(), Refusal> {
    if params.is_empty() {
        return Ok(());
    }
    bounded("params", params.len(), bytes_max)?;
    check_json(params, PAYLOAD_DEPTH_MAX)?;
    match params.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') => Ok(()),
        _ => Err(Refusal::new(Code::Invalid, "params must be a JSON object")),
    }
}

/// An event's name.
///
/// # Errors
/// `invalid` or `too_large`, with the reason.
pub fn check_event(event: &str) -> Result<(), Refusal> {
    ids::check(event, EVENT_BYTES_MAX).map_err(|e| invalid("event", e))
}

fn invalid(what: &str, error: NameError) -> Refusal {
    Refusal::new(error.code(), format!("{what} {error}"))
}

fn bounded(what: &str, bytes: usize, bytes_max: usize) -> Result<(), Refusal> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Refusal::new(
        Code::TooLarge,
        format!("{what} has {bytes} bytes, allowed are {bytes_max}"),
    ))
}

fn bounded_count(what: &str, count: usize, max: usize) -> Result<(), Refusal> {
    if count <= max {
        return Ok(());
    }
    Err(Refusal::new(
        Code::TooLarge,
        format!("{what} has more than {max} entries"),
    ))
}

impl Publish {
    /// The checks that the type does not carry.
    ///
    /// # Errors
    /// `invalid`, `too_large` or `malformed`, with the field at fault.
    pub fn check(&self, payload_bytes_max: usize) -> Result<(), Refusal> {
        ids::check(self.room.as_str(), NAME_BYTES_MAX).map_err(|e| invalid("room", e))?;
        check_event(self.event.as_str())?;
        self.payload.check(payload_bytes_max, PAYLOAD_DEPTH_MAX)?;
        bounded(
            "idempotency_key",
            self.idempotency_key.as_bytes().len(),
            IDEMPOTENCY_KEY_BYTES_MAX,
        )?;
        bounded_count("exclude", self.exclude.len(), EXCLUDE_MAX)
    }
}

impl From<wire::Publish> for Publish {
    fn from(publish: wire::Publish) -> Self {
        use wire::publish::Payload as P;
        Self {
            room: publish.room.into(),
            event: publish.event.into(),
            payload: match publish.payload {
                None => Payload::NULL,
                Some(P::Json(json)) => Payload::Json(json),
                Some(P::Text(text)) => Payload::Text(text.into()),
                Some(P::Binary(binary)) => Payload::Binary(binary),
            },
            idempotency_key: publish.idempotency_key.into(),
            exclude_sender: publish.exclude_sender,
            exclude: publish.exclude.into_iter().map(ConnectionId).collect(),
            want_receivers: publish.want_receivers,
        }
    }
}

/// Numbers of the schema that are read by hand.
mod field {
    pub(super) const FRAME_ID: u32 = 1;
    pub(super) const FRAME_PUBLISH: u32 = 5;
    pub(super) const ROOM: u32 = 1;
    pub(super) const EVENT: u32 = 2;
    pub(super) const JSON: u32 = 3;
    pub(super) const TEXT: u32 = 4;
    pub(super) const BINARY: u32 = 5;
    pub(super) const IDEMPOTENCY_KEY: u32 = 6;
    pub(super) const EXCLUDE_SENDER: u32 = 7;
    pub(super) const EXCLUDE: u32 = 8;
    pub(super) const WANT_RECEIVERS: u32 = 9;
}

/// The publish in a frame that holds an id and one publish and nothing else; `None` leaves the frame to the generated types.
fn decode_publish(frame: &Bytes) -> Result<Option<(u32, Publish)>, DecodeError> {
    let (mut id, mut publish) = (0, None);
    let mut reader = Reader::new(frame);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            // Protobuf keeps the low 32 bits of a longer number, and so do the generated types.
            (field::FRAME_ID, Value::Varint(value)) => id = value as u32,
            (field::FRAME_PUBLISH, Value::Bytes(message)) if publish.is_none() => publish = Some(message),
            _ => return Ok(None),
        }
    }
    let Some(message) = publish else { return Ok(None) };
    let mut publish = Publish {
        room: Text::default(),
        event: Text::default(),
        payload: Payload::NULL,
        idempotency_key: Text::default(),
        exclude_sender: false,
        exclude: Vec::new(),
        want_receivers: false,
    };
    let mut reader = Reader::new(&message);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (field::ROOM, Value::Bytes(room)) => publish.room = Text::new(room)?,
            (field::EVENT, Value::Bytes(event)) => publish.event = Text::new(event)?,
            (field::JSON, Value::Bytes(json)) => publish.payload = Payload::Json(json),
            (field::TEXT, Value::Bytes(text)) => publish.payload = Payload::Text(Text::new(text)?.0),
            (field::BINARY, Value::Bytes(binary)) => publish.payload = Payload::Binary(binary),
            (field::IDEMPOTENCY_KEY, Value::Bytes(key)) => publish.idempotency_key = Text::new(key)?,
            (field::EXCLUDE_SENDER, Value::Varint(value)) => publish.exclude_sender = value != 0,
            (field::WANT_RECEIVERS, Value::Varint(value)) => publish.want_receivers = value != 0,
            (field::EXCLUDE, Value::Varint(value)) => exclude(&mut publish, value),
            (field::EXCLUDE, Value::Bytes(packed)) => {
                let mut rest = &packed[..];
                while !rest.is_empty() {
                    let (value, len) = crate::varint::peek(rest)?.ok_or(DecodeError::Truncated)?;
                    exclude(&mut publish, value);
                    rest = &rest[len..];
                }
            }
            // Rare and legal: the generated types know where it ends.
            (_, Value::Group) => return Ok(None),
            // A known field in another encoding is not our schema.
            (field::ROOM..=field::WANT_RECEIVERS, _) => return Err(DecodeError::Protobuf),
            _ => {}
        }
    }
    Ok(Some((id, publish)))
}

/// Keeps one more than allowed, so that the check sees the excess and a frame full of numbers costs no memory.
fn exclude(publish: &mut Publish, connection: u64) {
    if publish.exclude.len() <= EXCLUDE_MAX {
        publish.exclude.push(ConnectionId(connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::varint;
    use proptest::prelude::*;

    fn wire_publish() -> impl Strategy<Value = wire::Publish> {
        use wire::publish::Payload as P;
        let payload = prop_oneof![
            Just(None),
            "[a-z0-9]{0,50}".prop_map(|s| Some(P::Json(format!("{s:?}").into()))),
            any::<String>().prop_map(|s| Some(P::Text(s))),
            prop::collection::vec(any::<u8>(), 0..100).prop_map(|b| Some(P::Binary(b.into()))),
        ];
        (
            "[ -~é]{0,210}",
            "[a-z]{0,110}",
            payload,
            "[a-z]{0,140}",
            any::<[bool; 2]>(),
            prop::collection::vec(any::<u64>(), 0..70),
        )
            .prop_map(
                |(room, event, payload, idempotency_key, [exclude_sender, want_receivers], exclude)| {
                    wire::Publish {
                        room,
                        event,
                        payload,
                        idempotency_key,
                        exclude_sender,
                        exclude,
                        want_receivers,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn publish_read_by_hand_is_what_the_generated_types_read(id: u32, publish in wire_publish()) {
            let expected = check(
                wire::ClientFrame { id, request: Some(wire::client_frame::Request::Publish(publish.clone())) },
                80,
            );
            let frame = wire::ClientFrame { id, request: Some(wire::client_frame::Request::Publish(publish)) };
            let bytes = Bytes::from(frame.encode_to_vec());
            prop_assert!(decode_publish(&bytes).unwrap().is_some());
            prop_assert_eq!(decode_proto(&bytes, 80), Ok(expected));
        }

        #[test]
        fn bytes_that_one_reading_refuses_the_other_refuses_too(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = Bytes::from(bytes);
            let generated = wire::ClientFrame::decode(bytes.clone());
            match decode_publish(&bytes) {
                Ok(Some(_)) => prop_assert!(generated.is_ok()),
                Ok(None) => {}
                Err(_) => prop_assert!(generated.is_err()),
            }
        }

        #[test]
        fn json_says_the_same_as_protobuf(id: u32, publish in wire_publish()) {
            let frame = wire::ClientFrame { id, request: Some(wire::client_frame::Request::Publish(publish)) };
            let text = json::encode_client(&frame);
            prop_assert_eq!(json::decode_client(text.as_bytes()).unwrap(), frame);
        }

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
    fn a_frame_full_of_excluded_connections_is_refused_without_keeping_them() {
        let mut publish = vec![0x0a, 1, b'a', 0x12, 1, b'e', 0x42];
        varint::put(&mut publish, 60_000);
        publish.resize(publish.len() + 60_000, 1);
        let mut frame = vec![0x08, 7, 0x2a];
        varint::put(&mut frame, publish.len() as u64);
        frame.extend_from_slice(&publish);
        let frame = Bytes::from(frame);
        let (_, publish) = decode_publish(&frame).unwrap().unwrap();
        assert_eq!(publish.exclude.len(), EXCLUDE_MAX + 1);
        let rejected = decode_proto(&frame, 100).unwrap().unwrap_err();
        assert_eq!((rejected.id, rejected.refusal.code), (7, Code::TooLarge));
    }

    #[test]
    fn an_unknown_group_is_skipped_like_any_unknown_field() {
        // Field 20 as a group around field 21 = 1, within a publish to room "a" with event "e" and text "t".
        let publish = [
            0x0a, 1, b'a', 0x12, 1, b'e', 0x22, 1, b't', 0xa3, 1, 0xa8, 1, 1, 0xa4, 1,
        ];
        let mut frame = vec![0x08, 7, 0x2a, publish.len() as u8];
        frame.extend_from_slice(&publish);
        let message = decode_proto(&frame.into(), 100).unwrap().unwrap();
        let Request::Publish(publish) = message.request else {
            panic!("not a publish")
        };
        assert_eq!(
            (message.id, publish.room.as_str(), publish.event.as_str()),
            (7, "a", "e")
        );
    }

    #[test]
    fn a_field_number_beyond_protobuf_is_refused_by_both_readings() {
        let frame = Bytes::from_static(&[0x2a, 6, 0x80, 0x80, 0x80, 0x80, 0x10, 0]);
        assert_eq!(decode_publish(&frame), Err(DecodeError::Key));
        assert!(wire::ClientFrame::decode(frame).is_err());
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
