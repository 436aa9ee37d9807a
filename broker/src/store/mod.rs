//! Floor 3: what outlives a restart. SQL on a thread of its own; nobody else ever waits for it.
//!
//! ```text
//! shards, doors ── StoreHandle::device_state, reading, … ──▶ batch (bounded, in memory) ──▶ writer ──▶ SQLite
//! durable rooms ── StoreHandle::message ─────────────▶ queue (bounded, in memory) ──▶ writer, at once; then the callback
//! API, CLI ─────── StoreHandle::create_tenant, …         ──────────────────────────────────▶ writer (own transaction)
//! all doors ────── StoreHandle::leave_notification, …    ──▶ notifications (bounded, by tenant) ──▶ writer (one for many)
//! API ──────────── StoreHandle::readings, devices, …     ──▶ readers
//! ```
//!
//! What must stay true:
//! - The hot path takes a lock for one push into a list, and nothing else: no await, no I/O, no allocation that waits.
//! - Whoever waits for a message's commit hears of it once, after the commit has been synced. If that takes long he is told
//!   first that it is not known; never the contrary of what then happens.
//! - What was accepted is written or still in memory; an error of the database never drops it. Only a row that the
//!   database would never take is given up, alone, and counted.
//! - An admin operation answers after its transaction has been committed and synced to the disk.
//! - `sql` is the only module that speaks SQL. Every statement there names the tenant, but for those that load at start,
//!   count for the operator, or delete by age.
//! - One process at a time owns a data directory.

mod admin;
mod batch;
#[cfg(feature = "testing")]
mod bench;
mod bounds;
mod commit;
mod config;
mod counters;
mod error;
mod handle;
mod lane;
mod messages;
mod migrate;
mod notifications;
mod place;
mod queue;
mod revocations;
mod rows;
mod slots;
mod sql;
mod thread;
mod trim;
mod turns;
mod writer;

use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::Connection;
use sqlx::sqlite::SqlitePoolOptions;
use tokio::sync::{Notify, oneshot, watch};

#[cfg(feature = "testing")]
pub use bench::{Batcher, Messages};
pub use bounds::{BLOB_BYTES_MAX, JSON_BYTES_MAX, SCOPES_MAX, SETTINGS_BYTES_MAX, TEXT_BYTES_MAX};
pub use config::{
    ADMIN_SLOTS, ADMIN_WAIT_MS, AUDIT_RESERVE_ROWS, COMMIT_BYTES_MAX, COMMIT_ROWS_MAX, HEAD_IDLE_MS,
    LEASE_AHEAD, MessageLimits, NotificationLimits, PAGE_ROWS_MAX, PAGES_PER_TENANT_MAX, PAGES_WAITING_MAX,
    QUERY_SLOTS, RETENTION_STEP_ROWS, ROW_BYTES_MAX, Retention, StoreConfig, StoreLimits,
    TRANSACTION_ROWS_MAX, TRIM_STEP_BYTES, TRIM_STEP_ROOMS, TRIM_STEP_ROWS,
};
pub use counters::{Counters, Health, Trouble};
pub use error::{OpenError, StoreError, Unavailable};
pub use handle::{Queued, StoreHandle};
pub use messages::{
    Callback, Committed, Late, MessagePage, MessageQuery, MessageRow, RoomHead, SeenKey, StoredMessage,
};
pub use migrate::{MigrationInfo, migrate, migrations};
pub use notifications::{
    CHANGE_BYTES_MAX, CHANGE_BYTES_PER_TENANT_MAX, CHANGES_MAX, CHANGES_PER_TENANT_MAX, Done, Left, Marked,
    NOTIFICATION_KEPT_MS_MAX, NOTIFICATION_KEY_MS_MAX, NotificationPage, NotificationQuery, NotificationRow,
    QUERIES_PER_TENANT_MAX, QUERIES_WAITING_MAX, ReadRow, Reader, Sender, StoredNotification,
};
pub use rows::{
    Admission, ApiKeyRow, Assignment, AuditQuery, AuditRow, CHANNEL_BYTES_MAX, Channel, ChannelError,
    ConnectionEvent, ConnectionEventKind, ConnectionLogQuery, ConnectionLogRow, DeviceRow, DeviceStateRow,
    DeviceTokenRow, EventRow, KeyOwner, LastState, Loaded, Numbered, Page, ReadingCursor, ReadingQuery,
    ReadingRow, RevocationRow, SigningKeyRow, TableCounts, TenantChange, TenantRow, TenantStatus, Unwritten,
};
pub use writer::Leftover;

use batch::Pending;
use handle::{Settled, Shared};
use lane::Lane;
use place::Place;
use queue::MessageQueue;
use writer::{Gone, Writer};

use crate::clock::Clock;

/// Rows of one run are numbered from the run's own number times two to this: unique within the database without
/// asking it, for a million million rows a run and eight million runs.
const RUN_BITS: u32 = 40;

/// A running store: its thread, and the right to stop it.
#[derive(Debug)]
pub struct Store {
    handle: StoreHandle,
    stop: Option<oneshot::Sender<u64>>,
    stopped: oneshot::Receiver<Leftover>,
}

impl Store {
    /// Takes the data directory, brings the database up to date, reads what the broker needs, starts the writer.
    ///
    /// Blocks until all that is done; for the start of a program, not for async code.
    ///
    /// # Errors
    /// Whatever keeps the store from working; nothing is left running then.
    pub fn open(config: StoreConfig) -> Result<(Self, Loaded), OpenError> {
        let (ready, opened) = std::sync::mpsc::sync_channel(1);
        let (stop, stopping) = oneshot::channel();
        let (done, stopped) = oneshot::channel();
        let database = config.database();
        Builder::new()
            .name("cauce-store".to_owned())
            .spawn(move || {
                crate::threads::give_way();
                let served = Place::take(&config).and_then(|place| Ok((place, thread::runtime()?)));
                let (place, runtime) = match served {
                    Ok(served) => served,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                let leftover = runtime.block_on(serve(config, &ready, stopping));
                drop(runtime);
                // Whoever is told that the store has stopped may open it again.
                drop(place);
                match leftover {
                    // Nobody may be waiting for either answer; then there is nobody to tell.
                    Ok(leftover) => drop(done.send(leftover)),
                    Err(error) => drop(ready.send(Err(error))),
                }
            })
            .map_err(OpenError::Thread)?;
        // The thread answers in every case but a panic.
        let died = || OpenError::Database {
            path: database,
            message: "the store's thread has ended".to_owned(),
        };
        let (handle, loaded) = opened.recv().unwrap_or_else(|_| Err(died()))?;
        Ok((
            Self {
                handle,
                stop: Some(stop),
                stopped,
            },
            loaded,
        ))
    }

    pub fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// Lets nothing more in, writes everything that waits, moves the log into the database file, closes it and gives
    /// the data directory free. After `grace` it gives up on what is not written yet and says how much that was; a
    /// transaction that has begun by then is awaited all the same.
    ///
    /// If this future is dropped the store stops just so, unobserved.
    pub async fn shutdown(mut self, grace: Duration) -> Leftover {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        if let Some(stop) = self.stop.take() {
            // The receiver is gone only if the thread is, and then the next line knows.
            let _ = stop.send(grace_ms);
        }
        match (&mut self.stopped).await {
            Ok(leftover) => leftover,
            Err(_) => {
                let queued = self.handle.queued();
                let messages = self.handle.messages_queued();
                Leftover {
                    rows: queued.rows + messages.rows,
                    bytes: queued.bytes + messages.bytes,
                    checkpointed: false,
                }
            }
        }
    }
}

/// The life of the store on its thread. Answers through `ready` once it is open.
async fn serve(
    config: StoreConfig,
    ready: &std::sync::mpsc::SyncSender<Result<(StoreHandle, Loaded), OpenError>>,
    stop: oneshot::Receiver<u64>,
) -> Result<Leftover, OpenError> {
    let clock = Clock::start();
    let mut connection = migrate::open(&config).await?;
    let loaded = sql::load(&mut connection, clock.now().unix_ms)
        .await
        .map_err(|e| migrate::database(&config, &e))?;
    // It waits longer for locks than the writer should.
    connection
        .close()
        .await
        .map_err(|e| migrate::database(&config, &e))?;
    let first = loaded.boot << RUN_BITS;
    let readers = SqlitePoolOptions::new()
        .max_connections(config.readers.max(1))
        .acquire_timeout(Duration::from_millis(ADMIN_WAIT_MS))
        .connect_lazy_with(sql::reader_options(&config));
    let shared = Arc::new(Shared {
        pending: Mutex::new(Pending::new(config.limits, first)),
        messages: Mutex::new(MessageQueue::new(config.messages)),
        wake: Notify::new(),
        watch: Notify::new(),
        clock,
        counters: Counters::default(),
        health: Mutex::new(Health::Ready),
        settled: watch::Sender::new(Settled {
            last: first,
            messages: 0,
            closed: false,
        }),
        lane: tokio::sync::Mutex::new(Lane::new(sql::writer_options(&config))),
        readers,
        notifications: Mutex::default(),
        notification_limits: config.notifications,
        notification_queries: turns::Turns::new(notifications::QUERIES),
        admin_slots: slots::Slots::new(ADMIN_SLOTS),
        query_slots: slots::Slots::new(QUERY_SLOTS),
        page_slots: slots::Slots::new(PAGES_WAITING_MAX),
        page_turns: turns::Turns::new(config::PAGES),
        runtime: tokio::runtime::Handle::current(),
    });
    let _gone = Gone(Arc::clone(&shared));
    // Ends with the executor; by then the writer has answered everybody.
    drop(tokio::spawn(commit::watch(Arc::clone(&shared))));
    let writer = Writer::new(
        Arc::clone(&shared),
        loaded.boot,
        config.retention,
        config.messages,
    );
    // If the opener is gone, so is the sender of `stop`, and the writer ends at once.
    let _ = ready.send(Ok((StoreHandle { shared }, loaded)));
    Ok(writer.run(stop).await)
}
