//! API keys: what servers and operators show to the API.

use std::ops::Bound;

use cauce_protocol::{Code, Refusal};
use serde_json::json;

use super::error::store_refusal;
use super::{Actor, Admin, WithSecret, check_label, detail, owner_tenant};
use crate::auth::KeyOwner;
use crate::auth::secret::{CREDENTIALS_MAX, CredentialId, CredentialKind, Scope, Scopes, issue};
use crate::store::{self, ApiKeyRow};

/// API keys of the operator, and of each tenant.
pub const API_KEYS_A_OWNER_MAX: usize = 1_000;

/// An API key as administrators see it: all but the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: CredentialId,
    pub owner: KeyOwner,
    /// For people.
    pub name: String,
    pub scopes: Scopes,
    pub created_unix_ms: u64,
}

/// An API key to be made.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub owner: KeyOwner,
    pub name: String,
    pub scopes: Scopes,
}

pub(super) fn store_owner(owner: &KeyOwner) -> store::KeyOwner {
    match owner {
        KeyOwner::Operator => store::KeyOwner::Operator,
        KeyOwner::Tenant(tenant) => store::KeyOwner::Tenant(tenant.clone()),
    }
}

impl Admin {
    /// Of one owner, by id, those after `after`.
    pub fn api_keys(&self, owner: &KeyOwner, after: Option<CredentialId>, limit: usize) -> Vec<ApiKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let registry = self.registry.read();
        let keys = registry.api_keys.range((from, Bound::Unbounded));
        keys.map(|(_, key)| key)
            .filter(|key| key.owner == *owner)
            .take(limit)
            .cloned()
            .collect()
    }

    /// Makes an API key; the secret is nowhere else.
    ///
    /// # Errors
    /// `invalid` without a scope, `too_large`, `quota_exceeded`, `not_found` for the tenant, `unavailable`.
    pub async fn create_api_key(&self, actor: &Actor, new: NewApiKey) -> Result<WithSecret<ApiKey>, Refusal> {
        check_label("name", &new.name)?;
        if new.scopes == Scopes::NONE {
            return Err(Refusal::new(
                Code::Invalid,
                "a key without scopes is good for nothing",
            ));
        }
        let issued = issue(CredentialKind::ApiKey)?;
        let _change = self.changes.lock().await;
        {
            let registry = self.registry.read();
            if let Some(tenant) = owner_tenant(&new.owner) {
                registry.tenant(tenant)?;
            }
            let keys = registry.api_keys.values();
            if keys.filter(|key| key.owner == new.owner).count() >= API_KEYS_A_OWNER_MAX {
                let message = format!("there are {API_KEYS_A_OWNER_MAX} API keys already; revoke one");
                return Err(Refusal::new(Code::QuotaExceeded, message));
            }
        }
        self.expect_room_for_credential()?;
        let key = ApiKey {
            id: issued.id,
            owner: new.owner,
            name: new.name,
            scopes: new.scopes,
            created_unix_ms: self.unix_ms(),
        };
        if let Some(store) = &self.store {
            let row = ApiKeyRow {
                owner: store_owner(&key.owner),
                id: key.id.to_string(),
                hash: issued.secret_sha256.to_vec().into(),
                name: key.name.clone(),
                scopes: key
                    .scopes
                    .iter()
                    .map(|scope| Scope::name(scope).to_owned())
                    .collect(),
                created_ms: key.created_unix_ms,
                revoked_ms: None,
            };
            store.create_api_key(row).await.map_err(|e| store_refusal(&e))?;
        }
        let row = issued.row(CredentialKind::ApiKey, key.owner.clone(), key.scopes);
        self.hub.credentials.write().insert(row)?;
        self.registry.write().api_keys.insert(key.id, key.clone());
        let record = detail(&json!({ "name": key.name, "scopes": key.scopes.to_string() }));
        self.audit(
            actor,
            owner_tenant(&key.owner),
            "api_key.create",
            key.id.as_str(),
            record,
        );
        Ok(WithSecret {
            item: key,
            secret: issued.text,
        })
    }

    /// Revokes an API key: the next request with it is refused.
    ///
    /// # Errors
    /// `not_found` if the owner has no such key, `unavailable`.
    pub async fn revoke_api_key(
        &self,
        actor: &Actor,
        owner: &KeyOwner,
        id: CredentialId,
    ) -> Result<(), Refusal> {
        let _change = self.changes.lock().await;
        let key = self.registry.read().api_keys.get(&id).cloned();
        if key.is_none_or(|key| key.owner != *owner) {
            return Err(Refusal::new(Code::NotFound, "there is no such API key"));
        }
        if let Some(store) = &self.store {
            let revoked = store.revoke_api_key(store_owner(owner), id.to_string(), self.unix_ms());
            revoked.await.map_err(|e| store_refusal(&e))?;
        }
        self.hub.credentials.write().remove(id);
        self.registry.write().api_keys.remove(&id);
        self.audit(
            actor,
            owner_tenant(owner),
            "api_key.revoke",
            id.as_str(),
            bytes::Bytes::new(),
        );
        Ok(())
    }

    /// Asked before the store is, so that what the store took always fits.
    pub(super) fn expect_room_for_credential(&self) -> Result<(), Refusal> {
        if self.hub.credentials.read().len() < CREDENTIALS_MAX {
            return Ok(());
        }
        let message = format!("there are {CREDENTIALS_MAX} API keys and device tokens; revoke some");
        Err(Refusal::new(Code::QuotaExceeded, message))
    }
}
