//! Reboots and sleep.

use crate::bench::Bench;
use cauce_fleet::{Ending, FrameKind, Setup};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn a_reboot_refuses_calls_drops_the_link_and_comes_back_without_a_clock() {
    let mut bench = Bench::natural("plugsg3", 2);
    bench.run_for(10);
    assert_eq!(
        bench.call("Shelly.Reboot", json!({"delay_ms": 800}))["result"],
        Value::Null
    );
    bench.run_for(0);
    let refused = bench.call("Shelly.GetStatus", json!({}));
    assert_eq!(refused["error"]["code"], -109);
    assert_eq!(refused["error"]["message"], "shutting down in 800 ms");
    let before = bench.lines.len();
    bench.run_for(60);
    assert_eq!(
        bench
            .endings
            .iter()
            .map(|(_, ending)| *ending)
            .collect::<Vec<_>>(),
        [Ending::Drop]
    );
    let greeting = &bench.lines[before];
    assert_eq!(greeting.kind, Some(FrameKind::Full));
    let params = &greeting.frame["params"];
    assert!(
        params["ts"].as_f64().is_some_and(|ts| ts < 10.0),
        "seconds since boot"
    );
    assert_eq!(
        (&params["sys"]["time"], &params["sys"]["unixtime"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(params["sys"]["reset_reason"], 3);
    // Some seconds later the clock is set, and said so.
    let synced = bench.lines[before..]
        .iter()
        .find(|line| line.frame["params"]["sys"]["unixtime"].is_u64())
        .expect("a sync");
    assert!(synced.frame["params"]["ts"].as_f64().is_some_and(|ts| ts > 1e9));
    // No minute report before that: its minute would be a guess.
    assert!(
        bench.lines[before + 1..]
            .iter()
            .take_while(|line| line.at < synced.at)
            .all(|line| !line.text.contains("by_minute"))
    );
}

#[test]
fn a_sleeper_wakes_says_all_says_sleep_and_closes_with_bye() {
    let mut bench = Bench::natural("htg3", 2);
    bench.run_for(60);
    let kinds: Vec<_> = bench.lines.iter().filter_map(|line| line.kind).collect();
    assert_eq!(kinds.first(), Some(&FrameKind::Full));
    assert_eq!(kinds.last(), Some(&FrameKind::Event));
    let full = &bench.lines[0].frame["params"];
    assert!(full["ts"].as_f64().is_some_and(|ts| ts < 10.0));
    assert_eq!(full["sys"]["wakeup_period"], 7200);
    assert_eq!(
        full["sys"]["wakeup_reason"],
        json!({"boot": "deepsleep_wake", "cause": "periodic"})
    );
    let sleep = &bench.lines.last().expect("a frame").frame["params"]["events"][0];
    assert_eq!(
        (&sleep["component"], &sleep["event"]),
        (&json!("sys"), &json!("sleep"))
    );
    assert_eq!(bench.endings.len(), 1);
    assert_eq!(bench.endings[0].1, Ending::Bye);
    assert!(!bench.device.is_awake());
    bench.run_for(7200);
    assert_eq!(bench.endings.len(), 2);
    assert_eq!(bench.of_kind(FrameKind::Full).count(), 2);
}

#[test]
fn a_sleeper_answers_while_it_is_awake() {
    let setup = Setup {
        wakeup: Some(Duration::from_secs(30)),
        ..Setup::default()
    };
    let mut bench = Bench::new("htg3", 0, setup);
    while bench.lines.is_empty() {
        bench.run_for(1);
    }
    let reading = bench.call("Temperature.GetStatus", json!({"id": 0}));
    assert!(reading["result"]["tC"].is_number());
    assert_eq!(bench.lines[0].frame["params"]["sys"]["wakeup_period"], 30);
}
