//! What is beyond a bound is refused, and costs nobody else anything.

use bytes::Bytes;
use cauce_protocol::message::MethodPattern;
use cauce_protocol::{Code, Refusal};

use super::{A, B, CALLER, Desk, Said, patterns, said};
use crate::hub::Caller;
use crate::hub::calls::bounds::{
    CONCURRENCY_MAX, OPEN_MAX, PARAMS_BYTES_MAX, PATTERNS_A_SERVER_MAX, PATTERNS_MAX, SERVERS_MAX,
    TIMEOUT_MS_MAX, WAITING_MAX,
};
use crate::hub::calls::call::{Effects, NewCall, ServerId};
use crate::hub::calls::state::Calls;
use crate::metrics::CallEnd;

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
