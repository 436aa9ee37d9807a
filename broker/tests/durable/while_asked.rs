//! While the store is asked for the past: what the client asks meanwhile keeps its order, and who leaves holds up nobody.

use std::path::Path;

use cauce_protocol::Payload;
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::{Broker, PATIENCE, token};
use crate::{again, durable, publish, pushes_until, stop};

#[tokio::test]
async fn what_a_client_asks_while_the_store_is_asked_keeps_its_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let epoch = {
        let mut peer = broker.join(&token("a", "ann")).await;
        peer.subscribe(&["r"]).await.remove(0)["epoch"].clone()
    };
    for n in 1..=20 {
        publish(&broker, n).await;
    }
    stop(broker).await;
    // Memory is empty now: the store must be asked.
    let broker = durable(dir.path(), "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let since = json!({"room": "r", "epoch": epoch, "seq": 5});
    peer.say(json!({"id": 1, "subscribe": {"subscriptions": [since], "rooms": ["other"]}}))
        .await;
    peer.say(json!({"id": 2, "publish": {"room": "other", "event": "e"}}))
        .await;
    peer.say(json!({"id": 3, "unsubscribe": {"rooms": ["r"]}})).await;
    peer.say(json!({"id": 4, "subscribe": {"subscriptions": [{"room": "r", "epoch": epoch, "seq": 18}]}}))
        .await;
    let (mut answers, mut rooms, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    while numbers.last() != Some(&20) || !answers.contains(&4) {
        let frame = peer.receive().await;
        if let Some(id) = frame["reply"]["id"].as_u64() {
            answers.push(id);
            for room in frame["reply"]["subscribed"]["rooms"]
                .as_array()
                .into_iter()
                .flatten()
            {
                rooms.push(room["room"].clone());
            }
        } else {
            assert!(
                rooms.contains(&frame["push"]["room"]),
                "a push before its room was named: {frame}"
            );
            if answers.contains(&4) {
                numbers.extend(frame["push"]["seq"].as_u64());
            }
        }
    }
    answers.retain(|&id| id != 2);
    assert_eq!(answers, [1, 3, 4], "in the order of the requests");
    assert_eq!(
        numbers,
        [19, 20],
        "the second subscription begins where it was asked to"
    );
    stop(broker).await;
}

/// Who waited for somebody else's fetch, and left, once kept the shard from ever carrying that fetch out.
#[tokio::test]
async fn leaving_while_the_past_is_fetched_holds_up_nobody() {
    const ROOMS: usize = 40;
    let dir = tempfile::tempdir().expect("a directory");
    let one_shard = "threads.client_shards=1";
    let broker = durable(dir.path(), one_shard);
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut positions = Vec::new();
    for room in 0..ROOMS {
        for _ in 0..5 {
            let accepted = a
                .publish_durably(&format!("r{room}"), "e", Payload::NULL, None)
                .await;
            positions.push(accepted.expect("committed").epoch.0);
        }
    }
    positions.dedup();
    stop(broker).await;
    let broker = durable(dir.path(), one_shard);
    let mut witness = broker.join(&token("a", "witness")).await;
    for (room, epoch) in positions.iter().enumerate() {
        let since = json!({"id": 9, "subscribe": {"subscriptions": [{"room": format!("r{room}"), "epoch": epoch, "seq": 1}]}});
        let mut peers = Vec::new();
        for n in 0..3 {
            let mut peer = broker.join(&token("a", &format!("user-{n}"))).await;
            peer.say(since.clone()).await;
            peers.push(peer);
        }
        drop(peers);
        let (pong, _) = witness.ask(json!({"id": 1, "ping": {}})).await;
        assert!(pong["pong"].is_object(), "{pong}");
    }
    stop(broker).await;
}

#[tokio::test]
async fn while_the_store_cannot_be_read_a_position_is_refused_and_the_next_try_is_good() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    for n in 1..=5 {
        publish(&broker, n).await;
    }
    let mut peer = broker.join(&token("a", "ann")).await;
    let epoch = peer.subscribe(&["r"]).await.remove(0)["epoch"].clone();
    stop(broker).await;
    let broker = durable(dir.path(), "");
    rename(dir.path(), "messages", "elsewhere").await;
    let mut peer = broker.join(&token("a", "ann")).await;
    let since = json!({"id": 9, "subscribe": {"subscriptions": [{"room": "r", "epoch": epoch, "seq": 2}]}});
    let (reply, _) = peer.ask(since.clone()).await;
    assert_eq!(reply["error"]["name"], "unavailable", "{reply}");
    rename(dir.path(), "elsewhere", "messages").await;
    let (reply, _) = peer.ask(since).await;
    assert_eq!(
        reply["subscribed"]["rooms"][0]["recovery"], "continued",
        "{reply}"
    );
    assert_eq!(pushes_until(&mut peer, 5).await, [3, 4, 5]);
    stop(broker).await;
}

#[tokio::test]
async fn a_room_that_is_left_and_joined_again_while_the_store_is_asked_comes_once_and_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let epoch = peer.subscribe(&["r"]).await[0]["epoch"].clone();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for n in 1..=3_000u64 {
        a.publish("r", "e", Payload::text(n.to_string()))
            .expect("published");
    }
    publish(&broker, 3_001).await;
    drop(peer);
    let broker = again(broker, dir.path()).await;
    let mut peers = Vec::new();
    for n in 0..60 {
        let mut peer = broker.join(&token("a", &format!("user-{n}"))).await;
        peer.ask(json!({"id": 1, "hello": {"version": 1, "features": 3}}))
            .await;
        let since = |seq: u64| json!({"room": "r", "epoch": epoch, "seq": seq});
        peer.say(json!({"id": 2, "subscribe": {"subscriptions": [since(n * 20)]}}))
            .await;
        if n % 3 == 0 {
            // So that some are left at the one moment and some at another.
            peer.ask(json!({"id": 3, "ping": {}})).await;
        }
        peer.say(json!({"id": 4, "unsubscribe": {"rooms": ["r"]}})).await;
        peer.say(json!({"id": 5, "subscribe": {"subscriptions": [since(2_900)]}}))
            .await;
        peers.push(peer);
    }
    for peer in &mut peers {
        while peer.receive().await["reply"]["id"] != 4 {}
        let mut seen = Vec::new();
        while seen.last() != Some(&3_001) {
            let frame = peer.receive().await;
            assert!(frame["gap"].is_null(), "{frame}");
            if frame["reply"]["id"] == 5 {
                assert_eq!(seen, [0u64; 0], "nothing comes before the answer");
                assert_eq!(
                    frame["reply"]["subscribed"]["rooms"][0]["recovery"], "continued",
                    "{frame}"
                );
            }
            seen.extend(frame["push"]["seq"].as_u64());
        }
        assert_eq!(seen, (2_901..=3_001).collect::<Vec<_>>());
    }
    stop(broker).await;
}

/// Takes a table away, or brings it back: meanwhile the store cannot be read.
async fn rename(dir: &Path, from: &str, to: &str) {
    let options = SqliteConnectOptions::new()
        .filename(dir.join("cauce.db"))
        .busy_timeout(PATIENCE);
    let mut database = options.connect().await.expect("a second connection");
    let statement = format!("ALTER TABLE {from} RENAME TO {to}");
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(&mut database)
        .await
        .expect("renamed");
}

/// A broker that holds five messages of the room `r` on disk alone, where it cannot read them, and the room's epoch.
async fn five_out_of_reach(dir: &Path) -> (Broker, Value) {
    let broker = durable(dir, "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let epoch = peer.subscribe(&["r"]).await[0]["epoch"].clone();
    for n in 1..=5 {
        publish(&broker, n).await;
    }
    drop(peer);
    let broker = again(broker, dir).await;
    rename(dir, "messages", "elsewhere").await;
    (broker, epoch)
}

#[tokio::test]
async fn a_subscribe_that_the_store_fails_takes_back_only_what_it_joined() {
    let dir = tempfile::tempdir().expect("a directory");
    let (broker, epoch) = five_out_of_reach(dir.path()).await;
    let mut peer = broker.join(&token("a", "ann")).await;
    peer.subscribe(&["live"]).await;
    let since = json!({"room": "r", "epoch": epoch, "seq": 2});
    let both = json!({"id": 2, "subscribe": {"rooms": ["live"], "subscriptions": [since]}});
    let (reply, _) = peer.ask(both.clone()).await;
    assert_eq!(reply["error"]["name"], "unavailable", "{reply}");
    assert!(
        reply["error"]["retry_after_ms"].as_u64().expect("a time") > 0,
        "{reply}"
    );
    let a = broker.server.handle().tenant("a").expect("tenant a");
    a.publish("live", "e", Payload::NULL).expect("published");
    assert_eq!(
        peer.receive().await["push"]["event"],
        "e",
        "the room from before is still joined"
    );
    rename(dir.path(), "elsewhere", "messages").await;
    let (reply, _) = peer.ask(both).await;
    let rooms = &reply["subscribed"]["rooms"];
    assert_eq!(rooms[1]["recovery"], "continued", "{reply}");
    assert_eq!(pushes_until(&mut peer, 5).await, [3, 4, 5]);
}

#[tokio::test]
async fn a_join_that_waits_for_the_store_does_not_touch_the_one_that_followed_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (broker, epoch) = five_out_of_reach(dir.path()).await;
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut peer = broker.join(&token("a", "ann")).await;
    let since = json!({"room": "r", "epoch": epoch, "seq": 2});
    peer.say(json!({"id": 2, "subscribe": {"subscriptions": [since]}}))
        .await;
    peer.say(json!({"id": 3, "unsubscribe": {"rooms": ["r"]}})).await;
    let (reply, before) = peer.ask(json!({"id": 4, "subscribe": {"rooms": ["r"]}})).await;
    let refused = &before[0]["reply"];
    assert_eq!(
        (&refused["id"], &refused["error"]["name"]),
        (&json!(2), &json!("unavailable")),
        "what it asked first is answered first: {before:?}"
    );
    assert_eq!(reply["subscribed"]["rooms"][0]["seq"], 5, "{reply}");
    for n in 6..=8u64 {
        a.publish("r", "e", Payload::text(n.to_string()))
            .expect("published");
    }
    assert_eq!(pushes_until(&mut peer, 8).await, [6, 7, 8]);
    rename(dir.path(), "elsewhere", "messages").await;
    publish(&broker, 9).await;
    assert_eq!(pushes_until(&mut peer, 9).await, [9]);
    stop(broker).await;
}
