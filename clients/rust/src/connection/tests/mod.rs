//! Every timing rule and every state, with virtual time and no socket.

use std::task::{Context, Poll, Waker};

use cauce_protocol::frame::take_frame;
use cauce_protocol::{Refusal, server};

mod life;
mod requests;
mod rooms;
mod services;

use super::*;
use crate::backoff;
use crate::event::Event;
use crate::event::{Continuity, SeqRange};
use crate::subscribe::{Manner, Start};
use bytes::BytesMut;
use cauce_protocol::message::Watch;
use cauce_protocol::wire::{reply::Outcome, server_frame};
use cauce_protocol::{Epoch, Position, Seq};
use prost::Message as _;
use tokio::sync::oneshot;

pub(in crate::connection) const FRAME_BYTES_MAX: usize = 2000;
pub(in crate::connection) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
pub(in crate::connection) const AGE_MAX: Duration = Duration::from_secs(30);
pub(in crate::connection) const HEARTBEAT: Duration = Duration::from_secs(20);
pub(in crate::connection) const LITTLE: Duration = Duration::from_millis(1);

pub(in crate::connection) fn settings() -> Settings {
    Settings {
        dialect: Dialect::Proto,
        client: "test".into(),
        request_timeout: REQUEST_TIMEOUT,
        offline: OfflineBounds {
            count_max: 4,
            bytes_max: 1000,
            age_max: AGE_MAX,
        },
        in_flight_max: 8,
        reconnect: Reconnect::Always,
        renewable: false,
        notifications: false,
        seed: 1,
    }
}

/// A connection, a clock and a broker's pen.
pub(in crate::connection) struct Bench {
    pub(in crate::connection) now: Instant,
    pub(in crate::connection) connection: Connection,
}

pub(in crate::connection) type Answer = oneshot::Receiver<Result<Outcome, Error>>;
pub(in crate::connection) type Reading = (Arc<Queue<Event>>, oneshot::Receiver<Result<Beginning, Error>>);

impl Bench {
    pub(in crate::connection) fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let connection = Connection::new(now, settings, Arc::default());
        Self { now, connection }
    }

    pub(in crate::connection) fn online(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        assert_eq!(
            bench.actions(),
            [Action::Connect {
                token: TokenUse::Same
            }]
        );
        bench.open();
        bench
    }

    /// The socket and the welcome.
    pub(in crate::connection) fn open(&mut self) {
        self.connection.handle_connected(self.now, "token".into());
        let [hello] = self.sent().try_into().expect("hello alone");
        assert!(matches!(hello.request, Some(Request::Hello(_))));
        self.reply(hello.id, self.welcome());
    }

    pub(in crate::connection) fn welcome(&self) -> wire::Welcome {
        wire::Welcome {
            connection: 1,
            version: 1,
            tenant: "t".into(),
            user: "u".into(),
            heartbeat_ms: HEARTBEAT.as_millis() as u32,
            limits: Some(wire::Limits {
                frame_bytes: FRAME_BYTES_MAX as u32,
                rooms_a_request: 4,
                ..wire::Limits::default()
            }),
            ..wire::Welcome::default()
        }
    }

    pub(in crate::connection) fn sent(&mut self) -> Vec<wire::ClientFrame> {
        let mut out = BytesMut::new();
        while self.connection.poll_outgoing(self.now, &mut out).is_some() {}
        let mut frames = Vec::new();
        while let Some(frame) = take_frame(&mut out, FRAME_BYTES_MAX).unwrap() {
            frames.push(wire::ClientFrame::decode(frame).unwrap());
        }
        assert!(out.is_empty());
        frames
    }

    pub(in crate::connection) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.connection.poll_action()).collect()
    }

    pub(in crate::connection) fn frame(&mut self, frame: wire::ServerFrame) {
        self.connection.handle_frame(self.now, frame);
    }

    pub(in crate::connection) fn reply(&mut self, id: u32, outcome: impl Into<Outcome>) {
        self.frame(server::reply(id, outcome));
    }

    pub(in crate::connection) fn lose(&mut self) {
        let error = Error::new(ErrorKind::ConnectionLost, "cut");
        self.connection.handle_lost(self.now, error);
    }

    pub(in crate::connection) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.connection.handle_timeout(self.now);
    }

    /// Lets the time come for the next attempt; how long that took.
    pub(in crate::connection) fn wait_for_attempt(&mut self) -> Duration {
        let Phase::Waiting { until, .. } = self.connection.phase else {
            panic!("not waiting but {:?}", self.connection.phase)
        };
        let wait = until - self.now;
        self.pass(wait);
        wait
    }

    pub(in crate::connection) fn reopen(&mut self) {
        self.wait_for_attempt();
        assert!(matches!(self.actions()[..], [Action::Connect { .. }]));
        self.open();
    }

    pub(in crate::connection) fn request(&mut self, request: Request, delivery: Delivery) -> Answer {
        let (answer, answered) = oneshot::channel();
        let submission = Submission {
            request,
            answer: Some(answer),
            timeout: REQUEST_TIMEOUT,
            delivery,
            ticket: None,
        };
        self.connection
            .handle_command(self.now, Command::Request(submission));
        answered
    }

    pub(in crate::connection) fn subscribe(&mut self, room: &str) -> Reading {
        self.subscribe_as(
            room,
            Manner::default(),
            Start::Now,
            Interest::Messages(Watch::None),
        )
    }

    pub(in crate::connection) fn subscribe_as(
        &mut self,
        room: &str,
        manner: Manner,
        start: Start,
        interest: Interest,
    ) -> Reading {
        let queue = Arc::new(Queue::new(1000, 1_000_000));
        let (joined, answer) = oneshot::channel();
        let command = Command::Subscribe(Joining {
            room: RoomName::new(room).unwrap(),
            queue: Arc::clone(&queue),
            joined,
            manner,
            start,
            interest,
        });
        self.connection.handle_command(self.now, command);
        (queue, answer)
    }

    pub(in crate::connection) fn drop_reader(&mut self, room: &str, queue: &Arc<Queue<Event>>) {
        queue.abandon();
        self.connection.handle_control(Control::Leave {
            room: RoomName::new(room).unwrap(),
            queue: Arc::clone(queue),
        });
    }

    /// Answers the one subscribe that was sent. Rooms get numbers from 100 on.
    pub(in crate::connection) fn join_all(&mut self, epoch: u64, seq: u64) -> Vec<String> {
        let [frame] = self.sent().try_into().expect("one subscribe");
        let rooms = rooms(&frame);
        self.join(&frame, epoch, seq);
        rooms
    }

    pub(in crate::connection) fn join(&mut self, frame: &wire::ClientFrame, epoch: u64, seq: u64) {
        let rooms = rooms(frame).into_iter().zip(100..);
        let rooms = rooms.map(|(name, room)| wire::RoomPosition {
            name,
            room,
            epoch,
            seq,
            ..wire::RoomPosition::default()
        });
        let rooms = rooms.collect();
        self.reply(frame.id, wire::Subscribed { rooms });
    }

    pub(in crate::connection) fn push(&mut self, room: u64, seq: u64) {
        self.frame(push(room, seq, seq));
    }
}

pub(in crate::connection) fn push(room: u64, seq: u64, content: u64) -> wire::ServerFrame {
    wire::ServerFrame {
        message: Some(server_frame::Message::Push(wire::Push {
            room,
            seq,
            event: "e".into(),
            payload: Some(wire::push::Payload::Json(content.to_string().into())),
            key: String::new(),
        })),
    }
}

pub(in crate::connection) fn rooms(frame: &wire::ClientFrame) -> Vec<String> {
    match &frame.request {
        Some(Request::Subscribe(subscribe)) => {
            let with_options = subscribe.subscriptions.iter().map(|s| s.room.clone());
            subscribe.rooms.iter().cloned().chain(with_options).collect()
        }
        Some(Request::Unsubscribe(unsubscribe)) => unsubscribe.rooms.clone(),
        other => panic!("no rooms in {other:?}"),
    }
}

pub(in crate::connection) fn events(queue: &Queue<Event>) -> Vec<Event> {
    let mut cx = Context::from_waker(Waker::noop());
    std::iter::from_fn(|| match queue.poll_pop(&mut cx) {
        Poll::Ready(event) => event,
        Poll::Pending => None,
    })
    .collect()
}

pub(in crate::connection) fn seqs(queue: &Queue<Event>) -> Vec<u64> {
    let events = events(queue).into_iter();
    events
        .map(|event| event.into_message().expect("a message").seq.0)
        .collect()
}

pub(in crate::connection) fn kind(answer: &mut Answer) -> Option<ErrorKind> {
    answer
        .try_recv()
        .ok()
        .map(|answer| answer.expect_err("an error").kind())
}

pub(in crate::connection) fn ping() -> Request {
    Request::Ping(wire::Ping {})
}

pub(in crate::connection) fn publish(key: &str, bytes: usize) -> Request {
    Request::Publish(wire::Publish {
        room: "a".into(),
        event: "e".into(),
        payload: Some(wire::publish::Payload::Binary(vec![0; bytes].into())),
        idempotency_key: key.into(),
        ..wire::Publish::default()
    })
}

pub(in crate::connection) fn keys(frames: &[wire::ClientFrame]) -> Vec<&str> {
    let publishes = frames.iter().filter_map(|frame| match &frame.request {
        Some(Request::Publish(publish)) => Some(publish.idempotency_key.as_str()),
        _ => None,
    });
    publishes.collect()
}

pub(in crate::connection) fn refusal(code: Code) -> Refusal {
    Refusal::new(code, "no")
}
