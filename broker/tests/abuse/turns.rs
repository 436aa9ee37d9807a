//! Work that counts for little and is much: a flood of messages that hardly anybody wants, thousands of messages for each of many
//! who come back. A turn has its bound for each, and others go between two turns.

use std::io::Write as _;
use std::time::Duration;

use cauce_broker::TenantHandle;
use cauce_protocol::message::Recipient;
use cauce_protocol::{Payload, Role};
use serde_json::json;

use crate::support::files::peers;
use crate::support::raw::{KEY, Raw, masked};
use crate::support::{Broker, PATIENCE, token};

const READERS: u64 = 100;

/// Fewer than one turn takes of messages.
const MESSAGES: u64 = 4_000;

/// Peers that one turn looks at, and one message more.
const A_TURN: u64 = 65_536 + READERS;

/// Messages that each of those has missed who come back, and what one turn gives all of them together, and one more.
const MISSED: u64 = 640;
const CAUGHT_UP_A_TURN: u64 = 16_384 + 128;

/// Turns that the one shard makes of what comes while it is held up, until all is done.
fn turns_for(broker: &Broker, mut say: impl FnMut(), is_done: impl Fn() -> bool) -> u64 {
    let (hub, handle) = (broker.server.hub(), broker.server.handle());
    let b = hub.tenants.get("b").expect("tenant b");
    let turns = || handle.metrics().total(|shard| &shard.turns);
    // Whoever brings a token asks what was revoked. The shard waits there, and takes nothing until it is told.
    let held = b.revocations.write();
    let mut newcomer = std::net::TcpStream::connect(broker.address).expect("a connection");
    let head = format!(
        "GET /v1/ws?token={} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        token("b", "ann")
    );
    newcomer.write_all(head.as_bytes()).expect("it is heard");
    // Time to reach the lock. Were it not there yet it would only make more turns of it.
    std::thread::sleep(Duration::from_millis(100));
    let before = turns();
    say();
    drop(held);
    let began = std::time::Instant::now();
    while hub.shards[0].used() > 0 || !is_done() {
        assert!(began.elapsed() < PATIENCE, "the shard takes all");
        std::thread::sleep(Duration::from_micros(100));
    }
    turns() - before
}

#[tokio::test]
async fn messages_that_nobody_wants_leave_turns_to_others() {
    let broker = Broker::with("threads.client_shards=1");
    let mut readers = Vec::new();
    for n in 0..READERS {
        let mut reader = broker.join(&token("a", &format!("r{n}"))).await;
        let nothing = json!({"room": "flood", "events": ["never"]});
        let (reply, _) = reader
            .ask(json!({"id": 1, "subscribe": {"subscriptions": [nothing]}}))
            .await;
        assert!(reply["subscribed"].is_object(), "{reply}");
        readers.push(reader);
    }
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let many = |say: &dyn Fn(&TenantHandle)| (0..MESSAGES).for_each(|_| say(&a));
    let publish = |a: &TenantHandle| {
        a.publish("flood", "e", Payload::NULL).expect("published");
    };
    let filtered = turns_for(&broker, || many(&publish), || true);
    let nobody = Role::new("nobody").expect("a name");
    let send = |a: &TenantHandle| {
        a.send(Recipient::Role(nobody.clone()), "e", Payload::NULL)
            .expect("sent");
    };
    let unmatched = turns_for(&broker, || many(&send), || true);
    for turns in [filtered, unmatched] {
        assert!(
            turns >= MESSAGES * READERS / A_TURN,
            "{turns} turns: others wait for all of it"
        );
    }
}

#[tokio::test]
async fn a_herd_that_comes_back_leaves_turns_to_others() {
    let broker = Broker::with("threads.client_shards=1\nrooms.history_messages=1000");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for n in 0..MISSED {
        a.publish("r", "e", Payload::text(n.to_string()))
            .expect("published");
    }
    // Both ends of a connection are in this process.
    let herd_size = peers(4 * READERS as usize, 2);
    let mut herd = Vec::new();
    for n in 0..herd_size {
        let mut peer = Raw::connect(broker.address).await;
        peer.upgrade(&format!("/v1/ws?token={}", token("a", &format!("h{n}"))), "")
            .await;
        peer.hear_json().await;
        herd.push(peer.stream.into_std().expect("a socket"));
    }
    let recent = json!({"id": 1, "subscribe": {"subscriptions": [{"room": "r", "recent": MISSED}]}});
    let recent = masked(true, 1, recent.to_string().as_bytes());
    let handle = broker.server.handle();
    let all = MISSED * herd.len() as u64;
    let turns = turns_for(
        &broker,
        || {
            for peer in &mut herd {
                peer.write_all(&recent).expect("it is heard");
            }
        },
        || handle.metrics().total(|shard| &shard.recovered) == all,
    );
    assert!(
        turns >= all / CAUGHT_UP_A_TURN,
        "{turns} turns: others wait for all of it"
    );
}
