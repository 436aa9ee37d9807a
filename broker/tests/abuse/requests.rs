//! Messages that are none, requests beyond limits, floods.

use std::time::Duration;

use cauce_protocol::wire::{self, client_frame::Request};
use serde_json::{Value, json};

use crate::support::raw::{Heard, Raw, masked, proto};
use crate::support::{Broker, PATIENCE, token};
use crate::{Neighbours, json_peer, proto_peer};

#[tokio::test]
async fn bytes_that_are_no_message_close_the_connection() {
    let broker = Broker::start();
    let neighbours = Neighbours::move_in(&broker).await;
    let ping = proto(1, Request::Ping(wire::Ping {}));
    let many = ping.repeat(cauce_protocol::limits::FRAMES_A_MESSAGE_MAX + 1);
    let binary: Vec<(&str, Vec<u8>)> = vec![
        ("invalid protobuf", vec![5, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a wrong wire type", vec![2, 0x0b, 0x00]),
        ("truncated", [ping.clone(), vec![10, 1, 2]].concat()),
        ("a length without end", vec![0x80]),
        ("a length of eleven bytes", vec![0xff; 11]),
        ("a field length beyond the frame", vec![3, 0x2a, 0x7f, 0x01]),
        (
            "a number of eleven bytes",
            [vec![12, 0x08], vec![0xff; 11]].concat(),
        ),
        ("too many frames", many),
    ];
    let mut report = Vec::new();
    for (what, bytes) in binary {
        let mut raw = proto_peer(&broker).await;
        raw.write(&masked(true, 2, &bytes)).await;
        let close = loop {
            match raw.hear().await {
                Heard::Close(code, _) => break code,
                Heard::End => break 0,
                _ => {}
            }
        };
        if !matches!(close, 4300 | 4302) {
            report.push(format!("{what}: {close}"));
        }
    }
    for (what, text) in [
        ("no JSON", "hello"),
        ("half of it", r#"{"id":1,"ping":{"#),
        ("a list", "[]"),
        (
            "two requests",
            r#"{"id":1,"ping":{},"subscribe":{"rooms":["r"]}}"#,
        ),
        ("a field twice", r#"{"id":1,"id":2,"ping":{}}"#),
        ("a fraction", r#"{"id":1.5,"ping":{}}"#),
        (
            "a number that is too large",
            r#"{"id":99999999999999999999,"ping":{}}"#,
        ),
        ("a string for an object", r#"{"id":1,"publish":"r"}"#),
        ("more behind it", r#"{"id":1,"ping":{}} {}"#),
        (
            "binary that is not base64",
            r#"{"id":1,"publish":{"room":"r2","event":"e","binary":"%%%"}}"#,
        ),
    ] {
        let mut raw = json_peer(&broker).await;
        raw.write(&masked(true, 1, text.as_bytes())).await;
        let got = raw.farewell().await;
        if got != (vec![4300], 4300) {
            report.push(format!("{what}: {got:?}"));
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
    let mut raw = json_peer(&broker).await;
    raw.write(&masked(true, 2, b"{}")).await;
    assert_eq!(raw.farewell().await, (vec![4300], 4300));
    let mut raw = proto_peer(&broker).await;
    raw.write(&masked(true, 1, b"{}")).await;
    loop {
        match raw.hear().await {
            Heard::Close(code, _) => break assert_eq!(code, 4300),
            Heard::Binary(_) | Heard::Ping => {}
            other => panic!("{other:?}"),
        }
    }
    neighbours.assert_undisturbed().await;
}

/// The answer with this id, past everything else.
async fn reply(raw: &mut Raw, id: u64) -> Value {
    loop {
        let frame = raw.hear_json().await;
        if frame["reply"]["id"] == id {
            return frame["reply"].clone();
        }
        assert!(frame["goaway"].is_null(), "{frame}");
    }
}

#[tokio::test]
async fn a_request_beyond_a_limit_is_refused_and_the_connection_stays() {
    let broker = Broker::start();
    let neighbours = Neighbours::move_in(&broker).await;
    let mut raw = json_peer(&broker).await;
    let deep = format!(
        r#"{{"id":2,"publish":{{"room":"r2","event":"e","json":{}1{}}}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let wide = format!(
        r#"{{"id":3,"publish":{{"room":"r2","event":"e","text":"{}"}}}}"#,
        "x".repeat(61 * 1024)
    );
    let rooms: Vec<String> = (0..129).map(|n| format!("room-{n}")).collect();
    let exclude: Vec<u64> = (0..65).collect();
    let cases = [
        (deep, 2, "too_large"),
        (wide, 3, "too_large"),
        (
            json!({"id": 4, "subscribe": {"rooms": rooms}}).to_string(),
            4,
            "too_large",
        ),
        (
            json!({"id": 5, "subscribe": {"rooms": []}}).to_string(),
            5,
            "invalid",
        ),
        (
            json!({"id": 6, "publish": {"room": "x".repeat(201), "event": "e"}}).to_string(),
            6,
            "too_large",
        ),
        (
            json!({"id": 7, "publish": {"room": "a\u{202e}b", "event": "e"}}).to_string(),
            7,
            "invalid",
        ),
        (
            json!({"id": 8, "publish": {"room": "r2", "event": ""}}).to_string(),
            8,
            "invalid",
        ),
        (
            json!({"id": 9, "publish": {"room": "r2", "event": "e", "exclude": exclude}}).to_string(),
            9,
            "too_large",
        ),
        (
            json!({"id": 10, "send": {"event": "e"}}).to_string(),
            10,
            "invalid",
        ),
        (json!({"id": 11, "dance": {}}).to_string(), 11, "unsupported"),
        (
            json!({"id": 12, "publish": {"room": "$devices", "event": "e"}}).to_string(),
            12,
            "forbidden",
        ),
    ];
    let mut report = Vec::new();
    for (text, id, name) in cases {
        raw.write(&masked(true, 1, text.as_bytes())).await;
        let reply = reply(&mut raw, id).await;
        if reply["error"]["name"] != name {
            report.push(format!("request {id}: {reply}"));
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
    // 127 more are joined; the next is one too many.
    let some: Vec<&str> = rooms.iter().take(127).map(String::as_str).collect();
    raw.say(json!({"id": 20, "subscribe": {"rooms": some}})).await;
    assert_eq!(
        reply(&mut raw, 20).await["subscribed"]["rooms"]
            .as_array()
            .map(Vec::len),
        Some(127)
    );
    raw.say(json!({"id": 21, "subscribe": {"rooms": ["room-128"]}}))
        .await;
    assert_eq!(reply(&mut raw, 21).await["error"]["name"], "quota_exceeded");
    raw.say(json!({"id": 22, "ping": {}})).await;
    assert!(reply(&mut raw, 22).await["pong"].is_object());
    neighbours.assert_undisturbed().await;
}

#[tokio::test]
async fn requests_without_end_are_told_when_to_come_again() {
    let broker = Broker::with("limits.requests_per_second=10\nlimits.requests_burst=50");
    // Requests of another kind than the neighbours', which hold to the rate.
    for (kind, request) in [
        ("good", json!({"ping": {}})),
        ("bad", json!({"publish": {"room": "", "event": "e"}})),
    ] {
        let mut raw = json_peer(&broker).await;
        let flood: Vec<u8> = (0..500)
            .flat_map(|n| {
                let mut request = request.clone();
                request["id"] = json!(n + 100);
                masked(true, 1, request.to_string().as_bytes())
            })
            .collect();
        raw.write(&flood).await;
        let (mut served, mut limited, mut wait) = (0, 0, 0);
        for n in 0..500 {
            let reply = reply(&mut raw, n + 100).await;
            match reply["error"]["name"].as_str() {
                Some("rate_limited") => {
                    limited += 1;
                    wait = reply["error"]["retry_after_ms"].as_u64().expect("a number");
                    assert!(wait > 0 && reply["error"]["retryable"] == true, "{reply}");
                }
                _ => served += 1,
            }
        }
        assert!(
            served >= 40 && limited >= 300,
            "{kind}: {served} served, {limited} refused"
        );
        tokio::time::sleep(Duration::from_millis(wait + 5)).await;
        raw.say(json!({"id": 1_000, "ping": {}})).await;
        assert!(
            reply(&mut raw, 1_000).await["pong"].is_object(),
            "{kind}: who waits as told is served"
        );
    }
}

#[tokio::test]
async fn a_flood_does_not_disturb_its_room() {
    let broker = Broker::with("limits.requests_per_second=1000\nlimits.requests_burst=1000");
    let neighbours = Neighbours::move_in(&broker).await;
    let mut raw = json_peer(&broker).await;
    let request = masked(
        true,
        1,
        json!({"publish": {"room": "", "event": "e"}})
            .to_string()
            .as_bytes(),
    )
    .repeat(1_000);
    for _ in 0..5 {
        if !raw.write(&request).await {
            break;
        }
    }
    neighbours.assert_undisturbed().await;
}

#[tokio::test]
async fn connections_are_counted_by_address_user_and_tenant() {
    let broker = Broker::with(
        "limits.connections_per_address=6\nlimits.connections_per_user=2\nlimits.connections_per_tenant=3",
    );
    let mut held = Vec::new();
    for user in ["ann", "ann", "bob"] {
        held.push(broker.join(&token("a", user)).await);
    }
    assert_eq!(
        broker.knock(&token("a", "ann")).await.farewell().await,
        (4102, 4102)
    );
    assert_eq!(
        broker.knock(&token("a", "carl")).await.farewell().await,
        (4102, 4102)
    );
    let mut others = Vec::new();
    for user in ["ann", "bob", "carl"] {
        // Those who were refused have gone by now, or go in a moment.
        let join = async {
            loop {
                let mut raw = Raw::connect(broker.address).await;
                let head = raw
                    .upgrade(&format!("/v1/ws?token={}", token("b", user)), "")
                    .await;
                if head.starts_with("HTTP/1.1 101") {
                    break raw;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let mut raw = tokio::time::timeout(PATIENCE, join).await.expect("a place");
        assert!(raw.hear_json().await["reply"]["welcome"].is_object());
        others.push(raw);
    }
    let mut seventh = Raw::connect(broker.address).await;
    let head = seventh.head().await;
    assert!(head.starts_with("HTTP/1.1 429"), "{head:?}");
    assert!(head.contains("Retry-After: 5"), "{head}");
    let body: Value = serde_json::from_slice(&seventh.rest().await).expect("JSON");
    assert_eq!(body["error"]["name"], "too_many_connections");
    // Those who are in are not disturbed.
    for peer in &mut held {
        assert!(peer.ask(json!({"id": 1, "ping": {}})).await.0["pong"].is_object());
    }
    drop(others);
}

#[tokio::test]
async fn who_connects_too_fast_is_told_when_to_come_again() {
    let broker = Broker::with("limits.connects_per_second=1\nlimits.connects_burst=5");
    let neighbours = Neighbours::move_in(&broker).await;
    let mut refusals = 0;
    for _ in 0..40 {
        let mut raw = Raw::connect(broker.address).await;
        let head = raw.upgrade("/v1/ws", "").await;
        if head.starts_with("HTTP/1.1 429") {
            assert!(head.contains("Retry-After: 1"), "{head}");
            refusals += 1;
        }
    }
    assert!(refusals > 20, "{refusals}");
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert!(
        Raw::connect(broker.address)
            .await
            .upgrade("/v1/ws", "")
            .await
            .starts_with("HTTP/1.1 101")
    );
    assert!(broker.server.handle().metrics().accept.refused.value() > 20);
    neighbours.assert_undisturbed().await;
}
