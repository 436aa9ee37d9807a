//! How long a message takes within the process, from `Handle`'s publish to the subscriber's holding it.
//!
//! Open loop: message k is due at t₀ + k/rate whatever happened before, and its time counts from then. Publisher and subscriber
//! take turns on one thread; or each has a thread of its own, and the subscriber spins, or sleeps so that every message wakes it. What the
//! machine takes for the same without a broker stands beside.
//!
//! `cargo run --release -p cauce-benches --bin cauce-in-process -- --json`

mod measured;
mod one_thread;
mod pace;
mod two_threads;

use std::ops::RangeInclusive;
use std::process::ExitCode;

use cauce_broker::config::{LoadInputs, load};
use cauce_broker::{Persistence, Server, TenantHandle};
use cauce_protocol::Payload;
use clap::Parser;

use self::measured::Report;
use self::pace::Plan;
use self::two_threads::Waiting;

/// The room that is measured in.
const ROOM: &str = "bench:in-process";

/// What ends a measurement that the machine has no time for.
const CUT_OFF: &str = "the subscription was cut off: the subscriber did not run for so long that more waited than may; \
                       the machine is busy, or the rate too high";

/// How long the broker may take to stop.
const STOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures publish to receipt within the process.
#[derive(Debug, Parser)]
#[command(name = "cauce-in-process")]
struct Arguments {
    /// Messages a second.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Seconds of each setting that are measured.
    #[arg(long, default_value = "5", value_parser = measured_for)]
    seconds: f64,
    /// Seconds before, that are not.
    #[arg(long, default_value = "1", value_parser = warmed_up_for)]
    warm_up: f64,
    /// Bytes of payload.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=60_000))]
    payload: u32,
    /// One line of JSON for programs, in nanoseconds.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cauce-in-process: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let plan = Plan {
        rate: arguments.rate,
        warm_up: messages(arguments.warm_up, arguments.rate),
        measured: messages(arguments.seconds, arguments.rate).max(1),
    };
    // A program that embeds the broker and has no clients yet: nothing on disk, any free port.
    let inputs = LoadInputs {
        flags: vec!["listen=127.0.0.1:0".to_owned()],
        ..LoadInputs::default()
    };
    let server = Server::start(&load(inputs)?.config, Persistence::Memory)?;
    let tenant = server.handle().tenant("default")?;
    let payload = payload(arguments.payload as usize);
    let report = Report::new(
        arguments.rate,
        &one_thread::measure(&tenant, &payload, plan)?,
        &two_threads::measure(&tenant, &payload, plan, Waiting::Spinning)?,
        &two_threads::measure(&tenant, &payload, plan, Waiting::Asleep)?,
        &two_threads::bare_wake(plan)?,
        &two_threads::bare_look(plan)?,
    );
    server.stop(STOP_WITHIN);
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn measured_for(text: &str) -> Result<f64, String> {
    seconds(text, 0.001..=3_600.0)
}

fn warmed_up_for(text: &str) -> Result<f64, String> {
    seconds(text, 0.0..=60.0)
}

fn seconds(text: &str, within: RangeInclusive<f64>) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number is expected".to_owned())?;
    if !within.contains(&seconds) {
        return Err(format!(
            "{} to {} seconds are possible",
            within.start(),
            within.end()
        ));
    }
    Ok(seconds)
}

/// So many in this time, to the nearest.
fn messages(seconds: f64, rate: u32) -> u64 {
    (seconds * f64::from(rate)).round() as u64
}

/// A JSON string of so many bytes.
fn payload(bytes: usize) -> Payload {
    let text = format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)));
    Payload::Json(text.into_bytes().into())
}

fn publish(tenant: &TenantHandle, payload: &Payload) -> Result<(), Failure> {
    tenant.publish(ROOM, "message", payload.clone())?;
    Ok(())
}
