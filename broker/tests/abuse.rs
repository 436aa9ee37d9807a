//! Abusive peers: each gets its code, and a neighbour in the same room misses nothing meanwhile.
//!
//! | who | what happens to it |
//! | --- | --- |
//! | says garbage, TLS on the plain port, HTTP/1.0, a WebSocket version or key that is none | HTTP 400 |
//! | sends a head without end, too many headers | HTTP 431 |
//! | sends its head byte by byte, or nothing | HTTP 408 |
//! | connects too often, or too often at once | HTTP 429 with `Retry-After` |
//! | has too many connections as a user or a tenant | 4102 `too_many_connections` |
//! | frames without mask, with reserved bits or opcodes, control frames too long or in pieces, a continuation of nothing | 1002 |
//! | text that is not UTF-8 | 1007 |
//! | a message in ten thousand pieces | 1008 |
//! | a length of 2^63, a message a byte too long, or too long for a stranger | 1009 |
//! | begins a message and never ends it | 4300 `malformed` |
//! | pings without end | 4101 `rate_limited` |
//! | protobuf that is none, truncated, or with a number too long; JSON that is none; too many frames in a message | 4300 `malformed` |
//! | the other dialect's kind of message | 4300 `malformed` |
//! | JSON nested ten thousand deep, names that are none, 129 rooms at once | its request is refused, it stays |
//! | requests without end, good or bad | 4101 `rate_limited` with the time to wait, it stays |
//! | a 129th room | 4106 `quota_exceeded`, it stays |

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cauce_broker::hub::Tunables;
use cauce_protocol::wire::{self, client_frame::Request};
use serde_json::{Value, json};
use support::raw::{Heard, ProtoPeer, Raw, masked, proto};
use support::{Broker, PATIENCE, token};

/// A reader and a publisher who do nothing wrong, in the room `r`.
struct Neighbours {
    over: Arc<AtomicBool>,
    reader: tokio::task::JoinHandle<u64>,
    publisher: tokio::task::JoinHandle<u64>,
}

impl Neighbours {
    async fn move_in(broker: &Broker) -> Self {
        let (mut reader, mut publisher) = (
            broker.join(&token("a", "reader")).await,
            broker.join(&token("a", "publisher")).await,
        );
        let first = reader.subscribe(&["r"]).await[0]["seq"]
            .as_u64()
            .expect("a number");
        assert_eq!(first, 0);
        let over = Arc::new(AtomicBool::new(false));
        let done = over.clone();
        let reader = tokio::spawn(async move {
            for next in 1.. {
                let frame = reader.receive().await;
                assert_eq!(
                    frame["push"]["seq"], next,
                    "the neighbour missed something: {frame}"
                );
                if frame["push"]["event"] == "end" {
                    return next;
                }
            }
            unreachable!("numbers do not end");
        });
        let publisher = tokio::spawn(async move {
            let mut sent = 0;
            loop {
                let event = if done.load(Ordering::Relaxed) { "end" } else { "e" };
                let publish = json!({"id": 1, "publish": {"room": "r", "event": event, "json": {"n": sent}}});
                let reply = publisher.ask(publish).await.0;
                sent += 1;
                assert_eq!(reply["published"]["seq"], sent, "{reply}");
                if event == "end" {
                    return sent;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Self {
            over,
            reader,
            publisher,
        }
    }

    /// Answers how much they said to each other meanwhile.
    async fn assert_undisturbed(self) {
        self.over.store(true, Ordering::Relaxed);
        let sent = tokio::time::timeout(PATIENCE, self.publisher)
            .await
            .expect("it goes on")
            .expect("the publisher is well");
        let got = tokio::time::timeout(PATIENCE, self.reader)
            .await
            .expect("it goes on")
            .expect("the reader is well");
        assert_eq!(sent, got);
    }
}

async fn json_peer(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker.address).await;
    raw.upgrade(
        "/v1/ws",
        &format!(
            "Sec-WebSocket-Protocol: cauce.v1.json\r\nAuthorization: Bearer {}\r\n",
            token("a", "mallory")
        ),
    )
    .await;
    raw.hear_json().await;
    raw.say(json!({"id": 1, "subscribe": {"rooms": ["r"]}})).await;
    raw
}

async fn proto_peer(broker: &Broker) -> Raw {
    let mut peer = ProtoPeer::join(broker.address, &token("a", "mallory")).await;
    peer.ask(
        1,
        Request::Subscribe(wire::Subscribe {
            rooms: vec!["r".into()],
        }),
    )
    .await;
    peer.raw
}

/// The status and the name of the code of an HTTP refusal.
async fn refused(raw: &mut Raw) -> (u16, String) {
    let head = raw.head().await;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| panic!("no HTTP answer: {head:?}"));
    let body: Value = serde_json::from_slice(&raw.rest().await).unwrap_or_default();
    (
        status,
        body["error"]["name"].as_str().unwrap_or_default().to_owned(),
    )
}

fn upgrade_with(from: &str, to: &str) -> Vec<u8> {
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        support::raw::KEY
    );
    assert!(request.contains(from));
    request.replacen(from, to, 1).into_bytes()
}

#[tokio::test]
async fn strangers_who_do_not_speak_our_http_are_refused() {
    let broker = Broker::with("limits.handshake_timeout=400ms");
    let neighbours = Neighbours::move_in(&broker).await;
    let tls_hello = [
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03][..],
        &[7; 200],
    ]
    .concat();
    let flood = format!("GET /v1/ws HTTP/1.1\r\n{}\r\n", "X-Flood: 1\r\n".repeat(65));
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (
            "garbage",
            b"\x00\xff\xfe hello \r\n\r\n".to_vec(),
            400,
            "malformed",
        ),
        ("TLS", tls_hello, 400, "malformed"),
        ("HTTP/1.0", upgrade_with("HTTP/1.1", "HTTP/1.0"), 400, "malformed"),
        ("HTTP/9", b"GET / HTTP/9.9\r\n\r\n".to_vec(), 400, "malformed"),
        ("POST", upgrade_with("GET", "POST"), 400, "malformed"),
        (
            "version 8",
            upgrade_with("Version: 13", "Version: 8"),
            400,
            "malformed",
        ),
        (
            "short key",
            upgrade_with("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
            400,
            "malformed",
        ),
        (
            "no key",
            upgrade_with("Sec-WebSocket-Key", "X-Key"),
            400,
            "malformed",
        ),
        (
            "no Connection",
            upgrade_with("Connection: Upgrade", "Connection: close"),
            400,
            "malformed",
        ),
        ("header flood", flood.into_bytes(), 431, "too_large"),
        (
            "head without end",
            format!("GET /v1/ws HTTP/1.1\r\nX: {}", "y".repeat(20_000)).into_bytes(),
            431,
            "too_large",
        ),
        ("nothing", Vec::new(), 408, "handshake_timeout"),
        (
            "half a head",
            b"GET /v1/ws HTTP/1.1\r\nHost".to_vec(),
            408,
            "handshake_timeout",
        ),
    ];
    let mut report = Vec::new();
    for (what, bytes, status, name) in cases {
        let mut raw = Raw::connect(broker.address).await;
        raw.write(&bytes).await;
        let got = refused(&mut raw).await;
        if got != (status, name.to_owned()) {
            report.push(format!("{what}: {got:?}"));
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
    // Each byte comes in time, the whole does not.
    let mut slow = Raw::connect(broker.address).await;
    for byte in upgrade_with("test", &"x".repeat(500)) {
        if !slow.write(&[byte]).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(refused(&mut slow).await.0, 408);
    neighbours.assert_undisturbed().await;
    // Nothing of them is left.
    let left = async {
        while broker.server.handle().connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, left)
        .await
        .expect("all permits come back");
}

#[tokio::test]
async fn a_stranger_may_say_less_than_a_client() {
    let broker = Broker::start();
    let mut raw = Raw::connect(broker.address).await;
    raw.upgrade("/v1/ws", "").await;
    raw.write(&masked(true, 1, &vec![b' '; 17 * 1024])).await;
    assert_eq!(raw.farewell().await.1, 1009);
}

#[tokio::test]
async fn who_breaks_websocket_is_closed_with_its_code() {
    let broker = Broker::start();
    let neighbours = Neighbours::move_in(&broker).await;
    let header = |first: u8, len: &[u8]| [&[first], len, &[1, 2, 3, 4]].concat();
    let pieces: Vec<u8> = std::iter::once(masked(false, 1, b"x"))
        .chain((0..10_000).map(|_| masked(false, 0, b"x")))
        .flatten()
        .collect();
    let limit = 64 * 1024;
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("no mask", vec![0x81, 2, b'{', b'}'], 1002),
        ("a reserved bit", header(0xc1, &[0x80]), 1002),
        ("a reserved opcode", masked(true, 3, b""), 1002),
        ("a reserved control opcode", masked(true, 11, b""), 1002),
        ("a long ping", masked(true, 9, &[0; 126]), 1002),
        ("a ping in pieces", masked(false, 9, b""), 1002),
        ("a continuation of nothing", masked(true, 0, b"x"), 1002),
        (
            "a message inside another",
            [masked(false, 1, b"{"), masked(true, 1, b"}")].concat(),
            1002,
        ),
        ("a close code of one byte", masked(true, 8, &[3]), 1002),
        (
            "a close code that is never sent",
            masked(true, 8, &1006_u16.to_be_bytes()),
            1002,
        ),
        ("text that is not UTF-8", masked(true, 1, b"{\"\xff\"}"), 1007),
        ("UTF-8 cut at the end", masked(true, 1, b"\xc3"), 1007),
        ("ten thousand pieces", pieces, 1008),
        (
            "2^63 bytes",
            header(0x81, &[&[0xff][..], &(1_u64 << 63).to_be_bytes()].concat()),
            1009,
        ),
        (
            "2^64-1 bytes",
            header(0x82, &[&[0xff][..], &u64::MAX.to_be_bytes()].concat()),
            1009,
        ),
        (
            "one byte too many",
            masked(true, 1, &vec![b' '; limit + 1])[..14].to_vec(),
            1009,
        ),
        (
            "one byte too many in pieces",
            [masked(false, 1, &vec![b' '; limit]), masked(true, 0, b" ")].concat(),
            1009,
        ),
    ];
    let mut report = Vec::new();
    for (what, bytes, code) in cases {
        let mut raw = json_peer(&broker).await;
        raw.write(&bytes).await;
        let got = raw.farewell().await;
        // Whoever breaks the framing is told in its terms alone.
        if got != (vec![], code) {
            report.push(format!("{what}: {got:?} rather than {code}"));
        }
        if raw.hear().await != Heard::End {
            report.push(format!("{what}: something came after the close"));
        }
    }
    assert!(report.is_empty(), "{}", report.join("\n"));
    neighbours.assert_undisturbed().await;
}

fn lower(broker: &Broker, change: impl FnOnce(&mut Tunables)) {
    let hub = broker.server.hub();
    let mut tunables = *hub.tunables();
    change(&mut tunables);
    hub.tune(tunables);
}

#[tokio::test]
async fn a_message_that_is_begun_must_be_finished_in_time() {
    let broker = Broker::start();
    lower(&broker, |tunables| tunables.assembly_ms = 400);
    let neighbours = Neighbours::move_in(&broker).await;
    for begun in [
        masked(false, 1, b"{"),
        masked(true, 1, &[b' '; 100])[..50].to_vec(),
        vec![0x81],
    ] {
        let mut raw = json_peer(&broker).await;
        // Settings reach a shard with its next tick; the peer's own answer shows that nothing else is in the way.
        tokio::time::sleep(Duration::from_millis(150)).await;
        raw.write(&begun).await;
        // Pings between pieces are allowed, and do not put the end off.
        if begun.len() > 1 && begun[0] == 0x01 {
            raw.write(&masked(true, 9, b"")).await;
        }
        assert_eq!(raw.farewell().await, (vec![4300], 4300));
    }
    // One whose reads always end within a message is not late with any of them.
    let mut busy = json_peer(&broker).await;
    let ping = masked(true, 1, br#"{"id":7,"ping":{}}"#);
    busy.write(&ping[..10]).await;
    let began = std::time::Instant::now();
    let mut answered = 0;
    while began.elapsed() < Duration::from_millis(1_200) {
        busy.write(&[&ping[10..], &ping[..10]].concat()).await;
        loop {
            let frame = busy.hear_json().await;
            if frame["reply"]["pong"].is_object() {
                break;
            }
            assert!(
                frame["goaway"].is_null(),
                "closed although every message was finished: {frame}"
            );
        }
        answered += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(answered > 5);
    neighbours.assert_undisturbed().await;
}

#[tokio::test]
async fn pings_without_end_are_too_many() {
    let broker = Broker::start();
    let neighbours = Neighbours::move_in(&broker).await;
    for opcode in [9, 10] {
        let mut raw = json_peer(&broker).await;
        for _ in 0..300 {
            raw.write(&masked(true, opcode, b"")).await;
        }
        assert_eq!(raw.farewell().await, (vec![4101], 4101));
    }
    neighbours.assert_undisturbed().await;
}

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
    let broker = Broker::with("limits.requests_per_second=100\nlimits.requests_burst=50");
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
    let broker = Broker::with("limits.connects_per_second=10\nlimits.connects_burst=5");
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
    tokio::time::sleep(Duration::from_millis(200)).await;
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
