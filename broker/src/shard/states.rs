//! Rooms that have a state: who joins a room of devices is told first what they are like now.
//!
//! What must stay true: a device speaks and is read under its own lock, so what a newcomer is told of it contains every change
//! that he is not going to get.

use std::sync::Arc;

use cauce_protocol::{RoomId, wire};

use crate::hub::{DEVICES_ROOM, DeviceEntry, Tenant};

/// Devices whose states a newcomer has still to be told.
#[derive(Debug)]
pub(super) struct States {
    pub(super) room: RoomId,
    pub(super) devices: Vec<Arc<DeviceEntry>>,
}

/// The devices that a room is about; none for a room of people.
pub(super) fn devices_of(tenant: &Tenant, room: &str) -> Vec<Arc<DeviceEntry>> {
    if room == DEVICES_ROOM {
        let mut devices = Vec::with_capacity(tenant.devices_len());
        tenant.for_each_device(|device| devices.push(device.clone()));
        return devices;
    }
    let device = room.strip_prefix("$device:").and_then(|id| tenant.device(id));
    device.into_iter().collect()
}

/// What the device is like now.
pub(super) fn state_of(room: RoomId, device: &DeviceEntry) -> wire::ServerFrame {
    wire::State {
        room: room.0,
        event: "device-update".into(),
        json: device.lock().device.current(),
        key: device.id.as_str().into(),
    }
    .into()
}
