//! What needs no key, the second listener, and the document that describes it all.

use std::collections::BTreeSet;

use cauce_broker::{Config, Persistence};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Broker, config, read};

#[tokio::test]
async fn health_metrics_and_the_document_need_no_key() {
    let broker = Broker::in_memory();
    for path in ["/health", "/health/live", "/health/ready"] {
        let health = broker.ask("", Method::GET, path, None).await.ok();
        assert_eq!(
            (&health["status"], &health["troubles"]),
            (&json!("ok"), &json!([])),
            "{path}"
        );
    }
    let pointer = broker.ask("", Method::GET, "/", None).await.ok();
    assert!(pointer.as_str().unwrap().contains("/openapi.json"));
    let document = broker.ask("", Method::GET, "/openapi.json", None).await.ok();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    broker.stop().await;
}

#[tokio::test]
async fn metrics_count_what_happens_and_name_no_tenant() {
    let broker = Broker::in_memory();
    broker.tenant("secretive-customer").await;
    let tenant = broker.server().handle().tenant("secretive-customer").unwrap();
    let _listening = tenant.subscribe("r").unwrap();
    let path = "/v1/publish?tenant=secretive-customer";
    broker.post(path, json!({ "room": "r", "event": "e" })).await.ok();
    broker.ask("ck_wrong", Method::GET, "/v1/rooms", None).await;
    let answer = broker.ask("", Method::GET, "/metrics", None).await;
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = answer.body.as_str().unwrap();
    for line in [
        "cauce_publications_total{door=\"api\"} 1",
        "cauce_http_requests_total{status=\"2xx\"} 1",
        "cauce_http_requests_total{status=\"4xx\"} 1",
        "cauce_http_requests_unauthenticated_total 1",
        "cauce_tenants 2",
        "cauce_rooms 1",
        "# TYPE cauce_history_bytes gauge",
        "# TYPE cauce_delivery_latency_seconds histogram",
        "# TYPE cauce_closes_total counter",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(!text.contains("secretive"));
    let request = broker.client.get(format!("{}/metrics", broker.base));
    let open = read(request.header("accept", "application/openmetrics-text; version=1.0.0")).await;
    assert!(open.body.as_str().unwrap().ends_with("# EOF\n"));
    broker.stop().await;
}

/// Method and path of everything in the document.
fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "parameters")
        {
            operations.insert((method.to_uppercase(), path.clone()));
        }
    }
    operations
}

fn fill(path: &str) -> String {
    path.replace("{id}", "X")
        .replace("{kid}", "X")
        .replace("{room}", "X")
}

#[tokio::test]
async fn every_operation_of_the_document_is_served_and_no_other() {
    let broker = Broker::in_memory();
    let document = broker.get("/openapi.json").await.ok();
    let operations = operations(&document);
    let paths: BTreeSet<&String> = operations.iter().map(|(_, path)| path).collect();
    for path in paths {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let answer = broker
                .ask(&broker.operator, method.parse().unwrap(), &fill(path), None)
                .await;
            let is_described = operations.contains(&(method.to_owned(), path.clone()));
            assert_eq!(answer.status != 405, is_described, "{method} {path}: {answer:?}");
        }
    }
    assert_eq!(
        serde_json::to_value(cauce_broker::http::document()).unwrap(),
        document
    );
    broker.stop().await;
}

#[test]
fn the_document_names_every_scope_and_every_algorithm() {
    let document = serde_json::to_value(cauce_broker::http::document()).unwrap();
    let names = |schema: &str| document["components"]["schemas"][schema]["enum"].clone();
    let scopes: Vec<&str> = cauce_broker::auth::secret::Scope::ALL
        .iter()
        .map(|s| s.name())
        .collect();
    let algorithms: Vec<&str> = cauce_broker::config::Algorithm::ALL
        .iter()
        .map(|a| a.name())
        .collect();
    assert_eq!(names("ScopeName"), json!(scopes));
    assert_eq!(names("AlgorithmName"), json!(algorithms));
}

#[tokio::test]
async fn every_operation_under_v1_wants_a_key() {
    let broker = Broker::in_memory();
    let document = broker.get("/openapi.json").await.ok();
    let mut asked = 0;
    for (method, path) in operations(&document) {
        if path.starts_with("/v1/") {
            let answer = broker.ask("", method.parse().unwrap(), &fill(&path), None).await;
            // Strangers who keep trying are told to wait.
            assert!(
                matches!(answer.refusal(), (401, "unauthenticated") | (429, "rate_limited")),
                "{path}"
            );
            asked += 1;
        }
    }
    assert!(asked >= 28, "{asked}");
    broker.stop().await;
}

#[tokio::test]
async fn with_a_second_listener_the_first_one_has_nothing_internal() {
    let config = Config {
        internal_listen: Some("127.0.0.1:0".parse().unwrap()),
        ..config()
    };
    let broker = Broker::start(&config, Persistence::Memory);
    let internal = format!("http://{}", broker.server().internal_address().unwrap());
    for path in [
        "/metrics",
        "/health",
        "/health/live",
        "/health/ready",
        "/v1/tenants",
        "/v1/tenants/default",
        "/v1/tenants/default/keys",
        "/v1/api-keys",
        "/v1/stats",
    ] {
        assert_eq!(broker.get(path).await.refusal(), (404, "not_found"), "{path}");
        let there = broker
            .client
            .get(format!("{internal}{path}"))
            .bearer_auth(&broker.operator);
        read(there).await.ok();
    }
    broker.get("/v1/rooms").await.ok();
    let rooms = broker
        .client
        .get(format!("{internal}/v1/rooms"))
        .bearer_auth(&broker.operator);
    read(rooms).await.ok();
    let nobody = broker.client.get(format!("{internal}/v1/stats"));
    assert_eq!(read(nobody).await.refusal(), (401, "unauthenticated"));
    broker.stop().await;
}
