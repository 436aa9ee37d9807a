//! The live view as lines of text. Pure: what is to be seen comes in, lines come out, no longer than asked.

use std::time::Duration;

use super::tally::{Floor, Percentiles};

/// Samples of the rate that the view keeps and draws.
pub(crate) const RATES_MAX: usize = 40;

/// Above this, a 99th percentile is no longer called good, in microseconds.
const GOOD_P99_US: u64 = 5_000;

/// Lines of the view are at most this long: the smallest usual terminal, less one.
pub(crate) const COLUMNS: usize = 79;

/// Eighths of a block, for the sparkline.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Whether escape sequences may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Colour,
    Plain,
}

/// What is to be seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) elapsed: Duration,
    /// When it will end; `None` by Ctrl-C.
    pub(crate) until: Option<Duration>,
    pub(crate) tenants: Vec<TenantPicture>,
    /// Messages a second delivered to all subscribers, one sample a tick; the last is the newest.
    pub(crate) rates: Vec<f64>,
    pub(crate) latency: Option<Percentiles>,
    /// Rows in the database through this run.
    pub(crate) rows: Option<u64>,
}

/// One tenant.
#[derive(Clone, Debug, Default)]
pub(crate) struct TenantPicture {
    pub(crate) name: String,
    pub(crate) floor: Floor,
    pub(crate) subscribers: usize,
    /// Updates that each subscriber has got.
    pub(crate) updates: u64,
    /// The last message to the lobby.
    pub(crate) lobby: Option<String>,
}

/// The view, line by line.
pub(crate) fn render(picture: &Picture, paint: Paint) -> Vec<String> {
    let elapsed = picture.elapsed.as_secs();
    let until = match picture.until {
        Some(until) => format!("{elapsed} of {} s", until.as_secs()),
        None => format!("{elapsed} s, Ctrl-C ends it"),
    };
    let mut lines = vec![
        bold(fit(&format!("cauce demo · {until}")), paint),
        fit("tenant    devices  online      watts   on  off  subscribers   updates each"),
    ];
    for tenant in &picture.tenants {
        let Floor {
            devices,
            online,
            on,
            off,
            watts,
        } = tenant.floor;
        lines.push(fit(&format!(
            "{:<9} {devices:>7} {online:>7} {watts:>10.1} {on:>4} {off:>4} {:>12} {:>14}",
            tenant.name, tenant.subscribers, tenant.updates
        )));
    }
    let rate = picture.rates.last().copied().unwrap_or(0.0);
    lines.push(fit(&format!(
        "messages  {rate:>7.0} a second  {}",
        sparkline(&picture.rates)
    )));
    lines.push(latency_line(picture.latency, paint));
    lines.push(fit(&match picture.rows {
        Some(rows) => format!("database  {rows:>7} rows written"),
        None => "database  writing".to_owned(),
    }));
    for tenant in &picture.tenants {
        if let Some(lobby) = &tenant.lobby {
            lines.push(fit(&format!("lobby of {}: {lobby}", tenant.name)));
        }
    }
    lines
}

fn latency_line(latency: Option<Percentiles>, paint: Paint) -> String {
    let Some(latency) = latency else {
        return fit("latency   device to subscriber: no message yet");
    };
    let text = fit(&format!(
        "latency   device to subscriber: p50 {}  p90 {}  p99 {}  max {}",
        shown_us(latency.p50),
        shown_us(latency.p90),
        shown_us(latency.p99),
        shown_us(latency.max)
    ));
    match paint {
        Paint::Plain => text,
        Paint::Colour if latency.p99 <= GOOD_P99_US => format!("\u{1b}[32m{text}\u{1b}[0m"),
        Paint::Colour => format!("\u{1b}[33m{text}\u{1b}[0m"),
    }
}

fn bold(text: String, paint: Paint) -> String {
    match paint {
        Paint::Plain => text,
        Paint::Colour => format!("\u{1b}[1m{text}\u{1b}[0m"),
    }
}

/// Microseconds for people.
pub(crate) fn shown_us(us: u64) -> String {
    if us < 1_000 {
        format!("{us} µs")
    } else if us < 1_000_000 {
        format!("{:.2} ms", us as f64 / 1_000.0)
    } else {
        format!("{:.2} s", us as f64 / 1_000_000.0)
    }
}

/// The samples as bars, the highest one full.
fn sparkline(samples: &[f64]) -> String {
    let samples = &samples[samples.len().saturating_sub(RATES_MAX)..];
    let highest = samples.iter().copied().fold(0.0, f64::max);
    let steps = (BARS.len() - 1) as f64;
    samples
        .iter()
        .map(|sample| {
            let share = if highest > 0.0 {
                (sample / highest).clamp(0.0, 1.0)
            } else {
                0.0
            };
            BARS[((share * steps).round() as usize).min(BARS.len() - 1)]
        })
        .collect()
}

/// Cuts a line to the width of the view, with a mark where it was cut.
fn fit(line: &str) -> String {
    if line.chars().count() <= COLUMNS {
        return line.to_owned();
    }
    let mut cut: String = line.chars().take(COLUMNS - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let floor = Floor {
            devices: 25,
            online: 24,
            on: 20,
            off: 5,
            watts: 12_345.67,
        };
        let tenant = |name: &str, lobby: Option<&str>| TenantPicture {
            name: name.into(),
            floor,
            subscribers: 2,
            updates: 1_234_567,
            lobby: lobby.map(Into::into),
        };
        Picture {
            elapsed: Duration::from_millis(7_900),
            until: Some(Duration::from_secs(20)),
            tenants: vec![tenant("clinic", Some("hello")), tenant("shop", None)],
            rates: vec![0.0, 50.0, 100.0],
            latency: Some(Percentiles {
                count: 9,
                p50: 180,
                p90: 400,
                p99: 1_250,
                p99_9: 2_000,
                max: 2_100_000,
            }),
            rows: Some(4_321),
        }
    }

    #[test]
    fn everything_that_is_measured_is_seen() {
        let lines = render(&picture(), Paint::Plain);
        assert_eq!(
            lines,
            [
                "cauce demo · 7 of 20 s",
                "tenant    devices  online      watts   on  off  subscribers   updates each",
                "clinic         25      24    12345.7   20    5            2        1234567",
                "shop           25      24    12345.7   20    5            2        1234567",
                "messages      100 a second  ▁▅█",
                "latency   device to subscriber: p50 180 µs  p90 400 µs  p99 1.25 ms  max 2.10 s",
                "database     4321 rows written",
                "lobby of clinic: hello",
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        let mut picture = picture();
        picture.tenants[0].name = "t".repeat(200);
        picture.tenants[1].lobby = Some("ñ".repeat(200));
        picture.rates = vec![1e12; 500];
        for line in render(&picture, Paint::Plain) {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }

    #[test]
    fn an_empty_picture_can_be_drawn() {
        let lines = render(&Picture::default(), Paint::Plain);
        assert_eq!(lines[0], "cauce demo · 0 s, Ctrl-C ends it");
        assert!(lines.iter().any(|line| line.contains("no message yet")));
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        let escapes = |paint| {
            let lines = render(&picture(), paint);
            lines.iter().filter(|line| line.contains('\u{1b}')).count()
        };
        assert_eq!((escapes(Paint::Plain), escapes(Paint::Colour)), (0, 2));
    }
}
