//! Opening, silence, and what follows the end of a connection.

use super::*;

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
    assert_eq!(
        body.features,
        wire::Feature::Advance as u64 | wire::Feature::Gap as u64
    );
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
    assert_eq!(bench.actions(), [Action::FetchToken]);
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
