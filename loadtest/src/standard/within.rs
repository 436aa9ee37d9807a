//! The line that another program measures, within one process: what it prints, by setting and round, held against what each setting must
//! reach.

use super::Run;
use super::judge::{About, Bound, Target, of_rounds, target};
use super::lines::Line;
use crate::in_process::{Lengths, Setting, measure};
use crate::median::median;
use crate::report::{Unit, show};

/// Short runs: the rounds bring the confidence. A neighbour that takes a hundredth of one spinning thread's time decides a 99th percentile,
/// and in some seconds there is none.
const WARM_UP_SECONDS: f64 = 0.2;
const SECONDS: f64 = 1.0;

/// How a setting of the program is judged.
struct Rule {
    setting: &'static str,
    /// The same threads without a broker, and their name in words.
    bare: (&'static str, &'static str),
    /// Instead of the line's own.
    targets: Option<&'static [Target]>,
}

const RULES: [Rule; 2] = [
    Rule {
        setting: "asleep",
        bare: ("bare_wake", "a thread woken"),
        // The machine takes longer to wake a thread than the line allows for all: what can be promised is that we add little.
        targets: Some(&[target("p50", Bound::TimesAtMost(1.25))]),
    },
    Rule {
        setting: "spinning",
        bare: ("bare_look", "a thread that looks"),
        targets: None,
    },
];

/// What one run of the program found.
type Found = Vec<Setting>;

impl Run<'_> {
    pub(super) fn in_process(&mut self, line: &Line, asked: u32) -> Result<(), String> {
        let Some(program) = &self.options.in_process else {
            return Err("no program was given that measures it (--in-process)".to_owned());
        };
        // It has both sides in it, and so may use the cores of both.
        let pins = self.options.place.pin.as_ref();
        let cores = pins.map(|pins| [&pins.server[..], &pins.generator[..]].concat());
        let lengths = Lengths {
            warm_up: WARM_UP_SECONDS,
            measured: self.options.seconds.unwrap_or(SECONDS),
        };
        let mut rounds: Vec<Found> = Vec::new();
        let mut failure = None;
        for number in 1..=asked {
            if number > 1 && self.seconds_left() < line.round_seconds {
                break;
            }
            self.tell(&format!("   round {number} of {asked}"));
            match measure(program, lengths, cores.as_deref(), self.options.place.priority) {
                Ok(found) => rounds.push(found),
                Err(why) => {
                    self.tell(&format!("   {why}"));
                    failure = Some(why);
                }
            }
        }
        match failure {
            Some(why) if rounds.is_empty() => return Err(why),
            _ => {}
        }
        for setting in settings(&rounds) {
            self.setting(line, setting, &rounds);
        }
        Ok(())
    }

    fn setting(&mut self, line: &Line, setting: &str, rounds: &[Found]) {
        let rule = RULES.iter().find(|rule| rule.setting == setting);
        let run = match setting {
            "" => line.title.to_owned(),
            name => format!("{}, {}", line.title, name.replace('_', " ")),
        };
        let number = line.number.to_string();
        let about = About {
            line: &number,
            run: &run,
            against: rule.map_or("", |rule| rule.bare.1),
        };
        let bare = rule.map(|rule| rule.bare.0);
        for target in rule.and_then(|rule| rule.targets).unwrap_or(line.targets) {
            let pairs = pairs(rounds, setting, bare, target.figure);
            self.standard
                .rows
                .push(of_rounds(about, target, Unit::Micros, &pairs));
        }
        if let Some(rule) = rule.filter(|rule| rule.targets.is_some()) {
            self.standard.notes.extend(tail(&run, rule, rounds));
        }
    }
}

/// What has no target stands below the table: the 99th percentile, of the wake-up alone too.
fn tail(run: &str, rule: &Rule, rounds: &[Found]) -> Option<String> {
    let pairs = pairs(rounds, rule.setting, Some(rule.bare.0), "p99");
    let here = median(pairs.iter().map(|pair| pair.0))?;
    let there = median(pairs.iter().filter_map(|pair| pair.1))?;
    Some(format!(
        "{run}: p99 {}, {} {}",
        show(here, Unit::Micros),
        rule.bare.1,
        show(there, Unit::Micros)
    ))
}

/// Names of what the program measured of ours, in the order of the names. What the machine takes by itself is no setting of ours: it stands
/// beside the one that waits for that.
fn settings(rounds: &[Found]) -> Vec<&str> {
    let is_bare = |name: &str| RULES.iter().any(|rule| rule.bare.0 == name);
    let names = rounds.iter().flatten().map(|setting| setting.name.as_str());
    let mut names: Vec<_> = names.filter(|name| !is_bare(name)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Of each round that has the setting: its figure, and that of the bare one in the same round.
fn pairs(rounds: &[Found], setting: &str, bare: Option<&str>, figure: &str) -> Vec<(f64, Option<f64>)> {
    let of = |found: &Found, name: &str| {
        let setting = found.iter().find(|setting| setting.name == name)?;
        Some(match figure {
            "p50" => setting.p50_us,
            _ => setting.p99_us,
        })
    };
    let pair = |found: &Found| Some((of(found, setting)?, bare.and_then(|bare| of(found, bare))));
    rounds.iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(settings: &[(&str, f64, f64)]) -> Found {
        let setting = |&(name, p50_us, p99_us): &(&str, f64, f64)| Setting {
            name: name.to_owned(),
            p50_us,
            p99_us,
        };
        settings.iter().map(setting).collect()
    }

    #[test]
    fn each_round_of_a_setting_stands_beside_the_bare_one_of_the_same_round() {
        let rounds = [
            round(&[
                ("asleep", 24.0, 60.0),
                ("bare_wake", 20.0, 50.0),
                ("one_thread", 0.6, 1.0),
            ]),
            round(&[("asleep", 48.0, 90.0), ("bare_wake", 40.0, 80.0)]),
        ];
        assert_eq!(settings(&rounds), ["asleep", "one_thread"]);
        let asleep = pairs(&rounds, "asleep", Some("bare_wake"), "p50");
        assert_eq!(asleep, [(24.0, Some(20.0)), (48.0, Some(40.0))]);
        assert_eq!(pairs(&rounds, "one_thread", None, "p99"), [(1.0, None)]);
    }

    #[test]
    fn a_sleeper_is_promised_a_multiple_of_the_wake_up_and_its_tail_is_told() {
        let rounds = [round(&[("asleep", 24.0, 60.0), ("bare_wake", 20.0, 50.0)])];
        let rule = &RULES[0];
        assert!(
            rule.targets
                .unwrap()
                .iter()
                .all(|target| target.bound.is_relative())
        );
        let told = tail("in process, asleep", rule, &rounds).unwrap();
        assert_eq!(told, "in process, asleep: p99 60.00 µs, a thread woken 50.00 µs");
    }
}
