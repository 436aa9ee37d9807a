//! Coming back: what a subscriber missed comes first, once each, or is named as lost.

mod support;

use std::sync::Arc;
use std::time::Duration;

use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{Keep, RoomClass};
use cauce_protocol::Payload;
use cauce_protocol::message::Policy;
use serde_json::{Value, json};
use support::raw::{Heard, Raw};
use support::{Broker, claims, sign_for, token};

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

#[tokio::test]
async fn a_client_that_was_away_gets_exactly_what_it_missed_and_then_goes_on() {
    let broker = keeping(100, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    publish(&broker, "r", 1);
    assert_eq!(pushes_until(&mut peer, 1).await, [1]);
    drop(peer);
    for n in 2..=40 {
        publish(&broker, "r", n);
    }
    let mut peer = broker.join(&token("a", "ann")).await;
    let (room, before) = subscribe_with(
        &mut peer,
        json!({"room": "r", "epoch": position["epoch"], "seq": 1}),
    )
    .await;
    assert_eq!(
        (&room["recovery"], &room["seq"], &room["head"]),
        (&json!("continued"), &json!(1), &json!(40)),
        "{room}"
    );
    assert_eq!(before, Vec::<Value>::new(), "nothing comes before the answer");
    publish(&broker, "r", 41);
    assert_eq!(pushes_until(&mut peer, 41).await, (2..=41).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_position_from_before_the_first_message_counts() {
    let broker = keeping(100, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    drop(peer);
    publish(&broker, "r", 1);
    let mut peer = broker.join(&token("a", "ann")).await;
    let (room, _) = subscribe_with(
        &mut peer,
        json!({"room": "r", "epoch": position["epoch"], "seq": 0}),
    )
    .await;
    assert_eq!(room["recovery"], "continued", "{room}");
    assert_eq!(pushes_until(&mut peer, 1).await, [1]);
}

#[tokio::test]
async fn what_is_no_longer_kept_is_named_exactly() {
    let broker = keeping(5, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    drop(peer);
    for n in 1..=20 {
        publish(&broker, "r", n);
    }
    let mut peer = broker.join(&token("a", "ann")).await;
    let (room, _) = subscribe_with(
        &mut peer,
        json!({"room": "r", "epoch": position["epoch"], "seq": 3}),
    )
    .await;
    assert_eq!(
        (&room["recovery"], &room["lost_from"], &room["lost_to"]),
        (&json!("partial"), &json!(4), &json!(15)),
        "{room}"
    );
    assert_eq!(pushes_until(&mut peer, 20).await, [16, 17, 18, 19, 20]);
}

#[tokio::test]
async fn another_numbering_or_a_number_never_given_is_a_reset() {
    let broker = keeping(5, "");
    publish(&broker, "r", 1);
    for since in [
        json!({"room": "r", "epoch": 7, "seq": 0}),
        json!({"room": "r", "epoch": 7, "seq": 99}),
    ] {
        let mut peer = broker.join(&token("a", "ann")).await;
        let (room, _) = subscribe_with(&mut peer, since).await;
        assert_eq!(
            (&room["recovery"], &room["seq"]),
            (&json!("reset"), &json!(1)),
            "{room}"
        );
        let mut other = broker.join(&token("a", "bob")).await;
        let ahead = json!({"room": "r", "epoch": room["epoch"], "seq": 2});
        assert_eq!(subscribe_with(&mut other, ahead).await.0["recovery"], "reset");
    }
}

#[tokio::test]
async fn a_newcomer_may_begin_a_few_messages_back_if_he_may_read_history() {
    use cauce_broker::auth::{Action, Actions};
    let broker = keeping(100, "");
    for n in 1..=10 {
        publish(&broker, "r", n);
    }
    let mut peer = broker.join(&token("a", "ann")).await;
    let (room, _) = subscribe_with(&mut peer, json!({"room": "r", "recent": 3})).await;
    assert_eq!((&room["seq"], &room["head"]), (&json!(7), &json!(10)), "{room}");
    assert_eq!(pushes_until(&mut peer, 10).await, [8, 9, 10]);

    let mut narrow = claims("bob", &["*"]);
    narrow.grants[0].allow = [Action::Subscribe].into_iter().collect::<Actions>();
    let mut peer = broker.join(&sign_for("a", narrow)).await;
    let (reply, _) = peer
        .ask(json!({"id": 1, "subscribe": {"subscriptions": [{"room": "r", "recent": 3}]}}))
        .await;
    assert_eq!(reply["error"]["name"], "forbidden", "{reply}");
}

#[tokio::test]
async fn an_exclusion_outlives_a_reconnect_and_the_message_stays_in_history() {
    let broker = keeping(100, "");
    let mut ann = broker.join(&token("a", "ann")).await;
    let before = ann.connection;
    let position = ann.subscribe(&["r"]).await.remove(0);
    let publish = json!({"id": 2, "publish": {"room": "r", "event": "own", "exclude_sender": true}});
    assert_eq!(ann.ask(publish).await.0["published"]["seq"], 1);
    drop(ann);
    let since = json!({"room": "r", "epoch": position["epoch"], "seq": 0});

    let mut back = broker.join(&token("a", "ann")).await;
    back.ask(json!({"id": 1, "hello": {"version": 1, "features": 1, "previous": [before]}}))
        .await;
    let (room, _) = subscribe_with(&mut back, since.clone()).await;
    assert_eq!(room["recovery"], "continued", "{room}");
    let frame = back.receive().await;
    assert_eq!(
        frame["advance"]["seq"], 1,
        "it is told that the room went on: {frame}"
    );

    let mut other = broker.join(&token("a", "bob")).await;
    subscribe_with(&mut other, since).await;
    assert_eq!(other.receive().await["push"]["event"], "own");
    let (page, _) = other.ask(json!({"id": 3, "history": {"room": "r"}})).await;
    assert_eq!(page["history_page"]["entries"][0]["event"], "own", "{page}");
}

#[tokio::test]
async fn a_slow_reader_catches_up_without_being_thrown_out() {
    let broker = keeping(100_000, "limits.outbox_bytes=128KiB\nlimits.mailbox_bytes=64MiB");
    let mut peer = Raw::connect_narrow(broker.address).await;
    peer.upgrade(&format!("/v1/ws?token={}", token("a", "slow")), "")
        .await;
    peer.hear_json().await;
    peer.say(json!({"id": 1, "subscribe": {"rooms": ["r"]}})).await;
    peer.hear_json().await;
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for n in 1..=2_000u64 {
        a.publish("r", "e", Payload::text(format!("{n:0>4000}")))
            .expect("published");
        if n % 64 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    for n in 1..=2_000u64 {
        let frame = loop {
            match peer.hear().await {
                Heard::Text(text) => break serde_json::from_str::<Value>(&text).expect("JSON"),
                Heard::Ping | Heard::Pong => {}
                other => panic!("after {n}: {other:?}"),
            }
        };
        assert_eq!(frame["push"]["seq"], n);
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_lost_and_stays() {
    let broker = keeping(10, "limits.outbox_bytes=128KiB\nlimits.mailbox_bytes=64MiB");
    let mut peer = Raw::connect_narrow(broker.address).await;
    peer.upgrade(&format!("/v1/ws?token={}", token("a", "slow")), "")
        .await;
    peer.hear_json().await;
    peer.say(json!({"id": 1, "hello": {"version": 1, "features": 3}}))
        .await;
    peer.hear_json().await;
    peer.say(json!({"id": 2, "subscribe": {"rooms": ["r"]}})).await;
    peer.hear_json().await;
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for n in 1..=5_000u64 {
        a.publish("r", "e", Payload::text(format!("{n:0>4000}")))
            .expect("published");
        if n % 64 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let (mut next, mut lost) = (1, 0);
    while next <= 5_000 {
        let Heard::Text(text) = peer.hear().await else {
            continue;
        };
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        if let Some(seq) = frame["push"]["seq"].as_u64() {
            assert_eq!(seq, next, "every jump is announced");
            next += 1;
        } else {
            assert_eq!(frame["gap"]["from"], next, "{frame}");
            let to = frame["gap"]["to"].as_u64().expect("a number");
            lost += to - next + 1;
            next = to + 1;
        }
    }
    assert!(
        lost > 100,
        "it read nothing for 5,000 messages, of which 10 were kept"
    );
    let metrics = broker.server.handle();
    let counted = metrics.metrics().total(|shard| &shard.lost);
    assert_eq!(
        counted, lost,
        "each loss is counted once, however often it was tried"
    );
}

/// What a stalled reader gets once it reads: the numbers and keys of pushes, and gaps.
async fn after_a_stall(policy: Value, messages: u64) -> (Vec<(u64, String)>, Vec<(u64, u64)>) {
    let broker = keeping(100_000, "limits.outbox_bytes=128KiB\nlimits.mailbox_bytes=64MiB");
    let mut peer = Raw::connect_narrow(broker.address).await;
    peer.upgrade(&format!("/v1/ws?token={}", token("a", "slow")), "")
        .await;
    peer.hear_json().await;
    peer.say(json!({"id": 1, "hello": {"version": 1, "features": 3}}))
        .await;
    peer.hear_json().await;
    let mut subscription = policy;
    subscription["room"] = "r".into();
    peer.say(json!({"id": 2, "subscribe": {"subscriptions": [subscription]}}))
        .await;
    peer.hear_json().await;
    let mut publisher = broker.join(&token("a", "pub")).await;
    for n in 1..=messages {
        let key = format!("k{}", n % 7);
        let publish =
            json!({"publish": {"room": "r", "event": "e", "key": key, "text": format!("{n:0>4000}")}});
        publisher.say(publish).await;
        if n % 32 == 0 {
            publisher.ask(json!({"id": n, "ping": {}})).await;
        }
    }
    let end = json!({"id": 1, "publish": {"room": "r", "event": "end", "key": "end"}});
    publisher.ask(end).await;
    let (mut pushes, mut gaps) = (Vec::new(), Vec::new());
    loop {
        let Heard::Text(text) = peer.hear().await else {
            continue;
        };
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        if frame["push"]["event"] == "end" {
            return (pushes, gaps);
        }
        if let Some(seq) = frame["push"]["seq"].as_u64() {
            pushes.push((seq, frame["push"]["key"].as_str().expect("a key").to_owned()));
        } else {
            let number = |name: &str| frame["gap"][name].as_u64().expect("a gap");
            gaps.push((number("from"), number("to")));
        }
    }
}

#[tokio::test]
async fn latest_gives_a_slow_reader_the_newest_of_each_key() {
    let (pushes, gaps) = after_a_stall(json!({"delivery": "latest"}), 3_000).await;
    assert!(
        pushes.len() < 2_000,
        "it was spared the backlog: {}",
        pushes.len()
    );
    assert!(pushes.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order");
    for key in 0..7 {
        let newest = (2_994..=3_000).find(|n| n % 7 == key).expect("one of seven");
        let last = pushes
            .iter()
            .rfind(|(_, k)| *k == format!("k{key}"))
            .expect("each key");
        assert_eq!(last.0, newest, "the newest of key {key}");
    }
    assert_eq!(gaps, [], "nothing it asked for is lost");
}

#[tokio::test]
async fn drop_oldest_tells_what_it_dropped_and_gives_the_newest() {
    let (pushes, gaps) = after_a_stall(json!({"delivery": "drop_oldest"}), 3_000).await;
    assert_eq!(pushes.last().expect("pushes").0, 3_000);
    assert!(!gaps.is_empty());
    let told: u64 = gaps.iter().map(|(from, to)| to - from + 1).sum();
    assert_eq!(
        told + pushes.len() as u64,
        3_000,
        "each was given or named: {gaps:?}"
    );
}

#[tokio::test]
async fn sample_gives_each_key_at_most_once_an_interval() {
    let broker = keeping(100, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    subscribe_with(
        &mut peer,
        json!({"room": "r", "delivery": "sample", "sample_ms": 200}),
    )
    .await;
    let began = tokio::time::Instant::now();
    let mut publisher = broker.join(&token("a", "pub")).await;
    for n in 1..=500u64 {
        publisher
            .ask(json!({"id": 1, "publish": {"room": "r", "event": "e", "key": "k", "json": n}}))
            .await;
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&500) {
        seen.push(peer.receive().await["push"]["json"].as_u64().expect("a number"));
    }
    let intervals = began.elapsed().as_millis() as usize / 200 + 1;
    assert!(
        seen.len() <= intervals + 1,
        "{} pushes in {intervals} intervals",
        seen.len()
    );
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
}

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
