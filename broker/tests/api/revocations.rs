//! Revocations: who may make them, how they are shown, and how they end.

use cauce_broker::auth::secret::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Broker;

const PATH: &str = "/v1/revocations";

fn unix_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    since.as_millis() as u64
}

#[tokio::test]
async fn users_and_tokens_are_revoked_listed_and_reinstated() {
    let broker = Broker::in_memory();
    let body = json!({ "user": "ann/o:x", "reason": "lost her phone" });
    let made = broker.post(PATH, body).await.ok();
    assert_eq!(
        (&made["id"], &made["user"], &made["jti"], &made["reason"]),
        (
            &json!("user:ann/o:x"),
            &json!("ann/o:x"),
            &Value::Null,
            &json!("lost her phone")
        )
    );
    // As long as the longest token: a day, and the leeway.
    let lasts = made["until_unix_ms"].as_u64().unwrap() - made["revoked_unix_ms"].as_u64().unwrap();
    assert_eq!(lasts, 86_410_000);
    let until = unix_ms() + 5_000_000;
    for (body, expected) in [
        (json!({ "jti": "t1", "ttl": "2h" }), 7_200_000),
        (json!({ "jti": "t2", "ttl": 60 }), 60_000),
    ] {
        let made = broker.post(PATH, body).await.ok();
        let lasts = made["until_unix_ms"].as_u64().unwrap() - made["revoked_unix_ms"].as_u64().unwrap();
        assert_eq!(lasts, expected);
    }
    let made = broker
        .post(PATH, json!({ "jti": "t3", "until_unix_ms": until }))
        .await
        .ok();
    assert_eq!(made["until_unix_ms"], until);

    let first = broker.get("/v1/revocations?limit=2").await.ok();
    let ids = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&first), ["user:ann/o:x", "jti:t1"]);
    let next = first["next"].as_str().unwrap();
    let second = broker
        .get(&format!("/v1/revocations?limit=2&cursor={next}"))
        .await
        .ok();
    assert_eq!(ids(&second), ["jti:t2", "jti:t3"]);
    assert!(second["next"].is_null());

    broker.delete("/v1/revocations/user:ann%2Fo%3Ax").await.ok();
    for gone in ["user:ann%2Fo%3Ax", "user:none", "nonsense", "role:x"] {
        let answer = broker.delete(&format!("{PATH}/{gone}")).await;
        assert_eq!(answer.refusal(), (404, "not_found"), "{gone}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let broker = Broker::in_memory();
    for body in [
        json!({}),
        json!({ "user": "ann", "jti": "t" }),
        json!({ "user": "" }),
        json!({ "jti": "" }),
        json!({ "jti": "a\u{7}" }),
        json!({ "user": "ann", "ttl": "0s" }),
        json!({ "user": "ann", "ttl": "soon" }),
        json!({ "user": "ann", "ttl": -1 }),
        json!({ "user": "ann", "until_unix_ms": 1 }),
        json!({ "user": "ann", "until_unix_ms": 1, "ttl": "1h" }),
        json!({ "user": "ann", "reason": "a\nb" }),
        json!({ "user": "ann", "colour": 1 }),
    ] {
        let answer = broker.post(PATH, body.clone()).await;
        assert_eq!(answer.refusal(), (400, "invalid"), "{body}");
    }
    let long = json!({ "user": "ann", "reason": "x".repeat(257) });
    assert_eq!(broker.post(PATH, long).await.refusal(), (413, "too_large"));
    assert_eq!(broker.get(PATH).await.ok()["items"], json!([]));
    broker.stop().await;
}

#[tokio::test]
async fn a_tenants_key_revokes_in_its_own_tenant_only() {
    let broker = Broker::in_memory();
    broker.tenant("acme").await;
    let key = broker.key("acme", &[Scope::Tokens]).await;
    let post = |path: &'static str, body: Value| broker.ask(&key, Method::POST, path, Some(body));
    post(PATH, json!({ "user": "ann" })).await.ok();
    for (path, body) in [
        (PATH, json!({ "user": "ann", "tenant": "default" })),
        (PATH, json!({ "user": "ann", "tenant": "nobody" })),
        ("/v1/revocations?tenant=default", json!({ "user": "ann" })),
    ] {
        assert_eq!(
            post(path, body.clone()).await.refusal(),
            (404, "not_found"),
            "{path} {body}"
        );
    }
    // The operator names the tenant in the query or in the body.
    broker
        .post(PATH, json!({ "user": "bob", "tenant": "acme" }))
        .await
        .ok();
    let both = broker
        .post(
            "/v1/revocations?tenant=acme",
            json!({ "user": "bob", "tenant": "default" }),
        )
        .await;
    assert_eq!(both.refusal(), (400, "invalid"));
    let list = |page: Value| page["items"].as_array().unwrap().len();
    assert_eq!(list(broker.get("/v1/revocations?tenant=acme").await.ok()), 2);
    assert_eq!(list(broker.get(PATH).await.ok()), 0);
    let stranger = broker.key("acme", &[Scope::Publish]).await;
    let refused = broker.ask(&stranger, Method::GET, PATH, None).await;
    assert_eq!(refused.refusal(), (403, "forbidden"));
    broker.stop().await;
}
