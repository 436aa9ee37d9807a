//! What the operating system knows about this process. Linux; elsewhere the figures are left out.

use std::fs;

/// Ticks of CPU time a second in `/proc`: the kernel's interface to programs says 100 on every machine that Rust runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// One look at the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessFigures {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) fds_max: Option<u64>,
    pub(super) threads: Option<u64>,
}

impl ProcessFigures {
    /// Reads a few small files of the kernel's; some tens of microseconds, and about one for each open socket.
    pub(super) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let status = text("/proc/self/status");
        Self {
            cpu_seconds: cpu_seconds(&text("/proc/self/stat")),
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1_024),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64),
            fds_max: field(&text("/proc/self/limits"), "Max open files"),
            threads: field(&status, "Threads:"),
        }
    }
}

/// The first number behind a name.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time: the 14th and 15th field, counted from behind the name of the program, which may contain anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn figures_are_found_by_their_names() {
        assert_eq!(field("VmPeak: 5 kB\nVmRSS:\t  120 kB\n", "VmRSS:"), Some(120));
        assert_eq!(
            field("Max open files   unlimited   unlimited", "Max open files"),
            None
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_them() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(figures.open_fds.is_some_and(|fds| fds > 2) && figures.cpu_seconds.is_some());
    }
}
