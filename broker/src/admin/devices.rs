//! What people say about devices: which equipment one belongs to, and whatever else they want to remember. What devices say
//! about themselves is the hub's.

use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::message::Text;
use cauce_protocol::{Code, DeviceId, Payload, Refusal, TenantId};
use serde_json::json;

use super::error::store_refusal;
use super::registry::no_tenant;
use super::{Actor, Admin, check_label, detail};
use crate::hub::{DEVICES_ROOM, DeviceEntry, Tenant, device_room};
use crate::publication::Draft;
use crate::shelly::{self, DeviceKey, Identity};
use crate::store::{Assignment, JSON_BYTES_MAX};

/// The event that tells rooms about a change of equipment.
pub const ASSIGNMENT_EVENT: &str = "smart-plug-assignment-updated";

/// What people say about a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNotes {
    pub assignment: Option<Assignment>,
    /// A JSON object.
    pub metadata: Option<Bytes>,
}

/// What a device is to be assigned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equipment {
    pub equipment_id: String,
    pub label: Option<String>,
}

/// A device files itself under its MAC in upper case; any other id would never meet its device.
pub(super) fn check_device_id(id: &DeviceId) -> Result<Identity, Refusal> {
    let is_key = DeviceKey::parse(id.as_str()).is_ok_and(|key| key.as_str() == id.as_str());
    Identity::parse(id.as_str())
        .ok()
        .filter(|_| is_key)
        .ok_or_else(|| {
            let message = "a device's id is its MAC in upper case, such as 8CBFEAA133F0";
            Refusal::new(Code::Invalid, message)
        })
}

impl Admin {
    /// What is said about a device; nothing if nothing is.
    pub fn device_notes(&self, tenant: &TenantId, device: &DeviceId) -> DeviceNotes {
        let registry = self.registry.read();
        let record = registry.tenants.get(tenant);
        record
            .and_then(|record| record.devices.get(device))
            .cloned()
            .unwrap_or_default()
    }

    /// Replaces a device's metadata, a JSON object, or removes it. A device that has never spoken is announced by this.
    ///
    /// # Errors
    /// `invalid` for an id that no device has or metadata that are no object, `too_large`, `quota_exceeded`,
    /// `not_found` for the tenant, `unavailable`.
    pub async fn set_device_metadata(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        device: &DeviceId,
        metadata: Option<Bytes>,
    ) -> Result<Arc<DeviceEntry>, Refusal> {
        if let Some(metadata) = &metadata {
            check_metadata(metadata)?;
        }
        let _change = self.changes.lock().await;
        let (_, entry) = self.announce(tenant, device)?;
        if let Some(store) = &self.store {
            let set = store.set_device_metadata(tenant.clone(), device.clone(), metadata.clone());
            set.await.map_err(|e| store_refusal(&e))?;
        }
        let record = metadata.clone().unwrap_or_default();
        self.note(tenant, device, |notes| notes.metadata = metadata)?;
        self.audit(actor, Some(tenant), "device.metadata", device.as_str(), record);
        Ok(entry)
    }

    /// Assigns a device to equipment, or to none, and tells the device's rooms. A device that has never spoken is announced
    /// by this.
    ///
    /// # Errors
    /// As [`Admin::set_device_metadata`].
    pub async fn assign_device(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        device: &DeviceId,
        equipment: Option<Equipment>,
    ) -> Result<Arc<DeviceEntry>, Refusal> {
        if let Some(equipment) = &equipment {
            check_label("equipment_id", &equipment.equipment_id)?;
            check_label("label", equipment.label.as_deref().unwrap_or_default())?;
            if equipment.equipment_id.is_empty() {
                return Err(Refusal::new(Code::Invalid, "equipment_id is empty"));
            }
        }
        let now_ms = self.unix_ms();
        let assignment = equipment.map(|equipment| Assignment {
            equipment_id: equipment.equipment_id,
            label: equipment.label,
            assigned_ms: now_ms,
        });
        let _change = self.changes.lock().await;
        let (owner, entry) = self.announce(tenant, device)?;
        if let Some(store) = &self.store {
            let assigned = store.assign_device(tenant.clone(), device.clone(), assignment.clone());
            assigned.await.map_err(|e| store_refusal(&e))?;
        }
        let said = detail(&json!({
            "device": device,
            "equipment_id": assignment.as_ref().map(|a| &a.equipment_id),
            "label": assignment.as_ref().and_then(|a| a.label.as_ref()),
            "ts_ms": now_ms,
        }));
        self.note(tenant, device, |notes| notes.assignment = assignment)?;
        for room in [DEVICES_ROOM, &device_room(device.as_str())] {
            let draft = Draft::new(Text::from_static(ASSIGNMENT_EVENT), Payload::Json(said.clone()));
            if let Some(Err(refusal)) = self.hub.publish_if_open(&owner, room, draft) {
                // It is in force all the same; who asks for the device sees it.
                tracing::warn!(%tenant, %device, %refusal, "an assignment was not told to the room");
            }
        }
        self.audit(actor, Some(tenant), "device.assign", device.as_str(), said);
        Ok(entry)
    }

    /// The device, which is made if it is not known.
    fn announce(
        &self,
        tenant: &TenantId,
        device: &DeviceId,
    ) -> Result<(Arc<Tenant>, Arc<DeviceEntry>), Refusal> {
        let owner = self.hub.tenants.get(tenant.as_str());
        let owner = owner.ok_or_else(|| no_tenant(tenant))?;
        let identity = check_device_id(device)?;
        let devices_max = self.hub.tunables().devices_max;
        let entry = owner.device_or_make(device, devices_max, || {
            DeviceEntry::new(device.clone(), shelly::Device::new(identity))
        })?;
        Ok((owner, entry))
    }

    fn note(
        &self,
        tenant: &TenantId,
        device: &DeviceId,
        write: impl FnOnce(&mut DeviceNotes),
    ) -> Result<(), Refusal> {
        let mut registry = self.registry.write();
        let devices = &mut registry.tenant_mut(tenant)?.devices;
        write(devices.entry(device.clone()).or_default());
        Ok(())
    }
}

fn check_metadata(metadata: &Bytes) -> Result<(), Refusal> {
    if metadata.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::new(Code::Invalid, "metadata must be a JSON object"));
    }
    let depth_max = cauce_protocol::limits::PAYLOAD_DEPTH_MAX;
    Payload::Json(metadata.clone()).check(JSON_BYTES_MAX, depth_max)
}
