//! What the broker says: the frames that every SDK must read. Pushes and direct messages come from the writers that the
//! broker uses for them, not from the generated types.

use bytes::{Bytes, BytesMut};
use cauce_protocol::ids::{RoomId, Seq};
use cauce_protocol::server::{self, Dialect, Direct, Push};
use cauce_protocol::wire::{self, server_frame::Message};
use cauce_protocol::{Code, Payload, Refusal};

/// One frame in both dialects, and what it means.
pub(crate) struct Said {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) bytes: Bytes,
    pub(crate) json: String,
}

fn said(name: &'static str, meaning: &'static str, frame: &wire::ServerFrame) -> Said {
    let json = server::encode(frame, Dialect::Json);
    Said {
        name,
        meaning,
        bytes: server::encode(frame, Dialect::Proto),
        json: String::from_utf8(json.into()).expect("JSON is UTF-8"),
    }
}

/// The files, by the name of their message. Replies have a file for each outcome.
pub(crate) fn files() -> Vec<(&'static str, Vec<Said>)> {
    vec![
        ("push", pushes()),
        ("direct", directs()),
        ("advance", advance()),
        ("goaway", goaway()),
        ("reply-error", errors()),
        ("reply-welcome", welcome()),
        ("reply-subscribed", subscribed()),
        ("reply-unsubscribed", unsubscribed()),
        ("reply-published", published()),
        ("reply-sent", sent()),
        ("reply-answer", answer()),
        ("reply-pong", pong()),
    ]
}

fn json(text: &'static str) -> Payload {
    Payload::Json(Bytes::from_static(text.as_bytes()))
}

fn pushes() -> Vec<Said> {
    let push = |name, meaning, room, seq, event: &str, payload: Payload| {
        let push = Push {
            room: RoomId(room),
            seq: Seq(seq),
            event,
            payload: &payload,
            key: "",
        };
        let mut bytes = BytesMut::with_capacity(push.len());
        push.put(&mut bytes);
        Said {
            name,
            meaning,
            bytes: bytes.freeze(),
            json: push.to_json(),
        }
    };
    vec![
        push(
            "json_payload",
            "Message 1 of room 1, an event with a JSON object.",
            1,
            1,
            "order_created",
            json(r#"{"id":42,"total":19.5}"#),
        ),
        push(
            "json_null",
            "What a publish without payload becomes.",
            1,
            2,
            "order_created",
            Payload::NULL,
        ),
        push(
            "text_payload",
            "Text with a line break, quotes and four-byte characters.",
            1,
            3,
            "chat",
            Payload::Text("línea 1\n\"línea 2\" 🌊".into()),
        ),
        push(
            "empty_text",
            "An empty text, not an absent one.",
            1,
            4,
            "chat",
            Payload::Text(Bytes::new()),
        ),
        push(
            "binary_payload",
            "Bytes; base64 with padding in JSON.",
            1,
            5,
            "blob",
            Payload::Binary(Bytes::from_static(&[0x00, 0xff, 0x80, 0x7f])),
        ),
        push(
            "empty_binary",
            "No bytes, but a binary payload.",
            1,
            6,
            "blob",
            Payload::Binary(Bytes::new()),
        ),
        push(
            "lengths_of_two_bytes",
            "Event and payload of 100 and 130 bytes: the outer lengths take two bytes each.",
            300,
            16_384,
            &"e".repeat(100),
            Payload::Text("t".repeat(130).into()),
        ),
        push(
            "largest_numbers",
            "Room and sequence at 2^53 - 1, the highest that will ever be sent.",
            9_007_199_254_740_991,
            9_007_199_254_740_991,
            "café_abierto",
            json("[]"),
        ),
    ]
}

fn directs() -> Vec<Said> {
    let direct = |name, meaning, event, payload: Payload| {
        let direct = Direct {
            event,
            payload: &payload,
        };
        let mut bytes = BytesMut::with_capacity(direct.len());
        direct.put(&mut bytes);
        Said {
            name,
            meaning,
            bytes: bytes.freeze(),
            json: direct.to_json(),
        }
    };
    vec![
        direct(
            "json_payload",
            "A message to this user, connection, role or tenant; it has no room and no sequence.",
            "notification",
            json(r#"{"title":"Hola","type":"INFO"}"#),
        ),
        direct(
            "text_payload",
            "The same with text.",
            "notification",
            Payload::Text("hola".into()),
        ),
        direct(
            "binary_payload",
            "The same with bytes.",
            "notification",
            Payload::Binary(Bytes::from_static(&[1, 2, 3])),
        ),
    ]
}

fn advance() -> Vec<Said> {
    vec![said(
        "advance",
        "Room 1 is at 7; what lies between was not for this connection.",
        &server::advance(RoomId(1), Seq(7)),
    )]
}

fn goaway() -> Vec<Said> {
    vec![
        said(
            "stopping",
            "The broker stops; come back after two seconds. A close with code 4000 follows.",
            &server::goaway(&Refusal::new(Code::GoingAway, "the broker is stopping").retry_after(2000)),
        ),
        said(
            "expired",
            "The token's time is over. A close with code 4201 follows.",
            &server::goaway(&Refusal::new(
                Code::TokenExpired,
                "the token has expired; bring a new one",
            )),
        ),
    ]
}

fn errors() -> Vec<Said> {
    let error = |refusal: &Refusal, id| server::reply(id, refusal);
    vec![
        said(
            "forbidden",
            "Request 7 is refused for good.",
            &error(
                &Refusal::new(
                    Code::Forbidden,
                    "the token lacks the right to publish to this room",
                ),
                7,
            ),
        ),
        said(
            "rate_limited",
            "Request 8 is refused for now: not before 250 ms have passed.",
            &error(
                &Refusal::new(Code::RateLimited, "more requests than this connection may send")
                    .retry_after(250),
                8,
            ),
        ),
        said(
            "of_a_later_version",
            "A code that no client knows yet: its range (4100 to 4199) says that it may be tried later.",
            &server::reply(
                9,
                wire::reply::Outcome::Error(wire::Error {
                    code: 4199,
                    name: "moon_in_the_wrong_phase".into(),
                    message: "wait".into(),
                    retryable: true,
                    retry_after_ms: 1000,
                }),
            ),
        ),
        said(
            "without_id",
            "A request with id 0 asked for no answer and failed: it is told under id 0.",
            &error(&Refusal::new(Code::Invalid, "event is empty"), 0),
        ),
    ]
}

fn welcome() -> Vec<Said> {
    let limits = wire::Limits {
        frame_bytes: 65_536,
        payload_bytes: 61_440,
        payload_depth: 16,
        room_name_bytes: 200,
        event_name_bytes: 100,
        subscriptions: 128,
        rooms_a_request: 128,
        exclude: 64,
        requests_per_second: 100,
        requests_burst: 200,
    };
    vec![
        said(
            "after_hello",
            "Connection 42 of user ana in tenant default; Advance is in use; a ping every 30 s; the token lasts an hour.",
            &server::reply(
                1,
                wire::Welcome {
                    connection: 42,
                    version: 1,
                    features: wire::Feature::Advance as u64,
                    tenant: "default".into(),
                    user: "ana".into(),
                    heartbeat_ms: 30_000,
                    expires_in_ms: 3_600_000,
                    limits: Some(limits),
                },
            ),
        ),
        said(
            "token_came_with_the_handshake",
            "Unasked, so under id 0: no feature was offered, the token never expires.",
            &server::reply(
                0,
                wire::Welcome {
                    connection: 43,
                    version: 1,
                    features: 0,
                    tenant: "default".into(),
                    user: "ana".into(),
                    heartbeat_ms: 30_000,
                    expires_in_ms: 0,
                    limits: Some(limits),
                },
            ),
        ),
    ]
}

fn subscribed() -> Vec<Said> {
    let position = |name: &str, room, seq| wire::RoomPosition {
        name: name.into(),
        room,
        epoch: 1_764_000_000,
        seq,
        ..wire::RoomPosition::default()
    };
    vec![
        said(
            "empty_room",
            "Nothing was said in the room yet: the first push will carry 1.",
            &server::reply(
                2,
                wire::Subscribed {
                    rooms: vec![position("orders", 1, 0)],
                },
            ),
        ),
        said(
            "several_rooms",
            "One entry a room, in the order of the request.",
            &server::reply(
                3,
                wire::Subscribed {
                    rooms: vec![
                        position("orders", 1, 17),
                        position("Büro 3", 2, 0),
                        position("$devices", 3, 4_294_967_296),
                    ],
                },
            ),
        ),
    ]
}

fn unsubscribed() -> Vec<Said> {
    vec![said(
        "unsubscribed",
        "Done. An empty message.",
        &server::reply(6, wire::Unsubscribed {}),
    )]
}

fn published() -> Vec<Said> {
    let published = |seq, receivers, repeated| wire::Published {
        epoch: 1_764_000_000,
        seq,
        receivers,
        repeated,
        ..wire::Published::default()
    };
    vec![
        said(
            "published",
            "It became message 18 of the room.",
            &server::reply(7, published(18, 0, false)),
        ),
        said(
            "with_receivers",
            "As asked, the subscribers were counted.",
            &server::reply(14, published(19, 250, false)),
        ),
        said(
            "repeated",
            "The key was known: the answer of the first time, nothing was sent again.",
            &server::reply(15, published(19, 250, true)),
        ),
    ]
}

fn sent() -> Vec<Said> {
    vec![said(
        "sent",
        "Handed over to whoever was connected. An empty message.",
        &server::reply(18, wire::Sent {}),
    )]
}

fn answer() -> Vec<Said> {
    vec![said(
        "switched",
        "What the plug answered, untouched.",
        &server::reply(
            22,
            wire::Answer {
                json: Bytes::from_static(br#"{"was_on":false}"#),
            },
        ),
    )]
}

fn pong() -> Vec<Said> {
    vec![said(
        "pong",
        "The broker's clock, in milliseconds since 1970.",
        &server::reply(
            24,
            wire::Pong {
                unix_ms: 1_764_000_000_123,
            },
        ),
    )]
}

/// Every frame of the schema has a file: this fails to compile when a variant is added, which is the moment to write its vector.
pub(crate) fn file_of(frame: &wire::ServerFrame) -> &'static str {
    use wire::reply::Outcome;
    match frame.message.as_ref().expect("a vector has a message") {
        Message::Push(_) => "push",
        Message::Direct(_) => "direct",
        Message::Advance(_) => "advance",
        Message::Goaway(_) => "goaway",
        Message::Gap(_) => "gap",
        Message::Ended(_) => "ended",
        Message::PresenceChange(_) => "presence-change",
        Message::Invoke(_) => "invoke",
        Message::Revoke(_) => "revoke",
        Message::Notification(_) => "notification",
        Message::NotificationsRead(_) => "notifications-read",
        Message::State(_) => "state",
        Message::Reply(reply) => match reply.outcome.as_ref().expect("a vector has an outcome") {
            Outcome::Error(_) => "reply-error",
            Outcome::Welcome(_) => "reply-welcome",
            Outcome::Subscribed(_) => "reply-subscribed",
            Outcome::Unsubscribed(_) => "reply-unsubscribed",
            Outcome::Published(_) => "reply-published",
            Outcome::Sent(_) => "reply-sent",
            Outcome::Answer(_) => "reply-answer",
            Outcome::Pong(_) => "reply-pong",
            Outcome::Refreshed(_) => "reply-refreshed",
            Outcome::HistoryPage(_) => "reply-history-page",
            Outcome::PresencePage(_) => "reply-presence-page",
            Outcome::Done(_) => "reply-done",
            Outcome::Notified(_) => "reply-notified",
            Outcome::NotificationPage(_) => "reply-notification-page",
            Outcome::NotificationsRead(_) => "reply-notifications-read",
        },
    }
}
