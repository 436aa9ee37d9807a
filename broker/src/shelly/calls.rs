//! Calls to a device that await its answer. Each has a deadline and the table has an end, so a device that never
//! answers costs a bounded number of slots for a bounded time.

use std::fmt;

use bytes::Bytes;

use super::error::DeviceError;
use super::frame::{self, PARAMS_BYTES_MAX, RequestError};
use super::identity::Identity;

/// Most calls by callers that may await their answers at once, per device. Firmware queues 25 at most.
pub const CALLS_PENDING_MAX: usize = 32;

/// Longest a call may wait, in milliseconds. Later deadlines are moved here.
pub const CALL_WAIT_MS_MAX: u64 = 60_000;

/// The caller's own name for a call, given back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallToken(pub u64);

/// The one answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReply {
    /// Whose call.
    pub token: CallToken,
    /// The device's `result` as JSON, verbatim, or why there is none.
    pub result: Result<Bytes, CallFailure>,
}

/// Why a call that was sent has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The device answered with an error.
    Device(DeviceError),
    /// The session ended first. The device may have acted all the same.
    Disconnected,
    /// A newer connection of the device took over first. The device may have acted all the same.
    Replaced,
    /// No answer by the deadline. The device may have acted all the same.
    TimedOut,
}

impl CallFailure {
    /// Stable name, as published.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Device(_) => "device-error",
            Self::Disconnected => "device-disconnected",
            Self::Replaced => "device-reconnected",
            Self::TimedOut => "device-timeout",
        }
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Disconnected => {
                f.write_str("the device's connection ended before it answered; it may have acted")
            }
            Self::Replaced => f.write_str("the device dialled in anew before it answered; it may have acted"),
            Self::TimedOut => f.write_str("the device did not answer in time; it may have acted"),
        }
    }
}

impl std::error::Error for CallFailure {}

/// Why a call was not sent. The device knows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// It sleeps; it can be called only in the seconds it is awake.
    Asleep,
    /// Too many calls await their answers already.
    Busy,
    /// No method name the protocol knows: 1 to 64 of letters, digits, `.`, `_`, `-`.
    Method,
    /// It has no connection.
    Offline,
    /// Parameters that are not one JSON object within the nesting a device takes.
    Params,
    /// Parameters larger than [`PARAMS_BYTES_MAX`](super::PARAMS_BYTES_MAX).
    ParamsTooLarge,
}

impl CallError {
    /// Stable name, as published.
    pub fn code(self) -> &'static str {
        match self {
            Self::Asleep => "device-asleep",
            Self::Busy => "device-busy",
            Self::Method => "call-bad-method",
            Self::Offline => "device-offline",
            Self::Params => "call-bad-params",
            Self::ParamsTooLarge => "call-params-too-large",
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asleep => f.write_str("the device sleeps; call it after its next device-update"),
            Self::Busy => write!(
                f,
                "{CALLS_PENDING_MAX} calls to this device await their answers; try again shortly"
            ),
            Self::Method => {
                f.write_str("a method is 1 to 64 letters, digits, '.', '_' or '-', such as Switch.Set")
            }
            Self::Offline => f.write_str("the device is not connected"),
            Self::Params => f.write_str("params must be one JSON object, not nested too deeply"),
            Self::ParamsTooLarge => write!(f, "params are larger than {PARAMS_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for CallError {}

impl From<RequestError> for CallError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Method => Self::Method,
            RequestError::Params => Self::Params,
            RequestError::ParamsTooLarge => Self::ParamsTooLarge,
        }
    }
}

/// What an answer tells us beside what it tells the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lesson {
    /// The device's make: the answer to `Shelly.GetDeviceInfo`.
    Info,
    /// Nothing we follow.
    None,
    /// The full status: the answer to `Shelly.GetStatus`.
    Status,
}

impl Lesson {
    /// Callers ask such things too, and their answers are as good as those to our own questions.
    fn of(method: &str) -> Self {
        if method.eq_ignore_ascii_case(GET_STATUS) {
            Self::Status
        } else if method.eq_ignore_ascii_case(GET_INFO) {
            Self::Info
        } else {
            Self::None
        }
    }
}

pub(super) const GET_INFO: &str = "Shelly.GetDeviceInfo";
pub(super) const GET_STATUS: &str = "Shelly.GetStatus";

/// How long our own questions wait, in milliseconds: what clients of these devices commonly grant.
pub(super) const OWN_CALL_WAIT_MS: u64 = 10_000;

/// One call under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    id: u64,
    /// `None` for our own questions.
    pub(super) token: Option<CallToken>,
    pub(super) lesson: Lesson,
    deadline_ms: u64,
}

/// The calls under way, at most [`CALLS_PENDING_MAX`] of callers and one of each of our own.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Ids are never used twice in a device's life, so a late answer cannot meet a newer call.
    last_id: u64,
    pending: Vec<Pending>,
}

impl Calls {
    /// Opens a caller's call and gives the frame that asks.
    pub(super) fn open(
        &mut self,
        to: &Identity,
        method: &str,
        params: Option<&[u8]>,
        deadline_ms: u64,
        token: CallToken,
    ) -> Result<Bytes, CallError> {
        if self.pending.iter().filter(|call| call.token.is_some()).count() >= CALLS_PENDING_MAX {
            return Err(CallError::Busy);
        }
        let id = self.last_id + 1;
        let bytes = frame::request(id, to, method, params)?;
        self.last_id = id;
        self.pending.push(Pending {
            id,
            token: Some(token),
            lesson: Lesson::of(method),
            deadline_ms,
        });
        Ok(bytes)
    }

    /// Asks a question of our own, unless it is being asked already.
    pub(super) fn ask(&mut self, to: &Identity, method: &'static str, now_mono_ms: u64) -> Option<Bytes> {
        let lesson = Lesson::of(method);
        if self.is_asking(lesson) {
            return None;
        }
        let id = self.last_id + 1;
        let bytes = frame::request(id, to, method, None).ok()?;
        self.last_id = id;
        let deadline_ms = now_mono_ms.saturating_add(OWN_CALL_WAIT_MS);
        self.pending.push(Pending {
            id,
            token: None,
            lesson,
            deadline_ms,
        });
        Some(bytes)
    }

    fn is_asking(&self, lesson: Lesson) -> bool {
        self.pending
            .iter()
            .any(|call| call.token.is_none() && call.lesson == lesson)
    }

    /// Takes out the call that an answer's id names.
    pub(super) fn take(&mut self, id: u64) -> Option<Pending> {
        let at = self.pending.iter().position(|call| call.id == id)?;
        Some(self.pending.swap_remove(at))
    }

    /// Takes out the calls whose deadline has come.
    pub(super) fn expire(&mut self, now_mono_ms: u64) -> impl Iterator<Item = Pending> {
        self.pending
            .extract_if(.., move |call| call.deadline_ms <= now_mono_ms)
    }

    /// Takes out all calls.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Pending> {
        self.pending.drain(..)
    }

    /// The earliest deadline.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.pending.iter().map(|call| call.deadline_ms).min()
    }

    /// Calls under way, our own included.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}
