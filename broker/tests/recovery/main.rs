//! Coming back: what a subscriber missed comes first, once each, or is named as lost.

#[path = "../support/mod.rs"]
mod support;

mod away;
mod rooms;
mod slow;

use std::sync::Arc;

use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{Keep, RoomClass};
use cauce_protocol::Payload;
use cauce_protocol::message::Policy;
use serde_json::{Value, json};
use support::Broker;

/// A broker whose tenant `a` keeps so much of every room.
fn keeping(messages: u32, lines: &str) -> Broker {
    let broker = Broker::with(lines);
    let keep = Keep {
        messages,
        age_ms: 600_000,
        bytes: 0,
    };
    classify(&broker, keep, Policy::Reliable);
    broker
}

fn classify(broker: &Broker, history: Keep, policy: Policy) {
    let class = RoomClass {
        history,
        policy,
        ..RoomClass::default()
    };
    let tenant = broker.server.hub().tenants.get("a").expect("tenant a");
    tenant.configure(TenantSettings {
        classes: RoomClasses::new(Vec::new(), Arc::new(class)),
        ..(*tenant.settings()).clone()
    });
    broker.server.hub().reclassify(&tenant);
}

fn publish(broker: &Broker, room: &str, n: u64) {
    let a = broker.server.handle().tenant("a").expect("tenant a");
    a.publish(room, "e", Payload::text(n.to_string()))
        .expect("published");
}

async fn subscribe_with(peer: &mut support::Peer, subscription: Value) -> (Value, Vec<Value>) {
    let (reply, before) = peer
        .ask(json!({"id": 9, "subscribe": {"subscriptions": [subscription]}}))
        .await;
    (reply["subscribed"]["rooms"][0].clone(), before)
}

/// The numbers of the pushes up to `last`.
async fn pushes_until(peer: &mut support::Peer, last: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        let frame = peer.receive().await;
        let seq = frame["push"]["seq"].as_u64();
        seen.push(seq.unwrap_or_else(|| panic!("not a push: {frame}")));
    }
    seen
}
