//! One page with plots in SVG, drawn here: it needs no script, no font and no network.

use std::fmt::Write as _;

use super::{Document, Outcome, Verdict, show};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 36.0;
const COLOURS: [&str; 6] = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a"];

/// A line of a plot.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// How an axis runs, and what stands at its marks.
#[derive(Clone, Copy)]
enum Scale {
    Even,
    Powers,
}

/// The page. Writing to a string cannot fail, so the results of `write!` are left alone throughout.
pub(crate) fn page(document: &Document) -> String {
    let title = document.outcomes.first().map_or("load test", |o| o.name.as_str());
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{} – cauce-loadtest</title>\
         <style>body{{font:15px/1.45 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#1f2328}}\
         table{{border-collapse:collapse}}td,th{{padding:.15em .8em .15em 0;text-align:right}}td:first-child,th:first-child{{text-align:left}}\
         svg{{width:100%;height:auto}}.bad{{color:#d1242f}}small{{color:#57606a}}</style><h1>{}</h1>",
        escaped(title),
        escaped(title)
    );
    if let Some(first) = document.outcomes.first() {
        let machine = &first.machine;
        let _ = write!(
            out,
            "<p>{}</p><p><small>{} · {} × {} · Linux {} · {} s since 1970</small></p>",
            escaped(&first.about),
            escaped(&document.tool),
            machine.cores,
            escaped(&machine.processor),
            escaped(&machine.kernel),
            machine.unix_seconds
        );
    }
    figures(&mut out, &document.outcomes);
    plots(&mut out, &document.outcomes);
    if let Some(first) = document.outcomes.first() {
        let scenario = serde_json::to_string_pretty(&first.scenario).unwrap_or_default();
        let _ = write!(out, "<h2>Scenario</h2><pre>{}</pre>", escaped(&scenario));
    }
    out.push_str("</html>\n");
    out
}

fn figures(out: &mut String, outcomes: &[Outcome]) {
    out.push_str("<h2>Figures</h2><table><tr><th></th>");
    for outcome in outcomes {
        let _ = write!(out, "<th>{}</th>", escaped(&outcome.server));
    }
    out.push_str("</tr><tr><td>verdict</td>");
    for outcome in outcomes {
        let words = match &outcome.verdict {
            Verdict::Sound => "sound".to_owned(),
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
    out.push_str("</table>");
    for note in outcomes.iter().flat_map(|o| &o.notes) {
        let _ = write!(out, "<p class=bad>{}</p>", escaped(note));
    }
}

fn plots(out: &mut String, outcomes: &[Outcome]) {
    let lines = |points: fn(&Outcome) -> Vec<(f64, f64)>| -> Vec<Line> {
        let lines = outcomes.iter().map(|o| Line {
            name: o.server.clone(),
            points: points(o),
        });
        lines.filter(|line| !line.points.is_empty()).collect()
    };
    // A percentile p is drawn at 1 / (1 - p): 50 % at 2, 99 % at 100.
    let curves = lines(|o| {
        let inner = o.curve.iter().filter(|(p, _)| *p < 100.0);
        inner.map(|&(p, us)| (100.0 / (100.0 - p), us)).collect()
    });
    plot(
        out,
        "Latency by percentile, µs (1 of n is slower)",
        &curves,
        Scale::Powers,
        Scale::Powers,
    );
    let bars = lines(|o| o.bars.iter().map(|&(us, count)| (us, count as f64)).collect());
    plot(out, "Messages by latency, µs", &bars, Scale::Powers, Scale::Even);
    let seconds = |of: fn(&super::Second) -> f64, name: &str| -> Vec<Line> {
        let lines = outcomes.iter().map(|o| Line {
            name: format!("{} {name}", o.server),
            points: o.series.iter().map(|s| (s.second as f64, of(s))).collect(),
        });
        lines.filter(|line| line.points.len() > 1).collect()
    };
    let mut latency = seconds(|s| s.p50_us, "p50");
    latency.extend(seconds(|s| s.p99_us, "p99"));
    latency.extend(seconds(|s| s.max_us, "max"));
    plot(out, "Latency by second, µs", &latency, Scale::Even, Scale::Powers);
    plot(
        out,
        "Deliveries by second",
        &seconds(|s| s.received as f64, ""),
        Scale::Even,
        Scale::Even,
    );
    plot(
        out,
        "Server processor, cores",
        &seconds(|s| s.server_cpu, ""),
        Scale::Even,
        Scale::Even,
    );
    let memory = seconds(|s| s.server_resident_bytes as f64 / 1_048_576.0, "");
    plot(
        out,
        "Server resident memory, MiB",
        &memory,
        Scale::Even,
        Scale::Even,
    );
}

fn plot(out: &mut String, title: &str, lines: &[Line], across: Scale, up: Scale) {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    if points().count() < 2 {
        return;
    }
    let x = Axis::new(points().map(|p| p.0), across, LEFT, WIDTH - RIGHT);
    let y = Axis::new(points().map(|p| p.1), up, HEIGHT - BOTTOM, TOP);
    let _ = write!(out, "<h2>{}</h2><p>", escaped(title));
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let _ = write!(
            out,
            "<span style=\"color:{colour}\">■</span> {} &nbsp; ",
            escaped(&line.name)
        );
    }
    let _ = write!(
        out,
        "</p><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-size=\"12\" fill=\"#57606a\">"
    );
    for mark in y.marks() {
        let at = y.place(mark);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#d8dee4\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            number(mark)
        );
    }
    for mark in x.marks() {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x.place(mark),
            HEIGHT - BOTTOM + 18.0,
            number(mark)
        );
    }
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\""
        );
        for &(px, py) in &line.points {
            let _ = write!(out, "{:.1},{:.1} ", x.place(px), y.place(py));
        }
        out.push_str("\"/>");
    }
    out.push_str("</svg>");
}

/// Maps values to places.
struct Axis {
    scale: Scale,
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, scale: Scale, from: f64, to: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite()) {
            least = least.min(value);
            most = most.max(value);
        }
        if let Scale::Powers = scale {
            least = least.max(0.1);
            most = most.max(least * 10.0);
        } else {
            least = least.min(0.0);
            most = most.max(least + 1e-9);
        }
        Self {
            scale,
            least,
            most,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Even => (value - self.least) / (self.most - self.least),
            Scale::Powers => (value.max(self.least) / self.least).ln() / (self.most / self.least).ln(),
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn marks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Even => {
                let rough = (self.most - self.least) / 5.0;
                let power = 10f64.powf(rough.log10().floor());
                let nice = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
                let step = nice.into_iter().find(|n| *n >= rough).unwrap_or(rough);
                let first = (self.least / step).ceil() as i64;
                (first..first + 12)
                    .map(|n| n as f64 * step)
                    .take_while(|v| *v <= self.most)
                    .collect()
            }
            Scale::Powers => {
                let first = self.least.log10().ceil() as i32;
                (first..first + 12)
                    .map(|n| 10f64.powi(n))
                    .take_while(|v| *v <= self.most)
                    .collect()
            }
        }
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 1.0 || value == 0.0 {
        super::grouped(value)
    } else {
        format!("{value:.3}").trim_end_matches('0').to_owned()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_places_its_ends_at_its_ends() {
        for scale in [Scale::Even, Scale::Powers] {
            let axis = Axis::new([0.0, 10.0, 1_000.0].into_iter(), scale, 100.0, 500.0);
            assert_eq!(axis.place(1_000.0), 500.0);
            assert_eq!(axis.place(0.0), 100.0);
            let marks = axis.marks();
            assert!((2..12).contains(&marks.len()), "{marks:?}");
        }
        let flat = Axis::new([5.0, 5.0].into_iter(), Scale::Even, 0.0, 1.0);
        assert!(flat.place(5.0).is_finite());
    }

    #[test]
    fn text_of_others_cannot_break_the_page() {
        assert_eq!(escaped("<b>&\""), "&lt;b&gt;&amp;&quot;");
    }
}
