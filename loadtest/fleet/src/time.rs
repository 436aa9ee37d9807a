//! Device time. Logic never reads a clock: every decision gets a [`Timestamp`] from its caller, so that a
//! day of a fleet can be replayed in a test within milliseconds and comes out the same each time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(u64);

const MICROS_PER_SECOND: u64 = 1_000_000;
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

impl Timestamp {
    /// A moment that never comes: the due time of things not scheduled.
    pub const NEVER: Self = Self(u64::MAX);

    /// A moment from microseconds since the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// A moment from whole seconds since the Unix epoch.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_seconds(self) -> u64 {
        self.0 / MICROS_PER_SECOND
    }

    /// This moment and `duration`; stays at [`Timestamp::NEVER`] rather than overflow.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// This moment less `duration`, not before the epoch.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero if it is before.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The start of the minute that holds this moment.
    pub(crate) const fn minute_start(self) -> Self {
        Self(self.0 - self.0 % (60 * MICROS_PER_SECOND))
    }
}

/// A wall clock that only moves forward: read once at start, carried on by the monotonic clock. A step of the
/// system clock during a run therefore disturbs neither the schedule nor a latency taken from two stamps.
#[derive(Clone, Copy, Debug)]
pub struct FleetClock {
    started_at: Timestamp,
    started: Instant,
}

impl FleetClock {
    /// A clock that starts at the system's time of day.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            started_at: Timestamp(0).plus(since_epoch),
            started: Instant::now(),
        }
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        self.started_at.plus(self.started.elapsed())
    }

    /// When the monotonic clock will show `at`, for a timer; `None` for a moment that never comes.
    pub(crate) fn instant_at(&self, at: Timestamp) -> Option<Instant> {
        if at == Timestamp::NEVER {
            return None;
        }
        self.started.checked_add(at.since(self.started_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let early = Timestamp::from_seconds(10);
        assert_eq!(early.minus(Duration::from_secs(60)), Timestamp::from_micros(0));
        assert_eq!(Timestamp::NEVER.plus(Duration::from_secs(1)), Timestamp::NEVER);
        assert_eq!(early.since(Timestamp::from_seconds(20)), Duration::ZERO);
    }

    #[test]
    fn minute_start_is_a_multiple_of_sixty() {
        let at = Timestamp::from_micros(1_783_004_899_999_999);
        assert_eq!(at.minute_start().as_seconds(), 1_783_004_880);
    }
}
