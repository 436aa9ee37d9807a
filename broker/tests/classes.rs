//! Room classes: what a tenant's configuration says of its rooms, changed while clients are connected.
mod support;

use cauce_broker::admin::{Actor, ClassSpec, TenantInfo, TenantUpdate, read_classes};
use cauce_broker::rooms::{Durability, PresenceMode, RoomClass};
use cauce_protocol::message::Policy;
use cauce_protocol::{Payload, Refusal, TenantId};
use serde_json::{Value, json};

use support::{Broker, claims, sign_for};

async fn set(broker: &Broker, tenant: &str, classes: Value) -> Result<TenantInfo, Refusal> {
    let classes = classes.as_array().expect("a list").clone();
    let update = TenantUpdate {
        room_classes: Some(read_classes(classes)?),
        ..TenantUpdate::default()
    };
    let tenant = TenantId::new(tenant).expect("a name");
    let actor = Actor::local("test");
    broker.server.admin().update_tenant(&actor, &tenant, update).await
}

fn class_of(broker: &Broker, tenant: &str, room: &str) -> RoomClass {
    let tenant = broker.server.hub().tenants.get(tenant).expect("the tenant");
    (*tenant.settings().classes.of(room)).clone()
}

/// A token without grants of its own.
fn plain_token(tenant: &str, user: &str, roles: &[&str]) -> String {
    let mut claims = claims(user, &[]);
    claims.grants = Vec::new();
    claims.roles = roles.iter().map(|role| role.parse().expect("a name")).collect();
    sign_for(tenant, claims)
}

#[tokio::test]
async fn a_class_says_everything_that_it_may_say_and_the_node_says_the_rest() {
    let broker = Broker::with("rooms.history_messages=7\nrooms.history_age=30s\nrooms.presence_grace=9s");
    let classes = json!([
        {
            "rooms": "orders:*",
            "history": { "messages": 1000, "age": "24h", "bytes": "1MiB" },
            "presence": { "grace_ms": 1500 },
            "durable": true,
            "delivery": "latest",
            "rate": { "per_second": 50, "burst": 100 },
        },
        { "rooms": "chat:*", "presence": true, "history": { "age": "1h" }, "delivery": { "sample_ms": 250 } },
        { "rooms": "*:plain" },
    ]);
    set(&broker, "a", classes).await.unwrap();
    let orders = class_of(&broker, "a", "orders:plain");
    let kept = orders.history;
    assert_eq!(
        (kept.messages, kept.age_ms, kept.bytes),
        (1_000, 86_400_000, 1 << 20)
    );
    assert_eq!(orders.presence, PresenceMode::On { grace_ms: 1_500 });
    assert_eq!(
        (orders.durability, orders.policy),
        (Durability::Durable, Policy::Latest)
    );
    assert!(orders.rate.is_some());

    let chat = class_of(&broker, "a", "chat:1");
    assert_eq!(chat.presence, PresenceMode::On { grace_ms: 9_000 });
    assert_eq!(
        (chat.history.messages, chat.history.age_ms, chat.history.bytes),
        (1_000_000, 3_600_000, 1 << 20)
    );
    assert_eq!(chat.policy, Policy::Sample { every_ms: 250 });

    for (tenant, room) in [
        ("a", "any:plain"),
        ("a", "none"),
        ("a", "$orders:1"),
        ("b", "orders:1"),
    ] {
        let plain = class_of(&broker, tenant, room);
        assert_eq!(
            (plain.history.messages, plain.history.age_ms),
            (7, 30_000),
            "{room}"
        );
        assert_eq!(
            (plain.presence, plain.durability, plain.policy, plain.rate),
            (PresenceMode::Off, Durability::Memory, Policy::Reliable, None)
        );
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_place_and_nothing_changes() {
    let broker = Broker::start();
    let good = json!([{ "rooms": "good", "history": { "messages": 5 } }]);
    set(&broker, "a", good).await.unwrap();
    let schema = |schema: Value| json!({ "rooms": "r", "schemas": { "e": schema } });
    for (class, place) in [
        (json!(["r"]), "room_classes[1]: expected an object"),
        (json!({ "history": {} }), "room_classes[1]: missing field `rooms`"),
        (json!({ "rooms": "" }), "room_classes[1].rooms: "),
        (
            json!({ "rooms": "r", "colour": 1 }),
            "room_classes[1].colour: unknown field",
        ),
        (
            json!({ "rooms": "r", "history": [1] }),
            "room_classes[1].history: expected no list",
        ),
        (
            json!({ "rooms": "r", "history": { "age": "24" } }),
            "room_classes[1].history.age: expected a duration",
        ),
        (
            json!({ "rooms": "r", "history": { "age": 24 } }),
            "room_classes[1].history.age: ",
        ),
        (
            json!({ "rooms": "r", "history": { "bytes": [] } }),
            "room_classes[1].history.bytes: expected a number of bytes",
        ),
        (
            json!({ "rooms": "r", "history": { "messages": 1_000_001 } }),
            "room_classes[1].history.messages: at most 1000000",
        ),
        (
            json!({ "rooms": "r", "history": { "age": "3661d" } }),
            "room_classes[1].history.age: at most 3660d",
        ),
        (
            json!({ "rooms": "r", "presence": "on" }),
            "room_classes[1].presence: expected true, false or",
        ),
        (
            json!({ "rooms": "r", "presence": { "grace_ms": 600_001 } }),
            "room_classes[1].presence.grace_ms: at most",
        ),
        (
            json!({ "rooms": "r", "durable": true }),
            "room_classes[1].history: a durable class must say",
        ),
        (
            json!({ "rooms": "r", "durable": true, "history": { "messages": 0 } }),
            "room_classes[1].history.messages: ",
        ),
        (
            json!({ "rooms": "r", "delivery": "fast" }),
            "room_classes[1].delivery: expected \"reliable\"",
        ),
        (
            json!({ "rooms": "r", "delivery": { "sample_ms": 0 } }),
            "room_classes[1].delivery.sample_ms: 1 to",
        ),
        (
            json!({ "rooms": "r", "rate": { "per_second": 0 } }),
            "room_classes[1].rate.per_second: 1 to",
        ),
        (
            json!({ "rooms": "r", "allow": { "*": ["fly"] } }),
            "room_classes[1].allow.*[0]: unknown variant `fly`",
        ),
        (
            json!({ "rooms": "r", "allow": { "": ["call"] } }),
            "room_classes[1].allow: role \"\"",
        ),
        (
            schema(json!({ "type": "colour" })),
            "room_classes[1].schemas.e: at /type: ",
        ),
        (
            schema(json!({ "$ref": "https://example.com/s" })),
            "room_classes[1].schemas.e: ",
        ),
        (
            schema(json!({ "const": "x".repeat(16 * 1024) })),
            "room_classes[1].schemas.e: takes 16",
        ),
        (
            json!({ "rooms": "$user:*", "schemas": { "e": {} } }),
            "room_classes[1].schemas.e: rooms that begin with $",
        ),
        (
            json!({ "rooms": "r", "schemas": { "": {} } }),
            "room_classes[1].schemas.",
        ),
    ] {
        let refusal = set(&broker, "a", json!([{ "rooms": "first" }, class]))
            .await
            .unwrap_err();
        assert!(refusal.message.starts_with(place), "{class}: {refusal}");
        assert_eq!(refusal.code.name(), "invalid", "{class}");
    }
    let many = |count| Value::Array(vec![json!({ "rooms": "r" }); count]);
    assert_eq!(
        set(&broker, "a", many(65)).await.unwrap_err().code.name(),
        "invalid"
    );
    let large = json!([{ "rooms": "r", "schemas": { "e": { "const": "x".repeat(64 * 1024) } } }]);
    assert_eq!(
        set(&broker, "a", large).await.unwrap_err().code.name(),
        "too_large"
    );
    let schemas: serde_json::Map<String, Value> = (0..65).map(|n| (format!("e{n}"), json!({}))).collect();
    let refusal = set(&broker, "a", json!([{ "rooms": "r", "schemas": schemas }]))
        .await
        .unwrap_err();
    assert!(refusal.message.contains("64 in all"), "{refusal}");
    let roles: serde_json::Map<String, Value> = (0..65).map(|n| (format!("r{n}"), json!([]))).collect();
    let refusal = set(&broker, "a", json!([{ "rooms": "r", "allow": roles }]))
        .await
        .unwrap_err();
    assert!(refusal.message.contains("more than 64 roles"), "{refusal}");

    assert_eq!(class_of(&broker, "a", "good").history.messages, 5);
    set(&broker, "a", many(64)).await.unwrap();
}

#[test]
fn what_is_read_is_written_back_in_the_same_words() {
    let written = json!([
        {
            "rooms": "orders:*",
            "history": { "messages": 1000, "age": "24h", "bytes": 1_048_576 },
            "presence": { "grace_ms": 5000 },
            "durable": true,
            "delivery": { "sample_ms": 100 },
            "rate": { "per_second": 50 },
            "allow": { "*": ["subscribe"], "staff": ["publish", "history"] },
            "schemas": { "order_created": { "type": "object" } },
        },
        { "rooms": "chat", "presence": true, "delivery": "drop_oldest" },
    ]);
    let specs = read_classes(written.as_array().unwrap().clone()).unwrap();
    let shown = serde_json::to_value(&specs).unwrap();
    let mut expected = written;
    expected[0]["history"]["age"] = json!("1d");
    expected[0]["history"]["bytes"] = json!("1MiB");
    assert_eq!(shown, expected);
    let again: Vec<ClassSpec> = serde_json::from_value(shown).unwrap();
    assert_eq!(again, specs);
}

#[tokio::test]
async fn a_class_gives_rights_to_everyone_and_to_roles_where_the_token_says_nothing() {
    let broker = Broker::start();
    let classes = json!([
        { "rooms": "orders:secret", "allow": { "boss": ["subscribe"] } },
        { "rooms": "orders:*", "allow": { "*": ["subscribe"], "staff": ["publish"] } },
    ]);
    set(&broker, "a", classes).await.unwrap();
    let mut guest = broker.join(&plain_token("a", "guest", &[])).await;
    let mut staff = broker.join(&plain_token("a", "staff", &["staff"])).await;
    guest.subscribe(&["orders:1"]).await;
    staff.subscribe(&["orders:1"]).await;
    let publish = |room: &str| json!({ "id": 7, "publish": { "room": room, "event": "e", "json": 1 } });
    assert!(staff.ask(publish("orders:1")).await.0["published"].is_object());
    assert_eq!(
        guest.ask(publish("orders:1")).await.0["error"]["name"],
        "forbidden"
    );
    // The first class that matches decides, also when it allows nothing.
    let subscribe = json!({ "id": 8, "subscribe": { "rooms": ["orders:secret"] } });
    assert_eq!(staff.ask(subscribe.clone()).await.0["error"]["name"], "forbidden");
    let mut boss = broker.join(&plain_token("a", "boss", &["boss"])).await;
    boss.subscribe(&["orders:secret"]).await;
    // A token that speaks of the room decides alone.
    let mut narrow = claims("narrow", &[]);
    narrow.grants[0].rooms = vec![cauce_broker::auth::Pattern::new("orders:*").unwrap()];
    narrow.grants[0].allow = [cauce_broker::auth::Action::Publish].into_iter().collect();
    let mut narrow = broker.join(&sign_for("a", narrow)).await;
    assert_eq!(
        narrow
            .ask(json!({ "id": 9, "subscribe": { "rooms": ["orders:1"] } }))
            .await
            .0["error"]["name"],
        "forbidden"
    );
    // Another tenant has nothing of it.
    let mut other = broker.join(&plain_token("b", "guest", &["staff"])).await;
    assert_eq!(other.ask(subscribe).await.0["error"]["name"], "forbidden");
}

#[tokio::test]
async fn a_payload_that_breaks_its_schema_is_refused_before_it_is_numbered() {
    let broker = Broker::start();
    let schema = json!({ "type": "object", "required": ["items"], "properties": {
        "items": { "type": "array", "items": { "type": "object", "properties": { "price": { "type": "number" } } } },
    } });
    let classes = json!([{ "rooms": "orders:*", "allow": { "*": ["subscribe", "publish"] }, "schemas": { "order": schema } }]);
    set(&broker, "a", classes).await.unwrap();
    let mut ann = broker.join(&plain_token("a", "ann", &[])).await;
    ann.subscribe(&["orders:1"]).await;
    let publish = |event: &str, payload: Value| json!({ "id": 5, "publish": { "room": "orders:1", "event": event, "json": payload, "exclude_sender": true } });
    let good = json!({ "items": [{ "price": 1.5 }] });
    let (reply, _) = ann.ask(publish("order", good.clone())).await;
    let seq = reply["published"]["seq"].as_u64().unwrap();
    let bad = json!({ "items": [{}, { "price": "free" }] });
    let (reply, _) = ann.ask(publish("order", bad.clone())).await;
    assert_eq!(
        (&reply["error"]["code"], &reply["error"]["name"]),
        (&json!(4314), &json!("schema_violation"))
    );
    let message = reply["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("at /items/1/price: "), "{message}");
    // Other events of the room are free.
    let (reply, _) = ann.ask(publish("other", bad.clone())).await;
    assert_eq!(reply["published"]["seq"].as_u64(), Some(seq + 1));
    // So is the same event in another tenant, and the embedding program is held to it like everyone.
    let handle = broker.server.handle();
    let payload = Payload::json(&bad).unwrap();
    let (a, b) = (handle.tenant("a").unwrap(), handle.tenant("b").unwrap());
    let refusal = a.publish("orders:1", "order", payload.clone()).unwrap_err();
    assert_eq!(refusal.code.name(), "schema_violation");
    b.publish("orders:1", "order", payload.clone()).unwrap();
    // A change holds from the next message on.
    set(&broker, "a", json!([])).await.unwrap();
    a.publish("orders:1", "order", payload).unwrap();
}

#[tokio::test]
async fn rights_that_are_taken_away_end_what_was_subscribed_under_them() {
    const GAP: u64 = 2;
    let broker = Broker::start();
    let open = json!([
        { "rooms": "orders:*", "allow": { "*": ["subscribe", "publish"] } },
        { "rooms": "chat:*", "allow": { "*": ["subscribe"] } },
    ]);
    set(&broker, "a", open).await.unwrap();
    let mut told = broker.join(&plain_token("a", "ann", &[])).await;
    let hello = json!({ "id": 1, "hello": { "version": 1, "features": GAP } });
    assert!(told.ask(hello).await.0["welcome"].is_object());
    let rooms = told.subscribe(&["orders:1", "chat:1"]).await;
    let mut untold = broker.join(&plain_token("a", "bob", &[])).await;
    untold.subscribe(&["orders:1"]).await;
    let mut granted = broker.join(&support::token("a", "cid")).await;
    granted.subscribe(&["orders:1"]).await;

    let closed = json!([{ "rooms": "chat:*", "allow": { "*": ["subscribe"] } }]);
    set(&broker, "a", closed).await.unwrap();
    let ended = told.receive().await;
    assert_eq!(ended["ended"]["room"], rooms[0]["room"], "{ended}");
    assert_eq!(ended["ended"]["error"]["name"], "forbidden");
    assert_eq!(untold.farewell().await, (4303, 4303));
    // What was published after is not for it; the other room goes on, and so does who has a grant.
    let a = broker.server.handle().tenant("a").unwrap();
    a.publish("orders:1", "e", Payload::NULL).unwrap();
    a.publish("chat:1", "e", Payload::NULL).unwrap();
    assert_eq!(told.receive().await["push"]["room"], rooms[1]["room"]);
    assert!(granted.receive().await["push"].is_object());
    let publish = json!({ "id": 7, "publish": { "room": "orders:1", "event": "e", "json": 1 } });
    assert_eq!(told.ask(publish).await.0["error"]["name"], "forbidden");
}

#[tokio::test]
async fn other_defaults_of_the_node_hold_after_a_reload() {
    let broker = Broker::start();
    set(
        &broker,
        "a",
        json!([{ "rooms": "kept", "history": { "messages": 3 } }]),
    )
    .await
    .unwrap();
    let config = support::config("rooms.history_messages=9");
    let server = &broker.server;
    server.reload(&config).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(class_of(&broker, "a", "kept").history.messages, 3);
    assert_eq!(class_of(&broker, "a", "other").history.messages, 9);
    assert_eq!(class_of(&broker, "b", "other").history.messages, 9);
}

#[tokio::test]
async fn a_request_after_the_change_is_judged_by_the_new_rights() {
    let broker = Broker::start();
    let roles = |allow: Value| TenantUpdate {
        role_grants: serde_json::from_value(json!({ "staff": [{ "rooms": ["r"], "allow": allow }] }))
            .unwrap(),
        ..TenantUpdate::default()
    };
    let (actor, tenant) = (Actor::local("test"), TenantId::new("a").unwrap());
    let mut peers = Vec::new();
    for number in 0..100 {
        let token = plain_token("a", &format!("u{number}"), &["staff"]);
        peers.push(broker.join(&token).await);
    }
    for (allow, outcome) in [
        (json!(["publish"]), "published"),
        (json!([]), "error"),
        (json!(["publish", "subscribe"]), "published"),
        (json!(["subscribe"]), "error"),
    ] {
        let admin = broker.server.admin();
        admin.update_tenant(&actor, &tenant, roles(allow)).await.unwrap();
        for peer in &mut peers {
            let publish = json!({ "id": 7, "publish": { "room": "r", "event": "e", "json": 1 } });
            let reply = peer.ask(publish).await.0;
            assert!(reply[outcome].is_object(), "{reply}");
        }
    }
}
