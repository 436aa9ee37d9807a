//! What a run found, in one form for all outputs: named figures with units, a series, and curves for the plots.

pub(crate) mod compare;
pub(crate) mod html;
pub(crate) mod marked;
pub(crate) mod micro;
mod plot;
pub(crate) mod rates;
pub(crate) mod standard;
pub(crate) mod table;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::tls::{Count, Handshakes};
/// Who made a document.
pub(crate) const TOOL: &str = concat!("cauce-loadtest ", env!("CARGO_PKG_VERSION"));

/// What a figure is measured in. Its value in JSON is in this unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Micros,
    Seconds,
    Bytes,
    PerSecond,
    Count,
    /// Processor cores.
    Cores,
    /// Of one.
    Share,
}

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Lower,
    Higher,
    Neither,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: Unit,
    pub(crate) better: Better,
}

/// Whether the figures may be claimed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "is", content = "because", rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Sound,
    /// The generator was the bottleneck: the figures say nothing about the server.
    GeneratorBound(String),
    /// Messages were lost, doubled or out of order, or connections ended.
    NotWhole(String),
}

/// One second of the measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Second {
    pub(crate) second: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
    /// Cores; 0 where the process is not known.
    pub(crate) server_cpu: f64,
    pub(crate) server_resident_bytes: u64,
}

/// Where and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) unix_seconds: u64,
}

/// How the connections were secured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Tls {
    /// As in "1.3".
    pub(crate) version: String,
    pub(crate) cipher: String,
    pub(crate) key_exchange: String,
    /// Handshakes from nothing.
    pub(crate) full: u64,
    /// Handshakes that resumed a session of the same client.
    pub(crate) resumed: u64,
    /// The server's certificate was looked at.
    pub(crate) verified: bool,
}

impl std::fmt::Display for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}, {}, {}; {} full handshakes, {} resumed{}",
            self.version,
            self.cipher,
            self.key_exchange,
            self.full,
            self.resumed,
            if self.verified {
                ""
            } else {
                "; certificate not verified"
            }
        )
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Outcome {
    /// What was loaded: "target", "limit, coalescing", ...
    pub(crate) server: String,
    pub(crate) scenario: serde_json::Value,
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) machine: Machine,
    /// None where there was no TLS.
    #[serde(default)]
    pub(crate) tls: Option<Tls>,
    pub(crate) verdict: Verdict,
    pub(crate) metrics: Vec<Metric>,
    /// In words: refusals, reasons of ended connections.
    pub(crate) notes: Vec<String>,
    pub(crate) series: Vec<Second>,
    /// Percentile and latency in microseconds.
    pub(crate) curve: Vec<(f64, f64)>,
    /// Latency in microseconds, and how many up to the next.
    pub(crate) bars: Vec<(f64, u64)>,
}

/// What `--json` writes and `compare` reads.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Document {
    pub(crate) tool: String,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Outcome {
    /// In words, for every way of showing it.
    pub(crate) fn tls_words(&self) -> String {
        self.tls
            .as_ref()
            .map_or_else(|| "none".to_owned(), Tls::to_string)
    }
}

impl Document {
    pub(crate) fn new(outcomes: Vec<Outcome>) -> Self {
        Self {
            tool: TOOL.to_owned(),
            outcomes,
        }
    }
}

/// The figures of a run while they are collected.
#[derive(Debug, Default)]
pub(crate) struct Figures(pub(crate) Vec<Metric>);

impl Figures {
    pub(crate) fn put(&mut self, name: &str, value: f64, unit: Unit, better: Better) {
        self.0.push(Metric {
            name: name.to_owned(),
            value,
            unit,
            better,
        });
    }

    pub(crate) fn count(&mut self, name: &str, value: u64) {
        self.put(name, value as f64, Unit::Count, Better::Neither);
    }

    /// Something that should not be.
    pub(crate) fn fault(&mut self, name: &str, value: u64) {
        self.put(name, value as f64, Unit::Count, Better::Lower);
    }

    /// Handshakes of TLS, where there were any, their names with `prefix` before them.
    pub(crate) fn handshakes(&mut self, prefix: &str, handshakes: &Handshakes) {
        let total = handshakes.total();
        if total != Count::default() {
            self.count(&format!("{prefix}handshakes_full"), total.full);
            self.count(&format!("{prefix}handshakes_resumed"), total.resumed);
        }
    }

    /// The percentiles of a histogram of nanoseconds, their names with `prefix` before them.
    pub(crate) fn percentiles(&mut self, prefix: &str, histogram: &Histogram<u64>) {
        for (name, quantile) in [
            ("p50", 0.5),
            ("p90", 0.9),
            ("p99", 0.99),
            ("p99.9", 0.999),
            ("p99.99", 0.9999),
        ] {
            self.put(
                &format!("{prefix}{name}"),
                micros(histogram.value_at_quantile(quantile)),
                Unit::Micros,
                Better::Lower,
            );
        }
        self.put(
            &format!("{prefix}max"),
            micros(histogram.max()),
            Unit::Micros,
            Better::Lower,
        );
    }
}

impl Outcome {
    pub(crate) fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }
}

pub(crate) fn micros(ns: u64) -> f64 {
    ns as f64 / 1_000.0
}

/// Points of the percentile curve: denser towards the tail, as far as there are samples.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let points = (0..=64).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 10.0));
    let within = points.take_while(|quantile| (1.0 - quantile) * histogram.len() as f64 >= 1.0);
    let mut curve: Vec<_> = within
        .map(|quantile| (quantile * 100.0, micros(histogram.value_at_quantile(quantile))))
        .collect();
    curve.push((100.0, micros(histogram.max())));
    curve
}

/// The histogram in at most some eighty bars, evenly on a scale of powers.
pub(crate) fn bars(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let bars = histogram.iter_log(histogram.min().max(1), 1.15);
    let bars = bars.map(|bar| (micros(bar.value_iterated_to()), bar.count_since_last_iteration()));
    bars.take(200).collect()
}

impl Machine {
    pub(crate) fn here() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(':'));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            processor: model.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            // Not what we may use: the generator may be pinned.
            cores: cpuinfo
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            kernel: kernel.trim().to_owned(),
            unix_seconds: now.map_or(0, |now| now.as_secs()),
        }
    }
}

impl Machine {
    /// When, as a date and a time of day (UTC).
    pub(crate) fn date(&self) -> String {
        const DAY: u64 = 24 * 60 * 60;
        let (days, seconds) = (self.unix_seconds / DAY, self.unix_seconds % DAY);
        let (year, month, day) = civil(days);
        format!(
            "{year}-{month:02}-{day:02} {:02}:{:02} UTC",
            seconds / 3_600,
            seconds / 60 % 60
        )
    }
}

/// The date so many days after 1 January 1970. Years are counted from March, so that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    // Days since 1 March of the year 0.
    let days = days + 719_468;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, of_month)
}

/// A value for people.
pub(crate) fn show(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Micros if value >= 1_000_000.0 => format!("{:.2} s", value / 1e6),
        Unit::Micros if value >= 1_000.0 => format!("{:.2} ms", value / 1e3),
        Unit::Micros => format!("{value:.2} µs"),
        Unit::Seconds => format!("{value:.3} s"),
        Unit::Bytes if value.abs() >= 1024.0 * 1024.0 => format!("{:.2} MiB", value / 1024.0 / 1024.0),
        Unit::Bytes => format!("{:.2} KiB", value / 1024.0),
        Unit::PerSecond => format!("{}/s", grouped(value)),
        Unit::Count => grouped(value),
        Unit::Cores => format!("{value:.3} cores"),
        Unit::Share => format!("{:.1} %", value * 100.0),
    }
}

/// A whole number with its thousands apart.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value <= -0.5 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_in_units_that_people_read() {
        assert_eq!(show(1_234_567.0, Unit::Count), "1,234,567");
        assert_eq!(show(-1_000.0, Unit::Count), "-1,000");
        assert_eq!(show(12.0, Unit::Count), "12");
        assert_eq!(show(1_500.0, Unit::Micros), "1.50 ms");
        assert_eq!(show(0.5, Unit::Share), "50.0 %");
        assert_eq!(show(2_746.0, Unit::Bytes), "2.68 KiB");
    }

    #[test]
    fn a_moment_is_shown_as_a_date() {
        let date = |unix_seconds| {
            let machine = Machine {
                unix_seconds,
                ..Machine::default()
            };
            machine.date()
        };
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_795_437_296), "2026-11-23 12:34 UTC");
    }

    #[test]
    fn the_bars_hold_every_sample_and_the_curve_ends_at_the_longest() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        for n in 1..=10_000u64 {
            histogram.record(n * 1_000).unwrap();
        }
        assert_eq!(bars(&histogram).iter().map(|(_, n)| n).sum::<u64>(), 10_000);
        let curve = curve(&histogram);
        assert!(curve.windows(2).all(|w| w[0].1 <= w[1].1));
        assert_eq!(curve.last().unwrap().1, micros(histogram.max()));
        // The samples are even, so that the p-th percentile is p hundredths of the longest.
        for (percentile, us) in curve {
            assert!((us - percentile * 100.0).abs() < 15.0, "{percentile} {us}");
        }
    }
}
