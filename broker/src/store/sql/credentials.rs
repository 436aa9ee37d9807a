//! Signing keys, API keys, device tokens: hashes and sealed blobs, revoked but never deleted.

use cauce_protocol::TenantId;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::tenants::expect_tenant;
use super::values::{blob, damaged, int, name, page, page_rows, uint, uint_opt};
use crate::store::error::StoreError;
use crate::store::rows::{ApiKeyRow, DeviceTokenRow, KeyOwner, Page, SigningKeyRow};

const SIGNING_KEY: &str = "signing key";
const API_KEY: &str = "API key";
const DEVICE_TOKEN: &str = "device token";

/// The operator is written as the name no tenant can have.
const OPERATOR: &str = "";

fn owner_text(owner: &KeyOwner) -> &str {
    match owner {
        KeyOwner::Operator => OPERATOR,
        KeyOwner::Tenant(tenant) => tenant.as_str(),
    }
}

/// 0 rows touched: which `what` was it?
fn touched(rows: u64, none: StoreError) -> Result<(), StoreError> {
    if rows == 0 { Err(none) } else { Ok(()) }
}

pub(super) fn read_signing_key(row: &SqliteRow) -> Result<SigningKeyRow, sqlx::Error> {
    Ok(SigningKeyRow {
        tenant: name(row, 0)?,
        kid: row.try_get(1)?,
        alg: row.try_get(2)?,
        material: blob(row, 3)?,
        created_ms: uint(row, 4)?,
        revoked_ms: uint_opt(row, 5)?,
    })
}

pub(super) fn read_api_key(row: &SqliteRow) -> Result<ApiKeyRow, sqlx::Error> {
    let owner = match row.try_get(0)? {
        OPERATOR => KeyOwner::Operator,
        _ => KeyOwner::Tenant(name(row, 0)?),
    };
    let scopes: &str = row.try_get(4)?;
    Ok(ApiKeyRow {
        owner,
        id: row.try_get(1)?,
        hash: blob(row, 2)?,
        name: row.try_get(3)?,
        scopes: serde_json::from_str(scopes)
            .map_err(|e| damaged(format_args!("scopes of an API key: {e}")))?,
        created_ms: uint(row, 5)?,
        revoked_ms: uint_opt(row, 6)?,
    })
}

pub(super) fn read_device_token(row: &SqliteRow) -> Result<DeviceTokenRow, sqlx::Error> {
    let device: Option<&str> = row.try_get(3)?;
    Ok(DeviceTokenRow {
        tenant: name(row, 0)?,
        id: row.try_get(1)?,
        hash: blob(row, 2)?,
        device: device.map(|_| name(row, 3)).transpose()?,
        label: row.try_get(4)?,
        created_ms: uint(row, 5)?,
        revoked_ms: uint_opt(row, 6)?,
    })
}

pub(in crate::store) async fn add_signing_key(
    c: &mut SqliteConnection,
    row: &SigningKeyRow,
) -> Result<(), StoreError> {
    expect_tenant(c, &row.tenant).await?;
    let done = sqlx::query(
        "INSERT INTO signing_keys (tenant, kid, alg, material, created_ms, revoked_ms) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT (tenant, kid) DO NOTHING",
    )
    .bind(row.tenant.as_str())
    .bind(&row.kid)
    .bind(&row.alg)
    .bind(row.material.as_ref())
    .bind(int(row.created_ms))
    .bind(row.revoked_ms.map(int))
    .execute(c)
    .await?;
    touched(done.rows_affected(), StoreError::Conflict { what: SIGNING_KEY })
}

pub(in crate::store) async fn signing_keys(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<SigningKeyRow, String>, StoreError> {
    let rows = sqlx::query(
        "SELECT tenant, kid, alg, material, created_ms, revoked_ms FROM signing_keys WHERE tenant = ? AND kid > ? \
         ORDER BY kid LIMIT ?",
    )
    .bind(tenant.as_str())
    .bind(after.unwrap_or_default())
    .bind(page_rows(limit))
    .fetch_all(c)
    .await?;
    page(&rows, limit, read_signing_key, |row| row.kid.clone())
}

pub(in crate::store) async fn revoke_signing_key(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    kid: &str,
    at_ms: u64,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "UPDATE signing_keys SET revoked_ms = COALESCE(revoked_ms, ?) WHERE tenant = ? AND kid = ?",
    )
    .bind(int(at_ms))
    .bind(tenant.as_str())
    .bind(kid)
    .execute(c)
    .await?;
    touched(done.rows_affected(), StoreError::NotFound { what: SIGNING_KEY })
}

pub(in crate::store) async fn create_api_key(
    c: &mut SqliteConnection,
    row: &ApiKeyRow,
) -> Result<(), StoreError> {
    if let KeyOwner::Tenant(tenant) = &row.owner {
        expect_tenant(c, tenant).await?;
    }
    let scopes = serde_json::to_string(&row.scopes).map_err(|_| StoreError::Invalid {
        what: "scopes cannot be written as JSON",
    })?;
    let done = sqlx::query(
        "INSERT INTO api_keys (tenant, id, hash, name, scopes, created_ms, revoked_ms) VALUES (?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (tenant, id) DO NOTHING",
    )
    .bind(owner_text(&row.owner))
    .bind(&row.id)
    .bind(row.hash.as_ref())
    .bind(&row.name)
    .bind(scopes)
    .bind(int(row.created_ms))
    .bind(row.revoked_ms.map(int))
    .execute(c)
    .await?;
    touched(done.rows_affected(), StoreError::Conflict { what: API_KEY })
}

pub(in crate::store) async fn api_keys(
    c: &mut SqliteConnection,
    owner: &KeyOwner,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<ApiKeyRow, String>, StoreError> {
    let rows = sqlx::query(
        "SELECT tenant, id, hash, name, scopes, created_ms, revoked_ms FROM api_keys WHERE tenant = ? AND id > ? \
         ORDER BY id LIMIT ?",
    )
    .bind(owner_text(owner))
    .bind(after.unwrap_or_default())
    .bind(page_rows(limit))
    .fetch_all(c)
    .await?;
    page(&rows, limit, read_api_key, |row| row.id.clone())
}

pub(in crate::store) async fn revoke_api_key(
    c: &mut SqliteConnection,
    owner: &KeyOwner,
    id: &str,
    at_ms: u64,
) -> Result<(), StoreError> {
    let done =
        sqlx::query("UPDATE api_keys SET revoked_ms = COALESCE(revoked_ms, ?) WHERE tenant = ? AND id = ?")
            .bind(int(at_ms))
            .bind(owner_text(owner))
            .bind(id)
            .execute(c)
            .await?;
    touched(done.rows_affected(), StoreError::NotFound { what: API_KEY })
}

pub(in crate::store) async fn create_device_token(
    c: &mut SqliteConnection,
    row: &DeviceTokenRow,
) -> Result<(), StoreError> {
    expect_tenant(c, &row.tenant).await?;
    let done = sqlx::query(
        "INSERT INTO device_tokens (tenant, id, hash, device, label, created_ms, revoked_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, id) DO NOTHING",
    )
    .bind(row.tenant.as_str())
    .bind(&row.id)
    .bind(row.hash.as_ref())
    .bind(row.device.as_ref().map(cauce_protocol::DeviceId::as_str))
    .bind(&row.label)
    .bind(int(row.created_ms))
    .bind(row.revoked_ms.map(int))
    .execute(c)
    .await?;
    touched(done.rows_affected(), StoreError::Conflict { what: DEVICE_TOKEN })
}

pub(in crate::store) async fn device_tokens(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    after: Option<&str>,
    limit: u32,
) -> Result<Page<DeviceTokenRow, String>, StoreError> {
    let rows = sqlx::query(
        "SELECT tenant, id, hash, device, label, created_ms, revoked_ms FROM device_tokens \
         WHERE tenant = ? AND id > ? ORDER BY id LIMIT ?",
    )
    .bind(tenant.as_str())
    .bind(after.unwrap_or_default())
    .bind(page_rows(limit))
    .fetch_all(c)
    .await?;
    page(&rows, limit, read_device_token, |row| row.id.clone())
}

pub(in crate::store) async fn revoke_device_token(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    id: &str,
    at_ms: u64,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "UPDATE device_tokens SET revoked_ms = COALESCE(revoked_ms, ?) WHERE tenant = ? AND id = ?",
    )
    .bind(int(at_ms))
    .bind(tenant.as_str())
    .bind(id)
    .execute(c)
    .await?;
    touched(done.rows_affected(), StoreError::NotFound { what: DEVICE_TOKEN })
}
