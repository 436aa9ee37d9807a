//! What goes into the database and what comes out of it, as plain values.
//!
//! Secrets never appear here in the clear: callers hand over hashes and sealed blobs, and the `Debug` of those
//! prints their length alone. All times are milliseconds since 1970 by the wall clock.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::{ConnectionId, DeviceId, TenantId, UserId};

use super::messages::{RoomHead, SeenKey};

/// Longest name of a device's channel, in bytes: `switch:0`, `cover:1`, `temperature:101`.
pub const CHANNEL_BYTES_MAX: usize = 64;

/// A component of a device that measures or switches, as the device names it: `switch:0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// A channel's name is empty, too long, or not printable ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelError;

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a channel's name is 1 to {CHANNEL_BYTES_MAX} bytes of printable ASCII"
        )
    }
}

impl std::error::Error for ChannelError {}

impl Channel {
    /// # Errors
    /// If the name is not 1 to [`CHANNEL_BYTES_MAX`] bytes of printable ASCII.
    pub fn new(name: &str) -> Result<Self, ChannelError> {
        let fits = (1..=CHANNEL_BYTES_MAX).contains(&name.len());
        if fits && name.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(name.into()))
        } else {
            Err(ChannelError)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The merged state of a device. The newest one of a device wins; the others need not be written.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceStateRow {
    pub tenant: TenantId,
    pub device: DeviceId,
    /// Rises with every state of this device while the broker runs. States of an earlier run are always older,
    /// so counting may start anew after a restart.
    pub seq: u64,
    pub received_ms: u64,
    /// What the device calls itself: `shellyplusplugs-8cbfeaa133f0`.
    pub src: Arc<str>,
    pub model: Option<Arc<str>>,
    /// JSON in UTF-8.
    pub state: Bytes,
}

/// What one channel measured at one moment. Every reading is kept, in the order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadingRow {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub channel: Channel,
    /// When it was measured, by the device's clock if that is set, else when it came.
    pub ts_ms: u64,
    pub received_ms: u64,
    pub output: Option<bool>,
    pub power_w: Option<f64>,
    pub voltage_v: Option<f64>,
    pub current_a: Option<f64>,
    pub energy_wh: Option<f64>,
    pub temperature_c: Option<f64>,
}

/// Something that happened to a device: a button, a reboot, going offline. Every event is kept, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub ts_ms: u64,
    pub received_ms: u64,
    /// Which part of the device it concerns; none for the device as a whole.
    pub component: Option<Arc<str>>,
    pub event: Arc<str>,
    /// JSON in UTF-8; may be empty.
    pub data: Bytes,
}

/// Who did what, for the record.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRow {
    /// None for what the operator did to the broker as a whole.
    pub tenant: Option<TenantId>,
    pub at_ms: u64,
    /// Id of the key, token or user; never the secret.
    pub actor: Arc<str>,
    pub action: Arc<str>,
    pub target: Arc<str>,
    /// JSON in UTF-8; may be empty.
    pub detail: Bytes,
}

/// A client's coming or going.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLogRow {
    pub tenant: TenantId,
    pub at_ms: u64,
    pub connection: ConnectionId,
    pub user: UserId,
    /// The network it came from, without what names the machine: `192.0.2.0/24`.
    pub address: Box<str>,
    /// Name and version that the client gave.
    pub client: Option<Box<str>>,
    pub event: ConnectionEvent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// It is authenticated.
    Opened,
    Closed {
        /// Of the WebSocket's close, ours or the peer's; none if the socket ended without one.
        code: Option<u16>,
        /// What was said with the code.
        message: Option<Box<str>>,
        /// Since it was authenticated.
        duration_ms: u64,
    },
}

impl ConnectionEvent {
    pub fn kind(&self) -> ConnectionEventKind {
        match self {
            Self::Opened => ConnectionEventKind::Opened,
            Self::Closed { .. } => ConnectionEventKind::Closed,
        }
    }
}

/// What happened to a connection, without the particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEventKind {
    Closed,
    Opened,
}

impl ConnectionEventKind {
    /// As it is in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Opened => "opened",
        }
    }
}

/// What became of a row handed to the store. A caller on a hot path goes on in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// Will be written.
    Accepted,
    /// Will be written instead of an older state of the same device, which had not been written yet.
    Replaced,
    /// A newer state of the same device is already waiting: nothing to do.
    Stale,
    /// Will not be written, and has been counted.
    Refused(Unwritten),
}

/// Why a row will not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// The store has been shut down.
    Closed,
    /// The database is slower than what arrives, and the queue has reached its bound in rows or bytes.
    Full,
    /// This tenant holds its whole share of the queue; others may go on.
    TenantFull,
    /// The row alone exceeds [`super::ROW_BYTES_MAX`].
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantStatus {
    Disabled,
    Enabled,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TenantRow {
    pub tenant: TenantId,
    /// For people; the id is what everything else refers to.
    pub name: String,
    pub status: TenantStatus,
    /// JSON object in UTF-8: quotas and options, read by the modules they concern.
    pub settings: Bytes,
    pub created_ms: u64,
    pub updated_ms: u64,
}

/// What to change of a tenant; `None` leaves as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantChange {
    pub name: Option<String>,
    pub status: Option<TenantStatus>,
    pub settings: Option<Bytes>,
}

/// A key that signs or verifies a tenant's tokens.
#[derive(Clone, PartialEq)]
pub struct SigningKeyRow {
    pub tenant: TenantId,
    pub kid: String,
    /// The one algorithm this key may be used with: `HS256`, `EdDSA`.
    pub alg: String,
    /// Sealed by the caller.
    pub material: Bytes,
    pub created_ms: u64,
    pub revoked_ms: Option<u64>,
}

/// Whom an API key speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyOwner {
    /// All tenants.
    Operator,
    Tenant(TenantId),
}

#[derive(Clone, PartialEq)]
pub struct ApiKeyRow {
    pub owner: KeyOwner,
    pub id: String,
    /// Of the secret part; the secret itself is shown once, when the key is made.
    pub hash: Bytes,
    pub name: String,
    pub scopes: Vec<String>,
    pub created_ms: u64,
    pub revoked_ms: Option<u64>,
}

#[derive(Clone, PartialEq)]
pub struct DeviceTokenRow {
    pub tenant: TenantId,
    pub id: String,
    pub hash: Bytes,
    /// The only device that may use it; none for any device of the tenant.
    pub device: Option<DeviceId>,
    pub label: String,
    pub created_ms: u64,
    pub revoked_ms: Option<u64>,
}

impl fmt::Debug for SigningKeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeyRow")
            .field("tenant", &self.tenant)
            .field("kid", &self.kid)
            .field("alg", &self.alg)
            .field("material_bytes", &self.material.len())
            .field("created_ms", &self.created_ms)
            .field("revoked_ms", &self.revoked_ms)
            .finish()
    }
}

impl fmt::Debug for ApiKeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyRow")
            .field("owner", &self.owner)
            .field("id", &self.id)
            .field("hash_bytes", &self.hash.len())
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .field("created_ms", &self.created_ms)
            .field("revoked_ms", &self.revoked_ms)
            .finish()
    }
}

impl fmt::Debug for DeviceTokenRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceTokenRow")
            .field("tenant", &self.tenant)
            .field("id", &self.id)
            .field("hash_bytes", &self.hash.len())
            .field("device", &self.device)
            .field("label", &self.label)
            .field("created_ms", &self.created_ms)
            .field("revoked_ms", &self.revoked_ms)
            .finish()
    }
}

/// What is known of a device's state since it last spoke.
#[derive(Clone, Debug, PartialEq)]
pub struct LastState {
    pub seq: u64,
    pub received_ms: u64,
    pub src: String,
    pub model: Option<String>,
    /// JSON in UTF-8.
    pub state: Bytes,
}

/// Which equipment a device belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub equipment_id: String,
    pub label: Option<String>,
    pub assigned_ms: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DeviceRow {
    pub tenant: TenantId,
    pub device: DeviceId,
    /// None for a device that was announced through the API and has never spoken.
    pub last: Option<LastState>,
    pub assignment: Option<Assignment>,
    /// JSON object in UTF-8, or none.
    pub metadata: Option<Bytes>,
}

/// A row with its place in the order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered<T> {
    /// Rises over all rows of a database, also across restarts; with gaps.
    pub seq: u64,
    pub row: T,
}

/// Part of a listing, and where the next part begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T, C> {
    pub rows: Vec<T>,
    /// Hand it in to get the next page; none at the end.
    pub next: Option<C>,
}

/// Where the next page of readings begins: after this measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadingCursor {
    pub ts_ms: u64,
    pub seq: u64,
}

/// Which readings of a device to show, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadingQuery {
    pub tenant: TenantId,
    pub device: DeviceId,
    /// Measured at or after.
    pub from_ms: u64,
    /// Measured before.
    pub to_ms: u64,
    /// At most [`super::PAGE_ROWS_MAX`] are returned whatever is asked.
    pub limit: u32,
    pub after: Option<ReadingCursor>,
}

/// Which audit rows to show, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditQuery {
    /// None for what the operator did to the broker as a whole.
    pub tenant: Option<TenantId>,
    pub limit: u32,
    /// Only rows older than this one.
    pub before_seq: Option<u64>,
}

/// Which comings and goings of a tenant's clients to show, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLogQuery {
    pub tenant: TenantId,
    /// Only of this user.
    pub user: Option<UserId>,
    pub event: Option<ConnectionEventKind>,
    /// At or after.
    pub since_ms: u64,
    /// Before.
    pub until_ms: u64,
    /// At most [`super::PAGE_ROWS_MAX`] are returned whatever is asked.
    pub limit: u32,
    /// Only rows older than this one.
    pub before_seq: Option<u64>,
}

/// Rows by table, of one tenant or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    pub tenants: u64,
    pub signing_keys: u64,
    pub api_keys: u64,
    pub device_tokens: u64,
    pub devices: u64,
    pub device_readings: u64,
    pub device_events: u64,
    pub audit: u64,
    pub connection_logs: u64,
}

/// What was revoked in a tenant: `user:<name>` or `jti:<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationRow {
    pub tenant: TenantId,
    pub subject: String,
    pub revoked_ms: u64,
    /// None for as long as nobody takes it back.
    pub until_ms: Option<u64>,
    pub reason: String,
}

/// What the broker needs at start. Revoked keys and tokens are left out.
#[derive(Debug)]
pub struct Loaded {
    /// Counts the starts on this data directory, from 1: a number no earlier run has used.
    pub boot: u64,
    pub tenants: Vec<TenantRow>,
    pub signing_keys: Vec<SigningKeyRow>,
    pub api_keys: Vec<ApiKeyRow>,
    pub device_tokens: Vec<DeviceTokenRow>,
    /// Those that have not ended.
    pub revocations: Vec<RevocationRow>,
    pub devices: Vec<DeviceRow>,
    /// Where durable rooms stood.
    pub room_heads: Vec<RoomHead>,
    /// Keys that may still be promised, oldest first.
    pub seen_keys: Vec<SeenKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_short_printable_ascii() {
        assert!(Channel::new("switch:0").is_ok());
        for bad in ["", "a b", "a\n", "é", &"x".repeat(CHANNEL_BYTES_MAX + 1)] {
            assert_eq!(Channel::new(bad), Err(ChannelError), "{bad:?}");
        }
    }

    #[test]
    fn debug_of_a_key_shows_neither_secret_nor_hash() {
        let tenant = TenantId::new("t").unwrap();
        let material = Bytes::from_static(b"SECRETSECRET");
        let key = SigningKeyRow {
            tenant: tenant.clone(),
            kid: "k".into(),
            alg: "HS256".into(),
            material: material.clone(),
            created_ms: 0,
            revoked_ms: None,
        };
        let api = ApiKeyRow {
            owner: KeyOwner::Operator,
            id: "i".into(),
            hash: material.clone(),
            name: "n".into(),
            scopes: vec![],
            created_ms: 0,
            revoked_ms: None,
        };
        let token = DeviceTokenRow {
            tenant,
            id: "i".into(),
            hash: material,
            device: None,
            label: "l".into(),
            created_ms: 0,
            revoked_ms: None,
        };
        let shown = format!("{key:?} {api:?} {token:?}");
        assert!(!shown.contains("SECRET") && !shown.contains("83, 69"), "{shown}");
    }
}
