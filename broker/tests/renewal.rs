//! Tokens renewed in band: the connection lives on, with the rights of the new token.
mod support;

use cauce_broker::auth::sign::Claims;
use cauce_protocol::Role;
use serde_json::{Value, json};
use support::pace::{NOTHING_EARNED, within};
use support::{Broker, Peer, claims, sign_for, token, unix_seconds};

const GAP: u64 = 2;

fn for_seconds(mut claims: Claims, seconds: u64) -> Claims {
    claims.exp = Some(unix_seconds() + seconds);
    claims
}

async fn refresh(peer: &mut Peer, token: &str) -> Value {
    peer.ask(json!({ "id": 90, "refresh": { "token": token } }))
        .await
        .0
}

async fn publish(peer: &mut Peer, room: &str) -> Value {
    let publish = json!({ "room": room, "event": "e", "json": 1, "exclude_sender": true });
    peer.ask(json!({ "id": 91, "publish": publish })).await.0
}

async fn understand_gaps(peer: &mut Peer) {
    let hello = json!({ "id": 92, "hello": { "version": 1, "features": GAP } });
    assert!(peer.ask(hello).await.0["welcome"].is_object());
}

#[tokio::test]
async fn a_connection_outlives_its_first_token() {
    let broker = Broker::with("auth.leeway=0ms");
    let short = sign_for("a", for_seconds(claims("ann", &["*"]), 2));
    let mut renewed = broker.join(&short).await;
    let mut left = broker.join(&short).await;
    renewed.subscribe(&["room"]).await;
    let answer = refresh(&mut renewed, &token("a", "ann")).await;
    let expires_in_ms = answer["refreshed"]["expires_in_ms"].as_u64();
    assert!(
        expires_in_ms.is_some_and(|ms| (500_000..=600_000).contains(&ms)),
        "{answer}"
    );
    // The same token's end, as the other one sees it.
    assert_eq!(left.farewell().await, (4201, 4201));
    assert!(publish(&mut renewed, "room").await["published"].is_object());
}

#[tokio::test]
async fn a_token_that_ends_earlier_ends_the_connection_earlier() {
    let broker = Broker::with("auth.leeway=0ms");
    let mut peer = broker.join(&token("a", "ann")).await;
    let answer = refresh(&mut peer, &sign_for("a", for_seconds(claims("ann", &["*"]), 2))).await;
    assert!(
        answer["refreshed"]["expires_in_ms"].as_u64() <= Some(2_000),
        "{answer}"
    );
    assert_eq!(peer.farewell().await, (4201, 4201));
}

#[tokio::test]
async fn a_connection_stays_with_its_tenant_and_user_and_a_refused_token_changes_nothing() {
    let broker = Broker::start();
    let mut ann = broker.join(&sign_for("a", claims("ann", &["mine"]))).await;
    ann.subscribe(&["mine"]).await;
    for (token, name) in [
        (token("a", "bob"), "conflict"),
        (token("b", "ann"), "conflict"),
        (format!("{}x", token("a", "ann")), "token_invalid"),
        (
            sign_for("a", {
                let mut late = claims("ann", &["*"]);
                (late.iat, late.exp) = (unix_seconds() - 100, Some(unix_seconds() - 50));
                late
            }),
            "token_expired",
        ),
    ] {
        let answer = refresh(&mut ann, &token).await;
        assert_eq!(answer["error"]["name"], name, "{answer}");
        assert!(publish(&mut ann, "mine").await["published"].is_object());
        assert_eq!(publish(&mut ann, "other").await["error"]["name"], "forbidden");
    }
}

#[tokio::test]
async fn wider_rights_hold_from_the_answer_on() {
    let broker = Broker::start();
    let mut ann = broker.join(&sign_for("a", claims("ann", &["one"]))).await;
    assert_eq!(publish(&mut ann, "two").await["error"]["name"], "forbidden");
    let mut wider = claims("ann", &["one", "two"]);
    wider.roles = vec![Role::new("staff").expect("a name")];
    assert!(refresh(&mut ann, &sign_for("a", wider)).await["refreshed"].is_object());
    ann.subscribe(&["two"]).await;
    assert!(publish(&mut ann, "two").await["published"].is_object());
    // What is sent to a role finds who has it now.
    let mut sender = broker.join(&support::full_token("a", "boss", "boss")).await;
    let send = json!({ "id": 5, "send": { "role": "staff", "event": "hello", "json": 1 } });
    assert!(sender.ask(send).await.0["sent"].is_object());
    assert_eq!(ann.receive().await["direct"]["event"], "hello");
}

#[tokio::test]
async fn narrower_rights_end_the_subscriptions_that_they_do_not_cover_and_no_other() {
    let broker = Broker::start();
    let mut ann = broker.join(&token("a", "ann")).await;
    understand_gaps(&mut ann).await;
    let rooms = ann.subscribe(&["keep", "lose:1", "lose:2"]).await;
    let narrow = sign_for("a", claims("ann", &["keep"]));
    assert!(refresh(&mut ann, &narrow).await["refreshed"].is_object());
    // The answer, and right behind it what ended.
    let mut ended = Vec::new();
    for _ in 0..2 {
        let frame = ann.receive().await;
        assert_eq!(frame["ended"]["error"]["name"], "forbidden", "{frame}");
        ended.push(frame["ended"]["room"].clone());
    }
    ended.sort_by_key(Value::as_u64);
    assert_eq!(ended, [rooms[1]["room"].clone(), rooms[2]["room"].clone()]);
    let mut bob = broker.join(&token("a", "bob")).await;
    for room in ["lose:1", "lose:2", "keep"] {
        assert!(publish(&mut bob, room).await["published"].is_object());
    }
    assert_eq!(ann.receive().await["push"]["room"], rooms[0]["room"]);
    // Wider again, the room can be joined anew.
    assert!(refresh(&mut ann, &token("a", "ann")).await["refreshed"].is_object());
    ann.subscribe(&["lose:1"]).await;
}

#[tokio::test]
async fn a_client_that_does_not_know_of_ended_subscriptions_is_closed_instead() {
    let broker = Broker::start();
    let mut ann = broker.join(&token("a", "ann")).await;
    ann.subscribe(&["lose"]).await;
    let narrow = sign_for("a", claims("ann", &["keep"]));
    ann.say(json!({ "id": 1, "refresh": { "token": narrow } })).await;
    assert_eq!(ann.farewell().await, (4303, 4303));
}

#[tokio::test]
async fn a_method_is_served_no_longer_than_the_right_to_it_lasts() {
    let broker = Broker::start();
    let mut server = broker
        .join(&sign_for("a", claims("ann", &["$method:sum", "$method:max"])))
        .await;
    let serve = json!({ "id": 1, "serve": { "methods": ["sum", "max"] } });
    assert!(server.ask(serve).await.0["done"].is_object());
    let narrow = sign_for("a", claims("ann", &["$method:max"]));
    assert!(refresh(&mut server, &narrow).await["refreshed"].is_object());
    let mut caller = broker.join(&sign_for("a", claims("bob", &["$method:*"]))).await;
    let call = |method: &str| json!({ "id": 2, "call": { "method": method } });
    let (answer, _) = caller.ask(call("sum")).await;
    assert_eq!(answer["error"]["name"], "not_served", "{answer}");
    caller.say(call("max")).await;
    assert_eq!(server.receive().await["invoke"]["method"], "max");
}

#[tokio::test]
async fn tokens_weigh_more_than_other_requests_against_the_rate() {
    within(NOTHING_EARNED, weigh_tokens).await;
}

async fn weigh_tokens() {
    let broker = Broker::with("limits.requests_per_second=1\nlimits.requests_burst=25");
    let mut ann = broker.join(&token("a", "ann")).await;
    let fresh = token("a", "ann");
    for _ in 0..2 {
        assert!(refresh(&mut ann, &fresh).await["refreshed"].is_object());
    }
    let answer = refresh(&mut ann, &fresh).await;
    assert_eq!(answer["error"]["name"], "rate_limited");
    // The connection lives, and so do small requests.
    assert!(ann.ask(json!({ "id": 3, "ping": {} })).await.0["pong"].is_object());
}
