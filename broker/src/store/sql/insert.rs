//! Inserts of many rows by one statement, and the search for the row that spoils it.

use std::sync::OnceLock;

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteArguments;

use super::fault::{Fault, fault};

/// Rows of one statement, largest first. Few sizes, so that each statement is prepared once and kept. The largest times
/// the most columns stays far below the 32,766 values SQLite binds: <https://sqlite.org/limits.html>.
const SIZES: [usize; 4] = [500, 100, 10, 1];
const BINDS_MAX: usize = 32_766;
const COLUMNS_MAX: usize = 16;
const _: () = assert!(SIZES[0] * COLUMNS_MAX <= BINDS_MAX);

/// `head VALUES (?,…),(?,…) tail`, by number of rows.
#[derive(Debug)]
pub(super) struct Insert {
    head: &'static str,
    columns: usize,
    tail: &'static str,
    texts: [OnceLock<String>; SIZES.len()],
}

impl Insert {
    pub(super) const fn new(head: &'static str, columns: usize, tail: &'static str) -> Self {
        assert!(columns <= COLUMNS_MAX);
        Self {
            head,
            columns,
            tail,
            texts: [const { OnceLock::new() }; SIZES.len()],
        }
    }

    /// The statement for as many of `rows` as one takes, and that number.
    fn text(&'static self, rows: usize) -> (&'static str, usize) {
        let at = SIZES
            .iter()
            .position(|&size| size <= rows)
            .unwrap_or(SIZES.len() - 1);
        let text = self.texts[at].get_or_init(|| {
            let row = format!("({})", vec!["?"; self.columns].join(","));
            format!(
                "{} VALUES {} {}",
                self.head,
                vec![row; SIZES[at]].join(","),
                self.tail
            )
        });
        (text, SIZES[at])
    }
}

/// A row that can be part of such a statement. The values are bound in the order of the statement's columns.
pub(super) trait Bind {
    fn bind(&self, values: &mut SqliteArguments) -> Result<(), sqlx::error::BoxDynError>;
}

/// How an insert went. All rows are accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Inserted {
    pub(in crate::store) written: usize,
    /// Rows the database would never take.
    pub(in crate::store) given_up: usize,
}

/// Inserts all rows, in order. When a statement fails because of a row, SQLite undoes that statement alone, and its rows
/// are tried again by halves until the row is found; it is given up, the others are written.
///
/// # Errors
/// The database's trouble. Then nothing is known about the rows, and the transaction must not be committed.
pub(super) async fn insert<T: Bind>(
    connection: &mut SqliteConnection,
    statement: &'static Insert,
    rows: &[T],
) -> Result<Inserted, sqlx::Error> {
    insert_telling(connection, statement, rows, |_| {}).await
}

/// The same, and `given_up` is told of each row that is.
pub(super) async fn insert_telling<T: Bind>(
    connection: &mut SqliteConnection,
    statement: &'static Insert,
    rows: &[T],
    mut given_up: impl FnMut(&T),
) -> Result<Inserted, sqlx::Error> {
    let mut result = Inserted::default();
    // Slices still to be written, the first on top.
    let mut waiting = vec![rows];
    while let Some(rows) = waiting.pop() {
        if rows.is_empty() {
            continue;
        }
        let (text, size) = statement.text(rows.len());
        let (now, later) = rows.split_at(size);
        waiting.push(later);
        match execute(connection, text, now).await {
            Ok(()) => result.written += now.len(),
            Err(error) if fault(&error) != Fault::Row => return Err(error),
            Err(error) if now.len() == 1 => {
                result.given_up += 1;
                now.iter().for_each(&mut given_up);
                // The statement and the code, not the values: they belong to a tenant.
                let code = error
                    .as_database_error()
                    .and_then(|e| e.code().map(std::borrow::Cow::into_owned));
                tracing::warn!(
                    into = statement.head,
                    code,
                    "the database refuses a row; it is given up"
                );
            }
            Err(_) => {
                let (left, right) = now.split_at(now.len() / 2);
                waiting.push(right);
                waiting.push(left);
            }
        }
    }
    Ok(result)
}

async fn execute<T: Bind>(
    connection: &mut SqliteConnection,
    text: &'static str,
    rows: &[T],
) -> Result<(), sqlx::Error> {
    let mut values = SqliteArguments::default();
    for row in rows {
        row.bind(&mut values).map_err(sqlx::Error::Encode)?;
    }
    sqlx::query_with(text, values)
        .execute(connection)
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_takes_as_many_rows_as_fit() {
        static INSERT: Insert = Insert::new("INSERT INTO t (a, b)", 2, "ON CONFLICT DO NOTHING");
        assert_eq!(
            INSERT.text(1),
            ("INSERT INTO t (a, b) VALUES (?,?) ON CONFLICT DO NOTHING", 1)
        );
        assert_eq!(INSERT.text(9).1, 1);
        assert_eq!(INSERT.text(10).1, 10);
        assert_eq!(INSERT.text(499).1, 100);
        assert_eq!(INSERT.text(70_000).1, 500);
    }
}
