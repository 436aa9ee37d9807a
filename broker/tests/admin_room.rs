//! `$admin` and `$operator`: what can be watched, by whom, and that it costs nothing when nobody does.

mod support;

use std::time::Duration;

use cauce_broker::hub::{ADMIN_ROOM, LogLine, OPERATOR_ROOM, Watching};
use serde_json::{Value, json};
use support::{Broker, PATIENCE, Peer, claims, sign_for, token};

/// A token that names the room of watchers.
fn watcher(tenant: &str, room: &str) -> String {
    sign_for(tenant, claims("watcher", &["*", room]))
}

/// Joins the room and waits for the first figures: from then on everything is written down.
async fn watch(broker: &Broker, tenant: &str, room: &str) -> Peer {
    let mut peer = broker.join(&watcher(tenant, room)).await;
    peer.subscribe(&[room]).await;
    hear(&mut peer, "stats").await;
    peer
}

/// The next message of this event.
async fn hear(peer: &mut Peer, event: &str) -> Value {
    loop {
        let frame = peer.receive().await;
        assert!(frame["close"].is_null() && frame["lost"].is_null(), "{frame}");
        if frame["push"]["event"] == event {
            return frame["push"]["json"].clone();
        }
    }
}

/// Figures that are as they should be; they come every second.
async fn hear_stats(peer: &mut Peer, holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let wait = async {
        loop {
            last = hear(peer, "stats").await;
            if holds(&last) {
                return;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, wait).await;
    assert!(found.is_ok(), "never came; the last were {last}");
    last
}

#[tokio::test]
async fn figures_are_right_and_comings_and_goings_are_named() {
    let broker = Broker::start();
    let mut admin = watch(&broker, "a", ADMIN_ROOM).await;
    let mut ann = broker.join(&token("a", "ann")).await;
    let mut bob = broker.join(&token("a", "bob")).await;
    let _bob_again = broker.join(&token("a", "bob")).await;
    let (mut opened, mut all) = (Vec::new(), Vec::new());
    while opened.len() < 3 {
        let said = hear(&mut admin, "connection-opened").await;
        assert_eq!(said["more"], 0);
        opened.extend(said["items"].as_array().expect("a list").iter().map(|item| {
            all.push(item["connection"].as_u64().expect("an id"));
            item["user"].as_str().expect("a user").to_owned()
        }));
    }
    opened.sort_unstable();
    assert_eq!(opened, ["ann", "bob", "bob"]);
    assert!(all.contains(&ann.connection) && all.contains(&bob.connection));

    ann.subscribe(&["r"]).await;
    bob.subscribe(&["r"]).await;
    hear_stats(&mut admin, |stats| {
        stats["connections"] == 4 && stats["users"] == 3 && stats["rooms"] == 2 && stats["devices"] == 0
    })
    .await;
    // What is told to watchers is no message of the tenant's: an idle tenant has none.
    let idle = hear_stats(&mut admin, |stats| stats["messages_per_second"] == 0.0).await;
    for n in 0..40 {
        ann.ask(json!({"id": n + 2, "publish": {"room": "r", "event": "e"}}))
            .await;
    }
    let (mut messages, mut deliveries) = (0.0, 0.0);
    let mut last = idle["unix_ms"].as_u64().expect("a time");
    while messages < 38.0 {
        let stats = hear(&mut admin, "stats").await;
        let at = stats["unix_ms"].as_u64().expect("a time");
        // A period is as long as the machine makes it.
        let seconds = (at - last) as f64 / 1_000.0;
        last = at;
        messages += stats["messages_per_second"].as_f64().expect("a rate") * seconds;
        deliveries += stats["deliveries_per_second"].as_f64().expect("a rate") * seconds;
    }
    assert!((38.0..=42.0).contains(&messages), "{messages}");
    assert!(
        (1.9..=2.1).contains(&(deliveries / messages)),
        "{deliveries} for {messages}"
    );

    let gone = bob.connection;
    drop(bob);
    loop {
        let said = hear(&mut admin, "connection-closed").await;
        let items = said["items"].as_array().expect("a list");
        if let Some(item) = items.iter().find(|item| item["connection"] == gone) {
            assert_eq!(item["user"], "bob");
            assert!(item["code"].is_null(), "it went by itself: {item}");
            break;
        }
    }
}

#[tokio::test]
async fn refusals_and_closes_are_told_by_reason_with_how_often() {
    let broker = Broker::with(
        "limits.publishes_per_second_per_user=1\nlimits.publishes_burst_per_user=1\nlimits.outbox_bytes=128KiB",
    );
    let mut admin = watch(&broker, "a", ADMIN_ROOM).await;
    let mut ann = broker.join(&token("a", "ann")).await;
    // On a slow machine one is taken now and then.
    let mut limited = 0;
    while limited < 3 {
        let publish = json!({"id": 2, "publish": {"room": "r", "event": "e"}});
        let (reply, _) = ann.ask(publish).await;
        limited += u64::from(reply["error"]["name"] == "rate_limited");
    }
    let mut refused = 0;
    while refused < limited {
        let log = hear(&mut admin, "log").await;
        for line in log["lines"].as_array().expect("lines") {
            assert_eq!(
                (&line["name"], &line["text"]),
                (&json!("rate_limited"), &json!("messages were refused"))
            );
            refused += line["count"].as_u64().expect("a count");
        }
    }
    assert_eq!(refused, limited);
    let user = cauce_protocol::UserId::new("ann").expect("a name");
    let refusal = cauce_protocol::Refusal::new(cauce_protocol::Code::TokenRevoked, "enough");
    let tenant = broker.server.handle().tenant("a").expect("tenant a");
    tenant.disconnect_user(&user, refusal);
    let closed = hear(&mut admin, "connection-closed").await;
    assert_eq!(closed["items"][0]["connection"], ann.connection, "{closed}");
    assert_eq!(closed["items"][0]["name"], "token_revoked", "{closed}");
    let log = hear(&mut admin, "log").await;
    assert_eq!(log["lines"][0]["text"], "connections were closed", "{log}");
}

#[tokio::test]
async fn a_tenants_room_never_shows_another_tenant() {
    let broker = Broker::start();
    let mut admin = watch(&broker, "a", ADMIN_ROOM).await;
    let mut other = watch(&broker, "b", ADMIN_ROOM).await;
    // A name that is nowhere else, in everything that tenant b does.
    let mut canary = broker.join(&token("b", "canary-7f3a")).await;
    canary.subscribe(&["r"]).await;
    canary
        .ask(json!({"id": 2, "publish": {"room": "r", "event": "e"}}))
        .await;
    let named = hear(&mut other, "connection-opened").await;
    assert!(named.to_string().contains("canary-7f3a"), "{named}");
    drop(canary);
    hear(&mut other, "connection-closed").await;
    // Two periods later everything of that time has been told.
    for _ in 0..2 {
        let mut heard = Vec::new();
        loop {
            let frame = admin.receive().await;
            let event = frame["push"]["event"].as_str().expect("an event").to_owned();
            heard.push(frame);
            if event == "stats" {
                break;
            }
        }
        for frame in heard {
            assert!(!frame.to_string().contains("canary"), "{frame}");
            assert_eq!(
                frame["push"]["event"], "stats",
                "nothing happened in tenant a: {frame}"
            );
            let stats = &frame["push"]["json"];
            assert_eq!(stats["connections"], 1);
            assert_eq!(stats["messages_per_second"], 0.0);
        }
    }
}

#[tokio::test]
async fn only_a_grant_that_names_it_opens_the_room_and_nobody_writes_there() {
    let broker = Broker::start();
    let mut plain = broker.join(&token("a", "ann")).await;
    let (reply, _) = plain
        .ask(json!({"id": 1, "subscribe": {"rooms": [ADMIN_ROOM]}}))
        .await;
    assert_eq!(reply["error"]["name"], "forbidden", "{reply}");
    let mut admin = broker.join(&watcher("a", ADMIN_ROOM)).await;
    admin.subscribe(&[ADMIN_ROOM]).await;
    let (reply, _) = admin
        .ask(json!({"id": 2, "publish": {"room": ADMIN_ROOM, "event": "stats"}}))
        .await;
    assert_eq!(reply["error"]["name"], "forbidden", "{reply}");
}

#[tokio::test]
async fn nothing_is_kept_or_published_while_nobody_listens() {
    let broker = Broker::with("rooms.linger=60s");
    let tenant = broker.server.hub().tenants.get("a").expect("tenant a");
    let admin = watch(&broker, "a", ADMIN_ROOM).await;
    assert!(tenant.logbook.is_watched());
    drop(admin);
    let unwatched = async {
        while tenant.logbook.is_watched() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, unwatched)
        .await
        .expect("the next look sees that nobody is left");
    let room = tenant.rooms.get(ADMIN_ROOM).expect("it lingers");
    let before = room.seq();
    let _busy = broker.join(&token("a", "ann")).await;
    let mut watching = Watching::default();
    for _ in 0..3 {
        broker.server.hub().tell_watchers(&mut watching, None);
    }
    assert_eq!(
        room.seq(),
        before,
        "a room that nobody listens to is not written to"
    );
    assert!(tenant.logbook.take().opened.is_empty());
    let untouched = broker.server.hub().tenants.get("b").expect("tenant b");
    assert!(untouched.rooms.get(ADMIN_ROOM).is_none() && !untouched.logbook.is_watched());
}

#[tokio::test]
async fn the_node_is_shown_to_the_tenant_that_the_operator_names_and_to_no_other() {
    let broker = Broker::with("admin.operator_tenant=b");
    let mut operator = watch(&broker, "b", OPERATOR_ROOM).await;
    let mut tenant = broker.join(&watcher("a", OPERATOR_ROOM)).await;
    tenant.subscribe(&[OPERATOR_ROOM]).await;
    let lines = broker.server.handle().log_lines();
    assert!(lines.is_watched());
    lines.push(LogLine {
        unix_ms: 1,
        level: "WARN",
        target: "test".to_owned(),
        text: "something to know".to_owned(),
    });
    let log = hear(&mut operator, "log").await;
    assert_eq!(log["lines"][0]["text"], "something to know", "{log}");
    let stats = hear_stats(&mut operator, |stats| stats["clients"] == 2).await;
    assert_eq!(stats["draining"], false);
    assert_eq!(stats["shards"].as_array().map(Vec::len), Some(3), "{stats}");
    // Whatever has a seat there: the room of the same name in another tenant is empty.
    let room = broker.server.hub().tenants.get("a").expect("tenant a");
    assert_eq!(room.rooms.get(OPERATOR_ROOM).expect("joined").seq().0, 0);
    drop(operator);
    let unwatched = async {
        while lines.is_watched() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, unwatched)
        .await
        .expect("nobody is left");
}

#[tokio::test]
async fn without_a_named_tenant_there_is_no_room_of_the_operator() {
    let broker = Broker::start();
    let mut admin = watch(&broker, "a", ADMIN_ROOM).await;
    let mut would_be = broker.join(&watcher("a", OPERATOR_ROOM)).await;
    would_be.subscribe(&[OPERATOR_ROOM]).await;
    for _ in 0..2 {
        hear(&mut admin, "stats").await;
    }
    let tenant = broker.server.hub().tenants.get("a").expect("tenant a");
    assert_eq!(tenant.rooms.get(OPERATOR_ROOM).expect("joined").seq().0, 0);
    assert!(!broker.server.handle().log_lines().is_watched());
}
