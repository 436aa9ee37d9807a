//! Gathers what a run's threads tell each second, and looks at the processes meanwhile. It runs beside the threads that measure, on their
//! core, and so gives way to them: what takes the kernel long (a process's memory) is read before the load and after it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::measured::{Cost, Measured};
use crate::clock::{Clock, SECOND_NS};
use crate::engine::{Loaded, Pace, SecondRow, Window, histogram};
use crate::process::{self, Cores, Reading};
use crate::report::{Second, Unit, grouped, micros, show};

/// Gathers the rows of all threads, watches the processes and tells how it goes.
pub(super) struct Collector {
    server: Option<u32>,
    window: Window,
    threads: u32,
    /// Somebody watches a terminal.
    live: bool,
    total: Histogram<u64>,
    seconds: Vec<(Second, Histogram<u64>, u32)>,
    /// Before the load.
    server_before: Option<Reading>,
    from: Moment,
    until: Moment,
    cpu_before: f64,
    /// Of the second that was looked at last, in cores.
    cpu_now: Option<f64>,
}

/// Processor time at one end of the measurement, in seconds.
#[derive(Clone, Copy, Default)]
struct Moment {
    server: Option<f64>,
    own: f64,
    cores: Option<Cores>,
}

impl Moment {
    fn now(server: Option<u32>) -> Self {
        Self {
            server: server.and_then(|pid| process::cpu_seconds(pid).ok()),
            own: process::cpu_seconds(std::process::id()).unwrap_or(0.0),
            cores: process::cores(),
        }
    }
}

impl Collector {
    /// Looks at the server's memory, which may take some milliseconds: before the load.
    pub(super) fn new(server: Option<u32>, window: Window, threads: u32, live: bool) -> Self {
        Self {
            server,
            window,
            threads,
            live,
            total: histogram(),
            seconds: Vec::new(),
            server_before: server.and_then(|pid| process::read(pid).ok()),
            from: Moment::default(),
            until: Moment::default(),
            cpu_before: 0.0,
            cpu_now: None,
        }
    }

    /// Until all threads are done.
    pub(super) fn collect(&mut self, rows: &Receiver<SecondRow>, clock: Clock) {
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
        if looked <= seconds {
            // It got no turn between the last message and the end.
            self.look(seconds, seconds);
        }
        if self.live {
            eprint!("\r\x1b[K");
        }
    }

    fn look(&mut self, second: u64, seconds: u64) {
        if second == 0 {
            self.from = Moment::now(self.server);
            self.cpu_before = self.from.server.unwrap_or(0.0);
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
            self.until = Moment::now(self.server);
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

    /// What all of it comes to, with what the threads say at their end; looks at the server's memory once more.
    pub(super) fn finish(self, pace: Pace, loaded: Loaded) -> Measured {
        let Self {
            server,
            window,
            server_before,
            from,
            until,
            ..
        } = self;
        let server_after = server.and_then(|pid| process::read(pid).ok());
        let cost = || {
            let (before, after) = (server_before?, server_after?);
            Some(Cost {
                cpu_seconds: until.server? - from.server?,
                private_bytes: after.private_bytes,
                private_growth: after.private_bytes as f64 - before.private_bytes as f64,
                descriptors: after.descriptors,
                descriptors_growth: after.descriptors as f64 - before.descriptors as f64,
                cores: server.and_then(process::cores_usable),
            })
        };
        let mut series: Vec<_> = self.seconds.into_iter().map(|(second, ..)| second).collect();
        // Of what arrives behind the window there is a row too, and mostly nothing in it.
        while series
            .last()
            .is_some_and(|row| row.sent == 0 && row.received == 0)
        {
            series.pop();
        }
        let cores = from.cores.zip(until.cores).map(|(from, until)| Cores {
            processes: until.processes - from.processes,
            stolen: until.stolen - from.stolen,
        });
        Measured {
            pace,
            seconds: (window.until_ns - window.from_ns) as f64 / SECOND_NS as f64,
            latency: self.total,
            lateness: loaded.lateness,
            busy: loaded.busy.iter().copied().fold(0.0, f64::max),
            sent: loaded.sent_in_window,
            received: loaded.received_in_window,
            own_cpu_seconds: until.own - from.own,
            server: cost(),
            cores,
            series,
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
}
