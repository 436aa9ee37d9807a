//! The errors a device answers with, kept as it said them.

use std::fmt;

use serde::Deserialize;
use serde_json::{Number, Value, value::RawValue};

/// A device's own error object. Code and message are the device's, verbatim (the message cut at 4 KiB).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError {
    /// The device's code: an HTTP status (401, 404, 429, 500) or −(100 + a canonical RPC status).
    pub code: i64,
    /// The device's words. For 401 this is itself a JSON document, the digest challenge.
    pub message: String,
}

impl DeviceError {
    /// The code given to an error object that carries none.
    pub const CODE_MISSING: i64 = -1;
    /// Bytes kept of a message. The longest seen, a digest challenge, has 150.
    pub const MESSAGE_BYTES_MAX: usize = 4 * 1024;

    /// Reads the value of an `error` member. Never fails: whatever is not of the usual shape becomes the message.
    pub(super) fn read(raw: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Shape {
            code: Option<Number>,
            message: Option<Value>,
        }
        let text = raw.get();
        // A derived struct would also take an array, member by member.
        let shape = if text.starts_with('{') {
            serde_json::from_str::<Shape>(text).ok()
        } else {
            None
        };
        let (code, message) = match shape {
            Some(Shape { code, message }) => {
                let code = code.and_then(|n| n.as_i64().or_else(|| whole(n.as_f64()?)));
                let message = match message {
                    Some(Value::String(words)) => words,
                    Some(Value::Null) | None => String::new(),
                    Some(other) => other.to_string(),
                };
                (code, message)
            }
            None => (None, text.to_owned()),
        };
        Self {
            code: code.unwrap_or(Self::CODE_MISSING),
            message: cut(message, Self::MESSAGE_BYTES_MAX),
        }
    }

    /// What the code means, as far as it is established.
    pub fn kind(&self) -> DeviceErrorKind {
        match self.code {
            401 => DeviceErrorKind::Unauthorized,
            404 => DeviceErrorKind::UnknownMethod,
            429 => DeviceErrorKind::LockedOut,
            -103 => DeviceErrorKind::InvalidArgument,
            -104 => DeviceErrorKind::DeadlineExceeded,
            -105 => DeviceErrorKind::NotFound,
            -108 => DeviceErrorKind::Exhausted,
            -109 => DeviceErrorKind::NotNow,
            -114 => DeviceErrorKind::Unavailable,
            _ => DeviceErrorKind::Other,
        }
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the device answered error {}: {}", self.code, self.message)
    }
}

impl std::error::Error for DeviceError {}

/// The meaning of a device's error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceErrorKind {
    /// −104: the device gave up in time (some emulators answer it to unknown methods).
    DeadlineExceeded,
    /// −108: out of memory or channels.
    Exhausted,
    /// −103: a parameter is missing or of the wrong type.
    InvalidArgument,
    /// 429: too many wrong passwords; stay silent for a minute at least.
    LockedOut,
    /// −105: no such component.
    NotFound,
    /// −109: not in this state, usually because a reboot is pending.
    NotNow,
    /// 500 and every code we have no meaning for.
    Other,
    /// 401: digest authentication wanted.
    Unauthorized,
    /// −114: the part that would answer is not available.
    Unavailable,
    /// 404: no handler of that name.
    UnknownMethod,
}

impl DeviceErrorKind {
    /// Whether the same call may succeed later without anything being changed first.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::DeadlineExceeded | Self::Exhausted | Self::LockedOut | Self::NotNow | Self::Unavailable
        )
    }
}

/// `n` as an integer if it is one.
fn whole(n: f64) -> Option<i64> {
    // Beyond 2^53 a float no longer names one integer, so it cannot be a code.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (n.fract() == 0.0 && n.abs() <= EXACT).then_some(n as i64)
}

/// Shortens to at most `bytes_max` bytes without cutting a character in two.
pub(super) fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}
