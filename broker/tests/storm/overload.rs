//! Everything at once: too many connections, more messages than can be delivered, readers that read nothing, and a database that
//! somebody else holds. New work is refused, with its code; what was acknowledged is there, and the broker comes back by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cauce_broker::rooms::{Durability, Keep, RoomClass};
use cauce_broker::{Persistence, Server};
use cauce_protocol::{Code, Payload};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Executor as _};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::raw::{Raw, masked};
use crate::support::{Broker, Peer, config, token};
use crate::{PATIENCE, alone, classify};

/// Small enough that each bound is met on any machine.
const TIGHT: &str = "internal_listen=127.0.0.1:0\nlimits.connections=150\nlimits.mailbox_bytes=1MiB\n\
    limits.outbox_bytes=128KiB\nlimits.stall_timeout=3s\nstore.messages_bytes=4MiB\n";

/// Publishers of durable messages, and how many each has under way: more bytes than a tenant's half of the store's queue.
const PUBLISHERS: usize = 6;
const UNDERWAY: usize = 64;
const DURABLE_BYTES: usize = 8_000;

/// Readers of the flood that read nothing.
const STALLED: usize = 12;

/// Largest message of the flood.
const FLOOD_BYTES: usize = 4_000;

const LEDGER: &str = "ledger";

fn start(dir: &Path) -> Broker {
    let config = config(&format!("{TIGHT}data_dir={}", dir.display()));
    let server = Server::start(&config, Persistence::Store).expect("the broker starts");
    let address = server.address();
    let broker = Broker { server, address };
    classify(
        &broker,
        RoomClass {
            durability: Durability::Durable,
            history: Keep {
                messages: 1_000_000,
                age_ms: 0,
                bytes: 0,
            },
            ..RoomClass::default()
        },
    );
    broker
}

/// What publishers were told.
#[derive(Debug, Default)]
struct Told {
    /// Acknowledged numbers, and what they carry.
    acknowledged: BTreeMap<u64, String>,
    /// Refusals by name.
    refused: BTreeMap<String, u64>,
}

/// What the test says to its publishers, and they to it.
#[derive(Debug, Default)]
struct Signals {
    refused: AtomicU64,
    /// Send nothing for a moment: somebody wants the database, and would never get it from a writer that always has more.
    hold: AtomicBool,
    end: AtomicBool,
}

/// Publishes durably as fast as answers come, until told to end; then waits for the answers that are due.
async fn keep_publishing(mut peer: Peer, name: usize, signals: Arc<Signals>) -> Told {
    let (mut told, mut waiting, mut next) = (Told::default(), BTreeMap::new(), 1u64);
    loop {
        let (end, hold) = (signals.end.load(Relaxed), signals.hold.load(Relaxed));
        while waiting.len() < UNDERWAY && !end && !hold {
            let text = format!("{name}-{next}-{}", "x".repeat(DURABLE_BYTES));
            let publish = json!({"room": LEDGER, "event": "e", "text": text, "ack": "durable"});
            peer.say(json!({"id": next, "publish": publish})).await;
            waiting.insert(next, format!("{name}-{next}-"));
            next += 1;
        }
        if waiting.is_empty() && end {
            return told;
        }
        if waiting.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let frame = peer.receive().await;
        let reply = &frame["reply"];
        let id = reply["id"]
            .as_u64()
            .unwrap_or_else(|| panic!("not an answer: {frame}"));
        let head = waiting.remove(&id).expect("an answer to what was asked, once");
        if let Some(seq) = reply["published"]["seq"].as_u64() {
            assert_eq!(
                told.acknowledged.insert(seq, head),
                None,
                "a number is given once"
            );
        } else {
            let error = reply["error"]["name"]
                .as_str()
                .unwrap_or_else(|| panic!("{frame}"));
            assert!(reply["error"]["retry_after_ms"].as_u64() > Some(0), "{frame}");
            *told.refused.entry(error.to_owned()).or_default() += 1;
            signals.refused.fetch_add(1, Relaxed);
        }
        // Some thousand messages in all: each is read back twice.
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Reads the room until its end is told, and answers every number that came.
async fn keep_reading(mut peer: Peer, end: Arc<AtomicU64>) -> BTreeSet<u64> {
    let mut seen = BTreeSet::new();
    while end.load(Relaxed) == 0 || seen.last() < Some(&end.load(Relaxed)) {
        let received = tokio::time::timeout(Duration::from_millis(200), peer.receive()).await;
        let Ok(frame) = received else { continue };
        let seq = frame["push"]["seq"].as_u64();
        assert!(seq.is_some_and(|seq| seen.insert(seq)), "not a new push: {frame}");
    }
    seen
}

/// A reader on a thread of its own, so that it is not this test that makes it slow. It has joined when this returns.
async fn read_apart(address: SocketAddr, end: Arc<AtomicU64>) -> oneshot::Receiver<BTreeSet<u64>> {
    let (joined, has_joined) = oneshot::channel();
    let (done, seen) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let url = format!("ws://{address}/v1/ws?token={}", token("a", "reader"));
            let mut request = url.into_client_request().expect("a url");
            request
                .headers_mut()
                .insert("sec-websocket-protocol", "cauce.v1.json".parse().expect("ascii"));
            let mut reader = Peer::dial(address, request).await;
            assert!(reader.receive().await["reply"]["welcome"].is_object());
            reader.subscribe(&[LEDGER]).await;
            joined.send(()).expect("the test waits");
            // A test that has failed waits no more.
            let _ = done.send(keep_reading(reader, end).await);
        });
    });
    has_joined.await.expect("the reader joins");
    seen
}

async fn health(address: SocketAddr) -> (u16, Value) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
    let answer = client.expect("a client").get(format!("http://{address}/health"));
    let answer = answer.send().await.expect("an answer");
    let status = answer.status().as_u16();
    (
        status,
        serde_json::from_str(&answer.text().await.expect("text")).expect("JSON"),
    )
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let reached = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// All messages of the room that the database has: number and beginning.
async fn kept(broker: &Broker) -> BTreeMap<u64, String> {
    let mut peer = broker.join(&token("a", "auditor")).await;
    let (mut kept, mut from) = (BTreeMap::new(), 0);
    loop {
        let asked = json!({"room": LEDGER, "from": from, "limit": 1_000});
        let (reply, _) = peer.ask(json!({"id": 5, "history": asked})).await;
        let page = &reply["history_page"];
        let entries = page["entries"].as_array().unwrap_or_else(|| panic!("{reply}"));
        for entry in entries {
            let seq = entry["seq"].as_u64().expect("a number");
            let text = entry["text"].as_str().unwrap_or_else(|| panic!("{entry}"));
            let head = text.split('x').next().unwrap_or_default();
            kept.insert(seq, head.to_owned());
            from = seq;
        }
        if page["more"] == false {
            return kept;
        }
    }
}

#[tokio::test]
async fn the_worst_of_all_loads_refuses_new_work_and_loses_nothing_acknowledged() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path());
    let internal = broker.server.internal_address().expect("a listener within");
    assert_eq!(health(internal).await.1["status"], "ok");

    // Those whom it is about: publishers that want the disk, and a reader of what they say.
    let (signals, last) = (Arc::new(Signals::default()), Arc::new(AtomicU64::new(0)));
    let reading = read_apart(broker.address, last.clone()).await;
    let mut publishing = Vec::new();
    for name in 0..PUBLISHERS {
        let peer = broker.join(&token("a", &format!("p{name}"))).await;
        publishing.push(tokio::spawn(keep_publishing(peer, name, signals.clone())));
    }

    // Slow readers of another tenant's flood, and the flood, which comes from within so that no socket paces it.
    let mut stalled = Vec::new();
    for n in 0..STALLED {
        let mut peer = Raw::connect_narrow(broker.address).await;
        peer.upgrade(&format!("/v1/ws?token={}", token("b", &format!("s{n}"))), "")
            .await;
        peer.hear_json().await;
        peer.say(json!({"id": 2, "subscribe": {"rooms": ["flood"]}}))
            .await;
        assert!(peer.hear_json().await["reply"]["subscribed"].is_object());
        stalled.push(peer);
    }
    let floods: Vec<_> = (0..2)
        .map(|_| {
            let (b, signals) = (
                broker.server.handle().tenant("b").expect("tenant b"),
                signals.clone(),
            );
            std::thread::spawn(move || {
                let payload = Payload::text("y".repeat(FLOOD_BYTES));
                let mut codes = BTreeSet::new();
                while !signals.end.load(Relaxed) {
                    if let Err(refusal) = b.publish("flood", "e", payload.clone()) {
                        assert!(refusal.retry_after_ms > 0, "{refusal}");
                        codes.insert(refusal.code.name());
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                codes
            })
        })
        .collect();

    // Somebody else holds the database, again and again.
    let options = SqliteConnectOptions::new()
        .filename(dir.path().join("cauce.db"))
        .busy_timeout(PATIENCE);
    let mut database = options.connect().await.expect("a second connection");
    for _ in 0..3 {
        signals.hold.store(true, Relaxed);
        database.execute("BEGIN EXCLUSIVE").await.expect("locked");
        signals.hold.store(false, Relaxed);
        let before = signals.refused.load(Relaxed);
        until("a durable message is refused", async || {
            signals.refused.load(Relaxed) > before
        })
        .await;
        until("the broker says that it is in trouble", async || {
            let (status, health) = health(internal).await;
            assert_eq!(status, 200, "it serves all the same: {health}");
            health["status"] == "degraded" && !health["troubles"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
        database.execute("ROLLBACK").await.expect("unlocked");
    }

    // More connections than there may be.
    let (mut held, mut turned_away) = (Vec::new(), 0);
    for n in 0..300 {
        let mut peer = Raw::connect(broker.address).await;
        let head = peer
            .upgrade(&format!("/v1/ws?token={}", token("b", &format!("c{n}"))), "")
            .await;
        if head.starts_with("HTTP/1.1 101") {
            held.push(peer);
        } else {
            assert!(head.starts_with("HTTP/1.1 429"), "{head:?}");
            assert!(head.to_ascii_lowercase().contains("retry-after"), "{head:?}");
            turned_away += 1;
        }
    }
    assert!(
        turned_away > 100 && held.len() < 150,
        "{turned_away} {}",
        held.len()
    );
    let total = |counter: fn(&cauce_broker::metrics::ShardMetrics) -> &cauce_broker::metrics::Counter| {
        broker.server.handle().metrics().total(counter)
    };
    until("a slow reader is sent away", async || {
        let closes = broker.server.handle().metrics().total_by_code(|m| &m.closes);
        closes.iter().any(|&(code, n)| code == Code::Slow && n > 0)
    })
    .await;
    assert!(total(|m| &m.fell_behind) > 0);

    // The load ends.
    signals.end.store(true, Relaxed);
    let mut told = Told::default();
    for publisher in publishing {
        let one = publisher.await.expect("it runs");
        told.acknowledged.extend(one.acknowledged);
        for (name, n) in one.refused {
            *told.refused.entry(name).or_default() += n;
        }
    }
    let mut codes: BTreeSet<_> = told.refused.keys().map(String::as_str).collect();
    for flood in floods {
        codes.extend(flood.join().expect("it runs"));
    }
    assert!(codes.contains("overloaded"), "{codes:?}");
    assert!(
        codes.is_subset(&BTreeSet::from(["overloaded", "rate_limited", "unavailable"])),
        "{codes:?}"
    );
    assert!(told.acknowledged.len() > 100, "{}", told.acknowledged.len());
    drop((held, stalled));

    // It is well again by itself, and takes new work.
    until("the broker is well", async || {
        health(internal).await.1["status"] == "ok"
    })
    .await;
    until("a newcomer is let in", async || {
        let mut peer = Raw::connect(broker.address).await;
        let head = peer
            .upgrade(&format!("/v1/ws?token={}", token("b", "new")), "")
            .await;
        head.starts_with("HTTP/1.1 101")
    })
    .await;
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let after = a
        .publish_durably(LEDGER, "e", Payload::text("after-x"), None)
        .await
        .expect("committed")
        .seq
        .0;
    last.store(after, Relaxed);

    // The reader missed nothing: it got each number, acknowledged or not, once.
    let seen = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the reader gets to the end")
        .expect("it was told of no loss");
    assert_eq!(seen, (1..=after).collect());

    // What was acknowledged is there, now and after a restart.
    told.acknowledged.insert(after, "after-".to_owned());
    let lost = |kept: &BTreeMap<u64, String>| -> Vec<u64> {
        let acknowledged = told.acknowledged.iter();
        acknowledged
            .filter(|(seq, head)| kept.get(seq) != Some(head))
            .map(|(seq, _)| *seq)
            .collect()
    };
    assert_eq!(lost(&kept(&broker).await), [0; 0]);
    let stopped = tokio::task::spawn_blocking(move || broker.server.stop(PATIENCE))
        .await
        .expect("it stops");
    assert_eq!(stopped.unwritten_rows, 0);
    let broker = start(dir.path());
    assert_eq!(lost(&kept(&broker).await), [0; 0]);
}

/// More than the kernel's buffers hold, and far more than a queue of the smallest size would take.
const FLOOD_MESSAGES: usize = 60_000;

#[tokio::test]
async fn a_publisher_without_end_is_paced_before_the_queue_of_its_shard_fills() {
    let _alone = alone().await;
    let broker = Broker::with("threads.client_shards=1\nlimits.mailbox_bytes=1MiB");
    let mut readers = Vec::new();
    for n in 0..4 {
        let mut reader = broker.join(&token("a", &format!("r{n}"))).await;
        reader.subscribe(&["flood"]).await;
        readers.push(tokio::spawn(async move {
            // Read what comes until the test is over.
            while reader.receive().await["lost"].is_null() {}
        }));
    }
    let mut publisher = Raw::connect(broker.address).await;
    publisher
        .upgrade(&format!("/v1/ws?token={}", token("a", "pub")), "")
        .await;
    publisher.hear_json().await;
    let publish = json!({"publish": {"room": "flood", "event": "e", "json": 1}}).to_string();
    let flood = masked(true, 1, publish.as_bytes()).repeat(FLOOD_MESSAGES);
    let mailbox = broker.server.hub().shards[0].clone();
    let most = Arc::new(AtomicU64::new(0));
    let (watched, end) = (most.clone(), Arc::new(AtomicBool::new(false)));
    let ended = end.clone();
    let watching = std::thread::spawn(move || {
        while !ended.load(Relaxed) {
            watched.fetch_max(mailbox.used() as u64, Relaxed);
            std::thread::yield_now();
        }
    });
    tokio::time::timeout(PATIENCE, publisher.stream.write_all(&flood))
        .await
        .expect("the broker reads")
        .expect("the connection holds");
    let published = || broker.server.handle().metrics().total(|m| &m.publications);
    until("all is published", async || published() == FLOOD_MESSAGES as u64).await;
    end.store(true, Relaxed);
    watching.join().expect("it watches");
    assert_eq!(broker.server.hub().shards[0].refused(), 0);
    let most = most.load(Relaxed);
    assert!(
        (1..512 * 1024).contains(&most),
        "{most} bytes waited; without waiting for the turn it is all that the publisher has sent"
    );
    readers.iter().for_each(tokio::task::JoinHandle::abort);
}
