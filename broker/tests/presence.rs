//! Who is in a room, over real sockets: tabs, reconnects, deaths, slow watchers, rights and tenants.

mod support;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cauce_broker::auth::{Action, Actions, Pattern};
use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{PageQuery, PresenceMode, RoomClass};
use cauce_protocol::message::Recipient;
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome, server_frame::Message};
use cauce_protocol::{Code, Payload, UserId};
use serde_json::json;
use serde_json::value::RawValue;
use support::raw::ProtoPeer;
use support::{Broker, PATIENCE, claims, sign_for, token};

const ROOM: &str = "lobby";

/// Long enough that nothing in a test outlasts it.
const FOR_EVER_MS: u64 = 3_600_000;

/// Presence is kept in rooms other than `dark.*`.
fn keep(broker: &Broker, tenant: &str, grace_ms: u64) {
    let class = |presence| {
        Arc::new(RoomClass {
            presence,
            ..RoomClass::default()
        })
    };
    let classes = RoomClasses::new(
        vec![(
            Pattern::new("dark.*").expect("a pattern"),
            class(PresenceMode::Off),
        )],
        class(PresenceMode::On { grace_ms }),
    );
    let tenant = broker.server.hub().tenants.get(tenant).expect("a tenant");
    tenant.configure(TenantSettings {
        classes,
        ..(*tenant.settings()).clone()
    });
}

/// A client that tells changes from answers.
struct Client {
    peer: ProtoPeer,
    changes: VecDeque<wire::PresenceChange>,
}

impl Client {
    async fn join(broker: &Broker, token: &str) -> Self {
        Self {
            peer: ProtoPeer::join(broker.address, token).await,
            changes: VecDeque::new(),
        }
    }

    /// A user of tenant `a` who is in the room.
    async fn enter(broker: &Broker, user: &str) -> Self {
        let mut client = Self::join(broker, &token("a", user)).await;
        client
            .subscribe(ROOM, wire::Watch::None)
            .await
            .expect("subscribed");
        client
    }

    async fn ask(&mut self, request: Request) -> Result<Outcome, Code> {
        self.peer.ask(7, request).await;
        loop {
            match self.receive().await {
                Message::Reply(wire::Reply {
                    outcome: Some(Outcome::Error(error)),
                    ..
                }) => {
                    let code = u16::try_from(error.code).ok().and_then(Code::from_number);
                    return Err(code.expect("a code"));
                }
                Message::Reply(reply) => return Ok(reply.outcome.expect("an outcome")),
                Message::PresenceChange(change) => self.changes.push_back(change),
                _ => {}
            }
        }
    }

    async fn receive(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.peer.receive())
            .await
            .expect("a message within the test's patience")
    }

    async fn subscribe(&mut self, room: &str, watch: wire::Watch) -> Result<(), Code> {
        let subscription = wire::Subscription {
            room: room.into(),
            presence: watch.into(),
            ..wire::Subscription::default()
        };
        let subscribe = wire::Subscribe {
            subscriptions: vec![subscription],
            ..wire::Subscribe::default()
        };
        self.ask(Request::Subscribe(subscribe)).await.map(drop)
    }

    async fn unsubscribe(&mut self, room: &str) {
        let rooms = vec![room.to_owned()];
        self.ask(Request::Unsubscribe(wire::Unsubscribe { rooms }))
            .await
            .expect("unsubscribed");
    }

    async fn page(&mut self, room: &str) -> Result<wire::PresencePage, Code> {
        let presence = wire::Presence {
            room: room.into(),
            ..wire::Presence::default()
        };
        match self.ask(Request::Presence(presence)).await? {
            Outcome::PresencePage(page) => Ok(page),
            other => panic!("{other:?}"),
        }
    }

    /// The page, once it is so.
    async fn page_when(&mut self, is_so: impl Fn(&wire::PresencePage) -> bool) -> wire::PresencePage {
        let started = Instant::now();
        loop {
            let page = self.page(ROOM).await.expect("a page");
            if is_so(&page) {
                return page;
            }
            assert!(started.elapsed() < PATIENCE, "{page:?}");
        }
    }

    async fn change(&mut self) -> wire::PresenceChange {
        if let Some(change) = self.changes.pop_front() {
            return change;
        }
        loop {
            if let Message::PresenceChange(change) = self.receive().await {
                return change;
            }
        }
    }

    /// Joins (`+ann`) and leaves (`-ann`) as they are told, up to this one.
    async fn news_until(&mut self, last: &str) -> Vec<String> {
        let mut news = Vec::new();
        while !news.iter().any(|word| word == last) {
            let change = self.change().await;
            assert!(!change.truncated, "{change:?}");
            news.extend(change.left.iter().map(|user| format!("-{user}")));
            news.extend(change.joined.iter().map(|present| format!("+{}", present.user)));
        }
        news
    }
}

async fn watcher(broker: &Broker, watch: wire::Watch) -> Client {
    let mut watcher = Client::join(broker, &token("a", "watcher")).await;
    watcher.subscribe(ROOM, watch).await.expect("subscribed");
    watcher
}

fn count(news: &[String], word: &str) -> usize {
    news.iter().filter(|other| *other == word).count()
}

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
    let broker = Broker::with("heartbeat.interval=1s\nheartbeat.timeout=500ms");
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
            started.elapsed() < Duration::from_secs(10),
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
async fn thousands_of_joins_and_leaves_do_not_flood_a_watcher() {
    const PEERS: usize = 20;
    const ROUNDS: usize = 100;
    let broker = Broker::start();
    keep(&broker, "a", FOR_EVER_MS);
    let mut watcher = watcher(&broker, wire::Watch::Users).await;
    watcher.news_until("+watcher").await;
    let mut peers = Vec::new();
    for n in 0..PEERS {
        peers.push(Client::join(&broker, &token("a", &format!("user-{n}"))).await);
    }
    let started = Instant::now();
    let tasks: Vec<_> = peers
        .into_iter()
        .map(|mut peer| {
            tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    peer.subscribe(ROOM, wire::Watch::None).await.expect("subscribed");
                    peer.unsubscribe(ROOM).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a peer");
    }
    let took = started.elapsed();
    let _marker = Client::enter(&broker, "marker").await;
    let (mut frames, mut names, mut over) = (0, 0, false);
    while !over {
        let change = watcher.change().await;
        frames += 1;
        names += change.joined.len() + change.left.len();
        over = change.joined.iter().any(|present| present.user == "marker");
        assert!(change.users as usize <= PEERS + 2, "{change:?}");
    }
    let windows = 3 + took.as_millis() as usize / 100;
    assert!(frames <= windows, "{frames} frames in {took:?}");
    // Coming and going within a window is nothing: at most each name once a frame.
    assert!(names <= frames * (PEERS + 1), "{names} names in {frames} frames");
    let rate = (2 * PEERS * ROUNDS) as f64 / took.as_secs_f64();
    assert!(rate > 1_000.0, "only {rate:.0} joins and leaves a second");
    let page = watcher.page(ROOM).await.expect("a page");
    assert_eq!((page.users, page.connections), (2, 2));
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
async fn a_watcher_that_reads_slowly_is_told_once_that_it_missed_something() {
    const CHUNK: usize = 50_000;
    /// More than the kernel's buffers and a quarter of the outbox together, less than they and all of it.
    const BYTES: usize = 36 * 1024 * 1024;
    let broker = Broker::with("limits.outbox_bytes=64MiB\nlimits.connections_per_user=100");
    keep(&broker, "a", 0);
    let mut slow = watcher(&broker, wire::Watch::Users).await;
    slow.news_until("+watcher").await;
    let mut other = Client::join(&broker, &token("a", "other")).await;
    other
        .subscribe(ROOM, wire::Watch::Users)
        .await
        .expect("subscribed");
    let handle = broker.server.handle();
    let a = handle.tenant("a").expect("tenant a");
    let ballast = Payload::text("x".repeat(CHUNK));
    for _ in 0..BYTES / CHUNK {
        let to = || Recipient::User(UserId::new("watcher").expect("a name"));
        while a.send(to(), "ballast", ballast.clone()).is_err() {
            // The queue is full; the shard drains it while another request is answered.
            other.page(ROOM).await.expect("a page");
        }
    }
    // Many changes, and none of them waits for the slow one.
    let mut members = Vec::new();
    for n in 0..5 {
        members.push(Client::enter(&broker, &format!("m{n}")).await);
        other.news_until(&format!("+m{n}")).await;
    }
    let missed = handle.metrics().total(|metrics| &metrics.presence_missed);
    assert!(missed >= 1, "the watcher missed nothing");
    // It reads again: all that waited, and then one word that it has to take pages.
    let mut told = Vec::new();
    let change = loop {
        let change = slow.change().await;
        if change.truncated {
            break change;
        }
        told.extend(change.joined);
    };
    assert!(change.joined.is_empty() && change.left.is_empty());
    assert!(told.len() < 7, "nothing was missed: {told:?}");
    let page = slow.page(ROOM).await.expect("a page");
    assert!(page.version >= change.version);
    assert_eq!((page.users, page.page.len()), (7, 7));
    // From then on it is told as everybody is.
    let _last = Client::enter(&broker, "last").await;
    slow.news_until("+last").await;
}

#[tokio::test]
async fn pages_and_watching_need_the_right_and_a_room_that_keeps_presence() {
    let broker = Broker::start();
    keep(&broker, "a", 0);
    let mut claims = claims("eve", &["*"]);
    claims.grants[0].allow = Actions::NONE.with(Action::Subscribe).with(Action::Publish);
    let mut eve = Client::join(&broker, &sign_for("a", claims)).await;
    assert_eq!(eve.page(ROOM).await.err(), Some(Code::Forbidden));
    assert_eq!(
        eve.subscribe(ROOM, wire::Watch::Counts).await.err(),
        Some(Code::Forbidden)
    );
    eve.subscribe(ROOM, wire::Watch::None).await.expect("subscribed");

    let mut ann = Client::join(&broker, &token("a", "ann")).await;
    let page = ann.page(ROOM).await.expect("a page");
    assert_eq!(page.page[0].user, "eve", "who may not look is seen all the same");
    assert_eq!(ann.page("empty").await.expect("a page").users, 0);
    assert_eq!(ann.page("dark.1").await.err(), Some(Code::Conflict));
    assert_eq!(
        ann.subscribe("dark.1", wire::Watch::Users).await.err(),
        Some(Code::Conflict)
    );
    // Refused as a whole: nobody is in the room by it.
    let rooms = broker
        .server
        .hub()
        .tenants
        .get("a")
        .expect("a tenant")
        .rooms
        .len();
    assert_eq!(rooms, 1);
    ann.subscribe("dark.1", wire::Watch::None)
        .await
        .expect("subscribed");
    assert_eq!(broker.server.handle().present(), 1, "only eve is anywhere");
}

#[tokio::test]
async fn a_tenant_sees_nobody_of_another() {
    let broker = Broker::start();
    keep(&broker, "a", 0);
    keep(&broker, "b", 0);
    let mut watcher = watcher(&broker, wire::Watch::Users).await;
    let mut foreign = Client::join(&broker, &token("b", "ann")).await;
    foreign
        .subscribe(ROOM, wire::Watch::Users)
        .await
        .expect("subscribed");
    foreign.news_until("+ann").await;
    let _own = Client::enter(&broker, "bob").await;
    let mut news = watcher.news_until("+bob").await;
    foreign.unsubscribe(ROOM).await;
    let _marker = Client::enter(&broker, "marker").await;
    news.extend(watcher.news_until("+marker").await);
    assert_eq!(news.len(), 3, "{news:?}");
    let page = watcher.page(ROOM).await.expect("a page");
    assert_eq!((page.users, page.connections), (3, 3));
    assert_eq!(foreign.page(ROOM).await.expect("a page").users, 0);
    assert!(foreign.changes.is_empty());
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
