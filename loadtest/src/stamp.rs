//! What a measured payload carries, at fixed places, so that a receiver reads it without parsing: who published it, as its
//! how manieth, when it was due, and which slot of a closed loop it holds.

/// Who sent a message, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) publisher: u32,
    /// Counts this publisher's messages, from 0.
    pub(crate) number: u64,
    /// In the run's time.
    pub(crate) due_ns: u64,
    pub(crate) slot: u32,
}

/// The slot of a message that belongs to no closed loop.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// What the payload is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    Binary,
    /// Checked by the broker to be JSON.
    Json,
    Text,
}

/// First bytes of a binary payload.
const MAGIC: [u8; 4] = *b"CLT1";
/// A binary payload's stamp.
const BINARY_BYTES: usize = 4 + 4 + 8 + 8 + 4;

/// A JSON payload is this with its zeros replaced by hexadecimal digits.
const JSON_HEAD: &[u8] =
    br#"{"by":"00000000","n":"0000000000000000","due":"0000000000000000","slot":"00000000","pad":""#;
const JSON_TAIL: &[u8] = br#""}"#;
const JSON_BY: usize = 7;
const JSON_NUMBER: usize = 22;
const JSON_DUE: usize = 47;
const JSON_SLOT: usize = 73;

impl Form {
    /// The shortest payload that holds a stamp, in bytes.
    pub(crate) const fn bytes_min(self) -> usize {
        match self {
            Self::Binary => BINARY_BYTES,
            Self::Json | Self::Text => JSON_HEAD.len() + JSON_TAIL.len(),
        }
    }

    /// A payload of `len` bytes, at least [`Self::bytes_min`], with room for a stamp.
    pub(crate) fn blank(self, len: usize) -> Vec<u8> {
        match self {
            Self::Binary => {
                // Not zeros, lest anything on the way find them easy.
                let mut payload: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(167) ^ 0x5a).collect();
                payload[..4].copy_from_slice(&MAGIC);
                payload
            }
            Self::Json | Self::Text => {
                let mut payload = JSON_HEAD.to_vec();
                let pad = len.saturating_sub(self.bytes_min());
                payload.extend((0..pad).map(|at| b'a' + (at % 26) as u8));
                payload.extend_from_slice(JSON_TAIL);
                payload
            }
        }
    }

    /// Writes the stamp into a payload that [`Self::blank`] made.
    pub(crate) fn write(self, payload: &mut [u8], stamp: Stamp) {
        match self {
            Self::Binary => {
                payload[4..8].copy_from_slice(&stamp.publisher.to_le_bytes());
                payload[8..16].copy_from_slice(&stamp.number.to_le_bytes());
                payload[16..24].copy_from_slice(&stamp.due_ns.to_le_bytes());
                payload[24..28].copy_from_slice(&stamp.slot.to_le_bytes());
            }
            Self::Json | Self::Text => {
                put_hex(&mut payload[JSON_BY..JSON_BY + 8], u64::from(stamp.publisher));
                put_hex(&mut payload[JSON_NUMBER..JSON_NUMBER + 16], stamp.number);
                put_hex(&mut payload[JSON_DUE..JSON_DUE + 16], stamp.due_ns);
                put_hex(&mut payload[JSON_SLOT..JSON_SLOT + 8], u64::from(stamp.slot));
            }
        }
    }

    /// The stamp in a payload, if it is one of ours.
    pub(crate) fn read(self, payload: &[u8]) -> Option<Stamp> {
        match self {
            Self::Binary => {
                let stamp = payload.get(..BINARY_BYTES)?;
                let (magic, stamp) = stamp.split_first_chunk::<4>()?;
                let (publisher, stamp) = stamp.split_first_chunk::<4>()?;
                let (number, stamp) = stamp.split_first_chunk::<8>()?;
                let (due_ns, stamp) = stamp.split_first_chunk::<8>()?;
                let (slot, _) = stamp.split_first_chunk::<4>()?;
                (*magic == MAGIC).then(|| Stamp {
                    publisher: u32::from_le_bytes(*publisher),
                    number: u64::from_le_bytes(*number),
                    due_ns: u64::from_le_bytes(*due_ns),
                    slot: u32::from_le_bytes(*slot),
                })
            }
            Self::Json | Self::Text => Some(Stamp {
                publisher: hex(payload.get(JSON_BY..JSON_BY + 8)?)? as u32,
                number: hex(payload.get(JSON_NUMBER..JSON_NUMBER + 16)?)?,
                due_ns: hex(payload.get(JSON_DUE..JSON_DUE + 16)?)?,
                slot: hex(payload.get(JSON_SLOT..JSON_SLOT + 8)?)? as u32,
            }),
        }
    }
}

fn put_hex(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((value << 4) | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stamp_is_read_as_it_was_written(
            publisher: u32, number: u64, due_ns: u64, slot: u32, more in 0usize..300,
        ) {
            let stamp = Stamp { publisher, number, due_ns, slot };
            for form in [Form::Binary, Form::Json, Form::Text] {
                let mut payload = form.blank(form.bytes_min() + more);
                prop_assert_eq!(payload.len(), form.bytes_min() + more);
                form.write(&mut payload, stamp);
                prop_assert_eq!(form.read(&payload), Some(stamp));
            }
        }

        #[test]
        fn bytes_of_others_are_never_read_as_more_than_a_stamp(payload: Vec<u8>) {
            for form in [Form::Binary, Form::Json] {
                let _ = form.read(&payload);
            }
        }
    }

    #[test]
    fn a_json_payload_is_json_before_and_after_stamping() {
        let mut payload = Form::Json.blank(128);
        assert!(serde_json::from_slice::<serde_json::Value>(&payload).is_ok());
        let stamp = Stamp {
            publisher: 7,
            number: 0xabc,
            due_ns: u64::MAX,
            slot: NO_SLOT,
        };
        Form::Json.write(&mut payload, stamp);
        let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(value["by"], "00000007");
        assert_eq!(value["n"], "0000000000000abc");
        assert_eq!(value["due"], "ffffffffffffffff");
        assert_eq!(value["slot"], "ffffffff");
    }

    #[test]
    fn a_payload_without_our_mark_is_not_ours() {
        assert_eq!(Form::Binary.read(&[0; 128]), None);
        assert_eq!(Form::Binary.read(b"CLT1"), None);
        assert_eq!(Form::Json.read(br#"{"hello":"world"}"#), None);
    }
}
