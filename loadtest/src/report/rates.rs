//! Latency by rate: the same scenario at several rates, against one server or several.

use serde::{Deserialize, Serialize};

use super::html::LATENCY;
use super::plot::{Axis, Plot, Scale, Series, Stroke};
use super::{Machine, Outcome, TOOL, Verdict, grouped};

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Point {
    pub(crate) server: String,
    /// Messages a second that were asked for.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Cores, where the server's process is known.
    pub(crate) server_cpu: Option<f64>,
    /// Why nothing is claimed of this point.
    pub(crate) objection: Option<String>,
}

/// A sweep.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Rates {
    pub(crate) tool: String,
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) machine: Machine,
    pub(crate) points: Vec<Point>,
}

impl Rates {
    pub(crate) fn new(name: &str, about: &str) -> Self {
        Self {
            tool: TOOL.to_owned(),
            name: name.to_owned(),
            about: about.to_owned(),
            machine: Machine::here(),
            points: Vec::new(),
        }
    }

    /// Adds what a run at `rate` found.
    pub(crate) fn add(&mut self, rate: f64, outcome: &Outcome) {
        let figure = |name: &str| outcome.metric(name).map(|metric| metric.value);
        let (Some(p50_us), Some(p99_us), Some(p999_us)) = (figure("p50"), figure("p99"), figure("p99.9"))
        else {
            return;
        };
        self.points.push(Point {
            server: outcome.server.clone(),
            rate,
            p50_us,
            p99_us,
            p999_us,
            server_cpu: figure("server_cpu"),
            objection: match &outcome.verdict {
                Verdict::Sound => None,
                Verdict::GeneratorBound(why) => Some(format!("generator-bound: {why}")),
                Verdict::NotWhole(why) => Some(format!("not whole: {why}")),
            },
        });
    }

    /// The sound points of each server by rising rate; of a rate that was run more than once, the middle one.
    fn lines(&self) -> Vec<(&str, Vec<&Point>)> {
        let mut servers: Vec<(&str, Vec<&Point>)> = Vec::new();
        for point in self.points.iter().filter(|point| point.objection.is_none()) {
            match servers.iter_mut().find(|(name, _)| *name == point.server) {
                Some((_, points)) => points.push(point),
                None => servers.push((&point.server, vec![point])),
            }
        }
        for (_, points) in &mut servers {
            points.sort_by(|a, b| a.rate.total_cmp(&b.rate).then(a.p99_us.total_cmp(&b.p99_us)));
            let same_rate = points.chunk_by(|a, b| a.rate == b.rate);
            *points = same_rate.map(|same| same[(same.len() - 1) / 2]).collect();
        }
        servers
    }
}

/// Percentiles by rate, and what the server's processor did.
pub(super) fn plots(rates: &Rates) -> Vec<Plot> {
    let across = Axis {
        label: "messages a second",
        scale: Scale::Powers,
        show: grouped,
    };
    let lines = rates.lines();
    let mut latency = Vec::new();
    let mut processor = Vec::new();
    for (colour, (server, points)) in lines.iter().enumerate() {
        for (stroke, name, of) in [
            (Stroke::Marked, "p50", (|p| p.p50_us) as fn(&Point) -> f64),
            (Stroke::MarkedDashed, "p99", |p| p.p99_us),
            (Stroke::MarkedDotted, "p99.9", |p| p.p999_us),
        ] {
            latency.push(Series {
                name: format!("{server} {name}"),
                colour,
                stroke,
                points: points.iter().map(|p| (p.rate, of(p))).collect(),
            });
        }
        let cpu = points.iter().filter_map(|p| Some((p.rate, p.server_cpu?)));
        processor.push(Series {
            name: (*server).to_owned(),
            colour,
            stroke: Stroke::Marked,
            points: cpu.collect(),
        });
    }
    vec![
        Plot {
            title: format!("{}: latency by rate", rates.name),
            across,
            up: LATENCY,
            series: latency,
        },
        Plot {
            title: format!("{}: the server's processor time by rate", rates.name),
            across,
            up: Axis {
                label: "cores",
                scale: Scale::Even,
                show: |cores| format!("{cores:.2}"),
            },
            series: processor,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(server: &str, rate: f64, p99_us: f64) -> Point {
        Point {
            server: server.to_owned(),
            rate,
            p50_us: p99_us / 2.0,
            p99_us,
            p999_us: p99_us * 2.0,
            server_cpu: None,
            objection: None,
        }
    }

    #[test]
    fn a_line_rises_by_rate_leaves_out_what_is_not_sound_and_takes_the_middle_of_repeats() {
        let mut rates = Rates::new("rooms", "");
        rates.points = vec![
            point("target", 4_000.0, 90.0),
            point("limit", 1_000.0, 5.0),
            point("target", 1_000.0, 30.0),
            point("target", 4_000.0, 500.0),
            point("target", 4_000.0, 100.0),
            Point {
                objection: Some("late".to_owned()),
                ..point("target", 8_000.0, 1.0)
            },
        ];
        let lines = rates.lines();
        let target: Vec<_> = lines[0].1.iter().map(|p| (p.rate, p.p99_us)).collect();
        assert_eq!(
            (lines[0].0, target),
            ("target", vec![(1_000.0, 30.0), (4_000.0, 100.0)])
        );
        assert_eq!(lines[1].0, "limit");
        let plots = plots(&rates);
        assert_eq!(plots[0].series.len(), 6);
        assert!(!plots[0].is_empty() && plots[1].is_empty());
    }
}
