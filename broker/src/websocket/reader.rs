//! Frames from the client: incremental, unmasked in place, bounded.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::frame::{CONTROL_BYTES_MAX, Opcode};

/// What the peer said. Payloads are copies out of the shard's scratch buffer, so that holding one pins nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole text message, valid UTF-8.
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong(Bytes),
    /// The peer closes; nothing after it counts.
    Close {
        code: Option<u16>,
    },
}

/// How a peer broke RFC 6455. There is no going on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Reserved bits without an extension, a reserved opcode, or a control frame that is long or in pieces.
    Frame(&'static str),
    /// Client frames must be masked.
    Unmasked,
    /// A message longer than allowed.
    TooLarge { bytes: u64, max: usize },
    /// A message in more pieces than allowed.
    TooManyFragments { max: usize },
    /// Text that is not UTF-8.
    Utf8,
}

impl Violation {
    /// The close code of RFC 6455, 7.4.1.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Frame(_) | Self::Unmasked => 1002,
            Self::Utf8 => 1007,
            Self::TooManyFragments { .. } => 1008,
            Self::TooLarge { .. } => 1009,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(what) => f.write_str(what),
            Self::Unmasked => f.write_str("client frames must be masked"),
            Self::TooLarge { bytes, max } => write!(f, "message of {bytes} bytes, allowed are {max}"),
            Self::TooManyFragments { max } => write!(f, "message in more than {max} fragments"),
            Self::Utf8 => f.write_str("text is not UTF-8"),
        }
    }
}

/// Bounds of what a peer may send.
#[derive(Clone, Copy, Debug)]
pub struct ReaderLimits {
    /// A whole message, in bytes.
    pub message_bytes_max: usize,
    /// Pieces of one message.
    pub fragments_max: usize,
}

/// One connection's reading state: empty, and without a heap buffer, between messages.
#[derive(Debug, Default)]
pub struct Reader {
    /// The beginning of a frame whose rest has not come. Boxed, because hardly any peer has one.
    partial: Option<Box<BytesMut>>,
    /// A message in pieces.
    fragmented: Option<Box<Fragmented>>,
    closed: bool,
}

#[derive(Debug)]
struct Fragmented {
    opcode: Opcode,
    bytes: BytesMut,
    count: usize,
}

struct Header {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Of the header, in bytes.
    len: usize,
    payload: usize,
}

impl Reader {
    /// Takes what was read from the socket (and destroys it: it is unmasked in place) and appends what it meant to `events`.
    /// Events that came before a violation are there when it is returned.
    ///
    /// # Errors
    /// The first violation; the reader takes nothing after it.
    pub fn read(
        &mut self,
        input: &mut [u8],
        limits: ReaderLimits,
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        let Some(mut partial) = self.partial.take() else {
            let used = self.read_frames(input, limits, events)?;
            self.keep(&input[used..], limits);
            return Ok(());
        };
        // The rest of a frame that began earlier: complete it, one copy.
        partial.extend_from_slice(input);
        let used = self.read_frames(&mut partial, limits, events)?;
        if used == 0 {
            // Still the same frame, in a buffer that was made for it.
            self.partial = Some(partial);
        } else {
            // What is left gets a buffer of its own size: the old one has held a whole read, and would keep all of it.
            self.keep(&partial[used..], limits);
        }
        Ok(())
    }

    /// Whether a message has begun and not ended. Such a peer is on a timer.
    pub fn is_incomplete(&self) -> bool {
        self.partial.is_some() || self.fragmented.is_some()
    }

    /// Whether what has begun and not ended may have begun before these events: a data message ends whatever was open, and a
    /// control frame ends a piece of a frame, but not a message in pieces.
    pub fn has_waited(&self, events: &[Event]) -> bool {
        let data = |event: &Event| matches!(event, Event::Text(_) | Event::Binary(_));
        self.is_incomplete() && !events.iter().any(data) && (events.is_empty() || self.fragmented.is_some())
    }

    /// Bytes kept for this peer.
    pub fn buffered_bytes(&self) -> usize {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.capacity());
        partial + self.fragmented.as_ref().map_or(0, |f| f.bytes.capacity())
    }

    fn keep(&mut self, rest: &[u8], limits: ReaderLimits) {
        if self.closed || rest.is_empty() {
            return;
        }
        // The whole frame's size is known in most cases: reserve it once. It has been judged by then.
        let whole = match self.header(rest, limits) {
            Ok(Some(header)) => header.len + header.payload,
            _ => rest.len(),
        };
        let mut partial = BytesMut::with_capacity(whole.max(rest.len()));
        partial.extend_from_slice(rest);
        self.partial = Some(Box::new(partial));
    }

    fn read_frames(
        &mut self,
        input: &mut [u8],
        limits: ReaderLimits,
        events: &mut Vec<Event>,
    ) -> Result<usize, Violation> {
        let mut at = 0;
        while !self.closed {
            let Some(header) = self.header(&input[at..], limits)? else {
                break;
            };
            let start = at + header.len;
            let Some(payload) = input.get_mut(start..start + header.payload) else {
                break;
            };
            unmask(payload, header.mask);
            self.frame(&header, payload, limits, events)?;
            at = start + header.payload;
        }
        Ok(at)
    }

    /// The header at the front of `input`, judged; `None` until it is whole.
    fn header(&self, input: &[u8], limits: ReaderLimits) -> Result<Option<Header>, Violation> {
        let &[first, second, ref rest @ ..] = input else {
            return Ok(None);
        };
        let fin = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err(Violation::Frame(
                "reserved bits are set, but no extension was agreed on",
            ));
        }
        let opcode = match first & 0x0f {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(Violation::Frame("reserved opcode")),
        };
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        let (payload, extended) = match second & 0x7f {
            126 => match rest.first_chunk::<2>() {
                Some(len) => (u64::from(u16::from_be_bytes(*len)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(len) => (u64::from_be_bytes(*len), 8),
                None => return Ok(None),
            },
            len => (u64::from(len), 0),
        };
        let is_control = opcode as u8 >= 0x8;
        if is_control && (!fin || payload > CONTROL_BYTES_MAX as u64) {
            return Err(Violation::Frame(
                "a control frame must be whole and of at most 125 bytes",
            ));
        }
        match (opcode, &self.fragmented) {
            (Opcode::Continuation, None) => {
                return Err(Violation::Frame("a continuation of nothing"));
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::Frame("a new message inside an unfinished one"));
            }
            _ => {}
        }
        let before = match &self.fragmented {
            Some(message) if !is_control => message.bytes.len() as u64,
            _ => 0,
        };
        let max = limits.message_bytes_max;
        match before.checked_add(payload) {
            Some(bytes) if bytes <= max as u64 => {}
            bytes => {
                return Err(Violation::TooLarge {
                    bytes: bytes.unwrap_or(u64::MAX),
                    max,
                });
            }
        }
        let Some(mask) = rest.get(extended..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(None);
        };
        // Not above `max` or a control frame's 125, so it fits.
        Ok(Some(Header {
            fin,
            opcode,
            mask: *mask,
            len: 2 + extended + 4,
            payload: payload as usize,
        }))
    }

    fn frame(
        &mut self,
        header: &Header,
        payload: &[u8],
        limits: ReaderLimits,
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        match header.opcode {
            Opcode::Ping => events.push(Event::Ping(Bytes::copy_from_slice(payload))),
            Opcode::Pong => events.push(Event::Pong(Bytes::copy_from_slice(payload))),
            Opcode::Close => {
                let code = close_code(payload)?;
                self.closed = true;
                self.fragmented = None;
                events.push(Event::Close { code });
            }
            Opcode::Text | Opcode::Binary if header.fin => {
                events.push(message(header.opcode, Bytes::copy_from_slice(payload))?);
            }
            Opcode::Text | Opcode::Binary => {
                self.fragmented = Some(Box::new(Fragmented {
                    opcode: header.opcode,
                    bytes: BytesMut::from(payload),
                    count: 1,
                }));
            }
            Opcode::Continuation => {
                // The header was refused if there is nothing to continue.
                let Some(fragmented) = &mut self.fragmented else {
                    return Ok(());
                };
                fragmented.count += 1;
                if fragmented.count > limits.fragments_max {
                    return Err(Violation::TooManyFragments {
                        max: limits.fragments_max,
                    });
                }
                fragmented.bytes.extend_from_slice(payload);
                if header.fin
                    && let Some(whole) = self.fragmented.take()
                {
                    events.push(message(whole.opcode, whole.bytes.freeze())?);
                }
            }
        }
        Ok(())
    }
}

fn message(opcode: Opcode, bytes: Bytes) -> Result<Event, Violation> {
    if opcode == Opcode::Binary {
        return Ok(Event::Binary(bytes));
    }
    match std::str::from_utf8(&bytes) {
        Ok(_) => Ok(Event::Text(bytes)),
        Err(_) => Err(Violation::Utf8),
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::Frame("a close code has two bytes")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Frame("a close code that must not be sent"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Violation::Utf8);
    }
    Ok(Some(code))
}

/// Sixteen bytes a step, which the compiler turns into vector instructions.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u128::from_ne_bytes([mask; 4].concat().try_into().unwrap_or([0; 16]));
    let mut chunks = payload.chunks_exact_mut(16);
    for chunk in &mut chunks {
        if let Ok(bytes) = <[u8; 16]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u128::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
        }
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Entry for the fuzzer: however the bytes are cut, the same events come out and nothing beyond the limits is kept.
#[doc(hidden)]
pub fn fuzz_reader(data: &[u8]) {
    let limits = ReaderLimits {
        message_bytes_max: 256,
        fragments_max: 8,
    };
    let Some((&cut, data)) = data.split_first() else {
        return;
    };
    let (mut whole, mut pieces) = (Reader::default(), Reader::default());
    let (mut expected, mut events) = (Vec::new(), Vec::new());
    let verdict = whole.read(&mut data.to_vec(), limits, &mut expected);
    let mut piecewise = Ok(());
    for piece in data.chunks(usize::from(cut).max(1)) {
        piecewise = pieces.read(&mut piece.to_vec(), limits, &mut events);
        assert!(
            pieces.buffered_bytes() <= 4 * (limits.message_bytes_max + 256 + 14),
            "kept too much"
        );
        if piecewise.is_err() {
            break;
        }
    }
    assert_eq!((verdict, expected), (piecewise, events));
}

#[cfg(test)]
mod tests;
