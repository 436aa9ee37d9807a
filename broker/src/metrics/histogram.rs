//! How long things took, in buckets whose width grows with the time: four steps to each doubling, from 16 µs to some four
//! seconds. So a quantile that is read off them is wrong by a fifth of itself at most, and finding a bucket takes shifts
//! instead of a search.
//!
//! What must stay true:
//! - A time that is a bound belongs to the bucket that ends there, as Prometheus wants it (`le`).
//! - Recording never allocates and never waits. Many times of one turn go in by one [`Batch`]: neighbours mostly share a
//!   bucket, and then cost two additions together.

use std::time::Duration;

use super::Counter;

/// The first bucket ends here, in microseconds: what is faster than that is fast.
const FIRST_US: u64 = 1 << FIRST_BITS;
const FIRST_BITS: u32 = 4;

/// Steps to each doubling.
const STEPS: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 2;

/// Doublings above the first bound: the last bound is 2²² µs, 4.2 s.
const DOUBLINGS: usize = 18;

/// Buckets with a bound. One more has none.
pub(super) const BOUNDS: usize = 1 + DOUBLINGS * STEPS;

/// Upper bounds, in microseconds; a time that is equal to one is below it.
pub const BOUNDS_US: [u64; BOUNDS] = {
    let mut bounds = [FIRST_US; BOUNDS];
    let mut at = 1;
    while at < BOUNDS {
        let (doubling, step) = ((at - 1) / STEPS, (at - 1) % STEPS);
        let octave = FIRST_US << doubling;
        bounds[at] = octave + (octave >> STEP_BITS) * (step as u64 + 1);
        at += 1;
    }
    bounds
};

/// The bucket of a time.
const fn bucket(us: u64) -> usize {
    if us <= FIRST_US {
        return 0;
    }
    // Bounds belong to the bucket below them.
    let us = us - 1;
    let doubling = us.ilog2() - FIRST_BITS;
    let step = (us >> (us.ilog2() - STEP_BITS)) as usize & (STEPS - 1);
    let at = 1 + doubling as usize * STEPS + step;
    if at < BOUNDS { at } else { BOUNDS }
}

/// Counts by bucket, and the sum of the times.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BOUNDS + 1],
    sum_us: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_us: Counter::default(),
        }
    }
}

impl Histogram {
    /// Something took this long.
    pub fn record(&self, took: Duration) {
        self.batch().record(took, 1);
    }

    /// For many times at once; they are in when it is dropped, at the latest.
    pub fn batch(&self) -> Batch<'_> {
        Batch {
            histogram: self,
            bucket: 0,
            count: 0,
            sum_us: 0,
        }
    }

    /// Adds what has been recorded to `sum`. Counts that rise meanwhile are in or not.
    pub fn read(&self, sum: &mut Snapshot) {
        for (total, counter) in sum.counts.iter_mut().zip(&self.buckets) {
            *total += counter.value();
        }
        sum.sum_us += self.sum_us.value();
    }
}

/// Times on their way into a [`Histogram`].
#[derive(Debug)]
pub struct Batch<'a> {
    histogram: &'a Histogram,
    /// What follows is of this one and not in yet.
    bucket: usize,
    count: u64,
    sum_us: u64,
}

impl Batch<'_> {
    /// `n` things took this long each.
    pub fn record(&mut self, took: Duration, n: u64) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket(us);
        if bucket != self.bucket {
            self.flush();
            self.bucket = bucket;
        }
        self.count += n;
        self.sum_us = self.sum_us.saturating_add(us.saturating_mul(n));
    }

    fn flush(&mut self) {
        if self.count > 0 {
            self.histogram.buckets[self.bucket].add(self.count);
            self.histogram.sum_us.add(self.sum_us);
            (self.count, self.sum_us) = (0, 0);
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What one or several histograms held when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// By bucket, not cumulative; the last bucket has no bound.
    pub counts: [u64; BOUNDS + 1],
    pub sum_us: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            counts: [0; BOUNDS + 1],
            sum_us: 0,
        }
    }
}

impl Snapshot {
    /// How many times were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(histogram: &Histogram) -> Snapshot {
        let mut sum = Snapshot::default();
        histogram.read(&mut sum);
        sum
    }

    #[test]
    fn bounds_rise_by_a_quarter_of_their_doubling_and_reach_four_seconds() {
        assert_eq!(BOUNDS_US[..6], [16, 20, 24, 28, 32, 40]);
        assert!(BOUNDS_US.is_sorted_by(|a, b| a < b));
        assert_eq!(BOUNDS_US[BOUNDS - 1], 1 << 22);
        let widest = BOUNDS_US.windows(2).map(|w| (w[1] - w[0]) as f64 / w[0] as f64);
        assert!(widest.fold(0.0, f64::max) <= 0.25);
    }

    proptest! {
        #[test]
        fn a_time_falls_into_the_first_bucket_that_holds_it(us in prop_oneof![0u64..100, 0u64..10_000_000, any::<u64>()]) {
            prop_assert_eq!(bucket(us), BOUNDS_US.partition_point(|&bound| bound < us));
        }

        /// Whatever neighbours do: nothing is counted twice, lost, or put into another's bucket.
        #[test]
        fn a_batch_comes_to_what_its_times_come_to_one_by_one(
            times in prop::collection::vec((0u64..200_000, 0u64..5), 0..60),
        ) {
            let (batched, single) = (Histogram::default(), Histogram::default());
            let mut batch = batched.batch();
            for &(us, n) in &times {
                batch.record(Duration::from_micros(us), n);
                (0..n).for_each(|_| single.record(Duration::from_micros(us)));
            }
            drop(batch);
            prop_assert_eq!(of(&batched), of(&single));
            prop_assert_eq!(of(&batched).count(), times.iter().map(|t| t.1).sum::<u64>());
            prop_assert_eq!(of(&batched).sum_us, times.iter().map(|t| t.0 * t.1).sum::<u64>());
        }
    }

    #[test]
    fn every_bound_belongs_to_the_bucket_below_it() {
        for (at, &bound) in BOUNDS_US.iter().enumerate() {
            assert_eq!((bucket(bound), bucket(bound + 1)), (at, at + 1));
        }
    }

    #[test]
    fn several_histograms_are_read_as_one() {
        let histograms = [Histogram::default(), Histogram::default()];
        histograms[0].record(Duration::from_micros(5));
        histograms[1].record(Duration::from_secs(60));
        let mut sum = Snapshot::default();
        histograms.iter().for_each(|histogram| histogram.read(&mut sum));
        assert_eq!((sum.counts[0], sum.counts[BOUNDS], sum.count()), (1, 1, 2));
        assert_eq!(sum.sum_us, 60_000_005);
    }
}
