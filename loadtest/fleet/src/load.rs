//! What hangs on an outlet: a power curve made of steps.
//!
//! Between two steps the power is constant. Steps are at least [`STEP_MIN`] apart, which bounds the work of
//! catching up after a pause. Curves come from the seed alone; whether the outlet is on is not known here.

use crate::rng::Rng;
use crate::time::Timestamp;
use std::time::Duration;

/// No two steps of a load are closer than this.
pub(crate) const STEP_MIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LoadKind {
    /// A treatment machine: standby for minutes, then warm-up ramp, work with noise and pauses, ramp down.
    Treatment,
    /// A compressor: on and off, no ramp.
    Cooler,
    /// A charger or a lamp: a few watts that hardly move.
    Standby,
    /// A balcony power plant: power flows backwards.
    Solar,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Resting { until: Timestamp },
    Rising { step: i64, of: i64 },
    Working { until: Timestamp },
    Falling { step: i64, of: i64 },
}

#[derive(Clone, Debug)]
pub(crate) struct Load {
    kind: LoadKind,
    phase: Phase,
    standby_mw: i64,
    rated_mw: i64,
    power_mw: i64,
    next_step: Timestamp,
}

impl Load {
    /// A load somewhere in its curve: a fleet that started would otherwise switch on as one.
    pub(crate) fn new(kind: LoadKind, now: Timestamp, rng: &mut Rng) -> Self {
        let (standby_mw, rated_mw) = match kind {
            LoadKind::Treatment => (rng.between(600, 9_000), rng.between(180, 1_900) * 1000),
            LoadKind::Cooler => (rng.between(0, 1_500), rng.between(70, 150) * 1000),
            LoadKind::Standby => (rng.between(300, 12_000), rng.between(12, 40) * 1000),
            LoadKind::Solar => (0, rng.between(150, 780) * -1000),
        };
        let phase = if kind == LoadKind::Solar || (kind != LoadKind::Standby && rng.one_in(2)) {
            Phase::Working {
                until: now.plus(rng.duration(Duration::from_secs(20), Duration::from_secs(600))),
            }
        } else {
            Phase::Resting {
                until: now.plus(rng.duration(Duration::from_secs(2), Duration::from_secs(240))),
            }
        };
        let mut load = Self {
            kind,
            phase,
            standby_mw,
            rated_mw,
            power_mw: 0,
            next_step: now,
        };
        load.step(rng);
        load
    }

    /// Power drawn while the outlet is on; negative if it flows back.
    pub(crate) const fn power_mw(&self) -> i64 {
        self.power_mw
    }

    pub(crate) const fn next_step(&self) -> Timestamp {
        self.next_step
    }

    /// The outlet was switched on: machines start in standby.
    pub(crate) fn restart(&mut self, now: Timestamp, rng: &mut Rng) {
        self.phase = match self.kind {
            LoadKind::Solar => Phase::Working {
                until: Timestamp::NEVER,
            },
            _ => Phase::Resting {
                until: now.plus(rng.duration(Duration::from_secs(3), Duration::from_secs(60))),
            },
        };
        self.next_step = now;
        self.step(rng);
    }

    /// Takes the step that is due at [`Load::next_step`].
    pub(crate) fn step(&mut self, rng: &mut Rng) {
        let now = self.next_step;
        self.phase = self.phase_after(now, rng);
        let (power_mw, pause) = match self.phase {
            Phase::Resting { until } => {
                let wobble = rng.between(95, 105);
                let pause = rng.duration(Duration::from_secs(15), Duration::from_secs(60));
                (self.standby_mw * wobble / 100, pause.min(until.since(now)))
            }
            Phase::Rising { step, of } | Phase::Falling { step, of } => {
                let pause = rng.duration(Duration::from_secs(1), Duration::from_secs(2));
                (
                    self.standby_mw + (self.rated_mw - self.standby_mw) * step / of,
                    pause,
                )
            }
            Phase::Working { until } => {
                // A handpiece put down for a moment shows as a short dip.
                let percent = if self.kind == LoadKind::Treatment && rng.one_in(12) {
                    rng.between(15, 30)
                } else {
                    rng.between(90, 110)
                };
                let pause = rng.duration(Duration::from_secs(1), Duration::from_secs(6));
                (self.rated_mw * percent / 100, pause.min(until.since(now)))
            }
        };
        self.power_mw = power_mw;
        self.next_step = now.plus(pause.max(STEP_MIN));
    }

    fn phase_after(&self, now: Timestamp, rng: &mut Rng) -> Phase {
        let ramp_steps = if self.kind == LoadKind::Treatment { 8 } else { 1 };
        match self.phase {
            Phase::Resting { until } if now >= until => Phase::Rising {
                step: 1,
                of: ramp_steps,
            },
            Phase::Rising { step, of } if step < of => Phase::Rising { step: step + 1, of },
            Phase::Rising { .. } => {
                let (low, high) = match self.kind {
                    LoadKind::Treatment => (120, 1500),
                    _ => (240, 720),
                };
                Phase::Working {
                    until: now.plus(rng.duration(Duration::from_secs(low), Duration::from_secs(high))),
                }
            }
            Phase::Working { until } if now >= until && self.kind != LoadKind::Solar => Phase::Falling {
                step: ramp_steps - 1,
                of: ramp_steps,
            },
            Phase::Falling { step, of } if step > 0 => Phase::Falling { step: step - 1, of },
            Phase::Falling { .. } => {
                let pause = rng.duration(Duration::from_secs(60), Duration::from_secs(900));
                Phase::Resting {
                    until: now.plus(pause),
                }
            }
            unchanged => unchanged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_seconds(1_783_004_880);

    #[test]
    fn a_treatment_machine_works_and_rests_within_two_hours() {
        let mut rng = Rng::new(1, 1);
        let mut load = Load::new(LoadKind::Treatment, START, &mut rng);
        let (mut rested, mut worked) = (false, false);
        while load.next_step() < START.plus(Duration::from_secs(7200)) {
            load.step(&mut rng);
            rested |= load.power_mw() < 10_000;
            worked |= load.power_mw() > 150_000;
        }
        assert!(rested && worked);
    }

    #[test]
    fn solar_only_ever_flows_back() {
        let mut rng = Rng::new(1, 9);
        let mut load = Load::new(LoadKind::Solar, START, &mut rng);
        for _ in 0..2000 {
            assert!(load.power_mw() < 0);
            load.step(&mut rng);
        }
    }

    proptest! {
        #[test]
        fn steps_always_move_on(seed: u64, kind in prop::sample::select(vec![
            LoadKind::Treatment, LoadKind::Cooler, LoadKind::Standby, LoadKind::Solar,
        ])) {
            let mut rng = Rng::new(seed, 0);
            let mut load = Load::new(kind, START, &mut rng);
            for _ in 0..500 {
                let before = load.next_step();
                load.step(&mut rng);
                prop_assert!(load.next_step() >= before.plus(STEP_MIN));
                prop_assert!(load.power_mw().abs() < 3_000_000);
            }
        }
    }
}
