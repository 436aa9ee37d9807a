//! Durable rooms: what was acknowledged is there after a restart, once, in order, under the same numbering.

#[path = "../support/mod.rs"]
mod support;

mod past;
mod rooms;
mod while_asked;

use std::path::Path;
use std::sync::Arc;

use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{Durability, Keep, RoomClass};
use cauce_broker::{Persistence, Server};
use cauce_protocol::Payload;
use serde_json::{Value, json};
use support::{Broker, config};

/// A broker on this directory whose tenant `a` has durable rooms only.
fn durable(dir: &Path, lines: &str) -> Broker {
    let config = config(&format!("data_dir={}\n{lines}", dir.display()));
    let server = Server::start(&config, Persistence::Store).expect("the broker starts");
    let address = server.address();
    let broker = Broker { server, address };
    classify(&broker, Durability::Durable, 10_000);
    broker
}

fn classify(broker: &Broker, durability: Durability, messages: u32) {
    let class = RoomClass {
        durability,
        history: Keep {
            messages,
            age_ms: 0,
            bytes: 0,
        },
        ..RoomClass::default()
    };
    let hub = broker.server.hub();
    let tenant = hub.tenants.get("a").expect("tenant a");
    tenant.configure(TenantSettings {
        classes: RoomClasses::new(Vec::new(), Arc::new(class)),
        ..(*tenant.settings()).clone()
    });
    hub.reclassify(&tenant);
}

async fn stop(broker: Broker) {
    let stopped = tokio::task::spawn_blocking(move || broker.server.stop(std::time::Duration::from_secs(5)))
        .await
        .expect("it stops");
    assert_eq!(stopped.unwritten_rows, 0);
}

async fn publish(broker: &Broker, n: u64) -> u64 {
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let accepted = a
        .publish_durably("r", "e", Payload::text(n.to_string()), None)
        .await
        .expect("committed");
    accepted.seq.0
}

async fn subscribe_with(peer: &mut support::Peer, subscription: Value) -> Value {
    let (reply, _) = peer
        .ask(json!({"id": 9, "subscribe": {"subscriptions": [subscription]}}))
        .await;
    assert!(reply["error"].is_null(), "{reply}");
    reply["subscribed"]["rooms"][0].clone()
}

async fn pushes_until(peer: &mut support::Peer, last: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        let frame = peer.receive().await;
        let seq = frame["push"]["seq"].as_u64();
        seen.push(seq.unwrap_or_else(|| panic!("not a push: {frame}")));
    }
    seen
}

async fn again(broker: Broker, dir: &Path) -> Broker {
    stop(broker).await;
    durable(dir, "")
}
