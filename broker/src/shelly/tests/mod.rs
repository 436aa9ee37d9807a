//! Tests of the Shelly core: no sockets, no sleeping, time as a number.

mod calls;
mod fixtures;
mod frames;
mod model;
mod presence;
mod readings;
mod status;
mod traps;
mod updates;

use serde_json::{Value, json};

use super::status::Object;
use super::{CallToken, Device, Identity, Outcome, Session};
use crate::clock::Now;

/// 2026-05-28, in milliseconds: where the wall clock stands at monotonic zero.
const UNIX_MS: u64 = 1_780_000_000_000;

const SRC: &str = "shellyplugsg3-8cbfeaa133f0";

const FIRST: Session = Session::new(1);

fn at(mono_ms: u64) -> Now {
    Now {
        mono_ms,
        unix_ms: UNIX_MS + mono_ms,
    }
}

/// A device with a socket that has not spoken yet.
fn connected() -> Device {
    let mut device = Device::new(Identity::parse(SRC).unwrap());
    device.connect(FIRST, at(0)).unwrap();
    device
}

/// A device that told this full status at time zero.
fn told(components: Value) -> Device {
    let mut device = connected();
    say(&mut device, 0, notify("NotifyFullStatus", components));
    device
}

fn notify(method: &str, params: Value) -> Value {
    json!({ "src": SRC, "dst": "ws", "method": method, "params": params })
}

fn partial(params: Value) -> Value {
    notify("NotifyStatus", params)
}

fn event(events: Value) -> Value {
    notify("NotifyEvent", json!({ "ts": 1_780_000_000.5, "events": events }))
}

fn say(device: &mut Device, mono_ms: u64, frame: Value) -> Outcome {
    device.handle_frame(FIRST, at(mono_ms), frame.to_string().as_bytes())
}

/// The `changed` of an outcome; an empty object if it has none.
fn delta(outcome: &Outcome) -> Value {
    Value::Object(
        outcome
            .changes
            .as_ref()
            .map(|changes| changes.delta.clone())
            .unwrap_or_default(),
    )
}

fn state(device: &Device) -> Value {
    Value::Object(device.components().clone())
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// The frame among those sent that calls `method`.
fn sent(outcome: &Outcome, method: &str) -> Option<Value> {
    outcome
        .send
        .iter()
        .map(|frame| json_of(frame))
        .find(|frame| frame["method"] == method)
}

/// The device's answer to a request we sent.
fn answer(request: &Value, result: Value) -> Value {
    json!({ "id": request["id"], "src": SRC, "dst": request["src"], "result": result })
}

fn ask(device: &mut Device, mono_ms: u64, deadline_ms: u64, token: u64) -> Value {
    let params = br#"{"id":0,"on":true}"#;
    json_of(
        &device
            .call(
                at(mono_ms),
                "Switch.Set",
                Some(params),
                deadline_ms,
                CallToken(token),
            )
            .unwrap(),
    )
}
