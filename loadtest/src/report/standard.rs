//! The standard set's findings: a table in Markdown, plots beside it, a page, and JSON.
//!
//! Writing to a string cannot fail, so the results of `write!` are left alone throughout.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::html::{by_percentile, framed, where_and_when};
use super::plot::{Axis, Plot, Scale, Series, Stroke, escaped};
use super::rates::{self, Rates};
use super::{Machine, Unit, show};

/// What became of a promise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "is", content = "because", rename_all = "kebab-case")]
pub(crate) enum Standing {
    Met,
    Missed,
    /// Not soundly measured, or not at all: neither met nor missed.
    Open(String),
}

/// One figure against its target.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Row {
    /// Which of the promises, as in "2".
    pub(crate) line: String,
    pub(crate) run: String,
    pub(crate) figure: String,
    pub(crate) unit: Unit,
    /// Medians.
    pub(crate) here: Option<f64>,
    pub(crate) there: Option<f64>,
    /// The median of the rounds' ratios.
    pub(crate) ratio: Option<f64>,
    /// Between which of them the true median lies, with a certainty of 95 %; None for fewer than six.
    #[serde(default)]
    pub(crate) ratio_interval: Option<(f64, f64)>,
    /// What `there` is; empty where nothing is compared.
    pub(crate) against: String,
    /// In words.
    pub(crate) target: String,
    pub(crate) standing: Standing,
    /// What each round found.
    pub(crate) rounds_here: Vec<f64>,
    pub(crate) rounds_there: Vec<f64>,
}

/// A curve, of latencies by percentile where nothing else is said.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What one run looked like.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Picture {
    /// The file's name, without its ending.
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) curves: Vec<Curve>,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Standard {
    pub(crate) tool: String,
    pub(crate) commit: String,
    pub(crate) machine: Machine,
    pub(crate) pinned: String,
    pub(crate) rounds: u32,
    pub(crate) took_seconds: u64,
    /// The most that other processes used in any run, in cores.
    pub(crate) others_cpu: f64,
    pub(crate) rows: Vec<Row>,
    pub(crate) pictures: Vec<Picture>,
    /// Connections, and the server's private memory in bytes: a curve for each way to connect.
    pub(crate) memory: Vec<Curve>,
    pub(crate) rates: Option<Rates>,
    pub(crate) notes: Vec<String>,
}

impl Standard {
    /// Where, when and how, in one sentence.
    fn circumstances(&self) -> String {
        let commit = if self.commit.is_empty() {
            String::new()
        } else {
            format!(", commit {}", self.commit)
        };
        format!(
            "{} × {}, Linux {}; {}{commit}; {}. Medians of up to {} rounds in turns with what is compared; other processes used up to {:.2} cores; \
             {} min {} s in all.",
            self.machine.cores,
            self.machine.processor,
            self.machine.kernel,
            self.machine.date(),
            self.pinned,
            self.rounds,
            self.others_cpu,
            self.took_seconds / 60,
            self.took_seconds % 60
        )
    }

    /// The table, and the plots that lie under `plots` seen from the document.
    pub(crate) fn markdown(&self, plots: &str) -> String {
        let mut out = format!("{}\n\n", self.circumstances());
        out.push_str("| | run | figure | here | against | ratio | target | |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n");
        for row in &self.rows {
            let [here, there, ratio] = row.values();
            let against = if row.against.is_empty() || row.there.is_none() {
                there
            } else {
                format!("{there} ({})", row.against)
            };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {here} | {against} | {ratio} | {} | {} |",
                row.line,
                cell(&row.run),
                cell(&row.figure.replace('_', " ")),
                cell(&row.target),
                match &row.standing {
                    Standing::Met => "met".to_owned(),
                    Standing::Missed => "**missed**".to_owned(),
                    Standing::Open(why) => cell(why),
                }
            );
        }
        for note in &self.notes {
            let _ = write!(out, "\n- {note}");
        }
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for (file, plot) in self.plots() {
            let _ = write!(out, "\n![{}]({plots}/{file}.svg)\n", plot.title);
        }
        out
    }

    /// Files, as name and content.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        let plots = self.plots().into_iter();
        plots
            .map(|(file, plot)| (format!("{file}.svg"), plot.file()))
            .collect()
    }

    pub(crate) fn page(&self) -> String {
        let mut out = format!(
            "<p>{}</p>{}",
            escaped(&self.circumstances()),
            where_and_when(&self.tool, &self.machine)
        );
        out.push_str(
            "<div class=\"wide\"><table class=\"words\"><tr><th></th><th>run</th><th>figure</th><th>here</th><th>against</th><th>ratio</th>\
             <th>target</th><th></th><th>rounds here</th><th>rounds there</th></tr>",
        );
        for row in &self.rows {
            let [here, there, ratio] = row.values();
            let rounds = |values: &[f64]| {
                let shown: Vec<_> = values.iter().map(|&value| show(value, row.unit)).collect();
                escaped(&shown.join(", "))
            };
            let standing = match &row.standing {
                Standing::Met => "<b class=good>met</b>".to_owned(),
                Standing::Missed => "<b class=bad>missed</b>".to_owned(),
                Standing::Open(why) => escaped(why),
            };
            let _ = write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{} <small>{}</small></td><td>{ratio}</td><td>{}</td><td>{standing}</td>\
                 <td><small>{}</small></td><td><small>{}</small></td></tr>",
                escaped(&row.line),
                escaped(&row.run),
                escaped(&row.figure),
                escaped(&here),
                escaped(&there),
                escaped(&row.against),
                escaped(&row.target),
                rounds(&row.rounds_here),
                rounds(&row.rounds_there)
            );
        }
        out.push_str("</table></div>");
        for note in &self.notes {
            let _ = write!(out, "<p>{}</p>", escaped(note));
        }
        for (_, plot) in self.plots() {
            out.push_str(&plot.inline());
        }
        framed("The standard set", &out)
    }

    /// Each with its file's name.
    fn plots(&self) -> Vec<(String, Plot)> {
        let mut all = Vec::new();
        if let Some(rates) = &self.rates {
            let names = ["latency-by-rate", "processor-by-rate"];
            all.extend(names.map(str::to_owned).into_iter().zip(rates::plots(rates)));
        }
        for picture in &self.pictures {
            let curves = picture.curves.iter().map(|c| (c.name.as_str(), &c.points[..]));
            all.push((picture.file.clone(), by_percentile(&picture.title, curves)));
        }
        all.push(("memory".to_owned(), self.memory_plot()));
        all.retain(|(_, plot)| !plot.is_empty());
        all
    }

    fn memory_plot(&self) -> Plot {
        Plot {
            title: "Private memory of the server by idle connections".to_owned(),
            across: Axis {
                label: "connections, authenticated and subscribed",
                scale: Scale::Even,
                show: super::grouped,
            },
            up: Axis {
                label: "MiB",
                scale: Scale::Even,
                show: |mebibytes| format!("{mebibytes:.0}"),
            },
            series: self
                .memory
                .iter()
                .enumerate()
                .map(|(colour, curve)| Series {
                    name: curve.name.clone(),
                    colour,
                    stroke: Stroke::Marked,
                    points: curve
                        .points
                        .iter()
                        .map(|&(n, bytes)| (n, bytes / 1_048_576.0))
                        .collect(),
                })
                .collect(),
        }
    }
}

impl Row {
    /// Here, there and their ratio, for people.
    fn values(&self) -> [String; 3] {
        let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| show(value, self.unit));
        let ratio = match (self.ratio, self.ratio_interval) {
            (None, _) => "–".to_owned(),
            (Some(ratio), None) => format!("{ratio:.2}"),
            (Some(ratio), Some((low, high))) => format!("{ratio:.2} ({low:.2} to {high:.2})"),
        };
        [shown(self.here), shown(self.there), ratio]
    }
}

/// Text that stays within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::plot::tests::is_well_formed;

    fn standard() -> Standard {
        let row = Row {
            line: "2".to_owned(),
            run: "rooms | of ten".to_owned(),
            figure: "server_cpu_per_delivery".to_owned(),
            unit: Unit::Micros,
            here: Some(12.0),
            there: Some(10.0),
            ratio: Some(1.2),
            ratio_interval: None,
            against: "limit, one write".to_owned(),
            target: "≤ 1.25 ×".to_owned(),
            standing: Standing::Met,
            rounds_here: vec![12.0, 13.0],
            rounds_there: vec![10.0],
        };
        Standard {
            rows: vec![
                row.clone(),
                Row {
                    there: None,
                    ratio: None,
                    standing: Standing::Open("failed: <refused>\nby the server".to_owned()),
                    ..row
                },
            ],
            pictures: vec![Picture {
                file: "pairs".to_owned(),
                title: "pairs".to_owned(),
                curves: vec![Curve {
                    name: "target".to_owned(),
                    points: vec![(0.0, 1.0), (50.0, 2.0), (90.0, 5.0)],
                }],
            }],
            memory: vec![Curve {
                name: "idle connections".to_owned(),
                points: vec![(0.0, 1e7), (1_000.0, 2e7)],
            }],
            ..Standard::default()
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_row_and_the_same_cells_in_each() {
        let text = standard().markdown("bench");
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(lines.len(), 4);
        for line in &lines {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 9, "{line}");
        }
        assert!(
            lines[2].contains("| 12.00 µs | 10.00 µs (limit, one write) | 1.20 | ≤ 1.25 × | met |"),
            "{text}"
        );
        assert!(
            lines[3].contains("| – |") && lines[3].contains("<refused> by the server"),
            "{text}"
        );
    }

    #[test]
    fn every_plot_that_the_table_shows_is_a_file_and_well_formed() {
        let standard = standard();
        let text = standard.markdown("bench");
        let files = standard.files();
        assert_eq!(files.len(), 2);
        for (name, svg) in files {
            assert!(
                text.contains(&format!("(bench/{name})")) && is_well_formed(&svg),
                "{name}"
            );
        }
        assert!(standard.page().contains("failed: &lt;refused&gt;"));
    }

    #[test]
    fn what_is_written_as_json_is_read_back() {
        let standard = standard();
        let text = serde_json::to_string(&standard).unwrap();
        assert_eq!(serde_json::from_str::<Standard>(&text).unwrap(), standard);
    }
}
