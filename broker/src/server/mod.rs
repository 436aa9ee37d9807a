//! Builds the modules in order, hands each its mailboxes, starts the threads, and stops them in the order that loses nothing.
//!
//! ```text
//! cauce-control   accepting, HTTP, key sets, closing idle rooms
//! cauce-shard-N   client sockets            cauce-ingest-N   device sockets
//! cauce-store     SQL
//! ```

mod control;
mod stop;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use cauce_threads::Priority;
use parking_lot::RwLock;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, AdminError};
use crate::auth::{Authenticator, Policy};
use crate::clock::Clock;
use crate::config::Config;
use crate::connection::ConnectionSettings;
use crate::handle::Handle;
use crate::http::Api;
use crate::hub::{
    ConnectionLimits, DoorLimits, DrainSettings, Hub, NoRecords, PublishQuotas, Records, ShardPlan, Tunables,
};
use crate::rate::Quota;
use crate::rooms::{SHARDS_MAX, TableLimits};
use crate::shard::Shard;
use crate::store::{OpenError, Store, StoreConfig};
use crate::transport::{Acceptor, Certificate, Doors, Listener, TlsError};

pub use self::stop::Stopped;

use self::control::Control;

/// HTTP connections that may wait to be taken by the control thread.
const HTTP_WAITING_MAX: usize = 1_024;

/// Verified tokens that each shard remembers.
const TOKENS_REMEMBERED: usize = 4_096;

/// Where state goes that outlives a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The database named by the configuration.
    Store,
    /// Nowhere: tenants and keys come from the configuration alone. For tests and for embedding.
    Memory,
}

/// Why the broker did not start.
#[derive(Debug)]
pub enum StartError {
    Admin(AdminError),
    Bind(SocketAddr, io::Error),
    /// The configuration asks for what cannot be, in one line.
    Config(String),
    Store(OpenError),
    Thread(io::Error),
    Tls(TlsError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin(error) => error.fmt(f),
            Self::Bind(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "{address} is taken: another broker runs there, or set `listen` to another port"
                )
            }
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Config(message) => f.write_str(message),
            Self::Store(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// A running broker. Dropping it stops it without a word to the peers; [`Server::stop`] does it properly.
#[derive(Debug)]
pub struct Server {
    hub: Arc<Hub>,
    admin: Arc<Admin>,
    origins: Arc<RwLock<crate::config::Origins>>,
    certificate: Option<Arc<Certificate>>,
    address: SocketAddr,
    internal_address: Option<SocketAddr>,
    store: Option<Store>,
    shards: Vec<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    /// The listener closes.
    closing: CancellationToken,
    /// The control thread ends.
    ending: CancellationToken,
}

impl Server {
    /// Starts everything. Blocks until the broker serves; from async code, call it on a blocking thread.
    ///
    /// # Errors
    /// Whatever keeps it from serving; nothing is left running then.
    pub fn start(config: &Config, persistence: Persistence) -> Result<Self, StartError> {
        let clock = Clock::start();
        let priority = priority(config)?;
        let listener = Listener::bind(config.listen).map_err(|e| StartError::Bind(config.listen, e))?;
        let internal = match config.internal_listen {
            None => None,
            Some(address) => Some(Listener::bind(address).map_err(|e| StartError::Bind(address, e))?),
        };
        let certificate = match (&config.tls.cert, &config.tls.key) {
            (Some(cert), Some(key)) => Some(Arc::new(
                Certificate::load(cert.clone(), key.clone()).map_err(StartError::Tls)?,
            )),
            _ => None,
        };
        let (store, loaded) = match persistence {
            Persistence::Memory => (None, None),
            Persistence::Store => {
                let (store, loaded) = Store::open(store_config(config)).map_err(StartError::Store)?;
                (Some(store), Some(loaded))
            }
        };
        let records: Box<dyn Records> = match &store {
            None => Box::new(NoRecords),
            Some(store) => Box::new(store.handle()),
        };
        let hub = new_hub(config, clock, records)?;
        let admin = Admin::open(hub.clone(), store.as_ref().map(Store::handle), loaded, config);
        let admin = Arc::new(admin.map_err(StartError::Admin)?);

        let (http, arrivals) = mpsc::channel(HTTP_WAITING_MAX);
        let origins = Arc::new(RwLock::new(config.origins.clone()));
        let doors = Doors {
            origins: origins.clone(),
            http,
        };
        let (closing, ending) = (CancellationToken::new(), CancellationToken::new());
        let (address, internal_address) = (listener.address, internal.as_ref().map(|l| l.address));
        let mut server = Self {
            hub: hub.clone(),
            admin: admin.clone(),
            origins,
            certificate: certificate.clone(),
            address,
            internal_address,
            store,
            shards: Vec::new(),
            control: None,
            closing: closing.clone(),
            ending: ending.clone(),
        };
        for index in 0..hub.plan.total() {
            let thread = spawn_shard(index, hub.clone(), doors.clone(), config.threads.pin, priority);
            server.shards.push(thread.map_err(StartError::Thread)?);
        }
        drop(doors);
        let api = Api::new(hub.clone(), admin, internal_address.is_some());
        let acceptor = Acceptor {
            listener,
            hub: hub.clone(),
            certificate,
        };
        let control = Control {
            hub,
            acceptor,
            internal,
            arrivals,
            api,
            operator: config.admin.operator_tenant.clone(),
            closing,
            ending,
        };
        let thread = Builder::new()
            .name("cauce-control".into())
            .spawn(move || control.run());
        server.control = Some(thread.map_err(StartError::Thread)?);
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics, health and administration are, if they have an address of their own.
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal_address
    }

    /// Whether the address speaks TLS.
    pub fn has_tls(&self) -> bool {
        self.certificate.is_some()
    }

    /// The broker from inside the process.
    pub fn handle(&self) -> Handle {
        Handle::new(self.hub.clone())
    }

    /// The centre itself, for tests of what no client and no administrator may do.
    #[cfg(feature = "testing")]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Tenants, keys and tokens.
    pub fn admin(&self) -> &Arc<Admin> {
        &self.admin
    }

    /// Takes what may change while running from another configuration, and reads certificates and keys again. Open
    /// connections stay.
    ///
    /// # Errors
    /// If a certificate or key cannot be used; the old ones stay in use.
    pub fn reload(&self, config: &Config) -> Result<(), StartError> {
        if let Some(certificate) = &self.certificate {
            certificate.reload().map_err(StartError::Tls)?;
        }
        self.admin.reload(config).map_err(StartError::Admin)?;
        self.hub.tune(tunables(config));
        self.hub.door.configure(door_limits(config));
        *self.origins.write() = config.origins.clone();
        Ok(())
    }
}

fn new_hub(config: &Config, clock: Clock, records: Box<dyn Records>) -> Result<Arc<Hub>, StartError> {
    Ok(Arc::new(Hub::new(
        plan(config)?,
        tunables(config),
        table_limits(config),
        door_limits(config),
        config.limits.mailbox_bytes,
        clock,
        records,
    )))
}

/// A node's centre with its tenants and keys, without threads, sockets and database: for benches, which do a shard's work
/// themselves.
///
/// # Errors
/// If the configuration asks for what cannot be.
#[cfg(feature = "testing")]
pub fn hub_alone(config: &Config) -> Result<Arc<Hub>, StartError> {
    let hub = new_hub(config, Clock::start(), Box::new(NoRecords))?;
    Admin::open(hub.clone(), None, None, config).map_err(StartError::Admin)?;
    Ok(hub)
}

/// The client shards' priority, if the system grants it.
fn priority(config: &Config) -> Result<Priority, StartError> {
    let above = config.threads.priority;
    let priority = Priority::new(above).unwrap_or_default();
    crate::threads::check(priority).map_err(|error| {
        StartError::Config(format!(
            "threads.priority is {above}, and the system refuses it ({error}): give the broker CAP_SYS_NICE, or LimitNICE=-{above} \
             in its unit, or set it to 0"
        ))
    })?;
    Ok(priority)
}

fn spawn_shard(
    index: usize,
    hub: Arc<Hub>,
    doors: Doors,
    pin: bool,
    priority: Priority,
) -> io::Result<JoinHandle<()>> {
    let clients = hub.plan.clients;
    let name = match index.checked_sub(clients) {
        None => format!("cauce-shard-{index}"),
        Some(ingest) => format!("cauce-ingest-{ingest}"),
    };
    Builder::new().name(name).spawn(move || {
        // Says so also when the thread panics.
        let _ended = Ended(hub.clone(), index);
        if pin {
            crate::threads::pin(index);
        }
        // Devices can wait for clients, where both share a core: their frames come in thousands, and nobody looks at one.
        if index < clients {
            crate::threads::hurry(priority);
        }
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = match builder.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(index, %error, "a shard has no runtime"),
        };
        runtime.block_on(async {
            let auth = Authenticator::new(hub.keys.clone(), hub.tunables().policy, TOKENS_REMEMBERED)
                .with_nudge(hub.key_missing.clone());
            let shard = std::rc::Rc::new(Shard::new(index, hub, auth));
            // Tasks, not parts of this future: the runtime would poll that before all others every time that it looks for
            // events, and turns would come after each few reads instead of after all that can be read.
            let (turns, timers) = (shard.clone(), shard);
            let ended = tokio::select! {
                ended = spawn_local(async move { turns.run(&doors).await }) => ended,
                ended = spawn_local(async move { timers.run_timers().await }) => ended,
            };
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        });
    })
}

/// Tells the hub that a shard's thread has ended.
struct Ended(Arc<Hub>, usize);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.shard_ended(self.1);
    }
}

fn plan(config: &Config) -> Result<ShardPlan, StartError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plan = ShardPlan {
        clients: match config.threads.client_shards {
            0 => cores,
            shards => shards,
        },
        ingest: config.threads.ingest_shards,
    };
    if plan.total() > SHARDS_MAX {
        let message = format!(
            "threads: {} client and {} ingest shards are more than the {SHARDS_MAX} that a node may have",
            plan.clients, plan.ingest
        );
        return Err(StartError::Config(message));
    }
    Ok(plan)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn tunables(config: &Config) -> Tunables {
    let limits = &config.limits;
    Tunables {
        connection: ConnectionSettings {
            requests: Quota::per_second(limits.requests_per_second, limits.requests_burst),
            requests_burst: limits.requests_burst,
            subscriptions_max: limits.subscriptions_per_connection,
            calls_max: limits.calls_outstanding,
            call_timeout_ms: ms(limits.call_timeout),
        },
        connections: ConnectionLimits {
            per_tenant_max: limits.connections_per_tenant,
            per_user_max: limits.connections_per_user,
        },
        requests: (limits.requests_per_second, limits.requests_burst),
        frame_bytes_max: limits.frame_bytes,
        payload_bytes_max: limits.payload_bytes,
        payload_depth_max: limits.payload_depth,
        fragments_max: FRAGMENTS_MAX,
        outbox_bytes_max: limits.outbox_bytes,
        stall_ms: ms(limits.stall_timeout),
        recovery_window_ms: ms(config.rooms.recovery_window),
        control_frames: Quota::per_second(limits.control_frames_per_second, limits.control_frames_burst),
        handshake_ms: ms(limits.handshake_timeout),
        handshake_bytes_max: limits.handshake_bytes,
        assembly_ms: ASSEMBLY_MS,
        heartbeat_interval_ms: ms(config.heartbeat.interval),
        heartbeat_timeout_ms: ms(config.heartbeat.timeout),
        device_frame_bytes_max: limits.device_frame_bytes,
        device_frames: Quota::per_minute(limits.device_messages_per_minute, limits.device_messages_burst),
        devices_max: limits.devices_per_tenant,
        dedup_window_ms: ms(config.rooms.dedup_window),
        presence_users_max: limits.presence_users_per_room,
        dedup_keys_max: config.rooms.dedup_keys,
        notifications_kept_ms: ms(config.notifications.retention),
        policy: Policy::from(&config.auth),
        query_token: config.auth.query_token,
        publishing: PublishQuotas {
            user: Quota::per_second(
                limits.publishes_per_second_per_user,
                limits.publishes_burst_per_user,
            ),
            tenant: Quota::per_second(
                limits.publishes_per_second_per_tenant,
                limits.publishes_burst_per_tenant,
            ),
            connection_bytes: PublishQuotas::bytes_per_second(
                limits.publish_bytes_per_second_per_connection,
                limits.payload_bytes,
            ),
            tenant_bytes: PublishQuotas::bytes_per_second(
                limits.publish_bytes_per_second_per_tenant,
                limits.payload_bytes,
            ),
        },
        drain: DrainSettings {
            spread_ms: ms(config.drain.spread),
            retry_after_ms: u32::try_from(ms(config.drain.retry_after)).unwrap_or(u32::MAX),
        },
    }
}

/// Pieces that one WebSocket message may come in.
const FRAGMENTS_MAX: usize = 4_096;

/// From a message's first byte to its last, in milliseconds.
const ASSEMBLY_MS: u64 = 10_000;

fn table_limits(config: &Config) -> TableLimits {
    TableLimits {
        rooms_max: config.limits.rooms_per_tenant,
        linger_ms: ms(config.rooms.linger),
        history_bytes_max: config.limits.history_bytes_per_tenant,
    }
}

fn door_limits(config: &Config) -> DoorLimits {
    DoorLimits {
        connections_max: config.limits.connections,
        per_address_max: config.limits.connections_per_address,
        connects: Quota::per_second(config.limits.connects_per_second, config.limits.connects_burst),
    }
}

fn store_config(config: &Config) -> StoreConfig {
    const DAY_SECONDS: u64 = 86_400;
    // At least a day: the configuration allows an hour, and what is a little too long kept is not lost.
    let days = |duration: Duration| {
        Some(u32::try_from(duration.as_secs().div_ceil(DAY_SECONDS)).unwrap_or(u32::MAX))
    };
    let mut store = StoreConfig::new(config.data_dir.clone());
    store.limits.flush_rows = config.store.flush_rows;
    store.limits.flush_age_ms = ms(config.store.flush_age);
    store.limits.bytes_max = config.store.pending_bytes;
    store.messages.bytes_max = config.store.messages_bytes;
    store.messages.commit_delay_ms = ms(config.store.commit_delay);
    store.retention.readings_days = days(config.store.readings_retention);
    store.retention.events_days = days(config.store.logs_retention);
    store.retention.audit_days = days(config.store.logs_retention);
    store.retention.connections_days = days(config.store.logs_retention);
    store.notifications.per_audience_max = config.notifications.per_audience;
    store.notifications.per_tenant_max = config.notifications.per_tenant;
    store
}
