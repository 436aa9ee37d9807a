//! Joins, leaves and pages as people see them.

use std::time::{Duration, Instant};

use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::PageQuery;
use cauce_protocol::message::Recipient;
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome, server_frame::Message};
use cauce_protocol::{Code, Payload, UserId};
use serde_json::json;
use serde_json::value::RawValue;

use crate::client::{Client, FOR_EVER_MS, ROOM, count, keep, watcher};
use crate::support::pace::with_longer;
use crate::support::{Broker, PATIENCE, claims, sign_for, token};

#[tokio::test]
async fn many_tabs_make_one_join_and_one_leave() {
    let broker = Broker::start();
    keep(&broker, "a", 100);
    let mut watcher = watcher(&broker, wire::Watch::Users).await;
    let mut tabs = Vec::new();
    for _ in 0..5 {
        tabs.push(Client::enter(&broker, "ann").await);
    }
    let page = watcher.page_when(|page| page.connections == 6).await;
    let users: Vec<_> = page
        .page
        .iter()
        .map(|p| (p.user.as_str(), p.connections))
        .collect();
    assert_eq!((page.users, users), (2, vec![("ann", 5), ("watcher", 1)]));
    let marker = Client::enter(&broker, "marker").await;
    let mut news = watcher.news_until("+marker").await;
    drop(tabs);
    news.extend(watcher.news_until("-ann").await);
    drop(marker);
    news.extend(watcher.news_until("-marker").await);
    assert_eq!((count(&news, "+ann"), count(&news, "-ann")), (1, 1), "{news:?}");
}

#[tokio::test]
async fn a_quick_reconnect_is_neither_leave_nor_join_and_an_unsubscribe_is_a_leave_at_once() {
    let broker = Broker::start();
    keep(&broker, "a", FOR_EVER_MS);
    let mut watcher = watcher(&broker, wire::Watch::Users).await;
    let ann = Client::enter(&broker, "ann").await;
    watcher.news_until("+ann").await;
    drop(ann);
    let page = watcher.page_when(|page| page.connections == 1).await;
    assert_eq!((page.users, page.page[0].user.as_str()), (2, "ann"));
    let since = page.page[0].since_unix_ms;
    let ann = Client::enter(&broker, "ann").await;
    let page = watcher.page_when(|page| page.connections == 2).await;
    assert_eq!(page.page[0].since_unix_ms, since, "another stay");
    // The other way round: the new connection comes before the old one is lost.
    let _newer = Client::enter(&broker, "ann").await;
    drop(ann);
    watcher.page_when(|page| page.connections == 2).await;
    let mut marker = Client::enter(&broker, "marker").await;
    let mut news = watcher.news_until("+marker").await;
    marker.unsubscribe(ROOM).await;
    news.extend(watcher.news_until("-marker").await);
    assert_eq!(count(&news, "-ann") + count(&news, "+ann"), 0, "{news:?}");
}

/// The socket stays open and says nothing more, as when a cable is pulled.
#[tokio::test]
async fn a_dead_connection_makes_exactly_one_leave_within_heartbeat_and_grace() {
    // A machine that is slower than this takes the living for dead too.
    with_longer(1_000, one_leave_of_the_dead).await;
}

async fn one_leave_of_the_dead(interval_ms: u64) {
    let timeout_ms = interval_ms / 2;
    let broker = Broker::with(&format!(
        "heartbeat.interval={interval_ms}ms\nheartbeat.timeout={timeout_ms}ms"
    ));
    keep(&broker, "a", 300);
    let mut watcher = watcher(&broker, wire::Watch::Users).await;
    let dead = Client::enter(&broker, "ann").await;
    watcher.news_until("+ann").await;
    let started = Instant::now();
    let mut news = Vec::new();
    while count(&news, "-ann") == 0 {
        // The watcher lives: it talks.
        watcher.page(ROOM).await.expect("a page");
        for change in watcher.changes.drain(..) {
            news.extend(change.left.iter().map(|user| format!("-{user}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(
            started.elapsed() < PATIENCE,
            "no leave after {:?}",
            started.elapsed()
        );
    }
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "a leave without grace"
    );
    let _marker = Client::enter(&broker, "marker").await;
    news.extend(watcher.news_until("+marker").await);
    assert_eq!(count(&news, "-ann"), 1, "{news:?}");
    drop(dead);
}

#[tokio::test]
async fn counts_are_told_without_names_to_those_who_want_no_more() {
    let broker = Broker::start();
    keep(&broker, "a", 0);
    let mut watcher = watcher(&broker, wire::Watch::Counts).await;
    let mut first = Some(Client::enter(&broker, "ann").await);
    let _second = Client::enter(&broker, "ann").await;
    let mut version = 0;
    for (users, connections) in [(2, 3), (2, 2)] {
        loop {
            let change = watcher.change().await;
            assert!(change.joined.is_empty() && change.left.is_empty() && !change.truncated);
            assert!(change.version > version, "{change:?}");
            version = change.version;
            if (change.users, change.connections) == (users, connections) {
                break;
            }
        }
        if connections == 3 {
            // A new second connection is told too, though nobody joins by it.
            assert_eq!(watcher.page(ROOM).await.expect("a page").version, version);
            drop(first.take());
        }
    }
    // Names are told from when they are asked for.
    watcher
        .subscribe(ROOM, wire::Watch::Users)
        .await
        .expect("watched");
    let _third = Client::enter(&broker, "cid").await;
    watcher.news_until("+cid").await;
    // Whoever names nothing goes on; whoever leaves the room is told nothing more.
    watcher.subscribe(ROOM, wire::Watch::None).await.expect("joined");
    let mut dan = Client::enter(&broker, "dan").await;
    watcher.news_until("+dan").await;
    watcher.unsubscribe(ROOM).await;
    watcher.changes.clear();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    dan.unsubscribe(ROOM).await;
    watcher.page_when(|page| page.users == 2).await;
    let to = Recipient::User(UserId::new("watcher").expect("a name"));
    a.send(to, "end", Payload::NULL).expect("sent");
    loop {
        match watcher.receive().await {
            Message::Direct(_) => break,
            Message::PresenceChange(change) => panic!("{change:?}"),
            _ => {}
        }
    }
    assert!(watcher.changes.is_empty(), "{:?}", watcher.changes);
}

#[tokio::test]
async fn what_a_token_says_of_its_user_is_shown_and_pages_go_by_name() {
    let broker = Broker::start();
    keep(&broker, "a", 0);
    let info = r#"{"name":"Ann","age":7}"#;
    let mut of_ann = claims("ann", &["*"]);
    of_ann.info = Some(RawValue::from_string(info.into()).expect("JSON"));
    let mut ann = Client::join(&broker, &sign_for("a", of_ann)).await;
    ann.subscribe(ROOM, wire::Watch::None).await.expect("subscribed");
    let mut others = Vec::new();
    for name in ["dan", "bob", "cid"] {
        others.push(Client::enter(&broker, name).await);
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let presence = wire::Presence {
            room: ROOM.into(),
            after: after.clone(),
            limit: 3,
            counts_only: false,
        };
        let Outcome::PresencePage(page) = ann.ask(Request::Presence(presence)).await.expect("a page") else {
            panic!("no page");
        };
        assert_eq!(page.users, 4);
        seen.extend(page.page);
        if !page.more {
            break;
        }
        after.clone_from(&seen.last().expect("a user").user);
    }
    assert_eq!(
        seen.iter().map(|p| p.user.as_str()).collect::<Vec<_>>(),
        ["ann", "bob", "cid", "dan"]
    );
    assert_eq!(&seen[0].info[..], info.as_bytes());
    assert!(seen[1].info.is_empty() && seen[0].since_unix_ms > 0);
    // The embedding program sees the same.
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let page = a.presence(ROOM, PageQuery::default()).expect("a page");
    assert_eq!(page.page.len(), 4);
    assert!(a.presence("dark.1", PageQuery::default()).is_err());

    // In the other dialect it is JSON within JSON.
    let mut plain = broker.join(&token("a", "plain")).await;
    let (reply, _) = plain
        .ask(json!({"id": 1, "presence": {"room": ROOM, "limit": 1}}))
        .await;
    let user = &reply["presence_page"]["page"][0];
    assert_eq!(
        (&user["user"], &user["info"]["age"]),
        (&json!("ann"), &json!(7)),
        "{reply}"
    );
    let watch = json!({"room": ROOM, "presence": 2});
    plain
        .ask(json!({"id": 2, "subscribe": {"subscriptions": [watch]}}))
        .await;
    let change = plain.receive().await["presence_change"].clone();
    assert_eq!(
        (&change["joined"][0]["user"], &change["users"]),
        (&json!("plain"), &json!(5)),
        "{change}"
    );

    let mut of_eve = claims("eve", &["*"]);
    let long = format!("\"{}\"", "x".repeat(1_023));
    of_eve.info = Some(RawValue::from_string(long).expect("JSON"));
    let mut eve = broker.knock(&sign_for("a", of_eve)).await;
    assert_eq!(eve.farewell().await.0, u64::from(Code::TokenInvalid.number()));
}

#[tokio::test]
async fn presence_follows_the_class_of_a_room_while_people_are_in_it() {
    let broker = Broker::start();
    let tenant = broker.server.hub().tenants.get("a").expect("a tenant");
    let mut ann = Client::enter(&broker, "ann").await;
    let _bob = Client::enter(&broker, "bob").await;
    assert_eq!(ann.page(ROOM).await.err(), Some(Code::Conflict));
    keep(&broker, "a", 0);
    broker.server.hub().reclassify(&tenant);
    let page = ann.page_when(|page| page.users == 2).await;
    assert_eq!(page.connections, 2, "whoever was there before is there once");
    ann.subscribe(ROOM, wire::Watch::Users).await.expect("watched");
    let _cid = Client::enter(&broker, "cid").await;
    ann.news_until("+cid").await;

    tenant.configure(TenantSettings {
        classes: RoomClasses::default(),
        ..(*tenant.settings()).clone()
    });
    broker.server.hub().reclassify(&tenant);
    let last = ann.change().await;
    assert_eq!((last.users, last.connections, last.truncated), (0, 0, true));
    assert_eq!(ann.page(ROOM).await.err(), Some(Code::Conflict));
    assert_eq!(broker.server.handle().present(), 0);
}
