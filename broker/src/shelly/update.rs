//! What is published of a device, as JSON that is written once and shared from there on.
//!
//! `device-update`:
//!
//! | member | type | meaning |
//! | --- | --- | --- |
//! | `device` | string | key: MAC, upper case |
//! | `src` | string | the device's own name |
//! | `presence` | string | `online`, `asleep` or `offline` |
//! | `online` | bool | `presence` is not `offline`: a sleeper that is not overdue counts as there |
//! | `stale` | bool | parts of `state` may be older than the device's present connection, or than our start |
//! | `seq` | number | rises by one with each message of the device, more at a restart; shared with `device-offline-status` |
//! | `ts_ms` | number | the device's time of the change, ms since 1970; time of receipt if its clock is not set |
//! | `received_ms` | number | when we received it, ms since 1970 |
//! | `last_seen_ms` | number | when its last frame came, ms since 1970 |
//! | `info` | object | `name`, `model`, `app`, `generation`, `firmware`, `firmware_build`, as far as known |
//! | `rssi_dbm` | number, optional | Wi-Fi signal |
//! | `changed` | object | JSON Merge Patch from the state before: changed leaves, null for what is gone |
//! | `state` | object | merged components by key, as the device names them; absent means unknown |
//! | `derived` | array, optional | keys of the components whose `apower` is a zero we derived and the device did not send |
//! | `readings` | array | per touched channel, see [`Reading`]: `channel` and, as far as known, `output`, `power_w`, `voltage_v`, `current_a`, `energy_wh`, `consumed_wh`, `temperature_c`, `power_derived` |
//!
//! The same document is what a restart reads back ([`Saved::from_update`]), so the store keeps it as it is.
//!
//! `device-event`: `device`, `src`, `ts_ms`, `received_ms`, `component`, `event`, and the whole event as `data`. It
//! carries no `seq`: an event changes no state.
//!
//! `device-offline-status`: `device`, `online` (false), `reason` (`closed`, `timeout`, `refused`, `upstream-lost`,
//! `overslept`), `seq`, `ts_ms`, `last_seen_ms`.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::device::Device;
use super::frame::DeviceEvent;
use super::identity::{Identity, IdentityError};
use super::info::Info;
use super::outcome::{Changes, Stamp};
use super::presence::{Offline, Presence};
use super::reading::Reading;
use super::status::Object;

/// Room for the members around `changed`, `state` and `readings`, in bytes: saves growing the buffer, no more.
const ENVELOPE_BYTES: usize = 768;

#[derive(Serialize)]
struct Update<'a> {
    device: &'a str,
    src: &'a str,
    presence: Presence,
    online: bool,
    stale: bool,
    seq: u64,
    ts_ms: u64,
    received_ms: u64,
    last_seen_ms: u64,
    info: &'a Info,
    #[serde(skip_serializing_if = "Option::is_none")]
    rssi_dbm: Option<f64>,
    changed: &'a Object,
    state: &'a Object,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    derived: &'a [Box<str>],
    readings: &'a [Reading],
}

#[derive(Serialize)]
struct Event<'a> {
    device: &'a str,
    src: &'a str,
    ts_ms: u64,
    received_ms: u64,
    component: &'a str,
    event: &'a str,
    data: &'a Object,
}

#[derive(Serialize)]
struct OfflineStatus<'a> {
    device: &'a str,
    online: bool,
    reason: &'static str,
    seq: u64,
    ts_ms: u64,
    last_seen_ms: u64,
}

impl Device {
    /// The `device-update` of a change. To be built before the device is given its next input, which would show.
    pub fn update(&self, changes: &Changes) -> Bytes {
        self.write_update(changes.seq, changes.at, &changes.delta, &changes.readings)
    }

    /// The device as it stands, in the same form with nothing in `changed`: for a late joiner or a question.
    pub fn current(&self) -> Bytes {
        self.write_update(self.seq(), self.last_stamp(), &Object::new(), &self.readings())
    }

    /// The `device-event` of an event, at the [`Outcome::at`](super::Outcome::at) it came with.
    pub fn event(&self, at: Stamp, event: &DeviceEvent) -> Bytes {
        let document = Event {
            device: self.identity().key().as_str(),
            src: self.identity().src(),
            ts_ms: at.ts_ms,
            received_ms: at.received_ms,
            component: &event.component,
            event: &event.event,
            data: &event.data,
        };
        write(&document, ENVELOPE_BYTES)
    }

    /// The `device-offline-status` of a loss.
    pub fn offline_status(&self, offline: &Offline) -> Bytes {
        let status = OfflineStatus {
            device: self.identity().key().as_str(),
            online: false,
            reason: offline.reason.as_str(),
            seq: offline.seq,
            ts_ms: offline.at_ms,
            last_seen_ms: offline.last_seen_ms,
        };
        write(&status, ENVELOPE_BYTES)
    }

    fn write_update(&self, seq: u64, at: Stamp, changed: &Object, readings: &[Reading]) -> Bytes {
        let presence = self.presence();
        let update = Update {
            device: self.identity().key().as_str(),
            src: self.identity().src(),
            presence,
            online: presence != Presence::Offline,
            stale: self.is_stale(),
            seq,
            ts_ms: at.ts_ms,
            received_ms: at.received_ms,
            last_seen_ms: self.last_seen_ms(),
            info: self.info(),
            rssi_dbm: self.vitals().rssi_dbm,
            changed,
            state: self.components(),
            derived: self.derived_power(),
            readings,
        };
        write(&update, self.state().bytes() + ENVELOPE_BYTES)
    }
}

/// A device as a stored `device-update` tells it.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Its names.
    pub identity: Identity,
    /// Its presence when the document was written.
    pub presence: Presence,
    /// The merged components.
    pub state: Object,
    /// Make and firmware.
    pub info: Info,
    /// The number of the message.
    pub seq: u64,
    /// The times of the message.
    pub stamp: Stamp,
    /// When its last frame came, wall clock, milliseconds.
    pub last_seen_ms: u64,
}

impl Saved {
    /// Reads a `device-update` back.
    ///
    /// # Errors
    /// [`SavedError`] if it is none. The device then starts unknown; its next full status tells everything anew.
    pub fn from_update(json: &[u8]) -> Result<Self, SavedError> {
        #[derive(Deserialize)]
        struct Document {
            src: String,
            presence: Presence,
            state: Object,
            #[serde(default)]
            info: Info,
            seq: u64,
            ts_ms: u64,
            received_ms: u64,
            last_seen_ms: u64,
        }
        let document: Document = serde_json::from_slice(json).map_err(SavedError::Shape)?;
        Ok(Self {
            identity: Identity::parse(&document.src).map_err(SavedError::Identity)?,
            presence: document.presence,
            state: document.state,
            info: document.info,
            seq: document.seq,
            stamp: Stamp {
                ts_ms: document.ts_ms,
                received_ms: document.received_ms,
            },
            last_seen_ms: document.last_seen_ms,
        })
    }
}

/// Why a stored document is no `device-update`.
#[derive(Debug)]
pub enum SavedError {
    /// Its `src` names no device.
    Identity(IdentityError),
    /// Not JSON, or a member is missing or of another type.
    Shape(serde_json::Error),
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(error) => write!(f, "stored device state has no usable name: {error}"),
            Self::Shape(error) => write!(f, "stored device state is not a device-update: {error}"),
        }
    }
}

impl std::error::Error for SavedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Identity(error) => Some(error),
            Self::Shape(error) => Some(error),
        }
    }
}

fn write(document: &impl Serialize, bytes_expected: usize) -> Bytes {
    let mut json = Vec::with_capacity(bytes_expected);
    serde_json::to_writer(&mut json, document)
        .expect("a vector takes all bytes, and these documents have string keys and finite numbers only");
    json.into()
}
