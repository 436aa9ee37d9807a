//! Who is connected, with what, and sending them away.

use cauce_broker::auth::secret::Scope;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::support::{Broker, PATIENCE};

pub(crate) type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

pub(crate) struct Client {
    pub(crate) socket: Socket,
    pub(crate) id: u64,
}

impl Client {
    /// A client that says its name in hello.
    pub(crate) async fn join(broker: &Broker, tenant: &str, user: &str, name: &str) -> Self {
        let path = format!("/v1/tokens?tenant={tenant}");
        let body = json!({"user": user, "grants": [{"rooms": ["*"], "allow": ["subscribe", "publish"]}]});
        let made = broker.post(&path, body).await.ok();
        let url = format!("{}/v1/ws", broker.base.replace("http", "ws"));
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut client = Self { socket, id: 0 };
        let hello = json!({"id": 1, "hello": {"version": 1, "token": made["token"], "client": name}});
        let welcome = client.ask(hello).await;
        client.id = welcome["welcome"]["connection"]
            .as_u64()
            .unwrap_or_else(|| panic!("{welcome}"));
        client
    }

    async fn ask(&mut self, request: Value) -> Value {
        self.socket
            .send(Message::text(request.to_string()))
            .await
            .unwrap();
        self.hear().await["reply"].clone()
    }

    async fn hear(&mut self) -> Value {
        let heard = tokio::time::timeout(PATIENCE, async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                    Some(Ok(Message::Close(frame))) => {
                        let frame = frame.unwrap();
                        return json!({"close": u16::from(frame.code), "reason": frame.reason.as_str()});
                    }
                    Some(Ok(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        });
        heard.await.unwrap()
    }

    pub(crate) async fn farewell(&mut self) -> (u64, String) {
        loop {
            let heard = self.hear().await;
            if let Some(code) = heard["close"].as_u64() {
                return (code, heard["reason"].as_str().unwrap().to_owned());
            }
        }
    }
}

async fn all_pages(broker: &Broker, path: &str, limit: usize) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = broker.get(&format!("{path}&limit={limit}{cursor}")).await.ok();
        let part = page["items"].as_array().unwrap();
        assert!(part.len() <= limit);
        items.extend(part.iter().cloned());
        match page["next"].as_str() {
            None => return items,
            Some(next) => cursor = format!("&cursor={next}"),
        }
    }
}

#[tokio::test]
async fn users_and_their_connections_are_listed_by_page_over_all_shards() {
    let broker = Broker::in_memory();
    for tenant in ["a", "b"] {
        broker.tenant(tenant).await;
    }
    let mut clients = Vec::new();
    for n in 0..7 {
        for tab in 0..=n % 3 {
            let name = format!("shop/{tab}.0");
            clients.push(Client::join(&broker, "a", &format!("user-{n}"), &name).await);
        }
    }
    let _stranger = Client::join(&broker, "b", "user-0", "").await;

    let users = all_pages(&broker, "/v1/users?tenant=a", 2).await;
    let expected: Vec<Value> = (0..7)
        .map(|n| json!({"user": format!("user-{n}"), "connections": n % 3 + 1}))
        .collect();
    assert_eq!(users, expected);
    assert_eq!(
        all_pages(&broker, "/v1/users?tenant=a&prefix=user-3", 2).await,
        expected[3..4]
    );

    let listed = all_pages(&broker, "/v1/clients?tenant=a", 3).await;
    let ids: Vec<u64> = listed
        .iter()
        .map(|client| client["id"].as_u64().unwrap())
        .collect();
    let mut joined: Vec<u64> = clients.iter().map(|client| client.id).collect();
    joined.sort_unstable();
    assert_eq!(ids, joined, "every connection once, in order, and nobody else's");

    let theirs = all_pages(&broker, "/v1/clients?tenant=a&user=user-2", 2).await;
    assert_eq!(theirs.len(), 3);
    for client in &theirs {
        assert_eq!(client["user"], "user-2");
        assert_eq!(
            client["network"], "127.0.0.0/24",
            "an address is not told in full"
        );
        assert!(
            client["client"].as_str().unwrap().starts_with("shop/"),
            "{client}"
        );
        assert!(client["since_unix_ms"].as_u64().unwrap() > 1_600_000_000_000);
        assert_eq!(client["rooms"], 0);
        assert_eq!(client["queued_bytes"], 0);
    }

    let there = broker.get("/v1/users/user-2?tenant=a").await.ok();
    assert_eq!(
        (&there["is_connected"], &there["connections"]),
        (&json!(true), &json!(3))
    );
    assert_eq!(there["clients"].as_array().unwrap().len(), 3);
    let absent = broker.get("/v1/users/nobody?tenant=a").await.ok();
    assert_eq!(
        (&absent["is_connected"], &absent["clients"]),
        (&json!(false), &json!([]))
    );
    broker.stop().await;
}

#[tokio::test]
async fn rooms_of_a_user_are_counted_over_its_connections() {
    let broker = Broker::in_memory();
    broker.tenant("a").await;
    let mut tabs = Vec::new();
    for tab in 0..3 {
        let mut client = Client::join(&broker, "a", "ann", "").await;
        let rooms: Vec<String> = (0..=tab).map(|n| format!("room-{n}")).collect();
        client.ask(json!({"id": 2, "subscribe": {"rooms": rooms}})).await;
        tabs.push(client);
    }
    let rooms = all_pages(&broker, "/v1/users/ann/rooms?tenant=a", 2).await;
    let expected = [("room-0", 3), ("room-1", 2), ("room-2", 1)];
    let expected: Vec<Value> = expected
        .iter()
        .map(|(room, connections)| json!({"room": room, "connections": connections}))
        .collect();
    assert_eq!(rooms, expected);
    assert_eq!(
        all_pages(&broker, "/v1/users/bob/rooms?tenant=a", 2).await,
        [Value::Null; 0]
    );
    broker.stop().await;
}

#[tokio::test]
async fn a_user_and_a_connection_are_sent_away_with_a_reason_and_it_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let config = super::support::config_in(dir.path());
    let broker = Broker::start(&config, cauce_broker::Persistence::Store);
    for tenant in ["a", "b"] {
        broker.tenant(tenant).await;
    }
    let mut ann = [
        Client::join(&broker, "a", "ann", "").await,
        Client::join(&broker, "a", "ann", "").await,
    ];
    let mut bob = Client::join(&broker, "a", "bob", "").await;
    let mut namesake = Client::join(&broker, "b", "ann", "").await;

    let body = json!({"reason": "maintenance", "reconnect": true});
    let done = broker.post("/v1/users/ann/disconnect?tenant=a", body).await.ok();
    assert_eq!(done["connections"], 2);
    for client in &mut ann {
        assert_eq!(client.farewell().await, (4000, "maintenance".to_owned()));
    }
    // Another tenant's connection is not there, whatever its id.
    let missing = broker
        .delete(&format!("/v1/clients/{}?tenant=a", namesake.id))
        .await;
    assert_eq!(missing.refusal(), (404, "not_found"));
    let path = format!("/v1/clients/{}?tenant=a&reconnect=false&reason=enough", bob.id);
    broker.delete(&path).await.ok();
    assert_eq!(bob.farewell().await, (4303, "enough".to_owned()));
    assert_eq!(broker.delete(&path).await.refusal(), (404, "not_found"));
    assert_eq!(
        namesake.ask(json!({"id": 9, "ping": {}})).await["id"],
        9,
        "still there"
    );

    let long = json!({"reason": "x".repeat(124)});
    let refused = broker.post("/v1/users/ann/disconnect?tenant=a", long).await;
    assert_eq!(refused.refusal(), (413, "too_large"));

    let record = async {
        loop {
            let rows = broker.get("/v1/audit?tenant=a").await.ok();
            let rows = rows["items"].as_array().unwrap().clone();
            let found = |action: &str| rows.iter().find(|row| row["action"] == action).cloned();
            if let (Some(user), Some(client)) = (found("user.disconnect"), found("client.disconnect")) {
                return (user, client);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let (user, client) = tokio::time::timeout(PATIENCE, record).await.unwrap();
    assert_eq!(
        (&user["target"], &user["detail"]["connections"]),
        (&json!("ann"), &json!(2))
    );
    assert_eq!(client["detail"]["user"], "bob");
    broker.stop().await;
}

#[tokio::test]
async fn reading_wants_one_scope_and_disconnecting_another_and_tenants_do_not_see_each_other() {
    let broker = Broker::in_memory();
    for tenant in ["a", "b"] {
        broker.tenant(tenant).await;
    }
    let ann = Client::join(&broker, "a", "ann", "").await;
    let reader = broker.key("a", &[Scope::Stats]).await;
    let ender = broker.key("a", &[Scope::Connections]).await;
    let other = broker.key("b", &[Scope::All]).await;
    let client = format!("/v1/clients/{}", ann.id);
    let gets = [
        "/v1/users",
        "/v1/users/ann",
        "/v1/users/ann/rooms",
        "/v1/clients",
        &client,
    ];
    for path in gets {
        assert_eq!(
            broker.ask(&reader, Method::GET, path, None).await.status,
            200,
            "{path}"
        );
        assert_eq!(
            broker.ask(&ender, Method::GET, path, None).await.status,
            403,
            "{path}"
        );
        let foreign = broker
            .ask(&other, Method::GET, &format!("{path}?tenant=a"), None)
            .await;
        assert_eq!(foreign.refusal(), (404, "not_found"), "{path}");
    }
    let theirs = broker.ask(&other, Method::GET, "/v1/users", None).await.ok();
    assert_eq!(theirs["items"], json!([]));
    assert_eq!(broker.ask(&other, Method::GET, &client, None).await.status, 404);
    assert_eq!(
        broker.ask(&other, Method::DELETE, &client, None).await.status,
        404
    );
    assert_eq!(
        broker.ask(&reader, Method::DELETE, &client, None).await.status,
        403
    );
    let end = "/v1/users/ann/disconnect";
    assert_eq!(
        broker
            .ask(&reader, Method::POST, end, Some(json!({})))
            .await
            .status,
        403
    );
    let ended = broker.ask(&other, Method::POST, end, Some(json!({}))).await.ok();
    assert_eq!(ended["connections"], 0);
    assert_eq!(
        broker.get("/v1/users/ann?tenant=a").await.ok()["is_connected"],
        true
    );
    assert_eq!(
        broker.ask(&ender, Method::DELETE, &client, None).await.status,
        200
    );
    for path in ["/v1/clients/0", "/v1/clients/x", "/v1/clients/9007199254740993"] {
        assert_eq!(broker.get(path).await.refusal(), (404, "not_found"), "{path}");
    }
    broker.stop().await;
}
