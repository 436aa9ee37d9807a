//! Every captured frame and every captured status of a Gen2+ device, as recorded.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::fuzz::merge_patch;
use super::super::status::weigh;
use super::super::*;
use super::{FIRST, at, delta, json_of, state};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../loadtest/fleet/fixtures")
        .join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn lines(name: &str) -> Vec<String> {
    fs::read_to_string(folder(name))
        .unwrap()
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(str::to_owned)
        .collect()
}

/// The device that sent this frame, connected.
fn sender(text: &str) -> Device {
    let identity = Frame::parse(text.as_bytes()).unwrap().identity().unwrap();
    let mut device = Device::new(identity);
    device.connect(FIRST, at(0)).unwrap();
    device
}

/// A status as we keep it: nulls are absence, an empty array at component level an empty object.
fn kept(status: &Value) -> Value {
    fn without_nulls(value: &Value) -> Value {
        match value {
            Value::Object(members) => members
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect(),
            other => other.clone(),
        }
    }
    without_nulls(status)
}

/// Gen2+ snapshots: file, `Shelly.GetDeviceInfo`, `Shelly.GetStatus`.
fn snapshots() -> Vec<(PathBuf, Value, Value)> {
    let mut found = Vec::new();
    for path in files("snapshots/matterbridge")
        .into_iter()
        .chain(files("snapshots/aioshelly"))
    {
        let mut snapshot: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        if snapshot["shelly"]["gen"].as_u64() >= Some(2) {
            found.push((path, snapshot["shelly"].take(), snapshot["status"].take()));
        }
    }
    found
}

#[test]
fn every_captured_frame_is_read() {
    let mut frames = 0;
    for path in files("frames") {
        for line in fs::read_to_string(&path)
            .unwrap()
            .lines()
            .filter(|line| line.contains("\"src\""))
        {
            let outcome = sender(line).handle_frame(FIRST, at(0), line.as_bytes());
            assert_eq!(outcome.malformed, None, "{}", path.display());
            // The docs' answer answers nothing we asked; everything else is news.
            assert_eq!(
                outcome.counters.unmatched_replies == 1,
                line.contains("\"result\"")
            );
            assert_eq!(
                outcome.counters.unknown_methods + outcome.counters.refused_keys,
                0
            );
            assert!(outcome.changes.is_some());
            frames += 1;
        }
    }
    assert!(frames >= 13, "only {frames} frames found");
}

#[test]
fn the_outbound_session_of_a_plus_1pm_replays() {
    let frames = lines("frames/outbound_ws_plus1pm_2024.jsonl");
    let mut device = sender(&frames[0]);
    let outcomes: Vec<_> = frames
        .iter()
        .map(|frame| device.handle_frame(FIRST, at(0), frame.as_bytes()))
        .collect();
    assert_eq!(outcomes[0].counters.clock_bad, 1);
    assert_eq!(
        delta(&outcomes[1]),
        json!({ "switch:0": { "output": true, "source": "GATTS", "timer_duration": 86400, "timer_started_at": 1705084173.38 } })
    );
    assert_eq!(outcomes[1].changes.as_ref().unwrap().at.ts_ms, 1_705_084_173_380);
    // apower and current were 0 already, so only what really changed comes out.
    assert_eq!(
        delta(&outcomes[3]),
        json!({ "switch:0": { "output": false, "source": "loopback", "timer_duration": null, "timer_started_at": null } })
    );
    assert_eq!(
        state(&device)["switch:0"]["temperature"],
        json!({ "tC": 22.8, "tF": 73.05 })
    );
    assert_eq!(device.readings()[0].voltage_v, Some(119.1));
}

#[test]
fn the_waking_smoke_alarm_is_a_sleeper() {
    let frame = &lines("frames/outbound_ws_plussmoke_fullstatus_wakeup.json")[0];
    let mut device = sender(frame);
    device.handle_frame(FIRST, at(0), frame.as_bytes());
    device.disconnect(FIRST, at(1_000), LossReason::Closed);
    assert_eq!(
        (device.presence(), device.poll_timeout()),
        (Presence::Asleep, Some(1_000 + 216_000_000))
    );
}

#[test]
fn the_minute_report_without_inner_id_is_read() {
    let frame = &lines("frames/mqtt_plugpmg3_fw2beta.jsonl")[0];
    let outcome = sender(frame).handle_frame(FIRST, at(0), frame.as_bytes());
    let reading = &outcome.changes.as_ref().unwrap().readings[0];
    assert_eq!(
        (reading.channel.as_str(), reading.power_w, reading.energy_wh),
        ("pm1:0", Some(27.0), Some(1.0))
    );
    assert_eq!(
        outcome.counters.clock_bad, 1,
        "July 2026 lies ahead of these tests' clock"
    );
}

#[test]
fn captured_device_errors_keep_code_and_message() {
    for line in lines("frames/error_objects.jsonl") {
        let said: Value = serde_json::from_str(&line).unwrap();
        let text = format!(r#"{{"id":1,"src":"shellypro-aa","error":{line}}}"#);
        let Body::Response(response) = Frame::parse(text.as_bytes()).unwrap().body else {
            panic!("{text}")
        };
        let error = response.result.unwrap_err();
        assert_eq!(
            (Some(error.code), Some(error.message.as_str())),
            (said["code"].as_i64(), said["message"].as_str())
        );
        assert_ne!(error.kind(), DeviceErrorKind::Other);
    }
}

#[test]
fn captured_answers_are_read() {
    let parse = |name: &str| {
        let text = fs::read_to_string(folder("rpc").join(name)).unwrap();
        let Body::Response(response) = Frame::parse(text.as_bytes()).unwrap().body else {
            panic!("{name}")
        };
        response
    };
    let refused = parse("shellyplus2pm.Cover.Close_auth_failure.json");
    assert_eq!((refused.id, refused.result.unwrap_err().code), (Some(18), 401));
    let closed = parse("shellyplus2pm.Cover.Close_success.json");
    assert_eq!((closed.id, closed.result), (Some(19), Ok("null".into())));
    assert_eq!(
        json_of(&parse("shellyplugus.Shelly.GetConfig.json").result.unwrap())["sys"]["cfg_rev"],
        19
    );
}

#[test]
fn every_gen2_snapshot_is_merged_whole_and_a_second_time_changes_nothing() {
    let snapshots = snapshots();
    assert!(snapshots.len() >= 90, "only {} snapshots found", snapshots.len());
    for (path, info, status) in snapshots {
        let src = info["id"].as_str().unwrap();
        let frame =
            json!({ "src": src, "dst": "ws", "method": "NotifyFullStatus", "params": status }).to_string();
        let mut device = sender(&frame);
        let outcome = device.handle_frame(FIRST, at(0), frame.as_bytes());
        assert!(
            outcome.counters.is_empty(),
            "{}: {:?}",
            path.display(),
            outcome.counters
        );
        let known = state(&device);
        assert_eq!(known, kept(&status), "{}", path.display());
        assert_eq!(
            (device.state().nodes(), device.state().bytes()),
            weigh(device.components())
        );
        assert!(device.state().bytes() >= known.to_string().len());
        assert_eq!(
            device.identity().key().as_str(),
            info["mac"].as_str().unwrap().to_uppercase(),
            "{}",
            path.display()
        );
        assert!(
            device
                .handle_frame(FIRST, at(1), frame.as_bytes())
                .changes
                .is_none()
        );

        // From nothing to this status and back to nothing, a subscriber that applies the deltas sees the same.
        let mut mirror = json!({});
        merge_patch(&mut mirror, &delta(&outcome));
        assert_eq!(mirror, known);

        // What the device shows is what the components say, at least for plugs.
        for (key, component) in status
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| key.starts_with("switch:"))
        {
            let reading = device
                .readings()
                .into_iter()
                .find(|reading| reading.channel == *key)
                .unwrap();
            assert_eq!(reading.output, component["output"].as_bool());
            assert_eq!(reading.power_w, component["apower"].as_f64());
            assert_eq!(reading.temperature_c, component["temperature"]["tC"].as_f64());
        }
    }
}

#[test]
fn php_bodies_mean_the_same_as_the_devices_own() {
    let path = folder("snapshots/matterbridge/shellyplugsg3-8CBFEAA133F0.json");
    let snapshot: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let cloud = fs::read_to_string(folder("cloud/assembled/soc_plugsg3_full.json")).unwrap();
    let body = &serde_json::from_str::<Value>(&cloud).unwrap()["status"];
    let own = State::new(super::object(snapshot["status"].clone()));
    let theirs = State::new(super::object(body.clone()));
    for (key, component) in own.components() {
        assert_eq!(theirs.components().get(key), Some(component), "{key}");
    }
}
