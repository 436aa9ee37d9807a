//! Instruction counts: from what callgrind wrote to a verdict. Pure; the bench `instructions` runs the processes and reads the files.
//!
//! What must stay true:
//! - A count is the difference of two runs of one program, so that the warm-up cancels out.
//! - Growth beyond [`GROWTH_MAX`] fails. A fall beyond it does not, but is told: recorded, it becomes the bar for what comes after.
//! - What is measured and what is recorded are the same operations, or the check fails: a bench cannot leave in silence.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What an operation may grow by before the check fails, as a part of what is recorded.
pub const GROWTH_MAX: f64 = 0.05;

/// The file of recorded counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// The compiler, as it names itself: another one gives other counts.
    pub rustc: String,
    /// Architecture and system, for the same reason.
    pub target: String,
    /// Instructions of one operation, by its name.
    pub instructions: BTreeMap<String, f64>,
}

impl Recorded {
    /// # Errors
    /// If the text is not a file of counts.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// # Errors
    /// If it cannot be written as TOML, which no value of this type is known to do.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self).map(|counts| format!("{HEADER}{counts}"))
    }
}

const HEADER: &str = "\
# Instructions of one operation each, counted by callgrind. Written by `scripts/check-instructions.sh --record`;
# `make test` fails if one grows by more than 5 %. See docs/BENCHMARKS.md, \"Micro-benches\".

";

/// The total that callgrind wrote at the end of its file.
pub fn total(callgrind: &str) -> Option<u64> {
    let line = callgrind
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("totals:"))?;
    line.trim().parse().ok()
}

/// Instructions of one operation, from the totals of a run with `operations` of them and of one with twice as many. To a tenth: what
/// is left below is noise of the run's own buffers.
pub fn each(once: u64, twice: u64, operations: u64) -> f64 {
    let all = twice.saturating_sub(once) as f64;
    (all / operations.max(1) as f64 * 10.0).round() / 10.0
}

/// What became of one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Steady,
    /// Fewer by more than [`GROWTH_MAX`].
    Fell,
    /// More by more than [`GROWTH_MAX`]: the check fails.
    Grew,
    /// Measured and not recorded: the check fails.
    New,
    /// Recorded and not measured: the check fails.
    Gone,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub name: String,
    pub recorded: Option<f64>,
    pub measured: Option<f64>,
    pub verdict: Verdict,
}

impl Line {
    /// What it grew by, as a part of what is recorded; negative if it fell.
    pub fn growth(&self) -> Option<f64> {
        let (recorded, measured) = (self.recorded?, self.measured?);
        (recorded > 0.0).then(|| measured / recorded - 1.0)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), |n| format!("{n:.1}"));
        let growth = self
            .growth()
            .map_or_else(String::new, |growth| format!("{:+.2} %", growth * 100.0));
        let word = match self.verdict {
            Verdict::Steady => "",
            Verdict::Fell => "fell: record the win",
            Verdict::Grew => "GREW",
            Verdict::New => "NOT RECORDED",
            Verdict::Gone => "NOT MEASURED",
        };
        let line = format!(
            "{:<34} {:>12} {:>12} {growth:>10}  {word}",
            self.name,
            number(self.recorded),
            number(self.measured)
        );
        f.write_str(line.trim_end())
    }
}

/// Compares what was measured with what is recorded, by name.
pub fn compare(recorded: &BTreeMap<String, f64>, measured: &BTreeMap<String, f64>) -> Vec<Line> {
    let gone = recorded.keys().filter(|name| !measured.contains_key(*name));
    measured
        .keys()
        .chain(gone)
        .map(|name| {
            let (recorded, measured) = (recorded.get(name).copied(), measured.get(name).copied());
            let verdict = match (recorded, measured) {
                (None, _) => Verdict::New,
                (_, None) => Verdict::Gone,
                (Some(before), Some(now)) if now > before * (1.0 + GROWTH_MAX) => Verdict::Grew,
                (Some(before), Some(now)) if now < before * (1.0 - GROWTH_MAX) => Verdict::Fell,
                _ => Verdict::Steady,
            };
            Line {
                name: name.clone(),
                recorded,
                measured,
                verdict,
            }
        })
        .collect()
}

/// Whether the check passes.
pub fn passes(lines: &[Line]) -> bool {
    lines
        .iter()
        .all(|line| matches!(line.verdict, Verdict::Steady | Verdict::Fell))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, f64)]) -> BTreeMap<String, f64> {
        counts
            .iter()
            .map(|&(name, count)| (name.to_owned(), count))
            .collect()
    }

    fn verdict(before: f64, now: f64) -> (Verdict, bool) {
        let lines = compare(&counts(&[("op", before)]), &counts(&[("op", now)]));
        (lines[0].verdict, passes(&lines))
    }

    #[test]
    fn growth_beyond_five_percent_fails_and_a_fall_is_only_told() {
        assert_eq!(verdict(1_000.0, 1_049.0), (Verdict::Steady, true));
        assert_eq!(verdict(1_000.0, 1_051.0), (Verdict::Grew, false));
        assert_eq!(verdict(1_000.0, 951.0), (Verdict::Steady, true));
        assert_eq!(verdict(1_000.0, 949.0), (Verdict::Fell, true));
    }

    #[test]
    fn an_operation_can_neither_come_nor_go_in_silence() {
        let lines = compare(
            &counts(&[("kept", 1.0), ("gone", 1.0)]),
            &counts(&[("kept", 1.0), ("new", 1.0)]),
        );
        let of = |name: &str| lines.iter().find(|line| line.name == name).map(|l| l.verdict);
        assert_eq!(of("gone"), Some(Verdict::Gone));
        assert_eq!(of("new"), Some(Verdict::New));
        assert_eq!(of("kept"), Some(Verdict::Steady));
        assert!(!passes(&lines) && lines.len() == 3);
    }

    #[test]
    fn a_line_says_what_grew_and_by_how_much() {
        let lines = compare(&counts(&[("decode", 200.0)]), &counts(&[("decode", 221.0)]));
        let line = lines[0].to_string();
        assert!(
            line.contains("decode") && line.contains("+10.50 %") && line.ends_with("GREW"),
            "{line}"
        );
    }

    #[test]
    fn the_total_is_the_last_that_callgrind_wrote() {
        let file = "version: 1\nevents: Ir\nfn=(1) main\n12 34\n\ntotals: 123456\n";
        assert_eq!(total(file), Some(123_456));
        assert_eq!(total("version: 1\nevents: Ir\n"), None);
    }

    #[test]
    fn start_and_end_of_a_run_cancel_out() {
        assert_eq!(each(1_000_000 + 100 * 57, 1_000_000 + 200 * 57, 100), 57.0);
        assert_eq!(each(5, 4, 0), 0.0, "nonsense in, nothing out");
    }

    #[test]
    fn what_is_recorded_reads_back_and_says_how_it_came_to_be() {
        let recorded = Recorded {
            rustc: "rustc 1.95.0".to_owned(),
            target: "x86_64-linux".to_owned(),
            instructions: counts(&[("decode", 200.5)]),
        };
        let text = recorded.to_toml().unwrap();
        assert!(text.starts_with("# ") && text.contains("--record"));
        assert_eq!(Recorded::parse(&text).unwrap(), recorded);
        assert!(Recorded::parse("rustc = 1").is_err());
    }
}
