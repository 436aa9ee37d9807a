//! The broker from inside the process, and how it ends.

mod support;

use std::sync::mpsc;
use std::time::Duration;

use cauce_broker::hub::{OutgoingCall, PublishLimit};
use cauce_broker::mailbox::BEHIND_BYTES;
use cauce_broker::{Persistence, Server, Stopped, TAP_BYTES_MAX};
use cauce_protocol::message::Recipient;
use cauce_protocol::{Code, Payload, UserId};
use serde_json::json;
use support::pace::with_longer;
use support::raw::Raw;
use support::{Broker, PATIENCE, config, token};

fn text(n: u64) -> Payload {
    Payload::text(n.to_string())
}

/// Stops the broker on a thread of its own, for it blocks.
fn stop(broker: Broker, deadline: Duration) -> mpsc::Receiver<Stopped> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(broker.server.stop(deadline)));
    receiver
}

/// Waits for the end off the runtime, so that peers of the test live on meanwhile.
async fn stopped(receiver: mpsc::Receiver<Stopped>) -> Stopped {
    tokio::task::spawn_blocking(move || receiver.recv_timeout(PATIENCE))
        .await
        .expect("a thread")
        .expect("the broker stops")
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

#[tokio::test]
async fn what_is_published_in_the_process_reaches_taps_and_sockets_in_one_order() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut ann = broker.join(&token("a", "ann")).await;
    ann.subscribe(&["r"]).await;
    let mut tap = a.subscribe("r").expect("a tap");
    let (epoch, after) = tap.position();
    assert_eq!(after.0, 0);
    for n in 1..=100 {
        let accepted = a.publish("r", "e", text(n)).expect("published");
        assert_eq!(
            (
                accepted.seq.0,
                accepted.epoch,
                accepted.receivers,
                accepted.repeated
            ),
            (n, epoch, 2, false)
        );
    }
    for n in 1..=100 {
        let message = tap.next().await.expect("a message");
        assert_eq!((message.seq.0, &message.payload), (n, &text(n)));
        assert_eq!(ann.receive().await["push"]["text"], n.to_string());
    }
    assert!(tap.try_next().is_none());
    ann.ask(json!({"id": 2, "publish": {"room": "r", "event": "e", "json": 1}}))
        .await;
    assert_eq!(tap.next().await.expect("a message").seq.0, 101);
}

#[tokio::test]
async fn a_repeat_is_answered_like_the_first_and_keys_of_users_do_not_meet_it() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let first = a.publish_once("r", "e", text(1), Some("k")).expect("published");
    let again = a.publish_once("r", "e", text(2), Some("k")).expect("published");
    assert_eq!(
        (first.seq, first.repeated, again.seq, again.repeated),
        (again.seq, false, first.seq, true)
    );
    let mut ann = broker.join(&token("a", "ann")).await;
    let reply = ann
        .ask(json!({"id": 2, "publish": {"room": "r", "event": "e", "idempotency_key": "k"}}))
        .await
        .0;
    assert_eq!(
        (&reply["published"]["seq"], &reply["published"]["repeated"]),
        (&json!(2), &json!(false))
    );
}

#[tokio::test]
async fn a_repeat_by_a_sender_who_has_joined_since_is_answered_like_the_first() {
    let broker = Broker::start();
    let mut ann = broker.join(&token("a", "ann")).await;
    let publish = |id: u32| json!({"id": id, "publish": {"room": "r", "event": "e", "idempotency_key": "k", "exclude_sender": true, "want_receivers": true}});
    assert_eq!(ann.ask(publish(1)).await.0["published"]["receivers"], 0);
    ann.subscribe(&["r"]).await;
    let again = ann.ask(publish(2)).await.0;
    assert_eq!(
        (&again["published"]["receivers"], &again["published"]["repeated"]),
        (&json!(0), &json!(true))
    );
}

#[tokio::test]
async fn what_breaks_a_limit_is_refused_and_nobody_gets_it() {
    let broker = Broker::with("limits.rooms_per_tenant=2");
    let handle = broker.server.handle();
    assert_eq!(
        handle
            .tenant("nobody")
            .map(drop)
            .expect_err("no such tenant")
            .code,
        Code::NotFound
    );
    let a = handle.tenant("a").expect("tenant a");
    let mut tap = a.subscribe("r").expect("a tap");
    let code = |result: Result<cauce_broker::rooms::Accepted, cauce_protocol::Refusal>| {
        result.expect_err("refused").code
    };
    assert_eq!(code(a.publish("r", "", text(1))), Code::Invalid);
    assert_eq!(
        code(a.publish("r", "e", Payload::Json("{".into()))),
        Code::Malformed
    );
    assert_eq!(
        code(a.publish("r", "e", Payload::Text(vec![0xff].into()))),
        Code::Malformed
    );
    assert_eq!(
        code(a.publish("r", "e", Payload::binary(vec![0; 61 * 1024]))),
        Code::TooLarge
    );
    assert_eq!(code(a.publish("", "e", text(1))), Code::Invalid);
    assert_eq!(code(a.publish(" r", "e", text(1))), Code::Invalid);
    assert_eq!(
        a.subscribe("\u{0}").map(drop).expect_err("refused").code,
        Code::Invalid
    );
    a.publish("second", "e", text(1)).expect("room for one more");
    let refusal = a.publish("third", "e", text(1)).expect_err("one too many");
    assert_eq!(refusal.code, Code::QuotaExceeded);
    assert!(refusal.retry_after_ms > 0);
    assert!(tap.try_next().is_none());
    // The other tenant has rooms of its own to use up.
    handle
        .tenant("b")
        .expect("tenant b")
        .publish("third", "e", text(1))
        .expect("published");
}

#[tokio::test]
async fn a_tap_that_does_not_keep_up_is_cut_off_after_what_it_was_given_and_the_room_goes_on() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let (mut slow, mut other) = (a.subscribe("r").expect("a tap"), a.subscribe("r").expect("a tap"));
    let payload = Payload::binary(vec![7; 50_000]);
    let mut given = 0;
    let receivers = |n: u64| {
        let accepted = a.publish("r", "e", payload.clone()).expect("published");
        assert_eq!(accepted.seq.0, n);
        accepted.receivers
    };
    while receivers(given + 1) == 2 {
        given += 1;
        assert_eq!(other.next().await.expect("a message").seq.0, given);
        assert!(given < 100, "the queue of a tap has no end");
    }
    // The one that noticed was counted still when its message came; the next one finds it gone.
    let kept = given - 1;
    assert!(kept as usize * 50_000 <= TAP_BYTES_MAX);
    for n in 1..=kept {
        assert_eq!(slow.next().await.expect("a message").seq.0, n);
    }
    assert!(slow.next().await.is_none(), "it is told that it was cut off");
    assert_eq!(other.next().await.expect("a message").seq.0, given + 1);
}

/// Threads without a runtime: one sleeps at once, one may sleep, one never does.
#[test]
fn a_thread_that_blocks_gets_every_message_in_order_and_is_told_when_it_was_cut_off() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let large = Payload::binary(vec![7; 50_000]);
    for spin in [Duration::ZERO, Duration::from_micros(20), Duration::MAX] {
        let mut tap = a.subscribe("r").expect("a tap");
        let after = tap.position().1.0;
        let (heard, told) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        std::thread::spawn(move || {
            let mut hear = |count| {
                for _ in 0..count {
                    let next = tap.blocking_next(spin).map(|message| message.seq.0);
                    if heard.send(next).is_err() || next.is_none() {
                        return;
                    }
                }
            };
            hear(100);
            // What comes until then is more than may wait.
            if may_go_on.recv().is_ok() {
                hear(usize::MAX);
            }
        });
        for n in 1..=100 {
            a.publish("r", "e", text(n)).expect("published");
            assert_eq!(told.recv_timeout(PATIENCE), Ok(Some(after + n)), "{spin:?}");
        }
        let kept = (TAP_BYTES_MAX / large.as_bytes().len()) as u64;
        for _ in 0..=kept {
            a.publish("r", "e", large.clone()).expect("published");
        }
        go_on.send(()).expect("the listener lives");
        let mut rest = 0;
        while let Some(seq) = told.recv_timeout(PATIENCE).expect("a message or the end") {
            rest += 1;
            assert_eq!(seq, after + 100 + rest, "{spin:?}");
        }
        assert!((1..=kept).contains(&rest), "{spin:?}: {rest}");
    }
}

#[tokio::test]
async fn sends_reach_people_and_not_rooms() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut ann = broker.join(&token("a", "ann")).await;
    let mut namesake = broker.join(&token("b", "ann")).await;
    a.send(
        Recipient::User(UserId::new("ann").expect("a name")),
        "note",
        text(1),
    )
    .expect("sent");
    assert_eq!(
        ann.receive().await,
        json!({"direct": {"event": "note", "text": "1"}})
    );
    assert!(namesake.ask(json!({"id": 1, "ping": {}})).await.1.is_empty());
}

#[tokio::test]
async fn a_room_outlives_its_listeners_by_the_linger_time_and_then_begins_anew() {
    with_longer(1, outlive_the_listeners).await;
}

async fn outlive_the_listeners(linger_seconds: u64) {
    let broker = Broker::with(&format!(
        "rooms.linger={linger_seconds}s\nrooms.history_messages=0\nlimits.rooms_per_tenant=1"
    ));
    let rooms = |tenant: &str| {
        broker
            .server
            .hub()
            .tenants
            .get(tenant)
            .expect("a tenant")
            .rooms
            .len()
    };
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut ann = broker.join(&token("a", "ann")).await;
    let position = ann.subscribe(&["r"]).await[0].clone();
    a.publish("r", "e", text(1)).expect("published");
    ann.ask(json!({"id": 2, "unsubscribe": {"rooms": ["r"]}})).await;
    // At once again: the numbering goes on.
    let again = ann.subscribe(&["r"]).await[0].clone();
    assert_eq!((&again["epoch"], &again["seq"]), (&position["epoch"], &json!(1)));
    assert_eq!(rooms("a"), 1);
    drop(ann);
    until("the room closes", || rooms("a") == 0).await;
    // The place is free for another room, and the old name has another life.
    let tap = a.subscribe("r").expect("a tap");
    assert_ne!(json!(tap.position().0.0), position["epoch"]);
    assert_eq!(tap.position().1.0, 0);
    drop(tap);
    until("the room closes again", || rooms("a") == 0).await;
}

#[tokio::test]
async fn stopping_tells_every_peer_and_returns_when_they_have_gone() {
    let broker = Broker::with("threads.client_shards=3");
    let mut peers = Vec::new();
    for n in 0..9 {
        peers.push(broker.join(&token("a", &format!("user-{n}"))).await);
    }
    let mut stranger = Raw::connect(broker.address).await;
    stranger.upgrade("/v1/ws", "").await;
    let address = broker.address;
    let ending = stop(broker, Duration::from_secs(5));
    for mut peer in peers {
        assert_eq!(peer.farewell().await, (4000, 4000));
    }
    assert_eq!(stranger.farewell().await, (vec![4000], 4000));
    drop(stranger);
    assert_eq!(stopped(ending).await.unwritten_rows, 0);
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "the port is free"
    );
}

#[tokio::test]
async fn stopping_does_not_wait_for_peers_that_say_nothing() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    // One that reads nothing, with more than the kernel takes before it; one that never closes its side; one whose
    // handshake is not over when the order to stop comes.
    let mut stalled = Raw::connect_narrow(broker.address).await;
    stalled
        .upgrade(&format!("/v1/ws?token={}", token("a", "stalled")), "")
        .await;
    stalled.hear_json().await;
    stalled.say(json!({"id": 1, "subscribe": {"rooms": ["r"]}})).await;
    stalled.hear_json().await;
    for _ in 0..100 {
        a.publish("r", "e", Payload::binary(vec![0; 10_000]))
            .expect("published");
    }
    let mut mute = Raw::connect(broker.address).await;
    mute.upgrade(&format!("/v1/ws?token={}", token("a", "mute")), "")
        .await;
    let mut late = Vec::new();
    for _ in 0..4 {
        let mut peer = Raw::connect(broker.address).await;
        peer.write(b"GET /v1/ws HTTP/1.1\r\nHost: test\r\n").await;
        late.push(peer);
    }
    until("everybody is in", || broker.server.handle().connections() == 6).await;
    let ending = stop(broker, Duration::from_secs(1));
    assert_eq!(mute.farewell().await, (vec![4000], 4000));
    for peer in &mut late {
        let rest = format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            support::raw::KEY,
            token("a", "late")
        );
        peer.write(rest.as_bytes()).await;
    }
    stopped(ending).await;
}

/// The slice of each thread of this process whose name begins so, in nanoseconds, as the kernel has it.
fn slices(name: &str) -> Vec<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("our threads");
    let slice = |task: std::fs::DirEntry| {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
        read("comm")?.starts_with(name).then_some(())?;
        let schedule = read("sched")?;
        let line = schedule.lines().find(|line| line.starts_with("se.slice"))?;
        line.rsplit(':').next()?.trim().parse().ok()
    };
    tasks.flatten().filter_map(slice).collect()
}

#[tokio::test]
async fn client_shards_run_before_those_who_compute_and_ingest_shards_do_not() {
    let broker = Broker::start();
    let short = cauce_threads::SLICE_NS;
    // Kernels before 6.12 have no slices to ask for, some do not tell them, and a sandbox may refuse: what a thread of ours gets
    // by asking, the broker's get.
    let asked = std::thread::Builder::new().name("asks-itself".into());
    let asked = asked.spawn(|| {
        let _ = cauce_threads::run_soon(cauce_threads::Priority::NORMAL);
        slices("asks-itself")
    });
    let ours = asked.expect("a thread").join().expect("no panic");
    if ours == [short] {
        until("a client shard has asked for a short slice", || {
            slices("cauce-shard").contains(&short)
        })
        .await;
        assert!(!slices("cauce-ingest").contains(&short));
    }
    drop(broker);
}

/// The `nice` value of each thread of this process whose name begins so.
fn niceness(name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("our threads");
    let nice = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(')')?;
        before.split_once('(')?.1.starts_with(name).then_some(())?;
        // The nineteenth field; the third is the first behind the name.
        after.split_whitespace().nth(16)?.parse().ok()
    };
    tasks.flatten().filter_map(nice).collect()
}

/// Of a number that no other test uses, because threads are found by their names.
#[tokio::test]
async fn a_priority_is_the_client_shards_alone_or_the_broker_says_what_it_takes() {
    match Server::start(&config("threads.priority=7"), Persistence::Memory) {
        Ok(server) => {
            until("a client shard has its priority", || {
                niceness("cauce-shard").contains(&-7)
            })
            .await;
            assert!(!niceness("cauce-ingest").contains(&-7));
            drop(server);
        }
        Err(error) => {
            let words = error.to_string();
            assert!(
                words.contains("threads.priority is 7") && words.contains("CAP_SYS_NICE"),
                "{words}"
            );
        }
    }
}

#[tokio::test]
async fn dropping_the_broker_lets_go_of_its_port_and_its_peers() {
    let server = Server::start(&config(""), Persistence::Memory).expect("the broker starts");
    let address = server.address();
    let broker = Broker { server, address };
    let mut ann = broker.join(&token("a", "ann")).await;
    let handle = broker.server.handle();
    drop(broker);
    assert_eq!(ann.farewell().await, (4000, 4000));
    drop(ann);
    until("all connections have ended", || handle.connections() == 0).await;
    let refused = || std::net::TcpStream::connect(address).is_err();
    until("the port is free", refused).await;
}

#[tokio::test]
async fn a_call_that_waits_is_answered_when_the_broker_stops() {
    let broker = Broker::start();
    let device = broker.device_token("a", None);
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut plug = Raw::connect(broker.address).await;
    plug.upgrade(&format!("/shelly?token={}", device.expose()), "")
        .await;
    plug.say(json!({"src": "shellyplug-AABBCC", "dst": "ws", "method": "NotifyFullStatus", "params": {"ts": 1.0, "switch:0": {"id": 0, "output": true}}})).await;
    plug.hear_json().await;
    let call = OutgoingCall {
        method: "Switch.Set".into(),
        params: "{}".into(),
        timeout_ms: 60_000,
    };
    let waiting = tokio::spawn(async move { a.call_device("AABBCC", call).await });
    while plug.hear_json().await["method"] != "Switch.Set" {}
    let ending = stop(broker, Duration::from_secs(1));
    let answer = tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("an answer")
        .expect("no panic");
    assert_eq!(answer.expect_err("no device any more").code, Code::GoingAway);
    drop(plug);
    stopped(ending).await;
}

/// What waits of a tenant, held in its part of the queues as a shard that does not come to it would.
struct Stuck(std::sync::Arc<cauce_broker::hub::Tenant>);

impl Stuck {
    const BYTES: usize = BEHIND_BYTES + 1;

    fn of(broker: &Broker, tenant: &str) -> Self {
        let tenant = broker.server.hub().tenants.get(tenant).expect("a tenant");
        assert!(tenant.share.reserve(0, Self::BYTES, usize::MAX));
        Self(tenant)
    }

    fn take(self) {
        self.0.share.release(0, Self::BYTES);
    }
}

#[tokio::test]
async fn who_asks_whether_a_tenant_is_ready_waits_for_that_tenant_alone_and_goes_on_when_it_is() {
    let broker = Broker::start();
    let (a, b) = (
        broker.server.handle().tenant("a").expect("tenant a"),
        broker.server.handle().tenant("b").expect("tenant b"),
    );
    a.ready().await.expect("nothing waits");
    let stuck = Stuck::of(&broker, "a");
    let mut waiting: Vec<_> = (0..64).map(|_| Box::pin(a.ready())).collect();
    for ready in &mut waiting {
        assert!(futures_util::poll!(ready.as_mut()).is_pending());
    }
    let refusal = a.ready().await.expect_err("one too many");
    assert_eq!(refusal.code, Code::RateLimited);
    assert!(refusal.retry_after_ms > 0);
    let handle = broker.server.handle();
    let limited = &handle.metrics().publish_limited;
    assert_eq!(limited[PublishLimit::TenantQueue as usize].value(), 1);
    b.ready().await.expect("another tenant");
    stuck.take();
    for ready in waiting {
        ready.await.expect("its turn");
    }
    // Whoever gives up gives his turn up too.
    let stuck = Stuck::of(&broker, "a");
    let mut first = Box::pin(a.ready());
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    let mut second = Box::pin(a.ready());
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    drop(first);
    stuck.take();
    second.await.expect("the turn of the first");
}

#[tokio::test]
async fn who_waits_for_a_tenant_that_is_stuck_is_refused_in_the_end() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let _stuck = Stuck::of(&broker, "a");
    let refusal = tokio::time::timeout(PATIENCE, a.ready()).await.expect("in time");
    assert_eq!(refusal.expect_err("it is stuck").code, Code::RateLimited);
}
