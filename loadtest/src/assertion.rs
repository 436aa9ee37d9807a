//! `--assert "p99<2ms"`: what a run must keep for the exit code to be 0.

use std::fmt;
use std::str::FromStr;

use crate::report::{Outcome, Unit, show};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

/// The longer ones first.
const RELATIONS: [(&str, Relation); 5] = [
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("==", Relation::Equal),
    ("<", Relation::Less),
    (">", Relation::More),
];

/// What a suffix multiplies by, and which units it fits.
const SUFFIXES: [(&str, f64, &[Unit]); 14] = [
    ("us", 1.0, &[Unit::Micros]),
    ("µs", 1.0, &[Unit::Micros]),
    ("ms", 1e3, &[Unit::Micros]),
    ("ms", 1e-3, &[Unit::Seconds]),
    ("s", 1e6, &[Unit::Micros]),
    ("s", 1.0, &[Unit::Seconds]),
    ("B", 1.0, &[Unit::Bytes]),
    ("KiB", 1024.0, &[Unit::Bytes]),
    ("MiB", 1024.0 * 1024.0, &[Unit::Bytes]),
    ("GiB", 1024.0 * 1024.0 * 1024.0, &[Unit::Bytes]),
    ("%", 0.01, &[Unit::Share]),
    ("k", 1e3, &[Unit::Count, Unit::PerSecond]),
    ("M", 1e6, &[Unit::Count, Unit::PerSecond]),
    ("", 1.0, &[Unit::Count, Unit::PerSecond, Unit::Cores, Unit::Share]),
];

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assertion {
    metric: String,
    relation: Relation,
    number: f64,
    suffix: String,
}

/// How a run stands to a rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Judgement {
    Kept,
    /// In words.
    Broken(String),
}

impl FromStr for Assertion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = RELATIONS.iter().find_map(|(sign, relation)| {
            let (metric, bound) = text.split_once(sign)?;
            Some((metric.trim(), *relation, bound.trim()))
        });
        let Some((metric, relation, bound)) = found else {
            return Err(format!(
                "{text:?}: write it as p99<2ms, lost==0 or deliveries_per_second>=100k"
            ));
        };
        let split = bound
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '_')))
            .unwrap_or(bound.len());
        let (number, suffix) = bound.split_at(split);
        let number = number
            .replace('_', "")
            .parse::<f64>()
            .map_err(|_| format!("{text:?}: {bound:?} does not begin with a number"))?;
        let suffix = suffix.trim();
        if metric.is_empty() || !SUFFIXES.iter().any(|(known, ..)| *known == suffix) {
            return Err(format!(
                "{text:?}: units are us, ms, s, B, KiB, MiB, GiB, %, k and M"
            ));
        }
        Ok(Self {
            metric: metric.to_owned(),
            relation,
            number,
            suffix: suffix.to_owned(),
        })
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = RELATIONS.iter().find(|(_, relation)| *relation == self.relation);
        let sign = sign.map_or("", |(sign, _)| sign);
        write!(f, "{}{sign}{}{}", self.metric, self.number, self.suffix)
    }
}

impl Assertion {
    /// # Errors
    /// If the run has no such figure, or it is in another kind of unit; in words for people.
    pub(crate) fn judge(&self, outcome: &Outcome) -> Result<Judgement, String> {
        let metric = outcome.metric(&self.metric).ok_or_else(|| {
            let names: Vec<_> = outcome.metrics.iter().map(|m| m.name.as_str()).collect();
            format!(
                "{self}: this run has no {:?}, but {}",
                self.metric,
                names.join(", ")
            )
        })?;
        let factor = SUFFIXES
            .iter()
            .find(|(suffix, _, units)| *suffix == self.suffix && units.contains(&metric.unit))
            .map(|(_, factor, _)| factor)
            .ok_or_else(|| format!("{self}: {} is not measured in {:?}", self.metric, self.suffix))?;
        let bound = self.number * factor;
        let kept = match self.relation {
            Relation::Less => metric.value < bound,
            Relation::AtMost => metric.value <= bound,
            Relation::Equal => (metric.value - bound).abs() < 1e-9,
            Relation::AtLeast => metric.value >= bound,
            Relation::More => metric.value > bound,
        };
        Ok(if kept {
            Judgement::Kept
        } else {
            Judgement::Broken(format!(
                "{self} does not hold: it is {}",
                show(metric.value, metric.unit)
            ))
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::{Figures, Machine, Verdict};

    pub(crate) fn outcome(figures: Figures) -> Outcome {
        Outcome {
            server: "target".into(),
            scenario: serde_json::Value::Null,
            name: "test".into(),
            about: String::new(),
            machine: Machine::default(),
            tls: None,
            verdict: Verdict::Sound,
            metrics: figures.0,
            notes: Vec::new(),
            series: Vec::new(),
            curve: Vec::new(),
            bars: Vec::new(),
        }
    }

    fn judge(rule: &str) -> Result<bool, String> {
        use crate::report::Better::Lower;
        let mut figures = Figures::default();
        figures.put("p99", 1_500.0, Unit::Micros, Lower);
        figures.put("took", 1.5, Unit::Seconds, Lower);
        figures.put("lost", 0.0, Unit::Count, Lower);
        figures.put("deliveries_per_second", 120_000.0, Unit::PerSecond, Lower);
        figures.put("private", 3.0 * 1024.0 * 1024.0, Unit::Bytes, Lower);
        figures.put("busy", 0.5, Unit::Share, Lower);
        let rule: Assertion = rule.parse()?;
        rule.judge(&outcome(figures)).map(|j| j == Judgement::Kept)
    }

    #[test]
    fn rules_compare_in_the_units_they_are_written_in() {
        for kept in [
            "p99<2ms",
            "p99 <= 1500us",
            "p99>=1.5ms",
            "p99<1s",
            "took<1600ms",
            "took<2s",
            "lost==0",
            "lost<1",
            "deliveries_per_second>=100k",
            "deliveries_per_second>100_000",
            "private<4MiB",
            "busy<=50%",
            "busy<0.6",
        ] {
            assert_eq!(judge(kept), Ok(true), "{kept}");
        }
        for broken in [
            "p99<1ms",
            "p99>2ms",
            "lost>0",
            "deliveries_per_second>1M",
            "private<1KiB",
            "busy>90%",
        ] {
            assert_eq!(judge(broken), Ok(false), "{broken}");
        }
    }

    #[test]
    fn rules_that_mean_nothing_are_refused_in_words() {
        for wrong in [
            "p99",
            "p99<",
            "p99<fast",
            "p99<2 parsecs",
            "<2ms",
            "p98<2ms",
            "p99<2MiB",
            "p99<2",
            "lost<2ms",
        ] {
            assert!(judge(wrong).is_err(), "{wrong}");
        }
    }
}
