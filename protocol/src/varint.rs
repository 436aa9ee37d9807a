//! Protobuf's base-128 numbers and field keys: just enough to read and write the hot messages by hand.

use bytes::{BufMut, Bytes};

use crate::frame::DecodeError;

/// Bytes that `value` takes.
pub(crate) const fn len(value: u64) -> usize {
    // One byte for each started group of seven bits; `| 1` because zero takes one too.
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

pub(crate) fn put(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The number at the front of `input` and how many bytes it took; `None` if it goes on past the end.
///
/// # Errors
/// If it does not fit into 64 bits.
pub(crate) fn peek(input: &[u8]) -> Result<Option<(u64, usize)>, DecodeError> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().take(10).enumerate() {
        if i == 9 && byte > 1 {
            return Err(DecodeError::Varint);
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok(Some((value, i + 1)));
        }
    }
    if input.len() >= 10 {
        Err(DecodeError::Varint)
    } else {
        Ok(None)
    }
}

/// Reads fields of a protobuf message one by one.
pub(crate) struct Reader<'a> {
    message: &'a Bytes,
    at: usize,
}

/// What a field holds; fixed-width kinds do not occur in our schema and are skipped.
pub(crate) enum Value {
    Varint(u64),
    Bytes(Bytes),
    Skipped,
    /// Where a group begins or ends: protobuf 3 has none, but its readers still skip them. Not paired here.
    Group,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a Bytes) -> Self {
        Self { message, at: 0 }
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let (value, len) = peek(&self.message[self.at..])?.ok_or(DecodeError::Truncated)?;
        self.at += len;
        Ok(value)
    }

    fn take(&mut self, len: u64) -> Result<std::ops::Range<usize>, DecodeError> {
        let left = self.message.len() - self.at;
        let len = usize::try_from(len)
            .ok()
            .filter(|&len| len <= left)
            .ok_or(DecodeError::Truncated)?;
        let range = self.at..self.at + len;
        self.at = range.end;
        Ok(range)
    }

    /// The next field's number and value.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value)>, DecodeError> {
        if self.at == self.message.len() {
            return Ok(None);
        }
        let key = u32::try_from(self.number()?).map_err(|_| DecodeError::Key)?;
        let field = key >> 3;
        if field == 0 {
            return Err(DecodeError::Key);
        }
        let value = match key & 7 {
            0 => Value::Varint(self.number()?),
            1 => self.take(8).map(|_| Value::Skipped)?,
            2 => {
                let len = self.number()?;
                let range = self.take(len)?;
                Value::Bytes(self.message.slice(range))
            }
            5 => self.take(4).map(|_| Value::Skipped)?,
            3 | 4 => Value::Group,
            // 6 and 7 never existed.
            _ => return Err(DecodeError::Key),
        };
        Ok(Some((field, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_survive_the_way_there_and_back(value: u64) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            prop_assert_eq!(peek(&out), Ok(Some((value, out.len()))));
            prop_assert_eq!(peek(&out[..out.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused() {
        assert_eq!(peek(&[0xff; 10]), Err(DecodeError::Varint));
        assert_eq!(
            peek(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
            Err(DecodeError::Varint)
        );
        assert_eq!(peek(&[0x80; 11]), Err(DecodeError::Varint));
    }
}
