//! Random lives of a client against a model of a broker, both in one process: publishes, exclusions, omissions, gaps, joins and
//! leaves from here and from earlier positions, connections cut at any frame in either direction, refusals, restarts, rooms
//! taken away. Whatever happens, every reader must be able to account for every number of its room, what the broker still has
//! must reach it, and every publish must be in its room at most once and in order.

mod broker;

use std::collections::{BTreeMap, BTreeSet};

use cauce_protocol::message::Watch;
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::{Position, Seq};
use proptest::prelude::*;
use tokio::sync::oneshot;

use self::broker::{Broker, Entry, FILTERED, Fate, ROOMS, Session, UNWANTED, WANTED, room_name};
use super::tests::{AGE_MAX, Bench, REQUEST_TIMEOUT, events, settings};
use super::*;
use crate::event::Continuity;
use crate::subscribe::{Manner, Start};

const READERS_MAX: usize = 6;

#[derive(Clone, Copy, Debug)]
enum From {
    Now,
    Recent(u32),
    /// Where a reader of the room stood when it left.
    WhereOneLeft,
    /// Only who is there.
    PresenceOnly,
}

#[derive(Clone, Debug)]
enum Op {
    /// Somebody else publishes.
    Publish(usize, Fate),
    PublishUnwanted(usize),
    /// Somebody else publishes, and not to us.
    Exclude(usize),
    /// The broker reads so many of our frames.
    Serve(usize),
    /// So many of the broker's frames reach us.
    Deliver(usize),
    /// Everything under way gets where it goes.
    Flow,
    /// The broker refuses the next subscribe for now.
    Refuse,
    /// The broker ends our subscription.
    End(usize),
    Cut,
    /// The broker loses everything and starts again.
    Restart,
    Dial(bool),
    Pass(u64),
    Subscribe(usize, From),
    Leave(usize),
    /// We publish.
    Ask(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let room = || 0..ROOMS;
    let from = prop_oneof![
        4 => Just(From::Now),
        1 => (1u32..9).prop_map(From::Recent),
        2 => Just(From::WhereOneLeft),
        1 => Just(From::PresenceOnly),
    ];
    let op = prop_oneof![
        8 => room().prop_map(|room| Op::Publish(room, Fate::Sent)),
        // Under a filter nobody can see that something is missing unless it is told.
        1 => (0..FILTERED).prop_map(|room| Op::Publish(room, Fate::Omitted)),
        2 => room().prop_map(|room| Op::Publish(room, Fate::Dropped)),
        2 => room().prop_map(Op::PublishUnwanted),
        2 => room().prop_map(Op::Exclude),
        10 => (0usize..4).prop_map(Op::Serve),
        12 => (0usize..6).prop_map(Op::Deliver),
        6 => Just(Op::Flow),
        1 => Just(Op::Refuse),
        1 => room().prop_map(Op::End),
        3 => Just(Op::Cut),
        1 => Just(Op::Restart),
        8 => any::<bool>().prop_map(Op::Dial),
        6 => (0u64..4000).prop_map(Op::Pass),
        6 => (room(), from).prop_map(|(room, from)| Op::Subscribe(room, from)),
        2 => (0..READERS_MAX).prop_map(Op::Leave),
        6 => room().prop_map(Op::Ask),
    ];
    prop::collection::vec(op, 1..150)
}

struct Reader {
    room: usize,
    interest: Interest,
    since: Option<Position>,
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
    left_at: BTreeMap<usize, Position>,
    asked: Vec<Asked>,
}

fn manner(room: usize) -> Manner {
    match room {
        FILTERED => Manner::of_events([WANTED]),
        _ => Manner::default(),
    }
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
            left_at: BTreeMap::new(),
            asked: Vec::new(),
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Publish(room, fate) => {
                let content = self.broker.content();
                self.broker.publish(room, content, fate);
            }
            Op::PublishUnwanted(room) => self.broker.publish_unwanted(room),
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
            Op::Flow => {
                self.step(Op::Dial(true));
                for _ in 0..3 {
                    self.step(Op::Serve(50));
                    self.step(Op::Deliver(200));
                }
            }
            Op::Refuse => self.broker.refuse = true,
            Op::End(room) => self.broker.end(room),
            Op::Cut => self.cut(),
            Op::Restart => {
                self.cut();
                self.broker.restart();
            }
            Op::Dial(works) => self.dial(works),
            Op::Pass(ms) => self.bench.pass(Duration::from_millis(ms)),
            Op::Subscribe(room, from) if self.readers.len() < READERS_MAX => self.subscribe(room, from),
            Op::Leave(reader) if reader < self.readers.len() => {
                let reader = self.readers.remove(reader);
                if let (Some(at), Interest::Messages(_)) = (reader.at, reader.interest) {
                    self.left_at.insert(reader.room, at);
                }
                self.bench.drop_reader(&room_name(reader.room), &reader.queue);
            }
            Op::Subscribe(..) | Op::Leave(_) => {}
            Op::Ask(room) => {
                let content = self.broker.content() + 1;
                let publish = wire::Publish {
                    room: room_name(room),
                    event: WANTED.into(),
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

    fn subscribe(&mut self, room: usize, from: From) {
        let (mut start, mut interest) = (Start::Now, Interest::Messages(Watch::None));
        match from {
            From::Now => {}
            From::Recent(count) => start = Start::Recent(count),
            From::WhereOneLeft => match self.left_at.get(&room) {
                Some(&position) => start = Start::Since(position),
                None => return,
            },
            From::PresenceOnly => interest = Interest::PresenceOnly,
        }
        let manner = match interest {
            Interest::PresenceOnly => Manner::default(),
            Interest::Messages(_) => manner(room),
        };
        let (queue, joined) = self.bench.subscribe_as(&room_name(room), manner, start, interest);
        self.readers.push(Reader {
            room,
            interest,
            since: match start {
                Start::Since(position) => Some(position),
                _ => None,
            },
            queue,
            joined,
            at: None,
            given_up: false,
        });
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
            if reader.at.is_none() && !reader.given_up {
                match reader.joined.try_recv() {
                    // What was brought is where it stood.
                    Ok(Ok(beginning)) => reader.at = Some(reader.since.unwrap_or(beginning.position)),
                    Ok(Err(_)) => reader.given_up = true,
                    Err(_) => {}
                }
            }
            for event in events(&reader.queue) {
                if let Event::Ended { reason } = &event {
                    assert_eq!(reason.code(), Some(Code::Forbidden));
                    reader.given_up = true;
                    continue;
                }
                let at = reader.at.as_mut().expect("an event before the join");
                match reader.interest {
                    Interest::Messages(_) => judge(&self.broker, reader.room, at, event),
                    Interest::PresenceOnly => {
                        assert!(
                            matches!(event, Event::Resubscribed { .. }),
                            "not asked for: {event:?}"
                        );
                    }
                }
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

fn judge(broker: &Broker, room: usize, at: &mut Position, event: Event) {
    // Numbers that are passed over in silence were not for us.
    let passed = |to: u64| assert!(broker.all_silent(room, *at, Seq(to)), "left out in silence");
    match event {
        Event::Message(message) => {
            assert_eq!(message.epoch, at.epoch);
            assert!(message.seq > at.seq, "not in order");
            passed(message.seq.0 - 1);
            let content = message.json().unwrap();
            let entry = broker.logs[&(at.epoch.0, room)][message.seq.0 as usize - 1];
            match &*message.event {
                WANTED => assert_eq!(entry, Entry::Message(content)),
                UNWANTED => assert_eq!((entry, room != FILTERED), (Entry::Unwanted(content), true)),
                other => panic!("nobody published {other}"),
            }
            at.seq = message.seq;
        }
        Event::Gap { missed } => {
            assert!(missed.first > at.seq && missed.last >= missed.first);
            assert!(broker.lossy[room], "nothing was lost");
            passed(missed.first.0 - 1);
            at.seq = missed.last;
        }
        Event::Resubscribed {
            position,
            continuity,
            head,
        } => {
            assert!(head >= position.seq);
            match continuity {
                Continuity::Continued => {
                    assert_eq!(position.epoch, at.epoch);
                    passed(position.seq.0);
                }
                Continuity::Lost(missed) => {
                    assert_eq!(position.epoch, at.epoch);
                    assert!(missed.first > at.seq && missed.last == position.seq);
                    assert!(broker.lossy[room], "nothing was lost");
                    passed(missed.first.0 - 1);
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
            world.step(Op::Publish(room, Fate::Sent));
        }
        world.step(Op::Deliver(100));
        let living = || world.readers.iter().filter(|reader| !reader.given_up);
        for reader in living().filter(|reader| reader.interest != Interest::PresenceOnly) {
            let at = reader.at.expect("joined by now");
            prop_assert_eq!(at.epoch.0, world.broker.epoch());
            prop_assert_eq!(at.seq.0, world.broker.head(reader.room));
        }
        let wanted: BTreeSet<usize> = living().map(|reader| reader.room).collect();
        judge_publishes(&world.broker, &mut world.asked);
        // Nothing is kept of what is over.
        prop_assert_eq!(world.bench.connection.rooms.len(), wanted.len());
        prop_assert_eq!(world.bench.connection.requests.in_flight(), 0);
        let joined = world.broker.session.as_ref().map(|s| s.joined.keys().copied().collect());
        prop_assert_eq!(joined, Some(wanted));
        // The connection names those before it, newest first, and no more than the broker takes.
        prop_assert!(world.broker.previous.len() <= limits::PREVIOUS_MAX);
        prop_assert!(world.broker.previous.is_sorted_by(|newer, older| newer > older));
        prop_assert!(world.broker.previous.iter().all(|&id| id < world.broker.sessions));
    }
}
