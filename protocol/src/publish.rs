//! Publish, the hot request: read by hand, in place, without an allocation. Property tests hold this reading against that of
//! the generated types, which take over where a frame holds anything unusual.

use bytes::Bytes;

use crate::code::Refusal;
use crate::frame::DecodeError;
use crate::ids::{self, ConnectionId};
use crate::limits::{EXCLUDE_MAX, NAME_BYTES_MAX, PAYLOAD_DEPTH_MAX};
use crate::message::{Text, bounded_count, check_event, check_idempotency_key, check_key, invalid, unknown};
use crate::payload::Payload;
use crate::varint::{Reader, Value};
use crate::wire;

/// Room and event are checked names, kept as slices of the frame so that a publish allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub room: Text,
    pub event: Text,
    pub payload: Payload,
    /// Empty means none.
    pub idempotency_key: Text,
    pub exclude_sender: bool,
    pub exclude: Vec<ConnectionId>,
    pub want_receivers: bool,
    /// Empty means none.
    pub key: Text,
    pub ack: Ack,
}

/// When a publisher is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ack {
    /// Durable in durable rooms, memory elsewhere.
    #[default]
    Default,
    /// With the number.
    Memory,
    /// With the commit.
    Durable,
    /// A choice of a later version: refused.
    Unknown,
}

impl Ack {
    fn from_wire(value: u64) -> Self {
        match value {
            0 => Self::Default,
            1 => Self::Memory,
            2 => Self::Durable,
            _ => Self::Unknown,
        }
    }
}

impl Publish {
    /// The checks that the type does not carry.
    ///
    /// # Errors
    /// `invalid`, `too_large` or `malformed`, with the field at fault.
    pub fn check(&self, payload_bytes_max: usize) -> Result<(), Refusal> {
        ids::check(self.room.as_str(), NAME_BYTES_MAX).map_err(|e| invalid("room", e))?;
        check_event(self.event.as_str())?;
        self.payload.check(payload_bytes_max, PAYLOAD_DEPTH_MAX)?;
        check_idempotency_key(self.idempotency_key.as_str())?;
        check_key(self.key.as_str())?;
        if self.ack == Ack::Unknown {
            return Err(unknown("ack"));
        }
        bounded_count("exclude", self.exclude.len(), EXCLUDE_MAX)
    }
}

impl From<wire::Publish> for Publish {
    fn from(publish: wire::Publish) -> Self {
        use wire::publish::Payload as P;
        Self {
            room: publish.room.into(),
            event: publish.event.into(),
            payload: match publish.payload {
                None => Payload::NULL,
                Some(P::Json(json)) => Payload::Json(json),
                Some(P::Text(text)) => Payload::Text(text.into()),
                Some(P::Binary(binary)) => Payload::Binary(binary),
            },
            idempotency_key: publish.idempotency_key.into(),
            exclude_sender: publish.exclude_sender,
            exclude: publish.exclude.into_iter().map(ConnectionId).collect(),
            want_receivers: publish.want_receivers,
            key: publish.key.into(),
            ack: Ack::from_wire(u64::try_from(publish.ack).unwrap_or(u64::MAX)),
        }
    }
}

/// Numbers of the schema that are read by hand.
mod field {
    pub(super) const FRAME_ID: u32 = 1;
    pub(super) const FRAME_PUBLISH: u32 = 5;
    pub(super) const ROOM: u32 = 1;
    pub(super) const EVENT: u32 = 2;
    pub(super) const JSON: u32 = 3;
    pub(super) const TEXT: u32 = 4;
    pub(super) const BINARY: u32 = 5;
    pub(super) const IDEMPOTENCY_KEY: u32 = 6;
    pub(super) const EXCLUDE_SENDER: u32 = 7;
    pub(super) const EXCLUDE: u32 = 8;
    pub(super) const WANT_RECEIVERS: u32 = 9;
    pub(super) const KEY: u32 = 10;
    pub(super) const ACK: u32 = 11;
}

/// The publish in a frame that holds an id and one publish and nothing else; `None` leaves the frame to the generated types.
pub(crate) fn decode(frame: &Bytes) -> Result<Option<(u32, Publish)>, DecodeError> {
    let (mut id, mut publish) = (0, None);
    let mut reader = Reader::new(frame);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            // Protobuf keeps the low 32 bits of a longer number, and so do the generated types.
            (field::FRAME_ID, Value::Varint(value)) => id = value as u32,
            (field::FRAME_PUBLISH, Value::Bytes(message)) if publish.is_none() => publish = Some(message),
            _ => return Ok(None),
        }
    }
    let Some(message) = publish else { return Ok(None) };
    let mut publish = Publish {
        room: Text::default(),
        event: Text::default(),
        payload: Payload::NULL,
        idempotency_key: Text::default(),
        exclude_sender: false,
        exclude: Vec::new(),
        want_receivers: false,
        key: Text::default(),
        ack: Ack::Default,
    };
    let mut reader = Reader::new(&message);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (field::ROOM, Value::Bytes(room)) => publish.room = Text::new(room)?,
            (field::EVENT, Value::Bytes(event)) => publish.event = Text::new(event)?,
            (field::JSON, Value::Bytes(json)) => publish.payload = Payload::Json(json),
            (field::TEXT, Value::Bytes(text)) => {
                publish.payload = Payload::Text(Text::new(text)?.into_bytes());
            }
            (field::BINARY, Value::Bytes(binary)) => publish.payload = Payload::Binary(binary),
            (field::IDEMPOTENCY_KEY, Value::Bytes(key)) => publish.idempotency_key = Text::new(key)?,
            (field::EXCLUDE_SENDER, Value::Varint(value)) => publish.exclude_sender = value != 0,
            (field::WANT_RECEIVERS, Value::Varint(value)) => publish.want_receivers = value != 0,
            (field::KEY, Value::Bytes(key)) => publish.key = Text::new(key)?,
            // An enum keeps the low 32 bits, as any int32 does.
            (field::ACK, Value::Varint(value)) => publish.ack = Ack::from_wire(value & 0xffff_ffff),
            (field::EXCLUDE, Value::Varint(value)) => exclude(&mut publish, value),
            (field::EXCLUDE, Value::Bytes(packed)) => {
                let mut rest = &packed[..];
                while !rest.is_empty() {
                    let (value, len) = crate::varint::peek(rest)?.ok_or(DecodeError::Truncated)?;
                    exclude(&mut publish, value);
                    rest = &rest[len..];
                }
            }
            // Rare and legal: the generated types know where it ends.
            (_, Value::Group) => return Ok(None),
            // A known field in another encoding is not our schema.
            (field::ROOM..=field::ACK, _) => return Err(DecodeError::Protobuf),
            _ => {}
        }
    }
    Ok(Some((id, publish)))
}

/// Keeps one more than allowed, so that the check sees the excess and a frame full of numbers costs no memory.
fn exclude(publish: &mut Publish, connection: u64) {
    if publish.exclude.len() <= EXCLUDE_MAX {
        publish.exclude.push(ConnectionId(connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Code;
    use crate::json;
    use crate::message::{Request, check, decode_proto};
    use crate::varint;
    use proptest::prelude::*;
    use prost::Message as _;

    fn wire_publish() -> impl Strategy<Value = wire::Publish> {
        use wire::publish::Payload as P;
        let payload = prop_oneof![
            Just(None),
            "[a-z0-9]{0,50}".prop_map(|s| Some(P::Json(format!("{s:?}").into()))),
            any::<String>().prop_map(|s| Some(P::Text(s))),
            prop::collection::vec(any::<u8>(), 0..100).prop_map(|b| Some(P::Binary(b.into()))),
        ];
        (
            "[ -~é]{0,210}",
            "[a-z]{0,110}",
            payload,
            "[a-z]{0,140}",
            any::<[bool; 2]>(),
            prop::collection::vec(any::<u64>(), 0..70),
            ("[a-z\0é]{0,60}", prop_oneof![0..4i32, any::<i32>()]),
        )
            .prop_map(
                |(
                    room,
                    event,
                    payload,
                    idempotency_key,
                    [exclude_sender, want_receivers],
                    exclude,
                    (key, ack),
                )| {
                    wire::Publish {
                        room,
                        event,
                        payload,
                        idempotency_key,
                        exclude_sender,
                        exclude,
                        want_receivers,
                        key,
                        ack,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn publish_read_by_hand_is_what_the_generated_types_read(id: u32, publish in wire_publish()) {
            let expected = check(
                wire::ClientFrame { id, request: Some(wire::client_frame::Request::Publish(publish.clone())) },
                80,
            );
            let frame = wire::ClientFrame { id, request: Some(wire::client_frame::Request::Publish(publish)) };
            let bytes = Bytes::from(frame.encode_to_vec());
            prop_assert!(decode(&bytes).unwrap().is_some());
            prop_assert_eq!(decode_proto(&bytes, 80), Ok(expected));
        }

        #[test]
        fn bytes_that_one_reading_refuses_the_other_refuses_too(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = Bytes::from(bytes);
            let generated = wire::ClientFrame::decode(bytes.clone());
            match decode(&bytes) {
                Ok(Some(_)) => prop_assert!(generated.is_ok()),
                Ok(None) => {}
                Err(_) => prop_assert!(generated.is_err()),
            }
        }

        #[test]
        fn json_says_the_same_as_protobuf(id: u32, mut publish in wire_publish()) {
            // A list that is too long is cut while it is read, one entry beyond the limit.
            publish.exclude.truncate(EXCLUDE_MAX + 1);
            let frame = wire::ClientFrame { id, request: Some(wire::client_frame::Request::Publish(publish)) };
            let text = json::encode_client(&frame);
            prop_assert_eq!(json::decode_client(text.as_bytes()).unwrap(), frame);
        }
    }

    #[test]
    fn a_frame_full_of_excluded_connections_is_refused_without_keeping_them() {
        let mut publish = vec![0x0a, 1, b'a', 0x12, 1, b'e', 0x42];
        varint::put(&mut publish, 60_000);
        publish.resize(publish.len() + 60_000, 1);
        let mut frame = vec![0x08, 7, 0x2a];
        varint::put(&mut frame, publish.len() as u64);
        frame.extend_from_slice(&publish);
        let frame = Bytes::from(frame);
        let (_, publish) = decode(&frame).unwrap().unwrap();
        assert_eq!(publish.exclude.len(), EXCLUDE_MAX + 1);
        let rejected = decode_proto(&frame, 100).unwrap().unwrap_err();
        assert_eq!((rejected.id, rejected.refusal.code), (7, Code::TooLarge));
    }

    #[test]
    fn an_unknown_group_is_skipped_like_any_unknown_field() {
        // Field 20 as a group around field 21 = 1, within a publish to room "a" with event "e" and text "t".
        let publish = [
            0x0a, 1, b'a', 0x12, 1, b'e', 0x22, 1, b't', 0xa3, 1, 0xa8, 1, 1, 0xa4, 1,
        ];
        let mut frame = vec![0x08, 7, 0x2a, publish.len() as u8];
        frame.extend_from_slice(&publish);
        let message = decode_proto(&frame.into(), 100).unwrap().unwrap();
        let Request::Publish(publish) = message.request else {
            panic!("not a publish")
        };
        assert_eq!(
            (message.id, publish.room.as_str(), publish.event.as_str()),
            (7, "a", "e")
        );
    }

    #[test]
    fn a_field_number_beyond_protobuf_is_refused_by_both_readings() {
        let frame = Bytes::from_static(&[0x2a, 6, 0x80, 0x80, 0x80, 0x80, 0x10, 0]);
        assert_eq!(decode(&frame), Err(DecodeError::Key));
        assert!(wire::ClientFrame::decode(frame).is_err());
    }
}
