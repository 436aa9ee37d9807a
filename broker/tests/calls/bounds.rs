//! What is refused because it would be too much.

use cauce_protocol::Code;
use cauce_protocol::wire::Call;
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::reply::Outcome;

use crate::party::{Party, asks, call, json, method, refusal, refused, serve};
use crate::support::Broker;

#[tokio::test]
async fn a_connection_waits_for_so_many_answers_and_no_more() {
    let broker = Broker::with("limits.calls_outstanding=2");
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["m"], 0).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let first = ann.say(asks("m")).await;
    ann.say(asks("m")).await;
    let told = refused(ann.ask(asks("m")).await, Code::RateLimited);
    assert!(told.retry_after_ms > 0);
    let call = server.invoked().await.call;
    server.respond(call, "1").await;
    assert_eq!(json(&ann.outcome(first).await), b"1");
    let third = ann.say(asks("m")).await;
    server.invoked().await;
    let call = server.invoked().await.call;
    server.respond(call, "3").await;
    assert_eq!(json(&ann.outcome(third).await), b"3");
}

#[tokio::test]
async fn times_and_concurrencies_beyond_reason_are_refused() {
    let broker = Broker::start();
    let mut ann = Party::join(&broker, "a", "ann").await;
    refused(ann.ask(serve(&["m"], 1_025)).await, Code::Invalid);
    refused(ann.ask(asks("m")).await, Code::NotServed);
    ann.serve(&["m"], 1_024).await;
    let day = Request::Call(Call {
        timeout_ms: 86_400_000,
        ..call("m")
    });
    refused(ann.ask(day).await, Code::Invalid);
}

#[tokio::test]
async fn a_connection_serves_so_many_methods_and_no_more() {
    let broker = Broker::start();
    let mut ann = Party::join(&broker, "a", "ann").await;
    let names: Vec<String> = (0..257).map(|n| format!("m{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for some in names[..256].chunks(64) {
        ann.serve(some, 0).await;
    }
    let told = refused(ann.ask(serve(&names[256..], 0)).await, Code::QuotaExceeded);
    assert!(told.retry_after_ms > 0);
    // What is served already is no more than it was.
    let again = ann.ask(serve(&names[..64], 0)).await;
    assert!(matches!(again, Outcome::Done(_)), "{again:?}");
}

#[tokio::test]
async fn parameters_and_answers_nest_no_deeper_than_the_operator_allows() {
    let broker = Broker::with("limits.payload_depth=2");
    let a = broker.server.handle().tenant("a").expect("tenant a");
    let mut server = Party::join(&broker, "a", "server").await;
    server.serve(&["m"], 0).await;
    let mut ann = Party::join(&broker, "a", "ann").await;
    let with = |params: &'static str| {
        Request::Call(Call {
            params: params.into(),
            ..call("m")
        })
    };
    refused(ann.ask(with("{\"a\":{\"b\":{}}}")).await, Code::TooLarge);
    let mut deep = method("m");
    deep.params = "{\"a\":{\"b\":{}}}".into();
    refusal(a.call(deep).await, Code::TooLarge);
    let id = ann.say(with("{\"a\":{}}")).await;
    let call = server.invoked().await.call;
    refused(server.respond(call, "[[[]]]").await, Code::TooLarge);
    // The call is still open: the server may say it in fewer words.
    server.respond(call, "[[]]").await;
    assert_eq!(json(&ann.outcome(id).await), b"[[]]");
}
