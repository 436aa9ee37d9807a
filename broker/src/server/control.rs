//! The control thread: accepting, HTTP, key sets, closing idle rooms.

use std::sync::Arc;
use std::time::Duration;

use cauce_protocol::TenantId;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::http::{self, Api};
use crate::hub::{Hub, Watching};
use crate::transport::{Acceptor, HttpArrival, Listener};

/// Between two looks at rooms that nobody listens to.
const SWEEP: Duration = Duration::from_secs(1);

/// Between two looks at rooms whose watchers may have to be told, or whose users may have left.
const PRESENCE: Duration = Duration::from_millis(50);

/// Between two words to those who watch.
const WATCH: Duration = Duration::from_secs(1);

/// What the control thread does.
pub(super) struct Control {
    pub(super) hub: Arc<Hub>,
    pub(super) acceptor: Acceptor,
    pub(super) internal: Option<Listener>,
    pub(super) arrivals: mpsc::Receiver<HttpArrival>,
    pub(super) api: Api,
    /// Where the node can be watched.
    pub(super) operator: Option<TenantId>,
    /// The listener closes.
    pub(super) closing: CancellationToken,
    /// The thread ends.
    pub(super) ending: CancellationToken,
}

impl Control {
    pub(super) fn run(self) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = match builder.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "the control thread has no runtime"),
        };
        runtime.block_on(async move {
            let Self {
                hub,
                acceptor,
                internal,
                arrivals,
                api,
                operator,
                closing,
                ending,
            } = self;
            let accept = tokio::task::spawn_local(async move {
                tokio::select! {
                    result = acceptor.run() => {
                        if let Err(error) = result {
                            tracing::error!(%error, "accepting has ended");
                        }
                    }
                    () = closing.cancelled() => {}
                }
            });
            let keys = tokio::task::spawn_local(api.admin().clone().follow_key_sets());
            let watch = tokio::task::spawn_local(watch(hub.clone(), operator));
            let calls = tokio::task::spawn_local(hub.clone().watch_calls());
            let presence = tokio::task::spawn_local(follow_presence(hub.clone()));
            let sweep = tokio::task::spawn_local(sweep(hub));
            http::serve(api, arrivals, internal, ending).await;
            for task in [accept, sweep, watch, keys, calls, presence] {
                task.abort();
            }
        });
    }
}

async fn follow_presence(hub: Arc<Hub>) {
    let mut ticks = tokio::time::interval(PRESENCE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        hub.presence.tick(hub.clock.now().mono_ms, &hub.shards);
    }
}

async fn sweep(hub: Arc<Hub>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_ms = hub.clock.now().mono_ms;
        hub.tenants.for_each(|tenant| tenant.rooms.sweep(now_ms));
    }
}

async fn watch(hub: Arc<Hub>, operator: Option<TenantId>) {
    let mut ticks = tokio::time::interval(WATCH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watching = Watching::default();
    loop {
        ticks.tick().await;
        // It may be made, or come with a reload, at any time.
        let operator = operator.as_ref().and_then(|id| hub.tenants.get(id.as_str()));
        hub.tell_watchers(&mut watching, operator.as_deref());
    }
}
