//! Rooms: joining, order and gaps, refusals, joining again.

use super::*;

fn joined(bench: &mut Bench, room: &str) -> Arc<Queue<Event>> {
    let (queue, mut joined) = bench.subscribe(room);
    bench.join_all(1, 10);
    let position = Position {
        epoch: Epoch(1),
        seq: Seq(10),
    };
    assert_eq!(joined.try_recv().unwrap().unwrap().position, position);
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
    assert_eq!(again.try_recv().unwrap().unwrap().position.seq, Seq(5));
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
                ..
            },
        ] = events(&queue)[..]
        else {
            panic!("not resubscribed")
        };
        assert_eq!((p, continuity), (position, expected));
        assert_eq!(answer.try_recv().unwrap().unwrap().position, position);
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
    let joining = Joining {
        room: RoomName::new("a").unwrap(),
        queue,
        joined,
        manner: Manner::default(),
        start: Start::Now,
        interest: Interest::Messages(Watch::None),
    };
    let command = Command::Subscribe(joining);
    bench.connection.handle_command(bench.now, command);
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

fn subscriptions(frame: &wire::ClientFrame) -> &[wire::Subscription] {
    match &frame.request {
        Some(Request::Subscribe(subscribe)) => &subscribe.subscriptions,
        other => panic!("not a subscribe: {other:?}"),
    }
}

#[test]
fn the_position_is_brought_from_the_first_join_on() {
    let mut bench = Bench::online(settings());
    let _queue = joined(&mut bench, "a");
    bench.lose();
    bench.reopen();
    let [ask] = bench.sent().try_into().unwrap();
    let [wanted] = subscriptions(&ask) else {
        panic!("not one")
    };
    assert_eq!((wanted.room.as_str(), wanted.epoch, wanted.seq), ("a", 1, 10));
}

#[test]
fn a_gap_is_told_in_its_place_and_the_room_goes_on_behind_it() {
    let mut bench = Bench::online(settings());
    let queue = joined(&mut bench, "a");
    bench.push(100, 11);
    for (from, to) in [(12, 14), (9, 13)] {
        bench.frame(wire::Gap { room: 100, from, to }.into());
    }
    bench.push(100, 15);
    let told = events(&queue);
    let missed = SeqRange {
        first: Seq(12),
        last: Seq(14),
    };
    assert!(matches!(told[1], Event::Gap { missed: m } if m == missed));
    assert_eq!(told.len(), 3);
}

#[test]
fn what_a_filter_passes_over_is_no_gap() {
    let mut bench = Bench::online(settings());
    let interest = Interest::Messages(Watch::None);
    let (queue, _joined) = bench.subscribe_as("a", Manner::of_events(["e"]), Start::Now, interest);
    let [ask] = bench.sent().try_into().unwrap();
    assert_eq!(subscriptions(&ask)[0].events, ["e"]);
    bench.join(&ask, 1, 10);
    bench.push(100, 13);
    bench.push(100, 20);
    assert_eq!(seqs(&queue), [13, 20]);
}

#[test]
fn a_second_way_to_follow_a_room_is_refused() {
    let mut bench = Bench::online(settings());
    let _queue = joined(&mut bench, "a");
    let interest = Interest::Messages(Watch::None);
    for (manner, start) in [
        (Manner::of_events(["e"]), Start::Now),
        (Manner::default(), Start::Recent(5)),
    ] {
        let (_queue, mut answer) = bench.subscribe_as("a", manner, start, interest);
        assert_eq!(answer.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(bench.sent().is_empty());
}

#[test]
fn a_room_watched_later_is_joined_anew_from_where_it_stands() {
    let mut bench = Bench::online(settings());
    let queue = joined(&mut bench, "a");
    let (view, mut answer) = bench.subscribe_as("a", Manner::default(), Start::Now, Interest::PresenceOnly);
    let [leave, ask] = bench.sent().try_into().unwrap();
    assert!(matches!(leave.request, Some(Request::Unsubscribe(_))));
    let wanted = &subscriptions(&ask)[0];
    assert_eq!((wanted.seq, wanted.presence), (10, wire::Watch::Users as i32));
    // What was under way counts, and does not come twice.
    bench.push(100, 11);
    assert!(answer.try_recv().is_err());
    let rooms = vec![wire::RoomPosition {
        name: "a".into(),
        room: 100,
        epoch: 1,
        seq: 10,
        head: 12,
        recovery: wire::Recovery::Continued as i32,
        ..wire::RoomPosition::default()
    }];
    bench.reply(ask.id, wire::Subscribed { rooms });
    assert!(answer.try_recv().unwrap().is_ok());
    bench.push(100, 11);
    bench.push(100, 12);
    let change = wire::PresenceChange {
        room: 100,
        version: 3,
        users: 2,
        ..wire::PresenceChange::default()
    };
    bench.frame(change.into());
    assert_eq!(seqs(&queue), [11, 12]);
    assert!(matches!(&events(&view)[..], [Event::Presence(change)] if change.version == 3));
}

#[test]
fn a_subscription_that_the_broker_ends_says_why_and_is_forgotten() {
    let mut bench = Bench::online(settings());
    let queue = joined(&mut bench, "a");
    let error = Some((&refusal(Code::Forbidden)).into());
    bench.frame(wire::Ended { room: 100, error }.into());
    assert!(
        matches!(&events(&queue)[..], [Event::Ended { reason }] if reason.code() == Some(Code::Forbidden))
    );
    assert_eq!(bench.connection.rooms.len(), 0);
    bench.lose();
    bench.reopen();
    assert!(bench.sent().is_empty());
}

#[test]
fn earlier_connections_are_named_newest_first_and_no_more_than_the_broker_takes() {
    let mut bench = Bench::new(settings());
    bench.actions();
    for id in 1..=12u64 {
        bench.connection.handle_connected(bench.now, String::new());
        let [hello] = bench.sent().try_into().unwrap();
        let Some(Request::Hello(said)) = hello.request else {
            panic!("not hello")
        };
        let expected: Vec<u64> = (1..id).rev().take(limits::PREVIOUS_MAX).collect();
        assert_eq!(said.previous, expected);
        let welcome = wire::Welcome {
            connection: id,
            ..bench.welcome()
        };
        bench.reply(hello.id, welcome);
        bench.lose();
        bench.wait_for_attempt();
        bench.actions();
    }
}
