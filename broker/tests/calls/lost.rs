//! Calls that end before their answer: servers and callers that vanish, times that are over, callers that change their mind.

use cauce_protocol::Code;
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::wire::{Call, server_frame::Message};
use serde_json::json as value;

use crate::party::{Party, asks, call, cancel, json, method, refused, serve, soon};
use crate::support::raw::{ProtoPeer, Raw};
use crate::support::{Broker, full_token};

#[tokio::test]
async fn a_server_killed_in_the_middle_ends_the_call_unless_it_may_be_repeated() {
    let broker = Broker::start();
    let mut doomed = Party::join(&broker, "a", "doomed").await;
    doomed.serve(&["m"], 0).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let once = ann.say(asks("m")).await;
    let again = ann
        .say(Request::Call(Call {
            retry: true,
            ..call("m")
        }))
        .await;
    let calls = [doomed.invoked().await.call, doomed.invoked().await.call];
    let mut other = Party::join(&broker, "a", "other").await;
    other.serve(&["m"], 0).await;
    drop(doomed);
    let told = refused(soon(ann.outcome(once)).await, Code::NotServed);
    assert!(told.message.contains("may have run"), "{}", told.message);
    let invoke = soon(other.invoked()).await;
    assert_eq!((invoke.call, &*invoke.params), (calls[1], &b"{\"n\":1}"[..]));
    other.respond(invoke.call, "\"other\"").await;
    assert_eq!(json(&ann.outcome(again).await), b"\"other\"");
    // The one that must not be repeated was not.
    assert!(!other.rest().await.iter().any(|m| matches!(m, Message::Invoke(_))));
}

#[tokio::test]
async fn a_server_that_reads_nothing_is_closed_and_its_calls_go_to_another() {
    const CALLS: usize = 900;
    let broker = Broker::with("limits.outbox_bytes=128KiB");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let token = full_token("a", "stalled", "staff");
    let narrow = Raw::connect_narrow(broker.address).await;
    let mut stalled = Party::over(ProtoPeer::over(narrow, &token).await);
    stalled.serve(&["m"], 1_024).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        let mut call = method("m");
        call.retry = true;
        call.params = format!("{{\"n\":\"{}\"}}", "x".repeat(20_000)).into();
        let a = a.clone();
        asked.spawn(async move { a.call(call).await });
    }
    let mut quick = a.serve("m", 8).expect("served");
    let server = tokio::spawn(async move {
        while let Some(invocation) = quick.next().await {
            invocation
                .respond(Ok("\"quick\"".into()))
                .expect("somebody waits");
        }
    });
    while let Some(answer) = soon(asked.join_next()).await {
        assert_eq!(answer.expect("no panic").expect("answered"), "\"quick\"");
    }
    let closes: u64 = broker
        .server
        .handle()
        .metrics()
        .shards
        .iter()
        .flat_map(|shard| shard.closes.iter().collect::<Vec<_>>())
        .filter(|(code, _)| *code == Code::Slow)
        .map(|(_, n)| n)
        .sum();
    assert_eq!(closes, 1);
    server.abort();
}

#[tokio::test]
async fn when_the_time_is_over_the_caller_is_told_and_the_server_hears_of_it() {
    let broker = Broker::start();
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["m"], 1).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let short = |timeout_ms| {
        Request::Call(Call {
            timeout_ms,
            ..call("m")
        })
    };
    let given = ann.say(short(500)).await;
    let invoke = server.invoked().await;
    assert!((1..=500).contains(&invoke.timeout_ms));
    let told = refused(soon(ann.outcome(given)).await, Code::Timeout);
    assert!(told.message.contains("may have run"), "{}", told.message);
    assert_eq!(server.revoked().await, invoke.call);
    refused(server.respond(invoke.call, "1").await, Code::NotFound);
    // One that only waited for room was never given to anybody.
    let holds = ann.say(asks("m")).await;
    let held = server.invoked().await.call;
    let waited = ann.say(short(50)).await;
    let told = refused(soon(ann.outcome(waited)).await, Code::Timeout);
    assert!(!told.message.contains("may have run"), "{}", told.message);
    server.respond(held, "1").await;
    ann.outcome(holds).await;
    assert!(
        !server
            .rest()
            .await
            .iter()
            .any(|m| matches!(m, Message::Invoke(_)))
    );
}

#[tokio::test]
async fn a_call_that_is_taken_back_is_answered_under_its_own_id() {
    let broker = Broker::with("limits.calls_outstanding=1");
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["m"], 0).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let id = ann.say(asks("m")).await;
    let call = server.invoked().await.call;
    assert!(matches!(ann.ask(cancel(id)).await, Outcome::Done(_)));
    refused(ann.outcome(id).await, Code::Cancelled);
    assert_eq!(server.revoked().await, call);
    refused(server.respond(call, "1").await, Code::NotFound);
    // It is over, and there never was another; 0 names no call.
    for request in [id, 999, 0] {
        refused(ann.ask(cancel(request)).await, Code::NotFound);
    }
    // Its place among the connection's calls is free.
    let id = ann.say(asks("m")).await;
    let call = server.invoked().await.call;
    server.respond(call, "2").await;
    assert_eq!(json(&ann.outcome(id).await), b"2");
}

#[tokio::test]
async fn a_call_to_a_device_can_be_taken_back_too() {
    let broker = Broker::with("limits.calls_outstanding=1");
    let device = broker.device_token("a", None);
    let mut plug = Raw::connect(broker.address).await;
    plug.upgrade(&format!("/shelly?token={}", device.expose()), "")
        .await;
    plug.say(value!({"src": "shellyplug-aabbcc", "dst": "ws", "method": "NotifyFullStatus", "params": {"ts": 1.0, "switch:0": {"id": 0, "output": true}}})).await;
    plug.hear_json().await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let switch = || {
        Request::Call(Call {
            device: "AABBCC".into(),
            method: "Switch.Toggle".into(),
            timeout_ms: 15_000,
            ..Call::default()
        })
    };
    let id = ann.say(switch()).await;
    while plug.hear_json().await["method"] != "Switch.Toggle" {}
    assert!(matches!(ann.ask(cancel(id)).await, Outcome::Done(_)));
    refused(soon(ann.outcome(id)).await, Code::Cancelled);
    refused(ann.ask(cancel(id)).await, Code::NotFound);
    // Its place is free, and what the plug says now belongs to the next call.
    let id = ann.say(switch()).await;
    let asked = loop {
        let asked = plug.hear_json().await;
        if asked["method"] == "Switch.Toggle" {
            break asked;
        }
    };
    plug.say(value!({"id": asked["id"], "src": "shellyplug-aabbcc", "dst": asked["src"], "result": {"was_on": true}}))
        .await;
    assert_eq!(json(&soon(ann.outcome(id)).await), b"{\"was_on\":true}");
    // What was answered cannot be taken back.
    refused(ann.ask(cancel(id)).await, Code::NotFound);
}

#[tokio::test]
async fn the_calls_of_a_caller_that_vanishes_are_revoked() {
    let broker = Broker::start();
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["m"], 1).await;
    let mut gone = Party::join(&broker, "a", "gone").await;
    gone.say(asks("m")).await;
    gone.say(asks("m")).await;
    let call = server.invoked().await.call;
    let mut ann = Party::join(&broker, "a", "ann").await;
    gone.rest().await;
    let id = ann.say(asks("m")).await;
    drop(gone);
    assert_eq!(soon(server.revoked()).await, call);
    // The next is ann's: what waited for the one who is gone has gone too.
    let next = soon(server.invoked()).await;
    assert_eq!(next.user, "ann");
    server.respond(next.call, "1").await;
    assert_eq!(json(&ann.outcome(id).await), b"1");
}

#[tokio::test]
async fn answers_that_were_asked_for_cost_nothing_and_others_do() {
    let broker = Broker::with("limits.requests_per_second=1\nlimits.requests_burst=5");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["m"], 0).await;
    let answering = tokio::spawn(async move {
        for _ in 0..50 {
            let call = server.invoked().await.call;
            assert!(matches!(server.respond(call, "1").await, Outcome::Done(_)));
        }
        server
    });
    for _ in 0..50 {
        assert_eq!(soon(a.call(method("m"))).await.expect("answered"), "1");
    }
    let mut server = answering.await.expect("every answer was taken");
    let mut limited = false;
    for _ in 0..10 {
        let told = crate::party::error(server.respond(7, "1").await);
        limited |= told.code == u32::from(Code::RateLimited.number());
    }
    assert!(limited);
    // What a slow machine earns between two requests is spent by the next one.
    let refused = async {
        loop {
            match server.ask(serve(&["n"], 0)).await {
                Outcome::Error(error) => break error,
                Outcome::Done(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(soon(refused).await.code, u32::from(Code::RateLimited.number()));
}
