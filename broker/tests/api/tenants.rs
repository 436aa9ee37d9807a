//! Tenants and their signing keys: the operator's alone.

use cauce_broker::Persistence;
use cauce_broker::auth::secret::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Broker, PATIENCE, config_in};

#[tokio::test]
async fn a_tenant_is_made_renamed_and_given_rights_for_its_roles() {
    let broker = Broker::in_memory();
    let made = broker.post("/v1/tenants", json!({ "id": "acme" })).await.ok();
    assert_eq!(
        (&made["name"], &made["disabled"]),
        (&json!("acme"), &json!(false))
    );
    let rights = json!({ "staff": [{ "rooms": ["chat:*"], "allow": ["publish", "subscribe"] }] });
    let update = json!({ "name": "Acme Ltd", "role_grants": rights });
    let updated = broker.patch("/v1/tenants/acme", update).await.ok();
    assert_eq!(updated["name"], "Acme Ltd");
    assert_eq!(updated["role_grants"]["staff"][0]["rooms"], json!(["chat:*"]));
    assert_eq!(broker.get("/v1/tenants/acme").await.ok(), updated);
    let unchanged = broker.patch("/v1/tenants/acme", json!({})).await.ok();
    assert_eq!(unchanged["role_grants"], updated["role_grants"]);

    let again = broker.post("/v1/tenants", json!({ "id": "acme" })).await;
    assert_eq!(again.refusal(), (409, "conflict"));
    assert_eq!(broker.get("/v1/tenants/none").await.refusal(), (404, "not_found"));
    assert_eq!(
        broker.patch("/v1/tenants/none", json!({})).await.refusal(),
        (404, "not_found")
    );
    for body in [
        json!({ "id": "" }),
        json!({ "id": "a\u{200b}" }),
        json!({ "id": "ok", "colour": 1 }),
        json!({ "id": "ok", "settings": { "role_grants": { "r": [{ "rooms": ["*"], "allow": ["fly"] }] } } }),
    ] {
        assert_eq!(
            broker.post("/v1/tenants", body.clone()).await.refusal(),
            (400, "invalid"),
            "{body}"
        );
    }
    broker.stop().await;
}

#[tokio::test]
async fn tenants_are_the_operators_business() {
    let broker = Broker::in_memory();
    let key = broker.key("default", &[Scope::All]).await;
    for (method, path, body) in [
        (Method::GET, "/v1/tenants", Value::Null),
        (Method::POST, "/v1/tenants", json!({ "id": "mine" })),
        (Method::GET, "/v1/tenants/default", Value::Null),
        (Method::GET, "/v1/tenants/none", Value::Null),
        (Method::PATCH, "/v1/tenants/default", json!({ "disabled": true })),
        (Method::GET, "/v1/tenants/default/keys", Value::Null),
        (
            Method::POST,
            "/v1/tenants/default/keys",
            json!({ "alg": "HS256" }),
        ),
        (Method::DELETE, "/v1/tenants/default/keys/k", Value::Null),
    ] {
        let body = Some(body).filter(|body| !body.is_null());
        let answer = broker.ask(&key, method, path, body).await;
        assert_eq!(answer.refusal(), (403, "forbidden"), "{path}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn the_operator_chooses_the_tenant_and_its_own_default_otherwise() {
    let broker = Broker::in_memory();
    broker.tenant("acme").await;
    let body = json!({ "room": "r", "event": "e" });
    broker.post("/v1/publish?tenant=acme", body.clone()).await.ok();
    broker.post("/v1/publish", body).await.ok();
    for path in [
        "/v1/rooms/r?tenant=acme",
        "/v1/rooms/r?tenant=default",
        "/v1/rooms/r",
    ] {
        assert_eq!(broker.get(path).await.ok()["seq"], 1, "{path}");
    }
    for path in [
        "/v1/rooms?tenant=none",
        "/v1/rooms?tenant=",
        "/v1/rooms?tenant=%00",
    ] {
        assert_eq!(broker.get(path).await.refusal(), (404, "not_found"), "{path}");
    }
    let stats = broker.get("/v1/stats").await.ok();
    assert_eq!((&stats["tenants"], &stats["rooms"]), (&json!(2), &json!(2)));
    assert_eq!(stats["node"]["publications"], 2);
    let acme = broker.get("/v1/stats?tenant=acme").await.ok();
    assert_eq!((&acme["rooms"], &acme["node"]), (&json!(1), &json!(null)));
    broker.stop().await;
}

#[tokio::test]
async fn disabling_a_tenant_closes_its_connections_and_its_keys() {
    use futures_util::StreamExt;
    let broker = Broker::in_memory();
    broker.tenant("acme").await;
    let key = broker.key("acme", &[Scope::Rooms]).await;
    let device = broker.post("/v1/device-tokens?tenant=acme", json!({})).await.ok();
    let token = broker
        .post("/v1/tokens?tenant=acme", json!({ "user": "ada" }))
        .await
        .ok();
    let ws = broker.base.replace("http://", "ws://");
    let client = format!("{ws}/v1/ws?token={}", token["token"].as_str().unwrap());
    let (mut client, _) = tokio_tungstenite::connect_async(client).await.unwrap();
    let (mut device, _) = tokio_tungstenite::connect_async(device["url"].as_str().unwrap())
        .await
        .unwrap();
    // The welcome: from here on the connection belongs to the tenant.
    tokio::time::timeout(PATIENCE, client.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();

    let disabled = broker
        .patch("/v1/tenants/acme", json!({ "disabled": true }))
        .await
        .ok();
    assert_eq!(disabled["disabled"], true);
    let code = tokio::time::timeout(PATIENCE, async {
        loop {
            match client.next().await {
                Some(Ok(tokio_tungstenite::tungstenite::Message::Close(Some(frame)))) => {
                    break u16::from(frame.code);
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(code.await.unwrap(), 4306);
    let device_ended = async { while let Some(Ok(_)) = device.next().await {} };
    tokio::time::timeout(PATIENCE, device_ended).await.unwrap();
    let refused = broker.ask(&key, Method::GET, "/v1/rooms", None).await;
    assert_eq!(refused.refusal(), (403, "tenant_disabled"));

    broker
        .patch("/v1/tenants/acme", json!({ "disabled": false }))
        .await
        .ok();
    broker.ask(&key, Method::GET, "/v1/rooms", None).await.ok();
    broker.stop().await;
}

#[tokio::test]
async fn a_signing_key_is_made_or_brought_and_never_shown_again() {
    let broker = Broker::in_memory();
    let made = broker
        .post(
            "/v1/tenants/default/keys",
            json!({ "alg": "HS384", "kid": "own" }),
        )
        .await
        .ok();
    assert_eq!(made["secret"].as_str().unwrap().len(), 43);
    let secret = "brought-along-7Qx2mZ9vLw4bT8nRk3pYc6dHf1sJg5aE";
    let brought = json!({ "alg": "HS256", "secret": secret });
    assert_eq!(
        broker.post("/v1/tenants/default/keys", brought).await.ok()["secret"],
        json!(null)
    );
    let listed = broker.get("/v1/tenants/default/keys").await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 3);
    assert!(!listed.to_string().contains("secret"));

    for (body, expected) in [
        (json!({ "alg": "HS256", "kid": "own" }), (409, "conflict")),
        (json!({ "alg": "none" }), (400, "invalid")),
        (json!({ "alg": "HS256", "secret": "short" }), (400, "invalid")),
        (json!({ "alg": "HS256", "kid": "" }), (400, "invalid")),
        (json!({ "alg": "RS256" }), (400, "invalid")),
        (
            json!({ "alg": "RS256", "public_key": "no PEM" }),
            (400, "invalid"),
        ),
        (
            json!({ "alg": "HS256", "secret": secret, "public_key": "x" }),
            (400, "invalid"),
        ),
        (
            json!({ "alg": "HS256", "public_key": "-----BEGIN PUBLIC KEY-----\n" }),
            (400, "invalid"),
        ),
    ] {
        let answer = broker.post("/v1/tenants/default/keys", body.clone()).await;
        assert_eq!(answer.refusal(), expected, "{body}");
    }
    let none = broker
        .post("/v1/tenants/none/keys", json!({ "alg": "HS256" }))
        .await;
    assert_eq!(none.refusal(), (404, "not_found"));
    broker.delete("/v1/tenants/default/keys/own").await.ok();
    let again = broker.delete("/v1/tenants/default/keys/own").await;
    assert_eq!(again.refusal(), (404, "not_found"));
    broker.stop().await;
}

#[tokio::test]
async fn room_classes_are_set_replaced_and_shown() {
    let broker = Broker::in_memory();
    let orders = json!({ "rooms": "orders:*", "history": { "messages": 10, "age": "1h" }, "allow": { "*": ["subscribe"] } });
    let body = json!({ "id": "acme", "room_classes": [orders] });
    let made = broker.post("/v1/tenants", body).await.ok();
    assert_eq!(made["room_classes"], json!([orders]));
    // What is not named stays.
    let renamed = broker
        .patch("/v1/tenants/acme", json!({ "name": "Acme" }))
        .await
        .ok();
    assert_eq!(renamed["room_classes"], json!([orders]));
    let chat = json!({ "rooms": "chat:*", "presence": true });
    let update = json!({ "room_classes": [chat] });
    let updated = broker.patch("/v1/tenants/acme", update).await.ok();
    assert_eq!(updated["room_classes"], json!([chat]));
    assert_eq!(broker.get("/v1/tenants/acme").await.ok(), updated);
    for (method, path) in [(Method::POST, "/v1/tenants"), (Method::PATCH, "/v1/tenants/acme")] {
        let mut body = json!({ "room_classes": [{ "rooms": "r", "schemas": { "e": { "type": 1 } } }] });
        if method == Method::POST {
            body["id"] = json!("other");
        }
        let answer = broker.ask(&broker.operator, method, path, Some(body)).await;
        assert_eq!(answer.refusal(), (400, "invalid"));
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(
            message.starts_with("room_classes[0].schemas.e: at /type: "),
            "{message}"
        );
    }
    assert_eq!(broker.get("/v1/tenants/acme").await.ok(), updated);
    assert_eq!(
        broker.get("/v1/tenants/other").await.refusal(),
        (404, "not_found")
    );
    broker.stop().await;
}

#[tokio::test]
async fn a_message_that_breaks_its_schema_is_answered_with_422() {
    let broker = Broker::in_memory();
    let schema = json!({ "properties": { "price": { "type": "number" } } });
    let classes = json!([{ "rooms": "orders:*", "schemas": { "order": schema } }]);
    broker
        .patch("/v1/tenants/default", json!({ "room_classes": classes }))
        .await
        .ok();
    let message = |price: Value| json!({ "room": "orders:1", "event": "order", "json": { "price": price } });
    broker.post("/v1/publish", message(json!(1.5))).await.ok();
    let refused = broker.post("/v1/publish", message(json!("free"))).await;
    assert_eq!(refused.refusal(), (422, "schema_violation"));
    broker.stop().await;
}

#[tokio::test]
async fn room_classes_and_rights_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path());
    let broker = Broker::start(&config, Persistence::Store);
    let rights = json!({ "staff": [{ "rooms": ["r"], "allow": ["publish"] }] });
    let classes = json!([{ "rooms": "orders:*", "history": { "messages": 10 }, "schemas": { "e": { "type": "object" } } }]);
    broker
        .patch("/v1/tenants/default", json!({ "room_classes": classes }))
        .await
        .ok();
    let shown = broker
        .patch("/v1/tenants/default", json!({ "role_grants": rights }))
        .await
        .ok();
    assert_eq!(shown["room_classes"], classes);
    broker.stop().await;
    let broker = Broker::start(&config, Persistence::Store);
    let again = broker.get("/v1/tenants/default").await.ok();
    assert_eq!(
        (&again["room_classes"], &again["role_grants"]),
        (&shown["room_classes"], &shown["role_grants"])
    );
    let body = json!({ "room": "orders:1", "event": "e", "json": 1 });
    assert_eq!(
        broker.post("/v1/publish", body).await.refusal(),
        (422, "schema_violation")
    );
    broker.stop().await;
}
