//! The same scenario at several rates: how latency rises with load.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::beside::Beside;
use crate::cli::{self, LimitKind, What};
use crate::limit::Writing;
use crate::report::rates::Rates;
use crate::report::{Unit, html, show};
use crate::scenario::{Scenario, Shape};

/// Rates that one sweep may have.
const RATES_MAX: usize = 64;

/// Options of `sweep`.
#[derive(Debug, clap::Args)]
pub struct Sweep {
    #[command(flatten)]
    what: What,
    /// Messages a second, each a run of its own; k is a thousand.
    #[arg(long, required = true, value_delimiter = ',', value_name = "RATES", value_parser = parse_rate)]
    rates: Vec<f64>,
    /// Run the same against a bare server too, in turns: one-write or coalesce. May be given twice.
    #[arg(long, value_enum)]
    limit: Vec<LimitKind>,
    /// JSON to a file, or to the standard output with -.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1_000.0),
        None => (text, 1.0),
    };
    let rate = number.parse::<f64>().ok().map(|rate| rate * factor);
    rate.filter(|rate| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| format!("{text:?}: write rates as 500,1k,2.5k"))
}

impl Sweep {
    pub(crate) fn run(self, prefix: &[String]) -> Result<ExitCode, String> {
        if self.rates.len() > RATES_MAX {
            return Err(format!("at most {RATES_MAX} rates"));
        }
        let mut scenario = self.what.scenario()?;
        if let Shape::Storm { .. } | Shape::Idle { .. } = scenario.shape {
            return Err("this scenario has no rate".to_owned());
        }
        scenario.load.outstanding = None;
        let name = self.what.name();
        let mut limits = Vec::new();
        for kind in &self.limit {
            let writing = Writing::from(*kind);
            limits.push((
                writing,
                Beside::start(
                    prefix,
                    writing,
                    self.what.place.tls.is_on(),
                    self.what.place.priority,
                )?,
            ));
        }
        let mut rates = Rates::new(&name, &scenario.about);
        let mut broken = false;
        for &rate in &self.rates {
            scenario.load.rate = Some(rate);
            let place = &self.what.place;
            let outcome = cli::once(&scenario, &name, place.dialect.label(), place)?;
            for rule in &self.what.assertions {
                if let crate::assertion::Judgement::Broken(why) = rule.judge(&outcome)? {
                    eprintln!("at {rate:.0}/s: {why}");
                    broken = true;
                }
            }
            rates.add(rate, &outcome);
            self.beside(&mut rates, &scenario, &name, rate, &limits)?;
        }
        self.write(&rates)?;
        Ok(if broken {
            ExitCode::from(cli::EXIT_ASSERTION)
        } else {
            ExitCode::SUCCESS
        })
    }

    fn beside(
        &self,
        rates: &mut Rates,
        scenario: &Scenario,
        name: &str,
        rate: f64,
        limits: &[(Writing, Beside)],
    ) -> Result<(), String> {
        for (writing, beside) in limits {
            let place = self.what.place.beside(beside);
            rates.add(
                rate,
                &cli::once(&cli::bare(scenario), name, writing.words(), &place)?,
            );
        }
        Ok(())
    }

    fn write(&self, rates: &Rates) -> Result<(), String> {
        let text = serde_json::to_string_pretty(rates).map_err(|e| e.to_string())?;
        let to_stdout = self.json.as_deref() == Some(Path::new("-"));
        if to_stdout {
            println!("{text}");
        } else {
            print!("{}", table(rates));
            if let Some(path) = &self.json {
                cli::write(path, &text)?;
            }
        }
        match &self.html {
            Some(path) => cli::write(path, &html::sweep(rates)),
            None => Ok(()),
        }
    }
}

fn table(rates: &Rates) -> String {
    let mut out = format!(
        "{:<16} {:>12} {:>12} {:>12} {:>12}\n",
        "server", "rate", "p50", "p99", "p99.9"
    );
    for point in &rates.points {
        let micros = |us| show(us, Unit::Micros);
        out.push_str(&format!(
            "{:<16} {:>12} {:>12} {:>12} {:>12}  {}\n",
            point.server,
            show(point.rate, Unit::PerSecond),
            micros(point.p50_us),
            micros(point.p99_us),
            micros(point.p999_us),
            point.objection.as_deref().unwrap_or_default()
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_people_say_them() {
        assert_eq!(parse_rate("500"), Ok(500.0));
        assert_eq!(parse_rate(" 2.5k"), Ok(2_500.0));
        for wrong in ["", "k", "0", "-1", "inf", "many"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
