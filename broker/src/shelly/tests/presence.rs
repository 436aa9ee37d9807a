use serde_json::json;

use super::super::*;
use super::{FIRST, UNIX_MS, at, connected, event, json_of, partial, say, told};

fn sleeper() -> Device {
    told(json!({ "sys": { "wakeup_period": 7200 }, "devicepower:0": { "battery": { "V": 5.6 } } }))
}

#[test]
fn any_frame_means_online() {
    for frame in [
        json!({ "src": super::SRC, "method": "NotifyWeather" }),
        json!({ "src": super::SRC, "method": "NotifyEvent", "params": { "events": [] } }),
        json!({ "src": super::SRC, "id": 999, "result": null }),
        json!({ "src": super::SRC, "id": 1, "method": "Hello" }),
        json!({}),
    ] {
        let mut device = connected();
        assert_eq!(device.presence(), Presence::Offline);
        let outcome = say(&mut device, 5, frame.clone());
        assert_eq!(device.presence(), Presence::Online, "{frame}");
        assert!(outcome.changes.is_some(), "{frame}: coming online is published");
    }
}

#[test]
fn a_malformed_frame_brings_nobody_online() {
    let mut device = connected();
    let outcome = device.handle_frame(FIRST, at(0), b"{\"method\":");
    assert_eq!(
        (outcome.malformed, outcome.counters.malformed),
        (Some(FrameError::NotJson), 1)
    );
    assert_eq!(device.presence(), Presence::Offline);
}

#[test]
fn a_socket_that_dies_means_offline_at_once() {
    for (reason, name) in [
        (LossReason::Closed, "closed"),
        (LossReason::Timeout, "timeout"),
        (LossReason::Refused, "refused"),
        (LossReason::UpstreamLost, "upstream-lost"),
    ] {
        let mut device = told(json!({ "switch:0": { "output": true } }));
        let outcome = device.disconnect(FIRST, at(500), reason);
        let offline = outcome.offline.unwrap();
        assert!(outcome.changes.is_none());
        assert_eq!(device.presence(), Presence::Offline);
        assert_eq!(
            json_of(&device.offline_status(&offline)),
            json!({ "device": "8CBFEAA133F0", "online": false, "reason": name, "seq": 2,
                "ts_ms": UNIX_MS + 500, "last_seen_ms": UNIX_MS })
        );
    }
}

#[test]
fn a_socket_that_never_spoke_takes_nobody_offline() {
    let mut device = connected();
    let outcome = device.disconnect(FIRST, at(1), LossReason::Closed);
    assert!(outcome.offline.is_none() && outcome.changes.is_none());
}

#[test]
fn the_late_close_of_an_old_session_never_marks_offline() {
    let mut device = told(json!({ "switch:0": { "output": true } }));
    let second = FIRST.next();
    device.connect(second, at(0)).unwrap();
    let outcome = device.disconnect(FIRST, at(30_000), LossReason::Timeout);
    assert!(outcome.offline.is_none() && outcome.changes.is_none());
    assert_eq!(outcome.counters.superseded, 1);
    assert_eq!(
        (device.presence(), device.session()),
        (Presence::Online, Some(second))
    );
    // The close of the new one does.
    assert!(
        device
            .disconnect(second, at(40_000), LossReason::Closed)
            .offline
            .is_some()
    );
}

#[test]
fn late_frames_of_an_old_session_change_nothing() {
    let mut device = told(json!({ "switch:0": { "output": true } }));
    device.connect(FIRST.next(), at(0)).unwrap();
    let outcome = say(
        &mut device,
        10,
        partial(json!({ "switch:0": { "output": false } })),
    );
    assert_eq!(outcome.counters.superseded, 1);
    assert!(outcome.changes.is_none() && outcome.send.is_empty());
    assert_eq!(device.components()["switch:0"]["output"], true);
}

#[test]
fn a_session_older_than_the_newest_is_not_let_in() {
    let mut device = connected();
    device.connect(Session::new(7), at(0)).unwrap();
    assert_eq!(
        device.connect(Session::new(7), at(0)).unwrap_err(),
        Superseded {
            newest: Session::new(7)
        }
    );
    assert_eq!(
        device.connect(Session::new(3), at(0)).unwrap_err(),
        Superseded {
            newest: Session::new(7)
        }
    );
    device.disconnect(Session::new(7), at(1), LossReason::Closed);
    assert!(device.connect(Session::new(6), at(0)).is_err());
    assert!(device.connect(Session::new(8), at(0)).is_ok());
}

#[test]
fn a_sleeper_sleeps_and_is_offline_only_when_overdue() {
    let mut device = sleeper();
    let outcome = device.disconnect(FIRST, at(4_000), LossReason::Closed);
    assert!(outcome.offline.is_none());
    let update = json_of(&device.update(&outcome.changes.unwrap()));
    assert_eq!(
        (&update["presence"], &update["online"]),
        (&json!("asleep"), &json!(true))
    );
    let overdue = 4_000 + 7_200_000 * 5 / 2;
    assert_eq!(device.poll_timeout(), Some(overdue));
    assert!(device.handle_timeout(at(overdue - 1)).offline.is_none());
    let offline = device.handle_timeout(at(overdue)).offline.unwrap();
    assert_eq!(
        (offline.reason, device.presence()),
        (OfflineReason::Overslept, Presence::Offline)
    );
    assert_eq!(device.poll_timeout(), None);
}

#[test]
fn a_sleeper_that_wakes_is_online_again() {
    let mut device = sleeper();
    device.disconnect(FIRST, at(4_000), LossReason::Closed);
    let second = FIRST.next();
    device.connect(second, at(0)).unwrap();
    assert_eq!(
        device.presence(),
        Presence::Asleep,
        "a socket alone tells nothing"
    );
    let frame = partial(json!({ "temperature:0": { "tC": 20 } })).to_string();
    assert!(
        device
            .handle_frame(second, at(9_000), frame.as_bytes())
            .changes
            .is_some()
    );
    assert_eq!(device.presence(), Presence::Online);
    assert!(
        device.handle_timeout(at(100_000_000)).offline.is_none(),
        "it is not overdue while it is there"
    );
    device.disconnect(second, at(10_000), LossReason::Closed);
    assert_eq!(device.poll_timeout(), Some(10_000 + 18_000_000));
}

#[test]
fn a_device_is_a_sleeper_by_its_sleep_event_its_period_or_its_battery() {
    let sleeps = |status: serde_json::Value, says_so: bool| {
        let mut device = told(status);
        if says_so {
            say(
                &mut device,
                1,
                event(json!([{ "component": "sys", "event": "sleep" }])),
            );
        }
        device.disconnect(FIRST, at(2), LossReason::Closed);
        device.presence() == Presence::Asleep
    };
    assert!(sleeps(json!({ "sys": {} }), true));
    assert!(sleeps(
        json!({ "sys": { "wakeup_period": 600.0 }, "devicepower:0": { "external": { "present": true } } }),
        false
    ));
    assert!(sleeps(
        json!({ "devicepower:0": { "battery": { "V": 3 } } }),
        false
    ));
    assert!(sleeps(
        json!({ "devicepower:0": { "battery": { "V": 3 }, "external": { "present": false } } }),
        false
    ));
    assert!(!sleeps(
        json!({ "devicepower:0": { "battery": { "V": 0 }, "external": { "present": true } } }),
        false
    ));
    assert!(!sleeps(json!({ "sys": { "wakeup_period": 0 } }), false));
    assert!(!sleeps(json!({ "switch:0": { "output": true } }), false));
}

#[test]
fn an_absurd_wakeup_period_is_clamped() {
    for (period, allowance_s) in [
        (json!(1e300), 7 * 86_400),
        (json!(u64::MAX), 7 * 86_400),
        (json!(0.001), 60),
    ] {
        let mut device = told(json!({ "sys": { "wakeup_period": period } }));
        device.disconnect(FIRST, at(0), LossReason::Closed);
        assert_eq!(device.poll_timeout(), Some(allowance_s * 2_500));
    }
}

#[test]
fn a_lost_upstream_or_a_refusal_takes_even_sleepers_offline() {
    for reason in [LossReason::UpstreamLost, LossReason::Refused] {
        let mut device = sleeper();
        assert!(device.disconnect(FIRST, at(1), reason).offline.is_some());
    }
}

#[test]
fn a_frame_of_another_device_is_ignored_and_counted() {
    let mut device = told(json!({ "switch:0": { "output": true } }));
    let mut frame = partial(json!({ "switch:0": { "output": false } }));
    frame["src"] = json!("shellyplugsg3-aaaaaaaaaaaa");
    let outcome = say(&mut device, 1, frame.clone());
    assert_eq!(outcome.counters.foreign_src, 1);
    assert_eq!(device.components()["switch:0"]["output"], true);
    // Another spelling of the same name is the same device, and so is none.
    frame["src"] = json!("ShellyPlugSG3-8CBFEAA133F0");
    assert!(say(&mut device, 2, frame.clone()).changes.is_some());
    assert_eq!(
        device.identity().src(),
        "ShellyPlugSG3-8CBFEAA133F0",
        "and is addressed as it calls itself last"
    );
    frame["params"]["switch:0"]["output"] = json!(true);
    frame.as_object_mut().unwrap().remove("src");
    assert!(say(&mut device, 3, frame).changes.is_some());
}

#[test]
fn a_zero_that_is_due_after_the_socket_died_changes_the_state_but_brings_nobody_online() {
    let mut device = told(json!({ "switch:0": { "output": true, "apower": 60 } }));
    say(
        &mut device,
        10,
        partial(json!({ "switch:0": { "output": false } })),
    );
    device.disconnect(FIRST, at(20), LossReason::Closed);
    let outcome = device.handle_timeout(at(2_010));
    assert_eq!(super::delta(&outcome), json!({ "switch:0": { "apower": 0 } }));
    let update = json_of(&device.update(&outcome.changes.unwrap()));
    assert_eq!(
        (&update["online"], &update["last_seen_ms"]),
        (&json!(false), &json!(UNIX_MS + 10))
    );
}
