//! The same through the HTTP API, on behalf of a user.

use cauce_protocol::wire;
use cauce_protocol::wire::server_frame::Message;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::start;
use crate::support::{Broker, PATIENCE, token};
use crate::tab::Tab;

struct Api {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Api {
    fn of(broker: &Broker) -> Self {
        // Whoever was first has installed one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = broker.server.admin().operator_key().expect("a new database");
        Self {
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(PATIENCE)
                .build()
                .expect("a client"),
            base: format!("http://{}", broker.address),
            key: key.expose_secret().to_owned(),
        }
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.bearer_auth(&self.key).send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.answer(self.client.get(format!("{}{path}", self.base))).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.answer(self.client.post(format!("{}{path}", self.base)).json(&body))
            .await
    }
}

#[tokio::test]
async fn the_api_leaves_lists_and_marks_on_behalf_of_a_user() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = start(dir.path(), "");
    let api = Api::of(&broker);
    let mut tab = Tab::open(&broker, &token("a", "ana")).await;
    let body = json!({"user": "ana", "kind": "alert", "title": "Stock", "message": "Low", "json": {"sku": 7},
        "priority": "high", "expires_in_ms": 60_000, "idempotency_key": "k"});
    let path = "/v1/notifications?tenant=a";
    assert_eq!(
        api.post(path, body.clone()).await,
        (200, json!({"id": 1, "repeated": false}))
    );
    assert_eq!(
        api.post(path, body).await,
        (200, json!({"id": 1, "repeated": true}))
    );
    assert_eq!(tab.notified().await.title, "Stock");
    api.post(path, json!({"role": "staff", "title": "Shift"})).await;
    api.post(path, json!({"tenant": true, "title": "Hello"})).await;

    let (_, page) = api
        .get("/v1/users/ana/notifications?tenant=a&roles=staff&limit=2")
        .await;
    let shown = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().expect("items").iter();
        items
            .map(|item| item["title"].as_str().expect("a title").to_owned())
            .collect()
    };
    assert_eq!(
        (shown(&page), &page["unread"]),
        (vec!["Hello".to_owned(), "Shift".to_owned()], &json!(3))
    );
    let next = page["next"].as_str().expect("another page");
    let (_, page) = api
        .get(&format!(
            "/v1/users/ana/notifications?tenant=a&limit=2&cursor={next}"
        ))
        .await;
    assert_eq!(
        (shown(&page), &page["next"]),
        (vec!["Stock".to_owned()], &Value::Null)
    );
    let item = &page["items"][0];
    assert_eq!(
        (&item["kind"], &item["priority"], &item["json"], &item["read"]),
        (&json!("alert"), &json!("high"), &json!({"sku": 7}), &json!(false))
    );

    let read = api
        .post(
            "/v1/users/ana/notifications/read?tenant=a",
            json!({"ids": [1, 2]}),
        )
        .await;
    assert_eq!(read, (200, json!({"ids": [1], "up_to": 0, "unread": 1})));
    assert_eq!(tab.notified().await.title, "Hello");
    let told = wire::NotificationsRead {
        ids: vec![1],
        up_to: 0,
        unread: 1,
    };
    assert_eq!(tab.told().await, Message::NotificationsRead(told));

    for (path, body) in [
        (path, json!({"title": "to nobody"})),
        (path, json!({"user": "ana", "tenant": true, "title": "to two"})),
        (path, json!({"user": "ana", "title": ""})),
        (path, json!({"user": "ana", "title": "t", "kind": "loud"})),
        (
            path,
            json!({"user": "ana", "title": "t", "expires_in_ms": 40_000_000_000u64}),
        ),
        ("/v1/users/ana/notifications/read?tenant=a", json!({})),
    ] {
        let (status, answer) = api.post(path, body).await;
        assert_eq!(
            (status, &answer["error"]["name"]),
            (400, &json!("invalid")),
            "{answer}"
        );
    }
    let (status, _) = api.get("/v1/users/ana/notifications?tenant=nowhere").await;
    assert_eq!(status, 404);
    let (_, page) = api.get("/v1/users/ana/notifications?tenant=b").await;
    assert_eq!(shown(&page), Vec::<String>::new(), "ana of b is somebody else");
}
