//! About rooms.

use cauce_protocol::limits::{EVENT_BYTES_MAX, EXCLUDE_MAX, IDEMPOTENCY_KEY_BYTES_MAX, NAME_BYTES_MAX};
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::{self, publish};

use super::{Said, said};

fn publish(payload: Option<publish::Payload>) -> wire::Publish {
    wire::Publish {
        room: "orders".into(),
        event: "order_created".into(),
        payload,
        ..wire::Publish::default()
    }
}

pub(super) fn subscribe() -> Vec<Said> {
    let subscribe = |rooms: &[&str]| {
        Request::Subscribe(wire::Subscribe {
            rooms: rooms.iter().map(|&r| r.into()).collect(),
            ..wire::Subscribe::default()
        })
    };
    let with_options = |subscriptions| {
        Request::Subscribe(wire::Subscribe {
            rooms: Vec::new(),
            subscriptions,
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
        said(
            "with_position",
            "Back again: what came after message 17 of that numbering is sent first.",
            52,
            with_options(vec![wire::Subscription {
                room: "orders".into(),
                epoch: 1_764_000_000,
                seq: 17,
                ..wire::Subscription::default()
            }]),
        ),
        said(
            "with_recent",
            "No position: begin up to 50 messages back.",
            53,
            with_options(vec![wire::Subscription {
                room: "chat:lobby".into(),
                recent: 50,
                ..wire::Subscription::default()
            }]),
        ),
        said(
            "latest_of_some_keys",
            "If behind, the newest message of each key is enough; of all keys, two are wanted.",
            54,
            with_options(vec![wire::Subscription {
                room: "prices".into(),
                delivery: wire::Delivery::Latest.into(),
                keys: vec!["EURUSD".into(), "EURGBP".into()],
                ..wire::Subscription::default()
            }]),
        ),
        said(
            "sampled",
            "At most one message of each key every 200 ms, of one event.",
            55,
            with_options(vec![wire::Subscription {
                room: "$devices".into(),
                delivery: wire::Delivery::Sample.into(),
                sample_ms: 200,
                events: vec!["device-update".into()],
                ..wire::Subscription::default()
            }]),
        ),
        said(
            "plain_and_with_options",
            "Plain rooms first, then those with options: drop the oldest if behind; only count who is there; tell who.",
            56,
            Request::Subscribe(wire::Subscribe {
                rooms: vec!["orders".into()],
                subscriptions: vec![
                    wire::Subscription {
                        room: "logs".into(),
                        delivery: wire::Delivery::DropOldest.into(),
                        ..wire::Subscription::default()
                    },
                    wire::Subscription {
                        room: "chat:lobby".into(),
                        delivery: wire::Delivery::Reliable.into(),
                        presence: wire::Watch::Counts.into(),
                        ..wire::Subscription::default()
                    },
                    wire::Subscription {
                        room: "chat:staff".into(),
                        presence: wire::Watch::Users.into(),
                        ..wire::Subscription::default()
                    },
                ],
            }),
        ),
    ]
}

pub(super) fn unsubscribe() -> Vec<Said> {
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

pub(super) fn publishes() -> Vec<Said> {
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
        said(
            "with_key",
            "About order 42: for subscribers that want the newest of each key, or only some keys.",
            57,
            request(wire::Publish {
                key: "42".into(),
                ..publish(Some(Payload::Json(r#"{"status":"paid"}"#.into())))
            }),
        ),
        said(
            "answered_when_on_disk",
            "The answer waits until the message is committed.",
            58,
            request(wire::Publish {
                ack: wire::Ack::Durable.into(),
                ..publish(Some(Payload::Json("1".into())))
            }),
        ),
        said(
            "answered_when_numbered",
            "Even in a durable room the answer does not wait for the disk.",
            59,
            request(wire::Publish {
                ack: wire::Ack::Memory.into(),
                ..publish(Some(Payload::Json("2".into())))
            }),
        ),
    ]
}

pub(super) fn history() -> Vec<Said> {
    vec![
        said(
            "newest",
            "The newest twenty messages, newest first.",
            26,
            Request::History(wire::History {
                room: "orders".into(),
                backwards: true,
                limit: 20,
                ..wire::History::default()
            }),
        ),
        said(
            "before",
            "Those before message 81 of that numbering, as many as the broker thinks right.",
            27,
            Request::History(wire::History {
                room: "orders".into(),
                epoch: 1_764_000_000,
                from: 81,
                backwards: true,
                limit: 0,
            }),
        ),
        said(
            "from_the_first",
            "Forwards from the oldest that is kept.",
            28,
            Request::History(wire::History {
                room: "orders".into(),
                ..wire::History::default()
            }),
        ),
    ]
}

pub(super) fn presence() -> Vec<Said> {
    vec![
        said(
            "first_page",
            "Who is there, from the first name on.",
            29,
            Request::Presence(wire::Presence {
                room: "chat:lobby".into(),
                ..wire::Presence::default()
            }),
        ),
        said(
            "next_page",
            "A hundred more after ana.",
            30,
            Request::Presence(wire::Presence {
                room: "chat:lobby".into(),
                after: "ana".into(),
                limit: 100,
                counts_only: false,
            }),
        ),
        said(
            "counts",
            "How many, not who.",
            31,
            Request::Presence(wire::Presence {
                room: "chat:lobby".into(),
                counts_only: true,
                ..wire::Presence::default()
            }),
        ),
    ]
}
