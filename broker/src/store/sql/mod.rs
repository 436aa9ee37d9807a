//! The only place that speaks SQL. One file a family of tables.
//!
//! What must stay true:
//! - Statements are constants; values are bound, never written into the text.
//! - Every statement about a tenant's rows names the tenant. Only loading at start, counting and retention go across.
//! - Nothing here decides, retries or waits: it answers with the row or with the database's own error.

mod credentials;
mod devices;
mod fault;
mod history;
mod insert;
mod load;
mod messages;
mod notifications;
mod retention;
mod revocations;
mod telemetry;
mod tenants;
mod values;

use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Row};

pub(super) use credentials::{
    add_signing_key, api_keys, create_api_key, create_device_token, device_tokens, revoke_api_key,
    revoke_device_token, revoke_signing_key, signing_keys,
};
pub(super) use devices::{assign_device, device, devices, set_device_metadata};
pub(super) use fault::{Fault, fault};
pub(super) use history::{audit_rows, connection_logs, counts, device_events, readings};
pub(super) use load::load;
pub(super) use messages::{mark_clean, page as message_page, write_messages};
pub(super) use notifications::{change_notifications, notifications};
pub(super) use retention::{Trimmed, trim};
pub(super) use revocations::{delete_revocation, put_revocation};
pub(super) use telemetry::{Log, Written, delete_older, write_piece};
pub(super) use tenants::{create_tenant, tenant, tenants, update_tenant};

use super::config::StoreConfig;

/// The oldest SQLite the broker works with. Before it, two connections that write and checkpoint could damage a
/// database in WAL mode: <https://sqlite.org/releaselog/3_51_3.html>.
pub(super) const SQLITE_OLDEST: &str = "3.51.3";

/// Takes the write lock at once: a transaction that begins by reading would be refused the lock without waiting.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

/// SQLite's own default, fixed so that a bound in bytes can be told in pages.
const PAGE_BYTES: u32 = 4_096;

/// Pages in the log after which a commit moves them into the database: 16 MiB. Devices change the same pages second after second, and
/// what the log holds of one moves once; more would keep the one commit that moves it all for longer than some 20 ms.
const CHECKPOINT_PAGES: u32 = 4_096;

/// The log is cut back to this size after a checkpoint, in bytes, so that one long reader does not leave it large.
const WAL_BYTES_KEPT: &str = "67108864";

/// For the one connection that writes. `FULL` syncs every commit: see docs/DECISIONS.md for what that costs.
pub(super) fn writer_options(config: &StoreConfig) -> SqliteConnectOptions {
    let options = options(config)
        .page_size(PAGE_BYTES)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", WAL_BYTES_KEPT)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
        .thread_name(|_| "cauce-sql-write".into());
    match config.database_bytes_max {
        Some(bytes) => options.pragma(
            "max_page_count",
            (bytes / u64::from(PAGE_BYTES)).max(1).to_string(),
        ),
        None => options,
    }
}

/// Instructions of SQLite's machine between two offers of the core: those of some ten rows, about a tenth of a millisecond.
const OPERATIONS_AT_A_TIME: i32 = 250;

/// Lets a shard that shares the writer's core go first, in the middle of a transaction: the scheduler alone would let the writer finish its
/// slice of some milliseconds. Costs a system call for each [`OPERATIONS_AT_A_TIME`], and nothing where nobody waits.
pub(super) async fn give_way(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let on = || {
        std::thread::yield_now();
        true
    };
    connection
        .lock_handle()
        .await?
        .set_progress_handler(OPERATIONS_AT_A_TIME, on);
    Ok(())
}

pub(super) fn reader_options(config: &StoreConfig) -> SqliteConnectOptions {
    options(config)
        .read_only(true)
        .thread_name(|_| "cauce-sql-read".into())
}

fn options(config: &StoreConfig) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(config.database())
        .foreign_keys(true)
        .busy_timeout(Duration::from_millis(config.busy_timeout_ms))
        .disable_statement_logging()
}

/// `3.51.3` and such, as the library says of itself.
pub(super) async fn sqlite_version(connection: &mut SqliteConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(connection)
        .await
}

/// Whether this SQLite is free of the fault described at [`SQLITE_OLDEST`]. What cannot be read as a version is not.
pub(super) fn is_new_enough(version: &str) -> bool {
    fn parts(version: &str) -> Option<[u32; 3]> {
        let mut parts = version.split('.').map(|part| part.parse().ok());
        // A missing third part is zero: "3.52".
        Some([parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?])
    }
    match (parts(version), parts(SQLITE_OLDEST)) {
        (Some(version), Some(oldest)) => version >= oldest,
        _ => false,
    }
}

/// Version and time of each migration the database has had; none for a database that never had one.
pub(super) async fn applied_migrations(
    connection: &mut SqliteConnection,
) -> Result<Vec<(i64, u64)>, sqlx::Error> {
    let table: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'")
            .fetch_optional(&mut *connection)
            .await?;
    if table.is_none() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "SELECT version, CAST(unixepoch(installed_on) AS INTEGER) * 1000 FROM _sqlx_migrations \
         WHERE success ORDER BY version",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, values::uint(row, 1)?)))
        .collect()
}

/// Moves the log into the database file and empties it. Answers whether all of it could be moved.
pub(super) async fn checkpoint(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let kept: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(connection)
        .await?;
    Ok(kept == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_writer_syncs_every_commit_and_checks_references_and_readers_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::new(dir.path());
        let mut writer = writer_options(&config)
            .create_if_missing(true)
            .connect()
            .await
            .unwrap();
        for (pragma, expected) in [
            ("PRAGMA synchronous", 2),
            ("PRAGMA foreign_keys", 1),
            (
                "PRAGMA busy_timeout",
                i64::try_from(config.busy_timeout_ms).unwrap(),
            ),
            ("PRAGMA page_size", i64::from(PAGE_BYTES)),
            ("PRAGMA wal_autocheckpoint", i64::from(CHECKPOINT_PAGES)),
        ] {
            let value: i64 = sqlx::query_scalar(pragma).fetch_one(&mut writer).await.unwrap();
            assert_eq!(value, expected, "{pragma}");
        }
        sqlx::query("CREATE TABLE t (a INTEGER)")
            .execute(&mut writer)
            .await
            .unwrap();
        let mut reader = reader_options(&config).connect().await.unwrap();
        let error = sqlx::query("INSERT INTO t VALUES (1)")
            .execute(&mut reader)
            .await
            .unwrap_err();
        assert_eq!(
            fault(&error),
            Fault::Database(crate::store::counters::Trouble::ReadOnly)
        );
    }

    #[tokio::test]
    async fn the_linked_sqlite_is_new_enough() {
        let dir = tempfile::tempdir().unwrap();
        let mut any = writer_options(&StoreConfig::new(dir.path()))
            .create_if_missing(true)
            .connect()
            .await
            .unwrap();
        let linked = sqlite_version(&mut any).await.unwrap();
        assert!(is_new_enough(&linked), "{linked}");
    }

    #[test]
    fn versions_that_can_damage_a_database_are_refused() {
        for old in [
            "3.51.2", "3.40.1", "3.7.0", "2.99.99", "", "3", "3.x.1", "garbage",
        ] {
            assert!(!is_new_enough(old), "{old}");
        }
    }

    #[test]
    fn versions_with_the_repair_are_accepted() {
        for new in ["3.51.3", "3.52", "3.52.0", "3.100.0", "4.0.0", "3.51.3.1"] {
            assert!(is_new_enough(new), "{new}");
        }
    }
}
