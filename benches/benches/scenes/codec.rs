//! One publish and one push of 128 bytes of JSON, as they are on the wire.

use bytes::Bytes;
use cauce_protocol::server::Push;
use cauce_protocol::{Payload, RoomId, Seq, json, wire};
use prost::Message as _;

/// Beyond every payload here, in bytes.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 60_000;

pub(crate) fn payload() -> Payload {
    Payload::Json(Bytes::from(format!("{{\"text\":\"{}\"}}", "x".repeat(117))))
}

pub(crate) fn publish() -> wire::ClientFrame {
    let publish = wire::Publish {
        room: "chat:lobby".into(),
        event: "message".into(),
        payload: Some(wire::publish::Payload::Json(payload().as_bytes().clone())),
        ..wire::Publish::default()
    };
    wire::ClientFrame {
        id: 7,
        request: Some(wire::client_frame::Request::Publish(publish)),
    }
}

pub(crate) fn proto(frame: &wire::ClientFrame) -> Bytes {
    Bytes::from(frame.encode_to_vec())
}

pub(crate) fn text(frame: &wire::ClientFrame) -> String {
    json::encode_client(frame)
}

pub(crate) fn push(payload: &Payload) -> Push<'_> {
    Push {
        room: RoomId(12),
        seq: Seq(100_000),
        event: "message",
        payload,
        key: "",
    }
}
