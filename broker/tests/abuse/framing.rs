//! Before a message: handshakes, frames, pings.

use std::time::Duration;

use cauce_broker::hub::Tunables;

use crate::support::pace::with_longer;
use crate::support::raw::{Heard, Raw, masked};
use crate::support::{Broker, PATIENCE};
use crate::{Neighbours, json_peer, refused, upgrade_with};

#[tokio::test]
async fn strangers_who_do_not_speak_our_http_are_refused() {
    let broker = Broker::start();
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
    ];
    // These alone, so that a machine that takes a while to say the others is not late with them.
    let late = [
        ("nothing", Vec::new(), 408, "handshake_timeout"),
        (
            "half a head",
            b"GET /v1/ws HTTP/1.1\r\nHost".to_vec(),
            408,
            "handshake_timeout",
        ),
    ];
    let mut report = Vec::new();
    let quick = cases.len();
    for (n, (what, bytes, status, name)) in cases.into_iter().chain(late).enumerate() {
        if n == quick {
            lower(&broker, |tunables| tunables.handshake_ms = 400).await;
        }
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

async fn lower(broker: &Broker, change: impl FnOnce(&mut Tunables)) {
    let hub = broker.server.hub();
    let mut tunables = *hub.tunables();
    change(&mut tunables);
    broker.tune(|| hub.tune(tunables)).await;
}

#[tokio::test]
async fn a_message_that_is_begun_must_be_finished_in_time() {
    let broker = Broker::start();
    let neighbours = Neighbours::move_in(&broker).await;
    lower(&broker, |tunables| tunables.assembly_ms = 400).await;
    for begun in [
        masked(false, 1, b"{"),
        masked(true, 1, &[b' '; 100])[..50].to_vec(),
        vec![0x81],
    ] {
        let mut raw = json_peer(&broker).await;
        raw.write(&begun).await;
        // Pings between pieces are allowed, and do not put the end off.
        if begun.len() > 1 && begun[0] == 0x01 {
            raw.write(&masked(true, 9, b"")).await;
        }
        assert_eq!(raw.farewell().await, (vec![4300], 4300));
    }
    neighbours.assert_undisturbed().await;
}

#[tokio::test]
async fn who_always_has_a_message_begun_is_late_with_none_of_them() {
    with_longer(400, always_begun).await;
}

async fn always_begun(assembly_ms: u64) {
    let broker = Broker::start();
    lower(&broker, |tunables| tunables.assembly_ms = assembly_ms).await;
    let mut busy = json_peer(&broker).await;
    let ping = masked(true, 1, br#"{"id":7,"ping":{}}"#);
    busy.write(&ping[..10]).await;
    let began = std::time::Instant::now();
    let mut answered = 0;
    while answered <= 5 || began.elapsed() < Duration::from_millis(3 * assembly_ms) {
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
}

#[tokio::test]
async fn pings_without_end_are_too_many() {
    let broker = Broker::start();
    let neighbours = Neighbours::move_in(&broker).await;
    for opcode in [9, 10] {
        let mut raw = json_peer(&broker).await;
        // All in one breath: the rate earns nothing between them.
        raw.write(&masked(true, opcode, b"").repeat(300)).await;
        assert_eq!(raw.farewell().await, (vec![4101], 4101));
    }
    neighbours.assert_undisturbed().await;
}
