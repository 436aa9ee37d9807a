//! Revoked users and tokens, until their revocation ends.

use cauce_protocol::TenantId;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::values::{int, name, uint, uint_opt};
use crate::store::error::StoreError;
use crate::store::rows::RevocationRow;

const WHAT: &str = "revocation";

pub(super) fn read(row: &SqliteRow) -> Result<RevocationRow, sqlx::Error> {
    Ok(RevocationRow {
        tenant: name(row, 0)?,
        subject: row.try_get(1)?,
        revoked_ms: uint(row, 2)?,
        until_ms: uint_opt(row, 3)?,
        reason: row.try_get(4)?,
    })
}

/// Takes the place of an earlier one of the same subject. Deletes the tenant's rows that have ended by `at_ms`.
pub(in crate::store) async fn put_revocation(
    c: &mut SqliteConnection,
    row: &RevocationRow,
    at_ms: u64,
) -> Result<(), StoreError> {
    super::tenants::expect_tenant(c, &row.tenant).await?;
    sqlx::query("DELETE FROM revocations WHERE tenant = ? AND until_ms <= ?")
        .bind(row.tenant.as_str())
        .bind(int(at_ms))
        .execute(&mut *c)
        .await?;
    sqlx::query(
        "INSERT INTO revocations (tenant, subject, revoked_ms, until_ms, reason) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (tenant, subject) DO UPDATE SET revoked_ms = excluded.revoked_ms, \
         until_ms = excluded.until_ms, reason = excluded.reason",
    )
    .bind(row.tenant.as_str())
    .bind(&row.subject)
    .bind(int(row.revoked_ms))
    .bind(row.until_ms.map(int))
    .bind(&row.reason)
    .execute(c)
    .await?;
    Ok(())
}

pub(in crate::store) async fn delete_revocation(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    subject: &str,
) -> Result<(), StoreError> {
    let done = sqlx::query("DELETE FROM revocations WHERE tenant = ? AND subject = ?")
        .bind(tenant.as_str())
        .bind(subject)
        .execute(c)
        .await?;
    if done.rows_affected() == 0 {
        Err(StoreError::NotFound { what: WHAT })
    } else {
        Ok(())
    }
}

/// Across all tenants, at start.
pub(super) async fn delete_ended(c: &mut SqliteConnection, at_ms: u64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM revocations WHERE until_ms <= ?")
        .bind(int(at_ms))
        .execute(c)
        .await?;
    Ok(())
}
