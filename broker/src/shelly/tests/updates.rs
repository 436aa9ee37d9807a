use serde_json::json;

use super::super::*;
use super::{FIRST, SRC, UNIX_MS, answer, at, connected, event, json_of, notify, partial, say, sent, told};

#[test]
fn a_device_update_carries_every_member_documented() {
    let mut device = connected();
    let first = say(
        &mut device,
        0,
        notify(
            "NotifyFullStatus",
            json!({ "ts": 1_779_999_999.5, "switch:0": { "output": true, "apower": 5 }, "wifi": { "rssi": -60 } }),
        ),
    );
    say(
        &mut device,
        1,
        answer(
            &sent(&first, "Shelly.GetDeviceInfo").unwrap(),
            json!({ "ver": "1.7.5", "gen": 3 }),
        ),
    );
    let outcome = say(
        &mut device,
        250,
        partial(json!({ "ts": 1_780_000_000.2, "switch:0": { "apower": 6.5 } })),
    );
    assert_eq!(
        json_of(&device.update(&outcome.changes.unwrap())),
        json!({
            "device": "8CBFEAA133F0",
            "src": SRC,
            "presence": "online",
            "online": true,
            "stale": false,
            "seq": 3,
            "ts_ms": UNIX_MS + 200,
            "received_ms": UNIX_MS + 250,
            "last_seen_ms": UNIX_MS + 250,
            "info": { "generation": 3, "firmware": "1.7.5" },
            "rssi_dbm": -60.0,
            "changed": { "switch:0": { "apower": 6.5 } },
            "state": { "switch:0": { "output": true, "apower": 6.5 }, "wifi": { "rssi": -60 } },
            "readings": [{ "channel": "switch:0", "output": true, "power_w": 6.5 }],
        })
    );
}

#[test]
fn a_restart_shows_the_last_known_state_as_stale_until_the_device_tells_all() {
    let mut before = told(json!({ "switch:0": { "output": true, "aenergy": { "total": 10 } } }));
    let update = say(&mut before, 5, partial(json!({ "switch:0": { "apower": 3 } })))
        .changes
        .unwrap();
    let saved = Saved::from_update(&before.update(&update)).unwrap();
    assert_eq!(saved.identity, *before.identity());

    let mut device = Device::restore(saved.identity.clone(), saved, at(60_000));
    assert_eq!(
        (device.components(), device.presence()),
        (before.components(), Presence::Offline)
    );
    assert!(device.is_stale());
    let shown = json_of(&device.current());
    assert_eq!(
        (&shown["stale"], &shown["online"], &shown["changed"]),
        (&json!(true), &json!(false), &json!({}))
    );
    assert_eq!(shown["ts_ms"], UNIX_MS + 5);
    assert!(device.seq() > before.seq() + 1_000);

    device.connect(FIRST, at(0)).unwrap();
    let full = json!({ "switch:0": { "output": true, "apower": 3, "aenergy": { "total": 12.5 } } });
    let changes = say(&mut device, 61_000, notify("NotifyFullStatus", full))
        .changes
        .unwrap();
    assert_eq!(changes.seq, before.seq() + RESTORED_SEQ_GAP + 1);
    assert_eq!(
        changes.readings[0].consumed_wh,
        Some(2.5),
        "what was used meanwhile is not lost"
    );
    assert!(!device.is_stale());
}

#[test]
fn a_restored_device_that_speaks_partially_stays_stale_and_is_asked() {
    let saved = Saved::from_update(&told(json!({ "switch:0": { "output": true } })).current()).unwrap();
    let mut device = Device::restore(saved.identity.clone(), saved, at(0));
    device.connect(FIRST, at(0)).unwrap();
    let outcome = say(&mut device, 1, partial(json!({ "switch:0": { "apower": 1 } })));
    assert!(device.is_stale() && sent(&outcome, "Shelly.GetStatus").is_some());
}

#[test]
fn a_sleeper_is_restored_asleep_for_what_is_left_of_its_sleep() {
    let awake = told(json!({ "sys": { "wakeup_period": 7200 } })).current();
    let mut said_sleep = told(json!({ "sys": {} }));
    said_sleep.handle_frame(
        FIRST,
        at(0),
        br#"{"method":"NotifyEvent","params":{"events":[{"component":"sys","event":"sleep"}]}}"#,
    );
    said_sleep.disconnect(FIRST, at(0), LossReason::Closed);
    for (update, allowance_ms) in [(awake, 18_000_000), (said_sleep.current(), 216_000_000)] {
        let restore = |mono_ms| {
            let saved = Saved::from_update(&update).unwrap();
            Device::restore(saved.identity.clone(), saved, at(mono_ms))
        };
        let device = restore(1_000_000);
        assert_eq!(
            (device.presence(), device.poll_timeout()),
            (Presence::Asleep, Some(allowance_ms))
        );
        assert_eq!(restore(allowance_ms).presence(), Presence::Offline);
    }
    // A clock that was ahead when the row was written does not stretch the sleep.
    let mut saved = Saved::from_update(&told(json!({ "sys": { "wakeup_period": 60 } })).current()).unwrap();
    saved.last_seen_ms = u64::MAX;
    assert_eq!(
        Device::restore(saved.identity.clone(), saved, at(0)).poll_timeout(),
        Some(150_000)
    );
}

#[test]
fn a_document_that_is_no_update_is_refused() {
    for text in ["", "{}", "[]", r#"{"src":5}"#] {
        assert!(
            matches!(Saved::from_update(text.as_bytes()), Err(SavedError::Shape(_))),
            "{text}"
        );
    }
    let mut update = json_of(&told(json!({ "sys": {} })).current());
    update["src"] = json!("a b");
    assert!(matches!(
        Saved::from_update(update.to_string().as_bytes()),
        Err(SavedError::Identity(_))
    ));
}

#[test]
fn counters_add_up() {
    let mut sum = Counters {
        malformed: 1,
        ..Counters::default()
    };
    sum += Counters {
        malformed: u32::MAX,
        repaired: 2,
        ..Counters::default()
    };
    assert_eq!(
        sum,
        Counters {
            malformed: u32::MAX,
            repaired: 2,
            ..Counters::default()
        }
    );
    assert!(!sum.is_empty() && Counters::default().is_empty());
}

#[test]
fn an_event_is_published_whole_with_its_times() {
    let mut device = told(json!({ "sys": {} }));
    let push = json!({ "component": "input:0", "id": 0, "event": "double_push", "ts": 1_780_000_000.12 });
    let outcome = say(&mut device, 700, event(json!([push])));
    assert!(outcome.changes.is_none(), "an event changes no state");
    assert_eq!(
        json_of(&device.event(outcome.at, &outcome.events[0])),
        json!({ "device": "8CBFEAA133F0", "src": SRC, "ts_ms": UNIX_MS + 500, "received_ms": UNIX_MS + 700,
            "component": "input:0", "event": "double_push", "data": push })
    );
}
