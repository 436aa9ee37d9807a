//! Limits on publishing: who meets one is told which and when to come again, nobody else notices, and only who does not listen
//! is sent away.

mod support;

use cauce_broker::connection::REFUSALS_A_MINUTE_MAX;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use support::pace::{NOTHING_EARNED, within};
use support::raw::Raw;
use support::{Broker, Peer, token};

/// Slow enough that nothing is earned within [`NOTHING_EARNED`], and nothing is waited for.
const SLOWLY: &str = "limits.publishes_per_second_per_user=1\nlimits.publishes_burst_per_user=1000000\n\
    limits.publishes_per_second_per_tenant=1\nlimits.publishes_burst_per_tenant=1000000\n";

async fn publish(peer: &mut Peer, text: &str) -> Result<(), Value> {
    let (reply, _) = peer
        .ask(json!({"id": 5, "publish": {"room": "r", "event": "e", "text": text}}))
        .await;
    match reply["published"].is_object() {
        true => Ok(()),
        false => Err(reply["error"].clone()),
    }
}

fn assert_limited(refused: Result<(), Value>, words: &str) {
    let error = refused.expect_err("one too many");
    assert_eq!(error["name"], "rate_limited", "{error}");
    assert!(
        error["message"].as_str().expect("a text").contains(words),
        "{error}"
    );
    assert!(
        error["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0),
        "{error}"
    );
}

async fn assert_lives(peer: &mut Peer) {
    let (reply, _) = peer.ask(json!({"id": 6, "ping": {}})).await;
    assert!(reply["pong"].is_object(), "{reply}");
}

#[tokio::test]
async fn connections_of_a_user_share_its_limit_and_every_way_to_be_heard_counts() {
    within(NOTHING_EARNED, share_a_limit).await;
}

async fn share_a_limit() {
    let broker = Broker::with(&format!("{SLOWLY}limits.publishes_burst_per_user=4"));
    let (mut first, mut second) = (
        broker.join(&token("a", "ann")).await,
        broker.join(&token("a", "ann")).await,
    );
    let mut bob = broker.join(&token("a", "bob")).await;
    publish(&mut first, "1").await.expect("the first");
    publish(&mut second, "2").await.expect("the second");
    let (sent, _) = first
        .ask(json!({"id": 2, "send": {"user": "ann", "event": "e"}}))
        .await;
    assert!(sent["sent"].is_object(), "{sent}");
    publish(&mut second, "4").await.expect("the fourth");
    assert_limited(publish(&mut first, "5").await, "this user");
    let (refused, _) = second
        .ask(json!({"id": 2, "send": {"user": "ann", "event": "e"}}))
        .await;
    assert_eq!(refused["error"]["name"], "rate_limited", "{refused}");
    publish(&mut bob, "1").await.expect("another user");
    assert_lives(&mut first).await;
    assert_lives(&mut second).await;
}

#[tokio::test]
async fn a_tenant_at_its_limit_does_not_touch_another_and_the_api_is_one_of_its_doors() {
    within(NOTHING_EARNED, meet_the_limit_of_a_tenant).await;
}

async fn meet_the_limit_of_a_tenant() {
    let broker = Broker::with(&format!("{SLOWLY}limits.publishes_burst_per_tenant=5"));
    let key = broker.server.admin().operator_key().expect("a first key");
    let key = key.expose_secret().to_owned();
    let address = broker.address;
    let api = async |tenant: &str| {
        let body = r#"{"room":"r","event":"e"}"#;
        let mut raw = Raw::connect(address).await;
        let request = format!(
            "POST /v1/publish?tenant={tenant} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        raw.write(request.as_bytes()).await;
        raw.head().await
    };
    let (mut ann, mut bob) = (
        broker.join(&token("a", "ann")).await,
        broker.join(&token("a", "bob")).await,
    );
    let mut bea = broker.join(&token("b", "ann")).await;
    for _ in 0..2 {
        publish(&mut ann, "x").await.expect("within the limit");
        publish(&mut bob, "x").await.expect("within the limit");
    }
    assert!(api("a").await.starts_with("HTTP/1.1 200"));
    assert_limited(publish(&mut ann, "x").await, "this tenant");
    assert_limited(publish(&mut bob, "x").await, "this tenant");
    let head = api("a").await;
    assert!(
        head.starts_with("HTTP/1.1 429") && head.to_lowercase().contains("retry-after: 1"),
        "{head}"
    );
    for _ in 0..4 {
        publish(&mut bea, "x").await.expect("another tenant");
    }
    assert!(api("b").await.starts_with("HTTP/1.1 200"));
    assert_lives(&mut ann).await;
}

#[tokio::test]
async fn bytes_are_limited_by_connection_and_by_tenant() {
    let text = "x".repeat(40_000);
    // One burst is two seconds' worth or one largest payload, whichever is more: 60 KiB.
    let broker = Broker::with("limits.publish_bytes_per_second_per_connection=1KiB");
    let mut ann = broker.join(&token("a", "ann")).await;
    publish(&mut ann, &text).await.expect("the first");
    assert_limited(publish(&mut ann, &text).await, "bytes than this connection");
    let mut again = broker.join(&token("a", "ann")).await;
    publish(&mut again, &text).await.expect("another connection");

    let broker = Broker::with("limits.publish_bytes_per_second_per_tenant=1KiB");
    let (mut ann, mut bob) = (
        broker.join(&token("a", "ann")).await,
        broker.join(&token("a", "bob")).await,
    );
    publish(&mut ann, &text).await.expect("the first");
    assert_limited(publish(&mut bob, &text).await, "bytes than this tenant");
    publish(&mut broker.join(&token("b", "ann")).await, &text)
        .await
        .expect("another tenant");
}

#[tokio::test]
async fn who_waits_as_told_is_admitted() {
    let broker = Broker::with(&format!(
        "{SLOWLY}limits.publishes_per_second_per_user=20\nlimits.publishes_burst_per_user=1"
    ));
    let mut ann = broker.join(&token("a", "ann")).await;
    publish(&mut ann, "1").await.expect("the first");
    // Where publishing takes longer than a place takes to come back, none is refused until one is quicker.
    let refused = loop {
        if let Err(refused) = publish(&mut ann, "2").await {
            break refused;
        }
    };
    let wait = refused["retry_after_ms"].as_u64().expect("a time");
    assert!((1..=50).contains(&wait), "{wait}");
    tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
    publish(&mut ann, "3").await.expect("as it was told");
}

#[tokio::test]
async fn a_client_that_never_listens_is_closed_and_one_that_overshoots_is_not() {
    let broker = Broker::with("limits.requests_per_second=1\nlimits.requests_burst=1");
    let mut raw = Raw::connect(broker.address).await;
    raw.upgrade(&format!("/v1/ws?token={}", token("a", "ann")), "")
        .await;
    raw.hear_json().await;
    let ping = support::raw::masked(true, 1, br#"{"id":1,"ping":{}}"#);
    let mut told = 0;
    let flood = async |raw: &mut Raw, count: u32| {
        raw.write(&ping.repeat(count as usize)).await;
    };
    flood(&mut raw, 1_000).await;
    for n in 0..1_000 {
        let frame = raw.hear_json().await;
        assert!(frame["goaway"].is_null(), "{n}: {frame}");
        told += u32::from(frame["reply"]["error"]["name"] == "rate_limited");
    }
    assert!(told > 900, "{told}");
    // Written and read in parts, so that neither side's buffers decide what happens.
    for _ in 0..=REFUSALS_A_MINUTE_MAX / 1_000 {
        flood(&mut raw, 1_000).await;
        for _ in 0..1_000 {
            match raw.hear().await {
                support::raw::Heard::Text(text) if text.contains("goaway") => {
                    assert!(text.contains("\"rate_limited\""), "{text}");
                    assert_eq!(raw.farewell().await.1, 4101);
                    return;
                }
                support::raw::Heard::Text(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("it is never closed");
}
