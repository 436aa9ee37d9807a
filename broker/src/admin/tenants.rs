//! Tenants: made, renamed, disabled, given rights for their roles and classes for their rooms. Never deleted, so that a name keeps its meaning.

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::{Code, Refusal, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::classes::{self, ClassDefaults, ClassSpec};
use super::error::store_refusal;
use super::registry::TenantRecord;
use super::{Actor, Admin, check_label, detail};
use crate::auth::{Defaults, RoleGrants};
use crate::hub::{Selection, ShardMessage, TenantSettings};
use crate::store::{TenantChange, TenantRow, TenantStatus};

/// Tenants of a node. Each takes about a KiB in memory, and what its classes take besides.
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
    /// What holds in its rooms, by name.
    pub room_classes: Arc<[ClassSpec]>,
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
    pub room_classes: Vec<ClassSpec>,
}

/// What to change of a tenant; `None` leaves as it is.
#[derive(Clone, Debug, Default)]
pub struct TenantUpdate {
    pub name: Option<String>,
    pub status: Option<TenantStatus>,
    pub role_grants: Option<RoleGrants>,
    /// All of them anew.
    pub room_classes: Option<Vec<ClassSpec>>,
}

/// A tenant's settings as stored. Members of other versions are ignored.
#[derive(Serialize, Deserialize)]
struct StoredSettings<'a> {
    #[serde(default)]
    role_grants: Cow<'a, RoleGrants>,
    #[serde(default)]
    room_classes: Cow<'a, [ClassSpec]>,
}

impl TenantInfo {
    /// What the hub needs to know of it.
    ///
    /// # Errors
    /// `invalid`, if its classes ask for what cannot be.
    pub(super) fn settings(&self, defaults: &ClassDefaults) -> Result<TenantSettings, Refusal> {
        classes::compile(&self.room_classes, defaults).map(|compiled| self.settings_with(compiled))
    }

    /// The same for a tenant whose classes were taken in before. If they can no longer be, its rooms are as if there were none.
    pub(super) fn settings_or_plain(&self, defaults: &ClassDefaults) -> TenantSettings {
        self.settings(defaults).unwrap_or_else(|refusal| {
            tracing::error!(tenant = %self.id, %refusal, "a tenant's room classes cannot be used; none of them holds");
            self.settings_with(classes::none(defaults))
        })
    }

    fn settings_with(&self, compiled: classes::Compiled) -> TenantSettings {
        TenantSettings {
            disabled: self.status == TenantStatus::Disabled,
            defaults: Arc::new(Defaults::new(self.role_grants.clone(), Arc::new(compiled.grants))),
            classes: compiled.classes,
        }
    }

    fn settings_json(&self) -> Result<Bytes, Refusal> {
        let settings = StoredSettings {
            role_grants: Cow::Borrowed(&self.role_grants),
            room_classes: Cow::Borrowed(&self.room_classes),
        };
        serde_json::to_vec(&settings).map(Bytes::from).map_err(|error| {
            tracing::error!(%error, "a tenant's settings cannot be written as JSON");
            Refusal::new(Code::Internal, "the settings could not be written; see the log")
        })
    }
}

impl From<TenantRow> for TenantInfo {
    fn from(row: TenantRow) -> Self {
        let settings = serde_json::from_slice::<StoredSettings<'_>>(&row.settings);
        let (role_grants, room_classes) = match settings {
            Ok(settings) => (
                settings.role_grants.into_owned(),
                settings.room_classes.into_owned(),
            ),
            Err(error) => {
                // Fewer rights are the safe reading.
                tracing::error!(
                    tenant = %row.tenant, %error,
                    "a tenant's settings cannot be read; its roles get nothing and its rooms have no classes"
                );
                Default::default()
            }
        };
        Self {
            id: row.tenant,
            name: row.name,
            status: row.status,
            role_grants: Arc::new(role_grants),
            room_classes: room_classes.into(),
            created_unix_ms: row.created_ms,
            updated_unix_ms: row.updated_ms,
        }
    }
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
        let now_ms = self.unix_ms();
        let info = TenantInfo {
            id: new.id,
            name,
            status: TenantStatus::Enabled,
            role_grants: Arc::new(new.role_grants),
            room_classes: new.room_classes.into(),
            created_unix_ms: now_ms,
            updated_unix_ms: now_ms,
        };
        let _change = self.changes.lock().await;
        {
            let registry = self.registry.read();
            if registry.tenants.contains_key(&info.id) {
                return Err(Refusal::new(Code::Conflict, "this tenant exists already"));
            }
            if registry.tenants.len() >= TENANTS_MAX {
                let message = format!("there are {TENANTS_MAX} tenants, and may be no more");
                return Err(Refusal::new(Code::QuotaExceeded, message));
            }
        }
        // Judged before anything is stored.
        let settings = info.settings(&self.class_defaults.read())?;
        if let Some(store) = &self.store {
            let row = TenantRow {
                tenant: info.id.clone(),
                name: info.name.clone(),
                status: info.status,
                settings: info.settings_json()?,
                created_ms: now_ms,
                updated_ms: now_ms,
            };
            store.create_tenant(row).await.map_err(|e| store_refusal(&e))?;
        }
        self.take_tenant(info.clone(), settings);
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
    pub(super) fn take_tenant(&self, info: TenantInfo, settings: TenantSettings) {
        self.hub.tenants.get_or_make(&info.id, settings);
        let mut registry = self.registry.write();
        registry.tenants.insert(info.id.clone(), TenantRecord::new(info));
    }

    /// Puts settings in force: for every request that is read from now on, and for open rooms; for what is subscribed as soon as
    /// its shard comes to it.
    fn configure(&self, id: &TenantId, settings: TenantSettings) {
        let tenant = self.hub.tenants.get_or_make(id, settings.clone());
        let new_rights = tenant.configure(settings);
        self.hub.reclassify(&tenant);
        if new_rights {
            for mailbox in &self.hub.shards[..self.hub.plan.clients] {
                mailbox.send(ShardMessage::Recheck(tenant.clone()));
            }
        }
    }

    /// Takes what holds on this node where no class says otherwise.
    pub(super) async fn take_class_defaults(&self, defaults: ClassDefaults) {
        // Tenants that are changed meanwhile would keep what was the default before.
        let _change = self.changes.lock().await;
        if *self.class_defaults.read() == defaults {
            return;
        }
        *self.class_defaults.write() = defaults.clone();
        let tenants: Vec<TenantInfo> = {
            let registry = self.registry.read();
            registry
                .tenants
                .values()
                .map(|record| record.info.clone())
                .collect()
        };
        for info in tenants {
            self.configure(&info.id, info.settings_or_plain(&defaults));
        }
    }

    /// Renames, disables, enables, gives rights and classes. Disabling closes every connection of the tenant; rights that are
    /// taken away end what was subscribed under them.
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
        let _change = self.changes.lock().await;
        // Which classes there are; the whole of them is in the tenant's row.
        let patterns = update.room_classes.as_ref();
        let patterns: Option<Vec<_>> = patterns.map(|list| list.iter().map(|class| &class.rooms).collect());
        let record = detail(&json!({
            "name": update.name,
            "disabled": update.status.map(|status| status == TenantStatus::Disabled),
            "role_grants": update.role_grants,
            "room_classes": patterns,
        }));
        let (new_rights, new_classes) = (update.role_grants.is_some(), update.room_classes.is_some());
        let mut info = self.tenant(id)?;
        let now_ms = self.unix_ms();
        info.updated_unix_ms = now_ms;
        if let Some(role_grants) = update.role_grants {
            info.role_grants = Arc::new(role_grants);
        }
        if let Some(room_classes) = update.room_classes {
            info.room_classes = room_classes.into();
        }
        let change = TenantChange {
            name: update.name.clone(),
            status: update.status,
            settings: (new_rights || new_classes)
                .then(|| info.settings_json())
                .transpose()?,
        };
        info.name = update.name.unwrap_or(info.name);
        info.status = update.status.unwrap_or(info.status);
        let settings = {
            let defaults = self.class_defaults.read();
            if new_classes {
                // Judged before anything is stored.
                info.settings(&defaults)?
            } else {
                info.settings_or_plain(&defaults)
            }
        };
        if let Some(store) = &self.store {
            let changed = store.update_tenant(id.clone(), change, now_ms).await;
            changed.map_err(|e| store_refusal(&e))?;
        }
        self.registry.write().tenant_mut(id)?.info = info.clone();
        self.configure(id, settings);
        if info.status == TenantStatus::Disabled {
            let refusal = Refusal::new(Code::TenantDisabled, "the tenant was switched off");
            self.hub.close(Selection::Tenant(id.clone()), refusal);
        }
        self.audit(actor, Some(id), "tenant.update", id.as_str(), record);
        Ok(info)
    }
}
