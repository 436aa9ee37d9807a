//! The past where memory ends: it comes from the store, in order, or is named as lost.

use cauce_broker::rooms::Durability;
use cauce_protocol::Payload;
use cauce_protocol::message::{Direction, History};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};

use crate::support::{PATIENCE, Peer, token};
use crate::{again, classify, durable, publish, pushes_until, stop, subscribe_with};

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

/// All numbers, page by page, from the newest back.
async fn pages_back(peer: &mut Peer, limit: u32) -> Vec<u64> {
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
        .busy_timeout(PATIENCE);
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
