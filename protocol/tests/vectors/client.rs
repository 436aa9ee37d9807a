//! What clients say: the frames whose bytes every SDK must write, and the broker read.

use cauce_protocol::limits::{EVENT_BYTES_MAX, EXCLUDE_MAX, IDEMPOTENCY_KEY_BYTES_MAX, NAME_BYTES_MAX};
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::{self, publish, send};

/// One frame and what it means.
pub(crate) struct Said {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) frame: wire::ClientFrame,
}

fn said(name: &'static str, meaning: &'static str, id: u32, request: Request) -> Said {
    Said {
        name,
        meaning,
        frame: wire::ClientFrame {
            id,
            request: Some(request),
        },
    }
}

fn publish(payload: Option<publish::Payload>) -> wire::Publish {
    wire::Publish {
        room: "orders".into(),
        event: "order_created".into(),
        payload,
        ..wire::Publish::default()
    }
}

fn send(to: send::To, payload: Option<send::Payload>) -> wire::Send {
    wire::Send {
        to: Some(to),
        event: "notification".into(),
        payload,
        ..wire::Send::default()
    }
}

/// The files, by the name of their message.
pub(crate) fn files() -> Vec<(&'static str, Vec<Said>)> {
    vec![
        ("hello", hello()),
        ("subscribe", subscribe()),
        ("unsubscribe", unsubscribe()),
        ("publish", publishes()),
        ("send", sends()),
        ("call", calls()),
        ("ping", ping()),
    ]
}

fn hello() -> Vec<Said> {
    let hello = |token: &str, client: &str, features| {
        Request::Hello(wire::Hello {
            version: 1,
            features,
            token: token.into(),
            client: client.into(),
            previous: Vec::new(),
        })
    };
    vec![
        said(
            "with_token",
            "Version 1, the token in the frame, Advance is understood. The token is cut short to stay readable.",
            1,
            hello(
                "eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
                "cauce-js/0.1.0",
                wire::Feature::Advance as u64,
            ),
        ),
        said(
            "token_came_with_the_handshake",
            "Hello without a token, to offer features and give a name.",
            1,
            hello("", "cauce-rust/0.1.0", wire::Feature::Advance as u64),
        ),
        said(
            "unknown_features",
            "Bits that no broker knows yet, up to the highest that JavaScript reads exactly; the answer leaves them out.",
            2,
            hello("", "", (1 << 52) | 1),
        ),
    ]
}

fn subscribe() -> Vec<Said> {
    let subscribe = |rooms: &[&str]| {
        Request::Subscribe(wire::Subscribe {
            rooms: rooms.iter().map(|&r| r.into()).collect(),
            ..wire::Subscribe::default()
        })
    };
    let longest = "r".repeat(NAME_BYTES_MAX);
    vec![
        said("one_room", "Join one room.", 2, subscribe(&["orders"])),
        said(
            "several_rooms",
            "Join three rooms at once, one of them the broker's own.",
            3,
            subscribe(&["orders", "chat:lobby", "$devices"]),
        ),
        said(
            "unicode_names",
            "Names of two, three and four bytes a character, in normal form C; a blank inside is allowed.",
            4,
            subscribe(&["Büro 3", "日本語", "salón 🌊"]),
        ),
        said(
            "longest_name",
            "A name at the limit of 200 bytes.",
            5,
            subscribe(&[&longest]),
        ),
        said(
            "largest_id",
            "The highest request id, five bytes as a varint.",
            u32::MAX,
            subscribe(&["orders"]),
        ),
    ]
}

fn unsubscribe() -> Vec<Said> {
    let unsubscribe = |rooms: &[&str]| {
        Request::Unsubscribe(wire::Unsubscribe {
            rooms: rooms.iter().map(|&r| r.into()).collect(),
        })
    };
    vec![
        said("one_room", "Leave one room.", 6, unsubscribe(&["orders"])),
        said(
            "without_answer",
            "Leave two rooms and ask for no answer: id 0 is not written.",
            0,
            unsubscribe(&["orders", "Büro 3"]),
        ),
    ]
}

fn publishes() -> Vec<Said> {
    use publish::Payload;
    let request = |publish| Request::Publish(publish);
    vec![
        said(
            "json_payload",
            "The usual publish: an event with a JSON object.",
            7,
            request(publish(Some(Payload::Json(r#"{"id":42,"total":19.5}"#.into())))),
        ),
        said(
            "json_null",
            "JSON null is a payload like any other.",
            8,
            request(publish(Some(Payload::Json("null".into())))),
        ),
        said(
            "no_payload",
            "No payload at all; subscribers get JSON null.",
            9,
            request(publish(None)),
        ),
        said(
            "text_payload",
            "Plain text, not JSON.",
            10,
            request(publish(Some(Payload::Text("línea 1\n\"línea 2\" 🌊".into())))),
        ),
        said(
            "empty_text",
            "An empty text is a payload: its field is written with length 0.",
            11,
            request(publish(Some(Payload::Text(String::new())))),
        ),
        said(
            "binary_payload",
            "Bytes; base64 with padding in JSON.",
            12,
            request(publish(Some(Payload::Binary(
                vec![0x00, 0xff, 0x80, 0x7f].into(),
            )))),
        ),
        said(
            "empty_binary",
            "No bytes, but a binary payload.",
            13,
            request(publish(Some(Payload::Binary(Vec::new().into())))),
        ),
        said(
            "all_options",
            "A repeat is harmless, the sender and three connections are left out, and the receivers are counted. The list is packed.",
            14,
            request(wire::Publish {
                idempotency_key: "7f8f2a6e-2f0b-4b1e-9d5c-0f6a1c7f3f11".into(),
                exclude_sender: true,
                exclude: vec![1, 300, 9_007_199_254_740_991],
                want_receivers: true,
                ..publish(Some(Payload::Json("[1,2,3]".into())))
            }),
        ),
        said(
            "unicode_names",
            "Room and event outside ASCII.",
            15,
            request(wire::Publish {
                room: "日本語".into(),
                event: "café_abierto".into(),
                ..publish(Some(Payload::Json(r#"{"naïve":"é🌊"}"#.into())))
            }),
        ),
        said(
            "everything_at_its_limit",
            "Room of 200 bytes, event of 100, key of 128, 64 excluded connections.",
            16,
            request(wire::Publish {
                room: "r".repeat(NAME_BYTES_MAX),
                event: "e".repeat(EVENT_BYTES_MAX),
                idempotency_key: "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX),
                exclude: (1..=EXCLUDE_MAX as u64).collect(),
                ..publish(Some(Payload::Json("0".into())))
            }),
        ),
        said(
            "deepest_json",
            "JSON nested 16 deep, the limit.",
            17,
            request(publish(Some(Payload::Json(
                format!("{}{}", "[".repeat(16), "]".repeat(16)).into(),
            )))),
        ),
        said(
            "without_answer",
            "Fire and forget: id 0.",
            0,
            request(publish(Some(Payload::Json("true".into())))),
        ),
    ]
}

fn sends() -> Vec<Said> {
    use send::{Payload, To};
    vec![
        said(
            "to_user",
            "To all connections of one user.",
            18,
            Request::Send(send(
                To::User("ana".into()),
                Some(Payload::Json(r#"{"title":"Hola","type":"INFO"}"#.into())),
            )),
        ),
        said(
            "to_connection",
            "To one connection, as text.",
            19,
            Request::Send(send(
                To::Connection(4_294_967_296),
                Some(Payload::Text("hola".into())),
            )),
        ),
        said(
            "to_role",
            "To everyone with a role, as bytes, not to the sender nor to connection 12.",
            20,
            Request::Send(wire::Send {
                exclude_sender: true,
                exclude: vec![12],
                ..send(
                    To::Role("staff".into()),
                    Some(Payload::Binary(vec![1, 2, 3].into())),
                )
            }),
        ),
        said(
            "to_tenant",
            "To everyone in the sender's tenant, without payload.",
            21,
            Request::Send(send(To::Tenant(true), None)),
        ),
    ]
}

fn calls() -> Vec<Said> {
    vec![
        said(
            "switch_on",
            "A command to a plug, answered with the plug's own words within three seconds.",
            22,
            Request::Call(wire::Call {
                device: "8CBFEAA133F0".into(),
                method: "Switch.Set".into(),
                params: r#"{"id":0,"on":true}"#.into(),
                timeout_ms: 3000,
                retry: false,
            }),
        ),
        said(
            "without_parameters",
            "No parameters and the broker's own time limit.",
            23,
            Request::Call(wire::Call {
                device: "8CBFEAA133F0".into(),
                method: "Shelly.GetStatus".into(),
                ..wire::Call::default()
            }),
        ),
    ]
}

fn ping() -> Vec<Said> {
    vec![said(
        "ping",
        "Are you there? An empty message.",
        24,
        Request::Ping(wire::Ping {}),
    )]
}
