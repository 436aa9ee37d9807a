//! What is known about tenants, keys and tokens besides what the hot paths need: names, labels, dates, signing secrets.
//!
//! What has been revoked is not here; the audit log and the database remember it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cauce_protocol::{Code, DeviceId, Refusal, TenantId};

use super::api_keys::ApiKey;
use super::device_tokens::DeviceToken;
use super::devices::DeviceNotes;
use super::signing::StoredKey;
use super::tenants::TenantInfo;
use crate::auth::secret::CredentialId;

/// Bounded by the limits of each kind: tenants, keys of an owner, tokens of a tenant, devices of a tenant.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) tenants: BTreeMap<TenantId, TenantRecord>,
    pub(super) api_keys: BTreeMap<CredentialId, ApiKey>,
}

/// One tenant and what it owns.
#[derive(Debug)]
pub(super) struct TenantRecord {
    pub(super) info: TenantInfo,
    /// By name of the key.
    pub(super) signing_keys: BTreeMap<String, Arc<StoredKey>>,
    pub(super) device_tokens: BTreeMap<CredentialId, DeviceToken>,
    pub(super) devices: HashMap<DeviceId, DeviceNotes, foldhash::fast::RandomState>,
}

impl TenantRecord {
    pub(super) fn new(info: TenantInfo) -> Self {
        Self {
            info,
            signing_keys: BTreeMap::new(),
            device_tokens: BTreeMap::new(),
            devices: HashMap::default(),
        }
    }
}

impl Registry {
    pub(super) fn tenant(&self, id: &TenantId) -> Result<&TenantRecord, Refusal> {
        self.tenants.get(id).ok_or_else(|| no_tenant(id))
    }

    pub(super) fn tenant_mut(&mut self, id: &TenantId) -> Result<&mut TenantRecord, Refusal> {
        self.tenants.get_mut(id).ok_or_else(|| no_tenant(id))
    }
}

/// The same words whether a tenant is not there or is somebody else's.
pub(crate) fn no_tenant(id: &TenantId) -> Refusal {
    Refusal::new(Code::NotFound, format!("there is no tenant {:?}", id.as_str()))
}
