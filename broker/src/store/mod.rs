//! Floor 3: what outlives a restart. SQL on a thread of its own; nobody else ever waits for it.
//!
//! ```text
//! shards, doors ── StoreHandle::device_state, reading, … ──▶ batch (bounded, in memory) ──▶ writer ──▶ SQLite
//! API, CLI ─────── StoreHandle::create_tenant, …         ──────────────────────────────────▶ writer (own transaction)
//! API ──────────── StoreHandle::readings, devices, …     ──▶ readers
//! ```
//!
//! What must stay true:
//! - The hot path takes a lock for one push into a list, and nothing else: no await, no I/O, no allocation that waits.
//! - What was accepted is written or still in memory; an error of the database never drops it. Only a row that the
//!   database would never take is given up, alone, and counted.
//! - An admin operation answers after its transaction has been committed and synced to the disk.
//! - `sql` is the only module that speaks SQL. Every statement there names the tenant.
//! - One process at a time owns a data directory.

mod batch;
mod config;
mod counters;
mod rows;

pub use config::{
    ADMIN_SLOTS, ADMIN_WAIT_MS, AUDIT_RESERVE_ROWS, PAGE_ROWS_MAX, RETENTION_STEP_ROWS, ROW_BYTES_MAX,
    Retention, StoreConfig, StoreLimits, TRANSACTION_ROWS_MAX,
};
pub use counters::{Counters, FLUSH_BUCKETS_MS, Health, Trouble};
pub use rows::{
    Admission, ApiKeyRow, Assignment, AuditQuery, AuditRow, CHANNEL_BYTES_MAX, Channel, ChannelError,
    DeviceRow, DeviceStateRow, DeviceTokenRow, EventRow, KeyOwner, LastState, Loaded, Numbered, Page,
    ReadingCursor, ReadingQuery, ReadingRow, SigningKeyRow, TableCounts, TenantChange, TenantRow,
    TenantStatus, Unwritten,
};
