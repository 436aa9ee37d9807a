//! The highest rate that keeps a rule, by bisection.

use crate::assertion::{Assertion, Judgement};
use crate::report::{Outcome, Verdict};
use crate::scenario::Scenario;

/// Narrowing stops when the two rates are this close, as a share of the higher.
const CLOSE_ENOUGH: f64 = 0.03;

/// Where the search stands. Pure: who runs the load is not here.
///
/// A moment in which the machine is busy with something else breaks a rule at any rate, and below it the search would never look again. So a
/// rate has broken the rules when it did so twice.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Search {
    /// The highest rate that kept the rules so far.
    kept: Option<f64>,
    /// The lowest that did not.
    broken: Option<f64>,
    /// It broke them once, and is tried again.
    doubtful: Option<f64>,
    from: f64,
    to: f64,
}

impl Search {
    fn new(from: f64, to: f64) -> Self {
        Self {
            kept: None,
            broken: None,
            doubtful: None,
            from,
            to,
        }
    }

    /// The rate to try next; None when the search has ended. Doubles until a rate breaks, then halves the distance.
    fn next(&self) -> Option<f64> {
        if self.doubtful.is_some() {
            return self.doubtful;
        }
        match (self.kept, self.broken) {
            (None, None) => Some(self.from),
            (None, Some(_)) => None,
            (Some(kept), None) => (kept < self.to).then_some((kept * 2.0).min(self.to)),
            (Some(kept), Some(broken)) => {
                (broken - kept > CLOSE_ENOUGH * broken).then_some((kept + broken) / 2.0)
            }
        }
    }

    fn tried(&mut self, rate: f64, keeps: bool) {
        let again = self.doubtful.take().is_some();
        if keeps {
            self.kept = Some(self.kept.map_or(rate, |kept| kept.max(rate)));
        } else if again {
            self.broken = Some(self.broken.map_or(rate, |broken| broken.min(rate)));
        } else {
            self.doubtful = Some(rate);
        }
    }
}

/// Looks for the highest rate of a scenario that keeps the rules, and tells on the terminal what it tries. None if already the
/// lowest does not.
///
/// # Errors
/// If a run could not be made, or a rule names a figure that the run does not have.
pub(crate) fn highest(
    scenario: &Scenario,
    rules: &[Assertion],
    range: (f64, f64),
    mut run: impl FnMut(&Scenario) -> Result<Outcome, String>,
) -> Result<Option<f64>, String> {
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
) -> Result<[Option<f64>; N], String> {
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
            search.tried(rate, objection.is_none());
        }
        if over {
            return Ok(searches.map(|search| search.kept));
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

    fn search(from: f64, to: f64, limit: f64) -> (Search, u32) {
        let mut search = Search::new(from, to);
        let mut tries = 0;
        while let Some(rate) = search.next() {
            search.tried(rate, rate <= limit);
            tries += 1;
            assert!(tries < 50);
        }
        (search, tries)
    }

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
        let found = found.unwrap().unwrap();
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
    fn the_rate_is_found_to_a_few_percent() {
        let (found, tries) = search(100.0, 100_000.0, 7_321.0);
        let kept = found.kept.unwrap();
        assert!(kept <= 7_321.0 && kept > 7_321.0 * 0.96, "{kept}");
        assert!(tries < 22, "{tries}");
    }

    #[test]
    fn a_rate_that_breaks_once_is_tried_again_and_counts_if_it_then_keeps() {
        let mut search = Search::new(100.0, 400.0);
        search.tried(100.0, true);
        search.tried(200.0, false);
        assert_eq!(search.next(), Some(200.0));
        search.tried(200.0, true);
        assert_eq!(search.next(), Some(400.0));
        search.tried(400.0, false);
        search.tried(400.0, false);
        assert_eq!((search.kept, search.broken), (Some(200.0), Some(400.0)));
    }

    #[test]
    fn several_servers_are_searched_by_turns_each_to_its_own_end() {
        use crate::assertion::tests::outcome;
        use crate::report::{Better, Figures, Unit};
        let rules = ["p99<=2ms".parse().unwrap()];
        let scenario = Scenario::load("rooms", &[]).unwrap();
        let mut turns = Vec::new();
        let found: [Option<f64>; 2] = highest_each(&scenario, &rules, (100.0, 1e6), |which, scenario| {
            turns.push(which);
            let mut figures = Figures::default();
            let p99 = scenario.load.rate.unwrap() * [1.0, 2.0][which];
            figures.put("p99", p99, Unit::Micros, Better::Lower);
            Ok(outcome(figures))
        })
        .unwrap();
        assert_eq!(turns[..4], [0, 1, 0, 1]);
        let ratio = found[0].unwrap() / found[1].unwrap();
        assert!((1.9..2.1).contains(&ratio), "{found:?}");
    }

    #[test]
    fn a_first_rate_that_breaks_ends_the_search_without_a_figure() {
        assert_eq!(search(100.0, 1_000.0, 50.0).0.kept, None);
    }

    #[test]
    fn the_upper_end_is_tried_and_not_passed() {
        assert_eq!(search(100.0, 1_000.0, 1e9).0.kept, Some(1_000.0));
    }
}
