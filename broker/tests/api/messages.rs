//! Publishing, sending, rooms.

use std::time::Duration;

use cauce_broker::auth::secret::Scope;
use cauce_broker::mailbox::BEHIND_BYTES;
use reqwest::Method;
use serde_json::json;

use crate::support::Broker;

#[tokio::test]
async fn a_message_reaches_the_room_and_gets_the_next_number() {
    let broker = Broker::in_memory();
    let tenant = broker.server().handle().tenant("default").unwrap();
    let mut room = tenant.subscribe("lobby").unwrap();

    let body = json!({ "room": "lobby", "event": "greeting", "json": { "hello": "world" } });
    let first = broker.post("/v1/publish", body).await.ok();
    assert_eq!((&first["seq"], &first["receivers"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&first["room"], &first["repeated"]),
        (&json!("lobby"), &json!(false))
    );
    let message = room.next().await.unwrap();
    assert_eq!(message.event.as_str(), "greeting");
    assert_eq!(&message.payload.as_bytes()[..], br#"{"hello":"world"}"#);

    for (member, value, bytes) in [
        ("text", json!("hé"), "hé".as_bytes()),
        ("binary", json!("AAH/"), &[0, 1, 255][..]),
        ("json", json!(null), b"null"),
    ] {
        let body = json!({ "room": "lobby", "event": "e", member: value });
        broker.post("/v1/publish", body).await.ok();
        assert_eq!(
            &room.next().await.unwrap().payload.as_bytes()[..],
            bytes,
            "{member}"
        );
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_repeated_key_is_answered_like_the_first_and_sent_once() {
    let broker = Broker::in_memory();
    let body = json!({ "room": "r", "event": "e", "idempotency_key": "k1" });
    let first = broker.post("/v1/publish", body.clone()).await.ok();
    let mut again = broker.post("/v1/publish", body).await.ok();
    assert_eq!(again["repeated"], true);
    again["repeated"] = json!(false);
    assert_eq!(again, first);
    assert_eq!(broker.get("/v1/rooms/r").await.ok()["seq"], 1);
    broker.stop().await;
}

#[tokio::test]
async fn one_bad_message_of_a_batch_does_not_keep_the_others_back() {
    let broker = Broker::in_memory();
    let messages = json!([
        { "room": "r", "event": "e" },
        { "room": "$devices", "event": "e" },
        { "room": "r", "event": "e", "text": "x", "json": 1 },
        { "room": "r", "event": "e" },
    ]);
    let answer = broker
        .post("/v1/publish/batch", json!({ "messages": messages }))
        .await
        .ok();
    let results = answer["results"].as_array().unwrap();
    assert_eq!((&results[0]["seq"], &results[3]["seq"]), (&json!(1), &json!(2)));
    assert_eq!(results[1]["error"]["name"], "forbidden");
    assert_eq!(results[2]["error"]["name"], "invalid");
    let lists = json!({ "messages": [["r", "e"]] });
    assert_eq!(
        broker.post("/v1/publish/batch", lists).await.refusal(),
        (400, "invalid")
    );
    for count in [0, 101] {
        let messages = vec![json!({ "room": "r", "event": "e" }); count];
        let answer = broker
            .post("/v1/publish/batch", json!({ "messages": messages }))
            .await;
        assert_eq!(answer.refusal(), (400, "invalid"), "{count}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_its_code() {
    let broker = Broker::in_memory();
    for (body, expected) in [
        (json!({ "room": "", "event": "e" }), (400, "invalid")),
        (json!({ "room": "a\nb", "event": "e" }), (400, "invalid")),
        (
            json!({ "room": "x".repeat(201), "event": "e" }),
            (413, "too_large"),
        ),
        (json!({ "room": "r", "event": "" }), (400, "invalid")),
        (json!({ "room": "$devices", "event": "e" }), (403, "forbidden")),
        (
            json!({ "room": "r", "event": "e", "binary": "!" }),
            (400, "invalid"),
        ),
        (
            json!({ "room": "r", "event": "e", "text": "x".repeat(70_000) }),
            (413, "too_large"),
        ),
        (
            json!({ "room": "r", "event": "e", "exclude": vec![1; 65] }),
            (413, "too_large"),
        ),
        (
            json!({ "room": "r", "event": "e", "idempotency_key": "k".repeat(129) }),
            (413, "too_large"),
        ),
        (
            json!({ "room": "r", "event": "e", "colour": "red" }),
            (400, "invalid"),
        ),
        (
            json!({ "room": "r", "event": "e", "exclude": [1_u64 << 53] }),
            (400, "invalid"),
        ),
        (json!({ "room": "r" }), (400, "invalid")),
        (json!({ "room": 1, "event": "e" }), (400, "invalid")),
    ] {
        let shown = body.to_string().chars().take(100).collect::<String>();
        assert_eq!(
            broker.post("/v1/publish", body).await.refusal(),
            expected,
            "{shown}"
        );
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_message_for_people_names_exactly_one_kind_of_them() {
    let broker = Broker::in_memory();
    for to in [
        json!({ "user": "ada" }),
        json!({ "role": "staff" }),
        json!({ "connection": 64 }),
        json!({ "tenant": true }),
    ] {
        let mut body = to.clone();
        body["event"] = json!("e");
        broker.post("/v1/send", body).await.ok();
    }
    for to in [
        json!({}),
        json!({ "tenant": false }),
        json!({ "user": "ada", "role": "staff" }),
        json!({ "user": "ada", "tenant": true }),
        json!({ "user": "" }),
    ] {
        let mut body = to.clone();
        body["event"] = json!("e");
        assert_eq!(
            broker.post("/v1/send", body).await.refusal(),
            (400, "invalid"),
            "{to}"
        );
    }
    broker.stop().await;
}

#[tokio::test]
async fn rooms_are_listed_by_name_a_page_at_a_time() {
    let broker = Broker::in_memory();
    for room in ["b:2", "a:1", "b:1", "b:3", "é:1"] {
        broker
            .post("/v1/publish", json!({ "room": room, "event": "e" }))
            .await
            .ok();
    }
    let names = |page: &serde_json::Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|room| room["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = broker.get("/v1/rooms").await.ok();
    assert_eq!(names(&all), ["a:1", "b:1", "b:2", "b:3", "é:1"]);
    assert_eq!(all["next"], json!(null));

    let first = broker.get("/v1/rooms?prefix=b:&limit=2").await.ok();
    assert_eq!(names(&first), ["b:1", "b:2"]);
    let next = first["next"].as_str().unwrap();
    let second = broker
        .get(&format!("/v1/rooms?prefix=b:&limit=2&cursor={next}"))
        .await
        .ok();
    assert_eq!(
        (names(&second), &second["next"]),
        (vec!["b:3".to_owned()], &json!(null))
    );

    assert_eq!(broker.get("/v1/rooms/%C3%A9%3A1").await.ok()["seq"], 1);
    assert_eq!(broker.get("/v1/rooms/none").await.refusal(), (404, "not_found"));
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=!",
        "colour=red",
        "limit=1&limit=2",
    ] {
        assert_eq!(
            broker.get(&format!("/v1/rooms?{bad}")).await.refusal(),
            (400, "invalid"),
            "{bad}"
        );
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_tenants_key_acts_for_its_own_tenant_only() {
    let broker = Broker::in_memory();
    broker.tenant("acme").await;
    broker.tenant("zeta").await;
    let acme = broker.key("acme", &[Scope::Publish, Scope::Rooms]).await;
    let publish = |tenant: &str| format!("/v1/publish?tenant={tenant}");
    let body = || Some(json!({ "room": "r", "event": "e" }));
    broker.ask(&acme, Method::POST, "/v1/publish", body()).await.ok();
    broker
        .ask(&acme, Method::POST, &publish("acme"), body())
        .await
        .ok();
    broker
        .ask(&broker.operator, Method::POST, &publish("zeta"), body())
        .await
        .ok();

    // A tenant that is there and one that is not are told apart by nothing.
    let mut answers = Vec::new();
    for other in ["zeta", "none"] {
        let answer = broker.ask(&acme, Method::POST, &publish(other), body()).await;
        assert_eq!(answer.refusal(), (404, "not_found"));
        answers.push(
            answer.body["error"]["message"]
                .as_str()
                .unwrap()
                .replace(other, "…"),
        );
    }
    assert_eq!(answers[0], answers[1]);

    let rooms = broker.ask(&acme, Method::GET, "/v1/rooms", None).await.ok();
    assert_eq!(
        rooms["items"][0]["seq"], 2,
        "the room of the same name of another tenant is another room"
    );
    broker.stop().await;
}

#[tokio::test]
async fn a_broadcast_reaches_everybody_in_every_tenant_and_is_the_operators() {
    use futures_util::StreamExt as _;
    use tokio_tungstenite::tungstenite::Message;

    let broker = Broker::in_memory();
    let mut peers = Vec::new();
    for tenant in ["acme", "zeta"] {
        broker.tenant(tenant).await;
        let path = format!("/v1/tokens?tenant={tenant}");
        let token = broker.post(&path, json!({ "user": "ann" })).await.ok();
        let token = token["token"].as_str().unwrap();
        let url = format!("ws://{}/v1/ws?token={token}", broker.server().address());
        let (mut peer, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        assert!(
            peer.next()
                .await
                .unwrap()
                .unwrap()
                .to_text()
                .unwrap()
                .contains("welcome")
        );
        peers.push(peer);
    }
    let body = json!({ "event": "maintenance", "json": { "minutes": 5 } });
    let sent = broker.post("/v1/broadcast", body.clone()).await.ok();
    // The tenant `default` is one of them.
    assert_eq!(sent, json!({ "tenants": 3, "refused": 0 }));
    for peer in &mut peers {
        let Some(Ok(Message::Text(text))) = peer.next().await else {
            panic!("no text")
        };
        let expected = json!({ "direct": { "event": "maintenance", "json": { "minutes": 5 } } });
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            expected
        );
    }
    let acme = broker.key("acme", &[Scope::Publish]).await;
    let refused = broker.ask(&acme, Method::POST, "/v1/broadcast", Some(body)).await;
    assert_eq!(refused.refusal(), (403, "forbidden"));
    drop(peers);
    broker.stop().await;
}

#[tokio::test]
async fn what_waits_of_a_tenant_holds_up_its_requests_and_nobody_elses() {
    let broker = Broker::in_memory();
    broker.tenant("other").await;
    let tenant = broker.server().hub().tenants.get("default").unwrap();
    // As a shard that does not come to it would.
    let bytes = BEHIND_BYTES + 1;
    assert!(tenant.share.reserve(0, bytes, usize::MAX));
    let body = json!({ "room": "r", "event": "e" });
    let refused = broker.post("/v1/publish", body.clone()).await;
    assert_eq!(refused.refusal(), (429, "rate_limited"));
    assert_eq!(refused.headers["retry-after"], "1");
    let sent = broker
        .post("/v1/send", json!({ "tenant": true, "event": "e" }))
        .await;
    assert_eq!(sent.refusal(), (429, "rate_limited"));
    let batch = json!({ "messages": [body, body] });
    let results = broker.post("/v1/publish/batch", batch.clone()).await.ok()["results"].clone();
    for result in results.as_array().unwrap() {
        assert_eq!(result["error"]["name"], "rate_limited", "{results}");
    }
    broker.post("/v1/publish?tenant=other", body.clone()).await.ok();
    let metrics = broker.get("/metrics").await.body;
    let metrics = metrics.as_str().unwrap();
    assert!(
        metrics.contains("cauce_publications_limited_total{limit=\"queue_per_tenant\"} 4\n"),
        "{metrics}"
    );
    // A batch that waits goes on in its order, and one that was refused was given no number.
    let (results, ()) = tokio::join!(broker.post("/v1/publish/batch", batch), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        tenant.share.release(0, bytes);
    });
    let results = results.ok()["results"].clone();
    assert_eq!((&results[0]["seq"], &results[1]["seq"]), (&json!(1), &json!(2)));
    broker.stop().await;
}
