//! Time is an argument: everything that decides takes a [`Now`], and only the outermost loops read the clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds on a clock that never goes back; the origin is arbitrary. For every timer and rate.
    pub mono_ms: u64,
    /// Milliseconds since 1970 by the wall clock, which may jump. For what people and tokens mean by time.
    pub unix_ms: u64,
}

/// Where monotonic time begins: a year, in milliseconds.
const ORIGIN_MS: u64 = 366 * 24 * 3_600 * 1_000;

/// Reads the clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts at a year, so that "long ago" can be written as zero, and what was said before the
    /// start has a time too.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub fn now(&self) -> Now {
        Now {
            mono_ms: ORIGIN_MS + self.origin.elapsed().as_millis() as u64,
            unix_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_millis() as u64),
        }
    }
}
