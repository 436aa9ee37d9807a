//! What a client asks, checked. Whoever holds a [`ClientMessage`] may use every name, size and list in it without looking again;
//! rights and rates are the connection's business.
//!
//! Publish is the hot one and is read by hand, in `publish`. The others go through the generated types, after a walk over
//! their fields that bounds what those may allocate.

use bytes::Bytes;
use prost::Message as _;

use crate::code::{Code, Refusal};
use crate::frame::DecodeError;
use crate::ids::{self, NameError, RoomName};
use crate::json;
use crate::limits::{EVENT_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, INTEGER_MAX, KEY_BYTES_MAX};
use crate::publish;
pub use crate::publish::{Ack, Publish};
use crate::wire;

mod calls;
mod census;
mod notifications;
mod rooms;
mod send;
mod session;
mod text;

pub use calls::{Call, Callee, MethodPattern, Respond, Serve, check_method, check_params};
pub use notifications::{Audience, MarkRead, NotificationKind, Notifications, Notify, Priority};
pub use rooms::{Direction, Filter, History, Policy, Presence, Subscription, Watch};
pub use send::{Recipient, Send};
pub use session::{Hello, Secret};
pub use text::Text;

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
    if let Some(rejected) = census::too_many_fields(frame)? {
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
        Some(Wire::Hello(hello)) => session::check_hello(hello).map(Request::Hello),
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
        Some(Wire::Send(send)) => send::check_send(send, payload_bytes_max).map(Request::Send),
        Some(Wire::Call(call)) => calls::check_call(call, payload_bytes_max).map(Request::Call),
        Some(Wire::Ping(wire::Ping {})) => Ok(Request::Ping),
        Some(Wire::Refresh(refresh)) => session::check_refresh(refresh).map(Request::Refresh),
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

/// An event's name.
///
/// # Errors
/// `invalid` or `too_large`, with the reason.
pub fn check_event(event: &str) -> Result<(), Refusal> {
    ids::check(event, EVENT_BYTES_MAX).map_err(|e| invalid("event", e))
}

/// What a message is about within its event: like an event's name, but an empty one means none.
///
/// # Errors
/// `invalid` or `too_large`, with the reason.
pub fn check_key(key: &str) -> Result<(), Refusal> {
    match key {
        "" => Ok(()),
        key => ids::check(key, KEY_BYTES_MAX).map_err(|e| invalid("key", e)),
    }
}

/// An idempotency key; empty means none.
pub(crate) fn check_idempotency_key(key: &str) -> Result<(), Refusal> {
    bounded("idempotency_key", key.len(), IDEMPOTENCY_KEY_BYTES_MAX)?;
    storable("idempotency_key", key)
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

/// Ids, epochs and sequences, so that arithmetic and databases hold them.
pub(crate) fn whole(what: &str, number: u64) -> Result<u64, Refusal> {
    if number <= INTEGER_MAX {
        return Ok(number);
    }
    Err(Refusal::new(
        Code::Invalid,
        format!("{what} is beyond {INTEGER_MAX}, which none ever is"),
    ))
}

/// Text that may be stored: databases hold no U+0000.
pub(crate) fn storable(what: &str, text: &str) -> Result<(), Refusal> {
    if !text.contains('\0') {
        return Ok(());
    }
    Err(Refusal::new(Code::Invalid, format!("{what} holds U+0000")))
}

/// A choice that this version does not know.
pub(crate) fn unknown(what: &str) -> Refusal {
    Refusal::new(
        Code::Unsupported,
        format!("this broker does not know that {what}; upgrade it, or see docs/PROTOCOL.md"),
    )
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
    use crate::payload::Payload;
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
