//! Thousands come back in one instant, each from its own position.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cauce_broker::rooms::{Durability, Keep, RoomClass};
use cauce_broker::{Persistence, Server};
use cauce_protocol::Payload;
use cauce_protocol::wire::{self, Recovery};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::peer::Peer;
use crate::support::files::peers;
use crate::support::{Broker, config, token};
use crate::{OPEN_DOORS, PATIENCE, alone, classify, quantiles};

const CLIENTS: usize = 5_000;

/// Each client goes after one of the first so many messages.
const POSITIONS: u64 = 20;

/// Published before anybody comes back, so that each has missed twenty on the average and ten at least.
const BEFORE: u64 = 30;

/// Published while they come back.
const ALL: u64 = 40;

/// Handshakes under way at a time while the herd gathers: that is not the storm.
const GATHERING: usize = 128;

fn class(durability: Durability) -> RoomClass {
    RoomClass {
        durability,
        history: Keep {
            messages: 10_000,
            age_ms: 0,
            bytes: 0,
        },
        ..RoomClass::default()
    }
}

fn durable(dir: &Path) -> Broker {
    let lines = format!("data_dir={}\n{OPEN_DOORS}drain.spread=0s", dir.display());
    let server = Server::start(&config(&lines), Persistence::Store).expect("the broker starts");
    let address = server.address();
    let broker = Broker { server, address };
    classify(&broker, class(Durability::Durable));
    broker
}

async fn stop(broker: Broker) {
    let stopped = tokio::task::spawn_blocking(move || broker.server.stop(Duration::from_secs(30)))
        .await
        .expect("it stops");
    assert_eq!(stopped.unwritten_rows, 0);
}

/// Publishes the messages of these numbers, each with its number in it.
async fn publish(broker: &Broker, durability: Durability, numbers: std::ops::RangeInclusive<u64>) {
    let a = broker.server.handle().tenant("a").expect("tenant a");
    for n in numbers {
        let payload = Payload::text(n.to_string());
        let seq = match durability {
            Durability::Memory => a.publish("r", "e", payload).expect("published").seq,
            Durability::Durable => {
                let published = a.publish_durably("r", "e", payload, None).await;
                published.expect("committed").seq
            }
        };
        assert_eq!(seq.0, n, "numbering goes on");
    }
}

/// Where a client was when it went away.
#[derive(Clone, Copy)]
struct Left {
    epoch: u64,
    seq: u64,
}

/// Reads the pushes up to this number, which must follow what the client had.
async fn read(peer: &mut Peer, mut had: u64, last: u64) {
    while had < last {
        let (seq, text) = peer.push().await;
        assert_eq!(
            (seq, text),
            (had + 1, (had + 1).to_string()),
            "nothing is lost, doubled or out of order"
        );
        had = seq;
    }
}

/// Clients join, hear some, and break off without a word, each at another place.
async fn gather(broker: &Broker, clients: usize, durability: Durability) -> Vec<Left> {
    let (address, joined) = (broker.address, Arc::new(AtomicU64::new(0)));
    let door = Arc::new(Semaphore::new(GATHERING));
    let mut tasks = JoinSet::new();
    for n in 0..clients {
        let (joined, door) = (joined.clone(), door.clone());
        tasks.spawn(async move {
            let knocking = door.acquire_owned().await.expect("an open semaphore");
            let mut peer = Peer::connect(address, &token("a", &format!("user-{n}"))).await;
            let position = peer.subscribe(wanted(None)).await;
            assert_eq!((position.seq, position.recovery), (0, 0));
            drop(knocking);
            joined.fetch_add(1, Ordering::Relaxed);
            let seq = 1 + n as u64 % POSITIONS;
            read(&mut peer, 0, seq).await;
            Left {
                epoch: position.epoch,
                seq,
            }
        });
    }
    let all_joined = async {
        while joined.load(Ordering::Relaxed) < clients as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_joined)
        .await
        .expect("all have joined");
    publish(broker, durability, 1..=BEFORE).await;
    tasks.join_all().await
}

fn wanted(since: Option<Left>) -> wire::Subscription {
    let since = since.unwrap_or(Left { epoch: 0, seq: 0 });
    wire::Subscription {
        room: "r".into(),
        epoch: since.epoch,
        seq: since.seq,
        ..wire::Subscription::default()
    }
}

async fn come_back(address: SocketAddr, n: usize, left: Left, recovered: Arc<AtomicU64>) -> u128 {
    let began = Instant::now();
    let mut peer = Peer::connect(address, &token("a", &format!("user-{n}"))).await;
    let position = peer.subscribe(wanted(Some(left))).await;
    assert_eq!(
        (position.recovery(), position.epoch, position.seq),
        (Recovery::Continued, left.epoch, left.seq),
        "{position:?}"
    );
    assert!((BEFORE..=ALL).contains(&position.head), "{position:?}");
    read(&mut peer, left.seq, BEFORE).await;
    let took_ms = began.elapsed().as_millis();
    recovered.fetch_add(1, Ordering::Relaxed);
    read(&mut peer, BEFORE, ALL).await;
    took_ms
}

/// All at once, while publishing goes on.
async fn storm(broker: &Broker, herd: Vec<Left>, durability: Durability) {
    let (clients, recovered) = (herd.len() as u64, Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (n, left) in herd.into_iter().enumerate() {
        tasks.spawn(come_back(broker.address, n, left, recovered.clone()));
    }
    for n in BEFORE + 1..=ALL {
        // One message after each tenth of them: the first when nobody is back yet, the last before all are.
        let share = (n - BEFORE - 1) * clients / (ALL - BEFORE);
        let some = async {
            while recovered.load(Ordering::Relaxed) < share && !tasks.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, some)
            .await
            .expect("some have recovered");
        publish(broker, durability, n..=n).await;
    }
    let took = quantiles(tasks.join_all().await);
    println!(
        "{clients} clients back and recovered in {:?}; each within {} ms (p50), {} ms (p99), {} ms (max)",
        began.elapsed(),
        took[0],
        took[1],
        took[2]
    );
    let count = |counter: fn(&cauce_broker::metrics::ShardMetrics) -> &cauce_broker::metrics::Counter| {
        broker.server.handle().metrics().total(counter)
    };
    assert_eq!(count(|m| &m.lost), 0);
}

#[tokio::test]
async fn thousands_that_come_back_at_once_recover_with_nothing_lost_or_doubled() {
    let _alone = alone().await;
    // Both ends of a connection are in this process, and the broker's end of the old one may still be there.
    let clients = peers(CLIENTS, 3);
    let broker = Broker::with(OPEN_DOORS);
    classify(&broker, class(Durability::Memory));
    let herd = gather(&broker, clients, Durability::Memory).await;
    storm(&broker, herd, Durability::Memory).await;
}

#[tokio::test]
async fn thousands_that_come_back_at_once_after_a_restart_recover_from_the_disk() {
    let _alone = alone().await;
    let clients = peers(CLIENTS, 3);
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path());
    let herd = gather(&broker, clients, Durability::Durable).await;
    stop(broker).await;
    let broker = durable(dir.path());
    storm(&broker, herd, Durability::Durable).await;
    stop(broker).await;
}

#[tokio::test]
async fn clients_that_leave_while_the_store_is_asked_hold_nobody_up() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = durable(dir.path());
    let mut peer = Peer::connect(broker.address, &token("a", "ann")).await;
    let epoch = peer.subscribe(wanted(None)).await.epoch;
    publish(&broker, Durability::Durable, 1..=BEFORE).await;
    stop(broker).await;
    let broker = durable(dir.path());
    let left = Left { epoch, seq: 1 };
    // Each asks from the store and is gone in the same breath, so that those who ask wait for each other and nobody is there.
    for n in 0..40 {
        let mut hasty = Peer::connect(broker.address, &token("a", &format!("user-{n}"))).await;
        let subscribe = wire::Subscribe {
            subscriptions: vec![wanted(Some(left))],
            ..wire::Subscribe::default()
        };
        hasty
            .say(1, wire::client_frame::Request::Subscribe(subscribe))
            .await;
    }
    // Enough to meet every shard.
    for n in 0..8 {
        let mut peer = Peer::connect(broker.address, &token("a", &format!("calm-{n}"))).await;
        peer.subscribe(wanted(Some(left))).await;
        read(&mut peer, left.seq, BEFORE).await;
    }
    stop(broker).await;
}
