//! Chance, reproducible: one small generator per device, seeded by fleet seed and device index. Only integer
//! and exactly rounded floating-point steps, so the same seed gives the same fleet on every platform.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, passes BigCrush, three lines.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    /// The stream numbered `stream` of `seed`; streams of one seed do not run into each other in practice
    /// because their starting points are scrambled apart.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut start = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95).rotate_left(17));
        Self(start.next_u64() ^ stream)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, not including, `bound`; 0 for a bound of 0. The bias of the multiply-shift is
    /// below 2⁻³², of no matter to an emulator.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included; `low` if they are the wrong way round.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.saturating_sub(low).max(0) as u64;
        low + self.below(span.saturating_add(1)) as i64
    }

    pub(crate) fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_micros() as u64;
        low + Duration::from_micros(self.below(span.saturating_add(1)))
    }

    /// True once in `n` times on average.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// True with probability `fraction` (0 to 1).
    pub(crate) fn chance(&mut self, fraction: f64) -> bool {
        ((self.next_u64() >> 11) as f64) < fraction * (1u64 << 53) as f64
    }

    /// A gap with the given mean, evenly spread between nothing and twice the mean. Not exponential on
    /// purpose: a logarithm is not rounded alike on every platform.
    pub(crate) fn gap(&mut self, mean: Duration) -> Duration {
        let doubled = u64::try_from(mean.as_micros())
            .unwrap_or(u64::MAX)
            .saturating_mul(2);
        Duration::from_micros(self.below(doubled.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_fixed_for_all_time() {
        // A changed generator would silently change every recorded fleet; these numbers may never change.
        let mut rng = Rng(0);
        assert_eq!(rng.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(rng.next_u64(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn neighbouring_streams_differ() {
        let mut seen = std::collections::HashSet::new();
        for stream in 0..10_000 {
            assert!(seen.insert(Rng::new(7, stream).next_u64()));
        }
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut rng = Rng::new(1, 2);
        for _ in 0..10_000 {
            assert!((-3..=5).contains(&rng.between(-3, 5)));
            assert!(rng.below(7) < 7);
            let gap = rng.gap(Duration::from_secs(10));
            assert!(gap <= Duration::from_secs(20));
        }
        assert_eq!(rng.below(0), 0);
        assert!(!rng.chance(0.0));
        assert!(rng.chance(1.0));
    }

    #[test]
    fn gaps_have_the_asked_mean() {
        let mut rng = Rng::new(3, 4);
        let total: Duration = (0..20_000).map(|_| rng.gap(Duration::from_millis(100))).sum();
        let mean = total.as_secs_f64() / 20_000.0;
        assert!((0.098..0.102).contains(&mean), "mean {mean}");
    }
}
