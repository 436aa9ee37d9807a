//! A real broker on a free port, and plain peers that say exactly what a test wants said.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod files;
pub mod pace;
pub mod raw;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cauce_broker::auth::secret::{CredentialKind, Issued, Scopes, issue};
use cauce_broker::auth::sign::{Claims, SigningKey, sign};
use cauce_broker::auth::{Action, Actions, KeyOwner, Pattern, Rule};
use cauce_broker::config::{Algorithm, Config, LoadInputs, load};
use cauce_broker::{Persistence, Server};
use cauce_protocol::{DeviceId, Role, TenantId, UserId};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Nothing in these tests takes longer unless it is broken, also where others use the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Secret of a tenant's key in tests.
pub fn secret(tenant: &str) -> String {
    format!("{tenant}-0123456789abcdefghijklmnopqrstuvwxyz")
}

/// A configuration with tenants `a` and `b`, generous at the door, and with times that no slow machine meets by itself.
pub fn config(lines: &str) -> Config {
    config_with_file(lines, "")
}

/// The same with more lines of the configuration file, where lists are.
pub fn config_with_file(lines: &str, file: &str) -> Config {
    let keys: String = ["a", "b"]
        .map(|tenant| {
            format!("[[auth.keys]]\ntenant = \"{tenant}\"\nkid = \"{tenant}1\"\nalg = \"HS256\"\nsecret = \"{}\"\n", secret(tenant))
        })
        .concat();
    let flags = [
        "listen=127.0.0.1:0",
        "threads.client_shards=2",
        "limits.handshake_timeout=1m",
        "limits.stall_timeout=5m",
        "heartbeat.interval=10m",
        "limits.connections_per_address=20000",
        "limits.connects_per_second=100000",
        "limits.connects_burst=100000",
        "limits.connections_per_user=20000",
        "limits.requests_per_second=100000",
        "limits.requests_burst=100000",
        "limits.publishes_per_second_per_user=1000000",
        "limits.publishes_burst_per_user=1000000",
        "limits.publish_bytes_per_second_per_connection=1GiB",
    ];
    let inputs = LoadInputs {
        file: Some(("test.toml".into(), keys + file)),
        env: Vec::new(),
        flags: flags
            .into_iter()
            .chain(lines.lines().map(str::trim).filter(|l| !l.is_empty()))
            .map(Into::into)
            .collect(),
    };
    load(inputs).expect("the test's configuration is good").config
}

/// A running broker without a database.
pub struct Broker {
    pub server: Server,
    pub address: SocketAddr,
}

impl Broker {
    pub fn start() -> Self {
        Self::with("")
    }

    /// `key=value` a line, over the defaults of [`config`].
    pub fn with(lines: &str) -> Self {
        Self::with_file(lines, "")
    }

    /// The same with more lines of the configuration file.
    pub fn with_file(lines: &str, file: &str) -> Self {
        let config = config_with_file(lines, file);
        let server = Server::start(&config, Persistence::Memory).expect("the broker starts");
        let address = server.address();
        Self { server, address }
    }

    /// A device token of a tenant, good for `device` only if one is given.
    pub fn device_token(&self, tenant: &str, device: Option<&str>) -> Issued {
        let issued = issue(CredentialKind::Device).expect("randomness");
        let owner = KeyOwner::Tenant(TenantId::new(tenant).expect("a name"));
        let mut row = issued.row(CredentialKind::Device, owner, Scopes::NONE);
        row.device = device.map(|device| DeviceId::new(device).expect("a name"));
        self.server
            .hub()
            .credentials
            .write()
            .insert(row)
            .expect("room for a credential");
        issued
    }

    /// Makes a change of what is tuned while it runs, and waits until every shard has taken it, which it does with a tick: then nobody
    /// has what was tuned before.
    pub async fn tune(&self, change: impl FnOnce()) {
        let before = Arc::downgrade(&self.server.hub().tunables());
        change();
        let taken = async {
            while before.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.expect("ticks go on");
    }

    pub fn url(&self) -> String {
        format!("ws://{}/v1/ws", self.address)
    }

    /// A JSON peer that has been welcomed.
    pub async fn join(&self, token: &str) -> Peer {
        let mut peer = self.knock(token).await;
        let welcome = peer.receive().await;
        assert!(welcome["reply"]["welcome"]["connection"].is_u64(), "{welcome}");
        peer.connection = welcome["reply"]["welcome"]["connection"].as_u64().unwrap_or(0);
        peer
    }

    /// A JSON peer whose handshake is answered; nothing has been read.
    pub async fn knock(&self, token: &str) -> Peer {
        let mut request = format!("{}?token={token}", self.url())
            .into_client_request()
            .expect("a url");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", "cauce.v1.json".parse().expect("ascii"));
        Peer::dial(self.address, request).await
    }
}

/// A plain WebSocket peer that speaks JSON.
pub struct Peer {
    pub socket: WebSocketStream<TcpStream>,
    pub connection: u64,
}

impl Peer {
    pub async fn dial(
        address: SocketAddr,
        request: tokio_tungstenite::tungstenite::http::Request<()>,
    ) -> Self {
        let stream = TcpStream::connect(address).await.expect("the broker listens");
        let config = WebSocketConfig::default().read_buffer_size(8 * 1024);
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config))
            .await
            .expect("the handshake is answered");
        Self {
            socket,
            connection: 0,
        }
    }

    pub async fn say(&mut self, message: Value) {
        self.socket
            .send(Message::text(message.to_string()))
            .await
            .expect("the broker reads");
    }

    /// The next frame; a close comes as `{"close": code, "reason": …}`.
    pub async fn receive(&mut self) -> Value {
        tokio::time::timeout(PATIENCE, async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return serde_json::from_str(&text).expect("the broker speaks JSON");
                    }
                    Some(Ok(Message::Close(frame))) => {
                        let (code, reason) =
                            frame.map_or((0, String::new()), |f| (u16::from(f.code), f.reason.to_string()));
                        return json!({ "close": code, "reason": reason });
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return json!({ "lost": error.to_string() }),
                    None => return json!({ "lost": "end" }),
                }
            }
        })
        .await
        .expect("an answer within the test's patience")
    }

    /// Asks and waits for the answer with this id; pushes that come before it are given back too.
    pub async fn ask(&mut self, message: Value) -> (Value, Vec<Value>) {
        let id = message["id"].clone();
        self.say(message).await;
        let mut before = Vec::new();
        loop {
            let frame = self.receive().await;
            if frame["reply"]["id"] == id {
                return (frame["reply"].clone(), before);
            }
            assert!(
                frame.get("close").is_none() && frame.get("lost").is_none(),
                "{frame}"
            );
            before.push(frame);
        }
    }

    /// Joins rooms and answers their positions.
    pub async fn subscribe(&mut self, rooms: &[&str]) -> Vec<Value> {
        let (reply, _) = self
            .ask(json!({ "id": 1, "subscribe": { "rooms": rooms } }))
            .await;
        reply["subscribed"]["rooms"]
            .as_array()
            .unwrap_or_else(|| panic!("not subscribed: {reply}"))
            .clone()
    }

    /// The goaway's code and the close's.
    pub async fn farewell(&mut self) -> (u64, u64) {
        let mut told = 0;
        loop {
            let frame = self.receive().await;
            if let Some(code) = frame["goaway"]["error"]["code"].as_u64() {
                told = code;
            }
            if let Some(code) = frame["close"].as_u64() {
                return (told, code);
            }
            assert!(
                frame.get("lost").is_none(),
                "the connection broke without a close: {frame}"
            );
        }
    }
}

pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// A token's claims that may do everything in rooms that match.
pub fn claims(user: &str, rooms: &[&str]) -> Claims {
    let mut claims = Claims::new(UserId::new(user).expect("a name"), unix_seconds(), 600);
    claims.grants = vec![Rule {
        rooms: rooms
            .iter()
            .map(|room| Pattern::new(room).expect("a pattern"))
            .collect(),
        allow: Action::ALL.into_iter().fold(Actions::NONE, Actions::with),
    }];
    claims
}

pub fn sign_for(tenant: &str, mut claims: Claims) -> String {
    claims.tenant = Some(TenantId::new(tenant).expect("a name"));
    let key = SigningKey::from_secret(
        Algorithm::Hs256,
        Some(format!("{tenant}1")),
        secret(tenant).as_bytes(),
    );
    sign(&claims, &key.expect("a good secret")).expect("a token")
}

/// A token for everything in a tenant but reserved rooms.
pub fn token(tenant: &str, user: &str) -> String {
    sign_for(tenant, claims(user, &["*"]))
}

/// The same with what `$` rooms and addresses need, and a role.
pub fn full_token(tenant: &str, user: &str, role: &str) -> String {
    let mut claims = claims(user, &["*", "$*"]);
    claims.roles = vec![Role::new(role).expect("a name")];
    sign_for(tenant, claims)
}
