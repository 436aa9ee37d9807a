//! A broker on a free port, and a caller with a key.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cauce_broker::admin::{Actor, Admin, NewApiKey, NewTenant};
use cauce_broker::auth::secret::{Scope, Scopes};
use cauce_broker::auth::{KeyOwner, RoleGrants};
use cauce_broker::{Config, Persistence, Server};
use cauce_protocol::TenantId;
use reqwest::{Client, Method};
use secrecy::ExposeSecret;
use serde_json::Value;

/// Longest that anything here may take: tests fail rather than hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Broker {
    // Taken by the stop.
    server: Option<Server>,
    pub(crate) base: String,
    pub(crate) operator: String,
    pub(crate) client: Client,
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) headers: reqwest::header::HeaderMap,
}

impl Answer {
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{:?}", self.body);
        self.body
    }

    /// Status and name of a refusal, whose form is checked.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        let error = self.body["error"]
            .as_object()
            .unwrap_or_else(|| panic!("{self:?}"));
        let mut members: Vec<&str> = error.keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(
            members,
            ["code", "message", "name", "retry_after_ms", "retryable"]
        );
        assert!((4000..4400).contains(&error["code"].as_u64().unwrap()));
        assert!(!error["message"].as_str().unwrap().is_empty());
        let waits = error["retry_after_ms"].as_u64().unwrap() > 0;
        assert_eq!(self.headers.contains_key("retry-after"), waits);
        (self.status, error["name"].as_str().unwrap())
    }
}

pub(crate) fn config() -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        threads: cauce_broker::config::Threads {
            client_shards: 2,
            ingest_shards: 1,
            pin: false,
            priority: 0,
        },
        ..Config::default()
    }
}

pub(crate) fn config_in(dir: &Path) -> Config {
    Config {
        data_dir: dir.to_owned(),
        ..config()
    }
}

pub(crate) fn client() -> Client {
    // Whoever was first has installed one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

impl Broker {
    pub(crate) fn in_memory() -> Self {
        Self::start(&config(), Persistence::Memory)
    }

    pub(crate) fn start(config: &Config, persistence: Persistence) -> Self {
        let server = Server::start(config, persistence).unwrap_or_else(|e| panic!("{e}"));
        let operator = server.admin().operator_key().unwrap().expose_secret().to_owned();
        Self {
            base: format!("http://{}", server.address()),
            operator,
            server: Some(server),
            client: client(),
        }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn admin(&self) -> &Arc<Admin> {
        self.server().admin()
    }

    pub(crate) async fn stop(mut self) {
        let server = self.server.take().unwrap();
        let stopped = tokio::task::spawn_blocking(move || server.stop(PATIENCE))
            .await
            .unwrap();
        assert_eq!(stopped.unwritten_rows, 0);
    }

    /// Asks with a key, or without one if it is empty.
    pub(crate) async fn ask(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if !key.is_empty() {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        read(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&self.operator, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(&self.operator, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(&self.operator, Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.ask(&self.operator, Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(&self.operator, Method::DELETE, path, None).await
    }

    /// Makes a tenant without the API.
    pub(crate) async fn tenant(&self, name: &str) -> TenantId {
        let id = TenantId::new(name).unwrap();
        let new = NewTenant {
            id: id.clone(),
            name: None,
            role_grants: RoleGrants::default(),
            room_classes: Vec::new(),
        };
        self.admin()
            .create_tenant(&Actor::local("test"), new)
            .await
            .unwrap();
        id
    }

    /// An API key of a tenant, made without the API.
    pub(crate) async fn key(&self, tenant: &str, scopes: &[Scope]) -> String {
        let owner = KeyOwner::Tenant(TenantId::new(tenant).unwrap());
        let scopes: Scopes = scopes.iter().copied().collect();
        let new = NewApiKey {
            owner,
            name: "test".to_owned(),
            scopes,
        };
        let made = self
            .admin()
            .create_api_key(&Actor::local("test"), new)
            .await
            .unwrap();
        made.secret.expose_secret().to_owned()
    }
}

pub(crate) async fn read(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer {
        status,
        body,
        headers,
    }
}
