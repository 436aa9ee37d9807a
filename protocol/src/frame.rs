//! Frame boundaries: `varint length` + message. Too few bytes is an ordinary answer, not an error, and costs no allocation.
//! A length is judged before a byte behind it is kept.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::code::{Code, Refusal};
use crate::limits::FRAMES_A_MESSAGE_MAX;
use crate::varint;

/// Bytes that break the protocol. The connection cannot go on: nobody knows where the next message begins, or the peer is
/// not speaking this protocol at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A frame of `bytes`, where `max` are allowed.
    FrameTooLarge { bytes: u64, max: usize },
    /// More frames in one WebSocket message than [`FRAMES_A_MESSAGE_MAX`].
    TooManyFrames,
    /// A length points past the end.
    Truncated,
    /// A number of more than 64 bits.
    Varint,
    /// A field key that protobuf does not have.
    Key,
    /// Text that is not UTF-8.
    Utf8,
    /// Not what the schema says.
    Protobuf,
    /// Not a JSON object with the fields of the schema, from this column on.
    Json { column: usize },
    /// Two requests, recipients or payloads in one JSON message, where the schema has a choice of one.
    Choice,
    /// `binary` in a JSON message is not base64.
    Base64,
}

impl DecodeError {
    /// The code to close with.
    pub const fn code(self) -> Code {
        match self {
            Self::FrameTooLarge { .. } | Self::TooManyFrames => Code::TooLarge,
            _ => Code::Malformed,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FrameTooLarge { bytes, max } => write!(f, "frame of {bytes} bytes, allowed are {max}"),
            Self::TooManyFrames => write!(f, "more than {FRAMES_A_MESSAGE_MAX} frames in one message"),
            Self::Truncated => write!(f, "a length points past the end of the message"),
            Self::Varint => write!(f, "a number has more than 64 bits"),
            Self::Key => write!(f, "a field key is not protobuf"),
            Self::Utf8 => write!(f, "text is not UTF-8"),
            Self::Protobuf => write!(f, "not a message of the schema cauce.v1"),
            Self::Json { column } => write!(f, "not a JSON message of cauce.v1, see column {column}"),
            Self::Choice => write!(f, "two requests, recipients or payloads in one message; send one"),
            Self::Base64 => write!(f, "binary is not base64 (standard alphabet, with padding)"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The whole frames of one WebSocket message, in place.
#[derive(Debug)]
pub struct Frames {
    rest: Bytes,
    frame_bytes_max: usize,
    left: usize,
}

impl Frames {
    pub fn new(message: Bytes, frame_bytes_max: usize) -> Self {
        Self {
            rest: message,
            frame_bytes_max,
            left: FRAMES_A_MESSAGE_MAX,
        }
    }
}

impl Iterator for Frames {
    type Item = Result<Bytes, DecodeError>;

    /// After an error there is no more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = if self.left == 0 {
            Err(DecodeError::TooManyFrames)
        } else {
            self.left -= 1;
            split(&self.rest, self.frame_bytes_max).and_then(|frame| frame.ok_or(DecodeError::Truncated))
        };
        match frame {
            Ok((start, end)) => {
                let mut frame = self.rest.split_to(end);
                frame.advance(start);
                Some(Ok(frame))
            }
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}

/// The next frame of a byte stream, taken off the front of `buffer`; `None` until it is whole.
///
/// # Errors
/// If the length is not a number or beyond `frame_bytes_max`; the stream is then lost.
pub fn take_frame(buffer: &mut BytesMut, frame_bytes_max: usize) -> Result<Option<Bytes>, DecodeError> {
    let Some((start, end)) = split(buffer, frame_bytes_max)? else {
        return Ok(None);
    };
    let mut frame = buffer.split_to(end).freeze();
    frame.advance(start);
    Ok(Some(frame))
}

/// Where the first frame's message begins and ends.
fn split(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<(usize, usize)>, DecodeError> {
    let Some((len, start)) = varint::peek(bytes)? else {
        return Ok(None);
    };
    match usize::try_from(len) {
        Ok(len) if len <= frame_bytes_max => {
            Ok(Some((start, start + len)).filter(|&(_, end)| end <= bytes.len()))
        }
        _ => Err(DecodeError::FrameTooLarge {
            bytes: len,
            max: frame_bytes_max,
        }),
    }
}

/// Bytes of a frame around a message of `message_bytes`.
pub const fn framed_len(message_bytes: usize) -> usize {
    varint::len(message_bytes as u64) + message_bytes
}

/// Writes the length that goes in front of a message of `message_bytes`.
pub fn put_length(out: &mut impl BufMut, message_bytes: usize) {
    varint::put(out, message_bytes as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(messages: &[Vec<u8>]) -> BytesMut {
        let mut out = BytesMut::new();
        for message in messages {
            put_length(&mut out, message.len());
            out.extend_from_slice(message);
        }
        out
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_wherever_the_stream_is_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cut in 1usize..50,
        ) {
            let stream = framed(&messages);
            let whole: Vec<_> = Frames::new(stream.clone().freeze(), 1000).map(|f| f.unwrap().to_vec()).collect();
            prop_assert_eq!(&whole, &messages);

            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = take_frame(&mut buffer, 1000).unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, messages);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic_or_run_on(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Frames::new(bytes.into(), 64).count() <= 200);
        }
    }

    #[test]
    fn a_length_is_refused_before_its_bytes_arrive() {
        let mut buffer = BytesMut::new();
        put_length(&mut buffer, 65);
        assert_eq!(
            take_frame(&mut buffer, 64),
            Err(DecodeError::FrameTooLarge { bytes: 65, max: 64 })
        );
        let mut buffer = BytesMut::new();
        varint::put(&mut buffer, u64::MAX);
        assert!(matches!(
            take_frame(&mut buffer, 64),
            Err(DecodeError::FrameTooLarge { bytes: u64::MAX, .. })
        ));
    }

    #[test]
    fn the_count_of_frames_is_bounded_and_an_error_ends_the_walk() {
        let empties = Bytes::from(vec![0u8; FRAMES_A_MESSAGE_MAX + 1]);
        let frames: Vec<_> = Frames::new(empties, 64).collect();
        assert_eq!(frames.len(), FRAMES_A_MESSAGE_MAX + 1);
        assert_eq!(frames.last(), Some(&Err(DecodeError::TooManyFrames)));
        assert_eq!(
            Frames::new(Bytes::from_static(&[5, 1]), 64).collect::<Vec<_>>(),
            [Err(DecodeError::Truncated)]
        );
    }
}
