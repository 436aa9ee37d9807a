//! What a connection costs that is authenticated, subscribed and idle: the server's memory at several numbers of them.

use std::time::Duration;

use crate::process;
use crate::report::{Better, Figures, Machine, Outcome, Unit, Verdict, micros};
use crate::scenario::{Scenario, Shape};
use crate::session::{Place, Session};

/// No connection costs less than this, in bytes: its socket alone has a number and an entry in some table.
const SLOPE_BELIEVED_MIN: f64 = 64.0;

/// Opens connections and reads the server's memory.
///
/// # Errors
/// If it could not be run; in words for people.
pub(crate) fn run(scenario: &Scenario, name: &str, server: &str, place: &Place) -> Result<Outcome, String> {
    let Shape::Idle {
        ref connections,
        in_flight,
        rest_seconds,
        ..
    } = scenario.shape
    else {
        return Err(format!("{name} is not about idle connections"));
    };
    let mut session = Session::open(scenario, place)?;
    let pid = session
        .server
        .ok_or("the server's process is not known: name it with --pid")?;
    let read = || process::read(pid).map_err(|e| format!("process {pid}: {e}"));
    let mut figures = Figures::default();
    let before = read()?;
    figures.put(
        "private_at_0",
        before.private_bytes as f64,
        Unit::Bytes,
        Better::Lower,
    );
    let mut readings = Vec::new();
    let mut notes = Vec::new();
    let mut from = 0;
    for &goal in connections {
        let dialled = session.connect(from..goal, in_flight)?;
        from = goal;
        // Pings of the server are not answered meanwhile; its patience is longer than a sensible rest.
        std::thread::sleep(Duration::from_secs_f64(rest_seconds.clamp(0.0, 60.0)));
        let reading = read()?;
        let at = |what: &str| format!("{what}_at_{goal}");
        figures.put(
            &at("private"),
            reading.private_bytes as f64,
            Unit::Bytes,
            Better::Lower,
        );
        figures.put(
            &at("resident"),
            reading.resident_bytes as f64,
            Unit::Bytes,
            Better::Lower,
        );
        figures.count(&at("descriptors"), reading.descriptors);
        let opened = dialled.took_ns as f64 / crate::clock::SECOND_NS as f64;
        figures.put(&at("opened_in"), opened, Unit::Seconds, Better::Lower);
        figures.put(
            &at("ready_p99"),
            micros(dialled.ready.value_at_quantile(0.99)),
            Unit::Micros,
            Better::Lower,
        );
        readings.push((goal, reading.private_bytes));
    }
    // What the first thousand need is partly the server's waking up; the slope beyond is the connection's own.
    if let (Some(&(first, least)), Some(&(last, most))) = (readings.first(), readings.last())
        && last > first
    {
        let slope = (most as f64 - least as f64) / f64::from(last - first);
        figures.put("bytes_a_connection", slope, Unit::Bytes, Better::Lower);
        if slope < SLOPE_BELIEVED_MIN {
            notes.push("the server had memory left from earlier connections: start it afresh".to_owned());
        }
    }
    let tally = session.tally();
    figures.handshakes("", &tally.handshakes);
    let ended = tally.disconnected;
    Ok(Outcome {
        server: server.to_owned(),
        scenario: serde_json::to_value(scenario).unwrap_or_default(),
        name: name.to_owned(),
        about: scenario.about.clone(),
        machine: Machine::here(),
        tls: session.tls(),
        verdict: if ended == 0 {
            Verdict::Sound
        } else {
            Verdict::NotWhole(format!("{ended} connections ended"))
        },
        metrics: figures.0,
        notes,
        series: Vec::new(),
        curve: Vec::new(),
        bars: Vec::new(),
    })
}
