//! What an error of the database means: the row's fault, or the database's trouble.

use sqlx::Error;

use crate::store::counters::Trouble;
use crate::store::error::StoreError;

/// SQLite's primary result codes that we tell apart: <https://sqlite.org/rescode.html>.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const TOOBIG: i32 = 18;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const MISMATCH: i32 = 20;
    pub(super) const NOTADB: i32 = 26;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Fault {
    /// Lies in the row: the same row would fail for ever, others would not.
    Row,
    /// Lies in the database: the same row may succeed later.
    Database(Trouble),
}

pub(in crate::store) fn fault(error: &Error) -> Fault {
    match error {
        Error::Encode(_) => Fault::Row,
        Error::Io(_) => Fault::Database(Trouble::Io),
        Error::Database(database) => {
            // The extended code carries the primary one in its low byte.
            let primary = database
                .code()
                .and_then(|c| c.parse::<i32>().ok())
                .map_or(0, |c| c & 0xff);
            match primary {
                code::TOOBIG | code::CONSTRAINT | code::MISMATCH => Fault::Row,
                code::BUSY | code::LOCKED => Fault::Database(Trouble::Locked),
                code::READONLY => Fault::Database(Trouble::ReadOnly),
                code::IOERR | code::CANTOPEN => Fault::Database(Trouble::Io),
                code::CORRUPT | code::NOTADB => Fault::Database(Trouble::Damaged),
                code::FULL => Fault::Database(Trouble::DiskFull),
                _ => Fault::Database(Trouble::Other),
            }
        }
        _ => Fault::Database(Trouble::Other),
    }
}

/// For admin operations and queries, whose statements answer for existence and conflict themselves.
impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match &error {
            Error::ColumnDecode { source, .. } | Error::Decode(source) => Self::Damaged {
                what: source.to_string(),
            },
            Error::PoolTimedOut => Self::busy(),
            Error::PoolClosed => Self::closed(),
            _ => match fault(&error) {
                Fault::Row => Self::Invalid {
                    what: "the row breaks a rule of the schema",
                },
                Fault::Database(trouble) => Self::database(trouble),
            },
        }
    }
}
