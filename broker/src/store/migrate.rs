//! Migrations: forward only, carried inside the program, run at every start and by `cauce migrate`.

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnection;
use sqlx::{ConnectOptions, Connection, SqlSafeStr};

use super::config::StoreConfig;
use super::error::OpenError;
use super::place::Place;
use super::sql;
use super::thread::on_own_thread;

/// The number and the words of each file's name, and its text. Cargo rebuilds when one changes.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "start",
        include_str!("../../../migrations/sqlite/0001_start.sql"),
    ),
    (
        2,
        "messages",
        include_str!("../../../migrations/sqlite/0002_messages.sql"),
    ),
    (
        3,
        "notifications",
        include_str!("../../../migrations/sqlite/0003_notifications.sql"),
    ),
    (
        4,
        "revocations",
        include_str!("../../../migrations/sqlite/0004_revocations.sql"),
    ),
    (
        5,
        "connection_logs",
        include_str!("../../../migrations/sqlite/0005_connection_logs.sql"),
    ),
];

/// One migration this program carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationInfo {
    pub version: i64,
    pub description: String,
    /// By the wall clock, in milliseconds since 1970, to the second; none if the database has yet to get it.
    pub applied_ms: Option<u64>,
}

/// What this program carries and what the database has. Changes nothing, also while a broker runs.
///
/// Blocks; not for async code.
///
/// # Errors
/// If there is a database that cannot be read.
pub fn migrations(config: &StoreConfig) -> Result<Vec<MigrationInfo>, OpenError> {
    let path = config.database();
    let empty = match std::fs::metadata(&path) {
        Ok(file) => file.len() == 0,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    if empty {
        return Ok(list(&[]));
    }
    on_own_thread("cauce-migrate", |runtime| {
        let applied = runtime.block_on(async {
            let mut connection = sql::reader_options(config).connect().await?;
            sql::applied_migrations(&mut connection).await
        });
        applied
            .map(|applied| list(&applied))
            .map_err(|e| database(config, &e))
    })?
}

/// Brings the database up to date without starting a store, and says what it then has. Makes an empty one if there is none.
///
/// Blocks; not for async code.
///
/// # Errors
/// If a broker runs on this data directory, or for any reason that would keep a store from opening.
pub fn migrate(config: &StoreConfig) -> Result<Vec<MigrationInfo>, OpenError> {
    let _place = Place::take(config)?;
    on_own_thread("cauce-migrate", |runtime| {
        runtime.block_on(async {
            let mut connection = open(config).await?;
            let applied = sql::applied_migrations(&mut connection)
                .await
                .map_err(|e| database(config, &e))?;
            // A broker that starts next finds everything in the file.
            sql::checkpoint(&mut connection)
                .await
                .map_err(|e| database(config, &e))?;
            connection.close().await.map_err(|e| database(config, &e))?;
            Ok(list(&applied))
        })
    })?
}

/// How long a start waits for a lock at least, in milliseconds: for a backup or a curious administrator to finish.
const OPEN_WAIT_MS: u64 = 10_000;

/// A writing connection to a database that is fit and up to date. The caller owns the place.
pub(super) async fn open(config: &StoreConfig) -> Result<SqliteConnection, OpenError> {
    let connect = async {
        let patient = StoreConfig {
            busy_timeout_ms: config.busy_timeout_ms.max(OPEN_WAIT_MS),
            ..config.clone()
        };
        let mut connection = sql::writer_options(&patient).connect().await?;
        let linked = sql::sqlite_version(&mut connection).await?;
        Ok((connection, linked))
    };
    let (mut connection, linked) = connect.await.map_err(|e: sqlx::Error| database(config, &e))?;
    if !sql::is_new_enough(&linked) {
        return Err(OpenError::SqliteTooOld { linked });
    }
    run(&mut connection, config).await?;
    Ok(connection)
}

async fn run(connection: &mut SqliteConnection, config: &StoreConfig) -> Result<(), OpenError> {
    let migrations = MIGRATIONS.iter().map(|&(version, description, text)| {
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            text.into_sql_str(),
            false,
        )
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    let path = config.database();
    migrator.run(connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            OpenError::Newer { path, version }
        }
        MigrateError::VersionMismatch(version) => OpenError::Altered { path, version },
        other => OpenError::Migration {
            path,
            message: other.to_string(),
        },
    })
}

fn list(applied: &[(i64, u64)]) -> Vec<MigrationInfo> {
    MIGRATIONS
        .iter()
        .map(|&(version, description, _)| MigrationInfo {
            version,
            description: description.to_owned(),
            applied_ms: applied
                .iter()
                .find(|(v, _)| *v == version)
                .map(|&(_, at_ms)| at_ms),
        })
        .collect()
}

pub(super) fn database(config: &StoreConfig, error: &sqlx::Error) -> OpenError {
    OpenError::Database {
        path: config.database(),
        message: error.to_string(),
    }
}
