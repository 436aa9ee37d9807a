//! The steady scenarios: connect all, load for a window, judge.
//!
//! - `collector` gathers what the threads tell while they run; `measured` is what a window found
//! - `account` counts, from the ledgers; `strain` says whether the generator was the bottleneck

mod account;
mod collector;
mod measured;
mod strain;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

pub(crate) use self::account::Account;
use self::collector::Collector;
pub(crate) use self::measured::{About, Measured};
use crate::clock::SECOND_NS;
use crate::engine::{self, Dialled, Guest, LoadPlan, Pace, Window};
use crate::process;
use crate::report::Outcome;
use crate::scenario::{Load, Scenario, Shape};
use crate::session::{Place, Session, seconds_ns};

/// Connections that are being opened at a time.
pub(crate) const IN_FLIGHT: u32 = 64;
/// From the last answer to the first message, so that all threads have begun, in nanoseconds.
const LEAD_NS: u64 = 50_000_000;

/// Runs one steady scenario. `name` is the scenario's, `server` what is loaded.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn run(scenario: &Scenario, name: &str, server: &str, place: &Place) -> Result<Outcome, String> {
    let mut session = Session::open(scenario, place)?;
    let dialled = session.connect(0..u32::MAX, IN_FLIGHT)?;
    let window = plan(&session, &scenario.load);
    let measured = load(&mut session, scenario, window, place, None)?;
    Ok(told(
        &session,
        scenario,
        [name, server],
        place,
        measured,
        &dialled,
    ))
}

/// The same with a guest on the thread that measures, which is fetched when the measurement's begin and end are known.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn run_hosting<G: Guest>(
    scenario: &Scenario,
    name: &str,
    server: &str,
    place: &Place,
    fetch: impl FnOnce(Instant, Instant) -> Result<G, String>,
) -> Result<(Outcome, G), String> {
    let mut session = Session::open(scenario, place)?;
    let dialled = session.connect(0..u32::MAX, IN_FLIGHT)?;
    let window = plan(&session, &scenario.load);
    let (here, now) = (session.world.clock.now_ns(), Instant::now());
    let at = |ns: u64| now + Duration::from_nanos(ns.saturating_sub(here));
    let mut guest = fetch(at(window.from_ns), at(window.until_ns))?;
    let measured = load(&mut session, scenario, window, place, Some(&mut guest))?;
    let outcome = told(&session, scenario, [name, server], place, measured, &dialled);
    Ok((outcome, guest))
}

fn told(
    session: &Session,
    scenario: &Scenario,
    [name, server]: [&str; 2],
    place: &Place,
    measured: Measured,
    dialled: &Dialled,
) -> Outcome {
    let about = About {
        scenario,
        name,
        server,
        positions: place.dialect.has_positions(),
        ready: &dialled.ready,
    };
    let mut outcome = measured.outcome(about, &Account::of(session));
    outcome.tls = session.tls();
    outcome
}

/// One window of load over connections that are open, as the scenario's load says.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn window(session: &mut Session, scenario: &Scenario, place: &Place) -> Result<Measured, String> {
    let window = plan(session, &scenario.load);
    load(session, scenario, window, place, None)
}

/// A window that begins soon.
fn plan(session: &Session, load: &Load) -> Window {
    let first_ns = session.world.clock.now_ns() + LEAD_NS;
    let from_ns = first_ns + seconds_ns(load.warmup_seconds);
    let until_ns = from_ns + seconds_ns(load.seconds);
    Window {
        first_ns,
        from_ns,
        until_ns,
        drained_ns: until_ns + seconds_ns(load.drain_seconds),
    }
}

fn load(
    session: &mut Session,
    scenario: &Scenario,
    window: Window,
    place: &Place,
    guest: Option<&mut dyn Guest>,
) -> Result<Measured, String> {
    let clock = session.world.clock;
    let load = &scenario.load;
    let pace = match (load.rate, load.outstanding) {
        (Some(messages_per_second), _) => Pace::Open {
            messages_per_second,
            burst: load.burst,
        },
        (None, outstanding) => Pace::Closed {
            outstanding: outstanding.unwrap_or(1),
        },
    };
    let between_ns = match pace {
        Pace::Open {
            messages_per_second,
            burst,
        } => {
            let a_second = messages_per_second / f64::from(load.threads) / f64::from(burst);
            (SECOND_NS as f64 / a_second) as u64
        }
        // The next message is due when another has come: nothing is polled for.
        Pace::Closed { .. } => u64::MAX,
    };
    let plan = LoadPlan {
        window,
        pace,
        churn_per_second: match scenario.shape {
            Shape::Soak { churn_per_second, .. } => churn_per_second,
            _ => 0.0,
        },
        spin_ns: place.spin_ns(between_ns),
    };
    let (rows, collected) = channel();
    let mut collector = Collector::new(session.server, window, load.threads, place.is_live());
    let shards = &mut session.shards;
    let (loaded, collector) = std::thread::scope(|scope| {
        let collecting = scope.spawn(move || {
            process::give_way();
            collector.collect(&collected, clock);
            collector
        });
        (engine::load(shards, plan, rows, guest), collecting.join())
    });
    let loaded = loaded.map_err(|e| e.to_string())?;
    let collector = collector.map_err(|_| "the thread that collects panicked".to_owned())?;
    Ok(collector.finish(pace, loaded))
}
