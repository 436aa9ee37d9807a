//! Generates the wire types from the schema without a `protoc` on the machine.

/// Messages whose JSON twin is simply their fields. Those that hold a payload or a choice are written out in `src/json.rs`.
const PLAIN: &[&str] = &[
    "Advance",
    "Cancel",
    "Done",
    "Ended",
    "Error",
    "Gap",
    "Goaway",
    "Hello",
    "History",
    "Limits",
    "MarkRead",
    "Notifications",
    "NotificationsRead",
    "Notified",
    "Ping",
    "Pong",
    "Presence",
    "Published",
    "Refresh",
    "Refreshed",
    "Revoke",
    "RoomPosition",
    "Sent",
    "Serve",
    "Subscribe",
    "Subscribed",
    "Subscription",
    "Unserve",
    "Unsubscribe",
    "Unsubscribed",
    "Welcome",
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
    // An absent message is left out of the twin, not shown as null.
    for field in ["Ended.error", "Goaway.error", "Welcome.limits"] {
        config.field_attribute(
            format!(".cauce.v1.{field}"),
            "#[serde(skip_serializing_if = \"Option::is_none\")]",
        );
    }
    // A list is bounded while it is read, not after.
    for field in ["Subscribe.rooms", "Unsubscribe.rooms"] {
        config.field_attribute(
            format!(".cauce.v1.{field}"),
            "#[serde(deserialize_with = \"crate::list::rooms\")]",
        );
    }
    config.compile_fds(descriptors)?;
    Ok(())
}
