//! The bytes on the wire, read in place and written once: WebSocket frames, pushes and publishes, without a decoder's
//! allocations. What is not a push or a publish is rare, and decoded by the generated types.

use std::ops::Range;

use cauce_protocol::wire;
use prost::Message as _;

use crate::stamp::Form;

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// A WebSocket frame at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) payload: Range<usize>,
}

/// Finds the frame at the start of `input`; None while it is incomplete.
///
/// # Errors
/// If the frame is a fragment, or longer than `bytes_max`.
#[inline]
pub(crate) fn frame(input: &[u8], bytes_max: usize) -> Result<Option<Frame>, &'static str> {
    let [first, second, rest @ ..] = input else {
        return Ok(None);
    };
    if first & 0x80 == 0 || first & 0x0f == 0 {
        return Err("a fragmented message, which this generator does not read");
    }
    let (len, mut at) = match second & 0x7f {
        126 => match rest {
            [a, b, ..] => (usize::from(u16::from_be_bytes([*a, *b])), 4),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(len) => (
                usize::try_from(u64::from_be_bytes(*len)).unwrap_or(usize::MAX),
                10,
            ),
            None => return Ok(None),
        },
        len => (usize::from(len), 2),
    };
    if len > bytes_max {
        return Err("a message longer than this generator reads");
    }
    let mask = if second & 0x80 == 0 {
        None
    } else {
        let Some(mask) = input.get(at..at + 4) else {
            return Ok(None);
        };
        at += 4;
        Some([mask[0], mask[1], mask[2], mask[3]])
    };
    Ok((input.len() >= at + len).then_some(Frame {
        opcode: first & 0x0f,
        mask,
        payload: at..at + len,
    }))
}

/// Appends a client's frame. A mask of zeros masks nothing, and is a mask.
pub(crate) fn put_client_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    put_head(out, opcode, 0x80, payload.len());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Appends a server's frame.
pub(crate) fn put_server_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    put_head(out, opcode, 0, payload.len());
    out.extend_from_slice(payload);
}

fn put_head(out: &mut Vec<u8>, opcode: u8, masked: u8, len: usize) {
    out.push(0x80 | opcode);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ 0..126), _) => out.push(masked | len),
        (_, Ok(len)) => {
            out.push(masked | 126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Takes a varint off the front.
#[inline]
fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Takes the next frame of the protocol (a length and a message) off a WebSocket message.
#[inline]
pub(crate) fn take_message<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(input)?).ok()?;
    let (message, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(message)
}

/// One field of a protobuf message: its number, and its value.
pub(crate) enum Field<'a> {
    Number(u64, u64),
    Bytes(u64, &'a [u8]),
}

/// Takes the next field off the front; None if there is none, or it is of another kind.
#[inline]
pub(crate) fn field<'a>(input: &mut &'a [u8]) -> Option<Field<'a>> {
    let tag = varint(input)?;
    match tag & 7 {
        0 => Some(Field::Number(tag >> 3, varint(input)?)),
        2 => Some(Field::Bytes(tag >> 3, take_message(input)?)),
        _ => None,
    }
}

/// What we need of a push.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Push<'a> {
    pub(crate) room: u64,
    pub(crate) seq: u64,
    pub(crate) payload: &'a [u8],
}

/// The push in a `ServerFrame`; None if it is something else.
#[inline]
pub(crate) fn push(message: &[u8]) -> Option<Push<'_>> {
    let mut outer = message;
    let Some(Field::Bytes(1, mut inner)) = field(&mut outer) else {
        return None;
    };
    let mut push = Push {
        room: 0,
        seq: 0,
        payload: &[],
    };
    while !inner.is_empty() {
        match field(&mut inner)? {
            Field::Number(1, room) => push.room = room,
            Field::Number(2, seq) => push.seq = seq,
            Field::Bytes(4..=6, payload) => push.payload = payload,
            _ => {}
        }
    }
    Some(push)
}

/// What the bare server needs of a publish.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) room: &'a [u8],
    pub(crate) event: &'a [u8],
    /// The payload's field: 3 JSON, 4 text, 5 binary.
    pub(crate) kind: u64,
    pub(crate) payload: &'a [u8],
}

/// The publish in a `ClientFrame` that asks for no answer; None if it is something else.
#[inline]
pub(crate) fn publish(message: &[u8]) -> Option<Publish<'_>> {
    let mut outer = message;
    let Some(Field::Bytes(5, mut inner)) = field(&mut outer) else {
        return None;
    };
    let mut publish = Publish {
        room: &[],
        event: &[],
        kind: 0,
        payload: &[],
    };
    while !inner.is_empty() {
        match field(&mut inner)? {
            Field::Bytes(1, room) => publish.room = room,
            Field::Bytes(2, event) => publish.event = event,
            Field::Bytes(kind @ 3..=5, payload) => (publish.kind, publish.payload) = (kind, payload),
            _ => {}
        }
    }
    Some(publish)
}

/// Appends a whole server frame with the push of this publish.
pub(crate) fn put_push(out: &mut Vec<u8>, room: u64, seq: u64, publish: &Publish<'_>) {
    let (event, payload) = (publish.event, publish.payload);
    let push = 2
        + varint_len(room)
        + varint_len(seq)
        + 1
        + varint_len(event.len() as u64)
        + event.len()
        + 1
        + varint_len(payload.len() as u64)
        + payload.len();
    let message = 1 + varint_len(push as u64) + push;
    put_head(out, BINARY, 0, varint_len(message as u64) + message);
    put_varint(out, message as u64);
    out.push(0x0a);
    put_varint(out, push as u64);
    out.push(0x08);
    put_varint(out, room);
    out.push(0x10);
    put_varint(out, seq);
    out.push(0x1a);
    put_varint(out, event.len() as u64);
    out.extend_from_slice(event);
    // A payload's field in a push is one higher than in a publish.
    out.push(((publish.kind as u8 + 1) << 3) | 2);
    put_varint(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// A client's WebSocket frame with one request.
pub(crate) fn request(id: u32, request: wire::client_frame::Request) -> Vec<u8> {
    let message = wire::ClientFrame {
        id,
        request: Some(request),
    }
    .encode_length_delimited_to_vec();
    let mut out = Vec::with_capacity(message.len() + 14);
    put_client_frame(&mut out, BINARY, &message);
    out
}

/// A server's WebSocket frame with one message.
pub(crate) fn server_message(message: wire::server_frame::Message) -> Vec<u8> {
    let message = wire::ServerFrame {
        message: Some(message),
    }
    .encode_length_delimited_to_vec();
    let mut out = Vec::with_capacity(message.len() + 10);
    put_server_frame(&mut out, BINARY, &message);
    out
}

/// A publish that is encoded once; only its stamp changes.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) frame: Vec<u8>,
    /// Where the payload lies in the frame.
    pub(crate) payload: Range<usize>,
}

impl Template {
    pub(crate) fn new(room: &str, event: &str, form: Form, payload_bytes: usize) -> Self {
        use wire::publish::Payload;
        let payload = form.blank(payload_bytes.max(form.bytes_min()));
        let len = payload.len();
        let payload = match form {
            Form::Binary => Payload::Binary(payload.into()),
            Form::Json => Payload::Json(payload.into()),
            Form::Text => Payload::Text(String::from_utf8(payload).unwrap_or_default()),
        };
        let frame = request(
            0,
            wire::client_frame::Request::Publish(wire::Publish {
                room: room.into(),
                event: event.into(),
                payload: Some(payload),
                ..wire::Publish::default()
            }),
        );
        // Fields are written in the order of their numbers, and none after the payload is set.
        let payload = frame.len() - len..frame.len();
        Self { frame, payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: usize = 1 << 20;

    fn template_publish(template: &Template) -> wire::Publish {
        let frame = frame(&template.frame, ANY).unwrap().unwrap();
        let decoded = wire::ClientFrame::decode_length_delimited(&template.frame[frame.payload]).unwrap();
        match decoded.request {
            Some(wire::client_frame::Request::Publish(publish)) => publish,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn stamping_a_template_changes_the_payload_and_nothing_else() {
        for form in [Form::Binary, Form::Json, Form::Text] {
            let mut template = Template::new("loadtest:1", "m", form, 128);
            let before = template_publish(&template);
            let stamp = crate::stamp::Stamp {
                publisher: 3,
                number: 9,
                due_ns: 1 << 40,
                slot: 1,
            };
            let range = template.payload.clone();
            form.write(&mut template.frame[range.clone()], stamp);
            let after = template_publish(&template);
            assert_eq!((after.room, after.event), (before.room, before.event));
            assert_ne!(after.payload, before.payload);
            assert_eq!(form.read(&template.frame[range]), Some(stamp));
        }
    }

    #[test]
    fn a_long_frame_is_incomplete_until_its_last_byte() {
        for len in [0usize, 125, 126, 65_535, 65_536] {
            let mut out = Vec::new();
            put_client_frame(&mut out, BINARY, &vec![7; len]);
            let whole = frame(&out, ANY).unwrap().unwrap();
            assert_eq!(whole.payload.len(), len);
            assert_eq!(whole.mask, Some([0; 4]));
            for cut in [out.len() - 1, 0, 1, 3, 5] {
                if cut < out.len() {
                    assert_eq!(frame(&out[..cut], ANY), Ok(None));
                }
            }
        }
    }

    #[test]
    fn a_frame_beyond_the_bound_and_a_fragment_are_refused() {
        let mut out = Vec::new();
        put_server_frame(&mut out, BINARY, &[0; 300]);
        assert!(frame(&out, 299).is_err());
        assert!(frame(&[0x02, 0x00], ANY).is_err());
        assert!(frame(&[0x80, 0x00], ANY).is_err());
    }

    proptest! {
        /// Our reader and writer of pushes against the generated types.
        #[test]
        fn pushes_are_read_and_written_as_the_schema_says(
            room in 0u64..1 << 53, seq in 0u64..1 << 53, event in "[a-z]{1,20}", payload: Vec<u8>, kind in 3u64..=5,
        ) {
            let payload = if kind == 4 { vec![b'x'; payload.len()] } else { payload };
            let publish = Publish { room: b"", event: event.as_bytes(), kind, payload: &payload };
            let mut out = Vec::new();
            put_push(&mut out, room, seq, &publish);
            let found = frame(&out, ANY).unwrap().unwrap();
            prop_assert_eq!(found.payload.end, out.len());
            let decoded = wire::ServerFrame::decode_length_delimited(&out[found.payload.clone()]).unwrap();
            let Some(wire::server_frame::Message::Push(theirs)) = decoded.message else { panic!() };
            prop_assert_eq!((theirs.room, theirs.seq, theirs.event), (room, seq, event.clone()));
            let bytes = match theirs.payload.unwrap() {
                wire::push::Payload::Json(b) | wire::push::Payload::Binary(b) => b.to_vec(),
                wire::push::Payload::Text(t) => t.into_bytes(),
            };
            prop_assert_eq!(&bytes, &payload);
            let mut rest = &out[found.payload];
            let ours = push(take_message(&mut rest).unwrap()).unwrap();
            prop_assert_eq!(ours, Push { room, seq, payload: &payload });
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(input: Vec<u8>) {
            let _ = frame(&input, ANY);
            let _ = push(&input);
            let _ = publish(&input);
            let _ = take_message(&mut &input[..]);
        }
    }
}
