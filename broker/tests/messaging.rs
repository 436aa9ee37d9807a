//! Rooms, people and connections over real sockets, in JSON.

mod support;

use serde_json::json;
use support::{Broker, full_token, token};

#[tokio::test]
async fn a_message_reaches_every_subscriber_and_is_acknowledged_with_its_number() {
    let broker = Broker::start();
    let mut ann = broker.join(&token("a", "ann")).await;
    let mut bob = broker.join(&token("a", "bob")).await;
    let room = ann.subscribe(&["chat"]).await[0].clone();
    assert_eq!(bob.subscribe(&["chat"]).await[0], room);

    let publish = json!({"id": 7, "publish": {"room": "chat", "event": "hi", "json": {"n": 1}, "want_receivers": true}});
    let (reply, mut before) = bob.ask(publish).await;
    assert_eq!(reply["published"]["seq"], 1);
    assert_eq!(reply["published"]["receivers"], 2);
    let push = json!({"push": {"room": room["room"], "seq": 1, "event": "hi", "json": {"n": 1}}});
    assert_eq!(ann.receive().await, push);
    if before.is_empty() {
        before.push(bob.receive().await);
    }
    assert_eq!(before, [push]);
}

#[tokio::test]
async fn an_excluded_sender_gets_an_advance_if_it_understands_one() {
    let broker = Broker::start();
    let mut ann = broker.join(&token("a", "ann")).await;
    let mut bob = broker.join(&token("a", "bob")).await;
    let welcomed = ann
        .ask(json!({"id": 3, "hello": {"version": 1, "features": 1}}))
        .await
        .0;
    assert_eq!(welcomed["welcome"]["features"], 1);
    ann.subscribe(&["r"]).await;
    bob.subscribe(&["r"]).await;
    let publish = json!({"id": 2, "publish": {"room": "r", "event": "e", "text": "x", "exclude_sender": true, "want_receivers": true}});
    let (reply, mut frames) = ann.ask(publish).await;
    assert_eq!(reply["published"]["receivers"], 1);
    if frames.is_empty() {
        frames.push(ann.receive().await);
    }
    assert_eq!(frames[0]["advance"]["seq"], 1);
    assert_eq!(bob.receive().await["push"]["text"], "x");
}

#[tokio::test]
async fn a_repeated_key_is_answered_like_the_first_and_sent_once() {
    let broker = Broker::start();
    let mut ann = broker.join(&token("a", "ann")).await;
    let mut bob = broker.join(&token("a", "bob")).await;
    bob.subscribe(&["r"]).await;
    let publish = |id: u32, key: &str| json!({"id": id, "publish": {"room": "r", "event": "e", "json": id, "idempotency_key": key}});
    let first = ann.ask(publish(1, "k")).await.0;
    let again = ann.ask(publish(2, "k")).await.0;
    assert_eq!(
        (&first["published"]["seq"], &again["published"]["seq"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(again["published"]["repeated"], true);
    // Keys of different users do not meet.
    let other = bob.ask(publish(3, "k")).await;
    assert_eq!(other.0["published"]["repeated"], false);
    assert_eq!(bob.receive().await["push"]["seq"].as_u64().max(Some(1)), Some(2));
}

#[tokio::test]
async fn messages_go_to_users_connections_roles_and_tenants_and_nowhere_else() {
    let broker = Broker::start();
    let mut sender = broker.join(&full_token("a", "sender", "admin")).await;
    let mut ann = broker.join(&full_token("a", "ann", "staff")).await;
    let mut tab = broker.join(&full_token("a", "ann", "staff")).await;
    let mut bob = broker.join(&full_token("a", "bob", "guest")).await;
    let mut stranger = broker.join(&full_token("b", "ann", "staff")).await;
    let send = |id: u32, to: serde_json::Value| {
        let mut send = json!({"event": "note", "json": id, "exclude_sender": true});
        send.as_object_mut()
            .unwrap()
            .extend(to.as_object().unwrap().clone());
        json!({"id": id, "send": send})
    };
    for (id, to) in [
        (1, json!({"user": "ann"})),
        (2, json!({"role": "staff"})),
        (3, json!({"connection": bob.connection})),
        (4, json!({"tenant": true})),
        (5, json!({"connection": stranger.connection})),
    ] {
        let reply = sender.ask(send(id, to)).await.0;
        assert!(reply["sent"].is_object(), "{reply}");
    }
    for (peer, expected) in [
        (&mut ann, vec![1, 2, 4]),
        (&mut tab, vec![1, 2, 4]),
        (&mut bob, vec![3, 4]),
    ] {
        for n in expected {
            assert_eq!(
                peer.receive().await,
                json!({"direct": {"event": "note", "json": n}})
            );
        }
    }
    // Anything for the stranger would come before this answer.
    assert_eq!(
        stranger.ask(json!({"id": 9, "ping": {}})).await.1,
        Vec::<serde_json::Value>::new()
    );
}

#[tokio::test]
async fn several_rooms_are_joined_together_or_not_at_all() {
    let broker = Broker::with("limits.subscriptions_per_connection=3");
    let mut ann = broker
        .join(&support::sign_for("a", support::claims("ann", &["x*"])))
        .await;
    let refused = ann
        .ask(json!({"id": 5, "subscribe": {"rooms": ["x1", "y1"]}}))
        .await
        .0;
    assert_eq!(refused["error"]["name"], "forbidden");
    assert_eq!(ann.subscribe(&["x1", "x2", "x2"]).await.len(), 3);
    let refused = ann
        .ask(json!({"id": 6, "subscribe": {"rooms": ["x3", "x4"]}}))
        .await
        .0;
    assert_eq!(refused["error"]["name"], "quota_exceeded");
    let left = ann
        .ask(json!({"id": 7, "unsubscribe": {"rooms": ["x1", "nowhere"]}}))
        .await
        .0;
    assert!(left["unsubscribed"].is_object());
    ann.ask(json!({"id": 8, "publish": {"room": "x1", "event": "e"}}))
        .await;
    assert_eq!(ann.ask(json!({"id": 9, "ping": {}})).await.1.len(), 0);
}

#[tokio::test]
async fn every_payload_kind_crosses_the_dialects() {
    let broker = Broker::start();
    let mut plain = broker.join(&token("a", "plain")).await;
    plain.subscribe(&["r"]).await;
    let options = cauce_client::Options::new(broker.url()).token(token("a", "proto"));
    let client = cauce_client::Client::connect(options).await.unwrap();
    let mut room = client.subscribe("r").await.unwrap();
    for payload in [
        cauce_client::Payload::Json("{\"a\":[1,2]}".into()),
        cauce_client::Payload::Text("plain text é".into()),
        cauce_client::Payload::Binary(vec![0, 255, 7].into()),
    ] {
        client.publish("r", "e", payload.clone()).await.unwrap();
        let frame = plain.receive().await;
        match &payload {
            cauce_client::Payload::Json(_) => assert_eq!(frame["push"]["json"]["a"], json!([1, 2])),
            cauce_client::Payload::Text(_) => assert_eq!(frame["push"]["text"], "plain text é"),
            cauce_client::Payload::Binary(_) => assert_eq!(frame["push"]["binary"], "AP8H"),
        }
        let received = futures_util::StreamExt::next(&mut room).await.unwrap();
        let cauce_client::Event::Message(message) = received else {
            panic!("{received:?}")
        };
        assert_eq!(message.payload, payload);
    }
}

#[tokio::test]
async fn the_first_dialect_that_is_offered_is_spoken() {
    let broker = Broker::start();
    for (offer, chosen) in [
        ("cauce.v1.json, cauce.v1.proto", "cauce.v1.json"),
        ("cauce.v1.proto, cauce.v1.json", "cauce.v1.proto"),
        ("other, cauce.v1.json", "cauce.v1.json"),
    ] {
        let mut raw = support::raw::Raw::connect(broker.address).await;
        let headers = format!(
            "Sec-WebSocket-Protocol: {offer}\r\nAuthorization: Bearer {}\r\n",
            token("a", "ann")
        );
        let head = raw.upgrade("/v1/ws", &headers).await;
        assert!(
            head.contains(&format!("Sec-WebSocket-Protocol: {chosen}\r\n")),
            "{head}"
        );
        let welcome = raw.hear().await;
        assert_eq!(
            matches!(welcome, support::raw::Heard::Text(_)),
            chosen == "cauce.v1.json",
            "{welcome:?}"
        );
    }
}
