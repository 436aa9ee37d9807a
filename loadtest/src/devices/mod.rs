//! Emulated plugs beside measured rooms: what they cost the clients, how fast their word reaches who watches them, and whether
//! the store keeps up.
//!
//! - `plugs` drives the fleet's devices and `watch` reads their updates; as a `crew` they are a guest of the thread that drives the rooms;
//!   `way` is how they come to the broker
//! - `broker` makes the plugs' token and reads what the broker counts
//! - `figures` is what comes out
//!
//! Not a process beside it: one clock stamps a frame and reads the update. And no thread beside the one that measures: on one core, two
//! make each other late by milliseconds.
//!
//! What must stay true: plugs are due by their own schedule from before the rooms are connected until after the last message of
//! the rooms has come, so that the measurement has nothing but their steady state in it. Each frame is accounted for at each
//! watcher by its plug's own number.

mod broker;
mod crew;
mod figures;
mod plugs;
mod watch;
mod way;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use cauce_fleet::{FleetClock, Timestamp};

pub(crate) use broker::Api;
use broker::{Broker, Counts};
use crew::Crew;
use plugs::{Plan, Plugs};
use watch::{Seat, Watchers};
use way::Way;

use crate::report::Outcome;
use crate::scenario::{Scenario, Shape, Watch};
use crate::session::{Place, descriptors};
use crate::steady;

/// From the last plug's connect to its first update at who watches it.
const GREETINGS: Duration = Duration::from_secs(15);
/// For the store to write what waits when the plugs have fallen silent.
const STORE_PATIENCE: Duration = Duration::from_secs(60);
/// For the store to write one batch while the plugs speak: some times `store.flush_age`.
const BATCH_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at the store.
const LOOK: Duration = Duration::from_millis(20);
/// Different reasons that are kept in words; more are counted under one name.
const REASONS_MAX: usize = 16;

/// What the threads are to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Plugs speak by their schedule, served by a thread of their own.
    Load = 0,
    /// The same, served by the thread that measures the rooms.
    Hosted = 1,
    /// They stay connected and say nothing more; what is under way arrives.
    Quiet = 2,
    Over = 3,
}

/// What the threads know of each other.
#[derive(Debug)]
struct Shared {
    /// Stamps frames, and reads when their updates come.
    clock: FleetClock,
    /// The measurement, in microseconds of the clock; never until it is known.
    from_us: AtomicU64,
    until_us: AtomicU64,
    phase: AtomicU8,
    /// First updates of plugs, each counted for each watcher.
    greeted: AtomicU64,
}

impl Shared {
    fn new() -> Self {
        Self {
            clock: FleetClock::start(),
            from_us: AtomicU64::new(u64::MAX),
            until_us: AtomicU64::new(u64::MAX),
            phase: AtomicU8::new(Phase::Load as u8),
            greeted: AtomicU64::new(0),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Load,
            1 => Phase::Hosted,
            2 => Phase::Quiet,
            _ => Phase::Over,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn measure(&self, from: Instant, until: Instant) {
        let (here, now) = (self.clock.now(), Instant::now());
        let at = |moment: Instant| here.plus(moment.saturating_duration_since(now)).as_micros();
        self.until_us.store(at(until), Ordering::Relaxed);
        self.from_us.store(at(from), Ordering::Relaxed);
    }

    /// Whether what is due then belongs to the measurement.
    fn measures(&self, due: Timestamp) -> bool {
        let due = due.as_micros();
        due >= self.from_us.load(Ordering::Relaxed) && due < self.until_us.load(Ordering::Relaxed)
    }

    fn greeted(&self) {
        self.greeted.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until every plug has been heard by who watches it.
    fn wait_for_greetings(&self, expected: u64) -> Result<(), String> {
        let until = Instant::now() + GREETINGS;
        loop {
            let heard = self.greeted.load(Ordering::Relaxed);
            if heard >= expected {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!(
                    "of {expected} first updates of plugs {heard} came: the API key and --key must speak for the same tenant \
                     (--tenant), and limits.devices_per_tenant must allow so many"
                ));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Ends the threads when the run does, however it does.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.enter(Phase::Over);
    }
}

/// Counts a reason; beyond the bound, under one name.
fn note(reasons: &mut BTreeMap<String, u64>, reason: String) {
    let reason = if reasons.len() < REASONS_MAX || reasons.contains_key(&reason) {
        reason
    } else {
        "other reasons".to_owned()
    };
    *reasons.entry(reason).or_default() += 1;
}

/// The broker's counts at four moments.
#[derive(Clone, Copy, Debug)]
struct Looks {
    /// Before the first plug connected.
    before: Counts,
    /// All plugs speak, and the rooms are about to connect.
    loaded: Counts,
    /// The rooms are done, and the plugs still speak.
    still_loaded: Counts,
    /// Between these two.
    seconds: f64,
    /// The plugs are silent, and nothing waits for the database any more.
    after: Counts,
    /// From the silence to there; None if it took too long.
    drained_seconds: Option<f64>,
}

/// Runs the rooms with the plugs beside them.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn run(scenario: &Scenario, name: &str, server: &str, place: &Place) -> Result<Outcome, String> {
    let Shape::Devices {
        rooms,
        members,
        plugs,
        frames_per_second,
        watchers,
        watch,
        ref models,
        seed,
        ramp_seconds,
    } = scenario.shape
    else {
        return Err(format!("{name} has no devices"));
    };
    descriptors(u64::from(rooms) * u64::from(members) + u64::from(plugs) + u64::from(watchers))?;
    place.settle(place.server())?;
    let broker = Broker::new(&place.api, place.door()?, place.signing.tenant())?;
    let token = broker.device_token()?;
    let shared = Arc::new(Shared::new());
    let way = Way {
        target: place.target,
        tls: place.tls.dialer(place.target)?,
    };
    let plan = Plan {
        plugs,
        frames_per_second,
        models: models.clone(),
        seed,
        ramp: Duration::from_secs_f64(ramp_seconds),
        way: way.clone(),
    };
    let fleet = Plugs::new(plan, Arc::clone(&shared))?;
    let names: Vec<String> = fleet.names().collect();
    let seats = seats(watch, watchers, &names, |index| {
        place.signing.watchers_token(index)
    });
    let expected: u64 = seats.iter().map(|seat| seat.plugs.len() as u64).sum();
    let audience = Watchers::join(&way, seats, &names, Arc::clone(&shared))?;
    let before = broker.counts()?;
    let patience = Duration::from_secs_f64(scenario.load.drain_seconds);
    let mut crew = Crew::new(fleet, audience, Arc::clone(&shared)).map_err(|e| e.to_string())?;
    let ended = |_| "the thread of the plugs panicked".to_owned();
    std::thread::scope(|scope| {
        let _ending = Ending(&shared);
        let (connected, all_connected) = channel();
        let secret = token.text.as_str();
        let serving = scope.spawn(move || {
            let outcome = crew.connect(secret);
            let ready = outcome.is_ok();
            // Who listens has given up only if the whole run has.
            let _ = connected.send(outcome);
            if ready {
                crew.serve();
            }
            crew
        });
        all_connected
            .recv()
            .map_err(|_| "the thread of the plugs panicked")??;
        shared.wait_for_greetings(expected)?;
        if !place.quiet {
            eprintln!("{plugs} plugs are connected and heard");
        }
        let (since, loaded) = after_a_batch(&broker)?;
        let (outcome, crew) = steady::run_hosting(scenario, name, server, place, |from, until| {
            shared.measure(from, until);
            shared.enter(Phase::Hosted);
            serving.join().map_err(ended)
        })?;
        let (done, all_heard) = channel();
        let finishing = scope.spawn(move || crew.finish(patience, &done));
        let (until, still_loaded) = after_a_batch(&broker)?;
        let seconds = until.duration_since(since).as_secs_f64();
        shared.enter(Phase::Quiet);
        let (drained_seconds, after) = drained(&broker)?;
        all_heard.recv().map_err(|_| "the thread of the plugs panicked")?;
        shared.enter(Phase::Over);
        let (sent, heard) = finishing.join().map_err(ended)?;
        let looks = Looks {
            before,
            loaded,
            still_loaded,
            seconds,
            after,
            drained_seconds,
        };
        Ok(figures::put(outcome, scenario, &sent, &heard, &looks))
    })
}

/// A look at a moment at which the store has just written a batch, so that between two of them lie whole batches; or any look, if it
/// writes none in time.
fn after_a_batch(broker: &Broker) -> Result<(Instant, Counts), String> {
    let since = Instant::now();
    let first = broker.counts()?;
    let mut last = first;
    loop {
        std::thread::sleep(LOOK);
        let (now, counts) = (Instant::now(), broker.counts()?);
        let written = counts.flushes > first.flushes && counts.flushes == last.flushes;
        if written || since.elapsed() > BATCH_PATIENCE {
            return Ok((now, counts));
        }
        last = counts;
    }
}

/// Waits until nothing waits for the database.
fn drained(broker: &Broker) -> Result<(Option<f64>, Counts), String> {
    let since = Instant::now();
    loop {
        let counts = broker.counts()?;
        let elapsed = since.elapsed();
        if counts.pending == 0.0 {
            return Ok((Some(elapsed.as_secs_f64()), counts));
        }
        if elapsed > STORE_PATIENCE {
            return Ok((None, counts));
        }
        std::thread::sleep(LOOK);
    }
}

/// Who watches which plugs, and in which rooms.
fn seats(watch: Watch, watchers: u32, names: &[String], token: impl Fn(u32) -> String) -> Vec<Seat> {
    let plugs = names.len() as u32;
    let seat = |index: u32| {
        let (rooms, plugs) = match watch {
            Watch::All => (vec!["$devices".to_owned()], (0..plugs).collect()),
            Watch::Each => {
                let mine: Vec<u32> = (index..plugs).step_by(watchers as usize).collect();
                let rooms = mine
                    .iter()
                    .map(|&plug| format!("$device:{}", names[plug as usize]));
                (rooms.collect(), mine)
            }
        };
        Seat {
            token: token(index),
            rooms,
            plugs,
        }
    };
    (0..watchers)
        .map(seat)
        .filter(|seat| !seat.plugs.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plug_is_watched_by_all_or_by_one() {
        let names = ["A", "B", "C"].map(str::to_owned);
        let plugs = |watch, watchers| -> Vec<Vec<u32>> {
            let seats = seats(watch, watchers, &names, |_| String::new());
            seats.into_iter().map(|seat| seat.plugs).collect()
        };
        assert_eq!(plugs(Watch::All, 2), [[0, 1, 2], [0, 1, 2]]);
        assert_eq!(plugs(Watch::Each, 2), [vec![0, 2], vec![1]]);
        assert_eq!(plugs(Watch::Each, 5).len(), 3, "nobody watches nothing");
        let seats = seats(Watch::Each, 1, &names, |index| index.to_string());
        assert_eq!(seats[0].rooms, ["$device:A", "$device:B", "$device:C"]);
    }

    #[test]
    fn what_is_due_before_or_after_the_measurement_is_not_measured() {
        let shared = Shared::new();
        let now = shared.clock.now();
        assert!(!shared.measures(now), "nothing is, until it is known");
        let (from, until) = (Duration::from_secs(1), Duration::from_secs(3));
        shared.measure(Instant::now() + from, Instant::now() + until);
        let at = |seconds: u64| shared.measures(now.plus(Duration::from_secs(seconds)));
        assert_eq!([0, 2, 4].map(at), [false, true, false]);
    }
}
