//! When each message is due, and waiting for that.

use std::time::{Duration, Instant};

/// What is sent in one setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Messages a second.
    pub(crate) rate: u32,
    /// Messages that are not measured, first.
    pub(crate) warm_up: u64,
    pub(crate) measured: u64,
}

impl Plan {
    pub(crate) fn messages(self) -> u64 {
        self.warm_up + self.measured
    }

    /// When message `n` is due, counted from 0.
    pub(crate) fn due(self, began: Instant, n: u64) -> Instant {
        let nanos = u128::from(n) * 1_000_000_000 / u128::from(self.rate.max(1));
        began + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Waits without sleeping: a sleep ends some 50 µs late, which would be all that is measured.
pub(crate) fn spin_until(due: Instant) {
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}
