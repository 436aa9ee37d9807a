//! From what rounds found to what may be said of a promise. Pure.

use crate::median::{interval, median};
use crate::report::standard::{Row, Standing};
use crate::report::{Outcome, Unit, Verdict, show};

/// One promise about one figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) figure: &'static str,
    pub(super) bound: Bound,
}

pub(super) const fn target(figure: &'static str, bound: Bound) -> Target {
    Target { figure, bound }
}

/// Values are in the figure's unit in JSON: microseconds, bytes, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// By what it is above what it is measured against.
    AddsAtMost(f64),
    /// As a multiple of what it is measured against.
    TimesAtMost(f64),
    TimesAtLeast(f64),
}

impl Bound {
    /// Whether it compares two runs. A late generator makes them more alike; an absolute figure it only makes worse.
    pub(super) fn is_relative(self) -> bool {
        match self {
            Self::AtMost(_) | Self::AtLeast(_) => false,
            Self::AddsAtMost(_) | Self::TimesAtMost(_) | Self::TimesAtLeast(_) => true,
        }
    }

    /// None where what it needs was not measured.
    fn met(self, here: Option<f64>, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::AtMost(bound) | Self::AddsAtMost(bound) => here.map(|here| here <= bound),
            Self::AtLeast(bound) => here.map(|here| here >= bound),
            Self::TimesAtMost(times) => ratio.map(|ratio| ratio <= times),
            Self::TimesAtLeast(times) => ratio.map(|ratio| ratio >= times),
        }
    }

    fn words(self, unit: Unit) -> String {
        match self {
            Self::AtMost(bound) | Self::AddsAtMost(bound) => format!("≤ {}", show(bound, unit)),
            Self::AtLeast(bound) => format!("≥ {}", show(bound, unit)),
            Self::TimesAtMost(times) => format!("≤ {times} ×"),
            Self::TimesAtLeast(times) => format!("≥ {times} ×"),
        }
    }
}

/// A run, and what it is measured against, one soon after the other.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) here: Outcome,
    pub(super) there: Option<Outcome>,
}

impl Round {
    /// Why the generator, rather than the server, was measured.
    fn bound(&self) -> Option<&str> {
        self.outcomes().find_map(|outcome| match &outcome.verdict {
            Verdict::GeneratorBound(why) => Some(why.as_str()),
            _ => None,
        })
    }

    fn torn(&self) -> Option<&str> {
        self.outcomes().find_map(|outcome| match &outcome.verdict {
            Verdict::NotWhole(why) => Some(why.as_str()),
            _ => None,
        })
    }

    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Outcome> + Clone {
        std::iter::once(&self.here).chain(&self.there)
    }
}

/// What is said of a line as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) line: &'a str,
    pub(super) run: &'a str,
    pub(super) against: &'a str,
}

/// The row of one promise. A round in which the generator was the bottleneck does not count, and most rounds must count, unless an absolute bound is
/// kept with all of them; a round in which messages were lost counts against the whole. `failure` is why the line could not be measured to its end.
pub(super) fn row(about: About<'_>, target: &Target, rounds: &[Round], failure: Option<&str>) -> Row {
    if !target.bound.is_relative() {
        let all = judged(about, target, rounds, &rounds.iter().collect::<Vec<_>>(), failure);
        if all.standing == Standing::Met {
            return all;
        }
    }
    let sound: Vec<&Round> = rounds.iter().filter(|round| round.bound().is_none()).collect();
    judged(about, target, rounds, &sound, failure)
}

/// The same by the rounds that count.
fn judged(
    about: About<'_>,
    target: &Target,
    rounds: &[Round],
    sound: &[&Round],
    failure: Option<&str>,
) -> Row {
    let value = |outcome: &Outcome| outcome.metric(target.figure).map(|metric| metric.value);
    let pairs: Vec<(f64, Option<f64>)> = sound
        .iter()
        .filter_map(|round| Some((value(&round.here)?, round.there.as_ref().and_then(value))))
        .collect();
    let unit = rounds
        .iter()
        .find_map(|round| round.here.metric(target.figure))
        .map_or_else(|| unit(target.figure), |metric| metric.unit);
    let mut row = of_rounds(about, target, unit, &pairs);
    if let Some(why) = rounds.iter().find_map(Round::torn) {
        row.standing = Standing::Open(format!("not whole: {why}"));
    } else if sound.len() * 2 <= rounds.len() && !rounds.is_empty() {
        let why = rounds.iter().find_map(Round::bound).unwrap_or_default();
        row.standing = Standing::Open(format!("generator-bound: {why}"));
    } else if let (Standing::Open(_), Some(why)) = (&row.standing, failure) {
        row.standing = Standing::Open(format!("failed: {why}"));
    }
    row
}

/// The row of one promise about values of rounds, each with what it is measured against in the same round.
pub(super) fn of_rounds(about: About<'_>, target: &Target, unit: Unit, pairs: &[(f64, Option<f64>)]) -> Row {
    let rounds_here: Vec<f64> = pairs.iter().map(|pair| pair.0).collect();
    let rounds_there: Vec<f64> = pairs.iter().filter_map(|pair| pair.1).collect();
    let ratios: Vec<f64> = pairs
        .iter()
        .filter_map(|&(here, there)| ratio(here, there?))
        .collect();
    let (here, ratio) = (
        median(rounds_here.iter().copied()),
        median(ratios.iter().copied()),
    );
    let standing = match target.bound.met(here, ratio) {
        Some(true) => Standing::Met,
        Some(false) => Standing::Missed,
        None => Standing::Open("not measured".to_owned()),
    };
    Row {
        line: about.line.to_owned(),
        run: about.run.to_owned(),
        figure: target.figure.to_owned(),
        unit,
        here,
        there: median(rounds_there.iter().copied()),
        ratio,
        ratio_interval: interval(&ratios),
        against: about.against.to_owned(),
        target: target.bound.words(unit),
        standing,
        rounds_here,
        rounds_there,
    }
}

/// Judges a row again, by pairs of values that were measured beside each other within its one round.
pub(super) fn by_pairs(row: &mut Row, target: &Target, pairs: &[(f64, f64)]) {
    let pairs: Vec<_> = pairs.iter().map(|&(here, there)| (here, Some(there))).collect();
    let (line, run, against) = (row.line.clone(), row.run.clone(), row.against.clone());
    let about = About {
        line: &line,
        run: &run,
        against: &against,
    };
    *row = of_rounds(about, target, row.unit, &pairs);
}

/// The row of one promise about one value, measured once.
pub(super) fn single(
    about: About<'_>,
    target: &Target,
    unit: Unit,
    values: (Option<f64>, Option<f64>),
    failure: Option<&str>,
) -> Row {
    let (here, there) = values;
    let ratio = here.zip(there).and_then(|(here, there)| ratio(here, there));
    Row {
        line: about.line.to_owned(),
        run: about.run.to_owned(),
        figure: target.figure.to_owned(),
        unit,
        here,
        there,
        ratio,
        ratio_interval: None,
        against: about.against.to_owned(),
        target: target.bound.words(unit),
        standing: match (target.bound.met(here, ratio), failure) {
            (Some(true), _) => Standing::Met,
            (Some(false), _) => Standing::Missed,
            (None, Some(why)) => Standing::Open(format!("failed: {why}")),
            (None, None) => Standing::Open("not measured".to_owned()),
        },
        rounds_here: here.into_iter().collect(),
        rounds_there: there.into_iter().collect(),
    }
}

/// What a figure is measured in, by its name: for a row of which nothing was measured.
fn unit(figure: &str) -> Unit {
    let last = figure.rsplit('_').next().unwrap_or(figure);
    match figure {
        "server_cpu_per_delivery" | "p50_added" => Unit::Micros,
        "bytes_a_connection" | "private_at_1000" | "server_private_added" => Unit::Bytes,
        _ if figure.ends_with("_per_second") => Unit::PerSecond,
        _ if figure.ends_with("_in") => Unit::Seconds,
        _ if last.strip_prefix('p').is_some_and(|n| n.parse::<f64>().is_ok()) => Unit::Micros,
        _ => Unit::Count,
    }
}

fn ratio(here: f64, there: f64) -> Option<f64> {
    (there > 0.0).then(|| here / there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::tests::outcome;
    use crate::report::{Better, Figures};

    const ABOUT: About<'_> = About {
        line: "7",
        run: "slow",
        against: "undisturbed",
    };
    const P99: Target = target("p99", Bound::TimesAtMost(1.05));

    fn run(value: f64) -> Outcome {
        let mut figures = Figures::default();
        figures.put("p99", value, Unit::Micros, Better::Lower);
        outcome(figures)
    }

    fn rounds(values: &[(f64, f64)]) -> Vec<Round> {
        let rounds = values.iter().map(|&(here, there)| Round {
            here: run(here),
            there: Some(run(there)),
        });
        rounds.collect()
    }

    #[test]
    fn each_round_is_compared_with_its_own_twin() {
        // The machine became three times slower in the second round, and both with it.
        let row = row(
            ABOUT,
            &P99,
            &rounds(&[(104.0, 100.0), (309.0, 300.0), (96.0, 100.0)]),
            None,
        );
        assert_eq!((row.here, row.there), (Some(104.0), Some(100.0)));
        assert_eq!((row.ratio, row.standing), (Some(1.03), Standing::Met));
        let missed = super::row(ABOUT, &P99, &rounds(&[(106.0, 100.0)]), None);
        assert_eq!(missed.standing, Standing::Missed);
    }

    #[test]
    fn by_pairs_the_middle_one_decides_and_not_the_slow_ones() {
        let whole = rounds(&[(300.0, 200.0)]);
        let mut found = row(ABOUT, &P99, &whole, None);
        assert_eq!(found.standing, Standing::Missed);
        by_pairs(&mut found, &P99, &[(101.0, 100.0), (90.0, 100.0), (312.0, 300.0)]);
        assert_eq!((found.here, found.there), (Some(101.0), Some(100.0)));
        assert_eq!((found.ratio, found.standing), (Some(1.01), Standing::Met));
        assert_eq!((found.line.as_str(), found.run.as_str()), ("7", "slow"));
    }

    #[test]
    fn a_round_that_measured_the_generator_does_not_count_and_most_must_count() {
        let mut some = rounds(&[(100.0, 100.0), (900.0, 100.0), (101.0, 100.0)]);
        some[1].here.verdict = Verdict::GeneratorBound("late".to_owned());
        let found = row(ABOUT, &P99, &some, None);
        assert_eq!(found.standing, Standing::Met);
        assert_eq!(found.rounds_here, [100.0, 101.0]);
        some[2].there.as_mut().unwrap().verdict = Verdict::GeneratorBound("late".to_owned());
        let found = row(ABOUT, &P99, &some, None);
        assert_eq!(found.standing, Standing::Open("generator-bound: late".to_owned()));
    }

    #[test]
    fn an_absolute_bound_that_a_late_generator_keeps_is_kept() {
        let mut late = rounds(&[(100.0, 100.0), (101.0, 100.0)]);
        for round in &mut late {
            round.here.verdict = Verdict::GeneratorBound("late".to_owned());
        }
        let standing = |bound| row(ABOUT, &target("p99", bound), &late, None).standing;
        assert_eq!(standing(Bound::AtMost(200.0)), Standing::Met);
        let open = Standing::Open("generator-bound: late".to_owned());
        assert_eq!(standing(Bound::AtMost(50.0)), open);
        assert_eq!(standing(Bound::AddsAtMost(200.0)), open);
        assert_eq!(standing(Bound::TimesAtMost(2.0)), open);
    }

    #[test]
    fn a_single_lost_message_leaves_the_promise_open() {
        let mut some = rounds(&[(100.0, 100.0), (100.0, 100.0), (100.0, 100.0)]);
        some[0].here.verdict = Verdict::NotWhole("1 lost".to_owned());
        let found = row(ABOUT, &P99, &some, None);
        assert_eq!(found.standing, Standing::Open("not whole: 1 lost".to_owned()));
    }

    #[test]
    fn the_target_of_what_was_not_measured_is_told_in_its_unit() {
        for (figure, words) in [
            ("p99.9", "≤ 2.00 ms"),
            ("device_p99", "≤ 2.00 ms"),
            ("bytes_a_connection", "≤ 1.95 KiB"),
            ("lost", "≤ 2,000"),
        ] {
            let bound = target(figure, Bound::AtMost(2_000.0));
            assert_eq!(row(ABOUT, &bound, &[], Some("refused")).target, words);
        }
    }

    #[test]
    fn what_could_not_be_measured_says_why() {
        let found = row(ABOUT, &P99, &[], Some("refused"));
        assert_eq!(found.standing, Standing::Open("failed: refused".to_owned()));
        // One round was made before the failure: it is what there is.
        let found = row(ABOUT, &P99, &rounds(&[(100.0, 100.0)]), Some("refused"));
        assert_eq!(found.standing, Standing::Met);
        let bound = target("x", Bound::AtMost(1.0));
        let found = single(ABOUT, &bound, Unit::Micros, (None, None), None);
        assert_eq!(found.standing, Standing::Open("not measured".to_owned()));
    }
}
