//! The first start, the next ones, and what must never be shown.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cauce_broker::{Persistence, Server};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::json;

use crate::support::{Broker, config, config_in};

fn start(dir: &Path) -> Broker {
    Broker::start(&config_in(dir), Persistence::Store)
}

#[tokio::test]
async fn the_first_start_leaves_a_key_that_only_its_owner_can_read_and_that_works() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path());
    let file = dir.path().join("operator.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&file).unwrap().trim_end(), broker.operator);
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        !names.iter().any(|name| name.to_string_lossy().ends_with(".new")),
        "{names:?}"
    );

    let tenants = broker.get("/v1/tenants").await.ok();
    assert_eq!(tenants["items"][0]["id"], "default");
    let keys = broker.get("/v1/tenants/default/keys").await.ok();
    assert_eq!(keys["items"][0]["alg"], "HS256");
    let token = broker.post("/v1/tokens", json!({ "user": "ada" })).await.ok();
    assert_eq!(token["token"].as_str().unwrap().split('.').count(), 3);
    broker.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_tenants_keys_tokens_and_devices() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path());
    let acme = json!({ "id": "acme", "name": "Acme", "settings": { "role_grants":
        { "staff": [{ "rooms": ["chat:*"], "allow": ["subscribe"] }] } } });
    broker.post("/v1/tenants", acme).await.ok();
    broker.post("/v1/tenants", json!({ "id": "off" })).await.ok();
    broker
        .patch("/v1/tenants/off", json!({ "disabled": true }))
        .await
        .ok();
    let added = broker
        .post("/v1/tenants/acme/keys", json!({ "alg": "HS512", "kid": "k1" }))
        .await
        .ok();
    let gone = broker
        .post("/v1/tenants/acme/keys", json!({ "alg": "HS256", "kid": "k2" }))
        .await
        .ok();
    assert_eq!(gone["kid"], "k2");
    broker.delete("/v1/tenants/acme/keys/k2").await.ok();
    let made = json!({ "name": "server", "tenant": "acme", "scopes": ["publish", "devices"] });
    let key = broker.post("/v1/api-keys", made).await.ok()["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let revoked = json!({ "tenant": "acme", "scopes": ["publish"] });
    let revoked = broker.post("/v1/api-keys", revoked).await.ok();
    broker
        .delete(&format!(
            "/v1/api-keys/{}?tenant=acme",
            revoked["id"].as_str().unwrap()
        ))
        .await
        .ok();
    let token = json!({ "device": "8CBFEAA133F0", "label": "pump" });
    let token = broker.post("/v1/device-tokens?tenant=acme", token).await.ok();
    let device = "/v1/devices/8CBFEAA133F0";
    broker
        .put(
            &format!("{device}?tenant=acme"),
            json!({ "metadata": { "hall": 3 } }),
        )
        .await
        .ok();
    let equipment = json!({ "equipment_id": "pump-7", "label": "Pump 7" });
    broker
        .put(&format!("{device}/assignment?tenant=acme"), equipment)
        .await
        .ok();
    let before = broker.get("/v1/tenants").await.ok();
    let operator = broker.operator.clone();
    broker.stop().await;

    let broker = start(dir.path());
    assert_eq!(broker.operator, operator);
    assert_eq!(broker.get("/v1/tenants").await.ok(), before);
    let keys = broker.get("/v1/tenants/acme/keys").await.ok();
    assert_eq!(keys["items"].as_array().unwrap().len(), 1);
    assert_eq!(keys["items"][0]["created_unix_ms"], added["created_unix_ms"]);
    broker
        .ask(
            &key,
            Method::POST,
            "/v1/publish",
            Some(json!({ "room": "r", "event": "e" })),
        )
        .await
        .ok();
    let revoked = revoked["key"].as_str().unwrap();
    let refused = broker.ask(revoked, Method::GET, "/v1/rooms", None).await;
    assert_eq!(refused.refusal(), (401, "token_invalid"));
    let tokens = broker.get("/v1/device-tokens?tenant=acme").await.ok();
    assert_eq!(
        (&tokens["items"][0]["id"], &tokens["items"][0]["label"]),
        (&token["id"], &json!("pump"))
    );
    let device = broker.ask(&key, Method::GET, device, None).await.ok();
    assert_eq!(device["metadata"], json!({ "hall": 3 }));
    assert_eq!(device["assignment"]["equipment_id"], "pump-7");
    assert_eq!(device["presence"], "offline");
    let audit = broker.get("/v1/audit?tenant=acme&limit=3").await.ok();
    assert_eq!(audit["items"][0]["action"], "device.assign");
    assert!(audit["next"].is_string());
    broker.stop().await;
}

#[tokio::test]
async fn a_key_file_of_another_database_stops_the_first_start() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    start(other.path()).stop().await;
    fs::copy(other.path().join("operator.key"), dir.path().join("operator.key")).unwrap();
    let error = Server::start(&config_in(dir.path()), Persistence::Store)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("operator.key") && error.contains("another database"),
        "{error}"
    );
    // The broker that it belongs to still starts.
    start(other.path()).stop().await;
}

#[tokio::test]
async fn a_first_start_that_was_cut_off_is_finished_or_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path());
    let operator = broker.operator.clone();
    broker.stop().await;
    let (file, draft) = (
        dir.path().join("operator.key"),
        dir.path().join("operator.key.new"),
    );
    // Cut off between the database and the name of the file.
    fs::rename(&file, &draft).unwrap();
    let broker = start(dir.path());
    assert_eq!(
        (broker.operator.as_str(), file.exists(), draft.exists()),
        (operator.as_str(), true, false)
    );
    broker.stop().await;
    // Cut off before the database knew.
    fs::File::create(&draft).unwrap().write_all(b"ck_half").unwrap();
    let broker = start(dir.path());
    assert_eq!(
        (broker.operator.as_str(), draft.exists()),
        (operator.as_str(), false)
    );
    broker.stop().await;
}

#[tokio::test]
async fn without_the_master_key_the_broker_says_so_instead_of_starting_with_fewer_keys() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path()).stop().await;
    fs::remove_file(dir.path().join("master.key")).unwrap();
    let error = Server::start(&config_in(dir.path()), Persistence::Store)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("signing key") && error.contains("master key"),
        "{error}"
    );
}

#[tokio::test]
async fn a_broker_without_a_database_says_that_it_keeps_no_history() {
    let broker = Broker::in_memory();
    broker.put("/v1/devices/A1", json!({})).await.ok();
    for path in ["/v1/devices/A1/readings", "/v1/devices/A1/events", "/v1/audit"] {
        assert_eq!(broker.get(path).await.refusal(), (501, "unsupported"), "{path}");
    }
    broker.stop().await;
}

/// Everything that was logged, of all tests in this process that run meanwhile: more is only better here.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The last 32 characters: random in every kind of secret here. Not what follows the last `_`, which base64url
/// contains too: that may be a letter, or nothing, and is then found everywhere.
fn random_part(secret: &str) -> &str {
    &secret[secret.len() - 32..]
}

#[tokio::test]
async fn no_secret_is_in_a_log_or_in_debug() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&config_in(dir.path()), Persistence::Store);
    let mut secrets = vec![broker.operator.clone()];
    let mut keep = |answer: serde_json::Value, member: &str| {
        secrets.push(answer[member].as_str().unwrap().to_owned());
    };
    let api_key = json!({ "tenant": "default", "scopes": ["all"] });
    keep(broker.post("/v1/api-keys", api_key).await.ok(), "key");
    keep(
        broker
            .post("/v1/device-tokens", json!({ "label": "x" }))
            .await
            .ok(),
        "token",
    );
    keep(
        broker
            .post("/v1/tenants/default/keys", json!({ "alg": "HS256" }))
            .await
            .ok(),
        "secret",
    );
    keep(
        broker.post("/v1/tokens", json!({ "user": "ada" })).await.ok(),
        "token",
    );
    let canary = "canary-7Qx2mZ9vLw4bT8nRk3pYc6dHf1sJg5aE";
    let given = json!({ "alg": "HS256", "secret": canary });
    broker.post("/v1/tenants/default/keys", given).await.ok();
    secrets.push(canary.to_owned());
    // A bad key is as good as a secret: it may be a good one with a typing error.
    let mistyped = format!("{}x", broker.operator);
    broker.ask(&mistyped, Method::GET, "/v1/rooms", None).await;
    let device = secrets[2].clone();
    broker
        .client
        .get(format!("{}/shelly?token={device}", broker.base))
        .send()
        .await
        .unwrap();

    let mut shown = format!("{:?} {:?} {:?}", broker.server(), broker.admin(), config());
    for secret in secrets.iter().map(|secret| random_part(secret)) {
        assert!(!shown.contains(secret), "in Debug");
    }
    broker.stop().await;
    shown = String::from_utf8_lossy(&captured.0.lock()).into_owned();
    assert!(shown.contains("signing_key.add") && shown.contains("device_token.create"));
    for secret in secrets.iter().map(|secret| random_part(secret)) {
        assert!(!shown.contains(secret), "in the log");
    }
    let database = fs::read(dir.path().join("cauce.db")).unwrap();
    for secret in secrets.iter().map(|secret| random_part(secret)) {
        assert!(
            !database.windows(secret.len()).any(|w| w == secret.as_bytes()),
            "in the database"
        );
    }
}
