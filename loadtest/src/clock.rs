//! Time of a run: nanoseconds since it began, the same on all threads.

use std::time::{Duration, Instant};

pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// A clock that all threads of a run share by copying.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub(crate) fn now_ns(self) -> u64 {
        as_ns(self.origin.elapsed())
    }
}

/// As whole nanoseconds; 584 years at most.
pub(crate) fn as_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
