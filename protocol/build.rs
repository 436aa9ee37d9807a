//! Generates the wire types from the schema without a `protoc` on the machine, and how those read and write as JSON whose
//! twin is simply their fields (`src/json/`).

/// Messages whose JSON twin is simply their fields. Those that hold a payload or another choice are written out in `src/json/`.
const PLAIN: &[&str] = &[
    "Advance",
    "Answer",
    "Call",
    "Cancel",
    "Done",
    "Ended",
    "Error",
    "Gap",
    "Goaway",
    "Hello",
    "History",
    "HistoryPage",
    "Invoke",
    "Limits",
    "MarkRead",
    "Notification",
    "NotificationPage",
    "Notifications",
    "NotificationsRead",
    "Notified",
    "Ping",
    "Pong",
    "Presence",
    "PresenceChange",
    "PresencePage",
    "PresenceUser",
    "Published",
    "Refresh",
    "Refreshed",
    "Revoke",
    "RoomPosition",
    "Sent",
    "Serve",
    "State",
    "Subscribe",
    "Subscribed",
    "Subscription",
    "Unserve",
    "Unsubscribe",
    "Unsubscribed",
    "Welcome",
];

/// Fields (or all fields of a message) that are left out of the twin while they have their zero value: options that few use
/// and what came later than the first version, so that a plain client sees no clutter.
const LEFT_OUT: &[&str] = &[
    "Call.retry",
    "Call.timeout_ms",
    "Hello.previous",
    "History",
    "Invoke.user",
    "MarkRead",
    "Notifications",
    "Presence",
    "PresenceChange.truncated",
    "Published.durable",
    "RoomPosition.head",
    "RoomPosition.lost_from",
    "RoomPosition.lost_to",
    "RoomPosition.recovery",
    "Serve.concurrency",
    "State.key",
    "Subscribe",
    "Subscription",
    // Bytes that hold JSON: none is no JSON, not null.
    "Answer.json",
    "Call.params",
    "Invoke.params",
    "Notification.json",
    "PresenceUser.info",
    "State.json",
];

/// Bytes that hold JSON stand in the twin as that JSON.
const JSON: &[&str] = &[
    "Answer.json",
    "Call.params",
    "Invoke.params",
    "Notification.json",
    "PresenceUser.info",
    "State.json",
];

/// Choices stand in the twin by name.
const NAMED: &[(&str, &str)] = &[
    ("Notification.kind", "NotificationKind"),
    ("Notification.priority", "Priority"),
    ("RoomPosition.recovery", "Recovery"),
    ("Subscription.delivery", "Delivery"),
    ("Subscription.presence", "Watch"),
];

/// Lists of a client are bounded while they are read, not after: by what in `crate::limits`.
const BOUNDED: &[(&str, &str)] = &[
    ("Hello.previous", "PREVIOUS_MAX"),
    ("MarkRead.ids", "MARK_READ_MAX"),
    ("Serve.methods", "METHODS_A_REQUEST_MAX"),
    ("Subscribe.rooms", "ROOMS_A_REQUEST_MAX"),
    ("Subscription.events", "FILTER_EVENTS_MAX"),
    ("Subscription.keys", "FILTER_KEYS_MAX"),
    ("Unserve.methods", "METHODS_A_REQUEST_MAX"),
    ("Unsubscribe.rooms", "ROOMS_A_REQUEST_MAX"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schema = "proto/cauce.proto";
    println!("cargo:rerun-if-changed={schema}");
    let descriptors = protox::compile([schema], ["proto"])?;
    let mut config = prost_build::Config::new();
    // Payloads are slices of the buffer they were read into.
    config.bytes(["."]);
    for message in PLAIN {
        config.type_attribute(
            format!(".cauce.v1.{message}"),
            "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]",
        );
    }
    let mut field = |field: &str, attribute: String| {
        config.field_attribute(format!(".cauce.v1.{field}"), format!("#[serde({attribute})]"));
    };
    // An absent message is left out of the twin, not shown as null.
    for name in ["Ended.error", "Goaway.error", "Welcome.limits"] {
        field(name, "skip_serializing_if = \"Option::is_none\"".into());
    }
    for name in LEFT_OUT {
        field(name, "skip_serializing_if = \"crate::json::is_zero\"".into());
    }
    for name in JSON {
        field(name, "with = \"crate::json::value\"".into());
    }
    for (name, choice) in NAMED {
        let path = "crate::json::choice";
        field(name, format!("serialize_with = \"{path}::write::<{choice}, _>\""));
        field(
            name,
            format!("deserialize_with = \"{path}::read::<{choice}, _>\""),
        );
    }
    for (name, max) in BOUNDED {
        let path = "crate::json::list::at_most";
        field(
            name,
            format!("deserialize_with = \"{path}::<{{ crate::limits::{max} }}, _, _>\""),
        );
    }
    field(
        "Subscribe.subscriptions",
        "deserialize_with = \"crate::json::list::subscriptions\"".into(),
    );
    config.compile_fds(descriptors)?;
    Ok(())
}
