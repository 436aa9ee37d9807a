//! Each trap known from the field: how frames of real devices, and programs that read them wrongly, go astray.

use serde_json::{Value, json};

use super::super::*;
use super::{
    FIRST, SRC, UNIX_MS, answer, ask, at, connected, delta, event, notify, partial, say, sent, state, told,
};

fn plug() -> Value {
    json!({ "switch:0": { "id": 0, "output": true, "apower": 60.5, "voltage": 230, "temperature": { "tC": 40, "tF": 104 } } })
}

#[test]
fn a_partial_delta_without_output_does_not_turn_the_switch_off() {
    let mut device = told(plug());
    let outcome = say(
        &mut device,
        1,
        partial(json!({ "switch:0": { "apower": 77.7, "voltage": 231.4 } })),
    );
    assert_eq!(
        delta(&outcome),
        json!({ "switch:0": { "apower": 77.7, "voltage": 231.4 } })
    );
    assert_eq!(state(&device)["switch:0"]["output"], true);
    assert_eq!(outcome.changes.unwrap().readings[0].output, Some(true));
}

#[test]
fn a_partial_of_only_sys_leaves_the_switch_alone() {
    let mut device = told(plug());
    say(&mut device, 1, partial(json!({ "sys": { "cfg_rev": 30 } })));
    assert_eq!(state(&device)["switch:0"], plug()["switch:0"]);
}

#[test]
fn a_frame_over_10_kb_is_read() {
    let mut device = told(plug());
    let advert = "0".repeat(2_300);
    let scan: Vec<_> = (0..20)
        .map(|n| json!({ "component": "script:1", "event": "ble.scan_result", "data": [n, advert] }))
        .collect();
    let frame = event(json!(scan));
    assert!(frame.to_string().len() > 40_000);
    assert_eq!(say(&mut device, 1, frame).events.len(), 20);
}

#[test]
fn null_means_gone_not_zero_and_not_the_word_null() {
    let mut device =
        told(json!({ "switch:0": { "output": true, "timer_duration": 86400, "timer_started_at": 1.5 } }));
    let outcome = say(
        &mut device,
        1,
        partial(json!({ "switch:0": { "timer_duration": null, "timer_started_at": null } })),
    );
    assert_eq!(
        delta(&outcome),
        json!({ "switch:0": { "timer_duration": null, "timer_started_at": null } })
    );
    assert_eq!(state(&device), json!({ "switch:0": { "output": true } }));
}

#[test]
fn a_lock_out_answer_leaves_the_device_online() {
    let mut device = told(plug());
    let request = ask(&mut device, 1, 1_000, 9);
    let error = json!({ "code": 429, "message": "Too many failed authentication attempts" });
    let outcome = say(
        &mut device,
        2,
        json!({ "id": request["id"], "src": SRC, "error": error }),
    );
    let Err(CallFailure::Device(error)) = &outcome.replies[0].result else {
        panic!("{outcome:?}")
    };
    assert_eq!((error.code, error.kind()), (429, DeviceErrorKind::LockedOut));
    assert!(error.kind().is_retryable());
    assert_eq!(device.presence(), Presence::Online);
    assert!(outcome.offline.is_none());
}

#[test]
fn an_error_while_rebooting_is_passed_on_and_leaves_the_device_online() {
    let mut device = told(plug());
    let request = ask(&mut device, 1, 1_000, 9);
    let error = json!({ "code": -109, "message": "shutting down in 952 ms" });
    let outcome = say(
        &mut device,
        2,
        json!({ "id": request["id"], "src": SRC, "error": error }),
    );
    let expected = DeviceError {
        code: -109,
        message: "shutting down in 952 ms".into(),
    };
    assert_eq!(outcome.replies[0].result, Err(CallFailure::Device(expected)));
    assert_eq!(device.presence(), Presence::Online);
}

#[test]
fn going_offline_keeps_the_state_and_coming_back_says_so_even_if_nothing_changed() {
    let mut device = told(plug());
    device.disconnect(FIRST, at(10), LossReason::Closed);
    assert_eq!(state(&device), plug());
    device.connect(FIRST.next(), at(0)).unwrap();
    let frame = notify("NotifyFullStatus", plug()).to_string();
    let changes = device
        .handle_frame(FIRST.next(), at(20), frame.as_bytes())
        .changes
        .unwrap();
    assert!(changes.delta.is_empty());
    assert_eq!(changes.seq, 3, "full status, offline, online");
}

#[test]
fn an_equal_frame_changes_nothing_and_publishes_nothing() {
    let mut device = told(plug());
    assert!(
        say(&mut device, 1, notify("NotifyFullStatus", plug()))
            .changes
            .is_none()
    );
    assert!(say(&mut device, 2, partial(plug())).changes.is_none());
    assert_eq!(device.seq(), 1);
}

#[test]
fn int_and_float_alternate_without_a_change_of_state() {
    let mut device = told(json!({ "switch:0": { "apower": 0, "freq": 50.0 } }));
    assert!(
        say(
            &mut device,
            1,
            partial(json!({ "switch:0": { "apower": 0.0, "freq": 50 } }))
        )
        .changes
        .is_none()
    );
    let outcome = say(&mut device, 2, partial(json!({ "switch:0": { "apower": 0.6 } })));
    assert_eq!(outcome.changes.unwrap().readings[0].power_w, Some(0.6));
}

#[test]
fn seconds_since_boot_are_not_taken_for_a_date() {
    let mut device = connected();
    let mut params = plug();
    params["ts"] = json!(5.01);
    let outcome = say(&mut device, 700, notify("NotifyFullStatus", params));
    assert_eq!(
        outcome.changes.unwrap().at,
        Stamp {
            ts_ms: UNIX_MS + 700,
            received_ms: UNIX_MS + 700
        }
    );
    assert_eq!(outcome.counters.clock_bad, 1);
    assert_eq!(state(&device).get("ts"), None);
}

#[test]
fn a_device_time_counts_from_2001_up_to_a_day_ahead() {
    let now_s = UNIX_MS as f64 / 1_000.0;
    for (ts, good) in [
        (json!(1e9), true),
        (json!(999_999_999.99), false),
        (json!(now_s + 86_400.0), true),
        (json!(now_s + 86_400.01), false),
        (json!(-1), false),
        (json!(1e300), false),
        (json!(1_705_084_173), true),
    ] {
        let mut device = connected();
        let outcome = say(&mut device, 0, partial(json!({ "ts": ts, "switch:0": {} })));
        let at = outcome.changes.unwrap().at;
        let expected = if good {
            (ts.as_f64().unwrap() * 1_000.0).round() as u64
        } else {
            UNIX_MS
        };
        assert_eq!(
            (at.ts_ms, at.received_ms, outcome.counters.clock_bad),
            (expected, UNIX_MS, u32::from(!good)),
            "{ts}"
        );
    }
}

#[test]
fn a_missing_or_odd_ts_uses_the_time_of_receipt_and_is_no_fault() {
    for params in [
        json!({ "switch:0": {} }),
        json!({ "ts": null, "switch:0": {} }),
        json!({ "ts": "noon", "switch:0": {} }),
    ] {
        let mut device = connected();
        let outcome = say(&mut device, 30, partial(params));
        assert_eq!(outcome.changes.unwrap().at.ts_ms, UNIX_MS + 30);
        assert_eq!(outcome.counters.clock_bad, 0);
    }
}

#[test]
fn a_component_without_inner_id_is_the_same_component() {
    let mut device = told(plug());
    let outcome = say(
        &mut device,
        1,
        partial(json!({ "switch:0": { "output": false, "source": "HTTP_in" } })),
    );
    assert_eq!(
        delta(&outcome),
        json!({ "switch:0": { "output": false, "source": "HTTP_in" } })
    );
    assert_eq!(state(&device)["switch:0"]["id"], 0);
}

#[test]
fn unknown_components_and_fields_are_kept() {
    let mut device = told(json!({ "sys": {} }));
    let odd = json!({ "presence:0": { "zones": [1, 2] }, "awaiting_auth_code": false, "number:200": { "value": 4 } });
    say(&mut device, 1, partial(odd.clone()));
    for (key, value) in odd.as_object().unwrap() {
        assert_eq!(&state(&device)[key], value);
    }
}

#[test]
fn unknown_methods_are_counted_and_harmless() {
    let mut device = told(plug());
    let outcome = say(
        &mut device,
        1,
        notify("NotifyWeather", json!({ "switch:0": { "output": false } })),
    );
    assert_eq!(outcome.counters.unknown_methods, 1);
    assert!(outcome.changes.is_none());
    assert_eq!(state(&device), plug());
}

#[test]
fn php_empties_in_a_partial_wipe_nothing() {
    let mut device = told(
        json!({ "ble": {}, "sys": { "available_updates": { "beta": { "version": "2" } }, "mac": "X" } }),
    );
    let outcome = say(
        &mut device,
        1,
        partial(json!({ "ble": [], "sys": { "available_updates": [] } })),
    );
    assert!(outcome.changes.is_none());
}

#[test]
fn a_full_status_makes_deleted_components_vanish() {
    let mut device = told(json!({ "script:1": { "running": true }, "sys": { "uptime": 1 } }));
    let outcome = say(
        &mut device,
        1,
        notify("NotifyFullStatus", json!({ "sys": { "uptime": 2 } })),
    );
    assert_eq!(
        delta(&outcome),
        json!({ "script:1": null, "sys": { "uptime": 2 } })
    );
}

#[test]
fn a_wall_display_that_speaks_partially_first_is_asked_and_stale_until_it_told_all() {
    let mut device = connected();
    let first = say(
        &mut device,
        0,
        partial(json!({ "temperature:0": { "tC": 20.5 } })),
    );
    assert!(sent(&first, "Shelly.GetStatus").is_some());
    assert!(device.is_stale());
    // Back to back, the full status comes unasked as well.
    say(
        &mut device,
        1,
        notify(
            "NotifyFullStatus",
            json!({ "temperature:0": { "tC": 20.5 }, "sys": {} }),
        ),
    );
    assert!(!device.is_stale());
    let outcome = say(
        &mut device,
        2,
        answer(
            &sent(&first, "Shelly.GetStatus").unwrap(),
            json!({ "temperature:0": { "tC": 20.5 }, "sys": {} }),
        ),
    );
    assert!(outcome.changes.is_none() && outcome.counters.is_empty());
}

#[test]
fn a_feeding_plug_has_negative_power() {
    let mut device = told(plug());
    let outcome = say(
        &mut device,
        1,
        partial(json!({ "switch:0": { "apower": -626.6 } })),
    );
    assert_eq!(outcome.changes.unwrap().readings[0].power_w, Some(-626.6));
}

#[test]
fn old_firmware_that_forgets_the_zero_gets_it_derived_after_two_seconds() {
    let mut device = told(plug());
    say(
        &mut device,
        1_000,
        partial(json!({ "switch:0": { "output": false } })),
    );
    assert_eq!(state(&device)["switch:0"]["apower"], 60.5);
    assert_eq!(device.poll_timeout(), Some(3_000));
    assert!(device.handle_timeout(at(2_999)).changes.is_none());
    let outcome = device.handle_timeout(at(3_000));
    assert_eq!(
        (delta(&outcome), outcome.counters.derived_power),
        (json!({ "switch:0": { "apower": 0 } }), 1)
    );
    let changes = outcome.changes.unwrap();
    assert!(changes.readings[0].power_derived);
    assert_eq!(changes.readings[0].power_w, Some(0.0));
    assert!(device.readings()[0].power_derived);
    assert_eq!(super::json_of(&device.current())["derived"], json!(["switch:0"]));
    // The device's own word ends it.
    let outcome = say(
        &mut device,
        4_000,
        partial(json!({ "switch:0": { "apower": 0.2 } })),
    );
    assert!(!outcome.changes.unwrap().readings[0].power_derived);
    assert_eq!(super::json_of(&device.current()).get("derived"), None);
}

#[test]
fn no_zero_is_derived_where_the_device_tells_its_power_or_is_on_again() {
    for (same_frame, later) in [
        (json!({ "output": false, "apower": 0.9 }), None),
        (json!({ "output": false }), Some(json!({ "apower": 60.5 }))),
        (json!({ "output": false }), Some(json!({ "output": true }))),
        (json!({ "output": false }), Some(json!(null))),
        (json!({ "output": false }), Some(json!({ "apower": null }))),
    ] {
        let mut device = told(plug());
        say(&mut device, 1_000, partial(json!({ "switch:0": same_frame })));
        if let Some(later) = &later {
            say(&mut device, 1_500, partial(json!({ "switch:0": later })));
        }
        let before = state(&device);
        let outcome = device.handle_timeout(at(3_000));
        assert!(outcome.changes.is_none(), "{later:?}: {outcome:?}");
        assert_eq!(state(&device), before);
    }
}

#[test]
fn no_zero_is_derived_for_a_relay_without_meter_or_when_power_is_zero_already() {
    for switch in [
        json!({ "output": true }),
        json!({ "output": true, "apower": 0.0 }),
    ] {
        let mut device = told(json!({ "switch:0": switch }));
        device.handle_timeout(at(100_000)); // our own question expires
        say(
            &mut device,
            100_000,
            partial(json!({ "switch:0": { "output": false } })),
        );
        assert_eq!(device.poll_timeout(), None);
    }
}

#[test]
fn a_full_status_ends_what_was_derived() {
    let mut device = told(plug());
    say(
        &mut device,
        0,
        partial(json!({ "switch:0": { "output": false } })),
    );
    device.handle_timeout(at(2_000));
    say(
        &mut device,
        3_000,
        notify(
            "NotifyFullStatus",
            json!({ "switch:0": { "output": false, "apower": 0 } }),
        ),
    );
    assert!(!device.readings()[0].power_derived);
}

#[test]
fn a_sleeper_wakes_tells_all_says_sleep_and_is_not_offline() {
    let mut device = connected();
    let wake = json!({ "ts": 4.28, "sys": { "wakeup_period": 86400, "wakeup_reason": { "boot": "poweron" } }, "smoke:0": { "alarm": false } });
    say(&mut device, 0, notify("NotifyFullStatus", wake));
    let outcome = say(
        &mut device,
        100,
        event(json!([{ "component": "sys", "event": "sleep", "ts": 6.1 }])),
    );
    assert_eq!(outcome.events[0].event, "sleep");
    let outcome = device.disconnect(FIRST, at(200), LossReason::Closed);
    assert!(outcome.offline.is_none());
    assert_eq!(device.presence(), Presence::Asleep);
}

#[test]
fn a_device_of_absurdly_many_switches_gets_a_bounded_number_of_zeros() {
    let switches =
        |switch: Value| -> Value { (0..40).map(|n| (format!("switch:{n}"), switch.clone())).collect() };
    let mut device = told(switches(json!({ "output": true, "apower": 5 })));
    for round in 0..3 {
        say(
            &mut device,
            round * 10_000,
            partial(switches(json!({ "output": true }))),
        );
        say(
            &mut device,
            round * 10_000 + 1,
            partial(switches(json!({ "output": false }))),
        );
        device.handle_timeout(at(round * 10_000 + 5_000));
        assert_eq!(
            device
                .readings()
                .iter()
                .filter(|reading| reading.power_derived)
                .count(),
            32
        );
    }
}

#[test]
fn the_end_of_staleness_is_published_even_if_nothing_else_changed() {
    let mut device = connected();
    let first = say(
        &mut device,
        0,
        partial(json!({ "temperature:0": { "tC": 20.5 } })),
    );
    let status = json!({ "temperature:0": { "tC": 20.5 } });
    let outcome = say(
        &mut device,
        1,
        answer(&sent(&first, "Shelly.GetStatus").unwrap(), status),
    );
    assert!(outcome.changes.unwrap().delta.is_empty());
    assert!(!device.is_stale());
}
