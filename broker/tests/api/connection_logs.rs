//! Who came and who went, and why, as the API tells it.

use cauce_broker::Persistence;
use cauce_broker::auth::secret::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{Broker, PATIENCE, config_in};
use super::users::Client;

/// The rows, once there are so many: they are written behind the traffic.
async fn rows(broker: &Broker, path: &str, count: usize) -> Vec<Value> {
    let asking = async {
        loop {
            let page = broker.get(path).await.ok();
            let items = page["items"].as_array().unwrap();
            if items.len() >= count {
                return items.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap()
}

#[tokio::test]
async fn connections_are_logged_with_their_end_and_only_for_their_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&config_in(dir.path()), Persistence::Store);
    for tenant in ["a", "b"] {
        broker.tenant(tenant).await;
    }
    let mut ann = Client::join(&broker, "a", "ann", "web/1").await;
    let mut bob = Client::join(&broker, "a", "bob", "").await;
    let _namesake = Client::join(&broker, "b", "ann", "").await;

    ann.socket.close(None).await.unwrap();
    let closed = rows(&broker, "/v1/connection-logs?tenant=a&event=closed", 1).await;
    assert_eq!(closed.len(), 1);
    assert_eq!(
        (&closed[0]["user"], &closed[0]["connection"], &closed[0]["client"]),
        (&json!("ann"), &json!(ann.id), &json!("web/1"))
    );
    assert_eq!(closed[0]["network"], "127.0.0.0/24");
    assert!(closed[0]["duration_ms"].is_u64());

    let revoked = json!({"user": "bob", "reason": "left the company"});
    broker.post("/v1/revocations?tenant=a", revoked).await.ok();
    let (code, reason) = bob.farewell().await;
    assert!(code >= 4000, "{code}");
    let told = rows(&broker, "/v1/connection-logs?tenant=a&user=bob", 2).await;
    assert_eq!(told.len(), 2);
    assert_eq!(
        (&told[0]["event"], &told[0]["code"], &told[0]["message"]),
        (&json!("closed"), &json!(code), &json!(reason))
    );
    assert_eq!(
        (&told[1]["event"], &told[1]["code"], &told[1]["duration_ms"]),
        (&json!("opened"), &Value::Null, &Value::Null)
    );

    let first = broker.get("/v1/connection-logs?tenant=a&limit=3").await.ok();
    assert_eq!(first["items"].as_array().unwrap().len(), 3);
    let next = first["next"].as_str().unwrap();
    let path = format!("/v1/connection-logs?tenant=a&limit=3&cursor={next}");
    let second = broker.get(&path).await.ok();
    assert_eq!(second["items"][0]["user"], "ann");
    assert!(second["next"].is_null());

    let key = broker.key("b", &[Scope::Stats]).await;
    let other = broker
        .ask(&key, Method::GET, "/v1/connection-logs", None)
        .await
        .ok();
    assert_eq!(other["items"].as_array().unwrap().len(), 1, "its own alone");
    let blind = broker.key("a", &[Scope::Devices]).await;
    let refused = broker.ask(&blind, Method::GET, "/v1/connection-logs", None).await;
    assert_eq!(refused.refusal().0, 403);
    let bad = broker.get("/v1/connection-logs?tenant=a&event=slept").await;
    assert_eq!(bad.refusal().0, 400);
    broker.stop().await;
}
