//! The storm: all connect at once; then all lose their connections, miss messages, come back and catch up.

use std::time::Duration;

use cauce_protocol::wire as proto;

use crate::clock::SECOND_NS;
use crate::engine::{self, Shard};
use crate::process;
use crate::report::{Better, Figures, Machine, Outcome, Unit, Verdict, bars, curve};
use crate::scenario::{Scenario, Shape};
use crate::session::{Place, Session};
use crate::stamp::NO_SLOT;
use crate::steady::Account;
use crate::wire;

/// Messages that are published before the server is asked whether it has taken them.
const BITE: usize = 50;
/// For the server to take a bite, or to bring what was missed.
const PATIENCE_NS: u64 = 30 * SECOND_NS;
/// For the server to notice that everyone has gone.
const REST: Duration = Duration::from_millis(500);

/// Runs the storm.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn run(scenario: &Scenario, name: &str, server: &str, place: &Place) -> Result<Outcome, String> {
    let Shape::Storm {
        connections,
        in_flight,
        missed,
        ..
    } = scenario.shape
    else {
        return Err(format!("{name} is no storm"));
    };
    let mut session = Session::open(scenario, place)?;
    // The one who publishes what the others miss is the last seat, and must not be part of the storm.
    let cpu = |session: &Session| session.server.and_then(|pid| process::cpu_seconds(pid).ok());
    let cpu_before = cpu(&session);
    let dialled = engine::dial(&mut session.shards, 0..connections, in_flight).map_err(|e| e.to_string())?;
    let cpu_after = cpu(&session);
    let mut figures = Figures::default();
    let took = dialled.took_ns as f64 / SECOND_NS as f64;
    figures.put(
        "connects_per_second",
        f64::from(connections) / took,
        Unit::PerSecond,
        Better::Higher,
    );
    figures.put("connected_in", took, Unit::Seconds, Better::Lower);
    figures.percentiles("ready_", &dialled.ready);
    figures.fault("failed", dialled.failed);
    if let (Some(before), Some(after)) = (cpu_before, cpu_after) {
        let each = (after - before) * 1e6 / f64::from(connections);
        figures.put("server_cpu_per_connect", each, Unit::Micros, Better::Lower);
    }
    let mut faults = Vec::new();
    if dialled.failed > 0 {
        faults.push(format!("{} connections failed", dialled.failed));
    } else if missed > 0 {
        recover(
            &mut session,
            connections,
            in_flight,
            missed,
            &mut figures,
            &mut faults,
        )?;
    }
    let tally = session.tally();
    figures.handshakes("", &tally.handshakes);
    Ok(Outcome {
        server: server.to_owned(),
        scenario: serde_json::to_value(scenario).unwrap_or_default(),
        name: name.to_owned(),
        about: scenario.about.clone(),
        machine: Machine::here(),
        tls: session.tls(),
        verdict: if faults.is_empty() {
            Verdict::Sound
        } else {
            Verdict::NotWhole(faults.join(", "))
        },
        metrics: figures.0,
        notes: tally
            .reasons
            .iter()
            .map(|(why, n)| format!("{n} × {why}"))
            .collect(),
        series: Vec::new(),
        curve: curve(&dialled.ready),
        bars: bars(&dialled.ready),
    })
}

/// Cuts all connections, publishes what they miss, lets them come back, and waits until they have it.
fn recover(
    session: &mut Session,
    connections: u32,
    in_flight: u32,
    missed: u32,
    figures: &mut Figures,
    faults: &mut Vec<String>,
) -> Result<(), String> {
    for shard in &mut session.shards {
        shard.cut();
    }
    std::thread::sleep(REST);
    let words = |e: std::io::Error| e.to_string();
    let publisher = engine::dial(&mut session.shards, connections..connections + 1, 1).map_err(words)?;
    if publisher.failed > 0 {
        return Err("the one who publishes what the others miss was refused".to_owned());
    }
    for shard in &mut session.shards {
        publish(shard, missed)?;
    }
    let began = session.world.clock.now_ns();
    let dialled = engine::dial(&mut session.shards, 0..connections, in_flight).map_err(words)?;
    let caught_up = std::thread::scope(|scope| {
        let threads: Vec<_> = session
            .shards
            .iter_mut()
            .map(|shard| {
                scope.spawn(move || {
                    let expected = shard.subscriptions() * u64::from(missed);
                    shard.pump(PATIENCE_NS, |shard| shard.tally.received >= expected)
                })
            })
            .collect();
        threads
            .into_iter()
            .all(|thread| matches!(thread.join(), Ok(Ok(true))))
    });
    let took = (session.world.clock.now_ns() - began) as f64 / SECOND_NS as f64;
    let account = Account::of(session);
    figures.put("recovered_in", took, Unit::Seconds, Better::Lower);
    let each = f64::from(connections) / (dialled.took_ns as f64 / SECOND_NS as f64);
    figures.put("reconnects_per_second", each, Unit::PerSecond, Better::Higher);
    figures.percentiles("reconnect_", &dialled.ready);
    figures.count("recovered_messages", account.tally.received);
    figures.count("continued", account.tally.recovered.continued);
    figures.fault("partial", account.tally.recovered.partial);
    figures.fault("reset", account.tally.recovered.reset);
    figures.fault("lost", account.lost);
    figures.fault("duplicates", account.doubles);
    figures.fault("reordered", account.late);
    if dialled.failed > 0 {
        faults.push(format!("{} connections failed to come back", dialled.failed));
    }
    faults.extend(account.faults());
    if !caught_up && faults.is_empty() {
        faults.push("not everything came in time".to_owned());
    }
    Ok(())
}

/// Publishes so many messages to each of the shard's rooms, and waits until the server has taken them.
fn publish(shard: &mut Shard, missed: u32) -> Result<(), String> {
    let places = shard.publishers.len();
    let mut messages = (0..missed).flat_map(|_| 0..places).peekable();
    let ping = wire::request(3, proto::client_frame::Request::Ping(proto::Ping {}));
    while messages.peek().is_some() {
        for place in messages.by_ref().take(BITE) {
            let now = shard.world.clock.now_ns();
            shard.publish(place, now, NO_SLOT);
        }
        let seat = shard.publishers[0].seat;
        shard.queue(seat, &ping);
        shard.flush();
        let pongs = shard.pongs;
        let answered = shard
            .pump(PATIENCE_NS, |shard| shard.pongs > pongs)
            .map_err(|e| e.to_string())?;
        if !answered {
            let reasons: Vec<_> = shard.tally.reasons.keys().cloned().collect();
            return Err(format!("the server takes no publishes: {}", reasons.join("; ")));
        }
    }
    Ok(())
}
