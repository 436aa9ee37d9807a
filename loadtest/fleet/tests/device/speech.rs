//! What devices say by themselves, and when.

use crate::bench::{Bench, Line};
use cauce_fleet::{Cadence, FrameKind, Setup, Stamp};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use std::time::Duration;

#[test]
fn the_first_frame_is_one_full_status_addressed_to_ws() {
    let mut bench = Bench::natural("plugsg3", 3);
    bench.run_for(0);
    assert_eq!(bench.lines.len(), 1);
    let line = &bench.lines[0];
    assert_eq!(line.kind, Some(FrameKind::Full));
    assert!(line.text.starts_with(&format!(
        r#"{{"src":"{}","dst":"ws","method":"NotifyFullStatus","params":{{"#,
        bench.device.id()
    )));
    let params = &line.frame["params"];
    assert_eq!(params["ts"], json!(1_783_004_880));
    assert_eq!(params["ws"]["connected"], true);
    assert_eq!(params["sys"]["mac"], bench.device.mac().to_upper_hex());
    assert_eq!(params["sys"]["unixtime"], json!(1_783_004_880));
    assert!(
        params["switch:0"]["aenergy"]["by_minute"]
            .as_array()
            .is_some_and(|minutes| minutes.len() == 3)
    );
    // Real full statuses are between 642 and 2228 bytes.
    assert!(
        (600..2300).contains(&line.text.len()),
        "{} bytes",
        line.text.len()
    );
}

#[test]
fn a_metering_plug_speaks_at_least_once_a_minute() {
    for name in ["plugsg3", "plusplugs", "plusplugs-fw1.1", "pmminig3", "pstripg4"] {
        let mut bench = Bench::natural(name, 1);
        bench.run_for(1200);
        for pair in bench.lines.windows(2) {
            assert!(
                pair[1].at.since(pair[0].at) <= Duration::from_secs(62),
                "{name} was silent"
            );
        }
    }
}

#[test]
fn minute_reports_follow_the_full_minute_and_the_firmware() {
    let report = |name: &str| {
        let mut bench = Bench::natural(name, 1);
        bench.run_for(600);
        let line = bench
            .of_kind(FrameKind::Status)
            .find(|line| line.text.contains("by_minute"))
            .expect("a report")
            .clone();
        assert!(
            line.at.as_seconds() % 60 <= 1,
            "spread over the first second and a half"
        );
        let params = line.frame["params"].as_object().expect("an object").clone();
        params
            .into_iter()
            .find(|(key, _)| key.contains(':'))
            .expect("a component")
            .1
    };
    let (new, old) = (report("plugsg3"), report("plusplugs-fw1.1"));
    for field in ["apower", "voltage", "current", "freq", "ret_aenergy"] {
        assert!(new.get(field).is_some() && old.get(field).is_none(), "{field}");
    }
    assert!(new.get("id").is_none(), "firmware 1.7 dropped the inner id");
    assert_eq!(old["id"], 0);
    assert_eq!(new["aenergy"]["minute_ts"].as_u64().map(|ts| ts % 60), Some(0));
    assert_eq!(old["aenergy"]["minute_ts"].as_u64().map(|ts| ts % 60), Some(59));
}

#[test]
fn minute_reports_of_a_fleet_do_not_come_at_one_moment() {
    let mut moments: Vec<u64> = (0..40)
        .map(|index| {
            let mut bench = Bench::natural("plugsg3", index);
            bench.run_for(300);
            let reports = bench
                .of_kind(FrameKind::Status)
                .filter(|line| line.text.contains("by_minute"));
            reports
                .map(|line| line.at.as_micros() % 60_000_000)
                .next()
                .expect("a report")
        })
        .collect();
    moments.sort_unstable();
    moments.dedup();
    assert!(moments.len() > 30, "{} different moments of 40", moments.len());
}

#[test]
fn switching_reports_output_and_source_and_zero_power() {
    let mut bench = Bench::natural("plugsg3", 2);
    bench.run_for(5);
    bench.call("switch.SET", json!({"id": 0, "on": true}));
    let before = bench.lines.len();
    assert_eq!(
        bench.call("Switch.Set", json!({"id": 0, "on": false}))["result"],
        json!({"was_on": true})
    );
    let delta = bench.lines[before..]
        .iter()
        .find(|line| line.kind == Some(FrameKind::Status))
        .expect("a delta");
    assert_eq!(
        delta.frame["params"]["switch:0"],
        json!({"output": false, "source": "WS_out", "apower": 0, "current": 0})
    );
    // Nothing to do: an answer, and no frame that says nothing.
    let before = bench.lines.len();
    assert_eq!(
        bench.call("Switch.Set", json!({"id": 0, "on": false}))["result"],
        json!({"was_on": false})
    );
    assert_eq!(bench.lines.len(), before + 1);
    assert_eq!(
        bench.call("Switch.Toggle", json!({"id": 0}))["result"],
        json!({"was_on": false})
    );
    assert_eq!(
        bench.call("Switch.GetStatus", json!({"id": 0}))["result"]["output"],
        true
    );
}

#[test]
fn old_firmware_at_times_never_says_that_power_is_zero() {
    let (mut told, mut withheld) = (0, 0);
    for index in 0..40 {
        let mut bench = Bench::natural("plusplugs-fw1.1", index);
        bench.run_for(2);
        bench.call("Switch.Set", json!({"id": 0, "on": true}));
        bench.run_for(200);
        if !bench.known["switch:0"]["apower"]
            .as_f64()
            .is_some_and(|watts| watts > 1.0)
        {
            continue;
        }
        bench.call("Switch.Set", json!({"id": 0, "on": false}));
        bench.run_for(9);
        if bench.known["switch:0"]["apower"] == json!(0) {
            told += 1;
        } else {
            withheld += 1;
        }
    }
    assert!(told > 3 && withheld > 3, "told {told}, withheld {withheld}");
}

#[test]
fn a_timer_shows_its_start_and_duration_then_nulls() {
    let mut bench = Bench::natural("plugsg3", 2);
    bench.run_for(1);
    bench.call("Switch.Set", json!({"id": 0, "on": false}));
    let at = bench.now;
    bench.call("Switch.Set", json!({"id": 0, "on": true, "toggle_after": 2.5}));
    let known = bench.known["switch:0"].clone();
    assert_eq!(
        (&known["output"], &known["timer_duration"]),
        (&json!(true), &json!(2.5))
    );
    assert!(
        known["timer_started_at"]
            .as_f64()
            .is_some_and(|ts| (ts - at.as_micros() as f64 / 1e6).abs() < 0.02)
    );
    bench.run_until(at.plus(Duration::from_millis(2499)));
    assert_eq!(bench.known["switch:0"]["output"], true);
    bench.run_until(at.plus(Duration::from_millis(2600)));
    let last = bench
        .of_kind(FrameKind::Status)
        .find(|line| line.text.contains("timer_duration\":null"))
        .expect("nulls");
    assert_eq!(last.frame["params"]["switch:0"]["timer_started_at"], Value::Null);
    assert_eq!(last.frame["params"]["switch:0"]["source"], "timer");
    assert_eq!(bench.known["switch:0"]["output"], false);
    assert!(bench.known["switch:0"].get("timer_duration").is_none());
}

#[test]
fn wall_displays_speak_partially_first() {
    let mut full_followed = 0;
    for index in 0..20 {
        let mut bench = Bench::natural("walldisplay", index);
        bench.run_for(1);
        assert_eq!(bench.lines[0].kind, Some(FrameKind::Greeting));
        full_followed += bench.of_kind(FrameKind::Full).count();
    }
    assert!((1..20).contains(&full_followed));
}

#[test]
fn energy_never_falls_but_by_reset_and_a_reset_is_reported() {
    for name in ["plugsg3", "outdoorsg3", "pmminig3"] {
        let mut bench = Bench::natural(name, 5);
        bench.run_for(7200);
        let key = if name == "pmminig3" { "pm1:0" } else { "switch:0" };
        let totals = |bench: &Bench| -> Vec<f64> {
            let of = |line: &Line| line.frame["params"][key]["aenergy"]["total"].as_f64();
            bench.lines.iter().filter_map(of).collect()
        };
        assert!(totals(&bench).windows(2).all(|pair| pair[1] >= pair[0]), "{name}");
        let last = *totals(&bench).last().expect("totals");
        let method = if name == "pmminig3" {
            "PM1.ResetCounters"
        } else {
            "Switch.ResetCounters"
        };
        let answer = bench.call(method, json!({"id": 0, "type": ["aenergy"]}));
        assert!(
            answer["result"]["aenergy"]["total"]
                .as_f64()
                .is_some_and(|total| total >= last)
        );
        assert_eq!(bench.known[key]["aenergy"]["total"], json!(0));
    }
}

#[test]
fn a_third_of_outdoor_plugs_feed_back() {
    let mut negative = 0;
    for index in 0..30 {
        let mut bench = Bench::natural("outdoorsg3", index);
        bench.run_for(1);
        negative += usize::from(
            bench.known["switch:0"]["apower"]
                .as_f64()
                .is_some_and(|watts| watts < 0.0),
        );
    }
    assert!((3..20).contains(&negative), "{negative} of 30");
}

#[test]
fn a_field_is_now_an_integer_now_a_float() {
    let mut bench = Bench::natural("plugsg3", 5);
    bench.run_for(7200);
    let frequencies: Vec<_> = bench
        .lines
        .iter()
        .filter_map(|line| line.frame["params"]["switch:0"].get("freq"))
        .collect();
    assert!(frequencies.iter().any(|freq| freq.is_i64()) && frequencies.iter().any(|freq| freq.is_f64()));
}

#[test]
fn a_fixed_rate_is_kept_exactly_and_each_frame_is_a_change() {
    for name in ["plugsg3", "pstripg4", "plus1", "pmminig3"] {
        let setup = Setup {
            cadence: Cadence::Every(Duration::from_millis(100)),
            ..Setup::default()
        };
        let mut bench = Bench::new(name, 4, setup);
        bench.run_for(60);
        let status: Vec<_> = bench.of_kind(FrameKind::Status).collect();
        // A device that just booted adds the frame that sets its clock.
        assert!((599..=602).contains(&status.len()), "{name}: {}", status.len());
        assert!(status.iter().all(|line| line.changed));
        assert!(status.iter().all(|line| line.frame["params"]["ts"].is_number()));
    }
}

#[test]
fn devices_that_share_out_a_period_speak_each_in_its_own_part_of_it() {
    for index in 0..10u32 {
        let setup = Setup {
            cadence: Cadence::Every(Duration::from_millis(100)),
            spread_over: NonZeroU32::new(10),
            ..Setup::default()
        };
        let mut bench = Bench::new("plugsg3", index, setup);
        let start = bench.now;
        bench.run_for(5);
        let status: Vec<_> = bench.of_kind(FrameKind::Status).collect();
        let within = |line: &Line| line.at.since(start).as_micros() % 100_000;
        let part = u128::from(index) * 10_000..=u128::from(index + 1) * 10_000;
        let own = status.iter().filter(|line| part.contains(&within(line)));
        // One who just booted adds the frame that sets its clock, whenever that is.
        assert!(own.count() >= status.len() - 1 && status.len() >= 49, "{index}");
    }
}

#[test]
fn a_device_held_up_does_not_flood_afterwards() {
    let setup = Setup {
        cadence: Cadence::Every(Duration::from_millis(10)),
        ..Setup::default()
    };
    let mut bench = Bench::new("plugsg3", 1, setup);
    bench.run_for(1);
    let before = bench.lines.len();
    bench.now = bench.now.plus(Duration::from_secs(3600));
    let mut out = Vec::new();
    bench.device.poll(bench.now, &mut out);
    bench.take(&mut out);
    assert!(bench.lines.len() - before < 40);
    assert!(bench.device.next_wakeup() > bench.now);
}

#[test]
fn stamps_carry_the_moment_of_emission_only_when_asked() {
    let mut plain = Bench::natural("plugsg3", 1);
    plain.run_for(120);
    assert!(plain.lines.iter().all(|line| !line.text.contains("x_sent")));
    let setup = Setup {
        seed: 7,
        stamp: Stamp::EmissionTime,
        ..Setup::default()
    };
    let mut stamped = Bench::new("plugsg3", 1, setup);
    stamped.run_for(120);
    for line in &stamped.lines {
        let is_status = matches!(
            line.kind,
            Some(FrameKind::Full | FrameKind::Greeting | FrameKind::Status)
        );
        let stamp = line.frame["params"]["x_sent"]["us"].as_u64();
        assert_eq!(stamp, is_status.then(|| line.at.as_micros()));
    }
}

#[test]
fn a_frame_that_is_due_says_so_however_late_it_is_and_is_numbered() {
    let setup = Setup {
        seed: 7,
        stamp: Stamp::DueTime,
        cadence: Cadence::Every(Duration::from_millis(200)),
        ..Setup::default()
    };
    let mut bench = Bench::new("plugsg3", 1, setup);
    bench.run_for(2);
    // Held up for a second: five frames leave at once, each with its own moment.
    bench.now = bench.now.plus(Duration::from_secs(1));
    let (held_up, mut out) = (bench.now, Vec::new());
    bench.device.poll(bench.now, &mut out);
    bench.take(&mut out);
    let stamped: Vec<_> = bench
        .lines
        .iter()
        .filter(|line| line.frame["params"]["x_sent"].is_object())
        .map(|line| {
            let stamp = &line.frame["params"]["x_sent"];
            (line, stamp["us"].as_u64().unwrap(), stamp["n"].as_u64().unwrap())
        })
        .collect();
    assert!(stamped.len() >= 15, "{}", stamped.len());
    assert!(
        stamped.iter().map(|(.., n)| *n).eq(0..stamped.len() as u64),
        "the greeting is the first"
    );
    let ticks: Vec<_> = stamped.iter().skip(1).collect();
    assert!(ticks.windows(2).all(|pair| pair[1].1 - pair[0].1 == 200_000));
    let late: Vec<_> = ticks.iter().filter(|(line, ..)| line.at == held_up).collect();
    assert_eq!(late.len(), 5);
    assert!(late.iter().all(|(_, due, _)| *due <= held_up.as_micros()));
    assert!(held_up.as_micros() - late[0].1 > 700_000);
}
