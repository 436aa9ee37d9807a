//! Timers by the thousand: a ring of ticks. Arming is a push; a timer that is moved later is found too early, looked at and
//! armed again, so a busy peer costs nothing until its old time comes.

/// Ticks of the ring. Later timers wait for their round in the last tick and are then armed again.
const TICKS: usize = 1024;

/// Length of a tick in milliseconds: timers fire up to this late.
pub(super) const TICK_MS: u64 = 100;

/// A ring of timers of `K`.
#[derive(Debug)]
pub(super) struct Wheel<K> {
    ring: Box<[Vec<K>]>,
    /// The tick that was last fired.
    fired: u64,
}

impl<K> Wheel<K> {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            ring: (0..TICKS).map(|_| Vec::new()).collect(),
            fired: now_ms / TICK_MS,
        }
    }

    /// Fires `key` at `at_ms` or up to a tick later; earlier if it lies beyond the ring. Answers a time that it does not fire
    /// before.
    pub(super) fn arm(&mut self, key: K, at_ms: u64) -> u64 {
        let tick = (at_ms / TICK_MS + 1).clamp(self.fired + 1, self.fired + TICKS as u64 - 1);
        self.ring[tick as usize % TICKS].push(key);
        at_ms.min(tick * TICK_MS)
    }

    /// All keys whose time has come, appended to `due`.
    pub(super) fn fire(&mut self, now_ms: u64, due: &mut Vec<K>) {
        let tick = now_ms / TICK_MS;
        // After a long pause a whole round brings everything; more would bring it twice.
        let first = (self.fired + 1).max(tick.saturating_sub(TICKS as u64 - 1));
        for tick in first..=tick {
            let slot = &mut self.ring[tick as usize % TICKS];
            due.append(slot);
            // A herd's buffer is not kept for ever.
            if slot.capacity() > 1024 {
                *slot = Vec::new();
            }
        }
        self.fired = self.fired.max(tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_timer_fires_once_not_early_and_at_most_a_tick_late(
            timers in prop::collection::vec(0u64..90_000, 1..50), steps in prop::collection::vec(1u64..5_000, 1..60),
        ) {
            let start = 12_345;
            let mut wheel = Wheel::new(start);
            for (key, after) in timers.iter().enumerate() {
                prop_assert_eq!(wheel.arm(key, start + after), start + after);
            }
            let (mut now, mut before, mut fired) = (start, start, vec![0; timers.len()]);
            for step in steps {
                now += step;
                let mut due = Vec::new();
                wheel.fire(now, &mut due);
                for key in due {
                    fired[key] += 1;
                    let at = start + timers[key];
                    prop_assert!(at <= now && at + 2 * TICK_MS > before, "{at} in {before}..{now}");
                }
                for (key, after) in timers.iter().enumerate() {
                    if start + after + TICK_MS <= now {
                        prop_assert_eq!(fired[key], 1);
                    }
                }
                before = now;
            }
        }
    }

    #[test]
    fn a_timer_beyond_the_ring_comes_early_to_be_armed_again() {
        let mut wheel = Wheel::new(0);
        let armed_ms = wheel.arm((), 10_000_000);
        let mut due = Vec::new();
        wheel.fire(armed_ms - 1, &mut due);
        assert_eq!(due.len(), 0);
        wheel.fire(armed_ms, &mut due);
        assert_eq!((armed_ms, due.len()), ((TICKS as u64 - 1) * TICK_MS, 1));
    }
}
