//! Storms over real sockets: thousands come back at once, a room in which a thousand come and go a second, a publisher that does
//! not care for its limits and a reader that reads nothing among thousands who must not notice.
//!
//! Each storm takes the machine and the process's file descriptors for itself, so they run one after another.

#[path = "../support/mod.rs"]
mod support;

mod api;
mod churn;
mod crowd;
mod herd;
mod overload;
mod peer;

use std::sync::Arc;

use cauce_broker::hub::{RoomClasses, TenantSettings};
use cauce_broker::rooms::RoomClass;
use support::Broker;
use tokio::sync::{Mutex, MutexGuard};

/// Nothing in a storm takes longer unless it is broken, also where others use the machine.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// Generous where a storm would meet a limit that it is not about.
pub(crate) const OPEN_DOORS: &str = "limits.connections_per_tenant=100000\nlimits.connections_per_address=100000\n\
    limits.connections_per_user=100000\nlimits.handshake_timeout=60s\nlimits.mailbox_bytes=64MiB\n";

/// Waits until no other storm rages in this process.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static STORM: Mutex<()> = Mutex::const_new(());
    STORM.lock().await
}

/// All rooms of tenant `a` are of this class.
pub(crate) fn classify(broker: &Broker, class: RoomClass) {
    let hub = broker.server.hub();
    let tenant = hub.tenants.get("a").expect("tenant a");
    tenant.configure(TenantSettings {
        classes: RoomClasses::new(Vec::new(), Arc::new(class)),
        ..(*tenant.settings()).clone()
    });
    hub.reclassify(&tenant);
}

/// What half, all but a hundredth, and all of them did not exceed, in milliseconds.
pub(crate) fn quantiles(mut took_ms: Vec<u128>) -> [u128; 3] {
    took_ms.sort_unstable();
    let at = |part: usize| took_ms[(took_ms.len() * part / 100).min(took_ms.len() - 1)];
    [at(50), at(99), at(100)]
}
