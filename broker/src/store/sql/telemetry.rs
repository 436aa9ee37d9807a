//! States, readings, events and audit: written in bulk, deleted by age.

use sqlx::Arguments;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};

use super::insert::{Bind, Insert, Inserted, insert};
use super::values::int;
use crate::store::batch::Piece;
use crate::store::rows::{
    AuditRow, ConnectionEvent, ConnectionLogRow, DeviceStateRow, EventRow, Numbered, ReadingRow,
};

/// A state never replaces a newer one: not of this run, nor one of a later run.
static STATES: Insert = Insert::new(
    "INSERT INTO devices (tenant, device, boot, seq, received_ms, src, model, state)",
    8,
    "ON CONFLICT (tenant, device) DO UPDATE SET boot = excluded.boot, seq = excluded.seq, \
     received_ms = excluded.received_ms, src = excluded.src, model = excluded.model, state = excluded.state \
     WHERE (excluded.boot, excluded.seq) >= (devices.boot, devices.seq)",
);

/// Numbers are unique, so a conflict means that this very row is there already: the commit before had succeeded although
/// its answer was an error.
static READINGS: Insert = Insert::new(
    "INSERT INTO device_readings (tenant, device, ts_ms, seq, channel, received_ms, output, power_w, voltage_v, \
     current_a, energy_wh, temperature_c)",
    12,
    "ON CONFLICT (tenant, device, ts_ms, seq) DO NOTHING",
);

static EVENTS: Insert = Insert::new(
    "INSERT INTO device_events (tenant, device, seq, ts_ms, received_ms, component, event, data)",
    8,
    "ON CONFLICT (tenant, device, seq) DO NOTHING",
);

static AUDIT: Insert = Insert::new(
    "INSERT INTO audit (tenant, seq, at_ms, actor, action, target, detail)",
    7,
    "ON CONFLICT (tenant, seq) DO NOTHING",
);

static CONNECTION_LOGS: Insert = Insert::new(
    "INSERT INTO connection_logs (tenant, seq, at_ms, connection, user, event, code, message, address, client, \
     duration_ms)",
    11,
    "ON CONFLICT (tenant, seq) DO NOTHING",
);

struct State<'a> {
    boot: u64,
    row: &'a DeviceStateRow,
}

impl Bind for State<'_> {
    fn bind(&self, values: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let row = self.row;
        values.add(row.tenant.as_str())?;
        values.add(row.device.as_str())?;
        values.add(int(self.boot))?;
        values.add(int(row.seq))?;
        values.add(int(row.received_ms))?;
        values.add(&row.src)?;
        values.add(&row.model)?;
        values.add(std::str::from_utf8(&row.state)?)
    }
}

impl Bind for Numbered<ReadingRow> {
    fn bind(&self, values: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let row = &self.row;
        values.add(row.tenant.as_str())?;
        values.add(row.device.as_str())?;
        values.add(int(row.ts_ms))?;
        values.add(int(self.seq))?;
        values.add(row.channel.as_str())?;
        values.add(int(row.received_ms))?;
        values.add(row.output)?;
        values.add(row.power_w)?;
        values.add(row.voltage_v)?;
        values.add(row.current_a)?;
        values.add(row.energy_wh)?;
        values.add(row.temperature_c)
    }
}

impl Bind for Numbered<EventRow> {
    fn bind(&self, values: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let row = &self.row;
        values.add(row.tenant.as_str())?;
        values.add(row.device.as_str())?;
        values.add(int(self.seq))?;
        values.add(int(row.ts_ms))?;
        values.add(int(row.received_ms))?;
        values.add(&row.component)?;
        values.add(&row.event)?;
        values.add(std::str::from_utf8(&row.data)?)
    }
}

impl Bind for Numbered<AuditRow> {
    fn bind(&self, values: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let row = &self.row;
        values.add(row.tenant.as_ref().map_or("", |t| t.as_str()))?;
        values.add(int(self.seq))?;
        values.add(int(row.at_ms))?;
        values.add(&row.actor)?;
        values.add(&row.action)?;
        values.add(&row.target)?;
        values.add(std::str::from_utf8(&row.detail)?)
    }
}

impl Bind for Numbered<ConnectionLogRow> {
    fn bind(&self, values: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let row = &self.row;
        let (code, message, duration_ms) = match &row.event {
            ConnectionEvent::Opened => (None, None, None),
            ConnectionEvent::Closed {
                code,
                message,
                duration_ms,
            } => (*code, message.as_deref(), Some(int(*duration_ms))),
        };
        values.add(row.tenant.as_str())?;
        values.add(int(self.seq))?;
        values.add(int(row.at_ms))?;
        values.add(int(row.connection.0))?;
        values.add(row.user.as_str())?;
        values.add(row.event.kind().as_str())?;
        values.add(code)?;
        values.add(message)?;
        values.add(&*row.address)?;
        values.add(row.client.as_deref())?;
        values.add(duration_ms)
    }
}

/// By table.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct Written {
    pub(in crate::store) states: Inserted,
    pub(in crate::store) readings: Inserted,
    pub(in crate::store) events: Inserted,
    pub(in crate::store) audits: Inserted,
    pub(in crate::store) connections: Inserted,
}

/// Within a transaction of the caller.
///
/// # Errors
/// The database's trouble; then the transaction must not be committed.
pub(in crate::store) async fn write_piece(
    connection: &mut SqliteConnection,
    boot: u64,
    piece: Piece<'_>,
) -> Result<Written, sqlx::Error> {
    let states: Vec<State<'_>> = piece.states.iter().map(|row| State { boot, row }).collect();
    Ok(Written {
        states: insert(connection, &STATES, &states).await?,
        readings: insert(connection, &READINGS, piece.readings).await?,
        events: insert(connection, &EVENTS, piece.events).await?,
        audits: insert(connection, &AUDIT, piece.audits).await?,
        connections: insert(connection, &CONNECTION_LOGS, piece.connections).await?,
    })
}

/// The tables that only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Log {
    Audit,
    Connections,
    Events,
    /// What `before_ms` is to the others, the present is to these.
    Notifications,
    Readings,
}

/// Deletes the oldest rows received before `before_ms`, at most `rows_max`. Returns how many.
pub(in crate::store) async fn delete_older(
    connection: &mut SqliteConnection,
    log: Log,
    before_ms: u64,
    rows_max: u32,
) -> Result<u64, sqlx::Error> {
    let text = match log {
        Log::Audit => {
            "DELETE FROM audit WHERE (tenant, seq) IN \
             (SELECT tenant, seq FROM audit WHERE at_ms < ? ORDER BY at_ms LIMIT ?)"
        }
        Log::Connections => {
            "DELETE FROM connection_logs WHERE (tenant, seq) IN \
             (SELECT tenant, seq FROM connection_logs WHERE at_ms < ? ORDER BY at_ms LIMIT ?)"
        }
        Log::Events => {
            "DELETE FROM device_events WHERE (tenant, device, seq) IN \
             (SELECT tenant, device, seq FROM device_events WHERE received_ms < ? ORDER BY received_ms LIMIT ?)"
        }
        Log::Notifications => return super::notifications::sweep(connection, before_ms, rows_max).await,
        Log::Readings => {
            "DELETE FROM device_readings WHERE (tenant, device, ts_ms, seq) IN \
             (SELECT tenant, device, ts_ms, seq FROM device_readings WHERE received_ms < ? \
              ORDER BY received_ms LIMIT ?)"
        }
    };
    let done = sqlx::query(text)
        .bind(int(before_ms))
        .bind(rows_max)
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}
