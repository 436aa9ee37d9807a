//! Looking back: readings, events, audit, connections, and how many rows there are.

use bytes::Bytes;
use cauce_protocol::{ConnectionId, DeviceId, TenantId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::values::{damaged, int, name, page, page_rows, text_bytes, uint, uint_opt};
use crate::store::error::StoreError;
use crate::store::rows::{
    AuditQuery, AuditRow, Channel, ConnectionEvent, ConnectionEventKind, ConnectionLogQuery,
    ConnectionLogRow, EventRow, Numbered, Page, ReadingCursor, ReadingQuery, ReadingRow, TableCounts,
};

fn shared(row: &SqliteRow, column: usize) -> Result<std::sync::Arc<str>, sqlx::Error> {
    let text: &str = row.try_get(column)?;
    Ok(text.into())
}

fn read_reading(row: &SqliteRow) -> Result<Numbered<ReadingRow>, sqlx::Error> {
    let channel: &str = row.try_get(4)?;
    Ok(Numbered {
        seq: uint(row, 3)?,
        row: ReadingRow {
            tenant: name(row, 0)?,
            device: name(row, 1)?,
            ts_ms: uint(row, 2)?,
            channel: Channel::new(channel)
                .map_err(|e| damaged(format_args!("the channel {channel:?}: {e}")))?,
            received_ms: uint(row, 5)?,
            output: row.try_get(6)?,
            power_w: row.try_get(7)?,
            voltage_v: row.try_get(8)?,
            current_a: row.try_get(9)?,
            energy_wh: row.try_get(10)?,
            temperature_c: row.try_get(11)?,
        },
    })
}

/// Oldest first, by the time they were measured.
pub(in crate::store) async fn readings(
    c: &mut SqliteConnection,
    query: &ReadingQuery,
) -> Result<Page<Numbered<ReadingRow>, ReadingCursor>, StoreError> {
    // Numbers begin at 1, so that (from, 0) is before every reading of that moment.
    let start = ReadingCursor {
        ts_ms: query.from_ms,
        seq: 0,
    };
    let after = query.after.unwrap_or(start).max(start);
    let rows = sqlx::query(
        "SELECT tenant, device, ts_ms, seq, channel, received_ms, output, power_w, voltage_v, current_a, energy_wh, \
         temperature_c FROM device_readings \
         WHERE tenant = ? AND device = ? AND (ts_ms, seq) > (?, ?) AND ts_ms < ? ORDER BY ts_ms, seq LIMIT ?",
    )
    .bind(query.tenant.as_str())
    .bind(query.device.as_str())
    .bind(int(after.ts_ms))
    .bind(int(after.seq))
    .bind(int(query.to_ms))
    .bind(page_rows(query.limit))
    .fetch_all(c)
    .await?;
    page(&rows, query.limit, read_reading, |r| ReadingCursor {
        ts_ms: r.row.ts_ms,
        seq: r.seq,
    })
}

fn read_event(row: &SqliteRow) -> Result<Numbered<EventRow>, sqlx::Error> {
    let component: Option<&str> = row.try_get(5)?;
    Ok(Numbered {
        seq: uint(row, 2)?,
        row: EventRow {
            tenant: name(row, 0)?,
            device: name(row, 1)?,
            ts_ms: uint(row, 3)?,
            received_ms: uint(row, 4)?,
            component: component.map(Into::into),
            event: shared(row, 6)?,
            data: text_bytes(row, 7)?,
        },
    })
}

/// Newest first.
pub(in crate::store) async fn device_events(
    c: &mut SqliteConnection,
    tenant: &TenantId,
    device: &DeviceId,
    before_seq: Option<u64>,
    limit: u32,
) -> Result<Page<Numbered<EventRow>, u64>, StoreError> {
    let rows = sqlx::query(
        "SELECT tenant, device, seq, ts_ms, received_ms, component, event, data FROM device_events \
         WHERE tenant = ? AND device = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
    )
    .bind(tenant.as_str())
    .bind(device.as_str())
    .bind(before_seq.map_or(i64::MAX, int))
    .bind(page_rows(limit))
    .fetch_all(c)
    .await?;
    page(&rows, limit, read_event, |r| r.seq)
}

fn read_audit(row: &SqliteRow) -> Result<Numbered<AuditRow>, sqlx::Error> {
    let tenant = match row.try_get(0)? {
        "" => None,
        _ => Some(name(row, 0)?),
    };
    let detail: Bytes = text_bytes(row, 6)?;
    Ok(Numbered {
        seq: uint(row, 1)?,
        row: AuditRow {
            tenant,
            at_ms: uint(row, 2)?,
            actor: shared(row, 3)?,
            action: shared(row, 4)?,
            target: shared(row, 5)?,
            detail,
        },
    })
}

/// Newest first.
pub(in crate::store) async fn audit_rows(
    c: &mut SqliteConnection,
    query: &AuditQuery,
) -> Result<Page<Numbered<AuditRow>, u64>, StoreError> {
    let rows = sqlx::query(
        "SELECT tenant, seq, at_ms, actor, action, target, detail FROM audit WHERE tenant = ? AND seq < ? \
         ORDER BY seq DESC LIMIT ?",
    )
    .bind(query.tenant.as_ref().map_or("", |t| t.as_str()))
    .bind(query.before_seq.map_or(i64::MAX, int))
    .bind(page_rows(query.limit))
    .fetch_all(c)
    .await?;
    page(&rows, query.limit, read_audit, |r| r.seq)
}

fn read_connection_log(row: &SqliteRow) -> Result<Numbered<ConnectionLogRow>, sqlx::Error> {
    let text = |column| -> Result<Option<Box<str>>, sqlx::Error> {
        let text: Option<&str> = row.try_get(column)?;
        Ok(text.map(Into::into))
    };
    let event = match row.try_get(5)? {
        "opened" => ConnectionEvent::Opened,
        "closed" => ConnectionEvent::Closed {
            code: row.try_get(6)?,
            message: text(7)?,
            duration_ms: uint_opt(row, 10)?.unwrap_or(0),
        },
        other => return Err(damaged(format_args!("the connection's event {other:?}"))),
    };
    let address: &str = row.try_get(8)?;
    Ok(Numbered {
        seq: uint(row, 1)?,
        row: ConnectionLogRow {
            tenant: name(row, 0)?,
            at_ms: uint(row, 2)?,
            connection: ConnectionId(uint(row, 3)?),
            user: name(row, 4)?,
            address: address.into(),
            client: text(9)?,
            event,
        },
    })
}

/// Newest first.
pub(in crate::store) async fn connection_logs(
    c: &mut SqliteConnection,
    query: &ConnectionLogQuery,
) -> Result<Page<Numbered<ConnectionLogRow>, u64>, StoreError> {
    // Two statements, so that one user's rows are found by their index.
    let text = match query.user {
        None => {
            "SELECT tenant, seq, at_ms, connection, user, event, code, message, address, client, duration_ms \
             FROM connection_logs WHERE tenant = ?1 AND seq < ?2 AND at_ms >= ?3 AND at_ms < ?4 \
             AND (?5 IS NULL OR event = ?5) ORDER BY seq DESC LIMIT ?6"
        }
        Some(_) => {
            "SELECT tenant, seq, at_ms, connection, user, event, code, message, address, client, duration_ms \
             FROM connection_logs WHERE tenant = ?1 AND seq < ?2 AND at_ms >= ?3 AND at_ms < ?4 \
             AND (?5 IS NULL OR event = ?5) AND user = ?7 ORDER BY seq DESC LIMIT ?6"
        }
    };
    let mut asked = sqlx::query(text)
        .bind(query.tenant.as_str())
        .bind(query.before_seq.map_or(i64::MAX, int))
        .bind(int(query.since_ms))
        .bind(int(query.until_ms))
        .bind(query.event.map(ConnectionEventKind::as_str))
        .bind(page_rows(query.limit));
    if let Some(user) = &query.user {
        asked = asked.bind(user.as_str());
    }
    let rows = asked.fetch_all(c).await?;
    page(&rows, query.limit, read_connection_log, |r| r.seq)
}

/// Counts rows one by one: a matter of seconds for tens of millions.
pub(in crate::store) async fn counts(
    c: &mut SqliteConnection,
    tenant: Option<&TenantId>,
) -> Result<TableCounts, StoreError> {
    let text = match tenant {
        None => {
            "SELECT (SELECT COUNT(*) FROM tenants), (SELECT COUNT(*) FROM signing_keys), \
             (SELECT COUNT(*) FROM api_keys), (SELECT COUNT(*) FROM device_tokens), (SELECT COUNT(*) FROM devices), \
             (SELECT COUNT(*) FROM device_readings), (SELECT COUNT(*) FROM device_events), \
             (SELECT COUNT(*) FROM audit), (SELECT COUNT(*) FROM connection_logs)"
        }
        Some(_) => {
            "SELECT (SELECT COUNT(*) FROM tenants WHERE tenant = ?1), \
             (SELECT COUNT(*) FROM signing_keys WHERE tenant = ?1), \
             (SELECT COUNT(*) FROM api_keys WHERE tenant = ?1), \
             (SELECT COUNT(*) FROM device_tokens WHERE tenant = ?1), \
             (SELECT COUNT(*) FROM devices WHERE tenant = ?1), \
             (SELECT COUNT(*) FROM device_readings WHERE tenant = ?1), \
             (SELECT COUNT(*) FROM device_events WHERE tenant = ?1), \
             (SELECT COUNT(*) FROM audit WHERE tenant = ?1), \
             (SELECT COUNT(*) FROM connection_logs WHERE tenant = ?1)"
        }
    };
    let mut query = sqlx::query(text);
    if let Some(tenant) = tenant {
        query = query.bind(tenant.as_str());
    }
    let row = query.fetch_one(c).await?;
    Ok(TableCounts {
        tenants: uint(&row, 0)?,
        signing_keys: uint(&row, 1)?,
        api_keys: uint(&row, 2)?,
        device_tokens: uint(&row, 3)?,
        devices: uint(&row, 4)?,
        device_readings: uint(&row, 5)?,
        device_events: uint(&row, 6)?,
        audit: uint(&row, 7)?,
        connection_logs: uint(&row, 8)?,
    })
}
