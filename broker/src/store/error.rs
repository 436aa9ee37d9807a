//! What can go wrong, as the caller needs to know it: whose fault, and whether to come again.

use std::fmt;
use std::path::PathBuf;

use cauce_protocol::{Code, Refusal};

use super::config::RETRY_LONGEST_MS;
use super::counters::Trouble;

/// Why an admin operation or a query did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// A row with this key exists already.
    Conflict { what: &'static str },
    /// The database holds something this version cannot read. Not the caller's fault.
    Damaged { what: String },
    /// The row breaks a rule of the schema.
    Invalid { what: &'static str },
    /// There is no such row.
    NotFound { what: &'static str },
    /// Nothing was changed; the same call may succeed later.
    Unavailable {
        retry_after_ms: u64,
        reason: Unavailable,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Too many operations wait already, or the turn did not come in time.
    Busy,
    /// The store has been shut down; another start will serve.
    Closed,
    Database(Trouble),
}

/// What a caller should wait when the store is merely busy, in milliseconds.
const BUSY_RETRY_MS: u64 = 500;

impl StoreError {
    pub(super) fn busy() -> Self {
        Self::Unavailable {
            retry_after_ms: BUSY_RETRY_MS,
            reason: Unavailable::Busy,
        }
    }

    pub(super) fn closed() -> Self {
        Self::Unavailable {
            retry_after_ms: RETRY_LONGEST_MS,
            reason: Unavailable::Closed,
        }
    }

    pub(super) fn database(trouble: Trouble) -> Self {
        Self::Unavailable {
            retry_after_ms: RETRY_LONGEST_MS,
            reason: Unavailable::Database(trouble),
        }
    }

    /// What a caller is told when the store did not do it.
    pub(crate) fn refusal(&self) -> Refusal {
        let message = self.to_string();
        match self {
            Self::Conflict { .. } => Refusal::new(Code::Conflict, message),
            Self::Damaged { .. } => {
                tracing::error!(error = %self, "the database cannot be read");
                Refusal::new(
                    Code::Internal,
                    "the database holds something unreadable; see the log",
                )
            }
            Self::Invalid { .. } => Refusal::new(Code::Invalid, message),
            Self::NotFound { .. } => Refusal::new(Code::NotFound, message),
            Self::Unavailable { retry_after_ms, .. } => {
                let retry_after_ms = u32::try_from(*retry_after_ms).unwrap_or(u32::MAX);
                Refusal::new(Code::Unavailable, message).retry_after(retry_after_ms)
            }
        }
    }

    /// Stable, for answers and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "store_conflict",
            Self::Damaged { .. } => "store_damaged",
            Self::Invalid { .. } => "store_invalid",
            Self::NotFound { .. } => "store_not_found",
            Self::Unavailable {
                reason: Unavailable::Busy,
                ..
            } => "store_busy",
            Self::Unavailable {
                reason: Unavailable::Closed,
                ..
            } => "store_closed",
            Self::Unavailable {
                reason: Unavailable::Database(trouble),
                ..
            } => trouble.code(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        error.refusal()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { what } => write!(f, "this {what} exists already"),
            Self::Damaged { what } => write!(f, "the database holds something unreadable: {what}"),
            Self::Invalid { what } => write!(f, "{what}"),
            Self::NotFound { what } => write!(f, "there is no such {what}"),
            Self::Unavailable {
                retry_after_ms,
                reason,
            } => {
                match reason {
                    Unavailable::Busy => write!(f, "the store is busy")?,
                    Unavailable::Closed => write!(f, "the store is shut down")?,
                    Unavailable::Database(trouble) => write!(f, "{trouble}")?,
                }
                write!(f, "; try again in {retry_after_ms} ms")
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// Why the store could not be opened. Every message says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// The data directory or a file in it.
    Io { path: PathBuf, source: std::io::Error },
    /// Another process owns the data directory.
    InUse { path: PathBuf, pid: Option<u32> },
    /// The SQLite this program is linked with has a known fault that damages databases.
    SqliteTooOld { linked: String },
    /// The database has a migration this version does not know.
    Newer { path: PathBuf, version: i64 },
    /// A migration that was applied differs from the one this version carries.
    Altered { path: PathBuf, version: i64 },
    /// A migration failed; nothing of it remains.
    Migration { path: PathBuf, message: String },
    /// The database cannot be opened or read.
    Database { path: PathBuf, message: String },
    /// The operating system gives no thread.
    Thread(std::io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => {
                write!(
                    f,
                    "{}: {source}; the broker needs a data directory it may write",
                    path.display()
                )
            }
            Self::InUse { path, pid } => {
                let path = path.display();
                match pid {
                    Some(pid) => write!(f, "{path} is in use by process {pid}")?,
                    None => write!(f, "{path} is in use by another process")?,
                }
                write!(f, "; stop it, or choose another data directory")
            }
            Self::SqliteTooOld { linked } => write!(
                f,
                "this program is linked with SQLite {linked}, which can damage a database in WAL mode; \
                 build it with SQLite {} or newer (the bundled one is)",
                super::sql::SQLITE_OLDEST
            ),
            Self::Newer { path, version } => write!(
                f,
                "{} was written by a newer version of the broker (migration {version}); use that version, or restore \
                 a backup made before the upgrade",
                path.display()
            ),
            Self::Altered { path, version } => write!(
                f,
                "{}: migration {version} differs from the one applied; this build does not fit this database",
                path.display()
            ),
            Self::Migration { path, message } => write!(
                f,
                "{}: a migration failed and was undone: {message}",
                path.display()
            ),
            Self::Database { path, message } => write!(f, "{}: {message}", path.display()),
            Self::Thread(source) => write!(f, "cannot start the store's thread: {source}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Thread(source) => Some(source),
            _ => None,
        }
    }
}
