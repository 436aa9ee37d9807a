//! Serving methods, giving up calls, and another token in band.

use super::*;
use crate::serve::Invoked;
use cauce_protocol::message::MethodPattern;
use cauce_protocol::wire::respond;
use tokio::sync::mpsc;

struct Serving {
    invocations: mpsc::Receiver<Invoked>,
    served: oneshot::Receiver<Result<(), Error>>,
}

fn serve(bench: &mut Bench, id: u64, pattern: &str) -> Serving {
    let (out, invocations) = mpsc::channel(8);
    let (done, served) = oneshot::channel();
    let serving = super::super::Serving {
        id,
        pattern: MethodPattern::new(pattern).unwrap(),
        concurrency: 4,
        invocations: out,
        served: done,
    };
    bench
        .connection
        .handle_command(bench.now, Command::Serve(Box::new(serving)));
    Serving { invocations, served }
}

fn methods(frame: &wire::ClientFrame) -> (&[String], u32) {
    match &frame.request {
        Some(Request::Serve(serve)) => (&serve.methods, serve.concurrency),
        other => panic!("not serve: {other:?}"),
    }
}

fn invoke(bench: &mut Bench, call: u64, method: &str) {
    bench.frame(
        wire::Invoke {
            call,
            method: method.into(),
            timeout_ms: 1000,
            ..wire::Invoke::default()
        }
        .into(),
    );
}

fn served(bench: &mut Bench, id: u64, pattern: &str) -> Serving {
    let mut serving = serve(bench, id, pattern);
    let [ask] = bench.sent().try_into().expect("one serve");
    bench.reply(ask.id, wire::Done {});
    serving.served.try_recv().unwrap().unwrap();
    serving
}

fn call_of(serving: &mut Serving) -> (u64, u64, oneshot::Receiver<()>) {
    match serving.invocations.try_recv() {
        Ok(Invoked::Call {
            generation,
            invoke,
            revoked,
            ..
        }) => (generation, invoke.call, revoked),
        other => panic!("no call: {other:?}"),
    }
}

fn respond(bench: &mut Bench, generation: u64, call: u64) {
    bench.connection.handle_control(Control::Respond(Response {
        generation,
        call,
        result: respond::Result::Json("1".into()),
    }));
}

#[test]
fn a_call_goes_to_the_closest_pattern_and_is_answered_once() {
    let mut bench = Bench::online(settings());
    let mut all = served(&mut bench, 1, "*");
    let mut few = served(&mut bench, 2, "math.*");
    let mut one = served(&mut bench, 3, "math.add");
    for (call, method) in [(1, "math.add"), (2, "math.sub"), (3, "other")] {
        invoke(&mut bench, call, method);
    }
    let found = [&mut one, &mut few, &mut all].map(|serving| call_of(serving).1);
    assert_eq!(found, [1, 2, 3]);
    respond(&mut bench, 0, 1);
    respond(&mut bench, 0, 1);
    let [answer] = bench.sent().try_into().expect("one answer");
    assert!(matches!(answer.request, Some(Request::Respond(r)) if r.call == 1));
}

#[test]
fn what_is_served_is_registered_again_and_calls_of_before_are_revoked() {
    let mut bench = Bench::online(settings());
    let mut serving = served(&mut bench, 1, "echo");
    invoke(&mut bench, 7, "echo");
    let (generation, call, mut revoked) = call_of(&mut serving);
    assert!(revoked.try_recv() == Err(oneshot::error::TryRecvError::Empty));
    bench.lose();
    assert!(revoked.try_recv() == Err(oneshot::error::TryRecvError::Closed));
    bench.reopen();
    let [ask] = bench.sent().try_into().expect("one serve");
    assert_eq!(methods(&ask), (&["echo".to_owned()][..], 4));
    bench.reply(ask.id, wire::Done {});
    // The number means another call now, or none.
    invoke(&mut bench, 7, "echo");
    respond(&mut bench, generation, call);
    assert!(bench.sent().is_empty());
    let (generation, call, _revoked) = call_of(&mut serving);
    respond(&mut bench, generation, call);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_revoked_call_is_told_and_its_answer_goes_nowhere() {
    let mut bench = Bench::online(settings());
    let mut serving = served(&mut bench, 1, "echo");
    invoke(&mut bench, 7, "echo");
    let (generation, call, mut revoked) = call_of(&mut serving);
    bench.frame(wire::Revoke { call: 7 }.into());
    assert!(revoked.try_recv() == Err(oneshot::error::TryRecvError::Closed));
    respond(&mut bench, generation, call);
    assert!(bench.sent().is_empty());
}

#[test]
fn a_service_that_is_dropped_is_taken_back_and_its_calls_refused() {
    let mut bench = Bench::online(settings());
    let serving = served(&mut bench, 1, "echo");
    drop(serving);
    bench.connection.handle_control(Control::Unserve { id: 1 });
    invoke(&mut bench, 7, "echo");
    let [unserve, refusal] = bench.sent().try_into().unwrap();
    assert!(matches!(unserve.request, Some(Request::Unserve(u)) if u.methods == ["echo"]));
    assert!(matches!(
        refusal.request,
        Some(Request::Respond(wire::Respond {
            call: 7,
            result: Some(respond::Result::Error(_))
        }))
    ));
}

#[test]
fn a_first_registration_refused_is_told_and_a_later_one_tried_again_or_ended() {
    let mut bench = Bench::online(settings());
    let mut first = serve(&mut bench, 1, "echo");
    let [ask] = bench.sent().try_into().unwrap();
    bench.reply(ask.id, &refusal(Code::Overloaded));
    let error = first.served.try_recv().unwrap().unwrap_err();
    assert_eq!(error.code(), Some(Code::Overloaded));

    let mut serving = served(&mut bench, 2, "echo");
    bench.lose();
    bench.reopen();
    let [ask] = bench.sent().try_into().unwrap();
    bench.reply(ask.id, &refusal(Code::Overloaded));
    assert!(bench.sent().is_empty());
    bench.pass(backoff::LATER * 2 + LITTLE);
    let [ask] = bench.sent().try_into().expect("asked again");
    bench.reply(ask.id, &refusal(Code::Forbidden));
    assert!(
        matches!(serving.invocations.try_recv(), Ok(Invoked::Ended(error)) if error.code() == Some(Code::Forbidden))
    );
    bench.lose();
    bench.reopen();
    assert!(bench.sent().is_empty());
}

#[test]
fn an_answer_larger_than_a_frame_becomes_an_error() {
    let mut bench = Bench::online(settings());
    let mut serving = served(&mut bench, 1, "echo");
    invoke(&mut bench, 7, "echo");
    let (generation, call, _revoked) = call_of(&mut serving);
    let result = respond::Result::Json(vec![b' '; FRAME_BYTES_MAX].into());
    bench.connection.handle_control(Control::Respond(Response {
        generation,
        call,
        result,
    }));
    let [answer] = bench.sent().try_into().unwrap();
    let Some(Request::Respond(respond)) = answer.request else {
        panic!("not an answer")
    };
    assert!(matches!(respond.result, Some(respond::Result::Error(said)) if said.contains("bytes")));
}

#[test]
fn a_call_that_is_given_up_is_cancelled_if_it_was_sent() {
    let mut bench = Bench::online(settings());
    let call = |bench: &mut Bench, ticket| {
        let (answer, answered) = oneshot::channel();
        let submission = Submission {
            request: Request::Call(wire::Call::default()),
            answer: Some(answer),
            timeout: REQUEST_TIMEOUT,
            delivery: Delivery::Once,
            ticket: Some(ticket),
        };
        bench
            .connection
            .handle_command(bench.now, Command::Request(submission));
        answered
    };
    let sent = call(&mut bench, 1);
    let [asked] = bench.sent().try_into().unwrap();
    let unsent = call(&mut bench, 2);
    drop((sent, unsent));
    bench.connection.handle_control(Control::GiveUp(1));
    bench.connection.handle_control(Control::GiveUp(2));
    let [cancel] = bench.sent().try_into().expect("the cancel alone");
    assert_eq!(
        cancel.request,
        Some(Request::Cancel(wire::Cancel { request: asked.id }))
    );
    assert_eq!(bench.connection.requests.in_flight(), 0);
}

#[test]
fn after_goaway_requests_wait_for_the_next_connection() {
    let mut bench = Bench::online(settings());
    bench.frame(server::goaway(&refusal(Code::GoingAway)));
    let mut answer = bench.request(Request::Call(wire::Call::default()), Delivery::Once);
    assert!(bench.sent().is_empty());
    bench.lose();
    assert_eq!(kind(&mut answer), None);
    bench.reopen();
    assert_eq!(bench.sent().len(), 1);
}

/// Online with a token that is good for so long.
fn renewing(life: Duration) -> Bench {
    let mut bench = Bench::new(Settings {
        renewable: true,
        ..settings()
    });
    bench.actions();
    bench.connection.handle_connected(bench.now, "token".into());
    let [hello] = bench.sent().try_into().unwrap();
    let welcome = wire::Welcome {
        expires_in_ms: life.as_millis() as u64,
        ..bench.welcome()
    };
    bench.reply(hello.id, welcome);
    bench
}

/// Lets time pass until a token is asked for; how long that took.
fn wait_for_fetch(bench: &mut Bench) -> Duration {
    let start = bench.now;
    while bench.now < start + Duration::from_secs(1000) {
        bench.connection.handle_heard(bench.now);
        bench.pass(Duration::from_millis(100));
        if bench.actions().contains(&Action::FetchToken) {
            return bench.now - start;
        }
    }
    panic!("no token was asked for")
}

fn offer(bench: &mut Bench) -> u32 {
    bench.connection.handle_token(bench.now, Ok("new".into()));
    let frames = bench.sent();
    let refresh = frames.into_iter().find_map(|frame| match frame.request {
        Some(Request::Refresh(refresh)) => Some((frame.id, refresh.token)),
        _ => None,
    });
    let (id, token) = refresh.expect("a refresh");
    assert_eq!(token, "new");
    id
}

#[test]
fn a_token_is_renewed_when_most_of_its_life_is_over_and_again() {
    let life = Duration::from_secs(100);
    let mut bench = renewing(life);
    for _ in 0..3 {
        let waited = wait_for_fetch(&mut bench);
        assert!(
            waited >= life.mul_f64(0.59) && waited <= life.mul_f64(0.81),
            "{waited:?}"
        );
        let id = offer(&mut bench);
        bench.connection.poll_status();
        bench.reply(
            id,
            wire::Refreshed {
                expires_in_ms: life.as_millis() as u64,
            },
        );
        let Some(Status::Online(session)) = bench.connection.poll_status() else {
            panic!("nobody is told")
        };
        assert_eq!(session.token_expires, Some(bench.now + life));
    }
}

#[test]
fn a_renewal_that_fails_is_tried_again_and_the_connection_lives_on() {
    let mut bench = renewing(Duration::from_secs(100));
    wait_for_fetch(&mut bench);
    let error = Error::new(ErrorKind::Token, "no token today");
    bench.connection.handle_token(bench.now, Err(error));
    assert!(wait_for_fetch(&mut bench) <= backoff::FIRST + Duration::from_millis(100));
    let id = offer(&mut bench);
    bench.reply(id, &refusal(Code::RateLimited).retry_after(3000));
    assert!(wait_for_fetch(&mut bench) >= Duration::from_secs(3));
    assert!(matches!(bench.connection.phase, Phase::Open(_)));
    // One whose offer nobody answers is not trusted on the next connection.
    offer(&mut bench);
    bench.lose();
    bench.wait_for_attempt();
    let token = TokenUse::Renew;
    assert_eq!(bench.actions(), [Action::Connect { token }]);
}

#[test]
fn a_token_refused_for_good_ends_the_client_and_a_broker_that_cannot_renew_is_left_alone() {
    for code in [Code::TokenRevoked, Code::TokenInvalid, Code::WrongTenant] {
        let mut bench = renewing(Duration::from_secs(100));
        wait_for_fetch(&mut bench);
        let id = offer(&mut bench);
        bench.reply(id, &refusal(code));
        assert_eq!(bench.actions(), [Action::Stop], "{code}");
    }
    let mut bench = renewing(Duration::from_secs(100));
    wait_for_fetch(&mut bench);
    let id = offer(&mut bench);
    bench.reply(id, &refusal(Code::Unsupported));
    assert!(matches!(bench.connection.phase, Phase::Open(_)));
    assert_eq!(bench.connection.renewal.next(), None);
}
