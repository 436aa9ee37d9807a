//! The one connection that writes, opened again whenever it may be in doubt.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Sqlite, Transaction};

use super::sql;

#[derive(Debug)]
pub(super) struct Lane {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
}

impl Lane {
    /// Opens when first used.
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        Self {
            options,
            connection: None,
        }
    }

    /// Begins a transaction that holds the write lock from the start, so that it cannot fail half-way for want of it.
    ///
    /// # Errors
    /// Whatever the database says; the caller then calls [`Lane::discard`], for after an error of the disk nothing
    /// may be assumed about what this connection has written or synced.
    pub(super) async fn begin(&mut self) -> Result<Transaction<'_, Sqlite>, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = self.options.connect().await?;
                sql::give_way(&mut connection).await?;
                connection
            }
        };
        self.connection.insert(connection).begin_with(sql::BEGIN).await
    }

    pub(super) fn discard(&mut self) {
        self.connection = None;
    }

    /// Moves the log into the database file and closes it. Whether all of the log could be moved: another process that
    /// reads or writes can keep it.
    ///
    /// # Errors
    /// Whatever the database says; what was committed stays committed all the same.
    pub(super) async fn close(&mut self) -> Result<bool, sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let checkpointed = sql::checkpoint(&mut connection).await?;
        connection.close().await?;
        Ok(checkpointed)
    }
}
