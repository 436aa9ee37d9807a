//! Requests about positions, policies, filters, calls, notifications and tokens: each fails alone.

use cauce_protocol::Code;
use cauce_protocol::limits::INTEGER_MAX;
use cauce_protocol::wire::{self, client_frame::Request};

use super::{Refused, call, closed, publish, refused, request, text};

pub(super) fn all() -> Vec<Refused> {
    let mut all = choices();
    all.extend(subscriptions());
    all.extend(pages());
    all.extend(calls());
    all.extend(notifications());
    all.extend(texts());
    all
}

fn subscribe(subscription: wire::Subscription) -> Request {
    Request::Subscribe(wire::Subscribe {
        rooms: Vec::new(),
        subscriptions: vec![subscription],
    })
}

fn orders() -> wire::Subscription {
    wire::Subscription {
        room: "orders".into(),
        ..wire::Subscription::default()
    }
}

fn notify() -> wire::Notify {
    wire::Notify {
        to: Some(wire::notify::To::User("ana".into())),
        title: "Hola".into(),
        ..wire::Notify::default()
    }
}

/// A later version's choices.
fn choices() -> Vec<Refused> {
    let delivery = subscribe(wire::Subscription {
        delivery: 99,
        ..orders()
    });
    let presence = subscribe(wire::Subscription {
        presence: 99,
        ..orders()
    });
    let ack = Request::Publish(wire::Publish { ack: 99, ..publish() });
    let negative = Request::Publish(wire::Publish { ack: -1, ..publish() });
    let kind = Request::Notify(wire::Notify { kind: 99, ..notify() });
    let priority = Request::Notify(wire::Notify {
        priority: 99,
        ..notify()
    });
    let unsupported = |name, meaning, asked| request(name, meaning, asked, Code::Unsupported);
    vec![
        unsupported("delivery_unknown", "Delivery policy 99.", delivery),
        unsupported("watch_unknown", "Presence 99.", presence),
        unsupported("ack_unknown", "Ack 99.", ack),
        unsupported("ack_negative", "Ack -1, ten bytes as a varint.", negative),
        unsupported("kind_unknown", "Kind of notification 99.", kind),
        unsupported("priority_unknown", "Priority 99.", priority),
        text(
            "json_delivery_unknown",
            "A policy by a name that this version does not have: only the request fails.",
            r#"{"id":7,"subscribe":{"subscriptions":[{"room":"orders","delivery":"telepathy"}]}}"#,
            refused(Code::Unsupported),
        ),
        text(
            "json_ack_in_capitals",
            "Names of choices are lower case.",
            r#"{"id":7,"publish":{"room":"orders","event":"e","ack":"DURABLE"}}"#,
            refused(Code::Unsupported),
        ),
        text(
            "json_priority_unknown",
            "A priority that this version does not have.",
            r#"{"id":7,"notify":{"user":"ana","title":"Hola","priority":"urgent"}}"#,
            refused(Code::Unsupported),
        ),
    ]
}

fn subscriptions() -> Vec<Refused> {
    let list = |count: usize| vec![String::from("e"); count];
    let sampled = |sample_ms| {
        subscribe(wire::Subscription {
            delivery: wire::Delivery::Sample.into(),
            sample_ms,
            ..orders()
        })
    };
    let at = |epoch, seq| {
        subscribe(wire::Subscription {
            epoch,
            seq,
            ..orders()
        })
    };
    let filter = |events, keys| {
        subscribe(wire::Subscription {
            events,
            keys,
            ..orders()
        })
    };
    vec![
        request(
            "sample_without_interval",
            "Sampled, but how often?",
            sampled(0),
            Code::Invalid,
        ),
        request(
            "sample_interval_too_short",
            "9 ms, where 10 are the least.",
            sampled(9),
            Code::Invalid,
        ),
        request(
            "sample_interval_too_long",
            "An hour and a millisecond, where an hour is the most.",
            sampled(3_600_001),
            Code::Invalid,
        ),
        request(
            "position_beyond_all_numbers",
            "A sequence of 2^53.",
            at(1, INTEGER_MAX + 1),
            Code::Invalid,
        ),
        request(
            "epoch_beyond_all_numbers",
            "An epoch of 2^53.",
            at(INTEGER_MAX + 1, 1),
            Code::Invalid,
        ),
        request(
            "filter_of_too_many_events",
            "33 events, where 32 are allowed.",
            filter(list(33), Vec::new()),
            Code::TooLarge,
        ),
        request(
            "filter_of_too_many_keys",
            "65 keys, where 64 are allowed.",
            filter(Vec::new(), list(65)),
            Code::TooLarge,
        ),
        request(
            "filters_too_long_together",
            "Seventeen rooms with 64 keys each are 1088 entries, where 1024 are allowed.",
            Request::Subscribe(wire::Subscribe {
                rooms: Vec::new(),
                subscriptions: (0..17)
                    .map(|room| wire::Subscription {
                        room: format!("r{room}"),
                        keys: list(64),
                        ..wire::Subscription::default()
                    })
                    .collect(),
            }),
            Code::TooLarge,
        ),
        request(
            "filter_with_empty_event",
            "No message has an empty event.",
            filter(vec![String::new()], Vec::new()),
            Code::Invalid,
        ),
        request(
            "filter_with_long_key",
            "101 bytes, where 100 are allowed.",
            filter(Vec::new(), vec!["k".repeat(101)]),
            Code::TooLarge,
        ),
        request(
            "room_with_options_twice",
            "Which position counts?",
            Request::Subscribe(wire::Subscribe {
                rooms: Vec::new(),
                subscriptions: vec![orders(), orders()],
            }),
            Code::Invalid,
        ),
        request(
            "room_plain_and_with_options",
            "Named once plain and once with options.",
            Request::Subscribe(wire::Subscribe {
                rooms: vec!["orders".into()],
                subscriptions: vec![orders()],
            }),
            Code::Invalid,
        ),
        request(
            "too_many_rooms_of_both_kinds",
            "128 plain ones and one with options, where 128 are allowed together.",
            Request::Subscribe(wire::Subscribe {
                rooms: vec!["r".into(); 128],
                subscriptions: vec![orders()],
            }),
            Code::TooLarge,
        ),
        request(
            "room_with_options_without_name",
            "Options of no room.",
            subscribe(wire::Subscription::default()),
            Code::Invalid,
        ),
        request(
            "key_too_long",
            "101 bytes, where 100 are allowed.",
            Request::Publish(wire::Publish {
                key: "k".repeat(101),
                ..publish()
            }),
            Code::TooLarge,
        ),
        request(
            "key_with_control_character",
            "A key is a name.",
            Request::Publish(wire::Publish {
                key: "a\nb".into(),
                ..publish()
            }),
            Code::Invalid,
        ),
        request(
            "idempotency_key_with_nul",
            "U+0000 cannot be stored everywhere.",
            Request::Publish(wire::Publish {
                idempotency_key: "a\0b".into(),
                ..publish()
            }),
            Code::Invalid,
        ),
        request(
            "too_many_earlier_connections",
            "Nine, where eight are allowed.",
            Request::Hello(wire::Hello {
                version: 1,
                previous: (1..=9).collect(),
                ..wire::Hello::default()
            }),
            Code::TooLarge,
        ),
        request(
            "refresh_without_token",
            "Nothing to renew with.",
            Request::Refresh(wire::Refresh::default()),
            Code::Invalid,
        ),
    ]
}

fn pages() -> Vec<Refused> {
    let history = |history| Request::History(history);
    vec![
        request(
            "history_page_too_long",
            "1001 messages, where 1000 are allowed.",
            history(wire::History {
                room: "orders".into(),
                limit: 1001,
                ..wire::History::default()
            }),
            Code::TooLarge,
        ),
        request(
            "history_of_no_room",
            "A room without a name.",
            history(wire::History::default()),
            Code::Invalid,
        ),
        request(
            "history_from_beyond_all_numbers",
            "From 2^53.",
            history(wire::History {
                room: "orders".into(),
                from: INTEGER_MAX + 1,
                ..wire::History::default()
            }),
            Code::Invalid,
        ),
        request(
            "presence_page_too_long",
            "1001 users, where 1000 are allowed.",
            Request::Presence(wire::Presence {
                room: "orders".into(),
                limit: 1001,
                ..wire::Presence::default()
            }),
            Code::TooLarge,
        ),
        request(
            "presence_after_no_name",
            "No user has a name with a line break.",
            Request::Presence(wire::Presence {
                room: "orders".into(),
                after: "a\nb".into(),
                ..wire::Presence::default()
            }),
            Code::Invalid,
        ),
        request(
            "notification_page_too_long",
            "1001 notifications, where 1000 are allowed.",
            Request::Notifications(wire::Notifications {
                limit: 1001,
                ..wire::Notifications::default()
            }),
            Code::TooLarge,
        ),
        request(
            "notifications_before_all_numbers",
            "Before 2^53.",
            Request::Notifications(wire::Notifications {
                before: INTEGER_MAX + 1,
                ..wire::Notifications::default()
            }),
            Code::Invalid,
        ),
    ]
}

fn calls() -> Vec<Refused> {
    use wire::respond::Result as Outcome;
    let serve = |methods| {
        Request::Serve(wire::Serve {
            methods,
            concurrency: 0,
        })
    };
    let respond = |result| Request::Respond(wire::Respond { call: 9, result });
    vec![
        request(
            "method_with_star",
            "A call is of one method.",
            call("report.*", ""),
            Code::Invalid,
        ),
        request("serve_nothing", "No methods.", serve(Vec::new()), Code::Invalid),
        request(
            "serve_star_in_the_middle",
            "A star stands at the end only.",
            serve(vec!["report.*.daily".into()]),
            Code::Invalid,
        ),
        request(
            "serve_too_many",
            "65 methods, where 64 are allowed.",
            serve(vec!["m".into(); 65]),
            Code::TooLarge,
        ),
        request(
            "serve_name_too_long",
            "101 bytes, where 100 are allowed.",
            serve(vec!["m".repeat(101)]),
            Code::TooLarge,
        ),
        request(
            "unserve_nothing",
            "No methods.",
            Request::Unserve(wire::Unserve::default()),
            Code::Invalid,
        ),
        request(
            "respond_with_broken_json",
            "Half an object.",
            respond(Some(Outcome::Json("{".into()))),
            Code::Malformed,
        ),
        request(
            "respond_too_large",
            "1026 bytes of JSON, where this table allows 1024.",
            respond(Some(Outcome::Json(format!("\"{}\"", "x".repeat(1024)).into()))),
            Code::TooLarge,
        ),
        request(
            "respond_with_long_error",
            "1025 bytes, where 1024 are allowed.",
            respond(Some(Outcome::Error("e".repeat(1025)))),
            Code::TooLarge,
        ),
    ]
}

fn notifications() -> Vec<Refused> {
    let invalid = |name, meaning, notify| request(name, meaning, Request::Notify(notify), Code::Invalid);
    let too_large = |name, meaning, notify| request(name, meaning, Request::Notify(notify), Code::TooLarge);
    vec![
        invalid(
            "notify_nobody",
            "No audience.",
            wire::Notify { to: None, ..notify() },
        ),
        invalid(
            "notify_no_tenant",
            "tenant is either true or left out.",
            wire::Notify {
                to: Some(wire::notify::To::Tenant(false)),
                ..notify()
            },
        ),
        invalid(
            "notify_without_title",
            "A notification has a title.",
            wire::Notify {
                title: String::new(),
                ..notify()
            },
        ),
        invalid(
            "notify_title_with_nul",
            "U+0000 cannot be stored everywhere.",
            wire::Notify {
                title: "a\0b".into(),
                ..notify()
            },
        ),
        invalid(
            "notify_message_with_nul",
            "U+0000 cannot be stored everywhere.",
            wire::Notify {
                message: "a\0b".into(),
                ..notify()
            },
        ),
        invalid(
            "notify_beyond_all_time",
            "Expires in 2^53 ms.",
            wire::Notify {
                expires_in_ms: INTEGER_MAX + 1,
                ..notify()
            },
        ),
        too_large(
            "notify_long_title",
            "201 bytes, where 200 are allowed.",
            wire::Notify {
                title: "t".repeat(201),
                ..notify()
            },
        ),
        too_large(
            "notify_long_key",
            "129 bytes, where 128 are allowed.",
            wire::Notify {
                idempotency_key: "k".repeat(129),
                ..notify()
            },
        ),
        too_large(
            "notify_much_json",
            "1026 bytes, where this table allows 1024.",
            wire::Notify {
                json: format!("\"{}\"", "x".repeat(1024)).into(),
                ..notify()
            },
        ),
        request(
            "notify_broken_json",
            "Half an object.",
            Request::Notify(wire::Notify {
                json: "{".into(),
                ..notify()
            }),
            Code::Malformed,
        ),
        request(
            "mark_nothing",
            "Neither ids nor up_to.",
            Request::MarkRead(wire::MarkRead::default()),
            Code::Invalid,
        ),
        request(
            "mark_too_many",
            "101 notifications, where 100 are allowed.",
            Request::MarkRead(wire::MarkRead {
                ids: (1..=101).collect(),
                up_to: 0,
            }),
            Code::TooLarge,
        ),
        request(
            "mark_beyond_all_numbers",
            "2^53 as an id.",
            Request::MarkRead(wire::MarkRead {
                ids: vec![INTEGER_MAX + 1],
                up_to: 0,
            }),
            Code::Invalid,
        ),
        request(
            "mark_up_to_beyond_all_numbers",
            "Up to 2^53.",
            Request::MarkRead(wire::MarkRead {
                ids: Vec::new(),
                up_to: INTEGER_MAX + 1,
            }),
            Code::Invalid,
        ),
    ]
}

/// What JSON alone can get wrong.
fn texts() -> Vec<Refused> {
    [
        (
            "json_two_audiences",
            "A user or a role, not both.",
            r#"{"id":7,"notify":{"user":"ana","role":"staff","title":"Hola"}}"#,
        ),
        (
            "json_two_results",
            "Did it work or not?",
            r#"{"id":7,"respond":{"call":9,"json":1,"error":"no"}}"#,
        ),
        (
            "json_delivery_is_an_object",
            "A choice is a name or a number.",
            r#"{"id":7,"subscribe":{"subscriptions":[{"room":"orders","delivery":{}}]}}"#,
        ),
        (
            "json_subscriptions_of_names",
            "Rooms with options are objects.",
            r#"{"id":7,"subscribe":{"subscriptions":["orders"]}}"#,
        ),
    ]
    .map(|(name, meaning, json)| text(name, meaning, json, closed(Code::Malformed)))
    .into()
}
