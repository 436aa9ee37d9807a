//! The numbers of the store, with their units, and where the data lies.

use std::path::PathBuf;

use super::turns::Bounds;

/// Largest row the store takes, in bytes. A full status of the largest Shelly is below 10 kB; 256 KiB leaves room
/// for gateways without letting one row fill the queue.
pub const ROW_BYTES_MAX: usize = 256 * 1024;

/// Rows of audit that still find a place when readings and events have filled the queue: who did what must not be
/// lost because plugs are chatty.
pub const AUDIT_RESERVE_ROWS: usize = 1_000;

/// Bytes above the bound of the queue into which a waiting state may grow when a newer one replaces it, as a part of
/// the bound: in a full queue the newest state of a device is still worth more than an older one.
pub(crate) const STATE_RESERVE_DIVISOR: usize = 8;

/// The part of the queue's bytes that is written without waiting for more: half of what one tenant may hold by default, so that a fleet that
/// comes back at once, each device with its whole state, finds room while it is written.
pub(crate) const FLUSH_BYTES_DIVISOR: usize = 4;

/// Rows of one transaction. Between transactions an admin operation may have its turn.
pub const TRANSACTION_ROWS_MAX: usize = 4_000;

/// Changes waiting or running at a time; more are told to come again.
pub const ADMIN_SLOTS: usize = 64;

/// Queries waiting or running at a time, beside those: looking up must not keep anyone from changing.
pub const QUERY_SLOTS: usize = 64;

/// Pages of durable rooms that may wait or be read, of all tenants and of one, beside those: many, because after a restart
/// everybody comes back for what was missed, and a page takes a fraction of a millisecond.
pub const PAGES_WAITING_MAX: usize = 16_384;
pub const PAGES_PER_TENANT_MAX: usize = PAGES_WAITING_MAX / 2;

/// Pages that are read at a time, of all tenants and of one: few, for each holds up to 128 KiB.
pub(crate) const PAGES_AT_A_TIME: usize = 16;
pub(crate) const PAGES_AT_A_TIME_PER_TENANT: usize = 4;

pub(crate) const PAGES: Bounds = Bounds {
    waiting_max: PAGES_WAITING_MAX,
    per_tenant_max: PAGES_PER_TENANT_MAX,
    at_a_time: PAGES_AT_A_TIME,
    at_a_time_per_tenant: PAGES_AT_A_TIME_PER_TENANT,
};

/// How long an admin operation waits for its turn or for a free reader, in milliseconds.
pub const ADMIN_WAIT_MS: u64 = 5_000;

/// Rows of one page of any listing.
pub const PAGE_ROWS_MAX: u32 = 1_000;

/// Rows deleted by one step of the retention.
pub const RETENTION_STEP_ROWS: u32 = 1_000;

/// Messages of durable rooms in one transaction, and their bytes. Few enough for a commit of some milliseconds.
pub const COMMIT_ROWS_MAX: usize = 1_000;
pub const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Rows of one transaction beside commits that somebody waits for, in place of [`TRANSACTION_ROWS_MAX`]: some milliseconds.
pub(crate) const TRANSACTION_ROWS_BESIDE_COMMITS: usize = 500;

/// For so long after a commit, other transactions are kept small, in milliseconds.
pub(crate) const COMMITS_RECENT_MS: u64 = 1_000;

/// What one step of the retention of durable rooms deletes at most, and in how many rooms.
pub const TRIM_STEP_ROWS: u64 = 1_000;
pub const TRIM_STEP_BYTES: u64 = 4 * 1024 * 1024;
pub const TRIM_STEP_ROOMS: u32 = 64;

/// From a commit to the look whether a room has become too full, in milliseconds.
pub(crate) const TRIM_PAUSE_MS: u64 = 100;

/// An empty durable room that nobody has written to for so long is forgotten, in milliseconds: its next message begins a
/// new epoch unless the room is open.
pub const HEAD_IDLE_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// How far behind the last number a lease should lie. A crash skips as many numbers at most; a room may have as many
/// messages on their way to the disk.
pub const LEASE_AHEAD: u64 = 65_536;

/// First and longest pause before the database is tried again, in milliseconds.
pub(crate) const RETRY_FIRST_MS: u64 = 50;
pub(crate) const RETRY_LONGEST_MS: u64 = 5_000;

/// Longest pause while somebody waits for a commit, in milliseconds: well below the time that he waits.
pub(crate) const RETRY_AWAITED_MS: u64 = 500;

#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Holds the database, the lock and, unless configured otherwise, the master key. Made at the first start.
    pub data_dir: PathBuf,
    pub limits: StoreLimits,
    pub messages: MessageLimits,
    pub retention: Retention,
    pub notifications: NotificationLimits,
    /// Connections that read; each is a thread of its own inside the driver.
    pub readers: u32,
    /// How long SQLite waits for a lock that another process holds, in milliseconds, before the store counts an
    /// error and backs off.
    pub busy_timeout_ms: u64,
    /// The database file never grows beyond this, in bytes; then it behaves as a full disk would. The log beside it is
    /// not counted. `None` leaves the disk as the only bound.
    pub database_bytes_max: Option<u64>,
}

impl StoreConfig {
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            limits: StoreLimits::default(),
            messages: MessageLimits::default(),
            retention: Retention::default(),
            notifications: NotificationLimits::default(),
            readers: 2,
            busy_timeout_ms: 1_000,
            database_bytes_max: None,
        }
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("cauce.db")
    }

    pub(crate) fn lock_file(&self) -> PathBuf {
        self.data_dir.join("cauce.lock")
    }
}

/// Bounds of the queue between the hot paths and the database. Rows on their way into the database count too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// This many rows are written without waiting for more. Rows of many devices cost a page each, and rows of one device share a page:
    /// what waits should be several rows of each.
    pub flush_rows: usize,
    /// The oldest row waits at most this long before writing begins, in milliseconds.
    pub flush_age_ms: u64,
    /// Readings and events in the queue.
    pub rows_max: usize,
    /// Devices whose state waits; a newer state of a waiting device needs no place.
    pub states_max: usize,
    /// Memory of the queue, in bytes.
    pub bytes_max: usize,
    /// The part of each of these three bounds that one tenant may hold of what waits, so that one cannot take the
    /// place of all. With 100 there is no such limit.
    pub tenant_share_percent: u8,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            flush_rows: 20_000,
            flush_age_ms: 1_000,
            rows_max: 200_000,
            states_max: 100_000,
            bytes_max: 256 * 1024 * 1024,
            tenant_share_percent: 50,
        }
    }
}

/// Bounds and times of the messages of durable rooms. They have a queue of their own: nothing else takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Memory of messages that are not on the disk, in bytes as their rooms count them.
    pub bytes_max: usize,
    /// The part of it that one tenant may hold. With 100 there is no such limit.
    pub tenant_share_percent: u8,
    /// How long the first message waits for others to be committed with, in milliseconds. With 0 it does not wait; what
    /// arrives during a commit is committed together after it.
    pub commit_delay_ms: u64,
    /// How long anybody waits for a commit before he is told that it is late, in milliseconds.
    pub answer_ms: u64,
    /// Pause between two looks for messages that are too old, in milliseconds. What is too old is not shown meanwhile.
    pub trim_every_ms: u64,
}

impl MessageLimits {
    pub(crate) fn tenant_bytes_max(&self) -> usize {
        let percent = usize::from(self.tenant_share_percent.min(100));
        self.bytes_max / 100 * percent + self.bytes_max % 100 * percent / 100
    }
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            bytes_max: 64 * 1024 * 1024,
            tenant_share_percent: 50,
            commit_delay_ms: 0,
            answer_ms: 5_000,
            trim_every_ms: 10_000,
        }
    }
}

/// How long rows are kept; `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub readings_days: Option<u32>,
    pub events_days: Option<u32>,
    pub audit_days: Option<u32>,
    pub connections_days: Option<u32>,
    /// Pause between two sweeps, in milliseconds. A sweep goes in steps of [`RETENTION_STEP_ROWS`] and gives way to
    /// every row that wants to be written.
    pub sweep_every_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            readings_days: Some(90),
            events_days: Some(90),
            audit_days: Some(365),
            connections_days: Some(90),
            sweep_every_ms: 10 * 60 * 1_000,
        }
    }
}

/// How many notifications are kept; beyond, the oldest go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotificationLimits {
    /// Of one audience: a user, a role, or everyone in a tenant.
    pub per_audience_max: u32,
    /// Of one tenant in all.
    pub per_tenant_max: u64,
}

impl Default for NotificationLimits {
    fn default() -> Self {
        Self {
            per_audience_max: 1_000,
            per_tenant_max: 1_000_000,
        }
    }
}
