//! What a process costs: CPU by its clock, memory and descriptors from `/proc`; and which process listens on a port.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use cauce_threads::{Priority, run_as_usual};
use nix::time::clock_getcpuclockid;
use rustix::thread::{CpuSet, Pid, sched_setaffinity};

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    /// User and system time of all its threads so far.
    pub(crate) cpu_seconds: f64,
    /// Memory that is its own: what the machine would get back if it ended.
    pub(crate) private_bytes: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) descriptors: u64,
}

/// # Errors
/// If there is no such process, or it is another user's.
pub(crate) fn read(pid: u32) -> io::Result<Reading> {
    let memory = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Reading {
        cpu_seconds: cpu_seconds(pid)?,
        private_bytes: kib(&memory, "Private_Clean:") + kib(&memory, "Private_Dirty:"),
        resident_bytes: kib(&memory, "Rss:"),
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
    })
}

/// User and system time of a process so far, by its own clock: `/proc` counts in hundredths of a second, user and system time each,
/// and a short run is off by several percent there.
///
/// # Errors
/// If there is no such process.
pub(crate) fn cpu_seconds(pid: u32) -> io::Result<f64> {
    // A clock's number is made of the process's, shifted left: of one above any that a system gives out, our own would remain.
    const PID_MAX: i32 = 1 << 22;
    let pid = i32::try_from(pid).ok().filter(|pid| (1..=PID_MAX).contains(pid));
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let spent = clock_getcpuclockid(nix::unistd::Pid::from_raw(pid))?.now()?;
    Ok(std::time::Duration::from(spent).as_secs_f64())
}

/// Time of all cores since the machine started, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cores {
    /// In processes; interrupts are left out, because they are ours as much as others'.
    pub(crate) processes: f64,
    /// Wanted, and given to another machine by the hypervisor.
    pub(crate) stolen: f64,
}

/// What the whole machine has done so far.
pub(crate) fn cores() -> Option<Cores> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let (processes, stolen) = core_ticks(&std::fs::read_to_string("/proc/stat").ok()?)?;
    Some(Cores {
        processes: processes as f64 / ticks,
        stolen: stolen as f64 / ticks,
    })
}

/// Ticks in processes (user, nice, system) and stolen ones.
fn core_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
    Some((ticks.get(..3)?.iter().sum(), ticks.get(7).copied().unwrap_or(0)))
}

/// Resident memory, from where it costs the process nothing to tell.
///
/// # Errors
/// If there is no such process.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = pages
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    Ok(pages.unwrap_or(0) * rustix::param::page_size() as u64)
}

/// How many cores a process can use at once: those it may run on, or fewer where it has fewer threads.
pub(crate) fn cores_usable(pid: u32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let allowed = field("Cpus_allowed_list:")?
        .split(',')
        .map(|range| match range.split_once('-') {
            Some((from, to)) => Some(to.parse::<usize>().ok()? + 1 - from.parse::<usize>().ok()?),
            None => Some(1),
        });
    let allowed = allowed.sum::<Option<usize>>()?;
    Some(allowed.min(field("Threads:")?.parse().ok()?).max(1))
}

/// The process that listens at this address on this machine, if we may see it.
pub(crate) fn listening(address: SocketAddr) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let mut inodes = tables
        .iter()
        .flatten()
        .filter_map(|table| listener(table, address.port()));
    let wanted = PathBuf::from(format!("socket:[{}]", inodes.next()?));
    let processes = std::fs::read_dir("/proc").ok()?;
    let mut pids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors.is_ok_and(|mut list| {
            list.any(|fd| fd.is_ok_and(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == wanted)))
        })
    })
}

/// Lets this thread, and those that it starts from now on, run as soon as they have something to do.
///
/// # Errors
/// If the system refuses the priority, in words for people. Where it only has no slices to give, lateness shows what comes of it.
pub(crate) fn run_soon(priority: Priority) -> Result<(), String> {
    match cauce_threads::run_soon(priority) {
        Err(error) if priority != Priority::NORMAL => Err(format!("--priority {priority}: {error}")),
        _ => Ok(()),
    }
}

/// How far below the measuring threads those run that only disturb.
const BELOW: i32 = 10;

/// Lets the threads that measure go before this one and those that it starts, where they share a core: a disturbance is to burden
/// the server, not the generator. Where the system forbids it, lateness shows it.
pub(crate) fn give_way() {
    // A thread that has just begun inherits what its starter asked for.
    let _ = run_as_usual();
    let _ = rustix::process::setpriority_process(None, BELOW);
}

/// Pins all threads of a process (ourselves if None) to these cores. Threads that it starts later inherit it.
///
/// # Errors
/// If the process is not ours, or a core does not exist.
pub(crate) fn pin(pid: Option<u32>, cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        if core >= CpuSet::MAX_CPU {
            return Err(io::Error::other(format!("there is no core {core}")));
        }
        set.set(core);
    }
    let Some(pid) = pid else {
        return Ok(sched_setaffinity(None, &set)?);
    };
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = task?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(thread) = thread.and_then(Pid::from_raw) {
            sched_setaffinity(Some(thread), &set)?;
        }
    }
    Ok(())
}

/// The inode of the socket that listens on `port`, in a table of `/proc/net`.
fn listener(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        let matches = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTEN;
        matches.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_that_of_all_threads_and_finer_than_a_tick() {
        let us = std::process::id();
        let before = cpu_seconds(us).unwrap();
        // It has ended when it is counted.
        std::thread::spawn(|| {
            let mut worked = 0_u64;
            while cpu_seconds(std::process::id()).unwrap() < 0.05 {
                worked += 1;
            }
            worked
        })
        .join()
        .unwrap();
        let after = cpu_seconds(us).unwrap();
        assert!(after >= 0.05 && after > before, "{before} {after}");
        let ticks = after * rustix::param::clock_ticks_per_second() as f64;
        let again = cpu_seconds(us).unwrap() * rustix::param::clock_ticks_per_second() as f64;
        assert!(ticks.fract() != 0.0 || again.fract() != 0.0);
    }

    #[test]
    fn a_process_that_is_not_there_has_no_time() {
        for nobody in [0, 1 << 22, (1 << 22) + 1, 1 << 30, u32::MAX] {
            assert!(cpu_seconds(nobody).is_err(), "{nobody}");
        }
    }

    #[test]
    fn the_machines_time_is_that_of_processes_and_what_was_stolen() {
        let stat = "cpu  100 20 30 4000 5 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(core_ticks(stat), Some((150, 8)));
        assert_eq!(core_ticks("cpu 1"), None);
        assert!(cores().unwrap().processes > 0.0);
    }

    #[test]
    fn a_listener_is_found_by_its_port_and_state() {
        let table = "  sl  local_address rem_address st ...\n\
            0: 0100007F:1E14 0100007F:9999 01 0:0 0:0 0 0 0 5 1\n\
            1: 0100007F:1E14 00000000:0000 0A 0:0 0:0 0 0 0 77 1\n";
        assert_eq!(listener(table, 7700), Some(77));
        assert_eq!(listener(table, 7701), None);
    }

    #[test]
    fn our_own_listener_is_us() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(
            listening(listener.local_addr().unwrap()),
            Some(std::process::id())
        );
        let us = read(std::process::id()).unwrap();
        assert!(us.private_bytes > 0 && us.resident_bytes >= us.private_bytes && us.descriptors > 2);
    }
}
