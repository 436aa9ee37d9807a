//! Frames towards the client.

use bytes::{BufMut, Bytes, BytesMut};
use cauce_protocol::limits::REASON_BYTES_MAX;

/// Kinds of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// Largest payload of a control frame, in bytes (RFC 6455, 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Bytes of the header in front of a payload of `payload_bytes`.
pub const fn header_len(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..126 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Writes the header of a whole, unmasked frame.
pub fn put_header(out: &mut impl BufMut, opcode: Opcode, payload_bytes: usize) {
    out.put_u8(0x80 | opcode as u8);
    match payload_bytes {
        0..126 => out.put_u8(payload_bytes as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(payload_bytes as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(payload_bytes as u64);
        }
    }
}

/// A whole frame around `payload`.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(header_len(payload.len()) + payload.len());
    put_header(&mut out, opcode, payload.len());
    out.put_slice(payload);
    out.freeze()
}

/// A close frame. The reason is cut to what fits, at a character's end.
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = BytesMut::with_capacity(4 + end);
    put_header(&mut out, Opcode::Close, 2 + end);
    out.put_u16(code);
    out.put_slice(&reason.as_bytes()[..end]);
    out.freeze()
}

const _: () = assert!(2 + REASON_BYTES_MAX <= CONTROL_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_take_the_shortest_form() {
        for (payload, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let bytes = frame(Opcode::Binary, &vec![0; payload]);
            assert_eq!(bytes.len(), header + payload);
            assert_eq!(header_len(payload), header);
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let bytes = close(4001, &"é".repeat(100));
        assert_eq!(bytes.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&bytes[4..]).is_ok());
    }
}
