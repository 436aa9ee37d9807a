//! Who does not read for a while: he catches up, or his policy says what gives way, and he is told what he lost.

use std::time::Duration;

use cauce_protocol::Payload;
use serde_json::{Value, json};

use crate::support::raw::{Heard, Raw};
use crate::support::{Broker, PATIENCE, token};
use crate::{keeping, publish, pushes_until, subscribe_with};

/// A client whose socket takes little at a time, and that reads only when the test does.
async fn narrow(broker: &Broker) -> Raw {
    let mut peer = Raw::connect_narrow(broker.address).await;
    peer.upgrade(&format!("/v1/ws?token={}", token("a", "slow")), "")
        .await;
    peer.hear_json().await;
    peer
}

/// Until the shards have taken all that was published: who reads from now on was behind, however slowly they go.
async fn taken(broker: &Broker) {
    let shards = &broker.server.hub().shards;
    let taken = async {
        while shards.iter().any(|mailbox| mailbox.used() > 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken)
        .await
        .expect("the shards take all of it");
}

/// So many messages of four kilobytes to the room `r`, numbered, and taken by the shards.
async fn flood(broker: &Broker, messages: u64) {
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for n in 1..=messages {
        a.publish("r", "e", Payload::text(format!("{n:0>4000}")))
            .expect("published");
        if n % 64 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    taken(broker).await;
}

#[tokio::test]
async fn a_slow_reader_catches_up_without_being_thrown_out() {
    let broker = keeping(100_000, "limits.outbox_bytes=128KiB\nlimits.mailbox_bytes=64MiB");
    let mut peer = narrow(&broker).await;
    peer.say(json!({"id": 1, "subscribe": {"rooms": ["r"]}})).await;
    peer.hear_json().await;
    flood(&broker, 2_000).await;
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
    let mut peer = narrow(&broker).await;
    peer.say(json!({"id": 1, "hello": {"version": 1, "features": 3}}))
        .await;
    peer.hear_json().await;
    peer.say(json!({"id": 2, "subscribe": {"rooms": ["r"]}})).await;
    peer.hear_json().await;
    flood(&broker, 5_000).await;
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
    let mut peer = narrow(&broker).await;
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
    taken(&broker).await;
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
async fn who_joins_again_stands_before_what_waits_for_it() {
    let broker = keeping(100, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let hour = json!({"room": "r", "delivery": "sample", "sample_ms": 3_600_000});
    subscribe_with(&mut peer, hour.clone()).await;
    publish(&broker, "r", 1);
    assert_eq!(pushes_until(&mut peer, 1).await, [1]);
    // Number 2 waits for an hour: whoever came back with the position that is told now must get it.
    publish(&broker, "r", 2);
    let shards = &broker.server.hub().shards;
    while shards.iter().any(|mailbox| mailbox.used() > 0) {
        tokio::task::yield_now().await;
    }
    let (room, _) = subscribe_with(&mut peer, hour).await;
    assert_eq!((&room["seq"], &room["head"]), (&json!(1), &json!(2)), "{room}");
}

#[tokio::test]
async fn what_excludes_a_subscriber_does_not_take_the_place_of_what_waits_for_it() {
    let broker = keeping(100, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    peer.ask(json!({"id": 1, "hello": {"version": 1, "features": 1}}))
        .await;
    let sample = json!({"room": "r", "delivery": "sample", "sample_ms": 1_000});
    subscribe_with(&mut peer, sample).await;
    let mut publisher = broker.join(&token("a", "pub")).await;
    for exclude in [vec![], vec![], vec![peer.connection]] {
        let publish =
            json!({"id": 1, "publish": {"room": "r", "event": "e", "key": "k", "exclude": exclude}});
        publisher.ask(publish).await;
    }
    assert_eq!(peer.receive().await["push"]["seq"], 1);
    // The newest of its key that is for it, and only then the word of the one that is not.
    assert_eq!(peer.receive().await["push"]["seq"], 2);
    assert_eq!(peer.receive().await["advance"]["seq"], 3);
}
