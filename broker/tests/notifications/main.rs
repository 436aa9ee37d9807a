//! Notifications over real sockets and a real database: kept for who is away, told to all tabs, seen by nobody else.

#[path = "../support/mod.rs"]
mod support;

mod api;
mod disk;
mod load;
mod people;
mod tab;

use std::path::Path;

use cauce_broker::{Persistence, Server, TenantHandle};
use cauce_protocol::message::{Audience, NotificationKind, Notify, Priority};
use cauce_protocol::{Role, UserId, wire};
use support::{Broker, PATIENCE, config};

/// A broker whose database lies in `dir`.
fn start(dir: &Path, lines: &str) -> Broker {
    let mut config = config(lines);
    config.data_dir = dir.to_owned();
    let server = Server::start(&config, Persistence::Store).expect("the broker starts");
    let address = server.address();
    Broker { server, address }
}

async fn stop(broker: Broker) {
    let stop = tokio::task::spawn_blocking(move || broker.server.stop(PATIENCE));
    assert_eq!(stop.await.expect("a thread").unwritten_rows, 0);
}

fn tenant(broker: &Broker, id: &str) -> TenantHandle {
    broker.server.handle().tenant(id).expect("a tenant")
}

fn user(id: &str) -> Audience {
    Audience::User(UserId::new(id).expect("a name"))
}

fn role(name: &str) -> Audience {
    Audience::Role(Role::new(name).expect("a name"))
}

fn notice(to: Audience, title: &str, priority: Priority) -> Notify {
    Notify {
        to,
        kind: NotificationKind::Warning,
        title: title.to_owned(),
        message: "The shelf is empty".to_owned(),
        json: br#"{"sku":7}"#.as_slice().into(),
        priority,
        expires_in_ms: 0,
        idempotency_key: String::new(),
    }
}

async fn leave(tenant: &TenantHandle, to: Audience, title: &str) -> u64 {
    let left = tenant.notify(notice(to, title, Priority::Normal)).await;
    left.expect("it is left").id
}

fn titles(page: &wire::NotificationPage) -> Vec<&str> {
    page.notifications.iter().map(|n| n.title.as_str()).collect()
}
