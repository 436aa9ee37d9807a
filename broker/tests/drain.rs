//! A broker that is told to stop: nobody new, everybody sent away at a moment of his own, nothing lost that was taken.

mod support;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{Durability, Keep, RoomClass};
use cauce_broker::{Persistence, Server, Stopped};
use cauce_protocol::Payload;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use support::files::peers;
use support::pace::with_longer;
use support::raw::{Heard, Raw};
use support::{Broker, PATIENCE, full_token, token};

/// Of the tests in which nothing is waited for on purpose.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longest from one who leaves to the next.
const INTERVAL_MAX: Duration = Duration::from_millis(5);

struct Ending {
    begun: Instant,
    stopped: mpsc::Receiver<(Stopped, Duration)>,
}

/// Stops the broker on a thread of its own and waits until it takes nobody new.
async fn stop(broker: Broker, deadline: Duration) -> Ending {
    let hub = broker.server.hub().clone();
    let (sender, stopped) = mpsc::channel();
    let begun = Instant::now();
    std::thread::spawn(move || {
        let stopped = broker.server.stop(deadline);
        sender.send((stopped, begun.elapsed()))
    });
    let leaving = async {
        while !hub.leaving.has_begun() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, leaving)
        .await
        .expect("it begins at once");
    Ending { begun, stopped }
}

impl Ending {
    /// What was left behind and how long it took. Off the runtime, so that peers of the test live on meanwhile.
    async fn wait(self) -> (Stopped, Duration) {
        tokio::task::spawn_blocking(move || self.stopped.recv_timeout(4 * DEADLINE))
            .await
            .expect("a thread")
            .expect("the broker stops")
    }
}

/// One request on a connection of its own: its status line and body.
async fn http(
    address: std::net::SocketAddr,
    method: &str,
    path: &str,
    key: &str,
    body: &str,
) -> (String, Value) {
    let mut raw = Raw::connect(address).await;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    raw.write(request.as_bytes()).await;
    let head = raw.head().await;
    let body = raw.rest().await;
    (head, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// A plug that is online, and its id.
async fn plug(broker: &Broker, tenant: &str) -> (Raw, &'static str) {
    let issued = broker.device_token(tenant, None);
    let mut raw = Raw::connect(broker.address).await;
    let head = raw
        .upgrade(&format!("/shelly?token={}", issued.text.expose_secret()), "")
        .await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    raw.say(
        json!({"src": "shellyplugsg3-aabbccddeeff", "dst": "cauce", "method": "NotifyFullStatus",
        "params": {"ts": 1_700_000_000.5, "switch:0": {"id": 0, "output": true}}}),
    )
    .await;
    let tenant = broker.server.hub().tenants.get(tenant).expect("the tenant");
    let online = async {
        while tenant.devices_len() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, online).await.expect("it is seen");
    (raw, "AABBCCDDEEFF")
}

/// The next request of this method that the plug is asked.
async fn asked(plug: &mut Raw, method: &str) -> Value {
    loop {
        let request = plug.hear_json().await;
        if request["method"] == method {
            return request;
        }
    }
}

async fn answer(plug: &mut Raw, request: &Value) {
    plug.say(
        json!({"id": request["id"], "src": "shellyplugsg3-aabbccddeeff", "dst": request["src"],
        "result": {"was_on": true}}),
    )
    .await;
}

#[tokio::test]
async fn a_thousand_clients_leave_one_after_another_with_everything_that_was_queued_for_them() {
    // Where this takes longer to read than they take to leave, when they left is not seen.
    with_longer(2, leave_one_after_another).await;
}

async fn leave_one_after_another(spread_seconds: u64) {
    const MESSAGES: u64 = 20;
    // Both ends of a connection are in this process.
    let clients = peers(1_000, 2);
    let deadline = DEADLINE + 2 * Duration::from_secs(spread_seconds);
    let broker = Broker::with(&format!(
        "drain.spread={spread_seconds}s\ndrain.retry_after=1500ms"
    ));
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut readers = Vec::new();
    for n in 0..clients {
        let mut peer = broker.join(&token("a", &format!("user-{n}"))).await;
        peer.subscribe(&["r"]).await;
        readers.push(peer);
    }
    for n in 1..=MESSAGES {
        assert_eq!(
            a.publish("r", "e", Payload::text("x")).expect("published").seq.0,
            n
        );
    }
    let ending = stop(broker, deadline).await;
    let begun = ending.begun;
    let readers: Vec<_> = readers
        .into_iter()
        .map(|mut peer| {
            tokio::spawn(async move {
                for n in 1..=MESSAGES {
                    let frame = peer.receive().await;
                    assert_eq!(frame["push"]["seq"], n, "{frame}");
                }
                let goaway = peer.receive().await;
                assert_eq!(goaway["goaway"]["error"]["name"], "going_away", "{goaway}");
                assert_eq!(goaway["goaway"]["error"]["retry_after_ms"], 1500, "{goaway}");
                let left = begun.elapsed();
                assert_eq!(peer.receive().await["close"], 4000);
                left
            })
        })
        .collect();
    let mut left = Vec::new();
    for reader in readers {
        left.push(reader.await.expect("everything, and then the farewell"));
    }
    left.sort_unstable();
    // Between the tenth and the ninetieth of a hundred lie eight tenths of the spread, give or take a busy machine.
    let most = left[clients * 9 / 10] - left[clients / 10];
    // So few that nobody would wait longer for the next one leave faster.
    let spread = Duration::from_secs(spread_seconds).min(INTERVAL_MAX * clients as u32);
    assert!(most > spread * 6 / 10, "{most:?} of {spread:?} for most of them");
    let (stopped, took) = ending.wait().await;
    assert_eq!((stopped.unwritten_rows, stopped.cut_peers), (0, 0));
    assert!(took < deadline, "{took:?}");
}

/// A peer behind a narrow buffer with far more queued than the system holds for it.
async fn behind(broker: &Broker, messages: u64) -> Raw {
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut peer = Raw::connect_narrow(broker.address).await;
    peer.upgrade(&format!("/v1/ws?token={}", token("a", "slow")), "")
        .await;
    peer.hear_json().await;
    peer.say(json!({"id": 1, "subscribe": {"rooms": ["r"]}})).await;
    assert!(peer.hear_json().await["reply"]["subscribed"].is_object());
    for n in 1..=messages {
        while a.publish("r", "e", Payload::text(format!("{n:0>4000}"))).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    peer
}

#[tokio::test]
async fn a_reader_that_has_stopped_does_not_hold_the_drain() {
    let broker = Broker::with("limits.outbox_bytes=16MiB");
    let mut other = broker.join(&token("a", "ann")).await;
    let _stalled = behind(&broker, 1_500).await;
    let ending = stop(broker, 2 * DEADLINE).await;
    assert_eq!(other.farewell().await, (4000, 4000));
    drop(other);
    let (stopped, took) = ending.wait().await;
    assert_eq!(stopped.cut_peers, 1, "it is said that somebody missed something");
    // Its patience, and not the share of the deadline that readers who take something have.
    assert!(took < DEADLINE, "{took:?}");
}

#[tokio::test]
async fn a_reader_that_is_slow_and_reads_on_gets_everything() {
    const MESSAGES: u64 = 1_500;
    let broker = Broker::with("limits.outbox_bytes=16MiB");
    let mut slow = behind(&broker, MESSAGES).await;
    let ending = stop(broker, 2 * DEADLINE).await;
    for n in 1..=MESSAGES {
        let frame = slow.hear_json().await;
        assert_eq!(frame["push"]["seq"], n);
        if n % 5 == 0 {
            // In all longer than a peer that takes nothing is waited for.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert!(
        ending.begun.elapsed() > Duration::from_secs(2),
        "this shows nothing"
    );
    assert_eq!(slow.farewell().await, (vec![4000], 4000));
    drop(slow);
    assert_eq!(ending.wait().await.0.cut_peers, 0);
}

#[tokio::test]
async fn a_request_that_was_read_is_answered_before_the_farewell_and_devices_go_last() {
    answered_before_the_farewell("threads.ingest_shards=1").await;
}

#[tokio::test]
async fn devices_go_last_also_where_they_live_among_clients() {
    answered_before_the_farewell("threads.ingest_shards=0\nthreads.client_shards=1").await;
    answered_before_the_farewell("threads.ingest_shards=0\nthreads.client_shards=2").await;
}

async fn answered_before_the_farewell(threads: &str) {
    let broker = Broker::with(threads);
    let (mut plug, device) = plug(&broker, "a").await;
    let mut ann = broker.join(&full_token("a", "ann", "r")).await;
    ann.say(json!({"id": 7, "call": {"device": device, "method": "Switch.Toggle", "json": {"id": 0}}}))
        .await;
    let request = asked(&mut plug, "Switch.Toggle").await;
    let ending = stop(broker, DEADLINE).await;
    // What it asks from its moment on is not heard; the answer that it is owed still comes.
    answer(&mut plug, &request).await;
    let reply = ann.receive().await;
    assert_eq!(reply["reply"]["id"], 7, "{reply}");
    assert_eq!(reply["reply"]["answer"]["json"]["was_on"], true, "{reply}");
    assert_eq!(ann.farewell().await, (4000, 4000));
    drop(ann);
    loop {
        match plug.hear().await {
            Heard::Close(..) => break,
            Heard::End => panic!("a device is told too"),
            _ => {}
        }
    }
    drop(plug);
    assert_eq!(ending.wait().await.0.cut_peers, 0);
}

/// A broker on this directory whose tenant `a` has durable rooms only.
fn durable(dir: &std::path::Path) -> Broker {
    let config = support::config(&format!("data_dir={}\nthreads.client_shards=1", dir.display()));
    let server = Server::start(&config, Persistence::Store).expect("the broker starts");
    let class = RoomClass {
        durability: Durability::Durable,
        history: Keep {
            messages: 10_000,
            age_ms: 0,
            bytes: 0,
        },
        ..RoomClass::default()
    };
    let tenant = server.hub().tenants.get("a").expect("tenant a");
    tenant.configure(TenantSettings {
        classes: RoomClasses::new(Vec::new(), Arc::new(class)),
        ..(*tenant.settings()).clone()
    });
    server.hub().reclassify(&tenant);
    let address = server.address();
    Broker { server, address }
}

#[tokio::test]
async fn publishes_that_wait_for_the_disk_get_their_answers_and_are_there_after_the_restart() {
    const MESSAGES: u64 = 500;
    let dir = tempfile::tempdir().expect("a folder");
    let broker = durable(dir.path());
    let mut ann = broker.join(&token("a", "ann")).await;
    for n in 1..=MESSAGES {
        ann.say(json!({"id": n, "publish": {"room": "r", "event": "e", "text": n.to_string()}}))
            .await;
    }
    // All have been read, and the last of them wait for their commit.
    let metrics = broker.server.handle();
    let read = async {
        while metrics.metrics().total(|shard| &shard.requests) < MESSAGES {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("they are read");
    let ending = stop(broker, DEADLINE).await;
    for _ in 1..=MESSAGES {
        let frame = ann.receive().await;
        assert_eq!(frame["reply"]["published"]["durable"], true, "{frame}");
    }
    assert_eq!(ann.farewell().await, (4000, 4000));
    drop(ann);
    let (stopped, _) = ending.wait().await;
    assert_eq!((stopped.unwritten_rows, stopped.cut_peers), (0, 0));
    let again = durable(dir.path());
    let position = again
        .join(&token("a", "bob"))
        .await
        .subscribe(&["r"])
        .await
        .remove(0);
    assert_eq!(position["head"], MESSAGES, "{position}");
}

#[tokio::test]
async fn an_answer_that_never_comes_does_not_hold_the_drain_beyond_its_share() {
    let deadline = Duration::from_secs(6);
    let broker = Broker::with("limits.call_timeout=60s");
    let (mut plug, device) = plug(&broker, "a").await;
    let mut ann = broker.join(&full_token("a", "ann", "r")).await;
    ann.say(json!({"id": 7, "call": {"device": device, "method": "Switch.Toggle", "json": {"id": 0}}}))
        .await;
    asked(&mut plug, "Switch.Toggle").await;
    let ending = stop(broker, deadline).await;
    assert_eq!(ann.farewell().await, (4000, 4000));
    assert!(ending.begun.elapsed() >= deadline / 2, "it was waited for");
    drop((ann, plug));
    let (_, took) = ending.wait().await;
    assert!(took < deadline, "{took:?}");
}

#[tokio::test]
async fn while_it_drains_newcomers_are_told_when_to_come_again_and_health_says_why() {
    let broker = Broker::with("drain.retry_after=1500ms");
    let key = broker.server.admin().operator_key().expect("a first key");
    let key = key.expose_secret().to_owned();
    let address = broker.address;
    let (mut plug, device) = plug(&broker, "a").await;
    // A request over HTTP that is under way holds the drain as long as the test needs it.
    let call = tokio::spawn({
        let key = key.clone();
        async move {
            let body = json!({"method": "Switch.Toggle", "params": {"id": 0}}).to_string();
            http(
                address,
                "POST",
                &format!("/v1/devices/{device}/call?tenant=a"),
                &key,
                &body,
            )
            .await
        }
    });
    let request = asked(&mut plug, "Switch.Toggle").await;
    let ending = stop(broker, DEADLINE).await;

    let mut late = Raw::connect(address).await;
    let head = late
        .upgrade(&format!("/v1/ws?token={}", token("a", "bob")), "")
        .await;
    assert!(
        head.starts_with("HTTP/1.1 503") && head.contains("Retry-After: 2"),
        "{head}"
    );
    let (head, _) = http(
        address,
        "POST",
        "/v1/publish?tenant=a",
        &key,
        "{\"room\":\"r\",\"event\":\"e\"}",
    )
    .await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let (head, health) = http(address, "GET", "/health/ready", "", "").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(health["troubles"][0]["code"], "draining", "{health}");
    for path in ["/health", "/health/live"] {
        let (head, health) = http(address, "GET", path, "", "").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert_eq!(health["status"], "draining", "{path}: {health}");
    }

    answer(&mut plug, &request).await;
    let (head, body) = call.await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{head} {body}");
    drop(plug);
    ending.wait().await;
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "the port is free"
    );
}

#[tokio::test]
async fn a_broker_without_peers_stops_at_once_however_long_the_deadline_is() {
    let ending = stop(Broker::start(), Duration::from_secs(3_600)).await;
    let (_, took) = ending.wait().await;
    assert!(took < DEADLINE, "{took:?}");
}
