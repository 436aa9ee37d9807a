//! Notifications over real sockets and a real database: kept for who is away, told to all tabs, seen by nobody else.

mod support;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cauce_broker::store::{
    Done, NotificationQuery, NotificationRow, Reader, Sender, Store, StoreConfig, StoreHandle,
};
use cauce_broker::{Persistence, Server, TenantHandle};
use cauce_protocol::limits::INTEGER_MAX;
use cauce_protocol::message::{Audience, NotificationKind, Notify, Priority, Recipient};
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::wire::server_frame::Message;
use cauce_protocol::wire::{self, Feature, notify};
use cauce_protocol::{Code, Payload, Role, TenantId, UserId};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use support::raw::ProtoPeer;
use support::{Broker, PATIENCE, claims, config, full_token, sign_for, token};

/// A broker whose database lies in `dir`.
fn start(dir: &Path, lines: &str) -> Broker {
    let mut config = config(lines);
    config.data_dir = dir.to_owned();
    let server = Server::start(&config, Persistence::Store).expect("the broker starts");
    let address = server.address();
    Broker { server, address }
}

async fn stop(broker: Broker) {
    let stop = tokio::task::spawn_blocking(move || broker.server.stop(PATIENCE));
    assert_eq!(stop.await.expect("a thread").unwritten_rows, 0);
}

fn tenant(broker: &Broker, id: &str) -> TenantHandle {
    broker.server.handle().tenant(id).expect("a tenant")
}

fn user(id: &str) -> Audience {
    Audience::User(UserId::new(id).expect("a name"))
}

fn role(name: &str) -> Audience {
    Audience::Role(Role::new(name).expect("a name"))
}

fn notice(to: Audience, title: &str, priority: Priority) -> Notify {
    Notify {
        to,
        kind: NotificationKind::Warning,
        title: title.to_owned(),
        message: "The shelf is empty".to_owned(),
        json: br#"{"sku":7}"#.as_slice().into(),
        priority,
        expires_in_ms: 0,
        idempotency_key: String::new(),
    }
}

async fn leave(tenant: &TenantHandle, to: Audience, title: &str) -> u64 {
    let left = tenant.notify(notice(to, title, Priority::Normal)).await;
    left.expect("it is left").id
}

/// A connection of a user, and what it was told unasked.
struct Tab {
    peer: ProtoPeer,
    next: u32,
    told: VecDeque<Message>,
}

impl Tab {
    /// One that wants to know of notifications.
    async fn open(broker: &Broker, token: &str) -> Self {
        let mut tab = Self::deaf(broker, token).await;
        let hello = wire::Hello {
            version: 1,
            features: Feature::Notifications as u64,
            ..Default::default()
        };
        match tab.ask(Request::Hello(hello)).await {
            Outcome::Welcome(welcome) => assert_eq!(welcome.features, Feature::Notifications as u64),
            other => panic!("{other:?}"),
        }
        tab
    }

    /// One that does not.
    async fn deaf(broker: &Broker, token: &str) -> Self {
        Self {
            peer: ProtoPeer::join(broker.address, token).await,
            next: 0,
            told: VecDeque::new(),
        }
    }

    async fn ask(&mut self, request: Request) -> Outcome {
        self.next += 1;
        self.peer.ask(self.next, request).await;
        loop {
            match self.peer.receive().await {
                Message::Reply(reply) if reply.id == self.next => return reply.outcome.expect("an outcome"),
                told => self.told.push_back(told),
            }
        }
    }

    async fn list(&mut self, asked: wire::Notifications) -> wire::NotificationPage {
        match self.ask(Request::Notifications(asked)).await {
            Outcome::NotificationPage(page) => page,
            other => panic!("{other:?}"),
        }
    }

    async fn all(&mut self) -> wire::NotificationPage {
        self.list(wire::Notifications::default()).await
    }

    async fn read(&mut self, ids: &[u64], up_to: u64) -> wire::NotificationsRead {
        let ids = ids.to_vec();
        match self.ask(Request::MarkRead(wire::MarkRead { ids, up_to })).await {
            Outcome::NotificationsRead(read) => read,
            other => panic!("{other:?}"),
        }
    }

    async fn told(&mut self) -> Message {
        match self.told.pop_front() {
            Some(told) => told,
            None => self.peer.receive().await,
        }
    }

    async fn notified(&mut self) -> wire::Notification {
        match self.told().await {
            Message::Notification(notification) => notification,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that came before an answer to a question asked now.
    async fn told_so_far(&mut self) -> Vec<Message> {
        self.ask(Request::Ping(wire::Ping {})).await;
        self.told.drain(..).collect()
    }
}

fn titles(page: &wire::NotificationPage) -> Vec<&str> {
    page.notifications.iter().map(|n| n.title.as_str()).collect()
}

#[tokio::test]
async fn a_user_who_was_away_finds_it_later_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let mut sender = Tab::deaf(&broker, &full_token("a", "bo", "staff")).await;
    let request = wire::Notify {
        to: Some(notify::To::User("ana".to_owned())),
        kind: NotificationKind::Alert as i32,
        title: "Stock".to_owned(),
        message: "Low".to_owned(),
        json: br#"{"sku":7}"#.as_slice().into(),
        priority: Priority::High as i32,
        expires_in_ms: 60_000,
        idempotency_key: "once".to_owned(),
    };
    let first = match sender.ask(Request::Notify(request.clone())).await {
        Outcome::Notified(notified) => notified.id,
        other => panic!("{other:?}"),
    };
    stop(broker).await;

    let broker = start(dir.path(), "");
    let mut ana = Tab::deaf(&broker, &token("a", "ana")).await;
    let page = ana.all().await;
    assert_eq!((page.unread, page.more, page.notifications.len()), (1, false, 1));
    let found = &page.notifications[0];
    assert_eq!(
        (found.id, found.title.as_str(), found.message.as_str()),
        (first, "Stock", "Low")
    );
    assert_eq!(
        (found.kind(), found.priority()),
        (NotificationKind::Alert, Priority::High)
    );
    assert_eq!(&found.json[..], br#"{"sku":7}"#);
    assert_eq!(found.expires_unix_ms - found.created_unix_ms, 60_000);
    assert!(!found.read);

    // The sender did not hear the answer and asks again, of another broker than the one that answered.
    let mut sender = Tab::deaf(&broker, &full_token("a", "bo", "staff")).await;
    match sender.ask(Request::Notify(request)).await {
        Outcome::Notified(notified) => assert_eq!(notified.id, first),
        other => panic!("{other:?}"),
    }
    assert_eq!(leave(&tenant(&broker, "a"), user("ana"), "next").await, first + 1);
    assert_eq!(ana.read(&[], first).await.unread, 1);
    assert_eq!(titles(&ana.all().await), ["next", "Stock"]);
}

#[tokio::test]
async fn all_tabs_are_told_what_one_has_read_and_agree() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let a = tenant(&broker, "a");
    let mut left_tab = Tab::open(&broker, &token("a", "ana")).await;
    let mut right_tab = Tab::open(&broker, &token("a", "ana")).await;
    let mut old_tab = Tab::deaf(&broker, &token("a", "ana")).await;
    let mut ids = Vec::new();
    for title in ["one", "two", "three"] {
        ids.push(leave(&a, user("ana"), title).await);
    }
    for tab in [&mut left_tab, &mut right_tab] {
        for &id in &ids {
            let notified = tab.notified().await;
            assert_eq!((notified.id, notified.read), (id, false));
        }
    }
    let read = left_tab.read(&[ids[1], ids[1], 9_999], 0).await;
    assert_eq!((read.ids.as_slice(), read.up_to, read.unread), (&ids[1..2], 0, 2));
    assert_eq!(right_tab.told().await, Message::NotificationsRead(read));
    // To read it once more changes nothing.
    assert_eq!(right_tab.read(&[ids[1]], 0).await.unread, 2);
    let again = wire::NotificationsRead {
        ids: vec![ids[1]],
        up_to: 0,
        unread: 2,
    };
    assert_eq!(left_tab.told().await, Message::NotificationsRead(again));
    // All: as far as there are any, and not what comes later.
    let read = right_tab.read(&[], INTEGER_MAX).await;
    assert_eq!((read.ids.len(), read.up_to, read.unread), (0, ids[2], 0));
    assert_eq!(left_tab.told().await, Message::NotificationsRead(read));
    leave(&a, user("ana"), "four").await;
    let page = left_tab
        .list(wire::Notifications {
            unread_only: true,
            ..Default::default()
        })
        .await;
    assert_eq!((titles(&page), page.unread), (vec!["four"], 1));
    assert!(left_tab.all().await.notifications.iter().skip(1).all(|n| n.read));
    // Whoever does not understand these pushes gets none, but may ask.
    assert_eq!(old_tab.told_so_far().await, []);
    assert_eq!(old_tab.all().await.unread, 1);
}

#[tokio::test]
async fn a_connection_in_other_roles_is_told_its_own_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let a = tenant(&broker, "a");
    let mut staff_tab = Tab::open(&broker, &full_token("a", "ana", "staff")).await;
    let mut plain_tab = Tab::open(&broker, &token("a", "ana")).await;
    let own = leave(&a, user("ana"), "own").await;
    leave(&a, role("staff"), "staff").await;
    assert_eq!(plain_tab.notified().await.title, "own");
    let read = staff_tab.read(&[own], 0).await;
    assert_eq!(read.unread, 1);
    let elsewhere = wire::NotificationsRead { unread: 0, ..read };
    assert_eq!(plain_tab.told().await, Message::NotificationsRead(elsewhere));
}

#[tokio::test]
async fn nobody_sees_or_marks_what_is_not_for_him() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let (a, b) = (tenant(&broker, "a"), tenant(&broker, "b"));
    let mut ana = Tab::open(&broker, &full_token("a", "ana", "staff")).await;
    let mut bo = Tab::open(&broker, &token("a", "bo")).await;
    let mut namesake = Tab::open(&broker, &full_token("b", "ana", "staff")).await;
    let own = leave(&a, user("ana"), "ana of a").await;
    let staff = leave(&a, role("staff"), "staff of a").await;
    leave(&a, Audience::Tenant, "all of a").await;
    leave(&b, Audience::Tenant, "all of b").await;

    assert_eq!(titles(&ana.all().await), ["all of a", "staff of a", "ana of a"]);
    assert_eq!(titles(&bo.all().await), ["all of a"]);
    assert_eq!(titles(&namesake.all().await), ["all of b"]);
    for (tab, expected) in [
        (&mut ana, vec!["ana of a", "staff of a", "all of a"]),
        (&mut bo, vec!["all of a"]),
        (&mut namesake, vec!["all of b"]),
    ] {
        let told = tab.told_so_far().await;
        let told: Vec<&str> = told
            .iter()
            .map(|told| match told {
                Message::Notification(notification) => notification.title.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, expected);
    }
    // What one may not see answers like what is not there.
    assert_eq!(bo.read(&[own, staff], 0).await, bo.read(&[77_777], 0).await);
    assert_eq!(
        namesake.read(&[own, staff], 0).await.ids.len(),
        1,
        "id 1 of its own tenant alone"
    );
    assert_eq!(ana.all().await.unread, 3);
    // Rights are those of the token at hand: the same user without the role.
    let mut plain = Tab::open(&broker, &token("a", "ana")).await;
    assert_eq!(titles(&plain.all().await), ["all of a", "ana of a"]);
    // And to leave one for others is a right of its own.
    let foreign = wire::Notify {
        to: Some(notify::To::Tenant(true)),
        title: "spam".to_owned(),
        ..Default::default()
    };
    match plain.ask(Request::Notify(foreign)).await {
        Outcome::Error(error) => assert_eq!(error.name, Code::Forbidden.name()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_list_comes_in_pages_without_gaps_while_more_are_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "notifications.per_audience=25");
    let a = tenant(&broker, "a");
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(leave(&a, user("ana"), &n.to_string()).await);
    }
    let mut ana = Tab::deaf(&broker, &token("a", "ana")).await;
    let (mut before, mut seen) = (0, Vec::new());
    loop {
        let page = ana
            .list(wire::Notifications {
                before,
                limit: 7,
                ..Default::default()
            })
            .await;
        assert!(page.notifications.len() <= 7);
        seen.extend(page.notifications.iter().map(|n| n.id));
        if !page.more {
            break;
        }
        before = *seen.last().expect("a page with more is not empty");
        leave(&a, Audience::Tenant, "meanwhile").await;
    }
    seen.reverse();
    assert_eq!(seen, ids[5..], "the newest 25, each once");
}

#[tokio::test]
async fn thousands_left_at_once_share_transactions_and_are_pushed_in_the_order_of_their_ids() {
    const COUNT: u64 = 2_000;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "notifications.per_audience=5000");
    let a = tenant(&broker, "a");
    let mut ana = Tab::open(&broker, &token("a", "ana")).await;
    let begun = std::time::Instant::now();
    let leaving: Vec<_> = (0..COUNT)
        .map(|n| {
            let a = a.clone();
            tokio::spawn(async move { leave(&a, user("ana"), &n.to_string()).await })
        })
        .collect();
    let mut ids = Vec::new();
    for left in leaving {
        ids.push(left.await.expect("a task"));
    }
    let took = begun.elapsed();
    for id in 1..=COUNT {
        assert_eq!(ana.notified().await.id, id);
    }
    ids.sort_unstable();
    assert!(ids.into_iter().eq(1..=COUNT));
    assert_eq!(ana.all().await.unread, u32::try_from(COUNT).expect("a few"));
    println!("{COUNT} notifications were committed in {took:?}");
}

#[tokio::test]
async fn high_overtakes_what_waits_for_a_slow_reader_and_low_gives_way() {
    const LETTERS: usize = 36;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(
        dir.path(),
        "limits.outbox_bytes=20MiB\nlimits.mailbox_bytes=64MiB\nlimits.frame_bytes=1MiB\nlimits.payload_bytes=600KiB",
    );
    let a = tenant(&broker, "a");
    let mut slow = Tab::open(&broker, &token("a", "ana")).await;
    // It reads nothing for a while, and some megabytes wait for it.
    let letter = Payload::text("x".repeat(500 * 1024));
    for _ in 0..LETTERS {
        let to = Recipient::User(UserId::new("ana").expect("a name"));
        a.send(to, "letter", letter.clone()).expect("sent");
    }
    for (title, priority) in [
        ("low", Priority::Low),
        ("normal", Priority::Normal),
        ("high", Priority::High),
        ("higher", Priority::High),
    ] {
        a.notify(notice(user("ana"), title, priority))
            .await
            .expect("left");
    }
    let handle = broker.server.handle();
    let metrics = || {
        let metrics = handle.metrics();
        let pushed = metrics.total(|m| &m.notices_pushed);
        (pushed, metrics.total(|m| &m.notices_gave_way))
    };
    let all_handed_over = async {
        while metrics() != (3, 1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_handed_over)
        .await
        .expect("they reach the outbox");

    let mut heard = Vec::new();
    while heard.len() < LETTERS + 3 {
        heard.push(match slow.told().await {
            Message::Direct(_) => "letter".to_owned(),
            Message::Notification(notification) => notification.title,
            other => panic!("{other:?}"),
        });
    }
    let at = |title: &str| heard.iter().position(|heard| heard == title).expect(title);
    assert_eq!(at("higher"), at("high") + 1, "in the order of their ids");
    assert!(at("high") < LETTERS, "it overtook: {}", at("high"));
    assert_eq!(at("normal"), LETTERS + 2, "behind every letter that waited");
    let mut tab = Tab::deaf(&broker, &token("a", "ana")).await;
    assert_eq!(
        titles(&tab.all().await),
        ["higher", "high", "normal", "low"],
        "nothing is lost"
    );
}

#[tokio::test]
async fn what_has_expired_is_neither_listed_nor_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let a = tenant(&broker, "a");
    let mut short = notice(user("ana"), "short", Priority::Normal);
    short.expires_in_ms = 1;
    a.notify(short).await.expect("left");
    leave(&a, user("ana"), "long").await;
    let mut ana = Tab::deaf(&broker, &token("a", "ana")).await;
    // Time must pass; that is all this waits for.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let page = ana.all().await;
    assert_eq!((titles(&page), page.unread), (vec!["long"], 1));
    let mut for_ever = notice(user("ana"), "for ever", Priority::Normal);
    for_ever.expires_in_ms = u64::MAX;
    assert_eq!(
        a.notify(for_ever).await.expect_err("too long").code,
        Code::Invalid
    );
}

#[tokio::test]
async fn without_a_database_there_are_no_notifications_and_it_says_so() {
    let broker = Broker::start();
    let mut ana = Tab::open(&broker, &full_token("a", "ana", "staff")).await;
    let requests = [
        Request::Notify(wire::Notify {
            to: Some(notify::To::User("ana".to_owned())),
            title: "t".to_owned(),
            ..Default::default()
        }),
        Request::Notifications(wire::Notifications::default()),
        Request::MarkRead(wire::MarkRead {
            ids: vec![1],
            up_to: 0,
        }),
    ];
    for request in requests {
        match ana.ask(request).await {
            Outcome::Error(error) => {
                assert_eq!(error.name, Code::Unsupported.name());
                assert!(error.message.contains("without a database"), "{}", error.message);
            }
            other => panic!("{other:?}"),
        }
    }
}

struct Api {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Api {
    fn of(broker: &Broker) -> Self {
        // Whoever was first has installed one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = broker.server.admin().operator_key().expect("a new database");
        Self {
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(PATIENCE)
                .build()
                .expect("a client"),
            base: format!("http://{}", broker.address),
            key: key.expose_secret().to_owned(),
        }
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.bearer_auth(&self.key).send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.answer(self.client.get(format!("{}{path}", self.base))).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.answer(self.client.post(format!("{}{path}", self.base)).json(&body))
            .await
    }
}

#[tokio::test]
async fn the_api_leaves_lists_and_marks_on_behalf_of_a_user() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let api = Api::of(&broker);
    let mut tab = Tab::open(&broker, &token("a", "ana")).await;
    let body = json!({"user": "ana", "kind": "alert", "title": "Stock", "message": "Low", "json": {"sku": 7},
        "priority": "high", "expires_in_ms": 60_000, "idempotency_key": "k"});
    let path = "/v1/notifications?tenant=a";
    assert_eq!(
        api.post(path, body.clone()).await,
        (200, json!({"id": 1, "repeated": false}))
    );
    assert_eq!(
        api.post(path, body).await,
        (200, json!({"id": 1, "repeated": true}))
    );
    assert_eq!(tab.notified().await.title, "Stock");
    api.post(path, json!({"role": "staff", "title": "Shift"})).await;
    api.post(path, json!({"tenant": true, "title": "Hello"})).await;

    let (_, page) = api
        .get("/v1/users/ana/notifications?tenant=a&roles=staff&limit=2")
        .await;
    let shown = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().expect("items").iter();
        items
            .map(|item| item["title"].as_str().expect("a title").to_owned())
            .collect()
    };
    assert_eq!(
        (shown(&page), &page["unread"]),
        (vec!["Hello".to_owned(), "Shift".to_owned()], &json!(3))
    );
    let next = page["next"].as_str().expect("another page");
    let (_, page) = api
        .get(&format!(
            "/v1/users/ana/notifications?tenant=a&limit=2&cursor={next}"
        ))
        .await;
    assert_eq!(
        (shown(&page), &page["next"]),
        (vec!["Stock".to_owned()], &Value::Null)
    );
    let item = &page["items"][0];
    assert_eq!(
        (&item["kind"], &item["priority"], &item["json"], &item["read"]),
        (&json!("alert"), &json!("high"), &json!({"sku": 7}), &json!(false))
    );

    let read = api
        .post(
            "/v1/users/ana/notifications/read?tenant=a",
            json!({"ids": [1, 2]}),
        )
        .await;
    assert_eq!(read, (200, json!({"ids": [1], "up_to": 0, "unread": 1})));
    assert_eq!(tab.notified().await.title, "Hello");
    let told = wire::NotificationsRead {
        ids: vec![1],
        up_to: 0,
        unread: 1,
    };
    assert_eq!(tab.told().await, Message::NotificationsRead(told));

    for (path, body) in [
        (path, json!({"title": "to nobody"})),
        (path, json!({"user": "ana", "tenant": true, "title": "to two"})),
        (path, json!({"user": "ana", "title": ""})),
        (path, json!({"user": "ana", "title": "t", "kind": "loud"})),
        (
            path,
            json!({"user": "ana", "title": "t", "expires_in_ms": 40_000_000_000u64}),
        ),
        ("/v1/users/ana/notifications/read?tenant=a", json!({})),
    ] {
        let (status, answer) = api.post(path, body).await;
        assert_eq!(
            (status, &answer["error"]["name"]),
            (400, &json!("invalid")),
            "{answer}"
        );
    }
    let (status, _) = api.get("/v1/users/ana/notifications?tenant=nowhere").await;
    assert_eq!(status, 404);
    let (_, page) = api.get("/v1/users/ana/notifications?tenant=b").await;
    assert_eq!(shown(&page), Vec::<String>::new(), "ana of b is somebody else");
}

#[tokio::test]
async fn a_flood_of_one_tenant_is_told_to_wait_and_does_not_keep_out_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let (a, b) = (tenant(&broker, "a"), tenant(&broker, "b"));
    let flood: Vec<_> = (0..2 * cauce_broker::store::CHANGES_PER_TENANT_MAX)
        .map(|n| {
            let a = a.clone();
            async move {
                a.notify(notice(user("ana"), &n.to_string(), Priority::Normal))
                    .await
            }
        })
        .collect();
    // All of them are asked before the runtime looks at any answer; the other tenant asks behind them.
    let mut flood = Box::pin(futures_util::future::join_all(flood));
    assert!(futures_util::poll!(flood.as_mut()).is_pending());
    let b_waited = tokio::time::timeout(PATIENCE, leave(&b, user("ana"), "quiet"));
    assert_eq!(b_waited.await.expect("in time"), 1);
    let answers = flood.await;
    let refused: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert!(!refused.is_empty());
    for refusal in &refused {
        assert_eq!(refusal.code, Code::Overloaded);
        assert!(refusal.retry_after_ms > 0);
    }
    // Nothing that was refused is there, nothing that was acknowledged got another's id.
    let mut ids: Vec<u64> = answers
        .iter()
        .filter_map(|answer| Some(answer.as_ref().ok()?.id))
        .collect();
    let in_order = ids.is_sorted();
    ids.sort_unstable();
    assert!(in_order && ids.iter().copied().eq(1..=ids.len() as u64));
}

#[tokio::test]
async fn a_token_of_one_right_leaves_notifications_there_and_nowhere_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let mut bo = Tab::deaf(&broker, &sign_for("a", claims("bo", &["$user:ana"]))).await;
    for (to, allowed) in [
        (notify::To::User("ana".to_owned()), true),
        (notify::To::User("bo".to_owned()), true),
        (notify::To::User("cy".to_owned()), false),
        (notify::To::Role("staff".to_owned()), false),
        (notify::To::Tenant(true), false),
    ] {
        let request = wire::Notify {
            to: Some(to.clone()),
            title: "t".to_owned(),
            ..Default::default()
        };
        let outcome = bo.ask(Request::Notify(request)).await;
        assert_eq!(
            matches!(outcome, Outcome::Notified(_)),
            allowed,
            "{to:?}: {outcome:?}"
        );
    }
}

fn store_row(n: u64, json_bytes: usize) -> Arc<NotificationRow> {
    Arc::new(NotificationRow {
        tenant: TenantId::new("default").expect("a name"),
        audience: Audience::Tenant,
        sender: Sender::Program,
        idempotency_key: "".into(),
        window_ms: 0,
        kind: NotificationKind::Info,
        title: n.to_string(),
        message: String::new(),
        json: format!("\"{}\"", "x".repeat(json_bytes)).into(),
        priority: Priority::Normal,
        created_ms: n,
        expires_ms: u64::MAX / 4,
    })
}

/// The titles of all that are kept, oldest first.
async fn kept(store: &StoreHandle) -> Vec<String> {
    let query = NotificationQuery {
        tenant: TenantId::new("default").expect("a name"),
        reader: Reader {
            user: UserId::new("ana").expect("a name"),
            roles: Box::default(),
        },
        before: 0,
        limit: 1_000,
        unread_only: false,
        bytes_max: usize::MAX,
        now_ms: 0,
    };
    let page = store.notifications(query).await.expect("a page");
    assert!(!page.more);
    page.notifications.into_iter().rev().map(|n| n.title).collect()
}

#[tokio::test]
async fn when_the_disk_is_full_nothing_is_acknowledged_and_what_was_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = StoreConfig::new(dir.path());
    config.database_bytes_max = Some(1024 * 1024);
    let (store, _) = Store::open(config).expect("the store opens");
    let handle = store.handle();
    let mut acknowledged = Vec::new();
    let refused = loop {
        let n = acknowledged.len() as u64;
        assert!(n < 100, "a megabyte holds no more than a hundred of these");
        let (done, left) = Done::awaited();
        handle.leave_notification(store_row(n, 50_000), done);
        match left.await {
            Ok(_) => acknowledged.push(n.to_string()),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refused.code, Code::Unavailable);
    assert!(
        refused.retry_after_ms > 0 && refused.message.contains("full"),
        "{refused}"
    );
    assert!(!acknowledged.is_empty());
    assert_eq!(kept(&handle).await, acknowledged);
    store.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn a_store_that_stops_answers_everyone_and_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(StoreConfig::new(dir.path())).expect("the store opens");
    let handle = store.handle();
    let mut answers = Vec::new();
    for n in 0..900 {
        let (done, left) = Done::awaited();
        handle.leave_notification(store_row(n, 10), done);
        answers.push(left);
    }
    // Some are committed before it stops, some wait.
    answers.remove(0).await.expect("the first is left");
    let (left, answers) = tokio::join!(store.shutdown(PATIENCE), futures_util::future::join_all(answers));
    assert!(left.checkpointed);
    let mut acknowledged = vec!["0".to_owned()];
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(_) => acknowledged.push((n + 1).to_string()),
            Err(refusal) => assert_eq!(refusal.code, Code::Unavailable),
        }
    }
    let (store, _) = Store::open(StoreConfig::new(dir.path())).expect("the store opens again");
    assert_eq!(kept(&store.handle()).await, acknowledged);
    store.shutdown(PATIENCE).await;
}
