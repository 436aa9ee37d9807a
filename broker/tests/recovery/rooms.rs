//! What a room lets through and keeps: filters, pages of the past, and the rate of a class.

use std::sync::Arc;

use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::RoomClass;
use cauce_protocol::Payload;
use serde_json::{Value, json};

use crate::support::{Broker, token};
use crate::{keeping, publish, subscribe_with};

#[tokio::test]
async fn a_filter_lets_events_and_keys_through_and_keeps_the_position_near() {
    let broker = keeping(1_000, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    peer.ask(json!({"id": 1, "hello": {"version": 1, "features": 1}}))
        .await;
    subscribe_with(
        &mut peer,
        json!({"room": "r", "events": ["wanted"], "keys": ["k"]}),
    )
    .await;
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for _ in 0..600 {
        a.publish("r", "noise", Payload::NULL).expect("published");
    }
    let mut publisher = broker.join(&token("a", "pub")).await;
    for (event, key) in [("wanted", "other"), ("noise", "k"), ("wanted", "k")] {
        publisher
            .ask(json!({"id": 1, "publish": {"room": "r", "event": event, "key": key}}))
            .await;
    }
    assert_eq!(peer.receive().await["advance"]["seq"], 256);
    assert_eq!(peer.receive().await["advance"]["seq"], 512);
    assert_eq!(peer.receive().await["push"]["seq"], 603);
}

#[tokio::test]
async fn a_filter_keeps_the_position_near_while_it_catches_up_too() {
    let broker = keeping(10_000, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    drop(peer);
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for _ in 0..600 {
        a.publish("r", "noise", Payload::NULL).expect("published");
    }
    a.publish("r", "wanted", Payload::NULL).expect("published");
    let mut peer = broker.join(&token("a", "ann")).await;
    peer.ask(json!({"id": 1, "hello": {"version": 1, "features": 1}}))
        .await;
    let since = json!({"room": "r", "epoch": position["epoch"], "seq": 0, "events": ["wanted"]});
    subscribe_with(&mut peer, since).await;
    assert_eq!(peer.receive().await["advance"]["seq"], 256);
    assert_eq!(peer.receive().await["advance"]["seq"], 512);
    assert_eq!(peer.receive().await["push"]["seq"], 601);
}

#[tokio::test]
async fn pages_go_both_ways_and_say_how_far_the_past_reaches() {
    let broker = keeping(50, "");
    for n in 1..=80 {
        publish(&broker, "r", n);
    }
    let mut peer = broker.join(&token("a", "ann")).await;
    let numbers = |page: &Value| -> Vec<u64> {
        let entries = page["history_page"]["entries"].as_array().expect("entries");
        entries
            .iter()
            .map(|entry| entry["seq"].as_u64().expect("a number"))
            .collect()
    };
    let (page, _) = peer
        .ask(json!({"id": 1, "history": {"room": "r", "limit": 20}}))
        .await;
    assert_eq!(numbers(&page), (31..=50).collect::<Vec<_>>());
    assert_eq!(
        (&page["history_page"]["first"], &page["history_page"]["head"]),
        (&json!(31), &json!(80))
    );
    assert_eq!(page["history_page"]["more"], true);
    let back = json!({"id": 2, "history": {"room": "r", "backwards": true, "from": 41, "limit": 20}});
    let (page, _) = peer.ask(back).await;
    assert_eq!(numbers(&page), (31..=40).rev().collect::<Vec<_>>());
    let (page, _) = peer
        .ask(json!({"id": 3, "history": {"room": "r", "epoch": 5}}))
        .await;
    assert_eq!(
        numbers(&page),
        Vec::<u64>::new(),
        "another numbering has no past here"
    );
    let (page, _) = peer.ask(json!({"id": 4, "history": {"room": "none"}})).await;
    assert_eq!(numbers(&page), Vec::<u64>::new());
}

#[tokio::test]
async fn a_class_may_bound_the_rate_of_a_room() {
    let broker = Broker::start();
    let class = RoomClass {
        rate: Some(cauce_broker::rate::Quota::per_second(1, 2)),
        ..RoomClass::default()
    };
    let tenant = broker.server.hub().tenants.get("a").expect("tenant a");
    tenant.configure(TenantSettings {
        classes: RoomClasses::new(Vec::new(), Arc::new(class)),
        ..(*tenant.settings()).clone()
    });
    let mut peer = broker.join(&token("a", "ann")).await;
    let publish = json!({"id": 1, "publish": {"room": "r", "event": "e"}});
    assert!(peer.ask(publish.clone()).await.0["published"].is_object());
    assert!(peer.ask(publish.clone()).await.0["published"].is_object());
    let (reply, _) = peer.ask(publish).await;
    assert_eq!(reply["error"]["name"], "rate_limited", "{reply}");
    assert!(reply["error"]["retry_after_ms"].as_u64().expect("a time") > 0);
    let other = json!({"id": 1, "publish": {"room": "other", "event": "e"}});
    assert!(
        peer.ask(other).await.0["published"].is_object(),
        "each room for itself"
    );
}
