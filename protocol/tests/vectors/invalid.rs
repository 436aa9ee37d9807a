//! Messages that a broker must refuse: with which code, and whether the connection lives on.

mod requests;

use cauce_protocol::frame::Frames;
use cauce_protocol::message::{decode_json, decode_proto};
use cauce_protocol::wire::{self, client_frame::Request, publish, send};
use cauce_protocol::{Code, Rejected};
use prost::Message as _;

/// Limits under which the vectors hold: smaller than the defaults, so that the vectors stay small too.
pub(crate) const FRAME_BYTES_MAX: usize = 4096;
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1024;

/// A WebSocket message as it arrives.
pub(crate) enum Message {
    Binary(Vec<u8>),
    Text(String),
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A reply with this id and code; the connection lives on.
    Refused { id: u32, code: Code },
    /// A goaway where possible and a close, both with this code.
    Closed { code: Code },
}

pub(crate) struct Refused {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) message: Message,
    pub(crate) fate: Fate,
}

/// What this crate makes of a message: the first fault in it.
pub(crate) fn fate(message: &Message) -> Option<Fate> {
    let judge = |decoded| match decoded {
        Ok(Ok(_)) => None,
        Ok(Err(Rejected { id, refusal })) => Some(Fate::Refused {
            id,
            code: refusal.code,
        }),
        Err(error) => Some(closed_by(error)),
    };
    match message {
        Message::Text(text) => judge(decode_json(text.as_bytes(), PAYLOAD_BYTES_MAX)),
        Message::Binary(bytes) => Frames::new(bytes.clone().into(), FRAME_BYTES_MAX)
            .find_map(|frame| judge(frame.and_then(|frame| decode_proto(&frame, PAYLOAD_BYTES_MAX)))),
    }
}

fn closed_by(error: cauce_protocol::DecodeError) -> Fate {
    Fate::Closed { code: error.code() }
}

const ID: u32 = 7;

fn refused(code: Code) -> Fate {
    Fate::Refused { id: ID, code }
}

fn closed(code: Code) -> Fate {
    Fate::Closed { code }
}

fn bytes(name: &'static str, meaning: &'static str, bytes: &[u8], fate: Fate) -> Refused {
    Refused {
        name,
        meaning,
        message: Message::Binary(bytes.to_vec()),
        fate,
    }
}

fn text(name: &'static str, meaning: &'static str, text: &str, fate: Fate) -> Refused {
    Refused {
        name,
        meaning,
        message: Message::Text(text.into()),
        fate,
    }
}

/// A well-formed frame that asks for what is not allowed.
fn request(name: &'static str, meaning: &'static str, request: Request, code: Code) -> Refused {
    let frame = wire::ClientFrame {
        id: ID,
        request: Some(request),
    };
    bytes(
        name,
        meaning,
        &frame.encode_length_delimited_to_vec(),
        refused(code),
    )
}

fn subscribe(rooms: &[&str]) -> Request {
    Request::Subscribe(wire::Subscribe {
        rooms: rooms.iter().map(|&r| r.into()).collect(),
        ..wire::Subscribe::default()
    })
}

fn publish() -> wire::Publish {
    wire::Publish {
        room: "orders".into(),
        event: "order_created".into(),
        ..wire::Publish::default()
    }
}

fn call(method: &str, params: &'static str) -> Request {
    Request::Call(wire::Call {
        device: "8CBFEAA133F0".into(),
        method: method.into(),
        params: params.into(),
        ..wire::Call::default()
    })
}

pub(crate) fn all() -> Vec<Refused> {
    let mut all = broken_bytes();
    all.extend(broken_texts());
    all.extend(unknown());
    all.extend(names());
    all.extend(sizes());
    all.extend(values());
    all.extend(requests::all());
    all
}

/// Nobody can tell where the next frame begins, or the peer does not speak this protocol.
fn broken_bytes() -> Vec<Refused> {
    let malformed = || closed(Code::Malformed);
    vec![
        bytes(
            "length_past_the_end",
            "A frame of five bytes, of which one is there.",
            &[5, 0x08],
            malformed(),
        ),
        bytes(
            "length_cut_off",
            "The length itself goes on past the end.",
            &[0x80],
            malformed(),
        ),
        bytes(
            "length_of_more_than_64_bits",
            "Ten bytes that all say: more follows.",
            &[0xff; 10],
            malformed(),
        ),
        bytes(
            "field_zero",
            "Protobuf has no field 0.",
            &[2, 0x00, 0x00],
            malformed(),
        ),
        bytes(
            "end_of_a_group_that_never_began",
            "Wire type 4 on its own.",
            &[1, 0x9c],
            malformed(),
        ),
        bytes(
            "known_field_in_another_encoding",
            "The id as bytes instead of a number.",
            &[3, 0x0a, 1, 7],
            malformed(),
        ),
        bytes(
            "inner_length_past_the_end",
            "A publish of ten bytes, of which two are there.",
            &[4, 0x2a, 10, 0x0a, 0],
            malformed(),
        ),
        bytes(
            "room_is_not_utf8",
            "A publish to a room named by the byte ff.",
            &[5, 0x2a, 3, 0x0a, 1, 0xff],
            malformed(),
        ),
        bytes(
            "good_frame_then_garbage",
            "A ping without id, then a frame that is cut off: the ping counts, the connection ends.",
            &[2, 0x42, 0, 9, 0x08],
            malformed(),
        ),
        bytes(
            "frame_too_large",
            "A length of 4097, refused before its bytes arrive.",
            &[0x81, 0x20],
            closed(Code::TooLarge),
        ),
        bytes(
            "too_many_frames",
            "1025 pings in one WebSocket message, where 1024 frames are allowed.",
            &[2, 0x42, 0].repeat(1025),
            closed(Code::TooLarge),
        ),
    ]
}

fn broken_texts() -> Vec<Refused> {
    [
        ("json_empty", "Nothing at all.", ""),
        ("json_array", "An array is not a frame.", "[]"),
        ("json_cut_off", "Half an object.", r#"{"id":7,"ping":{"#),
        (
            "json_two_texts",
            "Two objects in one message: JSON has one frame a message.",
            r#"{"id":7,"ping":{}}{"id":8,"ping":{}}"#,
        ),
        (
            "json_two_requests",
            "Which of them has the id?",
            r#"{"id":7,"ping":{},"subscribe":{"rooms":["a"]}}"#,
        ),
        (
            "json_same_field_twice",
            "Which of them counts?",
            r#"{"id":7,"id":8,"ping":{}}"#,
        ),
        (
            "json_two_payloads",
            "json or text, not both.",
            r#"{"id":7,"publish":{"room":"orders","event":"e","json":1,"text":"a"}}"#,
        ),
        (
            "json_two_recipients",
            "A user or a role, not both.",
            r#"{"id":7,"send":{"user":"ana","role":"staff","event":"e"}}"#,
        ),
        ("json_id_is_text", "An id is a number.", r#"{"id":"7","ping":{}}"#),
        (
            "json_id_is_negative",
            "An id is 0 or more.",
            r#"{"id":-1,"ping":{}}"#,
        ),
        (
            "json_id_of_more_than_32_bits",
            "An id is below 2^32.",
            r#"{"id":4294967296,"ping":{}}"#,
        ),
        (
            "json_binary_is_not_base64",
            "Standard alphabet with padding is asked for.",
            r#"{"id":7,"publish":{"room":"orders","event":"e","binary":"a_b"}}"#,
        ),
    ]
    .map(|(name, meaning, json)| text(name, meaning, json, closed(Code::Malformed)))
    .into()
}

/// A later version's requests fail alone.
fn unknown() -> Vec<Refused> {
    vec![
        bytes(
            "unknown_request",
            "Field 99 in the place of a request.",
            &[5, 0x08, 7, 0x9a, 0x06, 0],
            refused(Code::Unsupported),
        ),
        bytes(
            "no_request",
            "An id and nothing else.",
            &[2, 0x08, 7],
            refused(Code::Unsupported),
        ),
        bytes(
            "empty_frame",
            "A frame of no bytes: no id, no request.",
            &[0],
            Fate::Refused {
                id: 0,
                code: Code::Unsupported,
            },
        ),
        text(
            "json_unknown_request",
            "A request that this version does not have.",
            r#"{"id":7,"levitate":{}}"#,
            refused(Code::Unsupported),
        ),
        text(
            "json_null_request",
            "null is an absent request.",
            r#"{"id":7,"ping":null}"#,
            refused(Code::Unsupported),
        ),
    ]
}

fn names() -> Vec<Refused> {
    let invalid = |name, meaning, room: &str| request(name, meaning, subscribe(&[room]), Code::Invalid);
    vec![
        invalid("room_empty", "A room without a name.", ""),
        invalid("room_with_control_character", "A line break in a name.", "a\nb"),
        invalid("room_with_nul", "A zero byte in a name.", "a\0b"),
        invalid(
            "room_written_right_to_left",
            "U+202E would make two names look alike.",
            "a\u{202e}b",
        ),
        invalid(
            "room_with_invisible_character",
            "U+200B takes no space.",
            "a\u{200b}b",
        ),
        invalid("room_begins_with_blank", "A blank at an end.", " orders"),
        invalid(
            "room_not_normalized",
            "e and a combining accent instead of é.",
            "cafe\u{301}",
        ),
        request(
            "second_room_bad",
            "All or nothing: the first room is not joined either.",
            subscribe(&["orders", ""]),
            Code::Invalid,
        ),
        request(
            "event_empty",
            "A publish without an event.",
            Request::Publish(wire::Publish {
                event: String::new(),
                ..publish()
            }),
            Code::Invalid,
        ),
        text(
            "json_room_with_escape",
            "A control character hidden behind a JSON escape.",
            r#"{"id":7,"subscribe":{"rooms":["a\u0000"]}}"#,
            refused(Code::Invalid),
        ),
    ]
}

fn sizes() -> Vec<Refused> {
    let too_large =
        |name, meaning, publish| request(name, meaning, Request::Publish(publish), Code::TooLarge);
    vec![
        request(
            "room_name_too_long",
            "201 bytes, where 200 are allowed.",
            subscribe(&[&"r".repeat(201)]),
            Code::TooLarge,
        ),
        request(
            "room_name_too_long_in_bytes",
            "101 characters of two bytes: bytes count.",
            subscribe(&[&"é".repeat(101)]),
            Code::TooLarge,
        ),
        request(
            "too_many_rooms",
            "129 rooms in one request, where 128 are allowed.",
            subscribe(&["r"; 129]),
            Code::TooLarge,
        ),
        request(
            "client_name_too_long",
            "101 bytes, where 100 are allowed.",
            Request::Hello(wire::Hello {
                version: 1,
                client: "c".repeat(101),
                ..wire::Hello::default()
            }),
            Code::TooLarge,
        ),
        too_large(
            "event_name_too_long",
            "101 bytes, where 100 are allowed.",
            wire::Publish {
                event: "e".repeat(101),
                ..publish()
            },
        ),
        too_large(
            "idempotency_key_too_long",
            "129 bytes, where 128 are allowed.",
            wire::Publish {
                idempotency_key: "k".repeat(129),
                ..publish()
            },
        ),
        too_large(
            "exclude_too_long",
            "65 connections, where 64 are allowed.",
            wire::Publish {
                exclude: (1..=65).collect(),
                ..publish()
            },
        ),
        too_large(
            "payload_too_large",
            "1025 bytes, where this table allows 1024.",
            wire::Publish {
                payload: Some(publish::Payload::Binary(vec![0; 1025].into())),
                ..publish()
            },
        ),
        too_large(
            "json_payload_too_deep",
            "Nested 17 deep, where 16 are allowed.",
            wire::Publish {
                payload: Some(publish::Payload::Json(
                    format!("{}{}", "[".repeat(17), "]".repeat(17)).into(),
                )),
                ..publish()
            },
        ),
    ]
}

fn values() -> Vec<Refused> {
    let send = |to| {
        Request::Send(wire::Send {
            to,
            event: "notification".into(),
            ..wire::Send::default()
        })
    };
    let json = |json: &'static [u8]| {
        Request::Publish(wire::Publish {
            payload: Some(publish::Payload::Json(json.into())),
            ..publish()
        })
    };
    vec![
        request(
            "payload_is_not_json",
            "The frame is whole, its payload is not: only this request fails.",
            json(b"{\"id\":"),
            Code::Malformed,
        ),
        request(
            "json_payload_of_no_bytes",
            "Nothing is not JSON; leave the payload out instead.",
            json(b""),
            Code::Malformed,
        ),
        request(
            "json_payload_is_not_utf8",
            "A string with the byte ff.",
            json(b"\"\xff\""),
            Code::Malformed,
        ),
        request(
            "no_rooms",
            "A subscribe that names no room.",
            subscribe(&[]),
            Code::Invalid,
        ),
        request("send_to_nobody", "No recipient.", send(None), Code::Invalid),
        request(
            "send_to_no_tenant",
            "tenant is either true or left out.",
            send(Some(send::To::Tenant(false))),
            Code::Invalid,
        ),
        request("method_empty", "A call of nothing.", call("", ""), Code::Invalid),
        request(
            "method_with_blank",
            "Letters, digits, '.', '_' and '-' only.",
            call("Switch Set", ""),
            Code::Invalid,
        ),
        request(
            "params_not_an_object",
            "Parameters have names.",
            call("Switch.Set", "[0,true]"),
            Code::Invalid,
        ),
    ]
}
