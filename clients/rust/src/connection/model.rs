//! Random lives of a client against a model of a broker, both in one process: publishes, exclusions, omissions, joins and
//! leaves, connections cut at any frame in either direction, refusals, restarts. Whatever happens, every reader must be able
//! to account for every number of its room, and every publish must be in its room at most once and in order.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::{Position, Refusal, RoomId, Seq, server};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::tests::{AGE_MAX, Bench, REQUEST_TIMEOUT, events, push, settings};
use super::*;
use crate::event::Continuity;

const ROOMS: usize = 3;
const READERS_MAX: usize = 6;

#[derive(Clone, Debug)]
enum Op {
    /// Somebody else publishes.
    Publish(usize),
    /// Somebody else publishes, and not to us.
    Exclude(usize),
    /// The broker fails to send us one.
    Omit(usize),
    /// The broker reads so many of our frames.
    Serve(usize),
    /// So many of the broker's frames reach us.
    Deliver(usize),
    /// The broker refuses the next subscribe for now.
    Refuse,
    Cut,
    /// The broker loses everything and starts again.
    Restart,
    Dial(bool),
    Pass(u64),
    Subscribe(usize),
    Leave(usize),
    /// We publish.
    Ask(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..ROOMS).prop_map(Op::Publish),
        1 => (0..ROOMS).prop_map(Op::Exclude),
        1 => (0..ROOMS).prop_map(Op::Omit),
        5 => (0usize..4).prop_map(Op::Serve),
        6 => (0usize..6).prop_map(Op::Deliver),
        1 => Just(Op::Refuse),
        1 => Just(Op::Cut),
        1 => Just(Op::Restart),
        4 => any::<bool>().prop_map(Op::Dial),
        3 => (0u64..4000).prop_map(Op::Pass),
        3 => (0..ROOMS).prop_map(Op::Subscribe),
        1 => (0..READERS_MAX).prop_map(Op::Leave),
        3 => (0..ROOMS).prop_map(Op::Ask),
    ];
    prop::collection::vec(op, 1..150)
}

/// What stands at a number of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// For everyone, with this content.
    Message(u64),
    /// Not for us, and we may count on being told so.
    Excluded,
}

#[derive(Default)]
struct Broker {
    epoch: u64,
    /// By epoch and room: what stands at number 1, 2, …
    logs: BTreeMap<(u64, usize), Vec<Entry>>,
    /// Keys seen in this epoch.
    keys: HashMap<String, u64>,
    sessions: u64,
    session: Option<Session>,
    content: u64,
    refuse: bool,
}

/// The broker's side of one connection and what is under way in it.
#[derive(Default)]
struct Session {
    joined: BTreeSet<usize>,
    /// Rooms in which something was left out since our last push: an advance would hide it.
    omitted: BTreeSet<usize>,
    to_broker: VecDeque<wire::ClientFrame>,
    to_client: VecDeque<wire::ServerFrame>,
}

fn room_name(room: usize) -> String {
    format!("r{room}")
}

fn room_of(name: &str) -> usize {
    name[1..].parse().unwrap()
}

impl Broker {
    fn log(&mut self, room: usize) -> &mut Vec<Entry> {
        self.logs.entry((self.epoch, room)).or_default()
    }

    /// On the next connection the same number stands for another room.
    fn number(&self, room: usize) -> u64 {
        (self.sessions + room as u64) % ROOMS as u64
    }

    fn publish(&mut self, room: usize, content: u64, omit: bool) -> u64 {
        let log = self.log(room);
        log.push(Entry::Message(content));
        let seq = log.len() as u64;
        let number = self.number(room);
        if let Some(session) = &mut self.session
            && session.joined.contains(&room)
        {
            if omit {
                session.omitted.insert(room);
            } else {
                session.omitted.remove(&room);
                session.to_client.push_back(push(number, seq, content));
            }
        }
        seq
    }

    fn exclude(&mut self, room: usize) {
        let omitted = self.session.as_ref().is_some_and(|s| s.omitted.contains(&room));
        if omitted {
            return;
        }
        let log = self.log(room);
        log.push(Entry::Excluded);
        let seq = Seq(log.len() as u64);
        let number = RoomId(self.number(room));
        if let Some(session) = &mut self.session
            && session.joined.contains(&room)
        {
            session.to_client.push_back(server::advance(number, seq));
        }
    }

    fn serve(&mut self, bench: &Bench) {
        let Some(frame) = self.session.as_mut().and_then(|s| s.to_broker.pop_front()) else {
            return;
        };
        let outcome: Outcome = match frame.request.unwrap() {
            Request::Hello(_) => bench.welcome().into(),
            Request::Ping(_) => wire::Pong { unix_ms: 0 }.into(),
            Request::Subscribe(_) if std::mem::take(&mut self.refuse) => {
                Outcome::from(&Refusal::new(Code::RateLimited, "later").retry_after(100))
            }
            Request::Subscribe(subscribe) => {
                let names = subscribe
                    .rooms
                    .iter()
                    .chain(subscribe.subscriptions.iter().map(|s| &s.room));
                let rooms = names.map(|name| self.join(name)).collect();
                wire::Subscribed { rooms }.into()
            }
            Request::Unsubscribe(unsubscribe) => {
                let session = self.session.as_mut().unwrap();
                for name in unsubscribe.rooms {
                    session.joined.remove(&room_of(&name));
                }
                return;
            }
            Request::Publish(publish) => self.published(&publish).into(),
            other => panic!("not asked for: {other:?}"),
        };
        let session = self.session.as_mut().unwrap();
        session.to_client.push_back(server::reply(frame.id, outcome));
    }

    fn join(&mut self, name: &str) -> wire::RoomPosition {
        let room = room_of(name);
        let session = self.session.as_mut().unwrap();
        session.joined.insert(room);
        session.omitted.remove(&room);
        wire::RoomPosition {
            name: name.to_owned(),
            room: self.number(room),
            epoch: self.epoch,
            seq: self.log(room).len() as u64,
            ..wire::RoomPosition::default()
        }
    }

    fn published(&mut self, publish: &wire::Publish) -> wire::Published {
        let key = publish.idempotency_key.clone();
        let seen = self.keys.get(&key).copied();
        let seq = seen.unwrap_or_else(|| {
            let content = key.parse().unwrap();
            self.publish(room_of(&publish.room), content, false)
        });
        self.keys.insert(key, seq);
        wire::Published {
            epoch: self.epoch,
            seq,
            receivers: 0,
            repeated: seen.is_some(),
            durable: false,
        }
    }
}

struct Reader {
    room: usize,
    queue: Arc<Queue<Event>>,
    joined: oneshot::Receiver<Result<Beginning, Error>>,
    /// From the join on.
    at: Option<Position>,
    given_up: bool,
}

struct Asked {
    content: u64,
    room: usize,
    answer: oneshot::Receiver<Result<Outcome, Error>>,
}

struct World {
    bench: Bench,
    broker: Broker,
    dialling: bool,
    readers: Vec<Reader>,
    asked: Vec<Asked>,
}

impl World {
    fn new(seed: u64) -> Self {
        let bench = Bench::new(Settings {
            seed,
            offline: OfflineBounds {
                count_max: 100,
                ..settings().offline
            },
            in_flight_max: 1000,
            ..settings()
        });
        Self {
            bench,
            broker: Broker::default(),
            dialling: false,
            readers: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Publish(room) | Op::Omit(room) => {
                // Contents of others are even, ours are odd.
                self.broker.content += 2;
                let content = self.broker.content;
                self.broker.publish(room, content, matches!(op, Op::Omit(_)));
            }
            Op::Exclude(room) => self.broker.exclude(room),
            Op::Serve(frames) => (0..frames).for_each(|_| self.broker.serve(&self.bench)),
            Op::Deliver(frames) => {
                for _ in 0..frames {
                    let session = self.broker.session.as_mut();
                    if let Some(frame) = session.and_then(|s| s.to_client.pop_front()) {
                        self.bench.frame(frame);
                    }
                }
            }
            Op::Refuse => self.broker.refuse = true,
            Op::Cut => self.cut(),
            Op::Restart => {
                self.cut();
                self.broker.epoch += 1;
                self.broker.keys.clear();
            }
            Op::Dial(works) => self.dial(works),
            Op::Pass(ms) => self.bench.pass(Duration::from_millis(ms)),
            Op::Subscribe(room) if self.readers.len() < READERS_MAX => {
                let (queue, joined) = self.bench.subscribe(&room_name(room));
                self.readers.push(Reader {
                    room,
                    queue,
                    joined,
                    at: None,
                    given_up: false,
                });
            }
            Op::Leave(reader) if reader < self.readers.len() => {
                let reader = self.readers.remove(reader);
                self.bench.drop_reader(&room_name(reader.room), &reader.queue);
            }
            Op::Subscribe(_) | Op::Leave(_) => {}
            Op::Ask(room) => {
                self.broker.content += 2;
                let content = self.broker.content + 1;
                let publish = wire::Publish {
                    room: room_name(room),
                    event: "e".into(),
                    idempotency_key: content.to_string(),
                    ..wire::Publish::default()
                };
                let answer = self.bench.request(Request::Publish(publish), Delivery::Repeat);
                self.asked.push(Asked {
                    content,
                    room,
                    answer,
                });
            }
        }
        self.carry();
        self.judge_readers();
    }

    /// What a driver does after every event.
    fn carry(&mut self) {
        for action in self.bench.actions() {
            match action {
                Action::Connect { .. } => self.dialling = true,
                Action::Disconnect { .. } => self.broker.session = None,
                Action::FetchToken => panic!("the token never expires"),
                Action::Stop => panic!("nobody asked to stop"),
            }
        }
        let frames = self.bench.sent();
        if let Some(session) = &mut self.broker.session {
            session.to_broker.extend(frames);
        } else {
            assert!(frames.is_empty(), "frames without a socket");
        }
    }

    fn cut(&mut self) {
        if self.broker.session.take().is_some() {
            self.bench.lose();
        }
    }

    fn dial(&mut self, works: bool) {
        if !std::mem::take(&mut self.dialling) {
            return;
        }
        if works {
            self.broker.sessions += 1;
            self.broker.session = Some(Session::default());
            self.bench
                .connection
                .handle_connected(self.bench.now, String::new());
        } else {
            self.bench.lose();
        }
    }

    /// Every reader accounts for every number.
    fn judge_readers(&mut self) {
        for reader in &mut self.readers {
            if reader.at.is_none() {
                match reader.joined.try_recv() {
                    Ok(Ok(beginning)) => reader.at = Some(beginning.position),
                    Ok(Err(_)) => reader.given_up = true,
                    Err(_) => {}
                }
            }
            for event in events(&reader.queue) {
                let at = reader.at.as_mut().expect("an event before the join");
                judge(&self.broker.logs, reader.room, at, event);
            }
        }
    }

    /// Everything works for long enough.
    fn settle(&mut self) {
        let rounds = (AGE_MAX + REQUEST_TIMEOUT).as_secs() + 60;
        for _ in 0..rounds {
            self.step(Op::Dial(true));
            self.step(Op::Serve(50));
            self.step(Op::Deliver(200));
            self.step(Op::Pass(1000));
        }
    }
}

fn judge(logs: &BTreeMap<(u64, usize), Vec<Entry>>, room: usize, at: &mut Position, event: Event) {
    let entry = |seq: u64| logs[&(at.epoch.0, room)][seq as usize - 1];
    // Numbers that are passed over in silence were not for us.
    let passed = |to: u64| assert!((at.seq.0 + 1..to).all(|seq| entry(seq) == Entry::Excluded));
    match event {
        Event::Message(message) => {
            assert_eq!(message.epoch, at.epoch);
            assert!(message.seq > at.seq, "not in order");
            passed(message.seq.0);
            let content = message.json().unwrap();
            assert_eq!(entry(message.seq.0), Entry::Message(content));
            at.seq = message.seq;
        }
        Event::Gap { missed } => {
            assert!(missed.first > at.seq && missed.last >= missed.first);
            passed(missed.first.0);
            at.seq = missed.last;
        }
        Event::Resubscribed {
            position, continuity, ..
        } => {
            match continuity {
                Continuity::Continued => {
                    assert_eq!(position.epoch, at.epoch);
                    passed(position.seq.0 + 1);
                }
                Continuity::Lost(missed) => {
                    assert_eq!(position.epoch, at.epoch);
                    assert!(missed.first > at.seq && missed.last == position.seq);
                    passed(missed.first.0);
                }
                Continuity::Reset => assert_ne!(position.epoch, at.epoch),
            }
            *at = position;
        }
        other => panic!("nobody caused {other:?}"),
    }
}

/// `asked` in order, each room's log holds what was asked at most once and in that order.
fn judge_publishes(broker: &Broker, asked: &mut [Asked]) {
    for log in broker.logs.values() {
        let ours: Vec<u64> = log
            .iter()
            .filter_map(|entry| match entry {
                Entry::Message(content) if content % 2 == 1 => Some(*content),
                _ => None,
            })
            .collect();
        assert!(ours.is_sorted_by(|a, b| a < b), "twice or out of order: {ours:?}");
    }
    for Asked {
        content,
        room,
        answer,
    } in asked
    {
        match answer.try_recv().expect("everyone is answered") {
            Ok(Outcome::Published(published)) => {
                let log = &broker.logs[&(published.epoch, *room)];
                assert_eq!(log[published.seq as usize - 1], Entry::Message(*content));
            }
            Ok(other) => panic!("not an answer to a publish: {other:?}"),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_lost_in_silence_doubled_or_out_of_order(seed: u64, ops in ops()) {
        let mut world = World::new(seed);
        world.carry();
        for op in ops {
            world.step(op);
        }
        world.settle();
        for room in 0..ROOMS {
            world.step(Op::Publish(room));
        }
        world.step(Op::Deliver(100));
        for reader in &world.readers {
            if reader.given_up {
                continue;
            }
            let at = reader.at.expect("joined by now");
            prop_assert_eq!(at.epoch.0, world.broker.epoch);
            prop_assert_eq!(at.seq.0, world.broker.log_len(reader.room));
        }
        judge_publishes(&world.broker, &mut world.asked);
        // Nothing is kept of what is over.
        let wanted: BTreeSet<usize> = world.readers.iter().filter(|r| !r.given_up).map(|r| r.room).collect();
        prop_assert_eq!(world.bench.connection.rooms.len(), wanted.len());
        prop_assert_eq!(world.bench.connection.requests.in_flight(), 0);
        prop_assert_eq!(world.broker.session.as_ref().map(|s| s.joined.clone()), Some(wanted));
    }
}

impl Broker {
    fn log_len(&self, room: usize) -> u64 {
        self.logs
            .get(&(self.epoch, room))
            .map_or(0, |log| log.len() as u64)
    }
}
