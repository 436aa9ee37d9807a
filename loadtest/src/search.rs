//! The highest rate that keeps a rule: by bisection until the edge is near, and there by a walk.
//!
//! One trial says little near the edge: a single moment in which the machine does something else breaks a rule at any rate. So what is
//! looked for is the rate that half of the trials keep. Far from the edge a rate that is kept once is kept, for no accident makes
//! a server faster, and one breaks that two trials broke. Near it the rate goes a small step up after each trial that kept the rule and a step
//! down after each that broke it, and so stays around the rate that is looked for, wherever bisection was mistaken; the mean of where it was
//! is the answer.

use crate::assertion::{Assertion, Judgement};
use crate::report::{Outcome, Verdict};
use crate::scenario::Scenario;

/// The walk begins when the rates around the edge are this close, as a multiple of the lower.
const NEAR: f64 = 1.3;
/// A step of the walk, as a multiple of the lower rate.
const STEP: f64 = 1.05;
/// Trials of a walk.
const WALK: usize = 21;
/// Trials without one that keeps the rules after which a rate far from the edge is broken.
const BREAKS: u32 = 2;
/// Trials of one search, so that a machine that is never quiet ends it too.
const TRIALS_MAX: u32 = 80;

/// A trial of the walk.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Trial {
    /// Steps above where the walk began.
    height: i32,
    kept: bool,
}

/// Where the search stands. Pure: who runs the load is not here.
#[derive(Clone, Debug, PartialEq)]
struct Search {
    from: f64,
    to: f64,
    /// The highest rate that kept the rules so far.
    kept: Option<f64>,
    /// The lowest that did not.
    broken: Option<f64>,
    trying: Option<f64>,
    /// Of the rate that is being tried, far from the edge.
    breaks: u32,
    walk: Vec<Trial>,
    trials: u32,
}

/// What a search has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// The highest rate that keeps the rules; None if already the lowest does not.
    pub(crate) rate: Option<f64>,
    /// The lowest above it that does not; None if all do.
    pub(crate) broken: Option<f64>,
    pub(crate) trials: u32,
}

impl Search {
    fn new(from: f64, to: f64) -> Self {
        Self {
            from,
            to,
            kept: None,
            broken: None,
            trying: None,
            breaks: 0,
            walk: Vec::with_capacity(WALK),
            trials: 0,
        }
    }

    /// The rate of the next trial; None when the search has ended.
    fn next(&mut self) -> Option<f64> {
        if self.trials >= TRIALS_MAX || self.walk.len() >= WALK {
            return None;
        }
        if self.trying.is_none() {
            self.trying = self.choose();
        }
        self.trying
    }

    /// Doubles until a rate breaks, halves the distance until the edge is near, and walks.
    fn choose(&self) -> Option<f64> {
        match (self.kept, self.broken) {
            (None, None) => Some(self.from),
            (None, Some(_)) => None,
            (Some(kept), None) => (kept < self.to).then_some((kept * 2.0).min(self.to)),
            (Some(_), Some(_)) if self.is_near() => Some(self.rate(self.height())),
            (Some(kept), Some(broken)) => Some(middle(kept, broken)),
        }
    }

    /// Where the walk is to go.
    fn height(&self) -> i32 {
        self.walk.last().map_or(0, |last| {
            if !last.kept {
                last.height - 1
            } else if self.rate(last.height) < self.to {
                last.height + 1
            } else {
                last.height
            }
        })
    }

    /// The rate at a height of the walk, which begins in the middle of what bisection left.
    fn rate(&self, height: i32) -> f64 {
        let edge = self.kept.zip(self.broken);
        let began = edge.map_or(self.from, |(kept, broken)| middle(kept, broken));
        (began * STEP.powi(height)).min(self.to)
    }

    /// What a trial at the rate of [`Self::next`] said.
    fn tried(&mut self, keeps: bool) {
        let Some(rate) = self.trying else {
            return;
        };
        self.trials += 1;
        if self.is_near() {
            let height = self.height();
            self.walk.push(Trial { height, kept: keeps });
            self.trying = None;
        } else if keeps {
            self.trying = None;
            self.breaks = 0;
            self.kept = Some(rate);
        } else {
            self.breaks += 1;
            if self.breaks >= BREAKS {
                self.trying = None;
                self.breaks = 0;
                self.broken = Some(rate);
            }
        }
    }

    fn is_near(&self) -> bool {
        let edge = self.kept.zip(self.broken);
        edge.is_some_and(|(kept, broken)| broken <= NEAR * kept)
    }

    fn found(&self) -> Found {
        let (rate, broken) = self.edge().unwrap_or((self.kept, self.broken));
        Found {
            rate,
            broken,
            trials: self.trials,
        }
    }

    /// Where the walk was on the whole, and the lowest rate above that broke more often than not. None before it has begun.
    fn edge(&self) -> Option<(Option<f64>, Option<f64>)> {
        let trials = u32::try_from(self.walk.len()).ok().filter(|&trials| trials > 0)?;
        // Where the first trial was, bisection said; where the last one leads to, it says itself.
        let between: i32 = self.walk[1..].iter().map(|trial| trial.height).sum();
        let mean = f64::from(between + self.height()) / f64::from(trials);
        let rate = (self.rate(0) * STEP.powf(mean)).clamp(self.from, self.to);
        let breaks = |height: &i32| {
            let there = self.walk.iter().filter(|trial| trial.height == *height);
            there.clone().filter(|trial| trial.kept).count() * 2 < there.count()
        };
        let heights = self.walk.iter().map(|trial| trial.height);
        let above = heights.filter(|&height| self.rate(height) > rate);
        let broken = above.filter(breaks).min().map(|height| self.rate(height));
        Some((Some(rate), broken.or(self.broken.filter(|broken| *broken > rate))))
    }
}

/// The middle by ratio, for that is what doublings and steps are.
fn middle(low: f64, high: f64) -> f64 {
    (low * high).sqrt()
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
    let mut searches = std::array::from_fn::<_, N, _>(|_| Search::new(from, to));
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
            return Ok(searches.each_ref().map(Search::found));
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
        assert!((2_000.0 / STEP..=2_000.0 * STEP).contains(&found), "{found}");
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
    fn the_rate_is_found_to_a_step_between_what_keeps_and_what_breaks() {
        for limit in [150.0, 7_321.0, 8_000.0, 13_777.0, 31_999.0, 99_000.0] {
            let found = search(100.0, 100_000.0, limit, QUIET);
            let (kept, broken) = (found.rate.unwrap(), found.broken.unwrap());
            assert!(
                kept <= limit * STEP.sqrt() && limit < broken && broken <= kept * STEP,
                "{found:?}"
            );
            assert!(found.trials < 44, "{}", found.trials);
        }
    }

    #[test]
    fn a_machine_that_breaks_some_trials_hardly_moves_the_rate() {
        for noise in [3, 4, 5, 7] {
            let found = search(100.0, 100_000.0, 7_321.0, noise);
            let kept = found.rate.unwrap();
            assert!(
                kept <= 7_321.0 && kept > 7_321.0 / STEP.powi(3),
                "{noise}: {kept}"
            );
        }
    }

    #[test]
    fn a_walk_finds_the_edge_where_bisection_was_mistaken() {
        let mut search = Search::new(1_000.0, 64_000.0);
        // Two accidents in a row at 16,000, which the server keeps.
        let mut accidents = 2;
        while let Some(rate) = search.next() {
            let accident = accidents > 0 && rate == 16_000.0;
            accidents -= u32::from(accident);
            search.tried(rate <= 17_000.0 && !accident);
        }
        let found = search.found().rate.unwrap();
        assert!((16_000.0..=17_000.0 * STEP).contains(&found), "{found}");
    }

    #[test]
    fn rates_that_half_of_the_trials_keep_are_found_whatever_the_order_of_accidents() {
        // A server that keeps the rule the more rarely the higher the rate: half of the time at 10,000.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut chance = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut found = Vec::new();
        for _ in 0..200 {
            let mut search = Search::new(1_000.0, 100_000.0);
            while let Some(rate) = search.next() {
                let share = 1.0 / (1.0 + (rate / 10_000.0).powi(15));
                search.tried(chance() < share);
            }
            found.push(search.found().rate.unwrap());
        }
        found.sort_by(f64::total_cmp);
        let (low, middle, high) = (found[10], found[100], found[190]);
        assert!((9_400.0..=10_400.0).contains(&middle), "{middle}");
        assert!(low > 8_300.0 && high < 11_500.0, "{low} {high}");
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
