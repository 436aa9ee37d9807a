//! What one window of load found, and its figures. Windows of one session can be put together.

use hdrhistogram::Histogram;

use super::account::Account;
use super::strain::{Strain, generator_bound};
use crate::engine::Pace;
use crate::process::Cores;
use crate::report::{Better, Figures, Machine, Outcome, Second, Unit, Verdict, bars, curve, micros};
use crate::scenario::Scenario;

/// Cores that others may use, or that may be stolen, before it is worth a word.
const OTHERS_CORES_MAX: f64 = 0.1;

/// What the server's process took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(super) cpu_seconds: f64,
    pub(crate) private_bytes: u64,
    pub(super) private_growth: f64,
    pub(super) descriptors: u64,
    pub(super) descriptors_growth: f64,
    /// That it may and can use.
    pub(super) cores: Option<usize>,
}

/// One window, or several put together.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(super) pace: Pace,
    pub(super) seconds: f64,
    pub(super) latency: Histogram<u64>,
    /// Empty in a closed loop.
    pub(super) lateness: Histogram<u64>,
    /// Of the busiest thread.
    pub(super) busy: f64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) own_cpu_seconds: f64,
    /// None where the process is not known.
    pub(crate) server: Option<Cost>,
    /// What the whole machine did meanwhile.
    pub(super) cores: Option<Cores>,
    pub(super) series: Vec<Second>,
}

/// What an outcome says of its run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) name: &'a str,
    /// What was loaded.
    pub(crate) server: &'a str,
    /// Rooms have sequences that can break.
    pub(crate) positions: bool,
    /// From connect to ready.
    pub(crate) ready: &'a Histogram<u64>,
}

impl Measured {
    /// Puts a later window of the same session to this one. Memory is what it was last; growth is since the first.
    pub(crate) fn add(&mut self, later: &Self) {
        // All have the same bounds, so that adding cannot fail.
        let _ = self.latency.add(&later.latency);
        let _ = self.lateness.add(&later.lateness);
        self.busy = (self.busy * self.seconds + later.busy * later.seconds) / (self.seconds + later.seconds);
        self.seconds += later.seconds;
        self.sent += later.sent;
        self.received += later.received;
        self.own_cpu_seconds += later.own_cpu_seconds;
        self.server = self.server.zip(later.server).map(|(before, after)| {
            let private = before.private_bytes as f64 - before.private_growth;
            let descriptors = before.descriptors as f64 - before.descriptors_growth;
            Cost {
                cpu_seconds: before.cpu_seconds + after.cpu_seconds,
                private_growth: after.private_bytes as f64 - private,
                descriptors_growth: after.descriptors as f64 - descriptors,
                ..after
            }
        });
        self.cores = self.cores.zip(later.cores).map(|(before, after)| Cores {
            processes: before.processes + after.processes,
            stolen: before.stolen + after.stolen,
        });
        let first = self.series.len() as u64;
        let renumbered = later.series.iter().zip(first..);
        self.series
            .extend(renumbered.map(|(&row, second)| Second { second, ..row }));
    }

    pub(crate) fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// Why the generator was the bottleneck, if it was.
    pub(crate) fn generator_bound(&self) -> Option<String> {
        let full = self.server.and_then(|server| {
            let cores = server.cores? as f64;
            Some(server.cpu_seconds / self.seconds / cores)
        });
        generator_bound(&Strain {
            pace: self.pace,
            lateness_p99_us: micros(self.lateness.value_at_quantile(0.99)),
            latency_p99_us: micros(self.latency.value_at_quantile(0.99)),
            busy: self.busy,
            server_full: full,
        })
    }

    /// As it is told; counts are those of the session.
    pub(crate) fn outcome(self, about: About<'_>, account: &Account) -> Outcome {
        let mut figures = Figures::default();
        let rate = |count: u64| count as f64 / self.seconds;
        figures.put(
            "messages_per_second",
            rate(self.sent),
            Unit::PerSecond,
            Better::Higher,
        );
        figures.put(
            "deliveries_per_second",
            rate(self.received),
            Unit::PerSecond,
            Better::Higher,
        );
        figures.percentiles("", &self.latency);
        figures.count("measured", self.latency.len());
        account.figures(&mut figures, about.positions);
        if let Pace::Open { .. } = self.pace {
            for (name, ns) in [
                ("lateness_p50", self.lateness.value_at_quantile(0.5)),
                ("lateness_p99", self.lateness.value_at_quantile(0.99)),
                ("lateness_max", self.lateness.max()),
            ] {
                figures.put(name, micros(ns), Unit::Micros, Better::Lower);
            }
        }
        figures.put("generator_busy", self.busy, Unit::Share, Better::Neither);
        let mut notes = account.reasons();
        self.processes(&mut figures, &mut notes);
        figures.handshakes("", &account.tally.handshakes);
        figures.put(
            "ready_p99",
            micros(about.ready.value_at_quantile(0.99)),
            Unit::Micros,
            Better::Lower,
        );
        let verdict = match (self.generator_bound(), account.faults()) {
            (Some(why), _) => Verdict::GeneratorBound(why),
            (None, Some(why)) => Verdict::NotWhole(why),
            (None, None) => Verdict::Sound,
        };
        Outcome {
            server: about.server.to_owned(),
            scenario: serde_json::to_value(about.scenario).unwrap_or_default(),
            name: about.name.to_owned(),
            about: about.scenario.about.clone(),
            machine: Machine::here(),
            tls: None,
            verdict,
            metrics: figures.0,
            notes,
            curve: curve(&self.latency),
            bars: bars(&self.latency),
            series: self.series,
        }
    }

    /// What both processes and the machine spent.
    fn processes(&self, figures: &mut Figures, notes: &mut Vec<String>) {
        let own = self.own_cpu_seconds;
        let each = |cpu_seconds: f64| cpu_seconds * 1e6 / self.received.max(1) as f64;
        figures.put("generator_cpu", own / self.seconds, Unit::Cores, Better::Neither);
        figures.put(
            "generator_cpu_per_delivery",
            each(own),
            Unit::Micros,
            Better::Neither,
        );
        let mut known = own;
        if let Some(server) = &self.server {
            let cpu = server.cpu_seconds;
            known += cpu;
            figures.put("server_cpu", cpu / self.seconds, Unit::Cores, Better::Lower);
            figures.put("server_cpu_per_delivery", each(cpu), Unit::Micros, Better::Lower);
            let private = server.private_bytes as f64;
            figures.put("server_private", private, Unit::Bytes, Better::Lower);
            figures.put(
                "server_private_growth",
                server.private_growth,
                Unit::Bytes,
                Better::Lower,
            );
            figures.count("server_descriptors", server.descriptors);
            figures.put(
                "server_descriptors_growth",
                server.descriptors_growth,
                Unit::Count,
                Better::Lower,
            );
        }
        let Some(cores) = self.cores else {
            return;
        };
        let others = ((cores.processes - known) / self.seconds).max(0.0);
        let stolen = cores.stolen / self.seconds;
        figures.put("others_cpu", others, Unit::Cores, Better::Lower);
        figures.put("stolen_cpu", stolen, Unit::Cores, Better::Lower);
        if others > OTHERS_CORES_MAX || stolen > OTHERS_CORES_MAX {
            notes.push(format!(
                "the machine was not quiet: others used {others:.2} cores, and {stolen:.2} were stolen; trust ratios at most"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::histogram;

    fn window(ns: u64, private: u64, grown: f64) -> Measured {
        let mut latency = histogram();
        latency.record(ns).unwrap();
        Measured {
            pace: Pace::Open {
                messages_per_second: 1.0,
                burst: 1,
            },
            seconds: 1.0,
            latency,
            lateness: histogram(),
            busy: 0.5,
            sent: 1,
            received: 2,
            own_cpu_seconds: 0.1,
            server: Some(Cost {
                cpu_seconds: 0.2,
                private_bytes: private,
                private_growth: grown,
                descriptors: 9,
                descriptors_growth: 1.0,
                cores: Some(1),
            }),
            cores: None,
            series: vec![Second::default()],
        }
    }

    #[test]
    fn windows_put_together_are_as_one() {
        let mut both = window(1_000, 1_100, 100.0);
        both.add(&window(2_000, 1_500, 300.0));
        assert_eq!(
            (both.latency.len(), both.sent, both.received, both.seconds),
            (2, 2, 4, 2.0)
        );
        let server = both.server.unwrap();
        assert_eq!((server.private_bytes, server.private_growth), (1_500, 500.0));
        assert!((server.cpu_seconds - 0.4).abs() < 1e-9 && (both.busy - 0.5).abs() < 1e-9);
        let seconds: Vec<_> = both.series.iter().map(|row| row.second).collect();
        assert_eq!(seconds, [0, 1]);
    }
}
