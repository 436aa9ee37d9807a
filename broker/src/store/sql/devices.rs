//! Devices as people see them: last state, what they are assigned to, what was noted about them.

use bytes::Bytes;
use cauce_protocol::{DeviceId, TenantId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::tenants::expect_tenant;
use super::values::{int, json, name, page, page_rows, text_bytes, uint};
use crate::store::error::StoreError;
use crate::store::rows::{Assignment, DeviceRow, LastState, Page};

pub(super) fn read(row: &SqliteRow) -> Result<DeviceRow, sqlx::Error> {
    let state: Option<&str> = row.try_get(6)?;
    let last = match state {
        None => None,
        Some(_) => Some(LastState {
            seq: uint(row, 2)?,
            received_ms: uint(row, 3)?,
            src: row.try_get(4)?,
            model: row.try_get(5)?,
            state: text_bytes(row, 6)?,
        }),
    };
    let equipment: Option<String> = row.try_get(7)?;
    let assignment = match equipment {
        None => None,
        Some(equipment_id) => Some(Assignment {
            equipment_id,
            label: row.try_get(8)?,
            assigned_ms: uint(row, 9)?,
        }),
    };
    let metadata: Option<&str> = row.try_get(10)?;
    let metadata = metadata.map(|_| text_bytes(row, 10)).transpose()?;
    Ok(DeviceRow {
        tenant: name(row, 0)?,
        device: name(row, 1)?,
        last,
        assignment,
        metadata,
    })
}

pub(in crate::store) async fn devices(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    after: Option<&DeviceId>,
    limit: u32,
) -> Result<Page<DeviceRow, DeviceId>, StoreError> {
    let rows = sqlx::query(
        "SELECT tenant, device, seq, received_ms, src, model, state, equipment_id, label, assigned_ms, metadata \
         FROM devices WHERE tenant = ? AND device > ? ORDER BY device LIMIT ?",
    )
    .bind(tenant.as_str())
    .bind(after.map_or("", |d| d.as_str()))
    .bind(page_rows(limit))
    .fetch_all(c)
    .await?;
    page(&rows, limit, read, |row| row.device.clone())
}

pub(in crate::store) async fn device(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    device: &DeviceId,
) -> Result<DeviceRow, StoreError> {
    let row = sqlx::query(
        "SELECT tenant, device, seq, received_ms, src, model, state, equipment_id, label, assigned_ms, metadata \
         FROM devices WHERE tenant = ? AND device = ?",
    )
    .bind(tenant.as_str())
    .bind(device.as_str())
    .fetch_optional(c)
    .await?
    .ok_or(StoreError::NotFound { what: "device" })?;
    Ok(read(&row)?)
}

/// Announces the device if it has not spoken yet.
pub(in crate::store) async fn set_device_metadata(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    device: &DeviceId,
    metadata: Option<&Bytes>,
) -> Result<DeviceRow, StoreError> {
    expect_tenant(c, tenant).await?;
    let row = sqlx::query(
        "INSERT INTO devices (tenant, device, metadata) VALUES (?, ?, ?) \
         ON CONFLICT (tenant, device) DO UPDATE SET metadata = excluded.metadata \
         RETURNING tenant, device, seq, received_ms, src, model, state, equipment_id, label, assigned_ms, metadata",
    )
    .bind(tenant.as_str())
    .bind(device.as_str())
    .bind(metadata.map(json).transpose()?)
    .fetch_one(c)
    .await?;
    Ok(read(&row)?)
}

/// Announces the device if it has not spoken yet.
pub(in crate::store) async fn assign_device(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    device: &DeviceId,
    assignment: Option<&Assignment>,
) -> Result<DeviceRow, StoreError> {
    expect_tenant(c, tenant).await?;
    let row = sqlx::query(
        "INSERT INTO devices (tenant, device, equipment_id, label, assigned_ms) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (tenant, device) DO UPDATE SET equipment_id = excluded.equipment_id, label = excluded.label, \
         assigned_ms = excluded.assigned_ms \
         RETURNING tenant, device, seq, received_ms, src, model, state, equipment_id, label, assigned_ms, metadata",
    )
    .bind(tenant.as_str())
    .bind(device.as_str())
    .bind(assignment.map(|a| &a.equipment_id))
    .bind(assignment.and_then(|a| a.label.as_ref()))
    .bind(assignment.map(|a| int(a.assigned_ms)))
    .fetch_one(c)
    .await?;
    Ok(read(&row)?)
}
