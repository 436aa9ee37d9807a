//! A reader that falls behind: it is closed with `slow`, and nobody else misses or waits for anything.

mod support;

use std::time::Duration;

use cauce_broker::TenantHandle;
use cauce_protocol::Payload;
use serde_json::json;
use support::raw::{Heard, Raw};
use support::{Broker, PATIENCE, token};

const OUTBOX: &str = "limits.outbox_bytes=128KiB\nlimits.stall_timeout=500ms";

fn payload(n: u64) -> Payload {
    Payload::text(format!("{n:0>4000}"))
}

/// A peer that joined the room and reads no more.
async fn stalled(broker: &Broker, user: &str) -> Raw {
    let mut peer = Raw::connect_narrow(broker.address).await;
    peer.upgrade(&format!("/v1/ws?token={}", token("a", user)), "")
        .await;
    peer.hear_json().await;
    peer.say(json!({"id": 1, "subscribe": {"rooms": ["r"]}})).await;
    assert!(peer.hear_json().await["reply"]["subscribed"].is_object());
    peer
}

/// Publishes until a subscriber is gone, one message at a time, each taken by `witness` before the next: whoever is closed
/// then was behind by more than its outbox. Answers how many there were.
async fn publish_until_someone_goes(
    room: &TenantHandle,
    witness: &mut cauce_broker::Subscription,
    all: u32,
) -> u64 {
    for n in 1..=20_000 {
        let accepted = room.publish("r", "e", payload(n)).expect("published");
        assert_eq!(witness.next().await.expect("a message").seq.0, n);
        if accepted.receivers < all {
            return n;
        }
        if n % 8 == 0 {
            // The shards are given time to take it: their mailboxes are not what this is about.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    panic!("a reader that reads nothing is never closed");
}

#[tokio::test]
async fn one_of_fifty_stops_reading_and_the_others_get_everything() {
    let broker = Broker::with(OUTBOX);
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut witness = a.subscribe("r").expect("a tap");
    let mut readers = Vec::new();
    for n in 0..49 {
        let mut peer = broker.join(&token("a", &format!("reader-{n}"))).await;
        peer.subscribe(&["r"]).await;
        readers.push(tokio::spawn(async move {
            let mut next = 1;
            loop {
                let frame = peer.receive().await;
                if frame["push"]["event"] == "end" {
                    assert_eq!(frame["push"]["seq"], next);
                    return next;
                }
                assert_eq!(
                    frame["push"]["seq"],
                    next,
                    "{}",
                    frame.to_string().chars().take(100).collect::<String>()
                );
                next += 1;
            }
        }));
    }
    let mut slow = stalled(&broker, "slow").await;
    let published = publish_until_someone_goes(&a, &mut witness, 51).await;
    let end = a.publish("r", "end", Payload::NULL).expect("published");
    assert_eq!(end.receivers, 50, "the slow one has left, and nobody else");
    for reader in readers {
        let last = tokio::time::timeout(PATIENCE, reader)
            .await
            .expect("everything arrives")
            .expect("in order");
        assert_eq!(last, published + 1);
    }
    // What it was given before it fell too far behind is in order too, and then it is told why.
    let (mut next, mut told) = (1, false);
    loop {
        match slow.hear().await {
            Heard::Text(text) if text.contains("\"goaway\"") => told = text.contains("4004"),
            Heard::Text(text) => {
                let frame: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert!(!told);
                assert_eq!(frame["push"]["seq"], next, "no gap before the end");
                next += 1;
            }
            Heard::Close(code, _) => {
                assert_eq!((code, told), (4004, true));
                break;
            }
            Heard::Ping | Heard::Pong => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(next < published, "it did miss something");
}

#[tokio::test]
async fn a_stalled_peer_gives_its_place_back_whether_it_listens_or_not() {
    let broker = Broker::with(OUTBOX);
    let hub = broker.server.hub();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut witness = a.subscribe("r").expect("a tap");
    let _slow = stalled(&broker, "slow").await;
    assert_eq!(broker.server.handle().connections(), 1);
    publish_until_someone_goes(&a, &mut witness, 2).await;
    // It reads nothing for ever and closes nothing: its time to hear why is over some time, and then nothing of it is left.
    let gone = async {
        while broker.server.handle().connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("the permit comes back");
    assert_eq!(hub.tenants.get("a").expect("tenant a").connections(), 0);
    assert_eq!(
        (0..hub.plan.total()).map(|shard| hub.load(shard)).sum::<usize>(),
        0
    );
    let used = || hub.shards.iter().map(|mailbox| mailbox.used()).sum::<usize>();
    let drained = async {
        while used() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, drained)
        .await
        .expect("all reservations are given back");
}

#[tokio::test]
async fn a_blocked_peer_that_reads_on_before_the_bound_loses_nothing() {
    let broker = Broker::with("limits.outbox_bytes=8MiB");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut slow = stalled(&broker, "slow").await;
    // Far more than the kernel's buffers hold, and less than the outbox.
    const MESSAGES: u64 = 1_800;
    for n in 1..=MESSAGES {
        while let Err(refusal) = a.publish("r", "e", payload(n)) {
            assert_eq!(refusal.code, cauce_protocol::Code::Overloaded);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let hub = broker.server.hub();
    let taken = async {
        while hub.shards.iter().any(|mailbox| mailbox.used() > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken)
        .await
        .expect("the shard takes all of it");
    let written = broker.server.handle().metrics().total(|shard| &shard.bytes_out);
    assert!(
        written < MESSAGES * 4_000,
        "the peer was not blocked: this test shows nothing"
    );
    for n in 1..=MESSAGES {
        let frame = slow.hear_json().await;
        assert_eq!(frame["push"]["seq"], n);
        assert_eq!(frame["push"]["text"], format!("{n:0>4000}"));
    }
    slow.say(json!({"id": 9, "ping": {}})).await;
    assert!(
        slow.hear_json().await["reply"]["pong"].is_object(),
        "it is still connected"
    );
}

#[tokio::test]
async fn a_reader_that_keeps_up_is_not_slow_because_a_burst_is_larger_than_its_outbox() {
    let broker = Broker::with(&format!("{OUTBOX}\nthreads.client_shards=1"));
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut ann = broker.join(&token("a", "ann")).await;
    ann.subscribe(&["r"]).await;
    // Some 400 KiB at once, most of which one turn takes: three times the outbox, and less than the socket's own buffers.
    let reader = tokio::spawn(async move {
        for n in 1..=100 {
            let frame = ann.receive().await;
            assert_eq!(frame["push"]["seq"], n, "{frame}");
        }
    });
    std::thread::spawn(move || {
        for n in 1..=100 {
            a.publish("r", "e", payload(n)).expect("published");
        }
    });
    tokio::time::timeout(PATIENCE, reader)
        .await
        .expect("all arrives")
        .expect("in order");
}
