//! Requests: their ids, their times, their bounds, and what becomes of them with the connection.

use super::*;

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
                ticket: None,
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
