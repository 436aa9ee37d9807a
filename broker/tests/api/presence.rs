//! Who is in a room, by the API.

use std::sync::Arc;

use bytes::Bytes;
use cauce_broker::auth::secret::Scope;
use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::{Arriving, Listener, PresenceMode, RoomClass, Start, Tap};
use cauce_protocol::{ConnectionId, RoomName, UserId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Broker;

/// A broker whose tenant `default` keeps presence, with these users in room `lobby`.
fn broker(users: &[(&str, &str)]) -> Broker {
    let broker = Broker::in_memory();
    let hub = broker.server().hub();
    let tenant = hub.tenants.get("default").unwrap();
    let class = RoomClass {
        presence: PresenceMode::On { grace_ms: 0 },
        ..RoomClass::default()
    };
    tenant.configure(TenantSettings {
        classes: RoomClasses::new(Vec::new(), Arc::new(class)),
        ..TenantSettings::default()
    });
    let (name, tap) = (RoomName::new("lobby").unwrap(), Arc::new(Tap::new(1_000)));
    let now = hub.clock.now();
    let joined = tenant
        .rooms
        .join(&name, Listener::Tap(&tap), Start::Now, now.mono_ms)
        .unwrap();
    let room = joined.room;
    room.set_presence(&hub.presence, room.class().presence, 100);
    for (n, (user, info)) in users.iter().enumerate() {
        let arriving = Arriving {
            user: &UserId::new(user).unwrap(),
            connection: ConnectionId(n as u64),
            info: &Bytes::copy_from_slice(info.as_bytes()),
        };
        room.enter(&hub.presence, arriving, now);
    }
    broker
}

#[tokio::test]
async fn who_is_in_a_room_is_shown_by_name_a_page_at_a_time() {
    let broker = broker(&[
        ("cid", ""),
        ("ann", r#"{"name":"Ann"}"#),
        ("bob", ""),
        ("ann", "7"),
    ]);
    let first = broker.get("/v1/rooms/lobby/presence?limit=2").await.ok();
    assert_eq!((&first["users"], &first["connections"]), (&json!(3), &json!(4)));
    let users = |page: &Value| -> Vec<Value> {
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["user"].clone()).collect()
    };
    assert_eq!(users(&first), ["ann", "bob"]);
    // The newest token of a user speaks for him.
    let ann = &first["items"][0];
    assert_eq!((&ann["info"], &ann["connections"]), (&json!(7), &json!(2)));
    assert_eq!(first["items"][1]["info"], Value::Null);
    let next = first["next"].as_str().unwrap();
    let second = broker
        .get(&format!("/v1/rooms/lobby/presence?limit=2&cursor={next}"))
        .await
        .ok();
    assert_eq!(
        (users(&second), &second["next"]),
        (vec![json!("cid")], &Value::Null)
    );
    assert_eq!(second["version"], first["version"]);
    let counts = broker.get("/v1/rooms/lobby/presence?counts_only=true").await.ok();
    assert_eq!((&counts["users"], users(&counts).len()), (&json!(3), 0));
    let empty = broker.get("/v1/rooms/empty/presence").await.ok();
    assert_eq!((&empty["users"], &empty["next"]), (&json!(0), &Value::Null));
    for bad in ["limit=0", "limit=1001", "cursor=!", "colour=red"] {
        let answer = broker.get(&format!("/v1/rooms/lobby/presence?{bad}")).await;
        assert_eq!(answer.refusal(), (400, "invalid"), "{bad}");
    }
    let metrics = reqwest_text(&broker, "/metrics").await;
    assert!(metrics.contains("\ncauce_presence_users 3\n"), "{metrics}");
    broker.stop().await;
}

async fn reqwest_text(broker: &Broker, path: &str) -> String {
    let url = format!("{}{path}", broker.base);
    broker.client.get(url).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn presence_needs_the_scope_of_rooms_the_tenant_and_a_class_that_keeps_it() {
    let broker = broker(&[("ann", "")]);
    let path = "/v1/rooms/lobby/presence";
    let rooms = broker.key("default", &[Scope::Rooms]).await;
    let publish = broker.key("default", &[Scope::Publish]).await;
    let page = broker.ask(&rooms, Method::GET, path, None).await.ok();
    assert_eq!(page["users"], 1);
    let answer = broker.ask(&publish, Method::GET, path, None).await;
    assert_eq!(answer.refusal(), (403, "forbidden"));
    let answer = broker.ask("", Method::GET, path, None).await;
    assert_eq!(answer.refusal(), (401, "unauthenticated"));
    let other = format!("{path}?tenant=none");
    let answer = broker.ask(&rooms, Method::GET, &other, None).await;
    assert_eq!(answer.refusal(), (404, "not_found"));
    // Another tenant has its own room of that name, and its own classes.
    broker.post("/v1/tenants", json!({ "id": "acme" })).await.ok();
    let acme = broker.key("acme", &[Scope::All]).await;
    let answer = broker.ask(&acme, Method::GET, path, None).await;
    assert_eq!(answer.refusal(), (409, "conflict"));
    broker.stop().await;
}

#[tokio::test]
async fn a_token_may_say_of_its_user_what_fits() {
    let broker = Broker::in_memory();
    let info = json!({ "name": "Ann", "picture": null });
    let made = broker
        .post("/v1/tokens", json!({ "user": "ann", "info": info }))
        .await
        .ok();
    let claims = made["token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, claims).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["info"], info);
    for bad in [json!("x".repeat(1_023)), deep(17)] {
        let answer = broker
            .post("/v1/tokens", json!({ "user": "ann", "info": bad }))
            .await;
        assert_eq!(answer.refusal(), (400, "invalid"));
    }
    let body = json!({ "user": "ann", "info": deep(16) });
    broker.post("/v1/tokens", body).await.ok();
    broker.stop().await;
}

fn deep(levels: usize) -> Value {
    (1..levels).fold(json!([]), |inner, _| json!([inner]))
}
