//! Tokens of devices: what a plug shows at the device door.

use std::ops::Bound;

use bytes::Bytes;
use cauce_protocol::{Code, DeviceId, Refusal, TenantId};
use serde_json::json;

use super::devices::check_device_id;
use super::error::store_refusal;
use super::{Actor, Admin, WithSecret, check_label, detail};
use crate::auth::KeyOwner;
use crate::auth::secret::{CredentialId, CredentialKind, Scopes, issue};
use crate::hub::Selection;
use crate::store::DeviceTokenRow;

/// Device tokens of one tenant: one for each device that it may have by default, and as many being exchanged.
pub const DEVICE_TOKENS_A_TENANT_MAX: usize = 20_000;

/// A device token as administrators see it: all but the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceToken {
    pub id: CredentialId,
    /// The only device that may use it; none for any device of the tenant.
    pub device: Option<DeviceId>,
    /// For people.
    pub label: String,
    pub created_unix_ms: u64,
}

/// A device token to be made.
#[derive(Clone, Debug, Default)]
pub struct NewDeviceToken {
    pub device: Option<DeviceId>,
    pub label: String,
}

impl Admin {
    /// By id, those after `after`.
    ///
    /// # Errors
    /// `not_found` for the tenant.
    pub fn device_tokens(
        &self,
        tenant: &TenantId,
        after: Option<CredentialId>,
        limit: usize,
    ) -> Result<Vec<DeviceToken>, Refusal> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let registry = self.registry.read();
        let tokens = registry
            .tenant(tenant)?
            .device_tokens
            .range((from, Bound::Unbounded));
        Ok(tokens.take(limit).map(|(_, token)| token.clone()).collect())
    }

    /// Makes a device token; the secret is nowhere else.
    ///
    /// # Errors
    /// `invalid`, `too_large`, `quota_exceeded`, `not_found` for the tenant, `unavailable`.
    pub async fn create_device_token(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        new: NewDeviceToken,
    ) -> Result<WithSecret<DeviceToken>, Refusal> {
        check_label("label", &new.label)?;
        if let Some(device) = &new.device {
            check_device_id(device)?;
        }
        let issued = issue(CredentialKind::Device)?;
        let _change = self.changes.lock().await;
        if self.registry.read().tenant(tenant)?.device_tokens.len() >= DEVICE_TOKENS_A_TENANT_MAX {
            let message =
                format!("the tenant has {DEVICE_TOKENS_A_TENANT_MAX} device tokens already; revoke one");
            return Err(Refusal::new(Code::QuotaExceeded, message));
        }
        self.expect_room_for_credential()?;
        let token = DeviceToken {
            id: issued.id,
            device: new.device,
            label: new.label,
            created_unix_ms: self.unix_ms(),
        };
        if let Some(store) = &self.store {
            let row = DeviceTokenRow {
                tenant: tenant.clone(),
                id: token.id.to_string(),
                hash: issued.secret_sha256.to_vec().into(),
                device: token.device.clone(),
                label: token.label.clone(),
                created_ms: token.created_unix_ms,
                revoked_ms: None,
            };
            store
                .create_device_token(row)
                .await
                .map_err(|e| store_refusal(&e))?;
        }
        let owner = KeyOwner::Tenant(tenant.clone());
        let mut row = issued.row(CredentialKind::Device, owner, Scopes::NONE);
        row.device.clone_from(&token.device);
        self.hub.credentials.write().insert(row)?;
        let mut registry = self.registry.write();
        registry
            .tenant_mut(tenant)?
            .device_tokens
            .insert(token.id, token.clone());
        drop(registry);
        let record = detail(&json!({ "device": token.device, "label": token.label }));
        self.audit(
            actor,
            Some(tenant),
            "device_token.create",
            token.id.as_str(),
            record,
        );
        Ok(WithSecret {
            item: token,
            secret: issued.text,
        })
    }

    /// Revokes a device token and closes the sockets that came with it.
    ///
    /// # Errors
    /// `not_found` if the tenant has no such token, `unavailable`.
    pub async fn revoke_device_token(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        id: CredentialId,
    ) -> Result<(), Refusal> {
        let _change = self.changes.lock().await;
        if !self
            .registry
            .read()
            .tenant(tenant)?
            .device_tokens
            .contains_key(&id)
        {
            return Err(Refusal::new(Code::NotFound, "there is no such device token"));
        }
        if let Some(store) = &self.store {
            let revoked = store.revoke_device_token(tenant.clone(), id.to_string(), self.unix_ms());
            revoked.await.map_err(|e| store_refusal(&e))?;
        }
        self.hub.credentials.write().remove(id);
        self.registry
            .write()
            .tenant_mut(tenant)?
            .device_tokens
            .remove(&id);
        let refusal = Refusal::new(Code::TokenRevoked, "the device token was revoked");
        self.hub
            .close(Selection::DeviceToken(id.as_str().into()), refusal);
        self.audit(
            actor,
            Some(tenant),
            "device_token.revoke",
            id.as_str(),
            Bytes::new(),
        );
        Ok(())
    }
}
