//! The highest rate that keeps a rule, by bisection over rates that are each tried several times.
//!
//! One trial says little near the edge, and elsewhere too: a single moment in which the machine does something else breaks a rule at any
//! rate. So what counts at a rate is the median trial: it keeps the rules if most of its trials do. Far from the edge two of three decide, near
//! it four of seven; no more are made than decide. Bisection never looks again below what broke, so that a rate on which the few decided is
//! tried by the many before the search ends there.

use crate::assertion::{Assertion, Judgement};
use crate::report::{Outcome, Verdict};
use crate::scenario::Scenario;

/// Narrowing stops when the two rates are this close, as a share of the higher.
const CLOSE_ENOUGH: f64 = 0.03;
/// The edge is near when the rates around it are this close, as a multiple of the lower.
const NEAR: f64 = 1.3;
/// Trials alike that decide far from the edge: of three at most ...
const FEW: u32 = 2;
/// ... and near it: of seven.
const MANY: u32 = 4;
/// Trials of one search, so that a machine that is never quiet ends it too.
const TRIALS_MAX: u32 = 80;

/// How many trials alike decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    Few,
    Many,
}

/// A rate that is being tried.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Trying {
    rate: f64,
    care: Care,
    keeps: u32,
    breaks: u32,
}

/// Where the search stands. Pure: who runs the load is not here.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Search {
    /// The highest rate that kept the rules so far.
    kept: Option<f64>,
    /// The lowest that did not, and who has said so.
    broken: Option<(f64, Care)>,
    trying: Option<Trying>,
    trials: u32,
    from: f64,
    to: f64,
}

/// What a search has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// The highest rate that keeps the rules; None if already the lowest does not.
    pub(crate) rate: Option<f64>,
    /// The lowest that does not; None if all do.
    pub(crate) broken: Option<f64>,
    pub(crate) trials: u32,
}

impl Search {
    fn new(from: f64, to: f64) -> Self {
        Self {
            kept: None,
            broken: None,
            trying: None,
            trials: 0,
            from,
            to,
        }
    }

    /// The rate of the next trial; None when the search has ended.
    fn next(&mut self) -> Option<f64> {
        if self.trials >= TRIALS_MAX {
            return None;
        }
        if self.trying.is_none() {
            let (rate, care) = self.choose()?;
            self.trying = Some(Trying {
                rate,
                care,
                keeps: 0,
                breaks: 0,
            });
        }
        self.trying.map(|trying| trying.rate)
    }

    /// Doubles until a rate breaks, then halves the distance.
    fn choose(&self) -> Option<(f64, Care)> {
        let (broken, by) = match (self.kept, self.broken) {
            (None, None) => return Some((self.from, Care::Few)),
            (Some(kept), None) => {
                return (kept < self.to).then_some(((kept * 2.0).min(self.to), Care::Few));
            }
            (_, Some(broken)) => broken,
        };
        let apart = self.kept.filter(|kept| broken - kept > CLOSE_ENOUGH * broken);
        match apart {
            Some(kept) if broken > NEAR * kept => Some((f64::midpoint(kept, broken), Care::Few)),
            Some(kept) => Some((f64::midpoint(kept, broken), Care::Many)),
            None => (by == Care::Few).then_some((broken, Care::Many)),
        }
    }

    /// What a trial at the rate of [`Self::next`] said.
    fn tried(&mut self, keeps: bool) {
        let Some(trying) = &mut self.trying else {
            return;
        };
        self.trials += 1;
        if keeps {
            trying.keeps += 1;
        } else {
            trying.breaks += 1;
        }
        let decides = match trying.care {
            Care::Few => FEW,
            Care::Many => MANY,
        };
        let Trying { rate, care, .. } = *trying;
        if trying.keeps >= decides {
            self.trying = None;
            self.kept = Some(self.kept.map_or(rate, |kept| kept.max(rate)));
            // It was said to break, by few.
            self.broken = self.broken.filter(|(broken, _)| *broken > rate);
        } else if trying.breaks >= decides {
            self.trying = None;
            self.broken = Some((rate, care));
        }
    }

    fn found(&self) -> Found {
        Found {
            rate: self.kept,
            broken: self.broken.map(|(rate, _)| rate),
            trials: self.trials,
        }
    }
}

/// Looks for the highest rate of a scenario that keeps the rules, and tells on the terminal what it tries.
///
/// # Errors
/// If a run could not be made, or a rule names a figure that the run does not have.
pub(crate) fn highest(
    scenario: &Scenario,
    rules: &[Assertion],
    range: (f64, f64),
    mut run: impl FnMut(&Scenario) -> Result<Outcome, String>,
) -> Result<Found, String> {
    let [found] = highest_each(scenario, rules, range, |_, scenario| run(scenario))?;
    Ok(found)
}

/// The same at several servers, which are tried by turns, so that what the machine does meanwhile meets all of them. `run` is told which.
///
/// # Errors
/// As for [`highest`].
pub(crate) fn highest_each<const N: usize>(
    scenario: &Scenario,
    rules: &[Assertion],
    (from, to): (f64, f64),
    mut run: impl FnMut(usize, &Scenario) -> Result<Outcome, String>,
) -> Result<[Found; N], String> {
    let mut scenario = scenario.clone();
    scenario.load.outstanding = None;
    let mut searches = [Search::new(from, to); N];
    loop {
        let mut over = true;
        for (which, search) in searches.iter_mut().enumerate() {
            let Some(rate) = search.next() else {
                continue;
            };
            over = false;
            scenario.load.rate = Some(rate);
            let outcome = run(which, &scenario)?;
            let objection = objection(&outcome, rules)?;
            let words = objection.as_deref().unwrap_or("kept");
            eprintln!("{rate:>10.0}/s  {:<18} {words}", outcome.server);
            search.tried(objection.is_none());
        }
        if over {
            return Ok(searches.map(|search| search.found()));
        }
    }
}

/// Why a run does not count as keeping the rules; None if it does.
///
/// A late generator does not count against a rate that keeps them: latency is counted from when a message was due, so that
/// lateness is in it and makes it worse. Against one that breaks them it may: then the words say so, because the server may be able to
/// do more.
///
/// # Errors
/// If a rule names a figure that the run does not have.
fn objection(outcome: &Outcome, rules: &[Assertion]) -> Result<Option<String>, String> {
    if let Verdict::NotWhole(why) = &outcome.verdict {
        return Ok(Some(why.clone()));
    }
    for rule in rules {
        if let Judgement::Broken(why) = rule.judge(outcome)? {
            return Ok(Some(match &outcome.verdict {
                Verdict::GeneratorBound(bound) => format!("{why}; perhaps by the generator: {bound}"),
                _ => why,
            }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the server keeps the rules up to `limit`, but for trials that `noise` breaks: every so many-th.
    fn search(from: f64, to: f64, limit: f64, noise: u32) -> Found {
        let mut search = Search::new(from, to);
        let mut tries = 0;
        while let Some(rate) = search.next() {
            tries += 1;
            search.tried(rate <= limit && tries % noise != 0);
        }
        search.found()
    }

    const QUIET: u32 = u32::MAX;

    #[test]
    fn a_scenario_is_searched_at_rates_only_and_stops_below_what_breaks_the_rule() {
        use crate::assertion::tests::outcome;
        use crate::report::{Better, Figures, Unit};
        let rules = ["p99<=2ms".parse().unwrap()];
        let closed = Scenario::load("rooms", &["load.outstanding=5".to_owned()]).unwrap();
        let found = highest(&closed, &rules, (100.0, 1e6), |scenario| {
            assert_eq!(scenario.load.outstanding, None);
            let mut figures = Figures::default();
            // A server whose p99 is its rate in microseconds.
            figures.put("p99", scenario.load.rate.unwrap(), Unit::Micros, Better::Lower);
            Ok(outcome(figures))
        });
        let found = found.unwrap().rate.unwrap();
        assert!((1_940.0..=2_000.0).contains(&found), "{found}");
    }

    #[test]
    fn a_late_generator_counts_against_a_rate_only_if_it_breaks_a_rule() {
        use crate::assertion::tests::outcome;
        use crate::report::{Better, Figures, Unit};
        let rules = ["p99<=2ms".parse().unwrap()];
        let run = |p99| {
            let mut figures = Figures::default();
            figures.put("p99", p99, Unit::Micros, Better::Lower);
            let mut outcome = outcome(figures);
            outcome.verdict = Verdict::GeneratorBound("it sent late".to_owned());
            objection(&outcome, &rules).unwrap()
        };
        assert_eq!(run(1_999.0), None);
        assert!(
            run(2_001.0)
                .unwrap()
                .ends_with("perhaps by the generator: it sent late")
        );
    }

    #[test]
    fn the_rate_is_found_to_a_few_percent_between_what_keeps_and_what_breaks() {
        let found = search(100.0, 100_000.0, 7_321.0, QUIET);
        let (kept, broken) = (found.rate.unwrap(), found.broken.unwrap());
        assert!(kept <= 7_321.0 && 7_321.0 < broken && broken - kept <= CLOSE_ENOUGH * broken);
        assert!(found.trials < 45, "{}", found.trials);
    }

    #[test]
    fn a_machine_that_breaks_every_third_trial_does_not_move_the_rate() {
        for noise in [3, 4, 5, 7] {
            let found = search(100.0, 100_000.0, 7_321.0, noise);
            let kept = found.rate.unwrap();
            assert!(kept <= 7_321.0 && kept > 7_321.0 * 0.96, "{noise}: {kept}");
        }
    }

    #[test]
    fn a_rate_that_few_trials_broke_is_tried_by_many_before_the_search_ends_there() {
        let mut search = Search::new(100.0, 200.0);
        for keeps in [true, true, false, false] {
            search.next();
            search.tried(keeps);
        }
        assert_eq!(
            (search.kept, search.broken),
            (Some(100.0), Some((200.0, Care::Few)))
        );
        while let Some(rate) = search.next() {
            search.tried(rate <= 250.0);
        }
        // It kept the rate in the end, which is the highest that is asked for.
        assert_eq!((search.kept, search.broken), (Some(200.0), None));
    }

    #[test]
    fn a_machine_that_is_never_quiet_ends_the_search_all_the_same() {
        let mut search = Search::new(100.0, 1e9);
        let mut keeps = false;
        while search.next().is_some() {
            keeps = !keeps;
            search.tried(keeps);
        }
        assert!(search.trials <= TRIALS_MAX);
    }

    #[test]
    fn several_servers_are_searched_by_turns_each_to_its_own_end() {
        use crate::assertion::tests::outcome;
        use crate::report::{Better, Figures, Unit};
        let rules = ["p99<=2ms".parse().unwrap()];
        let scenario = Scenario::load("rooms", &[]).unwrap();
        let mut turns = Vec::new();
        let found: [Found; 2] = highest_each(&scenario, &rules, (100.0, 1e6), |which, scenario| {
            turns.push(which);
            let mut figures = Figures::default();
            let p99 = scenario.load.rate.unwrap() * [1.0, 2.0][which];
            figures.put("p99", p99, Unit::Micros, Better::Lower);
            Ok(outcome(figures))
        })
        .unwrap();
        assert_eq!(turns[..4], [0, 1, 0, 1]);
        let ratio = found[0].rate.unwrap() / found[1].rate.unwrap();
        assert!((1.9..2.1).contains(&ratio), "{found:?}");
    }

    #[test]
    fn a_first_rate_that_breaks_ends_the_search_without_a_figure() {
        assert_eq!(search(100.0, 1_000.0, 50.0, QUIET).rate, None);
    }

    #[test]
    fn the_upper_end_is_tried_and_not_passed() {
        assert_eq!(search(100.0, 1_000.0, 1e9, QUIET).rate, Some(1_000.0));
    }
}
