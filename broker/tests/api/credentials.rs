//! API keys, device tokens, tokens for clients: who may make them, what they are good for, and how they end.

use cauce_broker::auth::secret::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Broker, PATIENCE};

const ANY: &str = "/v1/rooms";

#[tokio::test]
async fn without_a_valid_key_nothing_is_said() {
    let broker = Broker::in_memory();
    let nobody = broker.ask("", Method::GET, ANY, None).await;
    assert_eq!(nobody.refusal(), (401, "unauthenticated"));
    assert_eq!(nobody.headers["www-authenticate"], "Bearer");
    let token = broker.post("/v1/tokens", json!({ "user": "ada" })).await.ok();
    let device = broker.post("/v1/device-tokens", json!({})).await.ok();
    for wrong in [
        "nonsense",
        "ck_0000000000000000_0000000000000000000000000000000000000000000",
        // A secret never ends in B: its last letter carries four bits only.
        &format!("{}B", &broker.operator[..broker.operator.len() - 1]),
        token["token"].as_str().unwrap(),
        device["token"].as_str().unwrap(),
    ] {
        let answer = broker.ask(wrong, Method::GET, ANY, None).await;
        assert_eq!(answer.refusal(), (401, "token_invalid"), "{wrong}");
        assert_eq!(answer.body["error"]["message"], "there is no such key");
    }
    broker.stop().await;
}

#[tokio::test]
async fn an_address_that_keeps_failing_is_told_to_wait_and_a_good_key_is_not() {
    let broker = Broker::in_memory();
    let mut refused = 0;
    for _ in 0..30 {
        let answer = broker.ask("ck_wrong", Method::GET, ANY, None).await;
        match answer.refusal() {
            (401, "token_invalid") => assert_eq!(refused, 0),
            (429, "rate_limited") => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((5..=10).contains(&refused), "{refused}");
    broker.get(ANY).await.ok();
    broker.stop().await;
}

#[tokio::test]
async fn a_key_is_good_for_its_scopes_only() {
    let broker = Broker::in_memory();
    let device = "/v1/devices/8CBFEAA133F0";
    broker.put(device, json!({})).await.ok();
    let call = format!("{device}/call");
    let operations: [(Scope, Method, &str, Value); 11] = [
        (
            Scope::Publish,
            Method::POST,
            "/v1/publish",
            json!({ "room": "r", "event": "e" }),
        ),
        (
            Scope::Publish,
            Method::POST,
            "/v1/send",
            json!({ "tenant": true, "event": "e" }),
        ),
        (Scope::Rooms, Method::GET, "/v1/rooms", Value::Null),
        (Scope::Devices, Method::GET, "/v1/devices", Value::Null),
        (
            Scope::Commands,
            Method::POST,
            &call,
            json!({ "method": "Shelly.GetStatus" }),
        ),
        (Scope::Calls, Method::POST, "/v1/calls", json!({ "method": "m" })),
        (
            Scope::Tokens,
            Method::POST,
            "/v1/tokens",
            json!({ "user": "ada" }),
        ),
        (Scope::Tokens, Method::GET, "/v1/device-tokens", Value::Null),
        (Scope::Keys, Method::GET, "/v1/api-keys", Value::Null),
        (Scope::Stats, Method::GET, "/v1/stats", Value::Null),
        (
            Scope::Connections,
            Method::POST,
            "/v1/users/ada/disconnect",
            json!({}),
        ),
    ];
    for held in Scope::ALL.iter().copied().filter(|&scope| scope != Scope::All) {
        let key = broker.key("default", &[held]).await;
        for (needed, method, path, body) in &operations {
            let body = Some(body.clone()).filter(|body| !body.is_null());
            let answer = broker.ask(&key, method.clone(), path, body).await;
            if held == *needed {
                assert_ne!(answer.status, 403, "{held:?} {path}");
            } else {
                assert_eq!(answer.refusal(), (403, "forbidden"), "{held:?} {path}");
            }
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn nobody_gives_a_right_that_they_do_not_have() {
    let broker = Broker::in_memory();
    broker.tenant("zeta").await;
    let key = broker.key("default", &[Scope::Keys, Scope::Publish]).await;
    let make = |body: Value| broker.ask(&key, Method::POST, "/v1/api-keys", Some(body));
    let made = make(json!({ "name": "n", "scopes": ["publish"] })).await.ok();
    assert_eq!(
        (&made["tenant"], &made["scopes"]),
        (&json!("default"), &json!(["publish"]))
    );
    for (body, expected) in [
        (json!({ "scopes": ["rooms"] }), (403, "forbidden")),
        (json!({ "scopes": ["all"] }), (403, "forbidden")),
        (
            json!({ "scopes": ["publish"], "operator": true }),
            (403, "forbidden"),
        ),
        (
            json!({ "scopes": ["publish"], "tenant": "zeta" }),
            (404, "not_found"),
        ),
        (json!({ "scopes": ["nonsense"] }), (400, "invalid")),
        (json!({ "scopes": [] }), (400, "invalid")),
        (json!({ "scopes": ["publish"], "name": "a\nb" }), (400, "invalid")),
        (
            json!({ "scopes": ["publish"], "name": "n".repeat(257) }),
            (413, "too_large"),
        ),
    ] {
        assert_eq!(make(body.clone()).await.refusal(), expected, "{body}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_revoked_key_ends_with_the_next_request() {
    let broker = Broker::in_memory();
    let made = json!({ "name": "server", "scopes": ["rooms"], "tenant": "default" });
    let made = broker.post("/v1/api-keys", made).await.ok();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    broker.ask(key, Method::GET, ANY, None).await.ok();
    let listed = broker.get("/v1/api-keys?tenant=default").await.ok();
    assert_eq!(listed["items"][0]["id"], id);
    assert!(listed["items"][0].get("key").is_none());
    // The operator's own keys are another list, and a key is found in its own list only.
    assert_eq!(
        broker.delete(&format!("/v1/api-keys/{id}")).await.refusal(),
        (404, "not_found")
    );
    broker
        .delete(&format!("/v1/api-keys/{id}?tenant=default"))
        .await
        .ok();
    assert_eq!(
        broker.ask(key, Method::GET, ANY, None).await.refusal(),
        (401, "token_invalid")
    );
    for gone in [id, "0000000000000000", "nonsense"] {
        let answer = broker
            .delete(&format!("/v1/api-keys/{gone}?tenant=default"))
            .await;
        assert_eq!(answer.refusal(), (404, "not_found"));
    }
    broker.stop().await;
}

#[tokio::test]
async fn the_operator_may_have_more_keys() {
    let broker = Broker::in_memory();
    let made = json!({ "name": "second", "scopes": ["tenants"], "operator": true });
    let made = broker.post("/v1/api-keys", made).await.ok();
    assert_eq!(made["tenant"], json!(null));
    let key = made["key"].as_str().unwrap();
    broker.ask(key, Method::GET, "/v1/tenants", None).await.ok();
    assert_eq!(
        broker.ask(key, Method::GET, ANY, None).await.refusal(),
        (403, "forbidden")
    );
    let names = broker.get("/v1/api-keys").await.ok();
    assert_eq!(names["items"].as_array().unwrap().len(), 2);
    let both = json!({ "scopes": ["all"], "operator": true, "tenant": "default" });
    assert_eq!(
        broker.post("/v1/api-keys", both).await.refusal(),
        (400, "invalid")
    );
    broker.stop().await;
}

#[tokio::test]
async fn a_token_opens_a_connection_until_its_key_is_revoked() {
    let broker = Broker::in_memory();
    broker.tenant("acme").await;
    let asked = json!({ "user": "ada", "roles": ["staff"], "expires_in": 60,
        "grants": [{ "rooms": ["chat:*"], "allow": ["subscribe"] }] });
    let made = broker.post("/v1/tokens?tenant=acme", asked).await.ok();
    let token = made["token"].as_str().unwrap();
    assert!(welcome(&broker, token).await);
    let keys = broker.get("/v1/tenants/acme/keys").await.ok();
    let kid = keys["items"][0]["kid"].as_str().unwrap();
    broker.delete(&format!("/v1/tenants/acme/keys/{kid}")).await.ok();
    assert!(!welcome(&broker, token).await);
    // The next one is made with a new key.
    let again = broker
        .post("/v1/tokens?tenant=acme", json!({ "user": "ada" }))
        .await
        .ok();
    assert!(welcome(&broker, again["token"].as_str().unwrap()).await);

    for body in [
        json!({ "user": "ada", "expires_in": 0 }),
        json!({ "user": "ada", "expires_in": 86_401 }),
        json!({ "user": "" }),
        json!({ "user": "ada", "roles": vec!["r"; 33] }),
        json!({ "user": "ada", "grants": [{ "rooms": ["*"], "allow": ["everything"] }] }),
        json!({ "user": "ada", "grants": [{ "rooms": [""], "allow": ["publish"] }] }),
    ] {
        assert_eq!(
            broker.post("/v1/tokens", body.clone()).await.refusal(),
            (400, "invalid"),
            "{body}"
        );
    }
    broker.stop().await;
}

/// Whether the broker takes the token: the first frame is then a welcome.
async fn welcome(broker: &Broker, token: &str) -> bool {
    use futures_util::StreamExt;
    let url = format!("{}/v1/ws?token={token}", broker.base.replace("http://", "ws://"));
    let Ok((mut socket, _)) = tokio_tungstenite::connect_async(url).await else {
        return false;
    };
    let first = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    matches!(first, Some(Ok(message)) if message.to_string().contains("welcome"))
}

#[tokio::test]
async fn a_device_token_names_the_address_to_dial_and_its_sockets_end_with_it() {
    use futures_util::StreamExt;
    let broker = Broker::in_memory();
    let made = broker
        .post("/v1/device-tokens", json!({ "label": "hall" }))
        .await
        .ok();
    let (id, url) = (made["id"].as_str().unwrap(), made["url"].as_str().unwrap());
    let expected = format!(
        "{}/shelly?token={}",
        broker.base.replace("http://", "ws://"),
        made["token"].as_str().unwrap()
    );
    assert_eq!(url, expected);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    broker.delete(&format!("/v1/device-tokens/{id}")).await.ok();
    let closed = async {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    assert!(tokio_tungstenite::connect_async(url).await.is_err());
    assert_eq!(
        broker.delete(&format!("/v1/device-tokens/{id}")).await.refusal(),
        (404, "not_found")
    );
    assert_eq!(broker.get("/v1/device-tokens").await.ok()["items"], json!([]));
    let lower = json!({ "device": "8cbfeaa133f0" });
    assert_eq!(
        broker.post("/v1/device-tokens", lower).await.refusal(),
        (400, "invalid")
    );
    broker.stop().await;
}

#[tokio::test]
async fn keys_are_listed_a_page_at_a_time() {
    let broker = Broker::in_memory();
    for _ in 0..5 {
        broker.post("/v1/device-tokens", json!({})).await.ok();
    }
    let (mut seen, mut cursor) = (std::collections::BTreeSet::new(), String::new());
    loop {
        let page = broker
            .get(&format!("/v1/device-tokens?limit=2{cursor}"))
            .await
            .ok();
        for item in page["items"].as_array().unwrap() {
            assert!(seen.insert(item["id"].as_str().unwrap().to_owned()));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    broker.stop().await;
}
