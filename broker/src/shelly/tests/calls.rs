use serde_json::json;

use super::super::*;
use super::{FIRST, SRC, answer, ask, at, connected, event, json_of, notify, partial, say, sent, told};

#[test]
fn a_first_frame_that_is_no_full_status_asks_for_it_and_its_answer_counts_as_one() {
    let mut device = connected();
    let first = say(&mut device, 0, partial(json!({ "switch:0": { "apower": 1 } })));
    assert!(device.is_stale());
    let request = sent(&first, "Shelly.GetStatus").unwrap();
    assert_eq!(
        request,
        json!({ "jsonrpc": "2.0", "id": request["id"], "src": "cauce", "dst": SRC, "method": "Shelly.GetStatus" })
    );
    let outcome = say(
        &mut device,
        50,
        answer(&request, json!({ "switch:0": { "output": true } })),
    );
    assert_eq!(
        super::delta(&outcome),
        json!({ "switch:0": { "apower": null, "output": true } })
    );
    assert!(outcome.replies.is_empty() && !device.is_stale());
}

#[test]
fn a_first_full_status_asks_for_the_make_only() {
    let mut device = connected();
    let outcome = say(
        &mut device,
        0,
        notify("NotifyFullStatus", json!({ "sys": { "uptime": 4 } })),
    );
    assert_eq!(outcome.send.len(), 1);
    let request = sent(&outcome, "Shelly.GetDeviceInfo").unwrap();
    let info = json!({ "name": null, "model": "S3PL-00112EU", "gen": 3, "ver": "1.7.5", "app": "PlugSG3",
        "fw_id": "20260311-095902/1.7.5-g9979d16", "auth_en": false });
    let outcome = say(&mut device, 1, answer(&request, info.clone()));
    assert!(outcome.changes.is_some(), "a new firmware is published");
    assert_eq!(device.vitals().firmware, Some("1.7.5"));
    assert_eq!(
        (device.info().generation, device.info().name.as_deref()),
        (Some(3), None)
    );
    // Asked once a session; the same answer again is no news.
    assert!(
        say(&mut device, 2, partial(json!({ "sys": { "uptime": 5 } })))
            .send
            .is_empty()
    );
    let again = device
        .call(at(3), "shelly.getdeviceinfo", None, 5_000, CallToken(1))
        .unwrap();
    let outcome = say(&mut device, 4, answer(&json_of(&again), info));
    assert!(outcome.changes.is_none());
    assert_eq!(outcome.replies.len(), 1);
}

#[test]
fn the_full_status_is_asked_again_with_growing_pauses_while_it_is_missing() {
    let mut device = connected();
    let mut asked_at = Vec::new();
    for second in 0..3_600 {
        let now_ms = second * 1_000;
        device.handle_timeout(at(now_ms));
        let outcome = say(
            &mut device,
            now_ms,
            partial(json!({ "switch:0": { "apower": second } })),
        );
        asked_at.extend(sent(&outcome, "Shelly.GetStatus").map(|_| second));
    }
    assert_eq!(asked_at, [0, 15, 45, 105, 225, 465, 945, 1545, 2145, 2745, 3345]);
}

#[test]
fn an_added_component_asks_for_the_full_status() {
    let mut device = told(json!({ "sys": {} }));
    let outcome = say(
        &mut device,
        1,
        event(json!([{ "component": "sys", "event": "component_removed" }])),
    );
    let request = sent(&outcome, "Shelly.GetStatus").unwrap();
    assert!(!device.is_stale());
    let outcome = say(&mut device, 2, answer(&request, json!({ "switch:0": {} })));
    assert_eq!(super::delta(&outcome), json!({ "sys": null, "switch:0": {} }));
    assert!(sent(&say(&mut device, 60_000, partial(json!({}))), "Shelly.GetStatus").is_none());
}

#[test]
fn an_answer_meets_its_call_whatever_the_order_with_the_status_it_caused() {
    for status_first in [false, true] {
        let mut device = told(json!({ "switch:0": { "output": false } }));
        let request = ask(&mut device, 10, 1_000, 77);
        assert_eq!(
            (&request["method"], &request["params"]),
            (&json!("Switch.Set"), &json!({ "id": 0, "on": true }))
        );
        let status = partial(json!({ "switch:0": { "output": true, "source": "WS_in" } }));
        let reply = answer(&request, json!({ "was_on": false }));
        let frames = if status_first {
            [status, reply]
        } else {
            [reply, status]
        };
        let outcomes = frames.map(|frame| say(&mut device, 20, frame));
        let replies: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.replies).collect();
        assert_eq!(
            replies,
            [&CallReply {
                token: CallToken(77),
                result: Ok(r#"{"was_on":false}"#.into())
            }]
        );
        assert_eq!(device.components()["switch:0"]["output"], true);
        assert_eq!(device.pending_calls(), 1, "only our own question is left");
    }
}

#[test]
fn a_null_result_is_a_success() {
    let mut device = told(json!({ "sys": {} }));
    let request = ask(&mut device, 10, 1_000, 1);
    let outcome = say(&mut device, 11, answer(&request, json!(null)));
    assert_eq!(outcome.replies[0].result, Ok("null".into()));
}

#[test]
fn a_call_without_an_answer_expires_at_its_deadline_and_the_late_answer_is_counted() {
    let mut device = told(json!({ "sys": {} }));
    let request = ask(&mut device, 10, 1_000, 5);
    assert_eq!(device.poll_timeout(), Some(1_000));
    assert!(device.handle_timeout(at(999)).replies.is_empty());
    let outcome = device.handle_timeout(at(1_000));
    assert_eq!(
        outcome.replies,
        [CallReply {
            token: CallToken(5),
            result: Err(CallFailure::TimedOut)
        }]
    );
    let late = say(&mut device, 1_001, answer(&request, json!({ "was_on": true })));
    assert_eq!((late.replies.len(), late.counters.unmatched_replies), (0, 1));
}

#[test]
fn a_deadline_too_far_ahead_is_moved_closer() {
    let mut device = told(json!({ "sys": {} }));
    device.handle_timeout(at(20_000)); // our own question expires
    ask(&mut device, 20_000, u64::MAX, 5);
    assert_eq!(device.poll_timeout(), Some(20_000 + CALL_WAIT_MS_MAX));
}

#[test]
fn the_end_of_a_session_fails_its_calls_and_a_new_session_does_too() {
    let mut device = told(json!({ "sys": {} }));
    let request = ask(&mut device, 10, 1_000, 5);
    let outcome = device.connect(FIRST.next(), at(0)).unwrap();
    assert_eq!(
        outcome.replies,
        [CallReply {
            token: CallToken(5),
            result: Err(CallFailure::Replaced)
        }]
    );
    ask(&mut device, 20, 1_000, 6);
    let answer = answer(&request, json!(true)).to_string();
    assert!(
        device
            .handle_frame(FIRST.next(), at(21), answer.as_bytes())
            .replies
            .is_empty(),
        "ids are not reused"
    );
    let outcome = device.disconnect(FIRST.next(), at(30), LossReason::Closed);
    assert_eq!(
        outcome.replies,
        [CallReply {
            token: CallToken(6),
            result: Err(CallFailure::Disconnected)
        }]
    );
    assert_eq!(device.pending_calls(), 0);
}

#[test]
fn calls_under_way_are_bounded_and_a_slot_comes_back() {
    let mut device = told(json!({ "sys": {} }));
    for token in 0..CALLS_PENDING_MAX as u64 {
        ask(&mut device, 10, 1_000 + token, token);
    }
    let refused = device.call(at(11), "Switch.Toggle", None, 5_000, CallToken(99));
    assert_eq!(refused, Err(CallError::Busy));
    device.handle_timeout(at(1_000));
    assert!(
        device
            .call(at(1_001), "Switch.Toggle", None, 5_000, CallToken(99))
            .is_ok()
    );
}

#[test]
fn a_call_that_cannot_be_sent_says_why() {
    let mut device = told(json!({ "sys": {} }));
    let mut call =
        |method: &str, params: Option<&[u8]>| device.call(at(1), method, params, 100, CallToken(1)).err();
    assert_eq!(call("Switch.Set", Some(b" {\"id\":0} ")), None);
    for method in ["", "Switch\"Set", "Switch Set", "Schränk", &"m".repeat(65)] {
        assert_eq!(call(method, None), Some(CallError::Method), "{method}");
    }
    for params in [
        "",
        "[]",
        "1",
        "{",
        "{}{}",
        "{\"a\":nan}",
        "null",
        &format!("{{\"a\":{}1{}}}", "[".repeat(99), "]".repeat(99)),
    ] {
        assert_eq!(
            call("Switch.Set", Some(params.as_bytes())),
            Some(CallError::Params),
            "{params}"
        );
    }
    assert_eq!(
        call("Switch.Set", Some(b"{\"a\":\"\xff\"}")),
        Some(CallError::Params)
    );
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(PARAMS_BYTES_MAX));
    assert_eq!(
        call("Script.PutCode", Some(large.as_bytes())),
        Some(CallError::ParamsTooLarge)
    );
    device.disconnect(FIRST, at(2), LossReason::Closed);
    assert_eq!(
        device.call(at(3), "Switch.Set", None, 100, CallToken(2)),
        Err(CallError::Offline)
    );
}

#[test]
fn a_sleeping_device_cannot_be_called() {
    let mut device = told(json!({ "sys": { "wakeup_period": 7200 } }));
    device.disconnect(FIRST, at(2), LossReason::Closed);
    assert_eq!(
        device.call(at(3), "Switch.Set", None, 100, CallToken(2)),
        Err(CallError::Asleep)
    );
}

#[test]
fn a_call_by_the_device_is_answered_with_an_error_and_never_applied() {
    let mut device = told(json!({ "switch:0": { "output": true } }));
    let mut frame = partial(json!({ "switch:0": { "output": false } }));
    frame["id"] = json!("abc");
    let outcome = say(&mut device, 1, frame);
    assert_eq!(outcome.counters.inbound_calls, 1);
    assert!(outcome.changes.is_none());
    assert_eq!(
        json_of(&outcome.send[0]),
        json!({ "id": "abc", "src": "cauce", "dst": SRC, "error": { "code": 404, "message": "No handler for NotifyStatus" } })
    );
    assert_eq!(device.components()["switch:0"]["output"], true);
}

#[test]
fn a_caller_who_asks_for_the_status_refreshes_it() {
    let mut device = told(json!({ "switch:0": { "output": true } }));
    let request = json_of(
        &device
            .call(at(1), "Shelly.GetStatus", None, 100, CallToken(3))
            .unwrap(),
    );
    let outcome = say(
        &mut device,
        2,
        answer(&request, json!({ "switch:0": { "output": false } })),
    );
    assert_eq!(super::delta(&outcome), json!({ "switch:0": { "output": false } }));
    assert_eq!(outcome.replies[0].token, CallToken(3));
}

#[test]
fn an_empty_or_broken_full_status_does_not_wipe_the_state() {
    let mut device = told(json!({ "switch:0": { "output": true } }));
    for result in [json!({}), json!(null), json!([])] {
        let request = json_of(
            &device
                .call(at(1), "Shelly.GetStatus", None, 100, CallToken(3))
                .unwrap(),
        );
        say(&mut device, 2, answer(&request, result));
    }
    say(&mut device, 3, notify("NotifyFullStatus", json!({ "ts": 5.0 })));
    assert_eq!(super::state(&device), json!({ "switch:0": { "output": true } }));
}

#[test]
fn a_failed_question_of_ours_is_counted_and_harms_nobody() {
    let mut device = connected();
    let outcome = say(&mut device, 0, partial(json!({ "switch:0": { "output": true } })));
    for method in ["Shelly.GetStatus", "Shelly.GetDeviceInfo"] {
        let request = sent(&outcome, method).unwrap();
        let error = json!({ "id": request["id"], "src": SRC, "error": { "code": 401, "message": "{}" } });
        let outcome = say(&mut device, 1, error);
        assert_eq!((outcome.counters.own_calls_failed, outcome.replies.len()), (1, 0));
    }
    assert_eq!(device.presence(), Presence::Online);
}

#[test]
fn an_empty_info_answer_does_not_wipe_the_firmware() {
    let mut device = told(json!({ "sys": {} }));
    for (result, changes) in [
        (json!({ "ver": "1.7.5" }), true),
        (json!({}), false),
        (json!(null), false),
    ] {
        let request = json_of(
            &device
                .call(at(1), "Shelly.GetDeviceInfo", None, 100, CallToken(3))
                .unwrap(),
        );
        let outcome = say(&mut device, 2, answer(&request, result));
        assert_eq!(outcome.changes.is_some(), changes);
        assert_eq!(device.vitals().firmware, Some("1.7.5"));
    }
}

#[test]
fn the_same_question_is_not_asked_twice_at_once_even_if_time_outs_are_handled_late() {
    let mut device = connected();
    let first = say(&mut device, 0, partial(json!({ "switch:0": { "apower": 1 } })));
    assert_eq!(first.send.len(), 2);
    assert!(
        say(
            &mut device,
            30_000,
            partial(json!({ "switch:0": { "apower": 2 } }))
        )
        .send
        .is_empty()
    );
    device.handle_timeout(at(30_001));
    assert_eq!(
        say(
            &mut device,
            30_002,
            partial(json!({ "switch:0": { "apower": 3 } }))
        )
        .send
        .len(),
        1
    );
}

#[test]
fn an_answer_brings_the_pause_before_the_next_question_back_to_its_start() {
    let mut device = connected();
    let mut asked_at = Vec::new();
    for second in 0..100 {
        device.handle_timeout(at(second * 1_000));
        let frame = match second {
            50 => event(json!([{ "component": "sys", "event": "component_added" }])),
            _ => partial(json!({ "sys": { "uptime": second } })),
        };
        let outcome = say(&mut device, second * 1_000, frame);
        if let Some(request) = sent(&outcome, "Shelly.GetStatus") {
            asked_at.push(second);
            if second == 45 {
                say(
                    &mut device,
                    second * 1_000,
                    answer(&request, json!({ "sys": {} })),
                );
            }
        }
    }
    // Unanswered at 0 and 15; answered at 45, whose pause of a minute stands; then from the start again.
    assert_eq!(asked_at, [0, 15, 45]);
    device.handle_timeout(at(105_000));
    for (second, asks) in [(105, true), (119, false), (121, true)] {
        device.handle_timeout(at(second * 1_000));
        let outcome = say(
            &mut device,
            second * 1_000,
            partial(json!({ "sys": { "uptime": second } })),
        );
        assert_eq!(sent(&outcome, "Shelly.GetStatus").is_some(), asks, "{second}");
    }
}

#[test]
fn what_a_device_makes_us_echo_or_keep_is_bounded() {
    let mut device = told(json!({ "sys": {} }));
    let long = "m".repeat(1_000);
    let outcome = say(&mut device, 1, json!({ "id": 1, "src": SRC, "method": long }));
    assert!(outcome.send[0].len() < 300);
    let outcome = say(
        &mut device,
        2,
        json!({ "id": long, "src": SRC, "method": "Hello" }),
    );
    assert_eq!((outcome.send.len(), outcome.counters.inbound_calls), (0, 1));
    let outcome = say(
        &mut device,
        3,
        event(json!([{ "component": long, "event": long }])),
    );
    assert_eq!(
        (outcome.events[0].component.len(), outcome.events[0].event.len()),
        (128, 128)
    );
    let request = json_of(
        &device
            .call(at(4), "Shelly.GetDeviceInfo", None, 100, CallToken(3))
            .unwrap(),
    );
    say(&mut device, 5, answer(&request, json!({ "ver": long })));
    assert_eq!(device.vitals().firmware.unwrap().len(), Info::TEXT_BYTES_MAX);
}
