//! What the broker says, written in either dialect.
//!
//! A push is written once for all its subscribers, so it is written by hand into exactly the bytes it takes; everything else
//! goes through the generated types. A property test reads every push back with them.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

use crate::code::Refusal;
use crate::frame::{framed_len, put_length};
use crate::ids::{RoomId, Seq};
use crate::json;
use crate::payload::Payload;
use crate::varint;
use crate::wire;
use crate::wire::reply::Outcome;

/// How a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Length-prefixed protobuf, many frames a message.
    Proto,
    /// One JSON text a message.
    Json,
}

mod field {
    pub(super) const SERVER_PUSH: u64 = 1;
    pub(super) const SERVER_DIRECT: u64 = 3;
    pub(super) const PUSH_ROOM: u64 = 1;
    pub(super) const PUSH_SEQ: u64 = 2;
    pub(super) const PUSH_EVENT: u64 = 3;
    pub(super) const PUSH_JSON: u64 = 4;
    pub(super) const PUSH_KEY: u64 = 7;
    pub(super) const DIRECT_EVENT: u64 = 1;
    pub(super) const DIRECT_JSON: u64 = 2;
}

const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

/// One message of a room, not yet written. Lends everything; `len` before `put` so that the buffer is allocated once.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    pub room: RoomId,
    pub seq: Seq,
    pub event: &'a str,
    pub payload: &'a Payload,
    /// Empty means none, and costs nothing.
    pub key: &'a str,
}

impl Push<'_> {
    fn fields_len(&self) -> usize {
        // Every key of the schema is one byte: field numbers stay below 16.
        1 + varint::len(self.room.0)
            + 1
            + varint::len(self.seq.0)
            + 1
            + framed_len(self.event.len())
            + 1
            + framed_len(self.payload.len())
            + match self.key {
                "" => 0,
                key => 1 + framed_len(key.len()),
            }
    }

    fn message_len(&self) -> usize {
        1 + framed_len(self.fields_len())
    }

    /// Bytes of the whole protobuf frame, length prefix included.
    pub fn len(&self) -> usize {
        framed_len(self.message_len())
    }

    /// A push is never empty; for symmetry with `len`.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the whole protobuf frame.
    pub fn put(&self, out: &mut impl BufMut) {
        put_length(out, self.message_len());
        put_message(out, field::SERVER_PUSH, self.fields_len());
        varint::put(out, field::PUSH_ROOM << 3 | VARINT);
        varint::put(out, self.room.0);
        varint::put(out, field::PUSH_SEQ << 3 | VARINT);
        varint::put(out, self.seq.0);
        put_bytes(out, field::PUSH_EVENT, self.event.as_bytes());
        put_bytes(
            out,
            field::PUSH_JSON + payload_offset(self.payload),
            self.payload.as_bytes(),
        );
        if !self.key.is_empty() {
            put_bytes(out, field::PUSH_KEY, self.key.as_bytes());
        }
    }

    /// The same as JSON.
    pub fn to_json(&self) -> String {
        json::push(self)
    }
}

/// A message to people or connections, not yet written.
#[derive(Clone, Copy, Debug)]
pub struct Direct<'a> {
    pub event: &'a str,
    pub payload: &'a Payload,
}

impl Direct<'_> {
    fn fields_len(&self) -> usize {
        1 + framed_len(self.event.len()) + 1 + framed_len(self.payload.len())
    }

    fn message_len(&self) -> usize {
        1 + framed_len(self.fields_len())
    }

    /// Bytes of the whole protobuf frame, length prefix included.
    pub fn len(&self) -> usize {
        framed_len(self.message_len())
    }

    /// Never empty; for symmetry with `len`.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the whole protobuf frame.
    pub fn put(&self, out: &mut impl BufMut) {
        put_length(out, self.message_len());
        put_message(out, field::SERVER_DIRECT, self.fields_len());
        put_bytes(out, field::DIRECT_EVENT, self.event.as_bytes());
        put_bytes(
            out,
            field::DIRECT_JSON + payload_offset(self.payload),
            self.payload.as_bytes(),
        );
    }

    /// The same as JSON.
    pub fn to_json(&self) -> String {
        json::direct(self)
    }
}

/// The schema numbers the payload kinds json, text, binary in a row.
fn payload_offset(payload: &Payload) -> u64 {
    match payload {
        Payload::Json(_) => 0,
        Payload::Text(_) => 1,
        Payload::Binary(_) => 2,
    }
}

fn put_message(out: &mut impl BufMut, number: u64, len: usize) {
    varint::put(out, number << 3 | LENGTH_DELIMITED);
    put_length(out, len);
}

fn put_bytes(out: &mut impl BufMut, number: u64, bytes: &[u8]) {
    put_message(out, number, bytes.len());
    out.put_slice(bytes);
}

/// Writes any frame in the dialect: protobuf with its length, JSON without.
pub fn encode(frame: &wire::ServerFrame, dialect: Dialect) -> Bytes {
    match dialect {
        Dialect::Proto => {
            let mut out = BytesMut::with_capacity(framed_len(frame.encoded_len()));
            // A `BytesMut` grows as needed, so this cannot fail.
            let _ = frame.encode_length_delimited(&mut out);
            out.freeze()
        }
        Dialect::Json => json::encode_server(frame).into(),
    }
}

/// A reply as a frame.
pub fn reply(id: u32, outcome: impl Into<Outcome>) -> wire::ServerFrame {
    let outcome = Some(outcome.into());
    wire::Reply { id, outcome }.into()
}

/// The word before a close that tells code, reason and time to wait.
pub fn goaway(refusal: &Refusal) -> wire::ServerFrame {
    let error = Some(refusal.into());
    wire::Goaway { error }.into()
}

/// The room went on without anything for this subscriber.
pub fn advance(room: RoomId, seq: Seq) -> wire::ServerFrame {
    wire::Advance {
        room: room.0,
        seq: seq.0,
    }
    .into()
}

impl From<&Refusal> for wire::Error {
    fn from(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code.number().into(),
            name: refusal.code.name().into(),
            message: refusal.message.clone().into_owned(),
            retryable: refusal.code.is_retryable(),
            retry_after_ms: refusal.retry_after_ms,
        }
    }
}

impl From<&Refusal> for Outcome {
    fn from(refusal: &Refusal) -> Self {
        Self::Error(refusal.into())
    }
}

macro_rules! outcomes {
    ($($message:ident),*) => {
        $(impl From<wire::$message> for Outcome {
            fn from(message: wire::$message) -> Self {
                Self::$message(message)
            }
        })*
    };
}
outcomes!(
    Welcome,
    Subscribed,
    Unsubscribed,
    Published,
    Sent,
    Answer,
    Pong,
    Refreshed,
    HistoryPage,
    PresencePage,
    Done,
    Notified,
    NotificationPage,
    NotificationsRead
);

macro_rules! messages {
    ($($message:ident),*) => {
        $(impl From<wire::$message> for wire::ServerFrame {
            fn from(message: wire::$message) -> Self {
                Self {
                    message: Some(wire::server_frame::Message::$message(message)),
                }
            }
        })*
    };
}
messages!(
    Reply,
    Advance,
    Goaway,
    Gap,
    Ended,
    PresenceChange,
    Invoke,
    Revoke,
    Notification,
    NotificationsRead,
    State
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payloads() -> impl Strategy<Value = Payload> {
        prop_oneof![
            "[a-z]{0,200}".prop_map(|s| Payload::Json(format!("{s:?}").into())),
            any::<String>().prop_map(|s| Payload::Text(s.into())),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|b| Payload::Binary(b.into())),
        ]
    }

    proptest! {
        #[test]
        fn a_push_written_by_hand_is_what_the_generated_types_read(
            room: u64, seq: u64, event in "[a-z:_]{1,100}", payload in payloads(), key in "[a-zé]{0,140}",
        ) {
            let push = Push { room: RoomId(room), seq: Seq(seq), event: &event, payload: &payload, key: &key };
            let mut out = BytesMut::new();
            push.put(&mut out);
            prop_assert_eq!(out.len(), push.len());
            let frame = wire::ServerFrame::decode_length_delimited(out.freeze()).unwrap();
            let Some(wire::server_frame::Message::Push(read)) = frame.message else { panic!("not a push") };
            prop_assert_eq!((read.room, read.seq, &read.event, &read.key), (room, seq, &event, &key));
            use wire::push::Payload as P;
            let read = match read.payload.unwrap() {
                P::Json(b) => Payload::Json(b),
                P::Text(t) => Payload::Text(t.into()),
                P::Binary(b) => Payload::Binary(b),
            };
            prop_assert_eq!(read, payload);
        }

        #[test]
        fn a_direct_message_too(event in "[a-z]{1,100}", payload in payloads()) {
            let direct = Direct { event: &event, payload: &payload };
            let mut out = BytesMut::new();
            direct.put(&mut out);
            prop_assert_eq!(out.len(), direct.len());
            let frame = wire::ServerFrame::decode_length_delimited(out.freeze()).unwrap();
            let Some(wire::server_frame::Message::Direct(read)) = frame.message else { panic!("not direct") };
            prop_assert_eq!(read.event, event);
        }
    }

    #[test]
    fn overhead_of_a_push_is_about_ten_bytes() {
        let payload = Payload::Json(Bytes::from(vec![b'1'; 100]));
        let push = Push {
            room: RoomId(100),
            seq: Seq(10_000),
            event: "m",
            payload: &payload,
            key: "",
        };
        assert_eq!(push.len() - "m".len() - payload.len(), 12);
    }
}
