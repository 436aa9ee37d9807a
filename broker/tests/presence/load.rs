//! Watchers where much happens, and those that do not keep up.

use std::time::Instant;

use cauce_protocol::message::Recipient;
use cauce_protocol::{Payload, UserId, wire};

use crate::client::{Client, FOR_EVER_MS, ROOM, keep, watcher};
use crate::support::{Broker, token};

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
    // How many a second is the machine's business; that a frame told of many of them is not.
    let changes = 2 * PEERS * ROUNDS;
    println!("{changes} joins and leaves in {took:?}, {frames} frames");
    assert!(frames < changes / 2, "{frames} frames for {changes} changes");
    let page = watcher.page(ROOM).await.expect("a page");
    assert_eq!((page.users, page.connections), (2, 2));
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
