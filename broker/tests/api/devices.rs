//! Devices: announced, described, assigned, called, and what the database remembers of them.

use cauce_broker::Persistence;
use cauce_broker::auth::secret::Scope;
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Broker, PATIENCE, config_in};

const DEVICE: &str = "/v1/devices/8CBFEAA133F0";

/// Plays a plug: says what it is, answers every call with `answer`, until dropped.
async fn plug(broker: &Broker, answer: Value) -> tokio::task::JoinHandle<()> {
    let made = broker.post("/v1/device-tokens", json!({})).await.ok();
    let (mut socket, _) = tokio_tungstenite::connect_async(made["url"].as_str().unwrap())
        .await
        .unwrap();
    let status = json!({ "src": "shellyplugsg3-8cbfeaa133f0", "dst": "ws", "method": "NotifyFullStatus",
        "params": { "ts": 1_700_000_000.5, "switch:0": { "id": 0, "output": true, "apower": 41.5, "voltage": 230.1 } } });
    socket.send(Message::text(status.to_string())).await.unwrap();
    tokio::spawn(async move {
        while let Some(Ok(message)) = socket.next().await {
            let Ok(call) = serde_json::from_slice::<Value>(&message.into_data()) else {
                continue;
            };
            if call.get("method").is_none() {
                continue;
            }
            let mut reply =
                json!({ "id": call["id"], "src": "shellyplugsg3-8cbfeaa133f0", "dst": call["src"] });
            let is_own = call["method"] == "Switch.Set";
            match answer.get("code") {
                Some(_) if is_own => reply["error"] = answer.clone(),
                _ if is_own => reply["result"] = answer.clone(),
                _ => reply["result"] = json!({}),
            }
            if socket.send(Message::text(reply.to_string())).await.is_err() {
                return;
            }
        }
    })
}

/// Waits for a device to be as told.
async fn until(broker: &Broker, path: &str, is: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let answer = broker.get(path).await;
            if answer.status == 200 && is(&answer.body) {
                return answer.body;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

#[tokio::test]
async fn a_device_can_be_described_before_it_speaks() {
    let broker = Broker::in_memory();
    assert_eq!(broker.get(DEVICE).await.refusal(), (404, "not_found"));
    let made = broker
        .put(DEVICE, json!({ "metadata": { "hall": 3 } }))
        .await
        .ok();
    assert_eq!(
        (&made["metadata"], &made["presence"]),
        (&json!({ "hall": 3 }), &json!("offline"))
    );
    assert_eq!(
        (&made["state"], &made["last_seen_unix_ms"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(
        broker.get("/v1/devices").await.ok()["items"][0]["id"],
        "8CBFEAA133F0"
    );
    assert_eq!(broker.put(DEVICE, json!({})).await.ok()["metadata"], json!(null));
    for (id, body) in [
        ("8cbfeaa133f0", json!({})),
        ("a%20b", json!({})),
        ("A1", json!({ "metadata": [] })),
        ("A1", json!({ "metadata": 1 })),
        ("A1", json!({ "colour": 1 })),
    ] {
        let answer = broker.put(&format!("/v1/devices/{id}"), body.clone()).await;
        assert_eq!(answer.refusal(), (400, "invalid"), "{id} {body}");
    }
    let large = json!({ "metadata": { "x": "x".repeat(70_000) } });
    assert_eq!(broker.put(DEVICE, large).await.refusal(), (413, "too_large"));
    broker.stop().await;
}

#[tokio::test]
async fn an_assignment_is_told_to_both_rooms_of_the_device() {
    let broker = Broker::in_memory();
    let tenant = broker.server().handle().tenant("default").unwrap();
    let mut rooms = [
        tenant.subscribe("$devices").unwrap(),
        tenant.subscribe("$device:8CBFEAA133F0").unwrap(),
    ];
    let path = format!("{DEVICE}/assignment");
    let pump = json!({ "equipment_id": "pump-7", "label": "Pump 7" });
    let assigned = broker.put(&path, pump).await.ok();
    assert_eq!(assigned["assignment"]["equipment_id"], "pump-7");
    let removed = broker.delete(&path).await.ok();
    assert_eq!(removed["assignment"], json!(null));
    for room in &mut rooms {
        for equipment in [json!("pump-7"), json!(null)] {
            let message = room.next().await.unwrap();
            assert_eq!(message.event.as_str(), "smart-plug-assignment-updated");
            let payload: Value = message.payload.parse().unwrap();
            assert_eq!(
                (&payload["device"], &payload["equipment_id"]),
                (&json!("8CBFEAA133F0"), &equipment)
            );
        }
    }
    assert_eq!(
        broker.put(&path, json!({ "equipment_id": "" })).await.refusal(),
        (400, "invalid")
    );
    assert_eq!(
        broker.delete("/v1/devices/A9/assignment").await.refusal(),
        (404, "not_found")
    );
    broker.stop().await;
}

#[tokio::test]
async fn a_call_gets_the_devices_own_answer_and_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&config_in(dir.path()), Persistence::Store);
    let plug = plug(&broker, json!({ "was_on": true })).await;
    let device = until(&broker, DEVICE, |device| device["presence"] == "online").await;
    assert_eq!(device["state"]["state"]["switch:0"]["apower"], 41.5);
    let call = json!({ "method": "Switch.Set", "params": { "id": 0, "on": false }, "timeout_ms": 5_000 });
    let answer = broker.post(&format!("{DEVICE}/call"), call).await.ok();
    assert_eq!(answer["result"], json!({ "was_on": true }));

    let readings = until(&broker, &format!("{DEVICE}/readings"), |page| {
        page["items"][0].is_object()
    })
    .await;
    assert_eq!(
        (&readings["items"][0]["channel"], &readings["items"][0]["power_w"]),
        (&json!("switch:0"), &json!(41.5))
    );
    for (filter, rows) in [
        ("channel=switch:0", 1),
        ("channel=switch:1", 0),
        ("from=1700000001000", 0),
        ("to=1700000001000", 1),
    ] {
        let page = broker.get(&format!("{DEVICE}/readings?{filter}")).await.ok();
        assert_eq!(page["items"].as_array().unwrap().len(), rows, "{filter}");
    }
    let beyond = broker
        .get(&format!("{DEVICE}/readings?to=9007199254740992"))
        .await;
    assert_eq!(beyond.refusal(), (400, "invalid"));
    let audit = until(&broker, "/v1/audit?tenant=default&limit=1", |page| {
        page["items"][0]["action"] == "device.call Switch.Set"
    })
    .await;
    assert_eq!(audit["items"][0]["detail"], json!({ "id": 0, "on": false }));
    assert!(
        audit["items"][0]["actor"]
            .as_str()
            .unwrap()
            .starts_with("api_key:")
    );

    plug.abort();
    until(&broker, DEVICE, |device| device["presence"] == "offline").await;
    let events = until(&broker, &format!("{DEVICE}/events"), |page| {
        page["items"][0].is_object()
    })
    .await;
    assert_eq!(events["items"][0]["event"], "offline");
    let again = broker
        .post(&format!("{DEVICE}/call"), json!({ "method": "Switch.Set" }))
        .await;
    assert_eq!(again.refusal(), (409, "device_offline"));
    broker.stop().await;
}

#[tokio::test]
async fn a_call_that_cannot_be_answered_says_why() {
    let broker = Broker::in_memory();
    let plug = plug(&broker, json!({ "code": -103, "message": "no such id" })).await;
    until(&broker, DEVICE, |device| device["presence"] == "online").await;
    let path = format!("{DEVICE}/call");
    let refused = broker.post(&path, json!({ "method": "Switch.Set" })).await;
    assert_eq!(refused.refusal(), (422, "device_error"));
    assert!(
        refused.body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no such id")
    );
    for body in [
        json!({ "method": "" }),
        json!({ "method": "a b" }),
        json!({ "method": "Switch.Set", "params": [] }),
        json!({ "method": "Switch.Set", "timeout_ms": 0 }),
        json!({ "method": "Switch.Set", "timeout_ms": 25_001 }),
    ] {
        assert_eq!(
            broker.post(&path, body.clone()).await.refusal(),
            (400, "invalid"),
            "{body}"
        );
    }
    let unknown = broker
        .post("/v1/devices/A1/call", json!({ "method": "Switch.Set" }))
        .await;
    assert_eq!(unknown.refusal(), (404, "not_found"));
    plug.abort();
    broker.stop().await;
}

#[tokio::test]
async fn devices_of_another_tenant_are_not_there() {
    let broker = Broker::in_memory();
    broker.tenant("zeta").await;
    broker
        .put(DEVICE, json!({ "metadata": { "whose": "default" } }))
        .await
        .ok();
    let key = broker.key("zeta", &[Scope::All]).await;
    let readings = format!("{DEVICE}/readings");
    for path in [DEVICE, &readings] {
        let theirs = broker.ask(&key, Method::GET, path, None).await;
        let none = path.replace("8CBFEAA133F0", "A1");
        let none = broker.ask(&key, Method::GET, &none, None).await;
        assert_eq!((theirs.status, &theirs.body), (404, &none.body));
    }
    assert_eq!(
        broker.ask(&key, Method::GET, "/v1/devices", None).await.ok()["items"],
        json!([])
    );
    // The same id in the other tenant is another device.
    let own = broker.ask(&key, Method::PUT, DEVICE, Some(json!({}))).await.ok();
    assert_eq!(own["metadata"], json!(null));
    assert_eq!(
        broker.get(DEVICE).await.ok()["metadata"],
        json!({ "whose": "default" })
    );
    broker.stop().await;
}
