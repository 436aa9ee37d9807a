//! What every scenario needs before its first message: where to, as whom, from which cores, and which process to watch.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cauce_threads::Priority;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::beside::Beside;
use crate::clock::{Clock, SECOND_NS};
use crate::devices::Api;
use crate::dialect::Dialect;
use crate::engine::{self, Shard, World};
use crate::process;
use crate::report;
use crate::scenario::Scenario;
use crate::tls;
use crate::token::Signing;
use crate::topology::Topology;

/// How long before a due message a pinned generator wakes and begins to poll, in nanoseconds: what waking up costs on a small virtual machine ...
const SPIN_PINNED_NS: u64 = 100_000;
/// ... but no larger part of the time between its messages: who always polls has always had his due of the core, and waits when others want it.
const SPIN_PART: u64 = 4;
/// Descriptors beside the connections.
const DESCRIPTORS_SPARE: u64 = 64;

/// Where the load goes, and from where.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// Where the broker listens.
    #[arg(long, default_value = "127.0.0.1:7700")]
    pub(crate) target: SocketAddr,
    /// Whose protocol the server speaks.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) dialect: Dialect,
    /// Where it speaks WebSocket, with the query if it needs one; else where servers of its kind usually do.
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub(crate) path: Option<String>,
    #[command(flatten)]
    pub(crate) tls: tls::Options,
    #[command(flatten)]
    pub(crate) signing: Signing,
    #[command(flatten)]
    pub(crate) api: Api,
    /// The server's process on this machine; found by its port unless given.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Cores of the server and of the generator, as in 0:1 or 0,1:2,3.
    #[arg(long, value_name = "SERVER:GENERATOR", value_parser = Pins::parse)]
    pub(crate) pin: Option<Pins>,
    /// How far above the machine's other work the generator, bare servers and brokers that are started for the run go, 0 to 20. Above
    /// 0, root or CAP_SYS_NICE.
    #[arg(long, default_value = "0", value_parser = priority)]
    pub(crate) priority: Priority,
    /// Wake so many microseconds before the next message is due, and poll until then; with --pin 100, or a quarter of the time between a thread's
    /// messages if that is less, else 0.
    #[arg(long)]
    pub(crate) spin_us: Option<u64>,
    /// No progress on the terminal.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Cores of the two sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pins {
    pub(crate) server: Vec<usize>,
    pub(crate) generator: Vec<usize>,
}

impl Pins {
    fn parse(text: &str) -> Result<Self, String> {
        let cores = |list: &str| -> Option<Vec<usize>> {
            list.split(',').map(|core| core.trim().parse().ok()).collect()
        };
        let (server, generator) = text.split_once(':').ok_or("write it as 0:1")?;
        match (cores(server), cores(generator)) {
            (Some(server), Some(generator)) => Ok(Self { server, generator }),
            _ => Err("cores are numbers, as in 0:1 or 0,1:2,3".to_owned()),
        }
    }
}

pub(crate) fn priority(text: &str) -> Result<Priority, String> {
    let above = text.parse().ok().and_then(Priority::new);
    above.ok_or_else(|| format!("0, as everything, to {}", Priority::MAX))
}

impl Place {
    /// Whether somebody watches: a file or a pipe gets no line that is written over and over.
    pub(crate) fn is_live(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// How long a thread polls before a message, if so many lie between two of them on average; in nanoseconds.
    pub(crate) fn spin_ns(&self, between_ns: u64) -> u64 {
        match (self.spin_us, &self.pin) {
            (Some(asked), _) => asked.saturating_mul(1_000),
            (None, Some(_)) => SPIN_PINNED_NS.min(between_ns / SPIN_PART),
            (None, None) => 0,
        }
    }

    /// The server's process, if it is on this machine and we may see it.
    pub(crate) fn server(&self) -> Option<u32> {
        let local = self.target.ip().is_loopback() || self.target.ip().is_unspecified();
        self.pid
            .or_else(|| local.then(|| process::listening(self.target)).flatten())
    }

    /// Puts the server, and this thread with those that it starts from now on, on their cores, and lets the latter go
    /// before others: who measures must not wait for those who compute.
    ///
    /// # Errors
    /// If the kernel refuses, or the server's process is not known; in words for people.
    pub(crate) fn settle(&self, server: Option<u32>) -> Result<(), String> {
        process::run_soon(self.priority)?;
        let Some(pins) = &self.pin else {
            return Ok(());
        };
        let pid = server.ok_or("--pin: the server's process is not known; name it with --pid")?;
        process::pin(Some(pid), &pins.server).map_err(|e| format!("--pin: the server: {e}"))?;
        process::pin(None, &pins.generator).map_err(|e| format!("--pin: the generator: {e}"))
    }

    /// The same towards another server, which speaks our own protocol.
    pub(crate) fn elsewhere(&self, target: SocketAddr, pid: u32) -> Self {
        Self {
            target,
            dialect: Dialect::Cauce,
            path: None,
            pid: Some(pid),
            ..self.clone()
        }
    }

    /// The same towards the bare server.
    pub(crate) fn beside(&self, beside: &Beside) -> Self {
        Self {
            tls: self.tls.instead(beside.certificate.clone()),
            ..self.elsewhere(beside.address, beside.pid())
        }
    }
}

/// A scenario that is ready to connect.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) world: Arc<World>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) server: Option<u32>,
}

impl Session {
    /// # Errors
    /// If the machine does not give what is needed; in words for people.
    pub(crate) fn open(scenario: &Scenario, place: &Place) -> Result<Self, String> {
        Self::with(Topology::new(&scenario.shape), scenario, place)
    }

    /// With seats of its own instead of the scenario's.
    ///
    /// # Errors
    /// If the machine does not give what is needed; in words for people.
    pub(crate) fn with(topology: Topology, scenario: &Scenario, place: &Place) -> Result<Self, String> {
        let seats = topology.seats.len() as u32;
        descriptors(u64::from(seats))?;
        let server = place.server();
        place.settle(server)?;
        let tls = place.tls.dialer(place.target)?;
        if let Some(dialer) = &tls {
            dialer.try_out(place.target)?;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let run = format!("{:x}-{:x}", now.as_millis(), std::process::id());
        let rooms = 0..topology.rooms.len() as u32;
        let world = Arc::new(World {
            names: rooms.map(|room| place.dialect.room_name(&run, room)).collect(),
            topology,
            target: place.target,
            dialect: place.dialect,
            path: place.path.clone(),
            tls,
            tokens: (0..seats).map(|seat| place.signing.token(seat)).collect(),
            run,
            form: scenario.load.payload,
            payload_bytes: scenario.load.payload_bytes,
            clock: Clock::start(),
            threads: scenario.load.threads,
        });
        let shards = engine::shards(&world).map_err(|e| e.to_string())?;
        Ok(Self {
            world,
            shards,
            server,
        })
    }

    /// Connects these seats, and fails unless all succeed.
    ///
    /// # Errors
    /// If one was refused; in words for people.
    pub(crate) fn connect(&mut self, seats: Range<u32>, in_flight: u32) -> Result<engine::Dialled, String> {
        let dialled = engine::dial(&mut self.shards, seats, in_flight).map_err(|e| e.to_string())?;
        if dialled.failed == 0 {
            return Ok(dialled);
        }
        let tally = self.tally();
        let reasons: Vec<_> = tally
            .reasons
            .iter()
            .map(|(why, n)| format!("{n} × {why}"))
            .collect();
        Err(format!(
            "{} of {} connections failed: {}",
            dialled.failed,
            self.world.topology.seats.len(),
            reasons.join("; ")
        ))
    }

    /// How the connections have been secured so far.
    pub(crate) fn tls(&self) -> Option<report::Tls> {
        let dialer = self.world.tls.as_ref()?;
        let handshakes = self.tally().handshakes;
        let agreed = handshakes.most()?;
        let total = handshakes.total();
        Some(report::Tls {
            version: agreed.version.to_owned(),
            cipher: agreed.cipher.clone(),
            key_exchange: agreed.group.clone(),
            full: total.full,
            resumed: total.resumed,
            verified: dialer.is_verified,
        })
    }

    pub(crate) fn tally(&self) -> engine::Tally {
        let mut tally = engine::Tally::default();
        for shard in &self.shards {
            tally.add(&shard.tally);
        }
        tally
    }
}

/// A path that can stand in a request.
fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err("write it as /ws or /ws?a=b".to_owned())
}

/// Seconds as the run's nanoseconds.
pub(crate) fn seconds_ns(seconds: f64) -> u64 {
    (seconds * SECOND_NS as f64) as u64
}

/// Asks for as many descriptors as the connections need, beside those that are open.
///
/// # Errors
/// If the machine does not give them; in words for people.
pub(crate) fn descriptors(connections: u64) -> Result<(), String> {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    let wanted = open + connections + DESCRIPTORS_SPARE;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        return Err(format!(
            "{wanted} descriptors are needed, and the limit is {}: raise it with ulimit -Hn",
            limit.maximum.unwrap_or(0)
        ));
    }
    limit.current = Some(wanted);
    setrlimit(Resource::Nofile, limit).map_err(|e| format!("{wanted} descriptors: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_parsed_or_refused_in_words() {
        let pins = Pins::parse("0,1:2").unwrap();
        assert_eq!((pins.server, pins.generator), (vec![0, 1], vec![2]));
        assert!(Pins::parse("0").is_err());
        assert!(Pins::parse("a:b").is_err());
    }

    #[test]
    fn a_path_that_would_break_the_request_is_refused() {
        assert_eq!(path("/ws?a=b").unwrap(), "/ws?a=b");
        for bad in ["", "ws", "/a b", "/a\r\nHost: other", "/ä"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
