//! How often something may happen. Pure: the time is an argument, in milliseconds of a clock that never goes back.
//!
//! The generic cell rate algorithm keeps one number, the time at which all that was admitted so far would have been due at
//! the steady rate. It admits as a token bucket does, and needs neither a timer nor a refill.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

/// Answer to a cost that is larger than the burst and so can never be admitted.
pub const NEVER: u32 = u32::MAX;

const NANOS_A_MILLI: u64 = 1_000_000;
const NANOS_A_SECOND: u64 = 1_000_000_000;

/// A steady rate and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Between two units at the steady rate, rounded up, so that rounding never admits more.
    interval_ns: u64,
    burst: u32,
}

impl Quota {
    /// `rate` units a second (at most a thousand million), `burst` at once. Zero counts as one: a quota of nothing is a
    /// closed door, which is not this module's business.
    pub const fn per_second(rate: u32, burst: u32) -> Self {
        Self::per(NANOS_A_SECOND, rate, burst)
    }

    /// `rate` units a minute, `burst` at once.
    pub const fn per_minute(rate: u32, burst: u32) -> Self {
        Self::per(60 * NANOS_A_SECOND, rate, burst)
    }

    const fn per(period_ns: u64, rate: u32, burst: u32) -> Self {
        let rate = if rate == 0 { 1 } else { rate };
        Self {
            interval_ns: period_ns.div_ceil(rate as u64),
            burst: if burst == 0 { 1 } else { burst },
        }
    }

    /// What may come at once: nothing larger is ever admitted.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// The debt that fills the burst.
    const fn depth_ns(self) -> u64 {
        // At most 60e9 * 2^32 = 2.6e20 would not fit: saturation makes such a bucket merely as deep as time itself.
        self.interval_ns.saturating_mul(self.burst as u64)
    }
}

/// The state of one limit: eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gcra {
    /// When everything admitted so far would have been due.
    due_ns: u64,
}

impl Gcra {
    /// Admits `cost` units, or says after how many milliseconds to come again; a refusal costs nothing.
    ///
    /// # Errors
    /// The milliseconds to wait, at least 1, or [`NEVER`].
    pub fn check(&mut self, quota: Quota, now_ms: u64, cost: u32) -> Result<(), u32> {
        if cost > quota.burst {
            return Err(NEVER);
        }
        let now_ns = now_ms.saturating_mul(NANOS_A_MILLI);
        let due_ns = self
            .due_ns
            .max(now_ns)
            .saturating_add(quota.interval_ns.saturating_mul(u64::from(cost)));
        let limit_ns = now_ns.saturating_add(quota.depth_ns());
        if due_ns > limit_ns {
            let wait_ms = (due_ns - limit_ns).div_ceil(NANOS_A_MILLI);
            return Err(u32::try_from(wait_ms).unwrap_or(NEVER - 1));
        }
        self.due_ns = due_ns;
        Ok(())
    }

    /// Whether it is as good as new: nothing is owed.
    pub const fn is_idle(&self, now_ms: u64) -> bool {
        self.due_ns <= now_ms.saturating_mul(NANOS_A_MILLI)
    }
}

/// The state of one limit that many threads share: one number, changed by compare and swap, so that nobody waits for anybody
/// who was put to sleep in the middle.
#[derive(Debug, Default)]
pub struct SharedGcra {
    due_ns: AtomicU64,
}

impl SharedGcra {
    /// As [`Gcra::check`]. What all threads together are admitted obeys the quota.
    ///
    /// # Errors
    /// The milliseconds to wait, at least 1, or [`NEVER`].
    pub fn check(&self, quota: Quota, now_ms: u64, cost: u32) -> Result<(), u32> {
        // Nothing else is published by it: the number alone has to be right.
        let mut before = self.due_ns.load(Ordering::Relaxed);
        loop {
            let mut state = Gcra { due_ns: before };
            state.check(quota, now_ms, cost)?;
            match self.due_ns.compare_exchange_weak(
                before,
                state.due_ns,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => before = now,
            }
        }
    }

    /// Takes back what [`SharedGcra::check`] admitted, because another limit refused it.
    pub fn give_back(&self, quota: Quota, cost: u32) {
        let ns = quota.interval_ns.saturating_mul(u64::from(cost));
        // It was added before; only a clock at its end could make it more than there is.
        let _ = self
            .due_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
                Some(due.saturating_sub(ns))
            });
    }

    /// Whether it is as good as new: nothing is owed.
    pub fn is_idle(&self, now_ms: u64) -> bool {
        let due_ns = self.due_ns.load(Ordering::Relaxed);
        Gcra { due_ns }.is_idle(now_ms)
    }
}

/// A limit for each address: an IPv4 address, or the /64 that one IPv6 customer has.
///
/// Bounded by two generations. New and active addresses are in the young one; when it is full, the old one is forgotten and
/// the young one becomes the old. What is forgotten starts again with a full burst, so an attacker gains one burst by
/// showing up from `capacity / 2` other networks first, and a table full of strangers never refuses a newcomer.
#[derive(Clone, Debug)]
pub struct ByAddress {
    quota: Quota,
    half: usize,
    young: HashMap<Network, Gcra, foldhash::fast::RandomState>,
    old: HashMap<Network, Gcra, foldhash::fast::RandomState>,
}

impl ByAddress {
    /// For `capacity` addresses at most, 24 bytes each.
    pub fn new(quota: Quota, capacity: usize) -> Self {
        Self {
            quota,
            half: (capacity / 2).max(1),
            young: HashMap::default(),
            old: HashMap::default(),
        }
    }

    /// As [`Gcra::check`], for this address.
    ///
    /// # Errors
    /// The milliseconds to wait, at least 1, or [`NEVER`].
    pub fn check(&mut self, address: IpAddr, now_ms: u64, cost: u32) -> Result<(), u32> {
        let network = Network::of(address);
        if let Some(state) = self.young.get_mut(&network) {
            return state.check(self.quota, now_ms, cost);
        }
        let mut state = self.old.remove(&network).unwrap_or_default();
        let answer = state.check(self.quota, now_ms, cost);
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(network, state);
        answer
    }

    /// Takes another quota at once; what is owed stays owed.
    pub fn set_quota(&mut self, quota: Quota) {
        self.quota = quota;
    }

    /// Addresses that are remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whom an address stands for: also the key for counting connections by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(u64, bool);

impl Network {
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits()), false),
            IpAddr::V6(v6) => Self(Self::prefix(v6), true),
        }
    }

    fn prefix(v6: Ipv6Addr) -> u64 {
        (v6.to_bits() >> 64) as u64
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn never_admits_more_than_rate_times_time_plus_burst(
            rate in 1u32..5_000, burst in 1u32..500,
            steps in prop::collection::vec((0u64..300, 1u32..40), 1..200),
        ) {
            let quota = Quota::per_second(rate, burst);
            let (mut state, mut now_ms) = (Gcra::default(), 1_000);
            // Every window between two admissions is bounded, not only the one from the start.
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (wait_ms, cost) in steps {
                now_ms += wait_ms;
                if state.check(quota, now_ms, cost).is_ok() {
                    admitted.push((now_ms, u64::from(cost)));
                }
            }
            for from in 0..admitted.len() {
                let mut sum = 0;
                for &(at, cost) in &admitted[from..] {
                    sum += cost;
                    let most = u64::from(rate) * (at - admitted[from].0) / 1_000 + u64::from(burst);
                    prop_assert!(sum <= most, "{sum} > {most}");
                }
            }
        }

        #[test]
        fn who_waits_as_told_is_admitted_and_who_comes_earlier_is_not(
            rate in 1u32..5_000, burst in 1u32..500, costs in prop::collection::vec(1u32..40, 1..100),
        ) {
            let quota = Quota::per_second(rate, burst);
            let (mut state, mut now_ms) = (Gcra::default(), 1_000);
            for cost in costs {
                match state.check(quota, now_ms, cost) {
                    Ok(()) => {}
                    Err(NEVER) => prop_assert!(cost > burst),
                    Err(wait_ms) => {
                        prop_assert!(wait_ms >= 1);
                        let mut early = state;
                        prop_assert!(early.check(quota, now_ms + u64::from(wait_ms) - 1, cost).is_err());
                        now_ms += u64::from(wait_ms);
                        prop_assert_eq!(state.check(quota, now_ms, cost), Ok(()));
                    }
                }
            }
        }

        #[test]
        fn a_shared_limit_admits_as_one_of_its_own(
            rate in 1u32..5_000, burst in 1u32..500,
            steps in prop::collection::vec((0u64..300, 1u32..40, any::<bool>()), 1..200),
        ) {
            let quota = Quota::per_second(rate, burst);
            let (mut own, shared, mut now_ms) = (Gcra::default(), SharedGcra::default(), 1_000);
            for (wait_ms, cost, taken_back) in steps {
                now_ms += wait_ms;
                let before = own;
                let answer = own.check(quota, now_ms, cost);
                prop_assert_eq!(shared.check(quota, now_ms, cost), answer);
                if taken_back && answer.is_ok() {
                    shared.give_back(quota, cost);
                    // Debts of the past are nobody's: what was due before now is as good as nothing.
                    own = Gcra { due_ns: before.due_ns.max(now_ms * NANOS_A_MILLI) };
                }
                prop_assert_eq!(shared.is_idle(now_ms), own.is_idle(now_ms));
            }
        }

        #[test]
        fn a_table_never_grows_beyond_its_capacity(addresses in prop::collection::vec(any::<u32>(), 1..400)) {
            let mut table = ByAddress::new(Quota::per_second(1, 1), 32);
            for address in addresses {
                let _ = table.check(IpAddr::V4(address.into()), 1_000, 1);
                prop_assert!(table.len() <= 32);
            }
        }

        #[test]
        fn no_input_panics(rate: u32, burst: u32, now_ms: u64, later_ms: u64, cost: u32) {
            for quota in [Quota::per_second(rate, burst), Quota::per_minute(rate, burst)] {
                let mut state = Gcra::default();
                let _ = state.check(quota, now_ms, cost);
                let _ = state.check(quota, later_ms, cost);
            }
        }
    }

    #[test]
    fn a_refusal_costs_nothing() {
        let quota = Quota::per_second(10, 2);
        let mut state = Gcra::default();
        assert_eq!(state.check(quota, 1_000, 2), Ok(()));
        for _ in 0..100 {
            assert_eq!(state.check(quota, 1_000, 1), Err(100));
        }
        assert_eq!(state.check(quota, 1_100, 1), Ok(()));
        assert!(!state.is_idle(1_299) && state.is_idle(1_300));
    }

    #[test]
    fn threads_together_are_admitted_what_one_would_be() {
        let (quota, state) = (Quota::per_second(1, 10_000), SharedGcra::default());
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..5_000)
                            .filter(|_| state.check(quota, 1_000, 1).is_ok())
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 10_000);
    }

    #[test]
    fn rounding_never_admits_more() {
        let quota = Quota::per_second(600_000_000, 1_000_000);
        let mut state = Gcra::default();
        assert_eq!(state.check(quota, 1_000, 1_000_000), Ok(()));
        assert!(state.check(quota, 1_001, 600_001).is_err());
    }

    #[test]
    fn the_steady_rate_is_reached_over_a_long_time() {
        for (quota, per_minute) in [
            (Quota::per_second(100, 200), 6_000),
            (Quota::per_minute(600, 120), 600),
        ] {
            let mut state = Gcra::default();
            let admitted = (0..600_000)
                .filter(|ms| state.check(quota, 1_000 + ms, 1).is_ok())
                .count();
            let steady = 10 * per_minute;
            assert!((steady..=steady + 201).contains(&admitted), "{admitted}");
        }
    }

    #[test]
    fn one_ipv6_customer_is_one_address_and_a_mapped_address_is_its_v4() {
        let mut table = ByAddress::new(Quota::per_second(1, 1), 100);
        assert_eq!(table.check("2001:db8::1".parse().unwrap(), 1_000, 1), Ok(()));
        assert!(table.check("2001:db8::2".parse().unwrap(), 1_000, 1).is_err());
        assert_eq!(table.check("2001:db8:0:1::1".parse().unwrap(), 1_000, 1), Ok(()));
        assert_eq!(table.check("192.0.2.1".parse().unwrap(), 1_000, 1), Ok(()));
        assert!(
            table
                .check("::ffff:192.0.2.1".parse().unwrap(), 1_000, 1)
                .is_err()
        );
        // The same 64 bits as a v4 address and as a v6 prefix are different networks.
        assert_ne!(
            Network::of("0.0.0.1".parse().unwrap()),
            Network::of("0:0:0:1::".parse().unwrap())
        );
    }

    #[test]
    fn an_active_address_is_not_forgotten_while_strangers_come_and_go() {
        let mut table = ByAddress::new(Quota::per_minute(1, 1), 8);
        let busy = "192.0.2.1".parse().unwrap();
        assert_eq!(table.check(busy, 1_000, 1), Ok(()));
        for stranger in 0..100_u32 {
            let _ = table.check(IpAddr::V4(stranger.into()), 1_000, 1);
            assert!(table.check(busy, 1_000, 1).is_err());
        }
    }
}
