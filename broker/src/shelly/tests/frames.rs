use serde_json::json;

use super::super::*;
use super::SRC;

fn parse(text: &str) -> Result<Frame<'_>, FrameError> {
    Frame::parse(text.as_bytes())
}

#[test]
fn a_frame_needs_neither_dst_nor_ts_nor_params() {
    let frame = parse(r#"{"src":"shellyplus1-b0a7324bbe08","method":"NotifyStatus"}"#).unwrap();
    let Body::Notification(Notification::Status { ts, components }) = frame.body else {
        panic!("{frame:?}")
    };
    assert_eq!((ts, components.len()), (None, 0));
}

#[test]
fn a_null_id_beside_a_method_is_a_notification() {
    let frame = parse(r#"{"id":null,"method":"NotifyStatus","params":{}}"#).unwrap();
    assert!(
        matches!(frame.body, Body::Notification(Notification::Status { .. })),
        "{frame:?}"
    );
}

#[test]
fn method_names_are_read_in_any_case() {
    let frame = parse(r#"{"method":"notifyfullstatus","params":{"ts":1}}"#).unwrap();
    assert!(matches!(
        frame.body,
        Body::Notification(Notification::FullStatus { ts: Some(1.0), .. })
    ));
}

#[test]
fn members_of_an_odd_type_do_not_cost_the_frame() {
    let frame = parse(
        r#"{"src":5,"dst":[],"jsonrpc":{},"auth":1,"method":"NotifyStatus","params":[],"x":{"y":[1]}}"#,
    )
    .unwrap();
    assert_eq!(frame.src, None);
    assert_eq!(frame.identity(), Err(IdentityError::Missing));
    assert!(matches!(
        frame.body,
        Body::Notification(Notification::Status { .. })
    ));
}

#[test]
fn an_object_that_is_no_rpc_frame_is_unknown_not_malformed() {
    for text in [
        "{}",
        r#"{"id":1}"#,
        r#"{"src":"a-b"}"#,
        r#"{"method":7}"#,
        r#"{"method":"NotifyWeather"}"#,
    ] {
        let frame = parse(text).unwrap();
        assert!(
            matches!(frame.body, Body::Notification(Notification::Unknown)),
            "{text}: {frame:?}"
        );
    }
}

#[test]
fn what_is_no_json_object_is_refused_by_its_kind() {
    for text in [
        "[]",
        r#"[1,"a","NotifyStatus",{},1,1]"#,
        "3",
        "null",
        "\"x\"",
        " [1]",
    ] {
        assert_eq!(parse(text).unwrap_err(), FrameError::NotObject, "{text}");
    }
    for text in [
        "",
        "{",
        r#"{"a":1"#,
        "{]",
        "hello",
        r#"{"a":1}{"b":2}"#,
        r#"{"a":tru}"#,
        r#"{"a" 1}"#,
        r#"{"id":1,"id":2}"#,
        "[1",
    ] {
        assert_eq!(parse(text).unwrap_err(), FrameError::NotJson, "{text}");
    }
    assert_eq!(
        Frame::parse(b"{\"a\":\"\xff\"}").unwrap_err(),
        FrameError::NotJson
    );
}

#[test]
fn nesting_of_ten_thousand_levels_is_refused_without_recursion() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let text = format!(r#"{{"params":{}1{}}}"#, open.repeat(10_000), close.repeat(10_000));
        assert_eq!(parse(&text).unwrap_err(), FrameError::TooDeep);
    }
    assert_eq!(parse(&"[".repeat(200_000)).unwrap_err(), FrameError::TooDeep);
}

#[test]
fn the_bound_on_nesting_is_exact_and_brackets_in_strings_do_not_count() {
    let nested = |levels: usize| format!(r#"{{"params":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(parse(&nested(FRAME_DEPTH_MAX - 1)).is_ok());
    assert_eq!(parse(&nested(FRAME_DEPTH_MAX)).unwrap_err(), FrameError::TooDeep);
    assert!(parse(&format!(r#"{{"a":"{}\"{}"}}"#, "[".repeat(50), "{".repeat(50))).is_ok());
}

#[test]
fn the_bound_on_size_is_exact() {
    let text = |len: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(len - 8));
    assert!(parse(&text(FRAME_BYTES_MAX)).is_ok());
    assert_eq!(
        parse(&text(FRAME_BYTES_MAX + 1)).unwrap_err(),
        FrameError::TooLarge
    );
}

#[test]
fn more_values_than_the_bound_are_refused() {
    let text = |values: usize| format!(r#"{{"a":[0{}]}}"#, ",0".repeat(values));
    assert!(parse(&text(FRAME_VALUES_MAX - 8)).is_ok());
    assert_eq!(parse(&text(FRAME_VALUES_MAX)).unwrap_err(), FrameError::TooMany);
}

#[test]
fn a_number_that_is_not_finite_becomes_null_and_the_frame_lives() {
    let text = r#"{"src":"shellyplus\u0031-b0a7324bbe08","method":"NotifyStatus","params":{"switch:0":
        {"apower":nan,"voltage":-inf,"current":1e999,"freq":50.01,"note":"nan, \"inf\""}}}"#;
    let frame = parse(text).unwrap();
    assert!(frame.repaired);
    assert_eq!(frame.src.as_deref(), Some("shellyplus1-b0a7324bbe08"));
    let Body::Notification(Notification::Status { components, .. }) = frame.body else {
        panic!()
    };
    assert_eq!(
        components["switch:0"],
        json!({ "apower": null, "voltage": null, "current": null, "freq": 50.01, "note": "nan, \"inf\"" })
    );
}

#[test]
fn answers_are_matched_by_number_float_or_string() {
    for (id, expected) in [
        ("7", Some(7)),
        ("7.0", Some(7)),
        (r#""7""#, Some(7)),
        ("-7", None),
        (r#""x""#, None),
        ("[7]", None),
    ] {
        let frame = format!(r#"{{"id":{id},"src":"{SRC}","result":null}}"#);
        let Body::Response(response) = parse(&frame).unwrap().body else {
            panic!("{frame}")
        };
        assert_eq!(
            (response.id, response.result),
            (expected, Ok("null".into())),
            "{id}"
        );
    }
}

#[test]
fn a_frame_with_method_and_id_is_a_call_and_its_id_is_kept_as_json() {
    let Body::Call(call) = parse(r#"{"id":"q1","method":"NotifyStatus","params":{}}"#)
        .unwrap()
        .body
    else {
        panic!("not a call")
    };
    assert_eq!(
        (&*call.method, call.id.as_deref()),
        ("NotifyStatus", Some("\"q1\""))
    );
}

#[test]
fn null_slots_and_words_among_events_are_skipped_and_counted() {
    let text = r#"{"method":"NotifyEvent","params":{"ts":1,"events":[null,{"component":"input:0","event":"single_push"},"x",7,{}]}}"#;
    let Body::Notification(Notification::Event { events, skipped, .. }) = parse(text).unwrap().body else {
        panic!()
    };
    assert_eq!((events.len(), skipped), (2, 3));
    assert_eq!(
        (events[0].component.as_str(), events[0].event.as_str()),
        ("input:0", "single_push")
    );
    assert_eq!(
        serde_json::Value::Object(events[0].data.clone()),
        json!({ "component": "input:0", "event": "single_push" })
    );
    assert_eq!((events[1].component.as_str(), events[1].event.as_str()), ("", ""));
}

#[test]
fn events_beyond_the_bound_are_counted() {
    let slots = vec!["{}"; EVENTS_MAX + 5].join(",");
    let text = format!(r#"{{"method":"NotifyEvent","params":{{"events":[{slots}]}}}}"#);
    let Body::Notification(Notification::Event { events, skipped, .. }) = parse(&text).unwrap().body else {
        panic!()
    };
    assert_eq!((events.len(), skipped), (EVENTS_MAX, 5));
}

#[test]
fn a_device_is_keyed_by_the_mac_after_its_last_dash() {
    for (src, key) in [
        ("shellyplugsg3-8cbfeaa133f0", "8CBFEAA133F0"),
        ("ShellyWallDisplay-00082214DC9F", "00082214DC9F"),
        ("ogemray25a-70af09f0ab7c", "70AF09F0AB7C"),
        ("shellyplug-s-C38EAB", "C38EAB"),
        ("8cbfeaa133f0", "8CBFEAA133F0"),
    ] {
        let identity = Identity::parse(src).unwrap();
        assert_eq!((identity.key().as_str(), identity.src()), (key, src));
    }
}

#[test]
fn names_that_no_device_has_are_refused() {
    for (src, error) in [
        ("", IdentityError::Empty),
        ("shelly-", IdentityError::Empty),
        ("shelly-a_b", IdentityError::Charset),
        ("shelly\"-aa", IdentityError::Charset),
        ("shelly-äöü", IdentityError::Charset),
        ("a b-cc", IdentityError::Charset),
    ] {
        assert_eq!(Identity::parse(src), Err(error), "{src}");
    }
    assert!(Identity::parse(&"a".repeat(SRC_BYTES_MAX)).is_ok());
    assert_eq!(
        Identity::parse(&"a".repeat(SRC_BYTES_MAX + 1)),
        Err(IdentityError::TooLong)
    );
    assert_eq!(DeviceKey::parse("8cbfeaa133f0").unwrap().as_str(), "8CBFEAA133F0");
    assert!(DeviceKey::parse("8c-bf").is_err());
}

#[test]
fn device_errors_are_kept_as_said() {
    let error = |error: &str| {
        let frame = format!(r#"{{"id":1,"error":{error}}}"#);
        let Body::Response(response) = parse(&frame).unwrap().body else {
            panic!("{frame}")
        };
        response.result.unwrap_err()
    };
    for (said, code, message, kind) in [
        (
            r#"{"code":404,"message":"No handler for X"}"#,
            404,
            "No handler for X",
            DeviceErrorKind::UnknownMethod,
        ),
        (
            r#"{"code":-109.0,"message":"bye"}"#,
            -109,
            "bye",
            DeviceErrorKind::NotNow,
        ),
        (r#"{"code":-114}"#, -114, "", DeviceErrorKind::Unavailable),
        (r#"{"message":7}"#, -1, "7", DeviceErrorKind::Other),
        (
            r#"{"code":"x","message":"m"}"#,
            -1,
            r#"{"code":"x","message":"m"}"#,
            DeviceErrorKind::Other,
        ),
        (r#"[404,"m"]"#, -1, r#"[404,"m"]"#, DeviceErrorKind::Other),
        (r#""broken""#, -1, r#""broken""#, DeviceErrorKind::Other),
    ] {
        let error = error(said);
        assert_eq!(
            (error.code, error.message.as_str(), error.kind()),
            (code, message, kind),
            "{said}"
        );
    }
    let long = error(&format!(r#"{{"code":500,"message":"{}"}}"#, "ä".repeat(4_000)));
    assert_eq!(long.message.len(), DeviceError::MESSAGE_BYTES_MAX);
}
