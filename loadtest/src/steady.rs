//! The steady scenarios: connect all, load for a window, judge.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::clock::SECOND_NS;
use crate::engine::{self, LoadPlan, Loaded, Pace, SecondRow, Tally, Window, histogram};
use crate::process::{self, Cores, Reading};
use crate::report::{
    Better, Figures, Machine, Outcome, Second, Unit, Verdict, bars, curve, grouped, micros, show,
};
use crate::scenario::{Scenario, Shape};
use crate::session::{Place, Session, seconds_ns};

/// Connections that are being opened at a time.
const IN_FLIGHT: u32 = 64;
/// From the last answer to the first message, so that all threads have begun, in nanoseconds.
const LEAD_NS: u64 = 50_000_000;

/// Lateness above this share of the latency that is claimed ...
const LATE_SHARE_MAX: f64 = 0.25;
/// ... is the generator's fault, unless it is below what waking a thread and reading ten messages cost anyway, in microseconds.
const LATE_FLOOR_US: f64 = 100.0;
/// Lateness above this is its fault in any case, in microseconds.
const LATE_US_MAX: f64 = 500.0;
/// A thread that waits less than this share of the time has no time left.
const IDLE_SHARE_MIN: f64 = 0.05;
/// A server that leaves less than this share of its cores has none left either.
const SERVER_FULL_SHARE: f64 = 0.95;
/// Cores that others may use, or that may be stolen, before it is worth a word.
const OTHERS_CORES_MAX: f64 = 0.1;

/// Runs one steady scenario. `name` is the scenario's, `server` what is loaded.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn run(scenario: &Scenario, name: &str, server: &str, place: &Place) -> Result<Outcome, String> {
    run_telling(scenario, name, server, place, |_, _| ())
}

/// The same; `tell` is told when the measurement begins and ends, as soon as that is known.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn run_telling(
    scenario: &Scenario,
    name: &str,
    server: &str,
    place: &Place,
    tell: impl FnOnce(Instant, Instant),
) -> Result<Outcome, String> {
    let mut session = Session::open(scenario, place)?;
    let dialled = session.connect(0..u32::MAX, IN_FLIGHT)?;
    let load = &scenario.load;
    let first_ns = session.world.clock.now_ns() + LEAD_NS;
    let from_ns = first_ns + seconds_ns(load.warmup_seconds);
    let until_ns = from_ns + seconds_ns(load.seconds);
    let window = Window {
        first_ns,
        from_ns,
        until_ns,
        drained_ns: until_ns + seconds_ns(load.drain_seconds),
    };
    let begins = Instant::now() + Duration::from_nanos(from_ns.saturating_sub(session.world.clock.now_ns()));
    tell(begins, begins + Duration::from_nanos(until_ns - from_ns));
    let pace = match (load.rate, load.outstanding) {
        (Some(messages_per_second), _) => Pace::Open { messages_per_second },
        (None, outstanding) => Pace::Closed {
            outstanding: outstanding.unwrap_or(1),
        },
    };
    let plan = LoadPlan {
        window,
        pace,
        churn_per_second: match scenario.shape {
            Shape::Soak { churn_per_second, .. } => churn_per_second,
            _ => 0.0,
        },
        spin_ns: place.spin_ns(),
    };
    let (rows, collected) = channel();
    let clock = session.world.clock;
    let mut collector = Collector::new(session.server, window, load.threads, place.is_live());
    let shards = &mut session.shards;
    let loaded = std::thread::scope(|scope| {
        let running = scope.spawn(move || engine::load(shards, plan, rows));
        collector.collect(&collected, clock);
        running
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the load panicked")))
    });
    let loaded = loaded.map_err(|e| e.to_string())?;
    let account = Account::of(&session);
    // Where rooms have no numbers, none can be missing: loss is counted by our own.
    collector.positions = place.dialect.has_positions();
    let mut outcome = collector.outcome(scenario, name, server, pace, &loaded, &account, &dialled);
    outcome.tls = session.tls();
    Ok(outcome)
}

/// The counts of a run, from its ledgers.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) tally: Tally,
    pub(crate) lost: u64,
    pub(crate) doubles: u64,
    pub(crate) late: u64,
}

impl Account {
    pub(crate) fn of(session: &Session) -> Self {
        let topology = &session.world.topology;
        let mut sent = vec![0; topology.publishers.len()];
        for publisher in session.shards.iter().flat_map(|shard| &shard.publishers) {
            sent[publisher.index as usize] = publisher.sent;
        }
        let mut account = Self {
            tally: session.tally(),
            ..Self::default()
        };
        let seats = session.shards.iter().flat_map(|shard| &shard.seats);
        for seat in seats.filter(|seat| !seat.stalled) {
            let rooms = topology.seats[seat.index as usize].rooms.iter();
            let publishers = rooms.flat_map(|room| &topology.rooms[*room as usize].publishers);
            for (publisher, ledger) in publishers.zip(&seat.ledgers) {
                account.lost += ledger.lost(sent[*publisher as usize]);
                account.doubles += u64::from(ledger.doubles);
                account.late += u64::from(ledger.late);
            }
        }
        account
    }

    /// What is not as it should be, in words.
    pub(crate) fn faults(&self) -> Option<String> {
        let faults = [
            (self.lost, "lost"),
            (self.doubles, "doubled"),
            (self.late, "out of order"),
            (self.tally.foreign, "not ours"),
            (self.tally.disconnected, "connections ended"),
        ];
        let faults: Vec<_> = faults
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!faults.is_empty()).then(|| faults.join(", "))
    }
}

/// What the rule about the bottleneck looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strain {
    pub(crate) pace: Pace,
    pub(crate) lateness_p99_us: f64,
    pub(crate) latency_p99_us: f64,
    /// Of the busiest thread.
    pub(crate) busy: f64,
    /// Share of its cores that the server used, where known.
    pub(crate) server_full: Option<f64>,
}

/// Why the generator was the bottleneck, if it was.
pub(crate) fn generator_bound(strain: &Strain) -> Option<String> {
    let Strain {
        pace,
        lateness_p99_us: late,
        latency_p99_us: latency,
        busy,
        server_full,
    } = *strain;
    if let Pace::Open { .. } = pace {
        if late > LATE_US_MAX {
            return Some(format!(
                "it sent up to {late:.0} µs late (p99), more than {LATE_US_MAX} µs"
            ));
        }
        if late > LATE_FLOOR_US && late > LATE_SHARE_MAX * latency {
            return Some(format!(
                "it sent up to {late:.0} µs late (p99), more than a quarter of the latency of {latency:.0} µs"
            ));
        }
    }
    let server_had_time = server_full.is_none_or(|full| full < SERVER_FULL_SHARE);
    (busy > 1.0 - IDLE_SHARE_MIN && server_had_time).then(|| {
        format!(
            "its busiest thread worked {:.0} % of the time, while the server {}",
            busy * 100.0,
            server_full.map_or_else(
                || "was not watched (--pid)".to_owned(),
                |full| format!("used {:.0} % of its cores", full * 100.0)
            )
        )
    })
}

/// Gathers the rows of all threads, watches the processes and tells how it goes.
struct Collector {
    server: Option<u32>,
    window: Window,
    threads: u32,
    /// Somebody watches a terminal.
    live: bool,
    /// Rooms have sequences that can break.
    positions: bool,
    total: Histogram<u64>,
    seconds: Vec<(Second, Histogram<u64>, u32)>,
    server_from: Option<Reading>,
    server_until: Option<Reading>,
    own_cpu_from: f64,
    own_cpu_until: f64,
    cores_from: Option<Cores>,
    cores_until: Option<Cores>,
    cpu_before: f64,
    /// Of the second that was looked at last, in cores.
    cpu_now: Option<f64>,
}

impl Collector {
    fn new(server: Option<u32>, window: Window, threads: u32, live: bool) -> Self {
        Self {
            server,
            window,
            threads,
            live,
            positions: true,
            total: histogram(),
            seconds: Vec::new(),
            server_from: None,
            server_until: None,
            own_cpu_from: 0.0,
            own_cpu_until: 0.0,
            cores_from: None,
            cores_until: None,
            cpu_before: 0.0,
            cpu_now: None,
        }
    }

    fn own_cpu() -> f64 {
        process::cpu_seconds(std::process::id()).unwrap_or(0.0)
    }

    fn read_server(&self) -> Option<Reading> {
        self.server.and_then(|pid| process::read(pid).ok())
    }

    /// Until all threads are done.
    fn collect(&mut self, rows: &Receiver<SecondRow>, clock: crate::clock::Clock) {
        let seconds = (self.window.until_ns - self.window.from_ns).div_ceil(SECOND_NS);
        // The next moment at which the processes are looked at: the window's begin, each of its seconds, its end.
        let mut looked = 0;
        loop {
            let next = (self.window.from_ns + looked * SECOND_NS).min(self.window.until_ns);
            let now = clock.now_ns();
            let wait = if looked > seconds {
                Duration::from_secs(1)
            } else {
                Duration::from_nanos(next.saturating_sub(now))
            };
            match rows.recv_timeout(wait) {
                Ok(row) => self.take(row),
                Err(RecvTimeoutError::Timeout) if looked > seconds => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.look(looked, seconds);
                    looked += 1;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if self.live {
            eprint!("\r\x1b[K");
        }
    }

    fn look(&mut self, second: u64, seconds: u64) {
        if second == 0 {
            self.server_from = self.read_server();
            self.own_cpu_from = Self::own_cpu();
            self.cores_from = process::cores();
            self.cpu_before = self.server_from.map_or(0.0, |r| r.cpu_seconds);
            return;
        }
        let cpu = self.server.and_then(|pid| process::cpu_seconds(pid).ok());
        if let Some(cpu) = cpu {
            let used = cpu - self.cpu_before;
            self.cpu_before = cpu;
            self.cpu_now = Some(used);
            let resident = self.server.and_then(|pid| process::resident_bytes(pid).ok());
            let row = self.row(second - 1);
            row.0.server_cpu = used;
            row.0.server_resident_bytes = resident.unwrap_or(0);
        }
        if second == seconds {
            self.server_until = self.read_server();
            self.own_cpu_until = Self::own_cpu();
            self.cores_until = process::cores();
        }
    }

    fn row(&mut self, second: u64) -> &mut (Second, Histogram<u64>, u32) {
        while self.seconds.len() as u64 <= second {
            let second = Second {
                second: self.seconds.len() as u64,
                ..Second::default()
            };
            self.seconds.push((second, histogram(), 0));
        }
        &mut self.seconds[second as usize]
    }

    fn take(&mut self, row: SecondRow) {
        // All have the same bounds, so that adding cannot fail.
        let _ = self.total.add(&row.latency);
        let threads = self.threads;
        let (second, latency, came) = self.row(row.second);
        second.sent += row.sent;
        second.received += row.received;
        let _ = latency.add(&row.latency);
        second.p50_us = micros(latency.value_at_quantile(0.5));
        second.p99_us = micros(latency.value_at_quantile(0.99));
        second.max_us = micros(latency.max());
        *came += 1;
        let (second, complete) = (*second, *came >= threads);
        if complete && self.live {
            let whole = (self.window.until_ns - self.window.from_ns).div_ceil(SECOND_NS);
            let so_far = micros(self.total.value_at_quantile(0.99));
            eprint!("\r\x1b[K{}", progress(&second, whole, so_far, self.cpu_now));
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "everything that a run has found, put together once"
    )]
    fn outcome(
        self,
        scenario: &Scenario,
        name: &str,
        server: &str,
        pace: Pace,
        loaded: &Loaded,
        account: &Account,
        dialled: &engine::Dialled,
    ) -> Outcome {
        let length = (self.window.until_ns - self.window.from_ns) as f64 / SECOND_NS as f64;
        let deliveries = loaded.received_in_window;
        let mut figures = Figures::default();
        let positions = self.positions;
        let rate = |count: u64| count as f64 / length;
        figures.put(
            "messages_per_second",
            rate(loaded.sent_in_window),
            Unit::PerSecond,
            Better::Higher,
        );
        figures.put(
            "deliveries_per_second",
            rate(deliveries),
            Unit::PerSecond,
            Better::Higher,
        );
        figures.percentiles("", &self.total);
        figures.count("measured", self.total.len());
        figures.count("sent", account.tally.sent);
        figures.count("received", account.tally.received);
        figures.fault("lost", account.lost);
        figures.fault("duplicates", account.doubles);
        figures.fault("reordered", account.late);
        if positions {
            figures.fault("sequence_breaks", account.tally.sequence_breaks);
            figures.fault("told_lost", account.tally.told_lost);
        }
        figures.fault("foreign", account.tally.foreign);
        figures.fault("disconnected", account.tally.disconnected);
        if account.tally.churned > 0 {
            let recovered = account.tally.recovered;
            figures.count("churned", account.tally.churned);
            figures.count("continued", recovered.continued);
            figures.fault("partial", recovered.partial);
            figures.fault("reset", recovered.reset);
        }
        let lateness_p99_us = micros(loaded.lateness.value_at_quantile(0.99));
        if let Pace::Open { .. } = pace {
            figures.put(
                "lateness_p50",
                micros(loaded.lateness.value_at_quantile(0.5)),
                Unit::Micros,
                Better::Lower,
            );
            figures.put("lateness_p99", lateness_p99_us, Unit::Micros, Better::Lower);
            figures.put(
                "lateness_max",
                micros(loaded.lateness.max()),
                Unit::Micros,
                Better::Lower,
            );
        }
        let busy = loaded.busy.iter().copied().fold(0.0, f64::max);
        figures.put("generator_busy", busy, Unit::Share, Better::Neither);
        let own = self.own_cpu_until - self.own_cpu_from;
        figures.put("generator_cpu", own / length, Unit::Cores, Better::Neither);
        let each = |cpu_seconds: f64| cpu_seconds * 1e6 / deliveries.max(1) as f64;
        figures.put(
            "generator_cpu_per_delivery",
            each(own),
            Unit::Micros,
            Better::Neither,
        );
        let mut server_full = None;
        let mut known = own;
        if let (Some(from), Some(until)) = (self.server_from, self.server_until) {
            let cpu = until.cpu_seconds - from.cpu_seconds;
            known += cpu;
            figures.put("server_cpu", cpu / length, Unit::Cores, Better::Lower);
            figures.put("server_cpu_per_delivery", each(cpu), Unit::Micros, Better::Lower);
            let private = until.private_bytes as f64;
            figures.put("server_private", private, Unit::Bytes, Better::Lower);
            let growth = private - from.private_bytes as f64;
            figures.put("server_private_growth", growth, Unit::Bytes, Better::Lower);
            figures.count("server_descriptors", until.descriptors);
            let opened = until.descriptors as f64 - from.descriptors as f64;
            figures.put("server_descriptors_growth", opened, Unit::Count, Better::Lower);
            let cores = self.server.and_then(process::cores_usable);
            server_full = cores.map(|cores| cpu / length / cores as f64);
        }
        let mut notes: Vec<_> = account
            .tally
            .reasons
            .iter()
            .map(|(why, n)| format!("{n} × {why}"))
            .collect();
        if let (Some(from), Some(until)) = (self.cores_from, self.cores_until) {
            let others = ((until.processes - from.processes - known) / length).max(0.0);
            let stolen = (until.stolen - from.stolen) / length;
            figures.put("others_cpu", others, Unit::Cores, Better::Lower);
            figures.put("stolen_cpu", stolen, Unit::Cores, Better::Lower);
            if others > OTHERS_CORES_MAX || stolen > OTHERS_CORES_MAX {
                notes.push(format!(
                    "the machine was not quiet: others used {others:.2} cores, and {stolen:.2} were stolen; trust ratios at most"
                ));
            }
        }
        figures.handshakes(&account.tally.handshakes);
        figures.put(
            "ready_p99",
            micros(dialled.ready.value_at_quantile(0.99)),
            Unit::Micros,
            Better::Lower,
        );
        let strain = Strain {
            pace,
            lateness_p99_us,
            latency_p99_us: micros(self.total.value_at_quantile(0.99)),
            busy,
            server_full,
        };
        let verdict = match (generator_bound(&strain), account.faults()) {
            (Some(why), _) => Verdict::GeneratorBound(why),
            (None, Some(why)) => Verdict::NotWhole(why),
            (None, None) => Verdict::Sound,
        };
        Outcome {
            server: server.to_owned(),
            scenario: serde_json::to_value(scenario).unwrap_or_default(),
            name: name.to_owned(),
            about: scenario.about.clone(),
            machine: Machine::here(),
            tls: None,
            verdict,
            metrics: figures.0,
            notes,
            series: self.seconds.into_iter().map(|(second, ..)| second).collect(),
            curve: curve(&self.total),
            bars: bars(&self.total),
        }
    }
}

/// A second on the terminal, within eighty columns or little more.
fn progress(second: &Second, seconds: u64, p99_so_far_us: f64, cpu: Option<f64>) -> String {
    let cpu = cpu.map_or_else(String::new, |cpu| format!("  server {cpu:.2} cores"));
    format!(
        "{:>4}/{seconds} s  {}/s sent  {}/s read  p50 {}  p99 {}, {} so far{cpu}",
        second.second + 1,
        grouped(second.sent as f64),
        grouped(second.received as f64),
        show(second.p50_us, Unit::Micros),
        show(second.p99_us, Unit::Micros),
        show(p99_so_far_us, Unit::Micros),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_on_the_terminal_tells_rates_latency_so_far_and_the_servers_time() {
        let second = Second {
            second: 4,
            sent: 1_000,
            received: 10_000,
            p50_us: 120.0,
            p99_us: 1_500.0,
            ..Second::default()
        };
        assert_eq!(
            progress(&second, 10, 800.0, Some(0.254)),
            "   5/10 s  1,000/s sent  10,000/s read  p50 120.00 µs  p99 1.50 ms, 800.00 µs so far  server 0.25 cores"
        );
    }

    const CALM: Strain = Strain {
        pace: Pace::Open {
            messages_per_second: 1.0,
        },
        lateness_p99_us: 40.0,
        latency_p99_us: 100.0,
        busy: 0.5,
        server_full: Some(0.5),
    };

    #[test]
    fn what_waking_up_costs_is_nobodys_fault() {
        assert_eq!(generator_bound(&CALM), None);
    }

    #[test]
    fn a_generator_that_sends_late_claims_nothing() {
        let late = |lateness_p99_us, latency_p99_us| {
            generator_bound(&Strain {
                lateness_p99_us,
                latency_p99_us,
                ..CALM
            })
        };
        assert!(late(110.0, 400.0).unwrap().contains("quarter"));
        assert_eq!(late(110.0, 500.0), None);
        assert_eq!(late(90.0, 100.0), None);
        assert!(late(501.0, 1e6).unwrap().contains("500"));
    }

    #[test]
    fn a_full_generator_beside_an_idle_server_claims_nothing() {
        let full = |busy, server_full| {
            generator_bound(&Strain {
                pace: Pace::Closed { outstanding: 1 },
                busy,
                server_full,
                lateness_p99_us: 9e9,
                ..CALM
            })
        };
        assert!(full(0.99, Some(0.6)).is_some());
        assert!(full(0.99, None).is_some());
        assert_eq!(full(0.99, Some(0.97)), None);
        assert_eq!(full(0.8, Some(0.6)), None);
    }
}
