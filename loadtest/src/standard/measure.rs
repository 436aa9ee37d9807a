//! How a line is measured at a server: in rounds, in turns, side by side with another, or by search.

use std::time::Instant;

use super::judge::{About, Round, by_pairs, row, single};
use super::lines::{Against, Line, Server};
use super::set::{FEATURES_OFF, FEATURES_ON, SEARCH_RATES, SEARCH_RULE};
use super::{Run, Target};
use crate::assertion::Assertion;
use crate::beside::Beside;
use crate::limit::Writing;
use crate::report::rates::Rates;
use crate::report::standard::{Curve, Picture, Standing};
use crate::report::{Outcome, Unit, show};
use crate::scenario::{Scenario, Shape};
use crate::search::{Found, highest_each};
use crate::session::Place;
use crate::{cli, disturbed, interleaved};

/// Trials this close to the rate that a search found tell how sure it is, as a multiple.
const AROUND: f64 = 1.1;

impl Run<'_> {
    pub(super) fn runs(
        &mut self,
        line: &Line,
        against: Against,
        server: Server,
        asked: u32,
    ) -> Result<(), String> {
        let scenario = self.scenario(line)?;
        let mut asked = asked;
        if server == Server::OfTheRun && self.options.serve.is_none() {
            // A second look at a server that has been used says nothing of its memory.
            asked = 1;
        }
        let mut rounds: Vec<Round> = Vec::new();
        let mut failure = None;
        let mut target = None;
        for number in 1..=asked {
            self.tell(&format!("   round {number} of {asked}"));
            let made = self.round(line, &scenario, against, server, &mut target);
            match made {
                Ok(round) => rounds.push(round),
                Err(why) => {
                    self.tell(&format!("   {why}"));
                    failure = Some(why);
                    // What it left behind is unknown; the next round gets another one.
                    target = None;
                }
            }
        }
        drop(target);
        self.judge(line, against, &rounds, failure.as_deref());
        if let Some(first) = rounds.first() {
            self.picture(line, first.outcomes());
        }
        Ok(())
    }

    /// All turns of a state together are one side of one round, but for latency: there a pair of turns is a round.
    pub(super) fn turns(&mut self, line: &Line) -> Result<(), String> {
        let scenario = self.scenario(line)?;
        let Shape::Slow { turns, .. } = scenario.shape else {
            return Err(format!("{} has no turns", line.scenario));
        };
        let target = self.target(line.transport)?;
        let names = [line.scenario, "target", "undisturbed"];
        let found = interleaved::run(&scenario, turns, names, &self.place(&target))?;
        let round = Round {
            here: found.here,
            there: Some(found.calm),
        };
        let known = self.standard.rows.len();
        self.judge(line, Against::Calm, std::slice::from_ref(&round), None);
        for (row, target) in self.standard.rows[known..].iter_mut().zip(line.targets) {
            if target.figure == "p99" && !matches!(row.standing, Standing::Open(_)) {
                by_pairs(row, target, &found.p99);
            }
        }
        self.picture(line, round.outcomes());
        Ok(())
    }

    /// Short runs by turns at two servers, one of them with the scenario's crowd. Without a program to start, there is one server, and one round.
    pub(super) fn side_by_side(&mut self, line: &Line, runs: u32) -> Result<(), String> {
        if self.options.serve.is_none() {
            return self.runs(line, Against::Calm, Server::OfTheRun, 1);
        }
        let scenario = self.scenario(line)?;
        let measured = disturbed::undisturbed(&scenario).ok_or("nothing disturbs this scenario")?;
        let targets = [self.target(line.transport)?, self.target(line.transport)?];
        let [amid, alone] = targets.each_ref().map(|target| self.place(target));
        let at_either = [("target", &amid), ("undisturbed", &alone)];
        let mut rounds = Vec::new();
        let (failure, gone) = disturbed::amid_its_crowd(&scenario, &amid, || {
            (0..runs)
                .take_while(|&number| number == 0 || Instant::now() < self.until)
                .try_for_each(|number| {
                    self.tell(&format!("   turn {} of {runs}", number + 1));
                    let run = |(server, place)| cli::once(&measured, line.scenario, server, place);
                    // Who goes first changes: what slowly becomes more or less meets both.
                    let (here, there) = if number % 2 == 0 {
                        let here = run(at_either[0])?;
                        (here, run(at_either[1])?)
                    } else {
                        let there = run(at_either[1])?;
                        (run(at_either[0])?, there)
                    };
                    rounds.push(Round {
                        here,
                        there: Some(there),
                    });
                    Ok::<_, String>(())
                })
                .err()
        })?;
        if let Some(last) = rounds.last_mut() {
            gone.mark(&mut last.here);
        }
        self.judge(line, Against::Calm, &rounds, failure.as_deref());
        if let Some(first) = rounds.first() {
            self.picture(line, first.outcomes());
        }
        Ok(())
    }

    /// One run, and what it is measured against right behind it.
    fn round(
        &self,
        line: &Line,
        scenario: &Scenario,
        against: Against,
        server: Server,
        kept: &mut Option<Target>,
    ) -> Result<Round, String> {
        let fresh = |kept: &mut Option<Target>| -> Result<Place, String> {
            if server == Server::OfTheRun {
                // The old one must have ended before the new one starts on its core.
                *kept = None;
            }
            if kept.is_none() {
                *kept = Some(self.target(line.transport)?);
            }
            Ok(kept
                .as_ref()
                .map_or_else(|| self.options.place.clone(), |target| self.place(target)))
        };
        let place = fresh(kept)?;
        if against == Against::Features {
            classes(kept.as_ref(), FEATURES_ON)?;
        }
        let mut here = cli::once(scenario, line.scenario, "target", &place)?;
        let there = match against {
            Against::Nothing => None,
            Against::Limit(writing) => {
                let beside = Beside::start(self.prefix, writing, place.tls.is_on(), place.priority)?;
                let there = place.beside(&beside);
                Some(cli::once(
                    &cli::bare(scenario),
                    line.scenario,
                    writing.words(),
                    &there,
                )?)
            }
            Against::Calm => {
                let calm = disturbed::undisturbed(scenario).ok_or("nothing disturbs this scenario")?;
                let place = fresh(kept)?;
                let calm = cli::once(&calm, line.scenario, "undisturbed", &place)?;
                disturbed::hold_against(&mut here, &calm);
                Some(calm)
            }
            Against::Features => {
                classes(kept.as_ref(), FEATURES_OFF)?;
                Some(cli::once(scenario, line.scenario, "switched off", &place)?)
            }
        };
        Ok(Round { here, there })
    }

    fn judge(&mut self, line: &Line, against: Against, rounds: &[Round], failure: Option<&str>) {
        let compared = match against {
            Against::Nothing => "",
            Against::Limit(writing) => writing.words(),
            Against::Calm => "undisturbed",
            Against::Features => "switched off",
        };
        let number = line.number.to_string();
        for target in line.targets {
            let about = About {
                line: &number,
                run: line.title,
                against: compared,
            };
            self.standard.rows.push(row(about, target, rounds, failure));
        }
        for outcome in rounds.iter().flat_map(Round::outcomes) {
            self.heed(outcome);
        }
    }

    fn picture<'a>(&mut self, line: &Line, outcomes: impl Iterator<Item = &'a Outcome> + Clone) {
        if let Some(file) = line.picture {
            let curves = outcomes.clone().map(|outcome| Curve {
                name: outcome.server.clone(),
                points: outcome.curve.clone(),
            });
            self.standard.pictures.push(Picture {
                file: file.to_owned(),
                title: format!("{}: latency by percentile", line.title),
                curves: curves.collect(),
            });
        }
        if line.scenario == "idle" {
            let read = |metric: &crate::report::Metric| {
                let connections = metric.name.strip_prefix("private_at_")?.parse().ok()?;
                Some((connections, metric.value))
            };
            let metrics = outcomes.take(1).flat_map(|outcome| &outcome.metrics);
            self.standard.memory.push(Curve {
                name: line.title.to_owned(),
                points: metrics.filter_map(read).collect(),
            });
        }
    }

    /// Remembers how busy the machine was besides.
    fn heed(&mut self, outcome: &Outcome) {
        let others = outcome.metric("others_cpu").map_or(0.0, |metric| metric.value);
        self.standard.others_cpu = self.standard.others_cpu.max(others);
    }

    pub(super) fn search(&mut self, line: &Line) -> Result<(), String> {
        let scenario = self.scenario(line)?;
        let rules: [Assertion; 1] = [SEARCH_RULE.parse()?];
        let target = self.target(line.transport)?;
        let here = self.place(&target);
        let writing = Writing::OneByOne;
        let beside = Beside::start(self.prefix, writing, here.tls.is_on(), here.priority)?;
        let there = here.beside(&beside);
        let places = [("target", &here), (writing.words(), &there)];
        let mut rates = Rates::new(line.scenario, &scenario.about);
        let mut tails: [Vec<(f64, f64)>; 2] = Default::default();
        let until = self.until;
        let found = highest_each(&scenario, &rules, SEARCH_RATES, |which, scenario| {
            if Instant::now() > until {
                return Err("the time was up before the search had ended: --minutes gives more".to_owned());
            }
            let (name, place) = places[which];
            let outcome = cli::once(scenario, line.scenario, name, place)?;
            let rate = scenario.load.rate.unwrap_or(0.0);
            rates.add(rate, &outcome);
            let p99 = outcome.metric("p99").map(|p99| (rate, p99.value));
            tails[which].extend(p99);
            self.heed(&outcome);
            Ok(outcome)
        });
        // What was tried is the latency by rate, whatever came of the search; of several, the first is drawn.
        self.standard.rates.get_or_insert(rates);
        let found = found?;
        for ((found, (name, _)), tails) in found.iter().zip(&places).zip(&tails) {
            self.standard.notes.push(spread(line.title, name, found, tails));
        }
        let [here, there] = found.map(|found| found.rate);
        let number = line.number.to_string();
        for target in line.targets {
            let about = About {
                line: &number,
                run: line.title,
                against: writing.words(),
            };
            let row = single(about, target, Unit::PerSecond, (here, there), None);
            self.standard.rows.push(row);
        }
        Ok(())
    }
}

/// How sure the highest rate is: what the trials around it found. `tails` are rates with the 99th percentile of a trial.
fn spread(line: &str, server: &str, found: &Found, tails: &[(f64, f64)]) -> String {
    let Some(rate) = found.rate else {
        return format!("{line}: {server} did not keep the lowest rate");
    };
    let around = |(tried, _): &&(f64, f64)| (rate / AROUND..=rate * AROUND).contains(tried);
    let mut at: Vec<f64> = tails.iter().filter(around).map(|tail| tail.1).collect();
    at.sort_by(f64::total_cmp);
    let shown = |at: Option<&f64>| at.map_or_else(|| "–".to_owned(), |&p99| show(p99, Unit::Micros));
    format!(
        "{line}: {server} has a p99 of {} in the median of {} trials within {:.0} % of its rate, {} to {} in all of them; {} trials in all",
        shown(at.get(at.len() / 2)),
        at.len(),
        (AROUND - 1.0) * 100.0,
        shown(at.first()),
        shown(at.last()),
        found.trials
    )
}

fn classes(target: Option<&Target>, classes: &str) -> Result<(), String> {
    match target {
        Some(Target::Ours(served)) => served.classes(classes),
        _ => Err("room classes are changed only at a server that was started with --serve".to_owned()),
    }
}
