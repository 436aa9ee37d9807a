//! The rules of calls, one by one, without a clock.

use bytes::Bytes;
use cauce_protocol::message::MethodPattern;
use cauce_protocol::{Code, ConnectionId, Refusal, UserId};

use super::bounds::*;
use super::call::{CallId, Effect, Effects, Invoke, NewCall, ServerId};
use super::state::Calls;
use crate::hub::Caller;
use crate::metrics::CallEnd;

const A: ServerId = ServerId::Connection(ConnectionId(101));
const B: ServerId = ServerId::Connection(ConnectionId(102));
const C: ServerId = ServerId::Program(1);

/// Calls, the time, and the next request id of the one caller.
#[derive(Default)]
struct Desk {
    calls: Calls,
    now_ms: u64,
    requests: u32,
}

const CALLER: ConnectionId = ConnectionId(7);

/// What was said, in short.
#[derive(Debug, PartialEq)]
enum Said {
    Invoke(ServerId, CallId),
    Revoke(ServerId, CallId),
    Answer(u32, CallEnd, Result<Bytes, Code>),
    Abandon(u32),
}

fn said(effects: Effects) -> Vec<Said> {
    let request = |caller| match caller {
        Caller::Connection { request, .. } => request,
        Caller::Waiter(_) => 0,
    };
    let short = |effect| match effect {
        Effect::Invoke(server, invoke) => Said::Invoke(server, invoke.call),
        Effect::Revoke(server, call) => Said::Revoke(server, call),
        Effect::Answer { caller, end, result } => {
            Said::Answer(request(caller), end, result.map_err(|refusal| refusal.code))
        }
        Effect::Abandon(caller) => Said::Abandon(request(caller)),
    };
    effects.into_iter().map(short).collect()
}

fn patterns(names: &[&str]) -> Vec<MethodPattern> {
    let new = |name: &&str| MethodPattern::new(name).expect("a pattern");
    names.iter().map(new).collect()
}

impl Desk {
    fn serve(&mut self, server: ServerId, names: &[&str], concurrency: u32) -> Vec<Said> {
        let served = self
            .calls
            .serve(self.now_ms, server, &patterns(names), concurrency);
        let said = said(served.expect("served"));
        self.calls.check();
        said
    }

    fn call_as(&mut self, method: &str, retry: bool) -> (u32, CallId, Vec<Said>) {
        self.requests += 1;
        let new = NewCall {
            caller: Caller::Connection {
                connection: CALLER,
                request: self.requests,
            },
            user: Some(UserId::new("ann").expect("a name")),
            method: method.into(),
            params: Bytes::from_static(b"{}"),
            timeout_ms: 1_000,
            retry,
        };
        let (call, effects) = self
            .calls
            .call(self.now_ms, u64::from(self.requests) * 1_000, new);
        self.calls.check();
        (self.requests, call, said(effects))
    }

    /// Opens a call and says whom it was given to.
    fn call(&mut self, method: &str) -> (CallId, Option<ServerId>) {
        let (_, call, said) = self.call_as(method, false);
        match said[..] {
            [] => (call, None),
            [Said::Invoke(server, invoked)] if invoked == call => (call, Some(server)),
            _ => panic!("{said:?}"),
        }
    }

    fn respond(&mut self, server: ServerId, call: CallId) -> Result<Vec<Said>, Refusal> {
        let result = Ok(Bytes::from_static(b"1"));
        let responded = self.calls.respond(self.now_ms, server, call, result).map(said);
        self.calls.check();
        responded
    }
}

fn answered(request: u32) -> Said {
    Said::Answer(request, CallEnd::Answered, Ok(Bytes::from_static(b"1")))
}

#[test]
fn the_exact_name_beats_the_longest_prefix_and_that_a_shorter_one() {
    let mut desk = Desk::default();
    desk.serve(A, &["*"], 0);
    assert_eq!(desk.call("math.add").1, Some(A));
    desk.serve(B, &["math.*"], 0);
    assert_eq!(desk.call("math.add").1, Some(B));
    desk.serve(C, &["math.add"], 0);
    assert_eq!(desk.call("math.add").1, Some(C));
    assert_eq!(desk.call("math.").1, Some(B));
    assert_eq!(desk.call("math").1, Some(A));
    desk.calls.server_left(0, C);
    assert_eq!(desk.call("math.add").1, Some(B));
}

#[test]
fn servers_share_by_what_they_can_work_on_and_in_turn_among_equals() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 2);
    desk.serve(B, &["m"], 2);
    desk.serve(C, &["m"], 4);
    let given: Vec<_> = (0..8).map(|_| desk.call("m").1.expect("room")).collect();
    // Each once while idle, then the one with half of what the others have relative to its size.
    assert_eq!(given[..4], [A, B, C, C]);
    let count = |server| given.iter().filter(|&&s| s == server).count();
    assert_eq!((count(A), count(B), count(C)), (2, 2, 4));
    assert_eq!(desk.call("m").1, None);
}

#[test]
fn calls_wait_for_room_in_the_order_in_which_they_came() {
    let mut desk = Desk::default();
    desk.serve(A, &["a", "b"], 1);
    let (first, _) = desk.call("a");
    let (second, none) = desk.call("b");
    assert_eq!(none, None);
    let (third, _) = desk.call("a");
    assert_eq!(
        desk.respond(A, first).expect("taken"),
        [answered(1), Said::Invoke(A, second)]
    );
    assert_eq!(
        desk.respond(A, second).expect("taken"),
        [answered(2), Said::Invoke(A, third)]
    );
}

#[test]
fn a_new_server_takes_what_waits() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 1);
    desk.call("m");
    let (second, _) = desk.call("m");
    let (third, _) = desk.call("m");
    assert_eq!(desk.serve(B, &["m"], 1), [Said::Invoke(B, second)]);
    assert_eq!(desk.serve(A, &["m"], 2), [Said::Invoke(A, third)]);
}

#[test]
fn a_method_that_nobody_serves_is_refused_at_once_by_name() {
    let mut desk = Desk::default();
    desk.serve(A, &["other"], 0);
    let new = NewCall {
        caller: Caller::Connection {
            connection: CALLER,
            request: 1,
        },
        user: None,
        method: "math.add".into(),
        params: Bytes::new(),
        timeout_ms: 1_000,
        retry: true,
    };
    let (_, effects) = desk.calls.call(0, 1, new);
    let [
        Effect::Answer {
            end: CallEnd::NotServed,
            result: Err(refusal),
            ..
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(refusal.code, Code::NotServed);
    assert_eq!(refusal.message, "nobody serves the method math.add");
    assert!(desk.calls.is_quiet());
}

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
fn a_server_is_told_how_much_time_is_left() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 1);
    let (first, _) = desk.call("m");
    desk.call("m");
    let effects = desk
        .calls
        .respond(400, A, first, Ok(Bytes::new()))
        .expect("taken");
    let invoked = effects.iter().find_map(|effect| match effect {
        Effect::Invoke(_, invoke) => Some(invoke),
        _ => None,
    });
    let Invoke {
        timeout_ms,
        attempt,
        user,
        ..
    } = invoked.expect("the next call");
    assert_eq!((*timeout_ms, *attempt), (600, 1));
    assert_eq!(user.as_ref().map(UserId::as_str), Some("ann"));
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
fn what_was_given_before_unserve_may_still_be_answered() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 1);
    let (given, _) = desk.call("m");
    desk.call("m");
    let effects = desk.calls.unserve(0, A, |_| false);
    assert_eq!(
        said(effects),
        [Said::Answer(2, CallEnd::NotServed, Err(Code::NotServed))]
    );
    desk.calls.check();
    assert_eq!(desk.respond(A, given).expect("still its own"), [answered(1)]);
    desk.calls.connection_left(0, CALLER);
    assert!(desk.calls.is_empty());
}

#[test]
fn calls_that_waited_for_a_name_go_where_their_method_leads_then() {
    let mut desk = Desk::default();
    desk.serve(A, &["math.add"], 1);
    desk.serve(B, &["math.*"], 1);
    desk.call("math.add");
    let (waits, _) = desk.call("math.add");
    let effects = desk
        .calls
        .unserve(0, A, |pattern| *pattern != patterns(&["math.add"])[0]);
    assert_eq!(said(effects), [Said::Invoke(B, waits)]);
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
fn every_bound_refuses_what_is_beyond_it() {
    let code = |result: Result<Effects, Refusal>| result.expect_err("beyond").code;
    let mut desk = Desk::default();
    let names = |n: usize| -> Vec<MethodPattern> {
        let exactly = |n| MethodPattern::Exactly(format!("m{n}").into());
        (0..n).map(exactly).collect()
    };
    let too_many = desk.calls.serve(0, A, &names(1), CONCURRENCY_MAX + 1);
    assert_eq!(code(too_many), Code::Invalid);
    let too_many = desk.calls.serve(0, A, &names(PATTERNS_A_SERVER_MAX + 1), 0);
    assert_eq!(code(too_many), Code::QuotaExceeded);
    assert!(desk.calls.is_empty(), "all or nothing");
    // The same name again is none too many.
    desk.calls
        .serve(0, A, &names(PATTERNS_A_SERVER_MAX), 0)
        .expect("the bound itself");
    desk.calls
        .serve(0, A, &names(PATTERNS_A_SERVER_MAX), 0)
        .expect("nothing new");
    for n in 1..SERVERS_MAX {
        let server = ServerId::Program(n as u64);
        desk.calls.serve(0, server, &names(1), 0).expect("room");
    }
    let too_many = desk.calls.serve(0, ServerId::Program(u64::MAX), &names(1), 0);
    assert_eq!(code(too_many), Code::QuotaExceeded);
    let mut desk = Desk::default();
    let all = names(PATTERNS_MAX + 1);
    for (n, some) in all[..PATTERNS_MAX].chunks(PATTERNS_A_SERVER_MAX).enumerate() {
        desk.calls
            .serve(0, ServerId::Program(n as u64), some, 0)
            .expect("room");
    }
    assert_eq!(
        code(desk.calls.serve(0, A, &all[PATTERNS_MAX..], 0)),
        Code::QuotaExceeded
    );
    desk.calls.serve(0, A, &all[..1], 0).expect("a known name");
}

#[test]
fn a_full_queue_refuses_the_newest() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 1);
    desk.serve(B, &["free"], 1);
    for _ in 0..=WAITING_MAX {
        desk.call("m");
    }
    let (request, _, refused) = desk.call_as("m", false);
    assert_eq!(
        refused,
        [Said::Answer(request, CallEnd::Refused, Err(Code::Overloaded))]
    );
    assert_eq!(
        desk.call("free").1,
        Some(B),
        "other methods do not suffer from it"
    );
}

#[test]
fn open_calls_their_bytes_and_their_time_are_bounded() {
    let mut calls = Calls::default();
    let new = |request, params: Bytes, timeout_ms| NewCall {
        caller: Caller::Connection {
            connection: CALLER,
            request,
        },
        user: None,
        method: "m".into(),
        params,
        timeout_ms,
        retry: false,
    };
    let refusal = |effects: Effects| match said(effects).pop() {
        Some(Said::Answer(_, CallEnd::Refused, Err(code))) => Some(code),
        _ => None,
    };
    for n in 0..(OPEN_MAX as u64).div_ceil(u64::from(CONCURRENCY_MAX)) {
        calls
            .serve(0, ServerId::Program(n), &patterns(&["m"]), CONCURRENCY_MAX)
            .expect("room");
    }
    let (_, too_long) = calls.call(0, 1, new(1, Bytes::new(), TIMEOUT_MS_MAX + 1));
    assert_eq!(refusal(too_long), Some(Code::Invalid));
    let half = Bytes::from(vec![b' '; PARAMS_BYTES_MAX / 2]);
    let (heavy, taken) = calls.call(0, 1, new(1, half.clone(), 1_000));
    assert_eq!(refusal(taken), None);
    assert_eq!(refusal(calls.call(0, 1, new(2, half.clone(), 1_000)).1), None);
    let one_byte = Bytes::from_static(b" ");
    assert_eq!(
        refusal(calls.call(0, 1, new(3, one_byte.clone(), 1_000)).1),
        Some(Code::Overloaded)
    );
    calls.abandon(0, heavy);
    assert_eq!(refusal(calls.call(0, 1, new(3, one_byte, 1_000)).1), None);
    for request in 4..OPEN_MAX as u32 + 2 {
        let taken = calls.call(0, request.into(), new(request, Bytes::new(), 1_000)).1;
        assert_eq!(refusal(taken), None, "{request}");
    }
    assert_eq!(
        refusal(calls.call(0, 1, new(0, Bytes::new(), 1_000)).1),
        Some(Code::Overloaded)
    );
    calls.check();
    // A time-out frees all of it.
    calls.tick(1_000);
    assert!(calls.is_quiet());
    calls.check();
}

#[test]
fn ids_are_numbers_that_javascript_holds_and_never_zero_or_twice() {
    let mut desk = Desk::default();
    desk.serve(A, &["m"], 0);
    let mut draw = |draw| {
        let new = NewCall {
            caller: Caller::Connection {
                connection: CALLER,
                request: 0,
            },
            user: None,
            method: "m".into(),
            params: Bytes::new(),
            timeout_ms: 1,
            retry: false,
        };
        desk.calls.call(0, draw, new).0.0
    };
    assert_eq!((draw(0), draw(0), draw(1)), (1, 2, 3));
    let max = cauce_protocol::limits::INTEGER_MAX;
    assert_eq!((draw(u64::MAX), draw(u64::MAX)), (max, 4));
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
