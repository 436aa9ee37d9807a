//! Bounds on a text before it is parsed: size, nesting, number of values. One pass, no recursion, no allocation.
//!
//! The parser behind it builds a tree; what this pass lets through bounds that tree, so it must never count fewer
//! values or levels than the parser will build. For text that is no JSON it may count anything: the parser refuses it.

use std::fmt;

/// Largest frame read, in bytes. The largest seen from a device has 7 kB; the vendor's own server caps here too.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Deepest nesting of objects and arrays read, the frame itself being 1. Real statuses reach 6.
pub const FRAME_DEPTH_MAX: usize = 16;

/// Most values (members and elements) in one frame. A full status has about 140; a tree of this many takes about 1 MiB.
pub const FRAME_VALUES_MAX: usize = 16 * 1024;

/// Why a text is no frame. Nothing of it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Nested deeper than [`FRAME_DEPTH_MAX`].
    TooDeep,
    /// Larger than [`FRAME_BYTES_MAX`].
    TooLarge,
    /// More values than [`FRAME_VALUES_MAX`].
    TooMany,
    /// Not JSON, not UTF-8, or a member of the frame itself comes twice.
    NotJson,
    /// JSON, but not an object. Batches (arrays) are not part of the protocol.
    NotObject,
}

impl FrameError {
    /// Stable name for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooDeep => "frame-too-deep",
            Self::TooLarge => "frame-too-large",
            Self::TooMany => "frame-too-many-values",
            Self::NotJson => "frame-not-json",
            Self::NotObject => "frame-not-object",
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep => write!(f, "frame nests deeper than {FRAME_DEPTH_MAX} levels"),
            Self::TooLarge => write!(f, "frame is larger than {FRAME_BYTES_MAX} bytes"),
            Self::TooMany => write!(f, "frame holds more than {FRAME_VALUES_MAX} values"),
            Self::NotJson => f.write_str("frame is not JSON text"),
            Self::NotObject => f.write_str("frame is JSON but not an object"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Checks the three bounds.
pub(super) fn check(text: &[u8]) -> Result<(), FrameError> {
    if text.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge);
    }
    let mut depth = 0_usize;
    let mut values = 1_usize;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                depth += 1;
                values += 1;
                if depth > FRAME_DEPTH_MAX {
                    return Err(FrameError::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => {
                values += 1;
                if values > FRAME_VALUES_MAX {
                    return Err(FrameError::TooMany);
                }
            }
            _ => {}
        }
    }
    if values > FRAME_VALUES_MAX {
        Err(FrameError::TooMany)
    } else {
        Ok(())
    }
}

/// Rewrites every bare number that is not finite to `null`: `nan` and `inf`, which a C formatter prints for a
/// measurement it does not have, and numbers beyond a double. `None` if there is none, so that parsing again is vain.
///
/// A measurement that is not a number must not cost the frame it came in; null is how the protocol says "not known".
pub(super) fn without_non_finite(text: &str) -> Option<String> {
    let mut repaired = String::new();
    let mut copied = 0;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'"' {
            let mut rest = bytes[at + 1..].iter();
            skip_string(&mut rest);
            at = bytes.len() - rest.len();
        } else if is_bare(bytes[at]) {
            let end = bytes[at..]
                .iter()
                .position(|b| !is_bare(*b))
                .map_or(bytes.len(), |len| at + len);
            if text[at..end]
                .parse::<f64>()
                .is_ok_and(|number| !number.is_finite())
            {
                repaired.push_str(&text[copied..at]);
                repaired.push_str("null");
                copied = end;
            }
            at = end;
        } else {
            at += 1;
        }
    }
    if copied == 0 {
        return None;
    }
    repaired.push_str(&text[copied..]);
    Some(repaired)
}

/// Moves past the end of a string whose opening quote was just taken.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

/// Whether a byte can be part of a number, or of a word standing in its place. ASCII only, so slices stay UTF-8.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}
