//! When to dial again: 0.5 s, doubled up to 30 s, each varied by a fifth, back to the start after a connection
//! that held. The firmware's own schedule is not documented; this is the customary one, and the variation
//! keeps a herd from staying one.

use crate::rng::Rng;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// A connection this old counts as having held.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// How long to wait before the next dial.
    pub(crate) fn next_delay(&mut self, rng: &mut Rng) -> Duration {
        let delay = self.next * rng.between(80, 120) as u32 / 100;
        self.next = (self.next * 2).min(LONGEST);
        delay
    }

    /// The last connection held for `held`.
    pub(crate) fn connection_ended(&mut self, held: Duration) {
        if held >= STABLE_AFTER {
            self.next = FIRST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_with_a_fifth_of_variation_up_to_half_a_minute() {
        let (mut backoff, mut rng) = (Backoff::new(), Rng::new(1, 1));
        for expected in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000] {
            let delay = backoff.next_delay(&mut rng).as_millis();
            assert!(
                (expected * 8 / 10..=expected * 12 / 10).contains(&delay),
                "{delay} for {expected}"
            );
        }
    }

    #[test]
    fn only_a_connection_that_held_starts_over() {
        let (mut backoff, mut rng) = (Backoff::new(), Rng::new(1, 1));
        for _ in 0..5 {
            backoff.next_delay(&mut rng);
        }
        backoff.connection_ended(STABLE_AFTER - Duration::from_millis(1));
        assert!(backoff.next_delay(&mut rng) > Duration::from_secs(10));
        backoff.connection_ended(STABLE_AFTER);
        assert!(backoff.next_delay(&mut rng) <= Duration::from_millis(600));
    }
}
