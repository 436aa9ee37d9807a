//! The standard set: the runs behind the promises of the documentation, each against its target, as one table.

use std::fmt::Write as _;

use crate::assertion::Assertion;
use crate::beside::Beside;
use crate::dialect::Dialect;
use crate::limit::Writing;
use crate::report::{Machine, Outcome, Unit, Verdict, show};
use crate::scenario::Scenario;
use crate::search::highest;
use crate::session::Place;
use crate::{cli, disturbed};

/// What a run is measured by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Against {
    /// Itself alone.
    Nothing,
    /// The bare server, in the same round.
    Limit(Writing),
    /// Itself without the disturbance.
    Calm,
}

/// One promise about one figure.
#[derive(Clone, Copy, Debug)]
struct Target {
    figure: &'static str,
    bound: Bound,
}

/// Values are in the figure's unit in JSON: microseconds, bytes, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// As a multiple of what it is measured against.
    TimesAtMost(f64),
    TimesAtLeast(f64),
}

struct Step {
    title: &'static str,
    scenario: &'static str,
    changes: &'static [&'static str],
    against: Against,
    targets: &'static [Target],
}

const fn target(figure: &'static str, bound: Bound) -> Target {
    Target { figure, bound }
}

/// In this order, because the first needs a server that nobody has used.
const STEPS: [Step; 9] = [
    Step {
        title: "idle connections",
        scenario: "idle",
        changes: &[],
        against: Against::Nothing,
        targets: &[
            target("bytes_a_connection", Bound::AtMost(2_048.0)),
            target("private_at_1000", Bound::AtMost(25.0 * 1_048_576.0)),
        ],
    },
    Step {
        title: "fanout 1 to 1,000, 16 outstanding",
        scenario: "fanout",
        changes: &[],
        against: Against::Limit(Writing::Coalesced),
        targets: &[target("deliveries_per_second", Bound::TimesAtLeast(0.75))],
    },
    Step {
        title: "rooms 100 of 10, 1,000 msg/s",
        scenario: "rooms",
        changes: &[],
        against: Against::Limit(Writing::OneByOne),
        targets: &[target("server_cpu_per_delivery", Bound::TimesAtMost(1.25))],
    },
    Step {
        title: "rooms 100 of 10, 1,000 outstanding",
        scenario: "rooms",
        changes: &["load.outstanding=1000"],
        against: Against::Limit(Writing::Coalesced),
        targets: &[target("deliveries_per_second", Bound::TimesAtLeast(0.70))],
    },
    Step {
        title: "pairs of 1,000, 10,000 msg/s",
        scenario: "pairs",
        changes: &[],
        against: Against::Limit(Writing::OneByOne),
        targets: &[
            target("p50", Bound::AtMost(300.0)),
            target("p99", Bound::AtMost(1_000.0)),
            target("p99.9", Bound::AtMost(2_000.0)),
            target("lost", Bound::AtMost(0.0)),
        ],
    },
    Step {
        title: "echo",
        scenario: "echo",
        changes: &[],
        against: Against::Limit(Writing::OneByOne),
        targets: &[
            target("p50", Bound::TimesAtMost(1.2)),
            target("p99", Bound::TimesAtMost(1.5)),
        ],
    },
    Step {
        title: "storm of 5,000",
        scenario: "storm",
        changes: &[],
        against: Against::Nothing,
        targets: &[
            target("connects_per_second", Bound::AtLeast(6_000.0)),
            target("ready_p99", Bound::AtMost(50_000.0)),
            target("recovered_in", Bound::AtMost(3.0)),
            target("lost", Bound::AtMost(0.0)),
            target("duplicates", Bound::AtMost(0.0)),
        ],
    },
    Step {
        title: "one of 1,000 stops reading",
        scenario: "slow",
        changes: &[],
        against: Against::Calm,
        targets: &[target("p99", Bound::TimesAtMost(1.05))],
    },
    Step {
        title: "another tenant floods",
        scenario: "noisy",
        changes: &[],
        against: Against::Calm,
        targets: &[target("p99", Bound::TimesAtMost(2.0))],
    },
];

/// Runs all steps, each so many times in turns with what it is measured against, and returns the table in Markdown. Progress
/// goes to the terminal.
///
/// # Errors
/// If a step could not be run; in words for people.
pub(crate) fn run(place: &Place, rounds: u32, prefix: &[String]) -> Result<String, String> {
    if place.dialect != Dialect::Cauce {
        return Err(
            "the standard set holds our own promises: run single scenarios against other servers".to_owned(),
        );
    }
    let mut rows = String::new();
    let mut others = 0.0f64;
    for step in &STEPS {
        let changes: Vec<String> = step.changes.iter().map(|&change| change.to_owned()).collect();
        let scenario = Scenario::load(step.scenario, &changes)?;
        // A second look at a server that has been used says nothing about its memory.
        let rounds = if step.scenario == "idle" { 1 } else { rounds.max(1) };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            if !place.quiet {
                eprintln!("{} ({round} of {rounds})", step.title);
            }
            ours.push(cli::once(&scenario, step.scenario, "target", place)?);
            match step.against {
                Against::Nothing => {}
                Against::Limit(writing) => {
                    let beside = Beside::start(prefix, writing)?;
                    let there = place.elsewhere(beside.address, beside.pid());
                    theirs.push(cli::once(
                        &cli::bare(&scenario),
                        step.scenario,
                        writing.words(),
                        &there,
                    )?);
                }
                Against::Calm => {
                    let calm = disturbed::undisturbed(&scenario).ok_or("nothing disturbs this scenario")?;
                    theirs.push(cli::once(&calm, step.scenario, "target, undisturbed", place)?);
                }
            }
        }
        for outcome in ours.iter().chain(&theirs) {
            others = outcome
                .metric("others_cpu")
                .map_or(others, |m| others.max(m.value));
        }
        for target in step.targets {
            row(&mut rows, step, target, &ours, &theirs);
        }
    }
    rows.push_str(&search(place, prefix)?);
    let machine = Machine::here();
    Ok(format!(
        "{} × {}, Linux {}, {} s since 1970; medians of {rounds}; other processes used up to {others:.2} cores.\n\n\
         | run | figure | here | against | ratio | target | |\n| --- | --- | --- | --- | --- | --- | --- |\n{rows}",
        machine.cores, machine.processor, machine.kernel, machine.unix_seconds
    ))
}

/// The highest rate of `rooms` that keeps p99 within 2 ms, here and at the bare server: at least nine tenths.
fn search(place: &Place, prefix: &[String]) -> Result<String, String> {
    const RATES: (f64, f64) = (500.0, 100_000.0);
    const TARGET: f64 = 0.9;
    let short = ["load.seconds=5", "load.warmup_seconds=1", "load.drain_seconds=2"].map(str::to_owned);
    let scenario = Scenario::load("rooms", &short)?;
    let rules: [Assertion; 1] = ["p99<=2ms".parse()?];
    let here = highest(&scenario, &rules, RATES, |s| {
        cli::once(s, "rooms", "target", place)
    })?;
    let beside = Beside::start(prefix, Writing::OneByOne)?;
    let there = place.elsewhere(beside.address, beside.pid());
    let there = highest(&scenario, &rules, RATES, |s| {
        cli::once(s, "rooms", "limit", &there)
    })?;
    let shown = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| show(rate, Unit::PerSecond));
    let ratio = here.zip(there).map(|(here, there)| here / there);
    Ok(format!(
        "| rooms 100 of 10 | highest rate with p99 ≤ 2 ms | {} | {} | {} | ≥ {TARGET} × | {} |\n",
        shown(here),
        shown(there),
        ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        verdict([].iter(), ratio.map(|ratio| ratio >= TARGET))
    ))
}

fn row(out: &mut String, step: &Step, target: &Target, ours: &[Outcome], theirs: &[Outcome]) {
    let here = median(ours, target.figure);
    let there = median(theirs, target.figure);
    let unit = ours
        .first()
        .and_then(|o| o.metric(target.figure))
        .map_or(Unit::Count, |m| m.unit);
    let ratio = here
        .zip(there)
        .filter(|(_, there)| *there > 0.0)
        .map(|(here, there)| here / there);
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| show(value, unit));
    let bound = match target.bound {
        Bound::AtMost(bound) => format!("≤ {}", show(bound, unit)),
        Bound::AtLeast(bound) => format!("≥ {}", show(bound, unit)),
        Bound::TimesAtMost(times) => format!("≤ {times} ×"),
        Bound::TimesAtLeast(times) => format!("≥ {times} ×"),
    };
    let words = verdict(ours.iter().chain(theirs), met(target.bound, here, ratio));
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "| {} | {} | {} | {} | {} | {bound} | {words} |",
        step.title,
        target.figure,
        shown(here),
        shown(there),
        ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
    );
}

/// The middle of what the runs found; None if none of them has the figure.
fn median(outcomes: &[Outcome], figure: &str) -> Option<f64> {
    let mut values: Vec<f64> = outcomes
        .iter()
        .filter_map(|o| o.metric(figure))
        .map(|m| m.value)
        .collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn met(bound: Bound, here: Option<f64>, ratio: Option<f64>) -> Option<bool> {
    match bound {
        Bound::AtMost(bound) => here.map(|here| here <= bound),
        Bound::AtLeast(bound) => here.map(|here| here >= bound),
        Bound::TimesAtMost(times) => ratio.map(|ratio| ratio <= times),
        Bound::TimesAtLeast(times) => ratio.map(|ratio| ratio >= times),
    }
}

/// What was not soundly measured is neither met nor missed.
fn verdict<'a>(outcomes: impl Iterator<Item = &'a Outcome>, met: Option<bool>) -> &'static str {
    let (mut bound, mut torn) = (false, false);
    for outcome in outcomes {
        bound |= matches!(outcome.verdict, Verdict::GeneratorBound(_));
        torn |= matches!(outcome.verdict, Verdict::NotWhole(_));
    }
    match (bound, torn, met) {
        (true, ..) => "generator-bound",
        (_, true, _) => "not whole",
        (.., Some(true)) => "met",
        (.., Some(false)) => "**missed**",
        (.., None) => "not measured",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::tests::outcome;
    use crate::report::{Better, Figures};

    fn runs(values: &[f64]) -> Vec<Outcome> {
        let run = |value: &f64| {
            let mut figures = Figures::default();
            figures.put("p99", *value, Unit::Micros, Better::Lower);
            outcome(figures)
        };
        values.iter().map(run).collect()
    }

    #[test]
    fn every_step_is_a_scenario_that_loads_and_has_what_it_is_measured_against() {
        for step in &STEPS {
            let changes: Vec<String> = step.changes.iter().map(|&c| c.to_owned()).collect();
            let scenario = Scenario::load(step.scenario, &changes).unwrap();
            assert_eq!(
                step.against == Against::Calm,
                disturbed::undisturbed(&scenario).is_some()
            );
            let relative = |t: &&Target| matches!(t.bound, Bound::TimesAtMost(_) | Bound::TimesAtLeast(_));
            assert!(step.against != Against::Nothing || step.targets.iter().find(relative).is_none());
        }
    }

    #[test]
    fn a_row_compares_medians_and_says_whether_the_target_is_met() {
        let slow = &STEPS[7];
        let mut out = String::new();
        row(
            &mut out,
            slow,
            &slow.targets[0],
            &runs(&[900.0, 100.0, 104.0]),
            &runs(&[100.0, 1.0, 200.0]),
        );
        assert!(out.contains("| 1.04 |") && out.ends_with("| met |\n"), "{out}");
        out.clear();
        row(&mut out, slow, &slow.targets[0], &runs(&[106.0]), &runs(&[100.0]));
        assert!(out.contains("**missed**"), "{out}");
    }

    #[test]
    fn what_was_not_soundly_measured_is_neither_met_nor_missed() {
        let mut bound = runs(&[1.0]);
        bound[0].verdict = Verdict::GeneratorBound(String::new());
        assert_eq!(verdict(bound.iter(), Some(true)), "generator-bound");
        assert_eq!(verdict([].iter(), None), "not measured");
    }
}
