//! How each kind of line is measured: in rounds, in turns, by search, or by another program.

use std::time::Instant;

use super::judge::{About, Round, row, single};
use super::lines::{Against, Line, Server};
use super::set::{FEATURES_OFF, FEATURES_ON, SEARCH_RATES, SEARCH_RULE};
use super::{Run, Target};
use crate::assertion::Assertion;
use crate::beside::Beside;
use crate::limit::Writing;
use crate::report::rates::Rates;
use crate::report::standard::{Curve, Picture, Row};
use crate::report::{Outcome, Unit, show};
use crate::scenario::{Scenario, Shape};
use crate::search::{Found, highest_each};
use crate::session::Place;
use crate::{cli, disturbed, in_process, interleaved};

/// Settings of the program that measures within one process, with what each is set beside: the same threads without a broker.
const BARE: [(&str, &str, &str); 2] = [
    ("asleep", "bare_wake", "a thread woken"),
    ("polling", "bare_look", "a thread that looks"),
];

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

    /// All turns of a state together are one side of one round.
    pub(super) fn turns(&mut self, line: &Line) -> Result<(), String> {
        let scenario = self.scenario(line)?;
        let Shape::Slow { turns, .. } = scenario.shape else {
            return Err(format!("{} has no turns", line.scenario));
        };
        let target = self.target(line.transport)?;
        let names = [line.scenario, "target", "undisturbed"];
        let (here, calm) = interleaved::run(&scenario, turns, names, &self.place(&target))?;
        let value = |name: &str| here.metric(name).map(|metric| metric.value);
        let spread = value("p99_ratio_at_least").zip(value("p99_ratio_at_most"));
        let round = Round {
            here,
            there: Some(calm),
        };
        let known = self.standard.rows.len();
        self.judge(line, Against::Calm, std::slice::from_ref(&round), None);
        for row in &mut self.standard.rows[known..] {
            if row.figure == "p99" {
                row.ratio_interval = spread;
            }
        }
        self.picture(line, round.outcomes());
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

    pub(super) fn in_process(&mut self, line: &Line) -> Result<(), String> {
        let Some(program) = &self.options.in_process else {
            return Err("no program was given that measures it (--in-process)".to_owned());
        };
        // It has both sides in it, and so may use the cores of both.
        let pins = self.options.place.pin.as_ref();
        let cores = pins.map(|pins| [&pins.server[..], &pins.generator[..]].concat());
        let number = line.number.to_string();
        let settings = in_process::measure(program, cores.as_deref(), self.options.place.priority)?;
        // What the machine takes by itself is no setting of ours: it stands beside the one that waits for that.
        let is_bare = |setting: &&in_process::Setting| BARE.iter().any(|(_, bare, _)| setting.name == *bare);
        let (bare, ours): (Vec<_>, Vec<_>) = settings.iter().partition(is_bare);
        for setting in ours {
            let beside = BARE
                .iter()
                .find(|(name, ..)| setting.name == *name)
                .and_then(|(_, name, words)| {
                    let bare = bare.iter().find(|bare| bare.name == *name)?;
                    Some((bare, *words))
                });
            let run = match setting.name.as_str() {
                "" => line.title.to_owned(),
                name => format!("{}, {}", line.title, name.replace('_', " ")),
            };
            let about = About {
                line: &number,
                run: &run,
                against: beside.map_or("", |(_, words)| words),
            };
            for target in line.targets {
                let of = |setting: &in_process::Setting| match target.figure {
                    "p50" => setting.p50_us,
                    _ => setting.p99_us,
                };
                let values = (Some(of(setting)), beside.map(|(bare, _)| of(bare)));
                let row: Row = single(about, target, Unit::Micros, values, None);
                self.standard.rows.push(row);
            }
        }
        Ok(())
    }
}

/// How sure the highest rate is: what the trials at it found. `tails` are rates with the 99th percentile of a trial.
fn spread(line: &str, server: &str, found: &Found, tails: &[(f64, f64)]) -> String {
    let Some(rate) = found.rate else {
        return format!("{line}: {server} did not keep the lowest rate");
    };
    let mut at: Vec<f64> = tails
        .iter()
        .filter(|tail| tail.0 == rate)
        .map(|tail| tail.1)
        .collect();
    at.sort_by(f64::total_cmp);
    let shown = |at: Option<&f64>| at.map_or_else(|| "–".to_owned(), |&p99| show(p99, Unit::Micros));
    let broken = found.broken.map_or_else(
        || "broke none".to_owned(),
        |broken| format!("broke {}", show(broken, Unit::PerSecond)),
    );
    format!(
        "{line}: {server} kept {} with a p99 of {} to {} in {} trials, and {broken}; {} trials in all",
        show(rate, Unit::PerSecond),
        shown(at.first()),
        shown(at.last()),
        at.len(),
        found.trials
    )
}

fn classes(target: Option<&Target>, classes: &str) -> Result<(), String> {
    match target {
        Some(Target::Ours(served)) => served.classes(classes),
        _ => Err("room classes are changed only at a server that was started with --serve".to_owned()),
    }
}
