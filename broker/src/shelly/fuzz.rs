//! Entry for fuzzing and random tests: arbitrary bytes as a life of a device.

use serde_json::Value;

use super::status::{self, Object};
use super::{
    CALLS_PENDING_MAX, CallToken, Device, Identity, LossReason, Outcome, STATE_BYTES_MAX, STATE_NODES_MAX,
};
use super::{Saved, Session};
use crate::clock::Now;

/// Feeds `data` to a device, line by line, and checks after each what must always hold.
///
/// A line that starts with `t`, `d`, `c` or `r` is time passing, a reconnection, a call or a restart; every other
/// line is a frame.
///
/// # Panics
/// If an invariant is broken: that is its purpose.
pub fn fuzz_device(data: &[u8]) {
    let identity = Identity::parse("shellyplugsg3-8cbfeaa133f0").expect("a valid name");
    let mut now = Now {
        mono_ms: 1_000,
        unix_ms: 1_780_000_000_000,
    };
    let mut device = Device::new(identity.clone());
    let mut session = Session::new(1);
    let mut check = Check::default();
    device.connect(session, now).expect("the first session");
    for (number, line) in (0_u64..).zip(data.split(|byte| *byte == b'\n')) {
        now = later(now, 100);
        let outcome = match line {
            [b't', rest @ ..] => {
                let passed_ms = rest
                    .iter()
                    .fold(1_u64, |ms, byte| ms.wrapping_mul(u64::from(*byte) + 1));
                now = later(now, passed_ms % (1 << 40));
                device.handle_timeout(now)
            }
            [b'd', ..] => {
                let lost = device.disconnect(session, now, LossReason::Closed);
                check.after(&device, &lost);
                let old = session;
                session = session.next();
                let connected = device.connect(session, now).expect("a newer session");
                assert!(device.connect(old, now).is_err(), "an old session came back");
                connected
            }
            [b'c', method @ ..] => {
                let method = String::from_utf8_lossy(method);
                if device
                    .call(now, &method, None, now.mono_ms + 500, CallToken(number))
                    .is_ok()
                {
                    check.calls.push(number);
                }
                device.handle_timeout(now)
            }
            [b'r', ..] => {
                let saved = Saved::from_update(&device.current()).expect("our own document");
                let lost = device.disconnect(session, now, LossReason::Timeout);
                check.after(&device, &lost);
                device = Device::restore(identity.clone(), saved, now);
                // A float may come back from its decimals one step off; the jump of seq tells subscribers to start
                // from the whole state anyway.
                check.mirror = Value::Object(device.components().clone());
                session = Session::new(1);
                device.connect(session, now).expect("the first session")
            }
            frame => device.handle_frame(session, now, frame),
        };
        check.after(&device, &outcome);
    }
    let outcome = device.disconnect(session, now, LossReason::Closed);
    check.after(&device, &outcome);
    assert!(check.calls.is_empty(), "calls without a reply: {:?}", check.calls);
}

/// Applies a JSON Merge Patch as RFC 7396 words it; independent of the merge it is compared with.
pub(super) fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Object::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge_patch(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

fn later(now: Now, ms: u64) -> Now {
    Now {
        mono_ms: now.mono_ms.saturating_add(ms),
        unix_ms: now.unix_ms.saturating_add(ms),
    }
}

/// What a subscriber that heard everything knows.
#[derive(Default)]
struct Check {
    mirror: Value,
    seq: u64,
    calls: Vec<u64>,
}

impl Check {
    fn after(&mut self, device: &Device, outcome: &Outcome) {
        if !self.mirror.is_object() {
            self.mirror = Value::Object(Object::new());
        }
        if let Some(changes) = &outcome.changes {
            assert!(changes.seq > self.seq, "seq fell");
            self.seq = changes.seq;
            merge_patch(&mut self.mirror, &Value::Object(changes.delta.clone()));
            for reading in &changes.readings {
                assert!(
                    reading.consumed_wh.is_none_or(|wh| wh >= 0.0),
                    "negative consumption"
                );
            }
            let update: Value = serde_json::from_slice(&device.update(changes)).expect("an update is JSON");
            assert_eq!(update["seq"], changes.seq);
        }
        if let Some(offline) = &outcome.offline {
            assert!(offline.seq > self.seq, "seq fell");
            self.seq = offline.seq;
        }
        for reply in &outcome.replies {
            let asked = self.calls.iter().position(|call| *call == reply.token.0);
            self.calls.swap_remove(asked.expect("one reply to each call"));
        }
        let state = device.state();
        assert_eq!(
            self.mirror.as_object(),
            Some(state.components()),
            "the deltas do not add up to the state"
        );
        assert_eq!(
            (state.nodes(), state.bytes()),
            status::weigh(state.components()),
            "the measures drifted"
        );
        assert!(
            state.nodes() <= STATE_NODES_MAX && state.bytes() <= STATE_BYTES_MAX,
            "the state outgrew its bounds"
        );
        assert!(
            device.pending_calls() <= CALLS_PENDING_MAX + 2,
            "too many calls under way"
        );
        for frame in &outcome.send {
            assert!(
                serde_json::from_slice::<Value>(frame).is_ok_and(|frame| frame.is_object()),
                "sent no JSON"
            );
        }
    }
}
