//! A room of thousands with one reader that reads nothing and one publisher that does not care for its limits.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cauce_broker::TenantHandle;
use cauce_broker::rooms::{Keep, RoomClass};
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome, server_frame::Message};
use cauce_protocol::{Code, Payload, UserId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::peer::{Peer, text};
use crate::support::files::peers;
use crate::support::{Broker, token};
use crate::{OPEN_DOORS, PATIENCE, alone, classify, quantiles};

const READERS: usize = 10_000;

/// Handshakes under way at a time while the room fills.
const GATHERING: usize = 128;

/// What may wait for one reader.
const OUTBOX_BYTES: u64 = 128 * 1024;

/// Messages of the calm publisher.
const CALM: u32 = 15;

/// Messages that the wild one throws at the broker, and those that a user may publish at once.
const WILD: u32 = 400;
const BURST: u32 = 20;

/// The last message.
const END: &str = "end";

const ROOM: &str = "r";

/// The stalled reader alone is in this one too: what is said here fills what the system holds for it.
const BALLAST: &str = "ballast";
const BALLAST_BYTES: usize = 50_000;

fn wanted(room: &str) -> wire::Subscription {
    wire::Subscription {
        room: room.into(),
        ..wire::Subscription::default()
    }
}

/// What a reader heard: how many messages, and all their texts in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    messages: u64,
    texts: u64,
}

impl Heard {
    fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let (mut hasher, mut messages) = (DefaultHasher::new(), 0);
        for text in texts {
            text.hash(&mut hasher);
            messages += 1;
        }
        Self {
            messages,
            texts: hasher.finish(),
        }
    }
}

/// Reads to the end. Answers what it heard, and when it was over.
async fn listen(mut peer: Peer, began: Instant) -> (Heard, u128) {
    let mut texts: Vec<String> = Vec::new();
    while texts.last().is_none_or(|text| text != END) {
        let (seq, text) = peer.push().await;
        assert_eq!(seq, texts.len() as u64 + 1, "nothing is missed");
        texts.push(text);
    }
    let heard = Heard::of(texts.iter().map(String::as_str));
    (heard, began.elapsed().as_millis())
}

fn publish(text: String) -> Request {
    Request::Publish(wire::Publish {
        room: ROOM.into(),
        event: "e".into(),
        payload: Some(wire::publish::Payload::Text(text)),
        ..wire::Publish::default()
    })
}

/// Throws everything at the broker without listening, and then reads what it was told. Answers what was taken, by number.
async fn rage(mut peer: Peer) -> Vec<(u64, String)> {
    for n in 0..WILD {
        peer.say(n + 1, publish(format!("wild {n}"))).await;
    }
    let (mut taken, mut refused) = (Vec::new(), 0);
    while taken.len() + refused < WILD as usize {
        let Some(Message::Reply(reply)) = peer.next().await else {
            panic!("a publisher over its limits is throttled, not closed");
        };
        match reply.outcome {
            Some(Outcome::Published(published)) => {
                taken.push((published.seq, format!("wild {}", reply.id - 1)));
            }
            Some(Outcome::Error(error)) => {
                assert_eq!(error.code, u32::from(Code::RateLimited.number()), "{error:?}");
                assert!(error.retryable && error.retry_after_ms > 0, "{error:?}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(
        taken.len() >= BURST as usize,
        "its burst is its own: {}",
        taken.len()
    );
    assert!(refused > WILD as usize / 2, "it was over its limits: {refused}");
    let pong = peer.ask(Request::Ping(wire::Ping {})).await;
    assert!(matches!(pong, Outcome::Pong(_)), "{pong:?}");
    taken
}

/// Publishes one message after the other, each taken before the next.
async fn say_calmly(mut peer: Peer) -> Vec<(u64, String)> {
    let mut taken = Vec::new();
    for n in 0..CALM {
        let said = format!("calm {n}");
        match peer.ask(publish(said.clone())).await {
            Outcome::Published(published) => taken.push((published.seq, said)),
            other => panic!("the limits of one user are not another's: {other:?}"),
        }
    }
    taken
}

/// Bytes that wait for the stalled reader.
async fn queued(a: &TenantHandle) -> u64 {
    let user = UserId::new("stalled").expect("a name");
    let clients = a.clients(Some(&user), None, 10).await;
    assert_eq!(clients.len(), 1, "it is still connected");
    clients[0].queued_bytes
}

/// Speaks to the stalled reader until the broker cannot even queue for it. Answers how many messages that took.
async fn stall(broker: &Broker, a: &TenantHandle) -> u64 {
    let ballast = "x".repeat(BALLAST_BYTES);
    let behind = || broker.server.handle().metrics().total(|m| &m.fell_behind) > 0;
    let mut said = 0;
    while !behind() {
        a.publish(BALLAST, "e", Payload::text(ballast.clone()))
            .expect("published");
        said += 1;
        assert!(said < 10_000, "a reader that reads nothing is never behind");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    said
}

#[tokio::test]
async fn among_thousands_a_wild_publisher_and_a_stalled_reader_cost_nobody_else_a_message() {
    let _alone = alone().await;
    let readers = peers(READERS, 2);
    let broker = Broker::with(&format!(
        "{OPEN_DOORS}limits.outbox_bytes={OUTBOX_BYTES}\nlimits.stall_timeout=1h\n\
         limits.publishes_per_second_per_user=1\nlimits.publishes_burst_per_user={BURST}"
    ));
    let history = Keep {
        messages: 10_000,
        age_ms: 0,
        bytes: 32 << 20,
    };
    classify(
        &broker,
        RoomClass {
            history,
            ..RoomClass::default()
        },
    );
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let (address, door) = (broker.address, Arc::new(Semaphore::new(GATHERING)));
    let mut gathering = JoinSet::new();
    for n in 0..readers {
        let door = door.clone();
        gathering.spawn(async move {
            let _knocking = door.acquire_owned().await.expect("an open semaphore");
            let mut peer = Peer::connect(address, &token("a", &format!("reader-{n}"))).await;
            peer.subscribe(wanted(ROOM)).await;
            peer
        });
    }
    let crowd = gathering.join_all().await;
    let mut stalled = Peer::connect_narrow(address, &token("a", "stalled")).await;
    let ballast_room = stalled.subscribe(wanted(BALLAST)).await.room;
    stalled.subscribe(wanted(ROOM)).await;
    let ballast = stall(&broker, &a).await;

    let began = Instant::now();
    let over = Arc::new(AtomicUsize::new(0));
    let mut listening = JoinSet::new();
    for peer in crowd {
        let over = over.clone();
        listening.spawn(async move {
            let heard = listen(peer, began).await;
            over.fetch_add(1, Ordering::Relaxed);
            heard
        });
    }
    let wild = tokio::spawn(rage(Peer::connect(address, &token("a", "wild")).await));
    let calm = tokio::spawn(say_calmly(Peer::connect(address, &token("a", "calm")).await));
    let mut taken = calm.await.expect("a calm publisher");
    taken.extend(wild.await.expect("a wild publisher"));
    let end = a.publish(ROOM, "e", Payload::text(END)).expect("published");
    assert_eq!(
        end.receivers as usize,
        readers + 1,
        "nobody was closed, the stalled one neither"
    );
    taken.push((end.seq.0, END.into()));
    taken.sort_unstable();
    let mut most = 0;
    let all_heard = async {
        while over.load(Ordering::Relaxed) < readers && !listening.is_empty() {
            most = most.max(queued(&a).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_heard)
        .await
        .expect("everybody else gets everything meanwhile");
    most = most.max(queued(&a).await);
    assert!((1..=OUTBOX_BYTES).contains(&most), "{most} bytes wait for it");

    let expected = Heard::of(taken.iter().map(|(_, text)| text.as_str()));
    let mut took = Vec::new();
    for (heard, took_ms) in listening.join_all().await {
        assert_eq!(heard, expected);
        took.push(took_ms);
    }
    let [half, most_of, all] = quantiles(took);
    println!(
        "{} messages to {readers} readers: all heard by {half} ms (p50), {most_of} ms (p99), {all} ms (max); at most {most} bytes \
         waited for the stalled one of {}, which had been sent {} KiB",
        expected.messages,
        OUTBOX_BYTES,
        ballast * BALLAST_BYTES as u64 / 1024
    );

    // It reads on, and has lost nothing either.
    let (mut next_ballast, mut texts) = (1, Vec::new());
    while texts.len() < taken.len() || next_ballast <= ballast {
        match stalled.next().await {
            Some(Message::Push(push)) if push.room == ballast_room => {
                assert_eq!(push.seq, next_ballast);
                next_ballast += 1;
            }
            Some(Message::Push(push)) => {
                texts.push(text(&push));
                assert_eq!(push.seq, texts.len() as u64);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(Heard::of(texts.iter().map(String::as_str)), expected);
}
