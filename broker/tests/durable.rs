//! Durable rooms: what was acknowledged is there after a restart, once, in order, under the same numbering.

mod support;

use std::path::Path;
use std::sync::Arc;

use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{Durability, Keep, RoomClass};
use cauce_broker::{Persistence, Server};
use cauce_protocol::Payload;
use cauce_protocol::message::{Direction, History};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};
use support::{Broker, config, token};

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

#[tokio::test]
async fn a_client_recovers_across_a_restart_of_the_broker() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    for n in 1..=30 {
        assert_eq!(publish(&broker, n).await, n);
    }
    assert_eq!(pushes_until(&mut peer, 30).await, (1..=30).collect::<Vec<_>>());
    stop(broker).await;

    let broker = durable(dir.path(), "");
    assert_eq!(publish(&broker, 31).await, 31, "numbering goes on");
    let mut peer = broker.join(&token("a", "ann")).await;
    let room = subscribe_with(
        &mut peer,
        json!({"room": "r", "epoch": position["epoch"], "seq": 10}),
    )
    .await;
    assert_eq!(
        (&room["recovery"], &room["seq"]),
        (&json!("continued"), &json!(10)),
        "{room}"
    );
    assert_eq!(publish(&broker, 32).await, 32);
    assert_eq!(pushes_until(&mut peer, 32).await, (11..=32).collect::<Vec<_>>());
    stop(broker).await;
}

#[tokio::test]
async fn what_memory_no_longer_holds_comes_from_the_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let all: Vec<_> = (1..=3_000u64)
        .map(|n| {
            let a = a.clone();
            tokio::spawn(async move {
                a.publish_durably("r", "e", Payload::text(n.to_string()), None)
                    .await
            })
        })
        .collect();
    for publish in all {
        publish.await.expect("it runs").expect("committed");
    }
    let mut peer = broker.join(&token("a", "ann")).await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    assert_eq!(position["seq"], 3_000);
    let mut peer = broker.join(&token("a", "bob")).await;
    let room = subscribe_with(
        &mut peer,
        json!({"room": "r", "epoch": position["epoch"], "seq": 0}),
    )
    .await;
    assert_eq!(room["recovery"], "continued", "{room}");
    assert_eq!(
        pushes_until(&mut peer, 3_000).await,
        (1..=3_000).collect::<Vec<_>>()
    );
    // And after a restart, when memory holds nothing at all.
    stop(broker).await;
    let broker = durable(dir.path(), "");
    let mut peers = Vec::new();
    for n in 0..20 {
        let mut peer = broker.join(&token("a", &format!("user-{n}"))).await;
        let since = json!({"id": 9, "subscribe": {"subscriptions": [{"room": "r", "epoch": position["epoch"], "seq": 2_500 + n}]}});
        peer.say(since).await;
        peers.push(peer);
    }
    for (n, mut peer) in peers.into_iter().enumerate() {
        let answer = peer.receive().await;
        assert_eq!(
            answer["reply"]["subscribed"]["rooms"][0]["recovery"], "continued",
            "{answer}"
        );
        assert_eq!(
            pushes_until(&mut peer, 3_000).await,
            (2_501 + n as u64..=3_000).collect::<Vec<_>>()
        );
    }
    // The newest few, and pages from the very beginning.
    let mut peer = broker.join(&token("a", "late")).await;
    let room = subscribe_with(&mut peer, json!({"room": "r", "recent": 1_500})).await;
    assert_eq!(room["seq"], 1_500, "{room}");
    assert_eq!(pushes_until(&mut peer, 3_000).await.len(), 1_500);
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let asked = History {
        room: "r".parse().expect("a name"),
        epoch: None,
        from: cauce_protocol::Seq(0),
        direction: Direction::Forwards,
        limit: 5,
    };
    let page = a.history(&asked).await.expect("a page");
    assert_eq!(
        page.messages.iter().map(|m| m.seq.0).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert!(page.more && page.first.0 == 1 && page.head.0 == 3_000);
    stop(broker).await;
}

#[tokio::test]
async fn a_publish_that_is_repeated_after_a_restart_is_recognised() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let once = json!({"id": 5, "publish": {"room": "r", "event": "e", "idempotency_key": "k"}});
    let (first, _) = peer.ask(once.clone()).await;
    assert_eq!(
        (&first["published"]["seq"], &first["published"]["durable"]),
        (&json!(1), &json!(true)),
        "{first}"
    );
    stop(broker).await;
    let broker = durable(dir.path(), "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let (again, _) = peer.ask(once.clone()).await;
    assert_eq!(
        (&again["published"]["seq"], &again["published"]["repeated"]),
        (&json!(1), &json!(true)),
        "{again}"
    );
    let mut other = broker.join(&token("a", "bob")).await;
    assert_eq!(
        other.ask(once).await.0["published"]["seq"],
        2,
        "another user's key is another key"
    );
    stop(broker).await;
}

#[tokio::test]
async fn an_answer_in_memory_does_not_wait_and_a_durable_one_needs_a_durable_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let memory = json!({"id": 5, "publish": {"room": "r", "event": "e", "ack": "memory"}});
    let (reply, _) = peer.ask(memory).await;
    assert!(reply["published"]["durable"].is_null(), "{reply}");
    let mut foreign = broker.join(&token("b", "ann")).await;
    let durable = json!({"id": 5, "publish": {"room": "r", "event": "e", "ack": "durable"}});
    let (reply, _) = foreign.ask(durable).await;
    assert_eq!(reply["error"]["name"], "conflict", "{reply}");
    stop(broker).await;
}

#[tokio::test]
async fn what_retention_has_taken_is_named_as_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    classify(&broker, Durability::Durable, 10);
    let mut peer = broker.join(&token("a", "ann")).await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    drop(peer);
    for n in 1..=500 {
        publish(&broker, n).await;
    }
    let mut peer = broker.join(&token("a", "ann")).await;
    let room = subscribe_with(
        &mut peer,
        json!({"room": "r", "epoch": position["epoch"], "seq": 1}),
    )
    .await;
    assert_eq!(
        (&room["recovery"], &room["lost_from"]),
        (&json!("partial"), &json!(2)),
        "{room}"
    );
    let lost_to = room["lost_to"].as_u64().expect("a number");
    assert!((300..=490).contains(&lost_to), "about what is kept: {room}");
    assert_eq!(
        pushes_until(&mut peer, 500).await,
        (lost_to + 1..=500).collect::<Vec<_>>()
    );
    stop(broker).await;
}

#[tokio::test]
async fn a_room_that_is_durable_no_longer_ends_its_subscriptions_and_begins_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let mut peer = broker.join(&token("a", "ann")).await;
    peer.ask(json!({"id": 1, "hello": {"version": 1, "features": 3}}))
        .await;
    let position = peer.subscribe(&["r"]).await.remove(0);
    publish(&broker, 1).await;
    pushes_until(&mut peer, 1).await;
    classify(&broker, Durability::Memory, 100);
    let frame = peer.receive().await;
    assert_eq!(frame["ended"]["room"], position["room"], "{frame}");
    let room = subscribe_with(
        &mut peer,
        json!({"room": "r", "epoch": position["epoch"], "seq": 1}),
    )
    .await;
    assert_eq!(room["recovery"], "reset", "{room}");
    stop(broker).await;
}

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
    let options = SqliteConnectOptions::new()
        .filename(dir.path().join("cauce.db"))
        .busy_timeout(support::PATIENCE);
    let mut database = options.connect().await.expect("a second connection");
    let rename = "ALTER TABLE messages RENAME TO elsewhere";
    database.execute(rename).await.expect("renamed");
    let mut peer = broker.join(&token("a", "ann")).await;
    let since = json!({"id": 9, "subscribe": {"subscriptions": [{"room": "r", "epoch": epoch, "seq": 2}]}});
    let (reply, _) = peer.ask(since.clone()).await;
    assert_eq!(reply["error"]["name"], "unavailable", "{reply}");
    let back = "ALTER TABLE elsewhere RENAME TO messages";
    database.execute(back).await.expect("renamed back");
    let (reply, _) = peer.ask(since).await;
    assert_eq!(
        reply["subscribed"]["rooms"][0]["recovery"], "continued",
        "{reply}"
    );
    assert_eq!(pushes_until(&mut peer, 5).await, [3, 4, 5]);
    stop(broker).await;
}

async fn again(broker: Broker, dir: &Path) -> Broker {
    stop(broker).await;
    durable(dir, "")
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

async fn rename(dir: &Path, from: &str, to: &str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join("cauce.db"));
    let mut database = options.connect().await.expect("the database opens");
    let statement = format!("ALTER TABLE {from} RENAME TO {to}");
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .execute(&mut database)
        .await
        .expect("renamed");
}

#[tokio::test]
async fn a_subscribe_that_the_store_fails_takes_back_only_what_it_joined() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let epoch = peer.subscribe(&["r"]).await[0]["epoch"].clone();
    for n in 1..=5 {
        publish(&broker, n).await;
    }
    drop(peer);
    let broker = again(broker, dir.path()).await;
    rename(dir.path(), "messages", "elsewhere").await;
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
async fn who_has_all_that_a_crash_left_is_told_so_without_waiting_for_the_next_message() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    classify(&broker, Durability::Durable, 0);
    let mut peer = broker.join(&token("a", "ann")).await;
    let epoch = peer.subscribe(&["r"]).await[0]["epoch"].clone();
    for n in 1..=5 {
        publish(&broker, n).await;
    }
    // What a crash leaves: the files as they are, without the mark of a clean stop.
    let crashed = tempfile::tempdir().expect("a directory");
    for file in std::fs::read_dir(dir.path()).expect("a directory") {
        let file = file.expect("a file").path();
        if file.is_file() {
            std::fs::copy(&file, crashed.path().join(file.file_name().expect("a name"))).expect("copied");
        }
    }
    stop(broker).await;
    let config = config(&format!("data_dir={}", crashed.path().display()));
    let server = Server::start(&config, Persistence::Store).expect("the broker starts");
    let address = server.address();
    let broker = Broker { server, address };
    classify(&broker, Durability::Durable, 0);
    let mut peer = broker.join(&token("a", "ann")).await;
    let room = subscribe_with(&mut peer, json!({"room": "r", "epoch": epoch, "seq": 5})).await;
    assert_eq!(
        (&room["recovery"], &room["lost_from"]),
        (&json!("partial"), &json!(6)),
        "{room}"
    );
    let next = room["seq"].as_u64().expect("a number") + 1;
    assert_eq!(publish(&broker, 6).await, next);
    assert_eq!(pushes_until(&mut peer, next).await, [next]);
    stop(broker).await;
}

#[tokio::test]
async fn a_join_that_waits_for_the_store_does_not_touch_the_one_that_followed_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let mut peer = broker.join(&token("a", "ann")).await;
    let epoch = peer.subscribe(&["r"]).await[0]["epoch"].clone();
    for n in 1..=5 {
        publish(&broker, n).await;
    }
    drop(peer);
    let broker = again(broker, dir.path()).await;
    rename(dir.path(), "messages", "elsewhere").await;
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

/// All numbers, page by page, from the newest back.
async fn pages_back(peer: &mut support::Peer, limit: u32) -> Vec<u64> {
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let asked = json!({"room": "r", "from": from, "backwards": true, "limit": limit});
        let (reply, _) = peer.ask(json!({"id": 5, "history": asked})).await;
        let page = &reply["history_page"];
        let entries = page["entries"].as_array().unwrap_or_else(|| panic!("{reply}"));
        assert!(entries.len() <= limit as usize);
        all.extend(
            entries
                .iter()
                .map(|entry| entry["seq"].as_u64().expect("a number")),
        );
        if page["more"] == false {
            return all;
        }
        from = *all.last().expect("more than nothing");
    }
}

#[tokio::test]
async fn pages_back_go_on_in_the_store_where_memory_ends_and_begin_with_what_is_not_on_the_disk_yet() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for n in 1..=1_199u64 {
        a.publish("r", "e", Payload::text(n.to_string()))
            .expect("published");
    }
    publish(&broker, 1_200).await;
    let mut peer = broker.join(&token("a", "ann")).await;
    // Pages that end where memory does, and pages that do not.
    for limit in [100, 250, 64, 999] {
        let expected: Vec<u64> = (1..=1_200).rev().collect();
        assert_eq!(pages_back(&mut peer, limit).await, expected, "{limit} at a time");
    }
    drop(peer);
    let broker = again(broker, dir.path()).await;
    let options = SqliteConnectOptions::new()
        .filename(dir.path().join("cauce.db"))
        .busy_timeout(support::PATIENCE);
    let mut database = options.connect().await.expect("a second connection");
    database.execute("BEGIN IMMEDIATE").await.expect("locked");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    a.publish("r", "e", Payload::NULL).expect("published");
    let mut peer = broker.join(&token("a", "ann")).await;
    let expected: Vec<u64> = (1..=1_201).rev().collect();
    assert_eq!(pages_back(&mut peer, 100).await, expected);
    database.execute("ROLLBACK").await.expect("unlocked");
    stop(broker).await;
}

#[tokio::test]
async fn who_may_only_subscribe_recovers_across_a_restart_too() {
    use cauce_broker::auth::{Action, Actions};
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let mut narrow = support::claims("ann", &["*"]);
    narrow.grants[0].allow = [Action::Subscribe].into_iter().collect::<Actions>();
    let narrow = support::sign_for("a", narrow);
    let mut peer = broker.join(&narrow).await;
    let epoch = peer.subscribe(&["r"]).await[0]["epoch"].clone();
    for n in 1..=5 {
        publish(&broker, n).await;
    }
    let broker = again(broker, dir.path()).await;
    let mut peer = broker.join(&narrow).await;
    let room = subscribe_with(&mut peer, json!({"room": "r", "epoch": epoch, "seq": 2})).await;
    assert_eq!(room["recovery"], "continued", "{room}");
    assert_eq!(pushes_until(&mut peer, 5).await, [3, 4, 5]);
    stop(broker).await;
}

#[tokio::test]
async fn durable_rooms_are_bounded_though_nobody_is_in_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(
        dir.path(),
        "rooms.linger=1s\nrooms.dedup_window=1s\nlimits.rooms_per_tenant=3",
    );
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let rooms = || {
        broker
            .server
            .hub()
            .tenants
            .get("a")
            .expect("tenant a")
            .rooms
            .len()
    };
    for room in ["one", "two", "three"] {
        a.publish_durably(room, "e", Payload::NULL, None)
            .await
            .expect("committed");
    }
    let closed = async {
        while rooms() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, closed)
        .await
        .expect("rooms close");
    let refusal = a
        .publish_durably("four", "e", Payload::NULL, None)
        .await
        .expect_err("one too many");
    assert_eq!(refusal.code, cauce_protocol::Code::QuotaExceeded);
    let again = a
        .publish_durably("one", "e", Payload::NULL, None)
        .await
        .expect("it is known");
    assert_eq!(again.seq.0, 2);
    stop(broker).await;
}
