//! Who gets a call: the best name, the server with room, the order in which they came.

use bytes::Bytes;
use cauce_protocol::{Code, UserId};

use super::{A, B, C, CALLER, Desk, Said, answered, patterns, said};
use crate::hub::Caller;
use crate::hub::calls::call::{Effect, Invoke, NewCall};
use crate::metrics::CallEnd;

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
