//! Who is asked, and who never is.

use std::collections::HashMap;
use std::sync::Arc;

use cauce_protocol::Code;
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::wire::respond;
use cauce_protocol::wire::{Refresh, Respond, client_frame::Request, server_frame::Message};
use tokio::sync::Semaphore;

use crate::party::{CALL_MS, Party, asks, call, cancel, json, refused, serve, soon};
use crate::support::{Broker, claims, sign_for};

const SHARED: u32 = 100;

/// Takes calls until both servers together have all of them, and then answers its own.
async fn answer_once_all_are_given(mut server: Party, by: &'static str, given: Arc<Semaphore>) {
    let mut calls = Vec::new();
    loop {
        tokio::select! {
            invoke = server.invoked() => {
                calls.push(invoke.call);
                given.add_permits(1);
            }
            all = given.acquire_many(SHARED) => {
                // They stay: the other server looks too.
                drop(all);
                break;
            }
        }
    }
    for call in calls {
        server.respond(call, by).await;
    }
    // Who goes away would take its answers with it.
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn two_servers_share_a_hundred_calls_and_each_is_answered_once() {
    let broker = Broker::with("limits.calls_outstanding=200");
    // All are given before one is answered: which server the machine favours does not matter.
    let given = Arc::new(Semaphore::new(0));
    for by in ["\"first\"", "\"second\""] {
        let mut server = Party::join(&broker, "a", "server").await;
        server.serve(&["math.*"], 200).await;
        tokio::spawn(answer_once_all_are_given(server, by, given.clone()));
    }
    let mut ann = Party::join(&broker, "a", "ann").await;
    let mut ids = Vec::new();
    for _ in 0..SHARED {
        ids.push(ann.say(asks("math.add")).await);
    }
    let mut shares: HashMap<Vec<u8>, u32> = HashMap::new();
    for id in ids {
        let outcome = soon(ann.outcome(id)).await;
        *shares.entry(json(&outcome).to_vec()).or_default() += 1;
    }
    assert!(ann.rest().await.is_empty(), "an answer came twice");
    assert_eq!(shares.len(), 2, "{shares:?}");
    assert!(shares.values().all(|&share| share >= 20), "{shares:?}");
}

#[tokio::test]
async fn a_server_is_told_who_asks_what_and_until_when() {
    let broker = Broker::start();
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["math.add"], 0).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let id = ann.say(asks("math.add")).await;
    let invoke = server.invoked().await;
    assert_eq!((&*invoke.method, &*invoke.user), ("math.add", "ann"));
    assert_eq!(invoke.params, "{\"n\":1}");
    assert!(
        (1..=CALL_MS).contains(&invoke.timeout_ms),
        "{}",
        invoke.timeout_ms
    );
    assert!((1..1 << 53).contains(&invoke.call));
    let done = server.respond(invoke.call, "{\"sum\":2}").await;
    assert!(matches!(done, Outcome::Done(_)));
    assert_eq!(json(&ann.outcome(id).await), b"{\"sum\":2}");
    // The method's own error comes in its own words.
    let id = ann.say(asks("math.add")).await;
    let call = server.invoked().await.call;
    let result = Some(respond::Result::Error("not with these".into()));
    server.say(Request::Respond(Respond { call, result })).await;
    let told = refused(ann.outcome(id).await, Code::MethodError);
    assert_eq!((&*told.message, told.retryable), ("not with these", false));
}

#[tokio::test]
async fn a_slow_server_does_not_slow_the_others_down() {
    let broker = Broker::start();
    let mut slow = Party::join(&broker, "a", "slow").await;
    slow.serve(&["m"], 1).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let first = ann.say(asks("m")).await;
    let held = slow.invoked().await.call;
    let mut quick = Party::join(&broker, "a", "quick").await;
    quick.serve(&["m"], 1).await;
    tokio::spawn(quick.answer_all("\"quick\""));
    for _ in 0..20 {
        assert_eq!(json(&soon(ann.ask(asks("m"))).await), b"\"quick\"");
    }
    slow.respond(held, "\"slow\"").await;
    assert_eq!(json(&ann.outcome(first).await), b"\"slow\"");
}

#[tokio::test]
async fn no_server_gets_more_at_once_than_it_wants_and_the_rest_waits_in_order() {
    let broker = Broker::start();
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["m"], 2).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let ids = [
        ann.say(asks("m")).await,
        ann.say(asks("m")).await,
        ann.say(asks("m")).await,
    ];
    let (first, second) = (server.invoked().await.call, server.invoked().await.call);
    ann.rest().await;
    let invoked = |m: &Message| matches!(m, Message::Invoke(_));
    assert!(!server.rest().await.iter().any(invoked), "three at once");
    server.respond(second, "2").await;
    let third = server.invoked().await.call;
    server.respond(third, "3").await;
    server.respond(first, "1").await;
    for (id, expected) in ids.into_iter().zip([b"1", b"2", b"3"]) {
        assert_eq!(json(&ann.outcome(id).await), expected);
    }
}

#[tokio::test]
async fn a_method_that_nobody_serves_is_refused_at_once() {
    let broker = Broker::start();
    let mut ann = Party::join(&broker, "a", "ann").await;
    let told = refused(ann.ask(asks("math.add")).await, Code::NotServed);
    assert_eq!(told.message, "nobody serves the method math.add");
    assert!(told.retryable && told.retry_after_ms > 0);
    // Nor is it served any more.
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["math.*"], 0).await;
    server.unserve(&["math.*"]).await;
    refused(ann.ask(asks("math.add")).await, Code::NotServed);
}

#[tokio::test]
async fn what_was_given_before_unserve_is_still_answered() {
    let broker = Broker::start();
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["m"], 0).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let id = ann.say(asks("m")).await;
    let call = server.invoked().await.call;
    server.unserve(&["m"]).await;
    refused(ann.ask(asks("m")).await, Code::NotServed);
    server.respond(call, "1").await;
    assert_eq!(json(&ann.outcome(id).await), b"1");
}

#[tokio::test]
async fn tenants_with_the_same_method_never_meet() {
    let broker = Broker::start();
    let mut a_server = Party::join(&broker, "a", "server").await;
    let mut b_server = Party::join(&broker, "b", "server").await;
    a_server.serve(&["m", "*"], 0).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let mut bob = Party::join(&broker, "b", "ann").await;
    // What only another tenant serves is served by nobody.
    refused(bob.ask(asks("m")).await, Code::NotServed);
    b_server.serve(&["m", "*"], 0).await;
    let (of_a, of_b) = (ann.say(asks("m")).await, bob.say(asks("m")).await);
    let (a_call, b_call) = (a_server.invoked().await.call, b_server.invoked().await.call);
    // Nobody answers for the other, nor takes back the other's call, though the request ids are the same.
    let late = refused(b_server.respond(a_call, "\"b\"").await, Code::NotFound);
    let never = refused(b_server.respond(12_345, "\"b\"").await, Code::NotFound);
    assert_eq!(late.message, never.message);
    let mut namesake = Party::join(&broker, "b", "ann").await;
    refused(namesake.ask(cancel(of_b)).await, Code::NotFound);
    a_server.respond(a_call, "\"a\"").await;
    b_server.respond(b_call, "\"b\"").await;
    assert_eq!(json(&ann.outcome(of_a).await), b"\"a\"");
    assert_eq!(json(&bob.outcome(of_b).await), b"\"b\"");
}

#[tokio::test]
async fn another_server_of_the_same_tenant_cannot_answer_either() {
    let broker = Broker::start();
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["m"], 0).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let id = ann.say(asks("m")).await;
    let call = server.invoked().await.call;
    let mut eve = Party::join(&broker, "a", "server").await;
    eve.serve(&["m"], 0).await;
    refused(eve.respond(call, "\"eve\"").await, Code::NotFound);
    server.respond(call, "\"server\"").await;
    assert_eq!(json(&ann.outcome(id).await), b"\"server\"");
}

#[tokio::test]
async fn calling_and_serving_need_the_rights_to_the_method() {
    let broker = Broker::start();
    let token = |rooms: &[&str]| sign_for("a", claims("ann", rooms));
    let mut plain = Party::with_token(&broker, &token(&["*"])).await;
    refused(plain.ask(asks("math.add")).await, Code::Forbidden);
    refused(plain.ask(serve(&["math.add"], 0)).await, Code::Forbidden);
    let mut maths = Party::with_token(&broker, &token(&["$method:math.*"])).await;
    refused(maths.ask(serve(&["*"], 0)).await, Code::Forbidden);
    refused(maths.ask(serve(&["math.add", "other"], 0)).await, Code::Forbidden);
    refused(maths.ask(asks("other")).await, Code::Forbidden);
    // All or nothing: the refused list has left nothing behind.
    refused(maths.ask(asks("math.add")).await, Code::NotServed);
    maths.serve(&["math.*"], 0).await;
    let id = maths.say(asks("math.add")).await;
    let call = maths.invoked().await.call;
    maths.respond(call, "1").await;
    assert_eq!(json(&maths.outcome(id).await), b"1");
}

#[tokio::test]
async fn a_call_without_an_id_runs_and_is_not_answered() {
    let broker = Broker::start();
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["m"], 0).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    ann.peer.ask(0, asks("m")).await;
    let invoke = server.invoked().await;
    server.respond(invoke.call, "1").await;
    assert!(ann.rest().await.is_empty());
    // A failure is told all the same, under no id.
    ann.peer.ask(0, Request::Call(call("nobody"))).await;
    refused(soon(ann.outcome(0)).await, Code::NotServed);
}

#[tokio::test]
async fn a_narrower_token_ends_what_it_no_longer_lets_a_connection_serve() {
    let broker = Broker::start();
    let token = |rooms: &[&str]| sign_for("a", claims("server", rooms));
    let mut server = Party::with_token(&broker, &token(&["$method:*"])).await;
    server.serve(&["kept", "lost"], 0).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let id = ann.say(asks("lost")).await;
    let call = server.invoked().await.call;
    let token = token(&["$method:kept"]);
    let refreshed = server.ask(Request::Refresh(Refresh { token })).await;
    assert!(matches!(refreshed, Outcome::Refreshed(_)), "{refreshed:?}");
    refused(ann.ask(asks("lost")).await, Code::NotServed);
    // What it was given before, it may still answer.
    server.respond(call, "1").await;
    assert_eq!(json(&ann.outcome(id).await), b"1");
    let id = ann.say(asks("kept")).await;
    let call = server.invoked().await.call;
    server.respond(call, "2").await;
    assert_eq!(json(&ann.outcome(id).await), b"2");
}
