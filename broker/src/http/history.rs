//! What only the database remembers: readings and events of devices, and who changed what.

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use cauce_protocol::Code;
use cauce_protocol::limits::INTEGER_MAX;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, Refused};
use super::caller::Caller;
use super::devices::{find, raw};
use super::extract::{Named, Params};
use super::page::{ListQuery, Page, after, bad_cursor, cursor, limit};
use crate::admin::store_refusal;
use crate::auth::KeyOwner;
use crate::auth::secret::Scope;
use crate::store::{
    AuditQuery, AuditRow, EventRow, Numbered, ReadingCursor, ReadingQuery, ReadingRow, StoreHandle,
};

/// What one channel of a device measured at one moment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadingView {
    channel: String,
    /// When it was measured, by the device's clock if that is set, else when it came.
    ts_ms: u64,
    received_ms: u64,
    output: Option<bool>,
    power_w: Option<f64>,
    voltage_v: Option<f64>,
    current_a: Option<f64>,
    energy_wh: Option<f64>,
    temperature_c: Option<f64>,
}

/// Something that happened to a device.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventView {
    seq: u64,
    ts_ms: u64,
    received_ms: u64,
    /// Which part of the device; null for the device as a whole.
    component: Option<String>,
    event: String,
    #[schema(value_type = Value)]
    data: Option<Box<RawValue>>,
}

/// Who did what.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditView {
    seq: u64,
    at_unix_ms: u64,
    /// Null for what concerns the broker as a whole.
    tenant: Option<String>,
    actor: String,
    action: String,
    target: String,
    #[schema(value_type = Value)]
    detail: Option<Box<RawValue>>,
}

/// Which readings.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadingsQuery {
    /// With an operator's key: the tenant; `default` unless given.
    tenant: Option<String>,
    /// Measured at or after, in milliseconds since 1970.
    #[param(maximum = 9007199254740991u64)]
    from: Option<u64>,
    /// Measured before, in milliseconds since 1970.
    #[param(maximum = 9007199254740991u64)]
    to: Option<u64>,
    /// Only of this channel; then a page may have fewer items than `limit` and still a next one.
    channel: Option<String>,
    /// Items of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

impl Api {
    pub(super) fn store(&self) -> Result<&StoreHandle, Refused> {
        let message = "this broker has no database, so it keeps no history";
        self.admin
            .store()
            .ok_or_else(|| Refused::new(Code::Unsupported, message))
    }
}

fn json(bytes: &Bytes) -> Result<Option<Box<RawValue>>, Refused> {
    Ok((!bytes.is_empty()).then(|| raw(bytes)).transpose()?)
}

pub(super) fn number(key: Option<String>) -> Result<Option<u64>, Refused> {
    let number = key.map(|key| key.parse().map_err(|_| bad_cursor()));
    Ok(number.transpose()?)
}

/// What a device measured, oldest first.
#[utoipa::path(get, path = "/v1/devices/{id}/readings", tag = "devices",
    params(ReadingsQuery, ("id" = String, Path)), responses((status = 200, body = Page<ReadingView>)))]
pub(super) async fn list_readings(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<ReadingsQuery>,
) -> Answer<Page<ReadingView>> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Devices)?;
    let device = find(&tenant, &id)?;
    let read = ReadingQuery {
        tenant: tenant.id.clone(),
        device: device.id.clone(),
        from_ms: moment("from", query.from)?.unwrap_or(0),
        to_ms: moment("to", query.to)?.unwrap_or(INTEGER_MAX),
        limit: limit(query.limit)? as u32,
        after: after(query.cursor.as_deref())?
            .map(|key| reading_cursor(&key))
            .transpose()?,
    };
    let page = api.store()?.readings(read).await.map_err(|e| store_refusal(&e))?;
    let rows = page.rows.into_iter().map(|numbered| numbered.row);
    let wanted = |row: &ReadingRow| {
        query
            .channel
            .as_ref()
            .is_none_or(|name| row.channel.as_str() == name)
    };
    let next = page
        .next
        .map(|next| cursor(&format!("{}.{}", next.ts_ms, next.seq)));
    let items = rows.filter(wanted).map(ReadingView::from).collect();
    Ok(Json(Page { items, next }))
}

/// A time that is exact in every JSON: until the year 287396.
pub(super) fn moment(name: &str, ms: Option<u64>) -> Result<Option<u64>, Refused> {
    match ms {
        Some(ms) if ms > INTEGER_MAX => {
            let message = format!("{name} is a time in milliseconds since 1970, at most {INTEGER_MAX}");
            Err(Refused::new(Code::Invalid, message))
        }
        ms => Ok(ms),
    }
}

fn reading_cursor(key: &str) -> Result<ReadingCursor, Refused> {
    let read = || {
        let (ts_ms, seq) = key.split_once('.')?;
        Some(ReadingCursor {
            ts_ms: ts_ms.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    };
    Ok(read().ok_or_else(bad_cursor)?)
}

impl From<ReadingRow> for ReadingView {
    fn from(row: ReadingRow) -> Self {
        Self {
            channel: row.channel.as_str().to_owned(),
            ts_ms: row.ts_ms,
            received_ms: row.received_ms,
            output: row.output,
            power_w: row.power_w,
            voltage_v: row.voltage_v,
            current_a: row.current_a,
            energy_wh: row.energy_wh,
            temperature_c: row.temperature_c,
        }
    }
}

/// What happened to a device, newest first.
#[utoipa::path(get, path = "/v1/devices/{id}/events", tag = "devices",
    params(ListQuery, ("id" = String, Path)), responses((status = 200, body = Page<EventView>)))]
pub(super) async fn list_device_events(
    State(api): State<Api>,
    caller: Caller,
    Named(id): Named<String>,
    Params(query): Params<ListQuery>,
) -> Answer<Page<EventView>> {
    let tenant = caller.tenant(&api, query.tenant.as_deref(), Scope::Devices)?;
    let device = find(&tenant, &id)?;
    let (limit, before) = (query.limit()? as u32, number(query.after()?)?);
    let events = api
        .store()?
        .device_events(tenant.id.clone(), device.id.clone(), before, limit);
    let page = events.await.map_err(|e| store_refusal(&e))?;
    let items: Result<Vec<_>, Refused> = page.rows.into_iter().map(event_view).collect();
    let next = page.next.map(|seq| cursor(&seq.to_string()));
    Ok(Json(Page { items: items?, next }))
}

fn event_view(Numbered { seq, row }: Numbered<EventRow>) -> Result<EventView, Refused> {
    Ok(EventView {
        seq,
        ts_ms: row.ts_ms,
        received_ms: row.received_ms,
        component: row.component.map(|component| component.to_string()),
        event: row.event.to_string(),
        data: json(&row.data)?,
    })
}

/// Who changed what, newest first. With an operator's key and no tenant: what concerns the broker as a whole.
#[utoipa::path(get, path = "/v1/audit", tag = "operation", params(ListQuery),
    responses((status = 200, body = Page<AuditView>)))]
pub(super) async fn list_audit(
    State(api): State<Api>,
    caller: Caller,
    Params(query): Params<ListQuery>,
) -> Answer<Page<AuditView>> {
    let tenant = match caller.owner(&api, query.tenant.as_deref(), Scope::Keys)? {
        KeyOwner::Operator => None,
        KeyOwner::Tenant(tenant) => Some(tenant),
    };
    let rows = api.store()?.audit_rows(AuditQuery {
        tenant,
        limit: query.limit()? as u32,
        before_seq: number(query.after()?)?,
    });
    let page = rows.await.map_err(|e| store_refusal(&e))?;
    let items: Result<Vec<_>, Refused> = page.rows.into_iter().map(audit_view).collect();
    let next = page.next.map(|seq| cursor(&seq.to_string()));
    Ok(Json(Page { items: items?, next }))
}

fn audit_view(Numbered { seq, row }: Numbered<AuditRow>) -> Result<AuditView, Refused> {
    Ok(AuditView {
        seq,
        at_unix_ms: row.at_ms,
        tenant: row.tenant.map(|tenant| tenant.to_string()),
        actor: row.actor.to_string(),
        action: row.action.to_string(),
        target: row.target.to_string(),
        detail: json(&row.detail)?,
    })
}
