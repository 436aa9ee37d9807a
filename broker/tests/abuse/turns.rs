//! A flood of messages that hardly anybody wants: to look at a thousand subscribers is work, also where it is for none of them.

use std::io::Write as _;
use std::time::Duration;

use cauce_broker::TenantHandle;
use cauce_protocol::message::Recipient;
use cauce_protocol::{Payload, Role};
use serde_json::json;

use crate::support::raw::KEY;
use crate::support::{Broker, PATIENCE, token};

const READERS: u64 = 100;

/// Fewer than one turn takes of messages.
const MESSAGES: u64 = 4_000;

/// Peers that one turn looks at, and one message more.
const A_TURN: u64 = 65_536 + READERS;

/// Turns that the one shard makes of what `say` says while it is held up.
fn turns_for(broker: &Broker, say: impl Fn(&TenantHandle)) -> u64 {
    let (hub, handle) = (broker.server.hub(), broker.server.handle());
    let a = handle.tenant("a").expect("tenant a");
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
    for _ in 0..MESSAGES {
        say(&a);
    }
    drop(held);
    let began = std::time::Instant::now();
    while hub.shards[0].used() > 0 {
        assert!(began.elapsed() < PATIENCE, "the shard takes all");
        std::thread::sleep(Duration::from_millis(1));
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
    let filtered = turns_for(&broker, |a| {
        a.publish("flood", "e", Payload::NULL).expect("published");
    });
    let nobody = Role::new("nobody").expect("a name");
    let unmatched = turns_for(&broker, |a| {
        a.send(Recipient::Role(nobody.clone()), "e", Payload::NULL)
            .expect("sent");
    });
    for turns in [filtered, unmatched] {
        assert!(
            turns >= MESSAGES * READERS / A_TURN,
            "{turns} turns: others wait for all of it"
        );
    }
}
