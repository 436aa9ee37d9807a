//! Every timing rule and every state, with virtual time and no socket.

use std::task::{Context, Poll, Waker};

use cauce_protocol::frame::take_frame;
use cauce_protocol::{Refusal, server};

use super::*;
use crate::event::{Continuity, Position, SeqRange};
use cauce_protocol::{Epoch, Seq};
use tokio::sync::oneshot;

pub(super) const FRAME_BYTES_MAX: usize = 2000;
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const AGE_MAX: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(20);
const LITTLE: Duration = Duration::from_millis(1);

pub(super) fn settings() -> Settings {
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
        seed: 1,
    }
}

/// A connection, a clock and a broker's pen.
pub(super) struct Bench {
    pub(super) now: Instant,
    pub(super) connection: Connection,
}

type Answer = oneshot::Receiver<Result<Outcome, Error>>;
type Joining = (Arc<Queue<Event>>, oneshot::Receiver<Result<Position, Error>>);

impl Bench {
    pub(super) fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let connection = Connection::new(now, settings, Arc::default());
        Self { now, connection }
    }

    pub(super) fn online(settings: Settings) -> Self {
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
    pub(super) fn open(&mut self) {
        self.connection.handle_connected(self.now, "token".into());
        let [hello] = self.sent().try_into().expect("hello alone");
        assert!(matches!(hello.request, Some(Request::Hello(_))));
        self.reply(hello.id, self.welcome());
    }

    pub(super) fn welcome(&self) -> wire::Welcome {
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

    pub(super) fn sent(&mut self) -> Vec<wire::ClientFrame> {
        let mut out = BytesMut::new();
        while self.connection.poll_outgoing(self.now, &mut out).is_some() {}
        let mut frames = Vec::new();
        while let Some(frame) = take_frame(&mut out, FRAME_BYTES_MAX).unwrap() {
            frames.push(wire::ClientFrame::decode(frame).unwrap());
        }
        assert!(out.is_empty());
        frames
    }

    pub(super) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.connection.poll_action()).collect()
    }

    pub(super) fn frame(&mut self, frame: wire::ServerFrame) {
        self.connection.handle_frame(self.now, frame);
    }

    pub(super) fn reply(&mut self, id: u32, outcome: impl Into<Outcome>) {
        self.frame(server::reply(id, outcome));
    }

    pub(super) fn lose(&mut self) {
        let error = Error::new(ErrorKind::ConnectionLost, "cut");
        self.connection.handle_lost(self.now, error);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.connection.handle_timeout(self.now);
    }

    /// Lets the time come for the next attempt; how long that took.
    pub(super) fn wait_for_attempt(&mut self) -> Duration {
        let Phase::Waiting { until, .. } = self.connection.phase else {
            panic!("not waiting but {:?}", self.connection.phase)
        };
        let wait = until - self.now;
        self.pass(wait);
        wait
    }

    pub(super) fn reopen(&mut self) {
        self.wait_for_attempt();
        assert!(matches!(self.actions()[..], [Action::Connect { .. }]));
        self.open();
    }

    pub(super) fn request(&mut self, request: Request, delivery: Delivery) -> Answer {
        let (answer, answered) = oneshot::channel();
        let submission = Submission {
            request,
            answer: Some(answer),
            timeout: REQUEST_TIMEOUT,
            delivery,
        };
        self.connection
            .handle_command(self.now, Command::Request(submission));
        answered
    }

    pub(super) fn subscribe(&mut self, room: &str) -> Joining {
        let queue = Arc::new(Queue::new(100, 100_000));
        let (joined, answer) = oneshot::channel();
        let command = Command::Subscribe {
            room: RoomName::new(room).unwrap(),
            queue: Arc::clone(&queue),
            joined,
        };
        self.connection.handle_command(self.now, command);
        (queue, answer)
    }

    pub(super) fn drop_reader(&mut self, room: &str, queue: &Arc<Queue<Event>>) {
        queue.abandon();
        self.connection.handle_control(Control::Leave {
            room: RoomName::new(room).unwrap(),
            queue: Arc::clone(queue),
        });
    }

    /// Answers the one subscribe that was sent. Rooms get numbers from 100 on.
    fn join_all(&mut self, epoch: u64, seq: u64) -> Vec<String> {
        let [frame] = self.sent().try_into().expect("one subscribe");
        let rooms = rooms(&frame);
        self.join(&frame, epoch, seq);
        rooms
    }

    fn join(&mut self, frame: &wire::ClientFrame, epoch: u64, seq: u64) {
        let rooms = rooms(frame).into_iter().zip(100..);
        let rooms = rooms.map(|(name, room)| wire::RoomPosition {
            name,
            room,
            epoch,
            seq,
        });
        let rooms = rooms.collect();
        self.reply(frame.id, wire::Subscribed { rooms });
    }

    pub(super) fn push(&mut self, room: u64, seq: u64) {
        self.frame(push(room, seq, seq));
    }
}

pub(super) fn push(room: u64, seq: u64, content: u64) -> wire::ServerFrame {
    wire::ServerFrame {
        message: Some(server_frame::Message::Push(wire::Push {
            room,
            seq,
            event: "e".into(),
            payload: Some(wire::push::Payload::Json(content.to_string().into())),
        })),
    }
}

fn rooms(frame: &wire::ClientFrame) -> Vec<String> {
    match &frame.request {
        Some(Request::Subscribe(subscribe)) => subscribe.rooms.clone(),
        Some(Request::Unsubscribe(unsubscribe)) => unsubscribe.rooms.clone(),
        other => panic!("no rooms in {other:?}"),
    }
}

pub(super) fn events(queue: &Queue<Event>) -> Vec<Event> {
    let mut cx = Context::from_waker(Waker::noop());
    std::iter::from_fn(|| match queue.poll_pop(&mut cx) {
        Poll::Ready(event) => event,
        Poll::Pending => None,
    })
    .collect()
}

fn seqs(queue: &Queue<Event>) -> Vec<u64> {
    let events = events(queue).into_iter();
    events
        .map(|event| event.into_message().expect("a message").seq.0)
        .collect()
}

fn kind(answer: &mut Answer) -> Option<ErrorKind> {
    answer
        .try_recv()
        .ok()
        .map(|answer| answer.expect_err("an error").kind())
}

fn ping() -> Request {
    Request::Ping(wire::Ping {})
}

pub(super) fn publish(key: &str, bytes: usize) -> Request {
    Request::Publish(wire::Publish {
        room: "a".into(),
        event: "e".into(),
        payload: Some(wire::publish::Payload::Binary(vec![0; bytes].into())),
        idempotency_key: key.into(),
        ..wire::Publish::default()
    })
}

fn keys(frames: &[wire::ClientFrame]) -> Vec<&str> {
    let publishes = frames.iter().filter_map(|frame| match &frame.request {
        Some(Request::Publish(publish)) => Some(publish.idempotency_key.as_str()),
        _ => None,
    });
    publishes.collect()
}

fn refusal(code: Code) -> Refusal {
    Refusal::new(code, "no")
}

// ---------------------------------------------------------------- opening

#[test]
fn nothing_but_hello_goes_out_before_the_welcome() {
    let mut bench = Bench::new(settings());
    let _joining = bench.subscribe("a");
    let _answer = bench.request(publish("k", 1), Delivery::Repeat);
    assert!(bench.sent().is_empty());
    bench.connection.handle_connected(bench.now, "token".into());
    let [hello] = bench.sent().try_into().unwrap();
    let Some(Request::Hello(body)) = &hello.request else {
        panic!("not hello")
    };
    assert_eq!(body.features, wire::Feature::Advance as u64);
    bench.reply(hello.id, bench.welcome());
    let frames = bench.sent();
    assert!(matches!(frames[0].request, Some(Request::Subscribe(_))));
    assert!(matches!(frames[1].request, Some(Request::Publish(_))));
}

#[test]
fn a_welcome_without_an_id_counts_when_the_token_came_with_the_handshake() {
    let mut bench = Bench::new(settings());
    bench.connection.handle_connected(bench.now, String::new());
    let [hello] = bench.sent().try_into().unwrap();
    bench.reply(0, bench.welcome());
    assert!(matches!(bench.connection.poll_status(), Some(Status::Online(_))));
    // What the broker then says to the hello itself changes nothing.
    bench.reply(hello.id, &refusal(Code::Conflict));
    assert!(matches!(bench.connection.phase, Phase::Open(_)));
}

#[test]
fn a_broker_that_does_not_answer_hello_is_left() {
    let mut bench = Bench::new(settings());
    bench.actions();
    bench.connection.handle_connected(bench.now, String::new());
    assert_eq!(bench.connection.poll_timeout(), Some(bench.now + WELCOME_MAX));
    bench.pass(WELCOME_MAX);
    assert!(matches!(bench.actions()[..], [Action::Disconnect { .. }]));
    assert!(matches!(bench.connection.phase, Phase::Waiting { .. }));
}

#[test]
fn another_version_of_the_protocol_is_final() {
    let mut bench = Bench::new(settings());
    bench.connection.handle_connected(bench.now, String::new());
    let [hello] = bench.sent().try_into().unwrap();
    let welcome = wire::Welcome {
        version: 2,
        ..bench.welcome()
    };
    bench.reply(hello.id, welcome);
    assert!(matches!(bench.connection.phase, Phase::Closed));
}

// ---------------------------------------------------------------- what the codes advise

#[test]
fn each_range_of_codes_does_what_it_says() {
    for (code, renewable, expected) in [
        (4000, false, Some((Duration::ZERO, TokenUse::Same))),
        (4099, false, Some((Duration::ZERO, TokenUse::Same))),
        (4100, false, Some((backoff::LATER, TokenUse::Same))),
        (4199, false, Some((backoff::LATER, TokenUse::Same))),
        (4201, true, Some((Duration::ZERO, TokenUse::Renew))),
        (4201, false, None),
        (4299, true, Some((Duration::ZERO, TokenUse::Renew))),
        (4300, true, None),
        (4399, true, None),
        (4400, false, Some((Duration::ZERO, TokenUse::Same))),
        (1006, false, Some((Duration::ZERO, TokenUse::Same))),
    ] {
        let mut bench = Bench::online(Settings {
            renewable,
            ..settings()
        });
        let error = Error::from_code(code, "", None);
        bench.connection.handle_lost(bench.now, error);
        let Some((floor, token)) = expected else {
            assert_eq!(bench.actions(), [Action::Stop], "{code}");
            continue;
        };
        let wait = bench.wait_for_attempt();
        assert!(
            wait >= floor && wait <= floor + backoff::FIRST,
            "{code}: {wait:?}"
        );
        assert_eq!(bench.actions(), [Action::Connect { token }], "{code}");
    }
}

#[test]
fn the_time_that_the_broker_asks_for_is_kept() {
    let mut bench = Bench::online(settings());
    let told = Duration::from_secs(90);
    bench
        .connection
        .handle_lost(bench.now, Error::from_code(4100, "", Some(told)));
    let wait = bench.wait_for_attempt();
    assert!(wait >= told && wait <= told + backoff::FIRST, "{wait:?}");
}

#[test]
fn delays_grow_until_a_connection_was_stable() {
    let mut bench = Bench::online(settings());
    let mut longest = Duration::ZERO;
    for _ in 0..30 {
        bench.lose();
        bench.reopen();
        bench.pass(Duration::from_secs(5));
        bench.lose();
        longest = longest.max(bench.wait_for_attempt());
        bench.actions();
        bench.open();
    }
    assert!(longest > backoff::FIRST * 8, "{longest:?}");
    // Signs of life, so that only time passes.
    for _ in 0..4 {
        bench.pass(HEARTBEAT);
        bench.connection.handle_heard(bench.now);
    }
    bench.lose();
    assert!(bench.wait_for_attempt() <= backoff::FIRST);
}

#[test]
fn goaway_says_why_and_how_long_and_is_followed_if_the_broker_does_not_close() {
    let mut bench = Bench::online(settings());
    bench.frame(server::goaway(&refusal(Code::GoingAway).retry_after(2000)));
    assert!(bench.actions().is_empty());
    bench.pass(GOAWAY_GRACE - LITTLE);
    assert!(bench.actions().is_empty());
    bench.pass(LITTLE);
    let code = Code::GoingAway.number();
    assert_eq!(bench.actions(), [Action::Disconnect { code }]);
    assert!(bench.wait_for_attempt() >= Duration::from_secs(2));
}

#[test]
fn a_token_that_has_expired_is_not_tried_again() {
    let mut bench = Bench::new(Settings {
        renewable: true,
        ..settings()
    });
    bench.actions();
    bench.connection.handle_connected(bench.now, String::new());
    let [hello] = bench.sent().try_into().unwrap();
    let welcome = wire::Welcome {
        expires_in_ms: 5000,
        ..bench.welcome()
    };
    bench.reply(hello.id, welcome);
    bench.pass(Duration::from_secs(6));
    bench.lose();
    bench.wait_for_attempt();
    assert_eq!(
        bench.actions(),
        [Action::Connect {
            token: TokenUse::Renew
        }]
    );
}

#[test]
fn reconnecting_is_a_matter_of_policy() {
    let bench_with = |reconnect| Settings {
        reconnect,
        ..settings()
    };
    let mut bench = Bench::new(bench_with(Reconnect::AfterWelcome));
    bench.actions();
    bench.lose();
    assert_eq!(bench.actions(), [Action::Stop]);
    let mut bench = Bench::online(bench_with(Reconnect::AfterWelcome));
    bench.lose();
    bench.reopen();
    let mut bench = Bench::online(bench_with(Reconnect::Never));
    bench.lose();
    assert_eq!(bench.actions(), [Action::Stop]);
}

#[test]
fn another_kind_of_server_is_final_until_it_was_right_once() {
    let wrong = || Error::new(ErrorKind::Protocol, "HTTP 404");
    let mut bench = Bench::new(settings());
    bench.actions();
    bench.connection.handle_lost(bench.now, wrong());
    assert_eq!(bench.actions(), [Action::Stop]);
    let mut bench = Bench::online(settings());
    bench.lose();
    bench.wait_for_attempt();
    bench.actions();
    bench.connection.handle_lost(bench.now, wrong());
    bench.wait_for_attempt();
    assert!(matches!(bench.actions()[..], [Action::Connect { .. }]));
}

// ---------------------------------------------------------------- silence

#[test]
fn a_silent_broker_is_asked_and_then_left() {
    let mut bench = Bench::online(settings());
    bench.pass(HEARTBEAT + HEARTBEAT_GRACE - LITTLE);
    assert!(bench.sent().is_empty());
    bench.pass(LITTLE);
    let [ask] = bench.sent().try_into().unwrap();
    assert_eq!(ask.request, Some(ping()));
    bench.pass(HEARTBEAT - LITTLE);
    assert!(bench.sent().is_empty() && bench.actions().is_empty());
    assert_eq!(bench.connection.poll_timeout(), Some(bench.now + LITTLE));
    bench.pass(LITTLE);
    let code = Code::HeartbeatTimeout.number();
    assert_eq!(bench.actions(), [Action::Disconnect { code }]);
}

#[test]
fn any_sign_of_life_puts_the_question_off() {
    let mut bench = Bench::online(settings());
    for _ in 0..20 {
        bench.pass(HEARTBEAT);
        assert!(bench.sent().is_empty() && bench.actions().is_empty());
        bench.connection.handle_heard(bench.now);
    }
    // Also once the question was put.
    bench.pass(HEARTBEAT + HEARTBEAT_GRACE);
    assert_eq!(bench.sent().len(), 1);
    bench.connection.handle_heard(bench.now);
    bench.pass(HEARTBEAT);
    bench.pass(HEARTBEAT_GRACE);
    assert_eq!(bench.sent().len(), 1);
    assert!(bench.actions().is_empty());
}

// ---------------------------------------------------------------- requests

#[test]
fn an_answer_finds_its_request_and_a_late_one_nobody() {
    let mut bench = Bench::online(settings());
    let mut first = bench.request(ping(), Delivery::NowOnly);
    let mut second = bench.request(ping(), Delivery::NowOnly);
    let [one, two] = bench.sent().try_into().unwrap();
    bench.reply(two.id, wire::Pong { unix_ms: 2 });
    assert!(matches!(second.try_recv(), Ok(Ok(Outcome::Pong(_)))));
    bench.pass(REQUEST_TIMEOUT - LITTLE);
    assert!(first.try_recv().is_err());
    bench.pass(LITTLE);
    assert_eq!(kind(&mut first), Some(ErrorKind::Timeout));
    bench.reply(one.id, wire::Pong { unix_ms: 1 });
    assert!(matches!(bench.connection.phase, Phase::Open(_)));
}

#[test]
fn ids_are_never_zero_and_never_one_that_is_waited_for() {
    let mut requests = Requests::new(settings().offline);
    let ids: Vec<u32> = (0..3).map(|_| requests.next_id()).collect();
    assert_eq!(ids, [1, 2, 3]);
    let mut bench = Bench::online(settings());
    let _waits = bench.request(ping(), Delivery::NowOnly);
    let [waits] = bench.sent().try_into().unwrap();
    bench.connection.requests.wind_to(u32::MAX);
    let next: Vec<u32> = (0..waits.id)
        .map(|_| bench.connection.requests.next_id())
        .collect();
    assert!(!next.contains(&0) && !next.contains(&waits.id), "{next:?}");
}

#[test]
fn without_a_connection_requests_wait_within_bounds() {
    let mut bench = Bench::new(settings());
    let mut now_only = bench.request(ping(), Delivery::NowOnly);
    assert_eq!(kind(&mut now_only), Some(ErrorKind::Offline));
    let mut heavy = bench.request(publish("h", 1001), Delivery::Repeat);
    assert_eq!(kind(&mut heavy), Some(ErrorKind::QueueFull));
    let mut waiting: Vec<_> = ["1", "2", "3", "4"]
        .iter()
        .map(|key| bench.request(publish(key, 10), Delivery::Once))
        .collect();
    let mut fifth = bench.request(publish("5", 10), Delivery::Once);
    assert_eq!(kind(&mut fifth), Some(ErrorKind::QueueFull));
    bench.pass(AGE_MAX - LITTLE);
    assert!(waiting.iter_mut().all(|answer| answer.try_recv().is_err()));
    bench.pass(LITTLE);
    for answer in &mut waiting {
        assert_eq!(kind(answer), Some(ErrorKind::Offline));
    }
    // What expired has made room.
    let mut sixth = bench.request(publish("6", 1000), Delivery::Once);
    assert_eq!(kind(&mut sixth), None);
}

#[test]
fn what_waited_goes_out_in_order_and_has_its_own_time_then() {
    let mut bench = Bench::new(settings());
    let mut answers: Vec<_> = ["1", "2", "3"]
        .iter()
        .map(|key| bench.request(publish(key, 1), Delivery::Once))
        .collect();
    // Whoever does not wait any more is not sent.
    drop(answers.remove(1));
    bench.pass(AGE_MAX - LITTLE);
    bench.open();
    let frames = bench.sent();
    assert_eq!(keys(&frames), ["1", "3"]);
    bench.pass(REQUEST_TIMEOUT - LITTLE);
    assert!(answers[0].try_recv().is_err());
    bench.pass(LITTLE);
    assert_eq!(kind(&mut answers[0]), Some(ErrorKind::Timeout));
}

#[test]
fn with_the_connection_requests_fail_but_keyed_publishes_are_repeated_first_and_in_order() {
    let mut bench = Bench::online(settings());
    let mut kept: Vec<_> = ["1", "2"]
        .iter()
        .map(|key| bench.request(publish(key, 1), Delivery::Repeat))
        .collect();
    let mut lost = bench.request(publish("", 1), Delivery::Once);
    let first = bench.sent();
    assert_eq!(first.len(), 3);
    let mut unsent = bench.request(publish("3", 1), Delivery::Once);
    bench.lose();
    assert_eq!(kind(&mut lost), Some(ErrorKind::ConnectionLost));
    assert_eq!(kind(&mut unsent), None);
    bench.reopen();
    let again = bench.sent();
    assert_eq!(keys(&again), ["1", "2", "3"]);
    assert_eq!(again[0], first[0]);
    for (answer, frame) in kept.iter_mut().zip(&again) {
        bench.reply(frame.id, wire::Published::default());
        assert!(matches!(answer.try_recv(), Ok(Ok(Outcome::Published(_)))));
    }
}

#[test]
fn a_repeat_is_given_up_when_it_is_too_old() {
    let mut bench = Bench::online(settings());
    let mut answer = bench.request(publish("1", 1), Delivery::Repeat);
    assert_eq!(bench.sent().len(), 1);
    bench.lose();
    let until = bench.connection.poll_timeout().unwrap();
    assert!(until < bench.now + AGE_MAX);
    bench.wait_for_attempt();
    bench.now += AGE_MAX;
    bench.pass(Duration::ZERO);
    assert_eq!(kind(&mut answer), Some(ErrorKind::ConnectionLost));
    bench.open();
    assert!(bench.sent().is_empty());
}

#[test]
fn a_frame_that_the_broker_would_close_on_is_not_sent() {
    let mut bench = Bench::online(settings());
    let mut large = bench.request(publish("1", FRAME_BYTES_MAX), Delivery::Repeat);
    let _small = bench.request(publish("2", 10), Delivery::Repeat);
    assert_eq!(keys(&bench.sent()), ["2"]);
    let error = large.try_recv().unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Invalid, Some(Code::TooLarge))
    );
}

#[test]
fn the_application_waits_when_too_much_is_in_flight() {
    let mut bench = Bench::online(settings());
    let answers: Vec<_> = (0..8).map(|_| bench.request(ping(), Delivery::NowOnly)).collect();
    assert!(!bench.connection.takes_commands());
    let frames = bench.sent();
    assert!(!bench.connection.takes_commands());
    bench.reply(frames[0].id, wire::Pong { unix_ms: 0 });
    assert!(bench.connection.takes_commands());
    drop(answers);
}

#[test]
fn a_request_without_an_answer_takes_no_room_once_sent() {
    let mut bench = Bench::online(settings());
    for _ in 0..100 {
        bench.connection.handle_command(
            bench.now,
            Command::Request(Submission {
                request: publish("", 1),
                answer: None,
                timeout: REQUEST_TIMEOUT,
                delivery: Delivery::Once,
            }),
        );
        assert_eq!(bench.sent()[0].id, 0);
    }
    assert_eq!(bench.connection.requests.in_flight(), 0);
    assert_eq!(bench.connection.timers.next(), None);
}

#[test]
fn closing_answers_everyone() {
    let mut bench = Bench::online(settings());
    let mut answer = bench.request(ping(), Delivery::NowOnly);
    let (queue, mut joined) = bench.subscribe("a");
    bench.connection.handle_control(Control::Close);
    assert_eq!(kind(&mut answer), Some(ErrorKind::Closed));
    assert_eq!(joined.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(events(&queue).is_empty());
    assert_eq!(bench.actions(), [Action::Stop]);
    assert_eq!(bench.connection.poll_timeout(), None);
}

// ---------------------------------------------------------------- rooms

fn joined(bench: &mut Bench, room: &str) -> Arc<Queue<Event>> {
    let (queue, mut joined) = bench.subscribe(room);
    bench.join_all(1, 10);
    let position = Position {
        epoch: Epoch(1),
        seq: Seq(10),
    };
    assert_eq!(joined.try_recv().unwrap().unwrap(), position);
    queue
}

#[test]
fn messages_arrive_once_and_a_gap_is_told_before_what_follows_it() {
    let mut bench = Bench::online(settings());
    let queue = joined(&mut bench, "a");
    for seq in [11, 12, 12, 11, 15, 16] {
        bench.push(100, seq);
    }
    let events = events(&queue);
    assert_eq!(events.len(), 5);
    let missed = SeqRange {
        first: Seq(13),
        last: Seq(14),
    };
    assert!(matches!(events[2], Event::Gap { missed: m } if m == missed));
    let seqs: Vec<u64> = events
        .into_iter()
        .filter_map(|event| event.into_message().map(|message| message.seq.0))
        .collect();
    assert_eq!(seqs, [11, 12, 15, 16]);
}

#[test]
fn advance_moves_on_without_a_gap_and_never_back() {
    let mut bench = Bench::online(settings());
    let queue = joined(&mut bench, "a");
    let advance = |seq| server::advance(cauce_protocol::RoomId(100), Seq(seq));
    bench.frame(advance(14));
    bench.push(100, 15);
    bench.frame(advance(12));
    bench.push(100, 16);
    assert_eq!(seqs(&queue), [15, 16]);
}

#[test]
fn a_push_for_a_room_that_was_left_goes_nowhere() {
    let mut bench = Bench::online(settings());
    let queue = joined(&mut bench, "a");
    bench.drop_reader("a", &queue);
    let [leave] = bench.sent().try_into().unwrap();
    assert_eq!((leave.id, rooms(&leave)), (0, vec!["a".to_owned()]));
    bench.push(100, 11);
    assert_eq!(bench.connection.rooms.len(), 0);
}

#[test]
fn a_room_left_and_wanted_again_at_once_is_left_before_it_is_joined() {
    let mut bench = Bench::online(settings());
    let (first, mut answer) = bench.subscribe("a");
    let [asked] = bench.sent().try_into().unwrap();
    bench.drop_reader("a", &first);
    let (second, mut again) = bench.subscribe("a");
    let [leave, ask] = bench.sent().try_into().unwrap();
    assert!(matches!(leave.request, Some(Request::Unsubscribe(_))));
    // The answer to the first asking is not the second's.
    bench.join(&asked, 1, 3);
    assert!(again.try_recv().is_err() && answer.try_recv().is_err());
    bench.join(&ask, 1, 5);
    assert_eq!(again.try_recv().unwrap().unwrap().seq, Seq(5));
    bench.push(100, 6);
    assert_eq!(seqs(&second), [6]);
}

#[test]
fn rooms_are_asked_for_together_up_to_the_brokers_limit() {
    let mut bench = Bench::online(settings());
    let _joining: Vec<_> = (0..10).map(|n| bench.subscribe(&format!("r{n}"))).collect();
    let counts: Vec<_> = bench.sent().iter().map(|frame| rooms(frame).len()).collect();
    assert_eq!(counts, [4, 4, 2]);
}

#[test]
fn one_forbidden_room_does_not_keep_the_others_out() {
    let mut bench = Bench::online(settings());
    let mut joining: Vec<_> = ["r0", "r1", "bad", "r3"].map(|room| bench.subscribe(room)).into();
    for _ in 0..10 {
        for frame in bench.sent() {
            if rooms(&frame).contains(&"bad".to_owned()) {
                bench.reply(frame.id, &refusal(Code::Forbidden));
            } else {
                bench.join(&frame, 1, 0);
            }
        }
    }
    let codes: Vec<_> = joining
        .iter_mut()
        .map(|(_, answer)| answer.try_recv().unwrap().err().and_then(|e| e.code()))
        .collect();
    assert_eq!(codes, [None, None, Some(Code::Forbidden), None]);
    assert_eq!(bench.connection.rooms.len(), 3);
}

#[test]
fn a_first_join_refused_for_now_is_told_and_a_later_one_is_tried_again() {
    let mut bench = Bench::online(settings());
    let (_queue, mut answer) = bench.subscribe("b");
    let [ask] = bench.sent().try_into().unwrap();
    bench.reply(ask.id, &refusal(Code::RateLimited).retry_after(500));
    let error = answer.try_recv().unwrap().unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_millis(500)));
    assert_eq!(bench.connection.rooms.len(), 0);

    let queue = joined(&mut bench, "a");
    bench.lose();
    bench.reopen();
    let [ask] = bench.sent().try_into().unwrap();
    bench.reply(ask.id, &refusal(Code::RateLimited).retry_after(500));
    bench.pass(Duration::from_millis(499));
    assert!(bench.sent().is_empty());
    bench.pass(backoff::LATER + LITTLE);
    bench.join_all(1, 12);
    let missed = SeqRange {
        first: Seq(11),
        last: Seq(12),
    };
    let [Event::Resubscribed { continuity, .. }] = events(&queue)[..] else {
        panic!("not resubscribed")
    };
    assert_eq!(continuity, Continuity::Lost(missed));
}

#[test]
fn a_room_that_may_not_be_joined_again_ends_its_subscriptions() {
    let mut bench = Bench::online(settings());
    let queue = joined(&mut bench, "a");
    bench.lose();
    bench.reopen();
    let [ask] = bench.sent().try_into().unwrap();
    bench.reply(ask.id, &refusal(Code::Forbidden));
    let [Event::Ended { ref reason }] = events(&queue)[..] else {
        panic!("not ended")
    };
    assert_eq!(reason.code(), Some(Code::Forbidden));
    assert_eq!(bench.connection.rooms.len(), 0);
}

#[test]
fn a_new_join_says_what_became_of_the_room() {
    for (epoch, seq, expected) in [
        (1, 10, Continuity::Continued),
        (
            1,
            11,
            Continuity::Lost(SeqRange {
                first: Seq(11),
                last: Seq(11),
            }),
        ),
        (1, 9, Continuity::Reset),
        (2, 10, Continuity::Reset),
        (2, 0, Continuity::Reset),
    ] {
        let mut bench = Bench::online(settings());
        let queue = joined(&mut bench, "a");
        bench.lose();
        // A reader who comes meanwhile has missed nothing.
        let (new, mut answer) = bench.subscribe("a");
        bench.reopen();
        bench.join_all(epoch, seq);
        let position = Position {
            epoch: Epoch(epoch),
            seq: Seq(seq),
        };
        let [
            Event::Resubscribed {
                position: p,
                continuity,
            },
        ] = events(&queue)[..]
        else {
            panic!("not resubscribed")
        };
        assert_eq!((p, continuity), (position, expected));
        assert_eq!(answer.try_recv().unwrap().unwrap(), position);
        bench.push(100, seq + 1);
        assert_eq!(seqs(&new), [seq + 1]);
        assert_eq!(seqs(&queue), [seq + 1]);
    }
}

#[test]
fn a_subscribe_without_an_answer_costs_the_connection() {
    let mut bench = Bench::online(settings());
    let _joining = bench.subscribe("a");
    assert_eq!(bench.sent().len(), 1);
    bench.pass(REQUEST_TIMEOUT);
    assert!(matches!(bench.actions()[..], [Action::Disconnect { .. }]));
    bench.reopen();
    assert_eq!(bench.join_all(1, 0), ["a"]);
}

#[test]
fn a_reader_does_not_wait_for_its_room_for_ever() {
    let mut bench = Bench::new(settings());
    let (_queue, mut answer) = bench.subscribe("a");
    bench.pass(AGE_MAX + REQUEST_TIMEOUT - LITTLE);
    assert!(answer.try_recv().is_err());
    bench.pass(LITTLE);
    assert_eq!(answer.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Offline);
    assert_eq!(bench.connection.rooms.len(), 0);
}

#[test]
fn a_reader_that_left_before_it_was_heard_of_leaves_nothing_behind() {
    let mut bench = Bench::online(settings());
    let queue = Arc::new(Queue::new(1, 1));
    let (joined, _answer) = oneshot::channel();
    bench.drop_reader("a", &queue);
    let room = RoomName::new("a").unwrap();
    bench
        .connection
        .handle_command(bench.now, Command::Subscribe { room, queue, joined });
    assert!(bench.sent().is_empty());
    assert_eq!(bench.connection.rooms.len(), 0);
}

#[test]
fn an_answer_that_does_not_fit_the_question_ends_the_connection() {
    for rooms in [
        vec![],
        vec![wire::RoomPosition {
            name: "b".into(),
            ..wire::RoomPosition::default()
        }],
    ] {
        let mut bench = Bench::online(settings());
        let _joining = bench.subscribe("a");
        let [ask] = bench.sent().try_into().unwrap();
        bench.reply(ask.id, wire::Subscribed { rooms });
        assert!(matches!(bench.actions()[..], [Action::Disconnect { .. }]));
    }
}
