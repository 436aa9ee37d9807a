//! Tenants: made, changed and disabled, never deleted, so that a name once given keeps its meaning.

use cauce_protocol::TenantId;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::values::{int, json, name, page, page_rows, text_bytes, uint};
use crate::store::error::StoreError;
use crate::store::rows::{Page, TenantChange, TenantRow, TenantStatus};

const WHAT: &str = "tenant";

fn status_text(status: TenantStatus) -> &'static str {
    match status {
        TenantStatus::Disabled => "disabled",
        TenantStatus::Enabled => "enabled",
    }
}

pub(super) fn read(row: &SqliteRow) -> Result<TenantRow, sqlx::Error> {
    Ok(TenantRow {
        tenant: name(row, 0)?,
        name: row.try_get(1)?,
        // The schema allows two words; were there ever a third, being locked out is the safe reading.
        status: match row.try_get(2)? {
            "enabled" => TenantStatus::Enabled,
            _ => TenantStatus::Disabled,
        },
        settings: text_bytes(row, 3)?,
        created_ms: uint(row, 4)?,
        updated_ms: uint(row, 5)?,
    })
}

pub(in crate::store) async fn create_tenant(
    c: &mut SqliteConnection,
    row: &TenantRow,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "INSERT INTO tenants (tenant, name, status, settings, created_ms, updated_ms) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT (tenant) DO NOTHING",
    )
    .bind(row.tenant.as_str())
    .bind(&row.name)
    .bind(status_text(row.status))
    .bind(json(&row.settings)?)
    .bind(int(row.created_ms))
    .bind(int(row.updated_ms))
    .execute(c)
    .await?;
    if done.rows_affected() == 0 {
        Err(StoreError::Conflict { what: WHAT })
    } else {
        Ok(())
    }
}

pub(in crate::store) async fn update_tenant(
    c: &mut SqliteConnection,
    id: &TenantId,
    change: &TenantChange,
    at_ms: u64,
) -> Result<TenantRow, StoreError> {
    let settings = change.settings.as_ref().map(json).transpose()?;
    let row = sqlx::query(
        "UPDATE tenants SET name = COALESCE(?, name), status = COALESCE(?, status), \
         settings = COALESCE(?, settings), updated_ms = ? WHERE tenant = ? \
         RETURNING tenant, name, status, settings, created_ms, updated_ms",
    )
    .bind(&change.name)
    .bind(change.status.map(status_text))
    .bind(settings)
    .bind(int(at_ms))
    .bind(id.as_str())
    .fetch_optional(c)
    .await?
    .ok_or(StoreError::NotFound { what: WHAT })?;
    Ok(read(&row)?)
}

pub(in crate::store) async fn tenant(
    c: &mut SqliteConnection,
    id: &TenantId,
) -> Result<TenantRow, StoreError> {
    let row = sqlx::query(
        "SELECT tenant, name, status, settings, created_ms, updated_ms FROM tenants WHERE tenant = ?",
    )
    .bind(id.as_str())
    .fetch_optional(c)
    .await?
    .ok_or(StoreError::NotFound { what: WHAT })?;
    Ok(read(&row)?)
}

pub(in crate::store) async fn tenants(
    c: &mut SqliteConnection,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Page<TenantRow, TenantId>, StoreError> {
    let rows = sqlx::query(
        "SELECT tenant, name, status, settings, created_ms, updated_ms FROM tenants WHERE tenant > ? \
         ORDER BY tenant LIMIT ?",
    )
    .bind(after.map_or("", |t| t.as_str()))
    .bind(page_rows(limit))
    .fetch_all(c)
    .await?;
    page(&rows, limit, read, |row| row.tenant.clone())
}

/// For tables whose tenant may be the operator, and which therefore have no foreign key.
pub(super) async fn expect_tenant(c: &mut SqliteConnection, id: &TenantId) -> Result<(), StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM tenants WHERE tenant = ?")
        .bind(id.as_str())
        .fetch_optional(c)
        .await?;
    found.map(|_| ()).ok_or(StoreError::NotFound { what: WHAT })
}
