//! How a call ends: an answer, its time, a loss or a word of the caller, and always exactly once.

use bytes::Bytes;
use cauce_protocol::{Code, ConnectionId, Refusal};

use super::{A, B, C, CALLER, Desk, Said, answered, said};
use crate::hub::Caller;
use crate::hub::calls::bounds::ATTEMPTS_MAX;
use crate::hub::calls::call::{CallId, Effect, NewCall, ServerId};
use crate::metrics::CallEnd;

#[test]
fn when_the_time_is_over_the_caller_is_told_and_the_server_too() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 1);
    let (given, _) = desk.call("m");
    desk.now_ms = 500;
    let (waits, _) = desk.call("m");
    assert_eq!(said(desk.calls.tick(999)), []);
    assert_eq!(
        said(desk.calls.tick(1_000)),
        [
            Said::Revoke(A, given),
            Said::Answer(1, CallEnd::TimedOut, Err(Code::Timeout)),
            Said::Invoke(A, waits),
        ]
    );
    // What comes too late is not heard.
    assert_eq!(desk.respond(A, given).expect_err("late").code, Code::NotFound);
    assert_eq!(desk.respond(A, waits).expect("in time"), [answered(2)]);
}

#[test]
fn calls_whose_time_is_over_together_are_not_given_to_each_others_servers() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 1);
    let (given, _) = desk.call("m");
    desk.call("m");
    let timed_out = |request| Said::Answer(request, CallEnd::TimedOut, Err(Code::Timeout));
    let ticked = said(desk.calls.tick(1_000));
    assert_eq!(ticked.len(), 3, "{ticked:?}");
    for expected in [Said::Revoke(A, given), timed_out(1), timed_out(2)] {
        assert!(ticked.contains(&expected), "{expected:?}");
    }
}

#[test]
fn without_retry_a_lost_server_ends_the_call() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 0);
    desk.call("m");
    desk.serve(B, &["m"], 0);
    let effects = desk.calls.server_left(0, A);
    assert_eq!(
        said(effects),
        [Said::Answer(1, CallEnd::Lost, Err(Code::NotServed))]
    );
    assert!(desk.calls.is_quiet());
}

#[test]
fn with_retry_others_are_asked_but_not_for_ever() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 0);
    let (_, call, said_first) = desk.call_as("m", true);
    assert_eq!(said_first, [Said::Invoke(A, call)]);
    let mut server = A;
    for attempt in 2..=ATTEMPTS_MAX {
        let next = ServerId::Program(attempt.into());
        desk.serve(next, &["m"], 0);
        assert_eq!(
            said(desk.calls.server_left(0, server)),
            [Said::Invoke(next, call)]
        );
        desk.calls.check();
        server = next;
    }
    desk.serve(B, &["m"], 0);
    assert_eq!(
        said(desk.calls.server_left(0, server)),
        [Said::Answer(1, CallEnd::Lost, Err(Code::NotServed))]
    );
}

#[test]
fn with_retry_and_nobody_left_the_caller_learns_that_it_may_have_run() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 0);
    desk.call_as("m", true);
    let effects = desk.calls.server_left(0, A);
    let [
        Effect::Answer {
            end: CallEnd::Lost,
            result: Err(refusal),
            ..
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert!(refusal.message.contains("may have run"), "{refusal}");
}

#[test]
fn a_call_that_a_server_gives_up_is_lost_and_the_server_lives_on() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 1);
    let (given, _) = desk.call("m");
    let (waits, _) = desk.call("m");
    assert_eq!(
        said(desk.calls.lose(0, A, given)),
        [
            Said::Answer(1, CallEnd::Lost, Err(Code::NotServed)),
            Said::Invoke(A, waits)
        ]
    );
    assert_eq!(said(desk.calls.lose(0, B, waits)), []);
}

#[test]
fn only_the_server_that_was_asked_may_answer_and_only_once() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 1);
    desk.serve(B, &["other"], 1);
    let (call, _) = desk.call("m");
    let (waits, _) = desk.call("m");
    for (server, call) in [(B, call), (A, waits), (A, CallId(1)), (C, call)] {
        assert_eq!(desk.respond(server, call).expect_err("no").code, Code::NotFound);
    }
    desk.respond(A, call).expect("its own");
    assert_eq!(desk.respond(A, call).expect_err("again").code, Code::NotFound);
}

#[test]
fn an_error_of_the_server_reaches_the_caller_in_its_words() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 0);
    for words in ["out of paper", ""] {
        let (call, _) = desk.call("m");
        let effects = desk.calls.respond(0, A, call, Err(words.into())).expect("taken");
        let [
            Effect::Answer {
                end: CallEnd::Failed,
                result: Err(refusal),
                ..
            },
        ] = &effects[..]
        else {
            panic!("{effects:?}");
        };
        assert_eq!(refusal.code, Code::MethodError);
        assert!(!refusal.message.is_empty() && refusal.message.contains(words));
    }
}

#[test]
fn a_caller_takes_back_its_own_calls_only() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 0);
    let (call, _) = desk.call("m");
    for (connection, request) in [(ConnectionId(8), 1), (CALLER, 2)] {
        let refused = desk
            .calls
            .cancel(0, connection, request)
            .expect_err("not its own");
        assert_eq!(refused.code, Code::NotFound);
    }
    assert_eq!(
        said(desk.calls.cancel(0, CALLER, 1).expect("its own")),
        [
            Said::Revoke(A, call),
            Said::Answer(1, CallEnd::Cancelled, Err(Code::Cancelled))
        ]
    );
    assert_eq!(
        desk.calls.cancel(0, CALLER, 1).expect_err("over").code,
        Code::NotFound
    );
}

#[test]
fn a_caller_that_leaves_frees_its_servers_for_others() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 1);
    let (call, _) = desk.call("m");
    let other = NewCall {
        caller: Caller::Connection {
            connection: ConnectionId(8),
            request: 9,
        },
        user: None,
        method: "m".into(),
        params: Bytes::new(),
        timeout_ms: 1_000,
        retry: false,
    };
    let (waits, _) = desk.calls.call(0, 77, other);
    assert_eq!(
        said(desk.calls.connection_left(0, CALLER)),
        [Said::Revoke(A, call), Said::Abandon(1), Said::Invoke(A, waits)]
    );
    desk.calls.check();
}

#[test]
fn a_connection_that_serves_itself_leaves_nothing() {
    let mut desk = Desk::default();
    desk.serve(ServerId::Connection(CALLER), &["m"], 1);
    desk.call("m");
    desk.call("m");
    let left = said(desk.calls.connection_left(0, CALLER));
    assert!(
        !left
            .iter()
            .any(|s| matches!(s, Said::Invoke(..) | Said::Answer(..))),
        "{left:?}"
    );
    assert!(desk.calls.is_empty());
}

#[test]
fn a_stop_answers_everybody() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 1);
    let (given, _) = desk.call("m");
    desk.call("m");
    let mut stopped = said(desk.calls.stop(&Refusal::new(Code::GoingAway, "the end")));
    stopped.retain(|s| *s != Said::Revoke(A, given));
    assert_eq!(stopped.len(), 2);
    assert!(
        stopped
            .iter()
            .all(|s| matches!(s, Said::Answer(_, CallEnd::Stopped, Err(Code::GoingAway))))
    );
    assert!(desk.calls.is_empty());
}
