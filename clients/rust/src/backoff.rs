//! When to try again. Full jitter: a random time between nothing and a ceiling that doubles, so that clients that lost the
//! same broker do not come back together. Pure: time and randomness are given.

use std::time::{Duration, Instant};

/// The ceiling of the first delay.
pub(crate) const FIRST: Duration = Duration::from_millis(250);
/// The ceiling of all later ones.
pub(crate) const CEILING: Duration = Duration::from_secs(30);
/// A connection that lived this long was a good one: the next failure starts from [`FIRST`] again. A shorter one does not
/// count, or a broker that accepts and then dies would be dialled at full speed.
pub(crate) const STABLE: Duration = Duration::from_secs(60);
/// The least delay where the code says "later" and no time is given.
pub(crate) const LATER: Duration = Duration::from_secs(1);

/// The longest time that a broker, or whatever answers in its place, can make us wait.
pub(crate) const FLOOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug)]
pub(crate) struct Backoff {
    /// Failures in a row, as far as they matter for the ceiling.
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The delay before the next try. `floor` is what the other side asked for; the jitter comes on top of it, so that
    /// those who were told the same time still spread.
    pub(crate) fn next(&mut self, floor: Duration) -> Duration {
        // Eight doublings of FIRST pass CEILING; stopping there keeps the shift small.
        let ceiling = (FIRST * (1 << self.failures.min(8))).min(CEILING);
        self.failures = self.failures.saturating_add(1);
        floor.min(FLOOR_MAX) + ceiling.mul_f64(self.random.f64())
    }

    /// A time that was told, spread over a second, for a retry on a connection that lives.
    pub(crate) fn spread(&mut self, floor: Duration) -> Duration {
        floor.min(FLOOR_MAX) + LATER.mul_f64(self.random.f64())
    }

    /// A random time between these parts of the whole.
    pub(crate) fn within(&mut self, whole: Duration, from: f64, to: f64) -> Duration {
        whole.mul_f64(from + (to - from) * self.random.f64())
    }

    /// What was tried has worked.
    pub(crate) fn forget(&mut self) {
        self.failures = 0;
    }

    /// A connection ended that had been open since `opened`.
    pub(crate) fn ended(&mut self, opened: Instant, now: Instant) {
        if now.saturating_duration_since(opened) >= STABLE {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ceilings() -> impl Iterator<Item = Duration> {
        (0..12).map(|n| (FIRST * (1 << n.min(8))).min(CEILING))
    }

    proptest! {
        #[test]
        fn every_delay_lies_between_the_floor_and_the_doubling_ceiling(seed: u64, floor_ms in 0u64..100_000) {
            let mut backoff = Backoff::new(seed);
            let floor = Duration::from_millis(floor_ms);
            for ceiling in ceilings() {
                let delay = backoff.next(floor);
                prop_assert!(delay >= floor && delay <= floor + ceiling, "{delay:?} of {ceiling:?}");
            }
        }
    }

    #[test]
    fn nobody_makes_us_wait_longer_than_a_day() {
        let mut backoff = Backoff::new(1);
        assert!(backoff.next(Duration::MAX) <= FLOOR_MAX + FIRST);
        assert!(backoff.spread(Duration::MAX) <= FLOOR_MAX + LATER);
    }

    #[test]
    fn the_jitter_uses_the_whole_range() {
        let first: Vec<_> = (0..1000)
            .map(|seed| Backoff::new(seed).next(Duration::ZERO))
            .collect();
        assert!(first.iter().any(|d| *d < FIRST / 10));
        assert!(first.iter().any(|d| *d > FIRST * 9 / 10));
    }

    #[test]
    fn only_a_stable_minute_forgets_the_failures() {
        let start = Instant::now();
        let mut backoff = Backoff::new(1);
        for _ in 0..10 {
            backoff.next(Duration::ZERO);
        }
        backoff.ended(start, start + STABLE - Duration::from_millis(1));
        let long = (0..20).map(|_| backoff.next(Duration::ZERO)).max();
        assert!(long > Some(FIRST));
        backoff.ended(start, start + STABLE);
        assert!(backoff.next(Duration::ZERO) <= FIRST);
    }
}
