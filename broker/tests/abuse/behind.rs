//! Readers that fall behind and then go, are sent away, or lose their rights.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cauce_broker::TenantHandle;
use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{Keep, RoomClass};
use cauce_protocol::{Code, Payload, Refusal, UserId};
use serde_json::{Value, json};

use crate::Neighbours;
use crate::support::raw::{Heard, Raw};
use crate::support::{Broker, PATIENCE, full_token, sign_for, token};

const NARROW: &str = "limits.outbox_bytes=128KiB\nlimits.stall_timeout=500ms\nlimits.mailbox_bytes=64MiB";

fn keeping(messages: u32, lines: &str) -> Broker {
    let broker = Broker::with(lines);
    let class = RoomClass {
        history: Keep {
            messages,
            age_ms: 600_000,
            bytes: 0,
        },
        ..RoomClass::default()
    };
    let tenant = broker.server.hub().tenants.get("a").expect("tenant a");
    tenant.configure(TenantSettings {
        classes: RoomClasses::new(Vec::new(), Arc::new(class)),
        ..(*tenant.settings()).clone()
    });
    broker
}

/// More than fit into what a push leaves free of a full outbox.
const PLUGS: usize = 40;

/// A peer that has joined the room, and reads no more.
async fn stalled(broker: &Broker, token: &str, features: u64) -> Raw {
    let mut peer = Raw::connect_narrow(broker.address).await;
    peer.upgrade(&format!("/v1/ws?token={token}"), "").await;
    peer.hear_json().await;
    peer.say(json!({"id": 1, "hello": {"version": 1, "features": features}}))
        .await;
    peer.hear_json().await;
    peer.say(json!({"id": 2, "subscribe": {"rooms": ["flood"]}}))
        .await;
    assert!(peer.hear_json().await["reply"]["subscribed"].is_object());
    peer
}

/// Publishes until somebody has fallen behind. Answers the last number.
async fn flood_until_behind(broker: &Broker, a: &TenantHandle) -> u64 {
    for n in 1..20_000u64 {
        a.publish("flood", "e", Payload::text(format!("{n:0>4000}")))
            .expect("published");
        if n % 16 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if broker.server.handle().metrics().total(|shard| &shard.fell_behind) > 0 {
                return n;
            }
        }
    }
    panic!("a reader that reads nothing never falls behind");
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let reached = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

fn turns(broker: &Broker) -> u64 {
    broker.server.handle().metrics().total(|shard| &shard.turns)
}

#[tokio::test]
async fn a_shard_rests_after_a_reader_that_was_behind_has_gone() {
    let broker = keeping(100_000, NARROW);
    let a = broker.server.handle().tenant("a").expect("tenant a");
    // One is closed for stalling; one is sent away while it is behind, and reads its last words.
    let _deaf = stalled(&broker, &token("a", "deaf"), 3).await;
    let mut sent = stalled(&broker, &token("a", "sent"), 3).await;
    flood_until_behind(&broker, &a).await;
    let refusal = Refusal::new(Code::Forbidden, "go");
    a.disconnect_user(&UserId::new("sent").expect("a name"), refusal);
    while !matches!(sent.hear().await, Heard::End) {}
    drop(sent);
    until("everybody is gone", || broker.server.handle().connections() == 0).await;
    // A shard that spins makes hundreds of thousands of turns a second; one at rest wakes for its ticks.
    let (before, began) = (turns(&broker), Instant::now());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (spent, waited) = (turns(&broker) - before, began.elapsed());
    assert!(
        u128::from(spent) < waited.as_millis() / 3,
        "{spent} turns for nobody in {waited:?}"
    );
}

#[tokio::test]
async fn a_shard_rests_while_a_reader_that_is_behind_does_not_read() {
    let broker = keeping(100_000, "limits.outbox_bytes=128KiB\nlimits.mailbox_bytes=64MiB");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let _deaf = stalled(&broker, &token("a", "deaf"), 3).await;
    flood_until_behind(&broker, &a).await;
    until("what was published is taken", || {
        let (before, began) = (turns(&broker), Instant::now());
        std::thread::sleep(Duration::from_millis(50));
        u128::from(turns(&broker) - before) < began.elapsed().as_millis() * 2 / 5
    })
    .await;
}

#[tokio::test]
async fn states_of_devices_that_wait_are_not_told_to_one_who_has_left_or_lost_the_right() {
    let broker = keeping(100_000, "limits.outbox_bytes=128KiB\nlimits.mailbox_bytes=64MiB");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let credential = broker.device_token("a", None);
    let mut plugs = Vec::new();
    for n in 0..PLUGS {
        let mut plug = Raw::connect(broker.address).await;
        plug.upgrade(&format!("/shelly?token={}", credential.expose()), "")
            .await;
        let params = json!({"ts": 1_700_000_000.5, "switch:0": {"id": 0, "output": true, "apower": 1.5}});
        let src = format!("shellyplugsg3-aabb{n:02}");
        plug.say(json!({"src": src, "dst": "c", "method": "NotifyFullStatus", "params": params}))
            .await;
        plugs.push(plug);
    }
    let tenant = broker.server.hub().tenants.get("a").expect("tenant a");
    until("the plugs are known", || tenant.devices_len() == PLUGS).await;

    let mut peer = stalled(&broker, &full_token("a", "mallory", "x"), 3).await;
    let mut leaver = stalled(&broker, &full_token("a", "leaver", "x"), 3).await;
    let last = flood_until_behind(&broker, &a).await;
    until("both are behind", || {
        broker.server.handle().metrics().total(|shard| &shard.fell_behind) == 2
    })
    .await;
    // Their outboxes are full, so the states wait; then the reason to tell them is gone.
    for peer in [&mut peer, &mut leaver] {
        let devices = json!({"id": 3, "subscribe": {"rooms": ["$devices"]}});
        peer.say(devices).await;
    }
    leaver
        .say(json!({"id": 4, "unsubscribe": {"rooms": ["$devices"]}}))
        .await;
    let narrow = sign_for("a", crate::support::claims("mallory", &["flood"]));
    peer.say(json!({"id": 4, "refresh": {"token": narrow}})).await;
    for (who, peer) in [("mallory", &mut peer), ("leaver", &mut leaver)] {
        let (mut answered, mut next) = (false, 1);
        while !answered || next <= last {
            let frame = match peer.hear().await {
                Heard::Text(text) => serde_json::from_str::<Value>(&text).expect("JSON"),
                Heard::Ping | Heard::Pong => continue,
                other => panic!("{who}: {other:?}"),
            };
            // A few fit into the outbox while it was right to tell them.
            assert!(!answered || frame["state"].is_null(), "{who} is told: {frame}");
            answered |= frame["reply"]["id"] == 4;
            if let Some(seq) = frame["push"]["seq"].as_u64() {
                assert_eq!(seq, next, "{who} misses something");
                next += 1;
            }
        }
    }
}

#[tokio::test]
async fn a_message_larger_than_what_an_outbox_has_for_pushes_is_delivered() {
    let lines = "limits.outbox_bytes=128KiB\nlimits.frame_bytes=64KiB\nlimits.payload_bytes=60KiB";
    let broker = keeping(100, lines);
    let neighbours = Neighbours::move_in(&broker).await;
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut peer = broker.join(&token("a", "ann")).await;
    peer.subscribe(&["large"]).await;
    for n in 1..=50u64 {
        a.publish("large", "e", Payload::text(format!("{n:0>61000}")))
            .expect("published");
    }
    for n in 1..=50u64 {
        assert_eq!(peer.receive().await["push"]["seq"], n);
    }
    neighbours.assert_undisturbed().await;
}

#[tokio::test]
async fn one_who_asks_for_pages_and_reads_none_is_refused_and_stays() {
    let broker = keeping(100_000, "limits.outbox_bytes=128KiB\nlimits.mailbox_bytes=64MiB");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut peer = stalled(&broker, &token("a", "greedy"), 3).await;
    let last = flood_until_behind(&broker, &a).await;
    let requests = || broker.server.handle().metrics().total(|shard| &shard.requests);
    let before = requests();
    for id in 10..60 {
        peer.say(json!({"id": id, "history": {"room": "flood", "limit": 1000}}))
            .await;
    }
    // As soon as it reads there is room for a page.
    until("all of it is asked", || requests() == before + 50).await;
    let (mut refused, mut next) = (0, 1);
    while refused < 50 || next <= last {
        let frame = match peer.hear().await {
            Heard::Text(text) => serde_json::from_str::<Value>(&text).expect("JSON"),
            Heard::Ping | Heard::Pong => continue,
            other => panic!("it is gone: {other:?}"),
        };
        if let Some(seq) = frame["push"]["seq"].as_u64() {
            assert_eq!(seq, next);
            next += 1;
        } else {
            assert_eq!(frame["reply"]["error"]["name"], "overloaded", "{frame}");
            assert!(
                frame["reply"]["error"]["retry_after_ms"].as_u64() > Some(0),
                "{frame}"
            );
            refused += 1;
        }
    }
    // Once it has read, it is given a page again.
    peer.say(json!({"id": 9, "history": {"room": "flood"}})).await;
    assert!(peer.hear_json().await["reply"]["history_page"].is_object());
}
