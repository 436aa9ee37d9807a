//! A durable room over its life: restarts, crashes, repeats, changes of class, and how many there may be.

use cauce_broker::rooms::Durability;
use cauce_broker::{Persistence, Server};
use cauce_protocol::Payload;
use serde_json::json;

use crate::support::{Broker, PATIENCE, claims, config, sign_for, token};
use crate::{again, classify, durable, publish, pushes_until, stop, subscribe_with};

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
async fn who_may_only_subscribe_recovers_across_a_restart_too() {
    use cauce_broker::auth::{Action, Actions};
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path(), "");
    let mut narrow = claims("ann", &["*"]);
    narrow.grants[0].allow = [Action::Subscribe].into_iter().collect::<Actions>();
    let narrow = sign_for("a", narrow);
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
    tokio::time::timeout(PATIENCE, closed).await.expect("rooms close");
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
