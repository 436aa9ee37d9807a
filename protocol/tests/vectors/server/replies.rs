//! Answers to requests, by outcome.

use bytes::Bytes;
use cauce_protocol::server;
use cauce_protocol::wire;
use cauce_protocol::{Code, Refusal};

use super::{Said, alert, ana, read, said};
use crate::client::ALL_FEATURES;

pub(super) fn errors() -> Vec<Said> {
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

pub(super) fn welcome() -> Vec<Said> {
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
        said(
            "with_all_features",
            "Advance, Gap and notifications are in use.",
            &server::reply(
                1,
                wire::Welcome {
                    connection: 44,
                    version: 1,
                    features: ALL_FEATURES,
                    tenant: "default".into(),
                    user: "ana".into(),
                    heartbeat_ms: 30_000,
                    expires_in_ms: 3_600_000,
                    limits: Some(limits),
                },
            ),
        ),
    ]
}

pub(super) fn subscribed() -> Vec<Said> {
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
        said(
            "continued",
            "The client was at 17. Messages 18 to 20 come first, as ordinary pushes.",
            &server::reply(
                52,
                wire::Subscribed {
                    rooms: vec![wire::RoomPosition {
                        recovery: wire::Recovery::Continued.into(),
                        head: 20,
                        ..position("orders", 1, 17)
                    }],
                },
            ),
        ),
        said(
            "partial",
            "The client was at 17, but 18 to 120 are no longer kept: 121 to 200 come first.",
            &server::reply(
                52,
                wire::Subscribed {
                    rooms: vec![wire::RoomPosition {
                        recovery: wire::Recovery::Partial.into(),
                        lost_from: 18,
                        lost_to: 120,
                        head: 200,
                        ..position("orders", 1, 120)
                    }],
                },
            ),
        ),
        said(
            "reset",
            "The position is of another numbering: load the state again.",
            &server::reply(
                52,
                wire::Subscribed {
                    rooms: vec![wire::RoomPosition {
                        recovery: wire::Recovery::Reset.into(),
                        head: 3,
                        ..position("orders", 1, 3)
                    }],
                },
            ),
        ),
    ]
}

pub(super) fn unsubscribed() -> Vec<Said> {
    vec![said(
        "unsubscribed",
        "Done. An empty message.",
        &server::reply(6, wire::Unsubscribed {}),
    )]
}

pub(super) fn published() -> Vec<Said> {
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
        said(
            "on_disk",
            "The message is committed and synced.",
            &server::reply(
                58,
                wire::Published {
                    durable: true,
                    ..published(20, 0, false)
                },
            ),
        ),
    ]
}

pub(super) fn sent() -> Vec<Said> {
    vec![said(
        "sent",
        "Handed over to whoever was connected. An empty message.",
        &server::reply(18, wire::Sent {}),
    )]
}

pub(super) fn answer() -> Vec<Said> {
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

pub(super) fn pong() -> Vec<Said> {
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

pub(super) fn refreshed() -> Vec<Said> {
    vec![said(
        "refreshed",
        "The new token lasts an hour.",
        &server::reply(
            25,
            wire::Refreshed {
                expires_in_ms: 3_600_000,
            },
        ),
    )]
}

pub(super) fn history_page() -> Vec<Said> {
    use wire::history_entry::Payload;
    let entry = |seq, payload, user: &str| wire::HistoryEntry {
        seq,
        event: "order_updated".into(),
        payload: Some(payload),
        key: "42".into(),
        unix_ms: 1_764_000_000_000 + seq,
        user: user.into(),
    };
    vec![
        said(
            "backwards",
            "The newest first, in each kind of payload; more lie before them. Nobody in particular published the last.",
            &server::reply(
                26,
                wire::HistoryPage {
                    epoch: 1_764_000_000,
                    first: 1,
                    head: 20,
                    entries: vec![
                        entry(
                            20,
                            Payload::Json(Bytes::from_static(b"{\"status\":\"paid\"}")),
                            "ana",
                        ),
                        entry(19, Payload::Text("paid".into()), "beto"),
                        wire::HistoryEntry {
                            key: String::new(),
                            ..entry(18, Payload::Binary(Bytes::from_static(&[0xff, 0])), "")
                        },
                    ],
                    more: true,
                },
            ),
        ),
        said(
            "empty",
            "Nothing is kept, though 20 messages were sent.",
            &server::reply(
                27,
                wire::HistoryPage {
                    epoch: 1_764_000_000,
                    head: 20,
                    ..wire::HistoryPage::default()
                },
            ),
        ),
    ]
}

pub(super) fn presence_page() -> Vec<Said> {
    vec![
        said(
            "users",
            "Two of five; more come after beto, of whom his token says nothing.",
            &server::reply(
                29,
                wire::PresencePage {
                    version: 31,
                    users: 5,
                    connections: 7,
                    page: vec![
                        ana(),
                        wire::PresenceUser {
                            user: "beto".into(),
                            connections: 1,
                            since_unix_ms: 1_764_000_000_456,
                            ..wire::PresenceUser::default()
                        },
                    ],
                    more: true,
                },
            ),
        ),
        said(
            "counts",
            "As asked, nobody is named.",
            &server::reply(
                31,
                wire::PresencePage {
                    version: 31,
                    users: 5,
                    connections: 7,
                    ..wire::PresencePage::default()
                },
            ),
        ),
    ]
}

pub(super) fn done() -> Vec<Said> {
    vec![said(
        "done",
        "Carried out. An empty message.",
        &server::reply(32, wire::Done {}),
    )]
}

pub(super) fn notified() -> Vec<Said> {
    vec![said(
        "notified",
        "It became notification 512.",
        &server::reply(39, wire::Notified { id: 512 }),
    )]
}

pub(super) fn notification_page() -> Vec<Said> {
    vec![said(
        "newest",
        "One of three unread; more are older. The count of unread stands beside the list, not in it.",
        &server::reply(
            41,
            wire::NotificationPage {
                notifications: vec![alert()],
                unread: 3,
                more: true,
            },
        ),
    )]
}

pub(super) fn notifications_read() -> Vec<Said> {
    vec![said(
        "marked",
        "Marked; two are left unread.",
        &server::reply(43, read()),
    )]
}
