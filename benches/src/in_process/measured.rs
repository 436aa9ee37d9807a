//! What was measured, and how it is told.

use std::fmt;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Failure;

/// Longest time that is told apart, in nanoseconds: ten seconds.
const LONGEST_NS: u64 = 10_000_000_000;

/// One setting's times, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// From a message's due time to the subscriber's having it.
    pub(crate) latency: Histogram<u64>,
    /// From a message's due time to its publish: the program's own fault, and part of the latency.
    pub(crate) lateness: Histogram<u64>,
}

impl Measured {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            latency: Histogram::new_with_max(LONGEST_NS, 3)?,
            lateness: Histogram::new_with_max(LONGEST_NS, 3)?,
        })
    }

    pub(crate) fn heard(&mut self, due: Instant, now: Instant) {
        self.latency.saturating_record(nanos(due, now));
    }

    pub(crate) fn sent(&mut self, due: Instant, now: Instant) {
        self.lateness.saturating_record(nanos(due, now));
    }
}

/// Whether the message is the one that had to come.
///
/// # Errors
/// If one was lost, repeated or reordered: then no time is worth telling.
pub(crate) fn check(expected: u64, seq: u64) -> Result<(), Failure> {
    if expected == seq {
        return Ok(());
    }
    Err(format!("message {expected} was expected, and {seq} came").into())
}

fn nanos(due: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(due).as_nanos()).unwrap_or(u64::MAX)
}

/// One setting, for programs.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    /// 99th percentile of how late messages were published.
    late_p99_ns: u64,
    messages: u64,
}

impl From<&Measured> for Figures {
    fn from(measured: &Measured) -> Self {
        let at = |quantile| measured.latency.value_at_quantile(quantile);
        Self {
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: measured.latency.max(),
            late_p99_ns: measured.lateness.value_at_quantile(0.99),
            messages: measured.latency.len(),
        }
    }
}

/// All settings. The spinning subscriber's figures stand at the top: two threads, and nothing in them but the broker.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    claimed: Figures,
    rate: u32,
    one_thread: Figures,
    spinning: Figures,
    asleep: Figures,
    /// A wake-up without a broker.
    bare_wake: Figures,
    /// A number that another thread watches, without a broker.
    bare_look: Figures,
}

impl Report {
    pub(crate) fn new(
        rate: u32,
        one_thread: &Measured,
        spinning: &Measured,
        asleep: &Measured,
        bare_wake: &Measured,
        bare_look: &Measured,
    ) -> Self {
        Self {
            claimed: spinning.into(),
            rate,
            one_thread: one_thread.into(),
            spinning: spinning.into(),
            asleep: asleep.into(),
            bare_wake: bare_wake.into(),
            bare_look: bare_look.into(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.rate;
        writeln!(
            f,
            "publish to receipt in the process, {rate} messages a second, in µs"
        )?;
        writeln!(
            f,
            "{:<22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12}",
            "", "p50", "p90", "p99", "p99.9", "max", "late p99"
        )?;
        for (name, figures) in [
            ("one thread", self.one_thread),
            ("two threads, spinning", self.spinning),
            ("two threads, asleep", self.asleep),
            ("a wake-up alone", self.bare_wake),
            ("a look alone", self.bare_look),
        ] {
            let us = |nanos: u64| nanos as f64 / 1e3;
            writeln!(
                f,
                "{name:<22} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>12.2}",
                us(figures.p50_ns),
                us(figures.p90_ns),
                us(figures.p99_ns),
                us(figures.p999_ns),
                us(figures.max_ns),
                us(figures.late_p99_ns)
            )?;
        }
        Ok(())
    }
}
