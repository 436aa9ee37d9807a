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
//! | asks for pages and reads none | 4100 `overloaded` with the time to wait, it stays |
//! | asks anything at all, with values that no client would send | each request is answered once, it stays |
//! | requests without end, good or bad | 4101 `rate_limited` with the time to wait, it stays |
//! | publishes thousands of messages that a filter or a role keeps from everyone | nothing; others have their turns between them |
//! | a 129th room | 4106 `quota_exceeded`, it stays |

mod anything;
mod behind;
mod framing;
mod requests;
#[path = "../support/mod.rs"]
mod support;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cauce_protocol::wire::{self, client_frame::Request};
use serde_json::{Value, json};
use support::raw::{ProtoPeer, Raw};
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
                let frame = loop {
                    let frame = reader.receive().await;
                    // The abusers may write to everyone in the tenant.
                    if frame["direct"].is_null() {
                        break frame;
                    }
                };
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
            ..wire::Subscribe::default()
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
