//! Whether a device is there. Told by events alone: a frame brings it, the loss of its own session takes it away,
//! and a device that sleeps by design is not gone because its socket is.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::status::Object;

/// How much longer than its wake-up period a sleeper may stay silent: two missed wake-ups and a half, as a fraction.
const SLEEP_MARGIN: (u64, u64) = (5, 2);

/// Wake-up period assumed of a sleeper that did not tell one, in seconds: a day, the longest seen.
const WAKEUP_PERIOD_S_DEFAULT: u64 = 86_400;

/// Bounds on the wake-up period a device may claim, in seconds: a minute to a week.
const WAKEUP_PERIOD_S: (u64, u64) = (60, 7 * 86_400);

/// One connection of one device: rises with each, so that the newest wins.
///
/// The rule: a device that lost power dials in again while its old socket still looks alive. The newer session is
/// the device from then on; the old socket is closed by the driver, and its late frames and its late close, which
/// carry the older session, change nothing. The driver takes sessions from one rising source per process (or per
/// device), at the moment the socket is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session(u64);

impl Session {
    /// The session of this generation. Generations start at 1.
    pub const fn new(generation: u64) -> Self {
        Self(generation)
    }

    /// The session after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Its generation.
    pub fn generation(self) -> u64 {
        self.0
    }
}

/// A session that is not newer than one already seen: the caller closes the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// The newest session seen.
    pub newest: Session,
}

impl fmt::Display for Superseded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a newer connection of this device exists (generation {})",
            self.newest.0
        )
    }
}

impl std::error::Error for Superseded {}

/// Whether a device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// Has no socket because it sleeps, and is not overdue.
    Asleep,
    /// Not there.
    Offline,
    /// Spoke on a session that still stands.
    Online,
}

impl Presence {
    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Offline => "offline",
            Self::Online => "online",
        }
    }
}

/// How a session ended, as the driver saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The device closed, or the connection broke.
    Closed,
    /// We refuse it: its token was revoked, or it misbehaved.
    Refused,
    /// It answered no ping in time.
    Timeout,
    /// The gateway or cloud account it came through is lost, and with it every device behind it.
    UpstreamLost,
}

/// Why a device is offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfflineReason {
    /// Its session ended.
    Lost(LossReason),
    /// It slept far longer than its wake-up period.
    Overslept,
}

impl OfflineReason {
    /// Stable name, as published.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost(LossReason::Closed) => "closed",
            Self::Lost(LossReason::Refused) => "refused",
            Self::Lost(LossReason::Timeout) => "timeout",
            Self::Lost(LossReason::UpstreamLost) => "upstream-lost",
            Self::Overslept => "overslept",
        }
    }
}

/// A device went offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline {
    /// Its number among the device's messages.
    pub seq: u64,
    /// Why.
    pub reason: OfflineReason,
    /// When, wall clock, milliseconds.
    pub at_ms: u64,
    /// When its last frame came, wall clock, milliseconds; 0 if none ever did.
    pub last_seen_ms: u64,
}

/// How long a device with this status may sleep before it counts as gone, in milliseconds; `None` if it is no sleeper.
/// `slept` says that it announced its sleep.
pub(super) fn sleep_allowance_ms(components: &Object, slept: bool) -> Option<u64> {
    let period_s = components
        .get("sys")
        .and_then(|sys| sys.get("wakeup_period"))
        .and_then(Value::as_f64)
        .filter(|seconds| *seconds > 0.0);
    if period_s.is_none() && !slept && !runs_on_battery(components) {
        return None;
    }
    // Saturates for absurd claims; the clamp follows.
    let period_s = period_s.map_or(WAKEUP_PERIOD_S_DEFAULT, |seconds| seconds as u64);
    let period_s = period_s.clamp(WAKEUP_PERIOD_S.0, WAKEUP_PERIOD_S.1);
    Some(period_s * 1_000 * SLEEP_MARGIN.0 / SLEEP_MARGIN.1)
}

/// Has a battery and is not known to be plugged in.
fn runs_on_battery(components: &Object) -> bool {
    components
        .iter()
        .filter(|(key, _)| key.starts_with("devicepower:"))
        .any(|(_, power)| {
            power.get("battery").is_some()
                && power.get("external").and_then(|external| external.get("present"))
                    != Some(&Value::Bool(true))
        })
}
