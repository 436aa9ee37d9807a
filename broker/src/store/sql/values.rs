//! Between our types and what SQLite knows: integers with a sign, text, blobs.

use bytes::Bytes;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::config::PAGE_ROWS_MAX;
use crate::store::error::StoreError;
use crate::store::rows::Page;

/// Times and counters are far below 2^63; what is not is a fault of a device's clock and kept at the largest value.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn uint(row: &SqliteRow, column: usize) -> Result<u64, sqlx::Error> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| damaged(format_args!("a negative number, {value}")))
}

pub(super) fn uint_opt(row: &SqliteRow, column: usize) -> Result<Option<u64>, sqlx::Error> {
    let value: Option<i64> = row.try_get(column)?;
    match value {
        None => Ok(None),
        Some(_) => uint(row, column).map(Some),
    }
}

/// A name that was checked before it was written; our rules may only ever become wider.
pub(super) fn name<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &SqliteRow,
    column: usize,
) -> Result<T, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    text.parse()
        .map_err(|e| damaged(format_args!("the name {text:?}, which {e}")))
}

pub(super) fn text_bytes(row: &SqliteRow, column: usize) -> Result<Bytes, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    Ok(Bytes::copy_from_slice(text.as_bytes()))
}

pub(super) fn blob(row: &SqliteRow, column: usize) -> Result<Bytes, sqlx::Error> {
    let bytes: &[u8] = row.try_get(column)?;
    Ok(Bytes::copy_from_slice(bytes))
}

/// JSON as the database wants it.
pub(super) fn json(bytes: &Bytes) -> Result<&str, StoreError> {
    std::str::from_utf8(bytes).map_err(|_| StoreError::Invalid {
        what: "JSON must be UTF-8",
    })
}

pub(super) fn damaged(what: std::fmt::Arguments<'_>) -> sqlx::Error {
    sqlx::Error::Decode(what.to_string().into())
}

/// How many rows a page asks of the database: one more than it shows, to know whether there is another page.
pub(super) fn page_rows(limit: u32) -> i64 {
    i64::from(limit.clamp(1, PAGE_ROWS_MAX)) + 1
}

/// The rows of one page, read with [`page_rows`].
pub(super) fn page<T, C>(
    rows: &[SqliteRow],
    limit: u32,
    read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
    cursor: impl Fn(&T) -> C,
) -> Result<Page<T, C>, StoreError> {
    let shown = limit.clamp(1, PAGE_ROWS_MAX) as usize;
    let page = rows.iter().take(shown).map(read).collect::<Result<Vec<T>, _>>()?;
    let next = if rows.len() > shown {
        page.last().map(cursor)
    } else {
        None
    };
    Ok(Page { rows: page, next })
}
