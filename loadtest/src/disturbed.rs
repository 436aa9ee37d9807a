//! Scenarios that are measured against themselves: once undisturbed, once with somebody who misbehaves or with a crowd beside them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::SECOND_NS;
use crate::interleaved;
use crate::process;
use crate::report::{Better, Figures, Outcome, Unit, Verdict};
use crate::scenario::{Load, Scenario, Shape};
use crate::session::{Place, Session};
use crate::steady;
use crate::topology::Topology;

/// From the flood's beginning to the measured tenant's.
const HEAD_START: Duration = Duration::from_millis(300);

/// Of a crowd, connections that are being opened at a time.
const CROWD_IN_FLIGHT: u32 = 64;
/// Longer than any run that a crowd is kept for, in nanoseconds: a day.
const CROWD_STAYS_NS: u64 = 86_400 * SECOND_NS;

/// The scenario without its disturbance; None where there is none.
pub(crate) fn undisturbed(scenario: &Scenario) -> Option<Scenario> {
    let mut calm = scenario.clone();
    match &mut calm.shape {
        Shape::Slow { stalled, .. } if *stalled > 0 => *stalled = 0,
        Shape::Noisy { flood_rate, .. } if *flood_rate > 0.0 => *flood_rate = 0.0,
        Shape::Growth { idle_connections, .. } if *idle_connections > 0 => *idle_connections = 0,
        Shape::Devices { plugs, .. } if *plugs > 0 => *plugs = 0,
        _ => return None,
    }
    Some(calm)
}

/// Puts to a disturbed run what the disturbance has cost, by the run without it.
pub(crate) fn hold_against(here: &mut Outcome, calm: &Outcome) {
    let both = |name: &str| {
        let value = |outcome: &Outcome| outcome.metric(name).map(|metric| metric.value);
        value(here).zip(value(calm))
    };
    let mut figures = Figures::default();
    if let Some((here, calm)) = both("p50") {
        figures.put("p50_added", here - calm, Unit::Micros, Better::Lower);
    }
    if let Some((here, calm)) = both("p99").filter(|(_, calm)| *calm > 0.0) {
        figures.put("p99_ratio", here / calm, Unit::Share, Better::Lower);
    }
    let frames = here.metric("device_frames_per_second").map(|metric| metric.value);
    if let (Some((here, calm)), Some(frames)) = (both("server_cpu"), frames.filter(|&frames| frames > 0.0)) {
        let each = (here - calm) * 1e6 / frames;
        figures.put("server_cpu_per_device_frame", each, Unit::Micros, Better::Lower);
    }
    here.metrics.extend(figures.0);
}

/// Runs a steady scenario, with the flood or the crowd that it asks for beside it.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn run(scenario: &Scenario, name: &str, server: &str, place: &Place) -> Result<Outcome, String> {
    if let Some(crowd) = crowd(scenario) {
        return crowded(scenario, name, server, place, crowd);
    }
    if let Shape::Slow {
        stalled: 1.., turns, ..
    } = scenario.shape
    {
        let found = interleaved::run(scenario, turns, [name, server, "undisturbed"], place)?;
        return Ok(found.here);
    }
    match flood(scenario) {
        Some(flood) => flooded(scenario, name, server, place, &flood),
        None => steady::run(scenario, name, server, place),
    }
}

/// Who is idle beside the measured, and in how many rooms; None where nobody is.
fn crowd(scenario: &Scenario) -> Option<Topology> {
    match scenario.shape {
        Shape::Growth {
            idle_connections: connections @ 1..,
            idle_rooms,
            ..
        } => Some(Topology::crowd(connections, idle_rooms)),
        _ => None,
    }
}

/// Runs while a crowd is connected that does nothing but answer pings.
fn crowded(
    scenario: &Scenario,
    name: &str,
    server: &str,
    place: &Place,
    crowd: Topology,
) -> Result<Outcome, String> {
    let (outcome, gone) = amid(crowd, scenario, place, || {
        steady::run(scenario, name, server, place)
    })?;
    let mut outcome = outcome?;
    gone.mark(&mut outcome);
    Ok(outcome)
}

/// Connections of a crowd that ended although nobody wanted them to.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Gone(u64);

impl Gone {
    /// A run that its crowd has left was not the run that was asked for.
    pub(crate) fn mark(self, outcome: &mut Outcome) {
        if self.0 > 0 && outcome.verdict == Verdict::Sound {
            outcome.verdict = Verdict::NotWhole(format!("{} of the crowd lost their connections", self.0));
        }
    }
}

/// Does something while the scenario's crowd is connected.
///
/// # Errors
/// If the scenario has no crowd, or it could not be connected; in words for people.
pub(crate) fn amid_its_crowd<T>(
    scenario: &Scenario,
    place: &Place,
    body: impl FnOnce() -> T,
) -> Result<(T, Gone), String> {
    let crowd = crowd(scenario).ok_or("this scenario has no crowd")?;
    amid(crowd, scenario, place, body)
}

fn amid<T>(
    crowd: Topology,
    scenario: &Scenario,
    place: &Place,
    body: impl FnOnce() -> T,
) -> Result<(T, Gone), String> {
    let mut session = Session::with(crowd, scenario, place)?;
    session
        .connect(0..u32::MAX, CROWD_IN_FLIGHT)
        .map_err(|e| format!("the crowd: {e}"))?;
    let over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        for shard in &mut session.shards {
            // An error shows in the tally: whoever was not served is disconnected.
            scope.spawn(|| shard.pump(CROWD_STAYS_NS, |_| over.load(Ordering::Acquire)));
        }
        let done = body();
        over.store(true, Ordering::Release);
        done
    });
    Ok((done, Gone(session.tally().disconnected)))
}

/// Runs while another tenant floods.
fn flooded(
    scenario: &Scenario,
    name: &str,
    server: &str,
    place: &Place,
    flood: &Scenario,
) -> Result<Outcome, String> {
    let other = Place {
        signing: place.signing.of_the_flood()?,
        quiet: true,
        // A flood need not be punctual, and polling for its next message would take the core from who measures.
        spin_us: Some(0),
        ..place.clone()
    };
    let (flooded, outcome) = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            process::give_way();
            steady::run(flood, "flood", server, &other)
        });
        std::thread::sleep(HEAD_START);
        let outcome = steady::run(scenario, name, server, place);
        (flooding.join(), outcome)
    });
    let mut outcome = outcome?;
    let flooded = flooded
        .map_err(|_| "the flood panicked")?
        .map_err(|e| format!("the flood: {e}"))?;
    for figure in ["messages_per_second", "deliveries_per_second"] {
        if let Some(metric) = flooded.metric(figure) {
            let mut metric = metric.clone();
            metric.name = format!("flood_{figure}");
            metric.better = Better::Neither;
            outcome.metrics.push(metric);
        }
    }
    // The flood may be refused or thinned out: that is what bounds are for. It must be said, not judged.
    if flooded.verdict != Verdict::Sound {
        outcome
            .notes
            .push(format!("the flood itself: {:?}", flooded.verdict));
    }
    outcome
        .notes
        .extend(flooded.notes.iter().map(|note| format!("the flood: {note}")));
    Ok(outcome)
}

/// What floods: one publisher of another tenant, for longer than the measurement.
fn flood(scenario: &Scenario) -> Option<Scenario> {
    let Shape::Noisy {
        flood_rate,
        flood_burst,
        flood_subscribers,
        ..
    } = scenario.shape
    else {
        return None;
    };
    let load = &scenario.load;
    (flood_rate > 0.0).then(|| Scenario {
        about: "the flood".to_owned(),
        shape: Shape::Fanout {
            subscribers: flood_subscribers,
        },
        load: Load {
            rate: Some(flood_rate),
            burst: flood_burst,
            outstanding: None,
            warmup_seconds: load.warmup_seconds + HEAD_START.as_secs_f64(),
            seconds: load.seconds + 2.0 * HEAD_START.as_secs_f64(),
            drain_seconds: 1.0,
            ..load.clone()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_disturbed_has_an_undisturbed_twin() {
        let load = |name| Scenario::load(name, &[]).unwrap();
        assert_eq!(undisturbed(&load("rooms")), None);
        let calm = undisturbed(&load("slow")).unwrap();
        assert!(matches!(calm.shape, Shape::Slow { stalled: 0, .. }));
        assert_eq!(undisturbed(&calm), None);
        let calm = undisturbed(&load("growth")).unwrap();
        assert!(matches!(
            calm.shape,
            Shape::Growth {
                idle_connections: 0,
                ..
            }
        ));
        let calm = undisturbed(&load("devices")).unwrap();
        assert!(matches!(calm.shape, Shape::Devices { plugs: 0, .. }));
        assert_eq!(undisturbed(&calm), None);
        let calm = undisturbed(&load("noisy")).unwrap();
        assert_eq!((flood(&calm), undisturbed(&calm)), (None, None));
    }

    #[test]
    fn what_a_disturbance_costs_is_told_beside_the_run() {
        let run = |p50: f64, p99: f64, cpu: f64| {
            let mut figures = Figures::default();
            figures.put("p50", p50, Unit::Micros, Better::Lower);
            figures.put("p99", p99, Unit::Micros, Better::Lower);
            figures.put("server_cpu", cpu, Unit::Cores, Better::Lower);
            crate::assertion::tests::outcome(figures)
        };
        let (mut here, calm) = (run(103.0, 300.0, 0.4), run(100.0, 200.0, 0.3));
        hold_against(&mut here, &calm);
        let value = |name: &str| here.metric(name).map(|metric| metric.value);
        assert_eq!((value("p50_added"), value("p99_ratio")), (Some(3.0), Some(1.5)));
        assert_eq!(value("server_cpu_per_device_frame"), None, "there were no frames");
    }

    #[test]
    fn the_flood_lasts_longer_than_what_it_disturbs() {
        let noisy = Scenario::load("noisy", &[]).unwrap();
        let flood = flood(&noisy).unwrap();
        let length = |s: &Scenario| s.load.warmup_seconds + s.load.seconds;
        assert!(length(&flood) > length(&noisy) + HEAD_START.as_secs_f64());
        assert_eq!((flood.load.rate, flood.load.burst), (Some(49_900.0), 50));
    }
}
