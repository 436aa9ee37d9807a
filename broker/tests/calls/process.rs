//! Calling and serving from inside the process and through the API.

use std::time::Duration;

use cauce_protocol::{Code, UserId};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json as value};

use crate::party::{CALL_MS, Party, asks, json, method, refusal, refused, soon};
use crate::support::{Broker, PATIENCE};

#[tokio::test]
async fn the_program_serves_clients_and_clients_serve_the_program() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut server = a.serve("math.*", 0).expect("served");
    let mut ann = Party::join(&broker, "a", "ann").await;
    let id = ann.say(asks("math.add")).await;
    let invocation = soon(server.next()).await.expect("a call");
    assert_eq!(
        (&*invocation.method, &invocation.params[..]),
        ("math.add", &b"{\"n\":1}"[..])
    );
    assert_eq!(invocation.user.as_ref().map(UserId::as_str), Some("ann"));
    assert!(invocation.timeout <= Duration::from_millis(CALL_MS.into()));
    invocation.respond(Ok("2".into())).expect("ann waits");
    assert_eq!(json(&ann.outcome(id).await), b"2");
    let id = ann.say(asks("math.add")).await;
    let invocation = soon(server.next()).await.expect("a call");
    invocation.respond(Err("no".into())).expect("ann waits");
    assert_eq!(refused(ann.outcome(id).await, Code::MethodError).message, "no");
    // And the other way round.
    ann.serve(&["show"], 0).await;
    let asked = tokio::spawn({
        let a = a.clone();
        async move { a.call(method("show")).await }
    });
    let invoke = ann.invoked().await;
    assert_eq!(invoke.user, "");
    ann.respond(invoke.call, "\"shown\"").await;
    assert_eq!(
        soon(asked).await.expect("no panic").expect("answered"),
        "\"shown\""
    );
}

#[tokio::test]
async fn giving_up_waiting_tells_the_server() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut client = Party::join(&broker, "a", "server").await;
    client.serve(&["of.client"], 0).await;
    let mut server = a.serve("of.program", 1).expect("served");
    let ask = |name: &'static str| {
        let a = a.clone();
        tokio::spawn(async move { a.call(method(name)).await })
    };
    let waits = ask("of.client");
    let call = client.invoked().await.call;
    waits.abort();
    assert_eq!(soon(client.revoked()).await, call);
    let (waits, taken) = (ask("of.program"), soon(server.next()).await.expect("a call"));
    waits.abort();
    soon(taken.revoked()).await;
    refusal(taken.respond(Ok("1".into())), Code::NotFound);
    // A call that nobody waits for any more is not even given out.
    let (first, held) = (ask("of.program"), soon(server.next()).await.expect("a call"));
    let second = ask("of.program");
    held.respond(Ok("1".into())).expect("the first waits");
    assert_eq!(soon(first).await.expect("no panic").expect("answered"), "1");
    second.abort();
    assert!(second.await.is_err_and(|e| e.is_cancelled()));
    let third = ask("of.program");
    let invocation = soon(server.next()).await.expect("a call");
    invocation.respond(Ok("3".into())).expect("the third waits");
    assert_eq!(soon(third).await.expect("no panic").expect("answered"), "3");
}

#[tokio::test]
async fn a_call_that_the_program_drops_is_lost_and_so_are_all_when_it_serves_no_more() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut server = a.serve("m", 1).expect("served");
    let mut ann = Party::join(&broker, "a", "ann").await;
    let dropped = ann.say(asks("m")).await;
    drop(soon(server.next()).await.expect("a call"));
    refused(soon(ann.outcome(dropped)).await, Code::NotServed);
    // What is no JSON is the server's fault, and the caller is told so.
    let id = ann.say(asks("m")).await;
    let invocation = soon(server.next()).await.expect("a call");
    refusal(invocation.respond(Ok("{".into())), Code::Malformed);
    refused(soon(ann.outcome(id)).await, Code::MethodError);
    let (taken, waits) = (ann.say(asks("m")).await, ann.say(asks("m")).await);
    let invocation = soon(server.next()).await.expect("a call");
    drop(server);
    for id in [taken, waits] {
        refused(soon(ann.outcome(id)).await, Code::NotServed);
    }
    soon(invocation.revoked()).await;
    refusal(invocation.respond(Ok("1".into())), Code::NotFound);
    refused(ann.ask(asks("m")).await, Code::NotServed);
}

#[tokio::test]
async fn what_breaks_a_limit_is_refused_to_the_program_too() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    refusal(a.call(method("")).await, Code::Invalid);
    refusal(a.call(method("two words")).await, Code::Invalid);
    let mut call = method("m");
    call.params = "[]".into();
    refusal(a.call(call).await, Code::Invalid);
    let mut call = method("m");
    call.timeout_ms = 10 * 60_000;
    refusal(a.call(call).await, Code::Invalid);
    refusal(a.serve("a*b", 0), Code::Invalid);
    refusal(a.serve("m", 1_025), Code::Invalid);
    refusal(a.call(method("m")).await, Code::NotServed);
}

#[tokio::test]
async fn a_stop_answers_who_waits_and_ends_who_serves() {
    let broker = Broker::start();
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut server = a.serve("m", 0).expect("served");
    let waits = tokio::spawn({
        let a = a.clone();
        async move { a.call(method("m")).await }
    });
    let mut ann = Party::join(&broker, "a", "ann").await;
    let id = ann.say(asks("m")).await;
    let held = [
        soon(server.next()).await.expect("a call"),
        soon(server.next()).await.expect("a call"),
    ];
    let ending = tokio::task::spawn_blocking(move || broker.server.stop(Duration::from_secs(3)));
    refusal(soon(waits).await.expect("no panic"), Code::GoingAway);
    refused(soon(ann.outcome(id)).await, Code::GoingAway);
    for invocation in held {
        soon(invocation.revoked()).await;
    }
    assert!(soon(server.next()).await.is_none());
    drop(ann);
    ending.await.expect("the broker stops");
    refusal(a.call(method("m")).await, Code::GoingAway);
    refusal(a.serve("m", 0), Code::GoingAway);
}

#[tokio::test]
async fn the_api_calls_methods_and_the_metrics_count_them() {
    // Whoever was first has installed one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let broker = Broker::start();
    let key = broker.server.admin().operator_key().expect("the operator's key");
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .expect("a client");
    let post = async |body: Value| {
        let request = client
            .post(format!("http://{}/v1/calls?tenant=a", broker.address))
            .bearer_auth(key.expose_secret())
            .json(&body);
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.expect("JSON"))
    };
    let (status, body) = post(value!({"method": "m"})).await;
    assert_eq!((status, &body["error"]["name"]), (409, &value!("not_served")));
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut server = a.serve("m", 0).expect("served");
    tokio::spawn(async move {
        while let Some(invocation) = server.next().await {
            let answer = match &invocation.params[..] {
                b"" => Ok("{\"none\":true}".into()),
                br#"{"n":2}"# => Err("two is too many".into()),
                // Held until its time is over.
                _ => {
                    invocation.revoked().await;
                    continue;
                }
            };
            invocation.respond(answer).expect("the API waits");
        }
    });
    let answered = post(value!({"method": "m"})).await;
    assert_eq!(answered, (200, value!({"result": {"none": true}})));
    let (status, body) = post(value!({"method": "m", "params": {"n": 2}})).await;
    assert_eq!(
        (status, &body["error"]["message"]),
        (422, &value!("two is too many"))
    );
    let (status, body) = post(value!({"method": "m", "params": {"n": 3}, "timeout_ms": 50})).await;
    assert_eq!((status, &body["error"]["name"]), (504, &value!("timeout")));
    for bad in [
        value!({"method": "m", "timeout_ms": 0}),
        value!({"method": "m", "timeout_ms": 25_001}),
        value!({"method": "not a name"}),
        value!({"method": "m", "params": []}),
        value!({"method": "m", "device": "x"}),
    ] {
        assert_eq!(post(bad).await.0, 400);
    }
    let metrics = client.get(format!("http://{}/metrics", broker.address));
    let metrics = metrics
        .send()
        .await
        .expect("an answer")
        .text()
        .await
        .expect("text");
    for line in [
        "cauce_calls_outstanding 0",
        "cauce_calls_total{end=\"answered\"} 1",
        "cauce_calls_total{end=\"failed\"} 1",
        "cauce_calls_total{end=\"not_served\"} 1",
        "cauce_calls_total{end=\"timed_out\"} 1",
        "cauce_calls_total{end=\"lost\"} 0",
        "cauce_calls_retried_total 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
}
