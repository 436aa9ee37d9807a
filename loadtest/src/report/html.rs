//! One page with plots: it needs no script, no font and no network, and follows the reader's light or dark mode.
//!
//! Writing to a string cannot fail, so the results of `write!` are left alone throughout.

use std::fmt::Write as _;

use super::plot::{Axis, DARK, Plot, STYLE, Scale, Series, Stroke, escaped};
use super::rates::Rates;
use super::{Document, Machine, Outcome, Second, Unit, Verdict, rates, show};

/// A page around `body`.
pub(crate) fn framed(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title} – cauce-loadtest</title><style>\
         :root{{--text:#1f2328;--page:#fff;--line:#d8dee4;--bad:#cf222e;--good:#1a7f37;--dim:#57606a}}\
         @media(prefers-color-scheme:dark){{:root{{--text:#e6edf3;--page:#0d1117;--line:#30363d;--bad:#ff7b72;--good:#3fb950;--dim:#9198a1;{DARK}}}}}\
         body{{font:15px/1.5 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:var(--text);background:var(--page)}}\
         .wide{{overflow-x:auto}}table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}\
         td,th{{padding:.2em 1em .2em 0;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}}\
         td:first-child,th:first-child{{text-align:left}}.words td,.words th{{text-align:left}}.words td:nth-child(4),.words td:nth-child(6),.words td:nth-child(7){{white-space:nowrap}}svg{{width:100%;height:auto;margin:.8em 0}}\
         .bad{{color:var(--bad)}}.good{{color:var(--good)}}small{{color:var(--dim)}}pre{{overflow-x:auto}}{STYLE}</style></head><body>\
         <h1>{title}</h1>{body}</body></html>\n",
        title = escaped(title)
    )
}

/// The page of one run.
pub(crate) fn page(document: &Document) -> String {
    let first = document.outcomes.first();
    let mut out = String::new();
    if let Some(first) = first {
        let _ = write!(
            out,
            "<p>{}</p>{}",
            escaped(&first.about),
            where_and_when(&document.tool, &first.machine)
        );
    }
    figures(&mut out, &document.outcomes);
    for plot in plots(&document.outcomes) {
        if !plot.is_empty() {
            out.push_str(&plot.inline());
        }
    }
    if let Some(first) = first {
        let scenario = serde_json::to_string_pretty(&first.scenario).unwrap_or_default();
        let _ = write!(out, "<h2>Scenario</h2><pre>{}</pre>", escaped(&scenario));
    }
    framed(first.map_or("load test", |o| o.name.as_str()), &out)
}

/// The page of a sweep.
pub(crate) fn sweep(rates: &Rates) -> String {
    let mut out = format!(
        "<p>{}</p>{}",
        escaped(&rates.about),
        where_and_when(&rates.tool, &rates.machine)
    );
    for plot in rates::plots(rates) {
        if !plot.is_empty() {
            out.push_str(&plot.inline());
        }
    }
    out.push_str("<div class=\"wide\"><table><tr><th>server</th><th>rate</th><th>p50</th><th>p99</th><th>p99.9</th><th>server CPU</th><th></th></tr>");
    for point in &rates.points {
        let micros = |us| show(us, Unit::Micros);
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=bad>{}</td></tr>",
            escaped(&point.server),
            show(point.rate, Unit::PerSecond),
            micros(point.p50_us),
            micros(point.p99_us),
            micros(point.p999_us),
            point
                .server_cpu
                .map_or_else(String::new, |cpu| show(cpu, Unit::Cores)),
            escaped(point.objection.as_deref().unwrap_or_default())
        );
    }
    out.push_str("</table></div>");
    framed(&format!("{}: latency by rate", rates.name), &out)
}

pub(super) fn where_and_when(tool: &str, machine: &Machine) -> String {
    format!(
        "<p><small>{} · {} × {} · Linux {} · {}</small></p>",
        escaped(tool),
        machine.cores,
        escaped(&machine.processor),
        escaped(&machine.kernel),
        machine.date()
    )
}

fn figures(out: &mut String, outcomes: &[Outcome]) {
    out.push_str("<h2>Figures</h2><div class=\"wide\"><table><tr><th></th>");
    for outcome in outcomes {
        let _ = write!(out, "<th>{}</th>", escaped(&outcome.server));
    }
    out.push_str("</tr><tr><td>verdict</td>");
    for outcome in outcomes {
        let words = match &outcome.verdict {
            Verdict::Sound => "<b class=good>sound</b>".to_owned(),
            Verdict::GeneratorBound(why) => format!("<b class=bad>generator-bound</b>: {}", escaped(why)),
            Verdict::NotWhole(why) => format!("<b class=bad>not whole</b>: {}", escaped(why)),
        };
        let _ = write!(out, "<td>{words}</td>");
    }
    out.push_str("</tr><tr><td>TLS</td>");
    for outcome in outcomes {
        let _ = write!(out, "<td>{}</td>", escaped(&outcome.tls_words()));
    }
    out.push_str("</tr>");
    for metric in outcomes.first().map(|o| &o.metrics[..]).unwrap_or_default() {
        let _ = write!(out, "<tr><td>{}</td>", escaped(&metric.name));
        for outcome in outcomes {
            let value = outcome.metric(&metric.name).map(|m| show(m.value, m.unit));
            let _ = write!(out, "<td>{}</td>", escaped(&value.unwrap_or_default()));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
    for outcome in outcomes {
        for note in &outcome.notes {
            let _ = write!(
                out,
                "<p class=bad>{}: {}</p>",
                escaped(&outcome.server),
                escaped(note)
            );
        }
    }
}

/// An axis of latencies.
pub(super) const LATENCY: Axis = Axis {
    label: "latency",
    scale: Scale::Powers,
    show: |us| brief(us),
};
/// An axis of seconds of the measurement.
const SECONDS: Axis = Axis {
    label: "second of the measurement",
    scale: Scale::Even,
    show: |second| format!("{second:.0}"),
};

/// A latency at a mark: no more digits than the mark needs.
fn brief(us: f64) -> String {
    let short = |value: f64| {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match us {
        us if us >= 1e6 => format!("{} s", short(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", short(us / 1e3)),
        us => format!("{} µs", short(us)),
    }
}

/// A percentile p stands at 1 / (1 - p): 50 % at 2, 99 % at 100.
pub(super) const PERCENTILE: Axis = Axis {
    label: "percentile",
    scale: Scale::Tails,
    show: |one_of| {
        let percent = format!("{:.4}", 100.0 - 100.0 / one_of);
        format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
    },
};

/// Latency by percentile of several runs.
pub(super) fn by_percentile<'a>(
    title: &str,
    curves: impl Iterator<Item = (&'a str, &'a [(f64, f64)])>,
) -> Plot {
    let series = curves.enumerate().map(|(colour, (name, curve))| Series {
        name: name.to_owned(),
        colour,
        stroke: Stroke::Line,
        points: curve
            .iter()
            .filter(|(percentile, _)| *percentile < 100.0)
            .map(|&(percentile, us)| (100.0 / (100.0 - percentile), us))
            .collect(),
    });
    Plot {
        title: title.to_owned(),
        across: PERCENTILE,
        up: LATENCY,
        series: series.collect(),
    }
}

fn plots(outcomes: &[Outcome]) -> Vec<Plot> {
    let curves = outcomes
        .iter()
        .filter(|o| !o.curve.is_empty())
        .map(|o| (o.server.as_str(), &o.curve[..]));
    let histogram = outcomes.iter().enumerate().map(|(colour, outcome)| Series {
        name: outcome.server.clone(),
        colour,
        stroke: Stroke::Bars,
        points: outcome
            .bars
            .iter()
            .map(|&(us, count)| (us, count as f64))
            .collect(),
    });
    let mut latency = Vec::new();
    for (stroke, name, of) in [
        (Stroke::Line, "p50", (|s| s.p50_us) as fn(&Second) -> f64),
        (Stroke::Dashed, "p99", |s| s.p99_us),
        (Stroke::Dotted, "max", |s| s.max_us),
    ] {
        latency.extend(by_second(outcomes, name, stroke, of));
    }
    let plain = |title: &str, label: &'static str, show: fn(f64) -> String, series: Vec<Series>| Plot {
        title: title.to_owned(),
        across: SECONDS,
        up: Axis {
            label,
            scale: Scale::Even,
            show,
        },
        series,
    };
    vec![
        by_percentile("Latency by percentile", curves),
        Plot {
            title: "Deliveries by latency".to_owned(),
            across: LATENCY,
            up: Axis {
                label: "deliveries",
                scale: Scale::Even,
                show: super::grouped,
            },
            series: histogram.filter(|s| !s.points.is_empty()).collect(),
        },
        Plot {
            title: "Latency by second".to_owned(),
            across: SECONDS,
            up: LATENCY,
            series: latency,
        },
        plain(
            "Deliveries by second",
            "deliveries a second",
            super::grouped,
            by_second(outcomes, "", Stroke::Line, |s| s.received as f64),
        ),
        plain(
            "The server's processor time",
            "cores",
            |cores| format!("{cores:.2}"),
            by_second(outcomes, "", Stroke::Line, |s| s.server_cpu),
        ),
        plain(
            "The server's resident memory",
            "MiB",
            |mebibytes| format!("{mebibytes:.1}"),
            by_second(outcomes, "", Stroke::Line, |s| {
                s.server_resident_bytes as f64 / 1_048_576.0
            }),
        ),
    ]
}

/// A series for each run that has one. Behind the last second in which something was sent only what was late arrived: no load, no figure.
fn by_second(outcomes: &[Outcome], name: &str, stroke: Stroke, of: fn(&Second) -> f64) -> Vec<Series> {
    let series = outcomes.iter().enumerate().map(|(colour, outcome)| {
        let loaded = outcome
            .series
            .iter()
            .rposition(|s| s.sent > 0)
            .map_or(0, |last| last + 1);
        let seconds = outcome.series[..loaded].iter();
        Series {
            name: format!("{} {name}", outcome.server).trim_end().to_owned(),
            colour,
            stroke,
            points: seconds.map(|s| (s.second as f64 + 1.0, of(s))).collect(),
        }
    });
    series.filter(|series| series.points.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::tests::outcome;
    use crate::report::Figures;
    use crate::report::plot::tests::is_well_formed;

    #[test]
    fn text_of_others_cannot_break_the_page() {
        let mut run = outcome(Figures::default());
        run.about = "<script>alert(1)</script>".to_owned();
        run.notes = vec!["1 × <b>".to_owned()];
        run.curve = vec![(0.0, 10.0), (50.0, 20.0), (100.0, 1_000.0)];
        run.bars = vec![(10.0, 3), (20.0, 9)];
        let second = Second {
            sent: 1,
            received: 10,
            p50_us: 5.0,
            ..Second::default()
        };
        run.series = vec![second; 3];
        let page = page(&Document::new(vec![run.clone(), run]));
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
        assert!(page.matches("<svg").count() >= 4, "{page}");
        for svg in page
            .split("<svg")
            .skip(1)
            .filter_map(|rest| rest.split_once("</svg>"))
        {
            assert!(is_well_formed(&format!("<svg{}</svg>", svg.0)));
        }
    }

    #[test]
    fn seconds_without_load_are_not_drawn() {
        let mut run = outcome(Figures::default());
        let second = |second, sent| Second {
            second,
            sent,
            p50_us: 7.0,
            ..Second::default()
        };
        run.series = vec![second(0, 5), second(1, 0), second(2, 5), second(3, 0)];
        let series = by_second(&[run], "p50", Stroke::Line, |s| s.p50_us);
        assert_eq!(series[0].points, [(1.0, 7.0), (2.0, 7.0), (3.0, 7.0)]);
    }

    #[test]
    fn marks_are_written_as_people_say_them() {
        assert_eq!((PERCENTILE.show)(2.0), "50 %");
        assert_eq!((PERCENTILE.show)(1_000.0), "99.9 %");
        assert_eq!(brief(1_500.0), "1.5 ms");
        assert_eq!(brief(100.0), "100 µs");
        assert_eq!(brief(2e6), "2 s");
    }
}
