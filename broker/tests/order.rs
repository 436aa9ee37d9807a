//! One order for all: many publishers of every kind, subscribers on every shard that come and go meanwhile, and every one of
//! them sees exactly the next number, from where it joined, with the same content as everybody else.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use cauce_broker::hub::{Closing, Selection, ShardMessage};
use cauce_protocol::message::Recipient;
use cauce_protocol::wire::{self, client_frame::Request, server_frame::Message};
use cauce_protocol::{Code, ConnectionId, Payload, Refusal, UserId};
use serde_json::{Value, json};
use support::raw::{ProtoPeer, Raw, masked};
use support::{Broker, PATIENCE, Peer, token};

const ROOMS: [&str; 3] = ["busy", "other", "third"];

/// Messages of each publisher. Most go to the busy room.
const MESSAGES: usize = 1_000;

const END: &str = "end";

/// What a subscriber saw of a room: contents by number, in the order of arrival.
type Seen = HashMap<String, Vec<(u64, String)>>;

fn room_of(n: usize) -> &'static str {
    match n % 8 {
        0 => ROOMS[1],
        4 => ROOMS[2],
        _ => ROOMS[0],
    }
}

/// Numbers rise by one from where the subscriber joined.
struct Reader {
    next: HashMap<u64, (String, u64)>,
    seen: Seen,
}

impl Reader {
    fn new() -> Self {
        Self {
            next: HashMap::new(),
            seen: Seen::new(),
        }
    }

    fn joined(&mut self, name: &str, room: u64, seq: u64) {
        self.next.insert(room, (name.to_owned(), seq + 1));
    }

    fn left(&mut self, name: &str) {
        self.next.retain(|_, (other, _)| other != name);
    }

    fn push(&mut self, room: u64, seq: u64, content: &str) {
        let (name, next) = self
            .next
            .get_mut(&room)
            .expect("a push of a room that was not joined, or was left");
        assert_eq!(seq, *next, "a gap or a duplicate in {name}");
        *next += 1;
        self.seen
            .entry(name.clone())
            .or_default()
            .push((seq, content.to_owned()));
    }

    /// Takes a JSON push; anything else is given back.
    fn take(&mut self, frame: Value) -> Option<Value> {
        if !frame["push"].is_object() {
            return Some(frame);
        }
        let number = |name: &str| frame["push"][name].as_u64().expect("a number");
        self.push(
            number("room"),
            number("seq"),
            frame["push"]["text"].as_str().expect("a text"),
        );
        None
    }

    fn ended(&self) -> bool {
        ROOMS.iter().all(|room| {
            self.seen
                .get(*room)
                .is_some_and(|seen| seen.last().is_some_and(|(_, text)| text == END))
        })
    }
}

/// Joins before anything is published, and stays to the end.
async fn steady_json(mut peer: Peer, mut reader: Reader) -> Seen {
    while !reader.ended() {
        let other = reader.take(peer.receive().await);
        assert!(other.is_none(), "{other:?}");
    }
    reader.seen
}

async fn steady_proto(mut peer: ProtoPeer, mut reader: Reader) -> Seen {
    while !reader.ended() {
        match peer.receive().await {
            Message::Push(wire::Push {
                room,
                seq,
                payload: Some(wire::push::Payload::Text(text)),
                ..
            }) => reader.push(room, seq, &text),
            other => panic!("{other:?}"),
        }
    }
    reader.seen
}

async fn ask(peer: &mut Peer, reader: &mut Reader, message: Value) -> Value {
    peer.say(message).await;
    loop {
        if let Some(frame) = reader.take(peer.receive().await) {
            return frame["reply"].clone();
        }
    }
}

/// Joins and leaves one room after another until the end, now and then by a new connection.
async fn restless(address: std::net::SocketAddr, user: usize, over: Arc<AtomicBool>) -> Seen {
    let broker = Address(address);
    let mut peer = broker.join(user).await;
    let (mut all, mut turn) = (Seen::new(), user);
    while !over.load(Ordering::Relaxed) {
        let name = ROOMS[turn % ROOMS.len()];
        let mut reader = Reader::new();
        let subscribe = json!({"id": 1, "subscribe": {"rooms": [name]}});
        let reply = ask(&mut peer, &mut reader, subscribe.clone()).await;
        let position = &reply["subscribed"]["rooms"][0];
        let number = |position: &Value, name: &str| position[name].as_u64().expect("a number");
        reader.joined(name, number(position, "room"), number(position, "seq"));
        // To join again tells where the pushes stand: nothing that was seen comes again, and nothing is left out.
        peer.say(subscribe).await;
        let mut again = None;
        for _ in 0..turn % 40 {
            if let Some(frame) = reader.take(peer.receive().await) {
                let position = frame["reply"]["subscribed"]["rooms"][0].clone();
                let next = reader.next[&number(&position, "room")].1;
                assert_eq!(
                    number(&position, "seq") + 1,
                    next,
                    "the position told is not where the pushes stand"
                );
                again = Some(position);
            }
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
        if turn % 3 == 0 {
            peer = broker.join(user).await;
        } else {
            peer.say(json!({"id": 2, "unsubscribe": {"rooms": [name]}})).await;
            let mut replies = 1 + usize::from(again.is_none());
            while replies > 0 {
                replies -= usize::from(reader.take(peer.receive().await).is_some());
            }
            reader.left(name);
            // Whatever still came would be of a room that was left.
            let pong = ask(&mut peer, &mut reader, json!({"id": 3, "ping": {}})).await;
            assert!(pong["pong"].is_object(), "{pong}");
        }
        for (name, mut seen) in reader.seen {
            all.entry(name).or_default().append(&mut seen);
        }
        turn += 1;
    }
    all
}

struct Address(std::net::SocketAddr);

impl Address {
    async fn join(&self, user: usize) -> Peer {
        let token = token("a", &format!("restless-{user}"));
        let request = format!("ws://{}/v1/ws?token={token}", self.0);
        let request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(request)
            .expect("a url");
        let mut peer = Peer::dial(self.0, request).await;
        assert!(peer.receive().await["reply"]["welcome"].is_object());
        peer
    }
}

fn content(publisher: usize, n: usize) -> String {
    format!("{publisher}/{n}")
}

/// Publishes without waiting for each answer; in the end all of them have come, numbered upwards by room.
async fn publish_json(address: std::net::SocketAddr, publisher: usize) {
    let mut raw = Raw::connect(address).await;
    raw.upgrade(
        &format!("/v1/ws?token={}", token("a", &format!("publisher-{publisher}"))),
        "",
    )
    .await;
    raw.hear_json().await;
    for n in 0..MESSAGES {
        let publish = json!({"id": n + 1, "publish": {"room": room_of(n), "event": "e", "text": content(publisher, n)}});
        raw.write(&masked(true, 1, publish.to_string().as_bytes())).await;
    }
    let mut last = HashMap::new();
    for n in 0..MESSAGES {
        let frame = raw.hear_json().await;
        assert_eq!(frame["reply"]["id"], n + 1, "{frame}");
        let seq = frame["reply"]["published"]["seq"].as_u64().expect("a number");
        assert!(last.insert(room_of(n), seq).is_none_or(|before| before < seq));
    }
}

async fn publish_proto(address: std::net::SocketAddr, publisher: usize) {
    let mut peer = ProtoPeer::join(address, &token("a", &format!("publisher-{publisher}"))).await;
    // Many frames in one WebSocket message.
    for chunk in (0..MESSAGES).collect::<Vec<_>>().chunks(50) {
        let frames = chunk.iter().flat_map(|&n| {
            let publish = wire::Publish {
                room: room_of(n).into(),
                event: "e".into(),
                payload: Some(wire::publish::Payload::Text(content(publisher, n))),
                ..Default::default()
            };
            support::raw::proto(n as u32 + 1, Request::Publish(publish))
        });
        peer.raw
            .write(&masked(true, 2, &frames.collect::<Vec<_>>()))
            .await;
    }
    for n in 0..MESSAGES as u32 {
        match peer.receive().await {
            Message::Reply(reply) => assert_eq!(reply.id, n + 1, "{reply:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn every_subscriber_sees_the_same_sequence_without_gap_or_duplicate() {
    let broker = Broker::with("threads.client_shards=4\nlimits.outbox_bytes=16MiB");
    let handle = broker.server.handle();
    let mut steady = Vec::new();
    for n in 0..6 {
        let mut peer = broker.join(&token("a", &format!("json-{n}"))).await;
        let mut reader = Reader::new();
        for position in peer.subscribe(&ROOMS).await {
            reader.joined(
                position["name"].as_str().expect("a name"),
                position["room"].as_u64().expect("a number"),
                0,
            );
        }
        steady.push(tokio::spawn(steady_json(peer, reader)));
        let mut peer = ProtoPeer::join(broker.address, &token("a", &format!("proto-{n}"))).await;
        peer.ask(
            1,
            Request::Subscribe(wire::Subscribe {
                rooms: ROOMS.map(Into::into).to_vec(),
                ..wire::Subscribe::default()
            }),
        )
        .await;
        let mut reader = Reader::new();
        match peer.receive().await {
            Message::Reply(wire::Reply {
                outcome: Some(wire::reply::Outcome::Subscribed(subscribed)),
                ..
            }) => {
                subscribed
                    .rooms
                    .iter()
                    .for_each(|position| reader.joined(&position.name, position.room, position.seq));
            }
            other => panic!("{other:?}"),
        }
        steady.push(tokio::spawn(steady_proto(peer, reader)));
    }
    let mut tap = handle
        .tenant("a")
        .expect("tenant a")
        .subscribe(ROOMS[1])
        .expect("a tap");
    // Its queue holds all of that room, so that it need not keep up with this test's one thread.
    let tap = tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Some(message) = tap.next().await {
            let text = message.payload.as_text().expect("a text").to_owned();
            let ended = text == END;
            taken.push((message.seq.0, text));
            if ended {
                break;
            }
        }
        taken
    });
    let shards: Vec<_> = (0..4).map(|shard| broker.server.hub().load(shard)).collect();
    assert_eq!(shards, [3; 4], "subscribers are on all shards");

    let over = Arc::new(AtomicBool::new(false));
    let restless: Vec<_> = (0..8)
        .map(|user| tokio::spawn(restless(broker.address, user, over.clone())))
        .collect();
    let mut publishers = Vec::new();
    for publisher in 0..4 {
        publishers.push(tokio::spawn(publish_json(broker.address, publisher)));
        publishers.push(tokio::spawn(publish_proto(broker.address, publisher + 4)));
        let a = handle.tenant("a").expect("tenant a");
        publishers.push(tokio::task::spawn_blocking(move || {
            for n in 0..MESSAGES {
                a.publish(room_of(n), "e", Payload::text(content(publisher + 8, n)))
                    .expect("published");
                if n % 64 == 0 {
                    std::thread::yield_now();
                }
            }
        }));
    }
    for publisher in publishers {
        publisher.await.expect("a publisher");
    }
    over.store(true, Ordering::Relaxed);
    // Whoever waits for a push gets a few more.
    let a = handle.tenant("a").expect("tenant a");
    let mut restless_seen = Vec::new();
    for task in restless {
        let mut task = task;
        let seen = loop {
            for room in ROOMS {
                a.publish(room, "e", Payload::text("tail")).expect("published");
            }
            if let Ok(seen) = tokio::time::timeout(std::time::Duration::from_millis(50), &mut task).await {
                break seen;
            }
        };
        restless_seen.push(seen.expect("a restless subscriber"));
    }
    for room in ROOMS {
        a.publish(room, "e", Payload::text(END)).expect("published");
    }
    let mut all = Vec::new();
    for task in steady {
        all.push(
            tokio::time::timeout(PATIENCE, task)
                .await
                .expect("everything arrives")
                .expect("a steady subscriber"),
        );
    }

    // The steady ones saw everything, the same, and each publisher's messages in its order.
    let reference = &all[0];
    let mut total = 0;
    for room in ROOMS {
        let seen = &reference[room];
        assert!(
            seen.iter().map(|&(seq, _)| seq).eq(1..=seen.len() as u64),
            "{room} is not complete"
        );
        total += seen.iter().filter(|(_, text)| text.contains('/')).count();
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (publisher, n) in seen.iter().filter_map(|(_, text)| text.split_once('/')) {
            let n: usize = n.parse().expect("a number");
            assert!(
                last.insert(publisher, n).is_none_or(|before| before < n),
                "messages of one publisher changed places"
            );
        }
    }
    assert_eq!(total, 12 * MESSAGES);
    assert!(
        all.iter().all(|seen| seen == reference),
        "two subscribers saw different things"
    );
    let taken = tokio::time::timeout(PATIENCE, tap)
        .await
        .expect("everything arrives")
        .expect("a tap");
    assert!(taken == reference[ROOMS[1]], "the tap saw another sequence");
    // And so did those who came and went, as far as they were there.
    let mut compared = 0;
    for (room, seen) in restless_seen.iter().flatten() {
        for (seq, text) in seen {
            assert_eq!(text, &reference[room][*seq as usize - 1].1);
            compared += 1;
        }
    }
    assert!(compared > 500, "the restless were hardly there: {compared}");
}

/// Holds up the shard that this peer of tenant `b` lives on, until what is answered is dropped: where the shard looks for the
/// class of a room.
async fn hold_up(broker: &Broker, peer: &mut Peer) -> mpsc::Sender<()> {
    let (here, is_here) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let tenant = broker.server.hub().tenants.get("b").expect("tenant b");
    tenant.rooms.set_classify(Arc::new(move |_| {
        // Nobody waits, or nobody holds it any more.
        let _ = here.send(());
        let _ = may_go_on.lock().expect("no panic").recv();
        Arc::default()
    }));
    peer.say(json!({"id": 1, "subscribe": {"rooms": ["r"]}})).await;
    is_here.recv_timeout(PATIENCE).expect("the shard is asked");
    go_on
}

/// The queue is so long that emptying it takes many turns; a ping that arrives meanwhile is answered before its end.
#[tokio::test]
async fn a_shard_with_a_long_queue_still_reads_its_sockets() {
    const QUEUED: usize = 400_000;
    let broker = Broker::with("threads.client_shards=1");
    let mut raw = Raw::connect(broker.address).await;
    let target = format!("/v1/ws?token={}", token("a", "ann"));
    raw.upgrade(&target, "").await;
    raw.hear_json().await;
    let mut other = broker.join(&token("b", "bob")).await;
    // All of it is there when the shard goes on, however fast it is.
    let held = hold_up(&broker, &mut other).await;
    let hub = broker.server.hub();
    // Of no effect: nobody has this id.
    let closing = Arc::new(Closing {
        selection: Selection::Connection(ConnectionId(1 << 40)),
        refusal: Refusal::new(Code::Internal, ""),
    });
    for _ in 0..QUEUED {
        hub.shards[0].push(ShardMessage::Close(closing.clone()));
    }
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let ann = Recipient::User(UserId::new("ann").expect("a name"));
    a.send(ann, "the queue is empty", Payload::NULL).expect("sent");
    raw.say(json!({"id": 1, "ping": {}})).await;
    drop(held);
    let first = raw.hear_json().await;
    assert!(
        first["reply"]["pong"].is_object(),
        "the ping had to wait: {first}"
    );
    assert!(raw.hear_json().await["direct"].is_object());
}
