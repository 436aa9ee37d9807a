//! Tenants: made, renamed, disabled, given rights for their roles. Never deleted, so that a name keeps its meaning.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::{Code, Refusal, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::store_refusal;
use super::registry::TenantRecord;
use super::{Actor, Admin, check_label, detail};
use crate::auth::RoleGrants;
use crate::hub::{RoomClasses, Selection, TenantSettings};
use crate::store::{TenantChange, TenantRow, TenantStatus};

/// Tenants of a node. Each takes about a KiB in memory.
pub const TENANTS_MAX: usize = 100_000;

/// A tenant as administrators see it.
#[derive(Clone, Debug)]
pub struct TenantInfo {
    pub id: TenantId,
    /// For people.
    pub name: String,
    pub status: TenantStatus,
    /// What its roles may do, under what a token grants.
    pub role_grants: Arc<RoleGrants>,
    pub created_unix_ms: u64,
    pub updated_unix_ms: u64,
}

/// A tenant to be made.
#[derive(Clone, Debug)]
pub struct NewTenant {
    pub id: TenantId,
    /// The id, if it is none.
    pub name: Option<String>,
    pub role_grants: RoleGrants,
}

/// What to change of a tenant; `None` leaves as it is.
#[derive(Clone, Debug, Default)]
pub struct TenantUpdate {
    pub name: Option<String>,
    pub status: Option<TenantStatus>,
    pub role_grants: Option<RoleGrants>,
}

/// A tenant's settings as stored. Members of other versions are ignored.
#[derive(Serialize, Deserialize)]
struct StoredSettings<'a> {
    #[serde(default)]
    role_grants: std::borrow::Cow<'a, RoleGrants>,
}

impl TenantInfo {
    /// What the hub needs to know of it.
    pub(super) fn settings(&self) -> TenantSettings {
        TenantSettings {
            disabled: self.status == TenantStatus::Disabled,
            role_grants: self.role_grants.clone(),
            classes: RoomClasses::default(),
        }
    }
}

impl From<TenantRow> for TenantInfo {
    fn from(row: TenantRow) -> Self {
        let settings = serde_json::from_slice::<StoredSettings<'_>>(&row.settings);
        let role_grants = settings.map_or_else(
            |error| {
                // Fewer rights are the safe reading.
                tracing::error!(tenant = %row.tenant, %error, "a tenant's settings cannot be read; its roles get nothing");
                RoleGrants::default()
            },
            |settings| settings.role_grants.into_owned(),
        );
        Self {
            id: row.tenant,
            name: row.name,
            status: row.status,
            role_grants: Arc::new(role_grants),
            created_unix_ms: row.created_ms,
            updated_unix_ms: row.updated_ms,
        }
    }
}

fn settings_json(role_grants: &RoleGrants) -> Result<Bytes, Refusal> {
    let settings = StoredSettings {
        role_grants: std::borrow::Cow::Borrowed(role_grants),
    };
    serde_json::to_vec(&settings).map(Bytes::from).map_err(|error| {
        tracing::error!(%error, "role grants cannot be written as JSON");
        Refusal::new(Code::Internal, "the settings could not be written; see the log")
    })
}

impl Admin {
    /// By id, those after `after`.
    pub fn tenants(&self, after: Option<&TenantId>, limit: usize) -> Vec<TenantInfo> {
        let registry = self.registry.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        registry
            .tenants
            .range::<TenantId, _>((from, Bound::Unbounded))
            .take(limit)
            .map(|(_, record)| record.info.clone())
            .collect()
    }

    /// # Errors
    /// `not_found`.
    pub fn tenant(&self, id: &TenantId) -> Result<TenantInfo, Refusal> {
        self.registry.read().tenant(id).map(|record| record.info.clone())
    }

    /// Makes a tenant.
    ///
    /// # Errors
    /// `conflict` if there is one of this id, `quota_exceeded`, `invalid`, `too_large`, `unavailable`.
    pub async fn create_tenant(&self, actor: &Actor, new: NewTenant) -> Result<TenantInfo, Refusal> {
        let name = new.name.unwrap_or_else(|| new.id.as_str().to_owned());
        check_label("name", &name)?;
        let settings = settings_json(&new.role_grants)?;
        let _change = self.changes.lock().await;
        {
            let registry = self.registry.read();
            if registry.tenants.contains_key(&new.id) {
                return Err(Refusal::new(Code::Conflict, "this tenant exists already"));
            }
            if registry.tenants.len() >= TENANTS_MAX {
                let message = format!("there are {TENANTS_MAX} tenants, and may be no more");
                return Err(Refusal::new(Code::QuotaExceeded, message));
            }
        }
        let now_ms = self.unix_ms();
        let info = TenantInfo {
            id: new.id,
            name,
            status: TenantStatus::Enabled,
            role_grants: Arc::new(new.role_grants),
            created_unix_ms: now_ms,
            updated_unix_ms: now_ms,
        };
        if let Some(store) = &self.store {
            let row = TenantRow {
                tenant: info.id.clone(),
                name: info.name.clone(),
                status: info.status,
                settings,
                created_ms: now_ms,
                updated_ms: now_ms,
            };
            store.create_tenant(row).await.map_err(|e| store_refusal(&e))?;
        }
        self.take_tenant(info.clone());
        self.audit(
            actor,
            Some(&info.id),
            "tenant.create",
            info.id.as_str(),
            Bytes::new(),
        );
        Ok(info)
    }

    /// Into memory, where it takes effect.
    pub(super) fn take_tenant(&self, info: TenantInfo) {
        self.hub.tenants.get_or_make(&info.id, info.settings());
        let mut registry = self.registry.write();
        registry.tenants.insert(info.id.clone(), TenantRecord::new(info));
    }

    /// Renames, disables, enables, gives rights. Disabling closes every connection of the tenant.
    ///
    /// # Errors
    /// `not_found`, `invalid`, `too_large`, `unavailable`.
    pub async fn update_tenant(
        &self,
        actor: &Actor,
        id: &TenantId,
        update: TenantUpdate,
    ) -> Result<TenantInfo, Refusal> {
        if let Some(name) = &update.name {
            check_label("name", name)?;
        }
        let change = TenantChange {
            name: update.name.clone(),
            status: update.status,
            settings: update.role_grants.as_ref().map(settings_json).transpose()?,
        };
        let _change = self.changes.lock().await;
        let mut info = self.tenant(id)?;
        let now_ms = self.unix_ms();
        if let Some(store) = &self.store {
            let changed = store.update_tenant(id.clone(), change, now_ms).await;
            changed.map_err(|e| store_refusal(&e))?;
        }
        let record = detail(&json!({
            "name": update.name,
            "disabled": update.status.map(|status| status == TenantStatus::Disabled),
            "role_grants": update.role_grants,
        }));
        info.updated_unix_ms = now_ms;
        info.name = update.name.unwrap_or(info.name);
        info.status = update.status.unwrap_or(info.status);
        if let Some(role_grants) = update.role_grants {
            info.role_grants = Arc::new(role_grants);
        }
        self.hub
            .tenants
            .get_or_make(id, info.settings())
            .configure(info.settings());
        self.registry.write().tenant_mut(id)?.info = info.clone();
        if info.status == TenantStatus::Disabled {
            let refusal = Refusal::new(Code::TenantDisabled, "the tenant was switched off");
            self.hub.close(Selection::Tenant(id.clone()), refusal);
        }
        self.audit(actor, Some(id), "tenant.update", id.as_str(), record);
        Ok(info)
    }
}
