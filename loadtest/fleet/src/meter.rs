//! Energy as the integral of power, in integers, so that a test can compare it exactly.
//!
//! Power is constant between two calls of [`Meter::set_power`]; the counter is therefore exact, not sampled.
//! As captured from an outdoor plug under a balcony power plant, `aenergy` counts what flows in either
//! direction and `ret_aenergy` what flows back.

use crate::number::number;
use crate::time::{MINUTE, Timestamp};
use serde_json::{Value, json};

/// Milliwatts × microseconds, that is nanojoules.
type Nanojoules = u128;

const NANOJOULES_PER_WH: f64 = 3.6e12;
const NANOJOULES_PER_MWH: f64 = 3.6e9;
/// `by_minute` shows this many full minutes, the newest first.
const MINUTES_SHOWN: usize = 3;

#[derive(Clone, Debug, Default)]
struct Counter {
    total: Nanojoules,
    this_minute: Nanojoules,
    minutes: [Nanojoules; MINUTES_SHOWN],
}

impl Counter {
    fn add(&mut self, energy: Nanojoules) {
        self.total += energy;
        self.this_minute += energy;
    }

    fn end_minute(&mut self) {
        self.minutes.rotate_right(1);
        self.minutes[0] = std::mem::take(&mut self.this_minute);
    }

    fn to_json(&self, minute_ts: u64) -> Value {
        let minutes = self
            .minutes
            .map(|energy| number(energy as f64 / NANOJOULES_PER_MWH, 3));
        json!({
            "total": number(self.total as f64 / NANOJOULES_PER_WH, 3),
            "by_minute": minutes,
            "minute_ts": minute_ts,
        })
    }
}

/// Which way energy flowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flow {
    /// `aenergy`
    All,
    /// `ret_aenergy`
    Returned,
}

/// The energy counters of one outlet.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    all: Counter,
    returned: Counter,
    power_mw: i64,
    /// Everything before this moment is counted.
    counted_until: Timestamp,
}

impl Meter {
    /// A meter that already shows `total_wh` and `returned_wh`.
    pub(crate) fn new(now: Timestamp, total_wh: f64, returned_wh: f64) -> Self {
        let start = |wh: f64| Counter {
            total: (wh.max(0.0) * NANOJOULES_PER_WH) as Nanojoules,
            ..Counter::default()
        };
        Self {
            all: start(total_wh),
            returned: start(returned_wh),
            power_mw: 0,
            counted_until: now,
        }
    }

    pub(crate) const fn power_mw(&self) -> i64 {
        self.power_mw
    }

    /// Counts up to `now` at the power until now, then goes on with `power_mw`.
    pub(crate) fn set_power(&mut self, now: Timestamp, power_mw: i64) {
        self.advance(now);
        self.power_mw = power_mw;
    }

    /// Counts up to `now`. A `now` in the past changes nothing.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        // After a long gap only the last minutes can be seen one by one; what lies before goes in as a lump.
        let lump_end = now.minute_start().minus(MINUTE * (MINUTES_SHOWN as u32 + 1));
        if self.counted_until < lump_end {
            self.count(lump_end);
            self.all.end_minute();
            self.returned.end_minute();
        }
        loop {
            let minute_end = self.counted_until.minute_start().plus(MINUTE);
            if now < minute_end {
                break self.count(now);
            }
            self.count(minute_end);
            self.all.end_minute();
            self.returned.end_minute();
        }
    }

    /// The device was without power: nothing flowed, and the minutes since are empty.
    pub(crate) fn skip_to(&mut self, now: Timestamp) {
        self.set_power(self.counted_until, 0);
        self.advance(now);
    }

    pub(crate) fn reset(&mut self, now: Timestamp, flow: Flow) {
        self.advance(now);
        *self.counter_mut(flow) = Counter::default();
    }

    /// The counter as a status shows it. `minute_ts` is the caller's: what it points to changed with firmware.
    pub(crate) fn to_json(&self, flow: Flow, minute_ts: u64) -> Value {
        match flow {
            Flow::All => self.all.to_json(minute_ts),
            Flow::Returned => self.returned.to_json(minute_ts),
        }
    }

    /// Whether every number of the counter prints as zero.
    pub(crate) fn prints_as_empty(&self, flow: Flow) -> bool {
        let shown = self.to_json(flow, 0);
        shown["total"] == json!(0) && shown["by_minute"] == json!([0, 0, 0])
    }

    fn counter_mut(&mut self, flow: Flow) -> &mut Counter {
        match flow {
            Flow::All => &mut self.all,
            Flow::Returned => &mut self.returned,
        }
    }

    fn count(&mut self, until: Timestamp) {
        let elapsed = until.since(self.counted_until).as_micros();
        let energy = u128::from(self.power_mw.unsigned_abs()) * elapsed;
        self.all.add(energy);
        if self.power_mw < 0 {
            self.returned.add(energy);
        }
        self.counted_until = self.counted_until.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const START: Timestamp = Timestamp::from_seconds(1_783_004_880);

    fn after(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn an_hour_at_a_kilowatt_is_a_kilowatt_hour() {
        let mut meter = Meter::new(START, 0.0, 0.0);
        meter.set_power(START, 1_000_000);
        meter.advance(after(3600));
        assert_eq!(meter.to_json(Flow::All, 0)["total"], json!(1000));
        assert_eq!(meter.to_json(Flow::Returned, 0)["total"], json!(0));
    }

    #[test]
    fn by_minute_shows_full_minutes_in_milliwatt_hours_newest_first() {
        let mut meter = Meter::new(START, 0.0, 0.0);
        for (at, watts) in [(0, 60), (60, 120), (120, 180), (180, 6000)] {
            meter.set_power(after(at), watts * 1000);
        }
        meter.advance(after(200));
        // 180 W, 120 W and 60 W for a minute each; the fourth minute is not full yet.
        assert_eq!(
            meter.to_json(Flow::All, 0)["by_minute"],
            json!([3000, 2000, 1000])
        );
    }

    #[test]
    fn negative_power_counts_both_ways_as_captured() {
        let mut meter = Meter::new(START, 5.0, 2.0);
        meter.set_power(START, -600_000);
        meter.advance(after(60));
        assert_eq!(meter.to_json(Flow::All, 0)["total"], json!(15));
        assert_eq!(meter.to_json(Flow::Returned, 0)["total"], json!(12));
    }

    #[test]
    fn a_gap_of_a_year_costs_no_loop_and_no_energy() {
        let mut meter = Meter::new(START, 0.0, 0.0);
        meter.set_power(START, 1_000_000);
        meter.advance(after(365 * 86_400));
        assert_eq!(meter.to_json(Flow::All, 0)["total"], json!(365 * 24 * 1000));
        assert_eq!(
            meter.to_json(Flow::All, 0)["by_minute"][2],
            number(1_000_000.0 / 60.0, 3)
        );
    }

    #[test]
    fn an_outage_counts_nothing() {
        let mut meter = Meter::new(START, 0.0, 0.0);
        meter.set_power(START, 1_000_000);
        meter.advance(after(36));
        meter.skip_to(after(3636));
        assert_eq!(meter.to_json(Flow::All, 0)["total"], json!(10));
        assert_eq!(meter.power_mw(), 0);
    }

    proptest! {
        /// However time and power are cut up, the counter is exactly the integral and never falls.
        #[test]
        fn the_total_is_the_integral(steps in prop::collection::vec((1u64..400_000_000, -2_000_000i64..4_000_000), 1..80)) {
            let mut meter = Meter::new(START, 0.0, 0.0);
            let (mut now, mut all, mut returned, mut power, mut last) = (START, 0u128, 0u128, 0i64, 0u128);
            for (micros, next_power) in steps {
                now = now.plus(Duration::from_micros(micros));
                let energy = u128::from(power.unsigned_abs()) * u128::from(micros);
                all += energy;
                if power < 0 { returned += energy; }
                meter.set_power(now, next_power);
                power = next_power;
                prop_assert_eq!(meter.all.total, all);
                prop_assert_eq!(meter.returned.total, returned);
                prop_assert!(meter.all.total >= last);
                last = meter.all.total;
            }
        }

        /// Advancing in many small steps or one large step ends in the same counters.
        #[test]
        fn steps_do_not_matter(seconds in 1u64..2000, pieces in 1u64..50, power in -3_000_000i64..3_000_000) {
            let (mut whole, mut cut) = (Meter::new(START, 0.0, 0.0), Meter::new(START, 0.0, 0.0));
            whole.set_power(START, power);
            cut.set_power(START, power);
            whole.advance(after(seconds));
            for piece in 1..=pieces {
                cut.advance(START.plus(Duration::from_secs(seconds) * piece as u32 / pieces as u32));
            }
            cut.advance(after(seconds));
            prop_assert_eq!(whole.to_json(Flow::All, 1), cut.to_json(Flow::All, 1));
            prop_assert_eq!(whole.to_json(Flow::Returned, 1), cut.to_json(Flow::Returned, 1));
        }
    }
}
