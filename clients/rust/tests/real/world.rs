//! A real broker in this process, and a network to it that can be cut.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cauce_broker::admin::{Actor, NewTenant, NewToken, read_classes};
use cauce_broker::auth::{Action, RoleGrants, grant};
use cauce_broker::config::{LoadInputs, load};
use cauce_broker::{Persistence, Server};
use cauce_client::{Client, Options};
use cauce_protocol::{TenantId, UserId};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// Long enough for a busy machine; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub async fn patiently<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it took too long")
}

/// A broker with one tenant whose rooms keep history and presence.
pub struct World {
    server: Option<Server>,
    dir: tempfile::TempDir,
    pub address: SocketAddr,
}

impl World {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = serve(dir.path(), "127.0.0.1:0").await;
        let classes = json!([
            {"rooms": "short.*", "history": {"messages": 3}},
            {"rooms": "*", "history": {"messages": 1000}, "presence": true},
        ]);
        let new = NewTenant {
            id: TenantId::new("clinic").unwrap(),
            name: None,
            role_grants: RoleGrants::default(),
            room_classes: read_classes(classes.as_array().unwrap().clone()).unwrap(),
        };
        let created = server.admin().create_tenant(&Actor::local("test"), new).await;
        created.unwrap();
        Self {
            address: server.address(),
            server: Some(server),
            dir,
        }
    }

    /// Stops it and starts it again on the same port and data.
    pub async fn restart(&mut self) {
        let server = self.server.take().unwrap();
        let stopping = tokio::task::spawn_blocking(move || server.stop(Duration::from_secs(10)));
        stopping.await.unwrap();
        self.server = Some(serve(self.dir.path(), &self.address.to_string()).await);
    }

    pub fn url(&self) -> String {
        format!("ws://{}/v1/ws", self.address)
    }

    /// A token that may do everything that clients may.
    pub async fn token(&self, user: &str, lifetime: Duration) -> String {
        let rule = |rooms: &[&str]| grant::Rule {
            rooms: rooms
                .iter()
                .map(|room| grant::Pattern::new(room).unwrap())
                .collect(),
            allow: Action::ALL.into_iter().collect(),
        };
        let new = NewToken {
            user: UserId::new(user).unwrap(),
            roles: Vec::new(),
            grants: vec![rule(&[
                "*",
                "$method:*",
                "$user:*",
                "$notify:*",
                "$tenant",
                "$role:*",
            ])],
            info: None,
            lifetime,
        };
        let server = self.server.as_ref().unwrap();
        let tenant = TenantId::new("clinic").unwrap();
        let token = server
            .admin()
            .create_token(&Actor::local("test"), &tenant, new)
            .await;
        token.unwrap().token.expose_secret().to_owned()
    }

    pub async fn client(&self, user: &str) -> Client {
        self.client_with(user, &self.url(), |options| options).await
    }

    pub async fn client_with(&self, user: &str, url: &str, with: impl FnOnce(Options) -> Options) -> Client {
        let token = self.token(user, Duration::from_secs(3600)).await;
        let options = with(Options::new(url).token(token));
        patiently(Client::connect(options)).await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // A thread of its own: a test may end within a runtime.
            let _ = std::thread::spawn(move || server.stop(Duration::from_secs(5))).join();
        }
    }
}

async fn serve(dir: &Path, listen: &str) -> Server {
    let flags = vec![
        format!("listen={listen}"),
        format!("data_dir={}", dir.display()),
        "limits.connects_per_second=1000".to_owned(),
        "limits.connects_burst=1000".to_owned(),
    ];
    let inputs = LoadInputs {
        flags,
        ..LoadInputs::default()
    };
    let config = load(inputs).unwrap().config;
    tokio::task::spawn_blocking(move || Server::start(&config, Persistence::Store).unwrap())
        .await
        .unwrap()
}

/// A wire between client and broker that can be cut, and held cut.
pub struct Wire {
    address: SocketAddr,
    up: watch::Sender<bool>,
    cut: Arc<Notify>,
}

impl Wire {
    pub async fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let up = watch::Sender::new(true);
        let cut = Arc::new(Notify::new());
        let (is_up, cutting) = (up.subscribe(), Arc::clone(&cut));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if !*is_up.borrow() {
                    continue;
                }
                let cutting = Arc::clone(&cutting);
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(broker).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        () = cutting.notified() => {}
                    }
                });
            }
        });
        Self { address, up, cut }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/v1/ws", self.address)
    }

    /// Whatever is connected loses its connection, and none is had until [`Wire::mend`].
    pub fn cut(&self) {
        self.up.send_replace(false);
        self.cut.notify_waiters();
    }

    pub fn mend(&self) {
        self.up.send_replace(true);
    }
}
