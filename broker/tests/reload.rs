//! Settings that are said to change while the broker runs do.

mod support;

use std::time::Duration;

use cauce_broker::Server;
use serde_json::{Value, json};
use support::pace::with_longer;
use support::raw::Raw;
use support::{Broker, PATIENCE, claims, config, sign_for, token, unix_seconds};

/// Asks until the answer is as it should be: settings reach the shards within a tick or two.
async fn until<T: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> T) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("never came: {what}"));
}

fn reload(server: &Server, lines: &str) {
    server.reload(&config(lines)).expect("a good configuration");
}

async fn welcomed(broker: &Broker, target: &str, headers: &str) -> Option<Value> {
    let mut raw = Raw::connect(broker.address).await;
    raw.upgrade(target, headers).await;
    let first = raw.hear_json().await;
    first["reply"]["welcome"]
        .is_object()
        .then(|| first["reply"]["welcome"].clone())
}

#[tokio::test]
async fn what_is_asked_of_tokens_changes_without_a_restart() {
    let broker = Broker::with("auth.leeway=10s");
    let mut late = claims("ann", &["*"]);
    (late.iat, late.exp) = (unix_seconds() - 300, Some(unix_seconds() - 60));
    let late = sign_for("a", late);
    let bearer = format!("Authorization: Bearer {late}\r\n");
    assert!(
        welcomed(&broker, "/v1/ws", &bearer).await.is_none(),
        "it has expired"
    );
    reload(&broker.server, "auth.leeway=5m");
    until("more leeway", || async {
        welcomed(&broker, "/v1/ws", &bearer).await.is_some()
    })
    .await;
    // And back: what was verified under the old policy is not remembered.
    reload(&broker.server, "auth.leeway=10s");
    until("less leeway", || async {
        welcomed(&broker, "/v1/ws", &bearer).await.is_none()
    })
    .await;
}

#[tokio::test]
async fn tokens_in_urls_can_be_switched_off() {
    with_longer(200, switch_off_tokens_in_urls).await;
}

async fn switch_off_tokens_in_urls(handshake_ms: u64) {
    // Whoever brings no token that counts is let go when this is over.
    let handshake = format!("limits.handshake_timeout={handshake_ms}ms");
    let broker = Broker::with(&handshake);
    let target = format!("/v1/ws?token={}", token("a", "ann"));
    assert!(welcomed(&broker, &target, "").await.is_some());
    reload(&broker.server, &format!("{handshake}\nauth.query_token=false"));
    until("no tokens in URLs", || async {
        welcomed(&broker, &target, "").await.is_none()
    })
    .await;
    let bearer = format!("Authorization: Bearer {}\r\n", token("a", "ann"));
    assert!(welcomed(&broker, "/v1/ws", &bearer).await.is_some());
}

#[tokio::test]
async fn payloads_may_nest_as_deep_as_the_operator_says() {
    let broker = Broker::with("limits.payload_depth=3");
    let mut ann = broker.join(&token("a", "ann")).await;
    let publish =
        |id: u32, json: Value| json!({"id": id, "publish": {"room": "r", "event": "e", "json": json}});
    assert_eq!(ann.ask(publish(1, json!([[[1]]]))).await.0["published"]["seq"], 1);
    let refused = ann.ask(publish(2, json!([[[[1]]]]))).await.0;
    assert!(refused["error"]["code"].is_u64(), "{refused}");
    assert_eq!(ann.ask(publish(3, json!(1))).await.0["published"]["seq"], 2);
    // Who asks for the limits is told this one.
    let bearer = format!("Authorization: Bearer {}\r\n", token("a", "bob"));
    let welcome = welcomed(&broker, "/v1/ws", &bearer).await.expect("welcome");
    assert_eq!(welcome["limits"]["payload_depth"], 3);
    reload(&broker.server, "limits.payload_depth=4");
    until("a deeper payload", || async {
        let mut peer = broker.join(&token("a", "carl")).await;
        peer.ask(publish(4, json!([[[[1]]]]))).await.0["published"].is_object()
    })
    .await;
}

#[tokio::test]
async fn a_lower_limit_on_connections_puts_nobody_out() {
    let broker = Broker::start();
    let mut held = Vec::new();
    for user in ["ann", "bob", "carl"] {
        held.push(broker.join(&token("a", user)).await);
    }
    reload(&broker.server, "limits.connections_per_tenant=2");
    until("no more connections", || async {
        broker.knock(&token("a", "dora")).await.receive().await["goaway"]["error"]["code"] == 4102
    })
    .await;
    for peer in &mut held {
        assert!(peer.ask(json!({"id": 1, "ping": {}})).await.0["pong"].is_object());
    }
}
