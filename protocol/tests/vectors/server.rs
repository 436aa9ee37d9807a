//! What the broker says: the frames that every SDK must read. Pushes and direct messages come from the writers that the
//! broker uses for them, not from the generated types.

mod replies;

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
        ("reply-error", replies::errors()),
        ("reply-welcome", replies::welcome()),
        ("reply-subscribed", replies::subscribed()),
        ("reply-unsubscribed", replies::unsubscribed()),
        ("reply-published", replies::published()),
        ("reply-sent", replies::sent()),
        ("reply-answer", replies::answer()),
        ("reply-pong", replies::pong()),
        ("reply-refreshed", replies::refreshed()),
        ("reply-history_page", replies::history_page()),
        ("reply-presence_page", replies::presence_page()),
        ("reply-done", replies::done()),
        ("reply-notified", replies::notified()),
        ("reply-notification_page", replies::notification_page()),
        ("reply-notifications_read", replies::notifications_read()),
        ("gap", gap()),
        ("ended", ended()),
        ("presence_change", presence_changes()),
        ("invoke", invoke()),
        ("revoke", revoke()),
        ("notification", notification()),
        ("notifications_read", notifications_read()),
        ("state", state()),
    ]
}

fn json(text: &'static str) -> Payload {
    Payload::Json(Bytes::from_static(text.as_bytes()))
}

fn pushes() -> Vec<Said> {
    let about = |name, meaning, room, seq, event: &str, payload: Payload, key| {
        let push = Push {
            room: RoomId(room),
            seq: Seq(seq),
            event,
            payload: &payload,
            key,
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
    let push =
        |name, meaning, room, seq, event: &str, payload| about(name, meaning, room, seq, event, payload, "");
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
        about(
            "with_key",
            "About order 42. The key comes last.",
            1,
            7,
            "order_updated",
            json(r#"{"status":"paid"}"#),
            "42",
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

fn gap() -> Vec<Said> {
    vec![
        said(
            "several",
            "Messages 8 to 12 of room 1 will not come here; the next is 13 or later.",
            &wire::Gap {
                room: 1,
                from: 8,
                to: 12,
            }
            .into(),
        ),
        said(
            "one",
            "One message: from and to are the same.",
            &wire::Gap {
                room: 1,
                from: 14,
                to: 14,
            }
            .into(),
        ),
    ]
}

fn ended() -> Vec<Said> {
    vec![said(
        "right_withdrawn",
        "The new token does not cover room 2: nothing more of it comes, the connection lives on.",
        &wire::Ended {
            room: 2,
            error: Some((&Refusal::new(Code::Forbidden, "the token no longer covers this room")).into()),
        }
        .into(),
    )]
}

/// As a presence page and a change show them.
pub(crate) fn ana() -> wire::PresenceUser {
    wire::PresenceUser {
        user: "ana".into(),
        info: Bytes::from_static(br#"{"name":"Ana"}"#),
        connections: 2,
        since_unix_ms: 1_764_000_000_123,
    }
}

fn presence_changes() -> Vec<Said> {
    let change = |change: wire::PresenceChange| change.into();
    vec![
        said(
            "users",
            "Ana has come, beto and carla have gone.",
            &change(wire::PresenceChange {
                room: 1,
                version: 31,
                users: 5,
                connections: 7,
                joined: vec![ana()],
                left: vec!["beto".into(), "carla".into()],
                truncated: false,
            }),
        ),
        said(
            "counts",
            "For those who watch counts only.",
            &change(wire::PresenceChange {
                room: 1,
                version: 31,
                users: 5,
                connections: 7,
                ..wire::PresenceChange::default()
            }),
        ),
        said(
            "truncated",
            "Too many to name them: ask for pages to know who.",
            &change(wire::PresenceChange {
                room: 1,
                version: 2032,
                users: 2005,
                connections: 2007,
                truncated: true,
                ..wire::PresenceChange::default()
            }),
        ),
    ]
}

fn invoke() -> Vec<Said> {
    vec![
        said(
            "of_a_user",
            "Ana asks; an answer is of use for ten seconds.",
            &wire::Invoke {
                call: 9,
                method: "invoice.total".into(),
                params: Bytes::from_static(br#"{"order":42}"#),
                user: "ana".into(),
                timeout_ms: 10_000,
            }
            .into(),
        ),
        said(
            "of_the_api",
            "No user asks, and there are no parameters.",
            &wire::Invoke {
                call: 10,
                method: "report.daily".into(),
                timeout_ms: 10_000,
                ..wire::Invoke::default()
            }
            .into(),
        ),
    ]
}

fn revoke() -> Vec<Said> {
    vec![said(
        "revoke",
        "Nobody waits for the answer to call 9 any more.",
        &wire::Revoke { call: 9 }.into(),
    )]
}

/// As a push and a page show it.
pub(crate) fn alert() -> wire::Notification {
    wire::Notification {
        id: 512,
        kind: wire::NotificationKind::Alert.into(),
        title: "Oven too hot".into(),
        message: "Kitchen 2: 310 °C".into(),
        json: Bytes::from_static(br#"{"celsius":310}"#),
        priority: wire::Priority::High.into(),
        created_unix_ms: 1_764_000_000_123,
        expires_unix_ms: 1_764_003_600_123,
        read: false,
        unread: 0,
    }
}

fn notification() -> Vec<Said> {
    vec![
        said(
            "alert",
            "Came before what waited to be written. The user has three unread ones now.",
            &wire::Notification { unread: 3, ..alert() }.into(),
        ),
        said(
            "info",
            "Kind and priority of zero stand by name in JSON too; no data.",
            &wire::Notification {
                id: 513,
                title: "Tu pedido está listo".into(),
                created_unix_ms: 1_764_000_001_000,
                expires_unix_ms: 1_766_592_001_000,
                unread: 4,
                ..wire::Notification::default()
            }
            .into(),
        ),
        said(
            "of_a_later_version",
            "A kind that no client knows yet is a number in JSON too: show it as info.",
            &wire::Notification {
                id: 514,
                kind: 77,
                title: "?".into(),
                unread: 5,
                ..wire::Notification::default()
            }
            .into(),
        ),
    ]
}

/// As the one who marked them and the user's other connections see it.
pub(crate) fn read() -> wire::NotificationsRead {
    wire::NotificationsRead {
        ids: vec![501, 502],
        up_to: 0,
        unread: 2,
    }
}

fn notifications_read() -> Vec<Said> {
    vec![said(
        "elsewhere",
        "The user has read two on another connection.",
        &read().into(),
    )]
}

fn state() -> Vec<Said> {
    vec![said(
        "device",
        "What a plug is like now; the changes after it come as pushes of room 3.",
        &wire::State {
            room: 3,
            event: "device-update".into(),
            json: Bytes::from_static(br#"{"online":true,"output":false}"#),
            key: "8CBFEAA133F0".into(),
        }
        .into(),
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
        Message::PresenceChange(_) => "presence_change",
        Message::Invoke(_) => "invoke",
        Message::Revoke(_) => "revoke",
        Message::Notification(_) => "notification",
        Message::NotificationsRead(_) => "notifications_read",
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
            Outcome::HistoryPage(_) => "reply-history_page",
            Outcome::PresencePage(_) => "reply-presence_page",
            Outcome::Done(_) => "reply-done",
            Outcome::Notified(_) => "reply-notified",
            Outcome::NotificationPage(_) => "reply-notification_page",
            Outcome::NotificationsRead(_) => "reply-notifications_read",
        },
    }
}
