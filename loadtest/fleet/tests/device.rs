//! Devices under virtual time: every test lets a device live minutes or hours and looks at what it said.

use cauce_fleet::{
    Cadence, Device, Door, Ending, Fault, FaultPlan, FrameKind, Mode, Model, Output, Setup, Stamp, Timestamp,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

const START: Timestamp = Timestamp::from_seconds(1_783_004_880);

/// A device with its server: connects when it can, keeps what the server would know.
struct Bench {
    device: Device,
    now: Timestamp,
    linked: bool,
    lines: Vec<Line>,
    /// What a server knows, merged from the frames.
    known: Value,
    endings: Vec<(Timestamp, Ending)>,
}

#[derive(Clone, Debug)]
struct Line {
    at: Timestamp,
    kind: Option<FrameKind>,
    text: String,
    frame: Value,
    /// Whether it changed what the server knew, apart from its `ts`.
    changed: bool,
}

impl Bench {
    fn new(model: &str, index: u32, setup: Setup) -> Self {
        let setup = Arc::new(Setup {
            started_at: START,
            ..setup
        });
        let model = Model::load(model).expect("in the catalogue");
        let device = Device::new(model, setup, index, START);
        Self {
            device,
            now: START,
            linked: false,
            lines: Vec::new(),
            known: json!({}),
            endings: Vec::new(),
        }
    }

    fn natural(model: &str, index: u32) -> Self {
        Self::new(
            model,
            index,
            Setup {
                seed: 7,
                ..Setup::default()
            },
        )
    }

    /// Lets the device live until `until`, waking exactly when it asks to.
    fn run_until(&mut self, until: Timestamp) {
        let mut out = Vec::new();
        loop {
            if self.device.is_awake() && !self.linked {
                self.linked = true;
                self.device.connected(self.now, &mut out);
                self.take(&mut out);
            }
            let next = self.device.next_wakeup();
            if next > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            self.device.poll(self.now, &mut out);
            assert!(
                self.device.next_wakeup() > self.now,
                "a poll leaves nothing due, or its driver would spin"
            );
            self.take(&mut out);
        }
    }

    fn run_for(&mut self, seconds: u64) {
        self.run_until(self.now.plus(Duration::from_secs(seconds)));
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        let request = json!({"id": 5, "src": "test", "method": method, "params": params});
        self.exchange(&request).expect("an answer")
    }

    fn exchange(&mut self, request: &Value) -> Option<Value> {
        let (mut out, before) = (Vec::new(), self.lines.len());
        self.device.handle_frame(self.now, &request.to_string(), &mut out);
        self.take(&mut out);
        self.lines[before..]
            .iter()
            .find(|line| line.kind.is_none())
            .map(|line| line.frame.clone())
    }

    fn take(&mut self, out: &mut Vec<Output>) {
        for output in out.drain(..) {
            let (kind, text) = match output {
                Output::Reply(text) => (None, text),
                Output::Notify(notification) => {
                    assert!(self.linked, "a frame without a connection");
                    (Some(notification.kind()), notification.to_json("ws"))
                }
                Output::Close(ending) => {
                    assert!(self.linked, "a close without a connection");
                    self.linked = false;
                    self.device.disconnected();
                    self.endings.push((self.now, ending));
                    continue;
                }
                Output::Slow { .. } => continue,
            };
            let frame: Value = serde_json::from_str(&text).expect("every frame is JSON");
            assert_eq!(frame["src"], self.device.id().as_str());
            let before = self.known.clone();
            let mut params = frame["params"].clone();
            if let Value::Object(params) = &mut params {
                params.remove("ts");
            }
            match kind {
                Some(FrameKind::Full) => self.known = params,
                Some(FrameKind::Greeting | FrameKind::Status | FrameKind::Repeat) => {
                    merge(&mut self.known, &params);
                }
                _ => {}
            }
            let changed = before != self.known;
            self.lines.push(Line {
                at: self.now,
                kind,
                text,
                frame,
                changed,
            });
        }
    }

    fn of_kind(&self, kind: FrameKind) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.kind == Some(kind))
    }
}

/// A server's merge, written from the protocol alone: objects merge, null removes, everything else replaces.
fn merge(known: &mut Value, delta: &Value) {
    match (known, delta) {
        (Value::Object(known), Value::Object(delta)) => {
            for (key, change) in delta {
                if change.is_null() {
                    known.remove(key);
                } else {
                    merge(known.entry(key.clone()).or_insert(Value::Null), change);
                }
            }
        }
        (known, delta) => *known = delta.clone(),
    }
}

fn empty() -> Map<String, Value> {
    Map::new()
}

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
fn every_model_lives_an_hour_without_a_frame_that_breaks_a_rule() {
    for name in Model::names() {
        for index in 0..4 {
            let mut bench = Bench::natural(name, index);
            bench.run_for(3600);
            assert!(
                !bench.lines.is_empty() || !bench.device.is_awake() || index > 0,
                "{name} said nothing"
            );
            for line in &bench.lines {
                assert_eq!(line.frame["dst"], "ws");
                assert!(line.frame["params"]["ts"].is_number());
                assert!(line.text.len() < 7000);
                if line.kind == Some(FrameKind::Status) {
                    assert!(line.changed, "{name}: no change in {}", line.text);
                }
            }
        }
    }
}

#[test]
fn same_seed_same_bytes() {
    let run = |seed| {
        let faults = "drop=1,reboot=0.5,half-open=0.2,ble=2,repeat=2,reset=0.2,slow=1,herd@90s"
            .parse()
            .expect("a plan");
        let setup = Setup {
            seed,
            faults,
            stamp: Stamp::EmissionTime,
            ..Setup::default()
        };
        let mut bench = Bench::new("pstripg4", 11, setup);
        bench.run_for(1800);
        bench.call("Switch.Set", json!({"id": 2, "on": true, "toggle_after": 5}));
        bench.run_for(600);
        bench
            .lines
            .iter()
            .map(|line| line.text.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    };
    let first = run(5);
    assert!(
        first.len() > 50_000,
        "too quiet to compare: {} bytes",
        first.len()
    );
    assert_eq!(first, run(5));
    assert_ne!(first, run(6));
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
fn terse_devices_leave_out_dst_and_ts() {
    let setup = Setup {
        faults: "terse=1".parse().expect("a plan"),
        ..Setup::default()
    };
    let mut bench = Bench::new("plugsg3", 1, setup);
    bench.run_for(120);
    for line in bench
        .of_kind(FrameKind::Status)
        .chain(bench.of_kind(FrameKind::Full))
    {
        assert!(line.frame.get("dst").is_none() && line.frame["params"].get("ts").is_none());
    }
}

#[test]
fn a_herd_drops_everyone_at_its_moment_once() {
    for index in 0..10 {
        let setup = Setup {
            faults: "herd@30s".parse().expect("a plan"),
            ..Setup::default()
        };
        let mut bench = Bench::new("plugsg3", index, setup);
        bench.run_for(120);
        assert_eq!(
            bench.endings,
            [(START.plus(Duration::from_secs(30)), Ending::Drop)]
        );
        assert_eq!(bench.of_kind(FrameKind::Full).count(), 2);
    }
}

#[test]
fn faults_strike_at_their_rate() {
    let mut drops = 0;
    for index in 0..50 {
        let setup = Setup {
            faults: FaultPlan::default().with(Fault::Drop, 2.0),
            ..Setup::default()
        };
        let mut bench = Bench::new("plugsg3", index, setup);
        bench.run_for(600);
        drops += bench.endings.len();
    }
    // 50 devices, ten minutes, two a minute.
    assert!((900..1100).contains(&drops), "{drops} drops");
}

#[test]
fn half_open_devices_vanish_and_half_of_them_reboot() {
    let (mut vanished, mut rebooted) = (0, 0);
    for index in 0..20 {
        let setup = Setup {
            faults: FaultPlan::default().with(Fault::HalfOpen, 0.5),
            ..Setup::default()
        };
        let mut bench = Bench::new("plugsg3", index, setup);
        bench.run_for(600);
        assert!(bench.endings.iter().all(|(_, ending)| *ending == Ending::Vanish));
        vanished += bench.endings.len();
        let fresh = |line: &&Line| line.frame["params"]["ts"].as_f64().is_some_and(|ts| ts < 30.0);
        rebooted += bench.of_kind(FrameKind::Full).skip(1).filter(fresh).count();
    }
    assert!(
        vanished > 40 && rebooted * 4 > vanished && rebooted < vanished,
        "{rebooted} of {vanished}"
    );
}

#[test]
fn scan_events_weigh_about_two_kilobytes() {
    let setup = Setup {
        faults: FaultPlan::default().with(Fault::Ble, 10.0),
        ..Setup::default()
    };
    let mut bench = Bench::new("plugsg3", 1, setup);
    bench.run_for(120);
    let events: Vec<_> = bench.of_kind(FrameKind::Event).collect();
    assert!(events.len() > 10);
    for event in events {
        assert!(
            (2000..2700).contains(&event.text.len()),
            "{} bytes",
            event.text.len()
        );
        assert_eq!(event.frame["params"]["events"][0]["event"], "ble.scan_result");
    }
}

#[test]
fn repeats_are_counted_apart_because_they_change_nothing() {
    let setup = Setup {
        faults: FaultPlan::default().with(Fault::Repeat, 6.0),
        ..Setup::default()
    };
    let mut bench = Bench::new("plugsg3", 1, setup);
    bench.run_for(600);
    assert!(bench.of_kind(FrameKind::Repeat).count() > 20);
    assert!(bench.of_kind(FrameKind::Repeat).all(|line| !line.changed));
    assert!(bench.of_kind(FrameKind::Status).all(|line| line.changed));
}

#[test]
fn ids_keep_their_type_and_dst_needs_a_src() {
    let mut bench = Bench::natural("plugsg3", 1);
    bench.run_for(1);
    for id in [json!(7), json!("7"), json!(1.5), json!(-1), json!("")] {
        let reply = bench
            .exchange(&json!({"id": id, "method": "Ws.GetStatus"}))
            .expect("an answer");
        assert_eq!(reply["id"], id);
        assert!(reply.get("dst").is_none());
        let reply = bench
            .exchange(&json!({"id": id, "src": "me", "method": "ws.getstatus", "jsonrpc": "2.0"}))
            .expect("an answer");
        assert_eq!(
            (&reply["id"], &reply["dst"], &reply["result"]),
            (&id, &json!("me"), &json!({"connected": true}))
        );
    }
}

#[test]
fn what_is_no_call_gets_no_answer() {
    let mut bench = Bench::natural("plugsg3", 1);
    bench.run_for(1);
    let before = bench.lines.len();
    let mut out = Vec::new();
    for text in [
        "",
        "nonsense",
        "[]",
        "17",
        r#"{"id":1}"#,
        r#"{"method":"Shelly.GetStatus"}"#,
        r#"{"id":null,"method":"x"}"#,
        r#"{"id":1,"result":{}}"#,
    ] {
        bench.device.handle_frame(bench.now, text, &mut out);
    }
    bench.take(&mut out);
    assert_eq!(bench.lines.len(), before);
}

#[test]
fn errors_have_the_codes_of_the_firmware() {
    let mut bench = Bench::natural("plugsg3", 1);
    bench.run_for(1);
    for (method, params, code) in [
        ("Switch.Set", json!({"on": true}), -103),
        ("Switch.Set", json!({"id": 0}), -103),
        ("Switch.Set", json!({"id": 0, "on": "yes"}), -103),
        ("Switch.Set", json!({"id": "0", "on": true}), -103),
        (
            "Switch.Set",
            json!({"id": 0, "on": true, "toggle_after": -1}),
            -103,
        ),
        ("Switch.Set", json!({"id": 1, "on": true}), -105),
        ("Switch.GetStatus", json!({"id": 4}), -105),
        ("Switch.GetStatus", json!({}), -103),
        ("Cover.Close", json!({"id": 0}), 404),
        ("EM.GetStatus", json!({"id": 0}), 404),
        ("Nonsense", json!({}), 404),
        ("Ws.SetConfig", json!({}), -103),
        ("Ws.SetConfig", json!({"config": 1}), -103),
        (
            "Ws.SetConfig",
            json!({"config": {"server": "x".repeat(20_000)}}),
            -108,
        ),
        (
            "Switch.ResetCounters",
            json!({"id": 0, "type": ["nonsense"]}),
            -103,
        ),
        ("Shelly.Reboot", json!({"delay_ms": -1}), -103),
    ] {
        let answer = bench.call(method, params.clone());
        assert_eq!(answer["error"]["code"], code, "{method} {params}");
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
        assert!(answer.get("result").is_none());
    }
    assert_eq!(
        bench.call("EM.GetStatus", json!({}))["error"]["message"],
        "No handler for EM.GetStatus"
    );
    assert_eq!(
        bench.call("Switch.GetStatus", json!({"id": 1}))["error"]["message"],
        "Argument 'id', value 1 not found!"
    );
}

#[test]
fn a_configuration_change_is_told_as_event_and_as_revision() {
    let mut bench = Bench::natural("plugsg3", 1);
    bench.run_for(1);
    let before = bench.known["sys"]["cfg_rev"].as_u64().expect("a revision");
    let answer = bench.call(
        "Ws.SetConfig",
        json!({"config": {"enable": false, "server": "wss://elsewhere/"}}),
    );
    assert_eq!(answer["result"], json!({"restart_required": true}));
    let event = bench.of_kind(FrameKind::Event).last().expect("an event");
    assert_eq!(event.frame["params"]["events"][0]["event"], "config_changed");
    assert_eq!(bench.known["sys"]["cfg_rev"], json!(before + 1));
    assert_eq!(
        bench.call("Ws.GetConfig", json!({}))["result"]["server"],
        "wss://elsewhere/"
    );
    assert_eq!(
        bench.call("Shelly.GetConfig", json!({}))["result"]["sys"]["cfg_rev"],
        json!(before + 1)
    );
}

#[test]
fn components_come_in_pages() {
    let mut bench = Bench::natural("blugwg3", 1);
    bench.run_for(1);
    let mut seen = 0;
    loop {
        let page = bench.call(
            "Shelly.GetComponents",
            json!({"dynamic_only": true, "offset": seen}),
        )["result"]
            .clone();
        assert_eq!((&page["total"], &page["offset"]), (&json!(27), &json!(seen)));
        let components = page["components"].as_array().expect("a list").len();
        assert!(components <= 5);
        seen += components;
        if components == 0 {
            break;
        }
    }
    assert_eq!(seen, 27);
    let all = bench.call("Shelly.GetComponents", json!({"include": ["status"]}));
    assert!(all["result"]["total"].as_u64().is_some_and(|total| total > 27));
    assert!(all["result"]["components"][0].get("config").is_none());
}

#[test]
fn identity_is_consistent_across_answers() {
    for name in Model::names() {
        let mut bench = Bench::new(
            name,
            9,
            Setup {
                mode: Mode::Lan,
                ..Setup::default()
            },
        );
        bench.linked = true;
        let (id, mac) = (bench.device.id().to_string(), bench.device.mac().to_upper_hex());
        let model = Model::load(name).expect("in the catalogue");
        let mut out = Vec::new();
        let mut ask = |method| {
            bench
                .device
                .call(START, method, &empty(), Door::LanWebSocket, &mut out)
                .expect("an answer")
        };
        let (info, status, config) = (
            ask("Shelly.GetDeviceInfo"),
            ask("Shelly.GetStatus"),
            ask("Shelly.GetConfig"),
        );
        assert_eq!((&info["id"], &info["mac"]), (&json!(id), &json!(mac)), "{name}");
        assert_eq!(status["sys"]["mac"], json!(mac), "{name}");
        for text in [info.to_string(), status.to_string(), config.to_string()] {
            assert!(
                !text.to_uppercase().contains(&model.captured_mac_hex()),
                "{name} still names its original"
            );
        }
    }
}

#[test]
fn methods_listed_are_methods_answered() {
    let mut bench = Bench::natural("pstripg4", 1);
    bench.run_for(1);
    let methods = bench.call("Shelly.ListMethods", json!({}))["result"]["methods"].clone();
    for method in methods.as_array().expect("a list") {
        let method = method.as_str().expect("a name");
        if method == "Shelly.Reboot" {
            continue;
        }
        let answer = bench.call(method, json!({"id": 0, "on": true, "config": {}}));
        assert!(answer.get("result").is_some(), "{method}: {answer}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the seed, model and faults: valid frames with `src` (the bench asserts them), a status is a
    /// change, the greeting comes first on each connection.
    #[test]
    fn any_device_under_any_faults_keeps_the_rules(
        seed: u64,
        index in 0u32..5000,
        model in prop::sample::select(Model::names().collect::<Vec<_>>()),
        rates in prop::array::uniform7(0.0f64..3.0),
        calls in prop::collection::vec((any::<bool>(), 0u64..3, prop::option::of(1u32..20)), 0..12),
    ) {
        let faults = Fault::ALL.into_iter().zip(rates).fold(FaultPlan::default(), |plan, (fault, rate)| plan.with(fault, rate));
        let mut bench = Bench::new(model, index, Setup { seed, faults, ..Setup::default() });
        for (on, id, toggle_after) in calls {
            bench.run_for(40);
            if bench.linked {
                bench.call("Switch.Set", json!({"id": id, "on": on, "toggle_after": toggle_after}));
            }
        }
        bench.run_for(300);
        for line in bench.of_kind(FrameKind::Status) {
            prop_assert!(line.changed, "{}", line.text);
        }
    }

    /// No text from the server makes a device panic, and what it answers is JSON.
    #[test]
    fn no_frame_from_the_server_breaks_a_device(text in "\\PC{0,120}", method in "[A-Za-z0-9]{0,8}\\.?[A-Za-z]{0,12}", id in -3i64..3) {
        let mut bench = Bench::natural("pstripg4", 1);
        bench.run_for(1);
        let mut out = Vec::new();
        bench.device.handle_frame(bench.now, &text, &mut out);
        let request = json!({"id": id, "method": method, "params": {"id": id, "on": id, "config": {"a": id}, "offset": id}});
        bench.device.handle_frame(bench.now, &request.to_string(), &mut out);
        bench.take(&mut out);
    }
}
