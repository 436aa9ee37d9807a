//! Keys that a tenant's tokens are signed with. Secrets are sealed in the database and in the clear in memory only.

use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::{Code, Refusal, TenantId};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::error::{key_refusal, seal_refusal, store_refusal};
use super::registry::TenantRecord;
use super::{Actor, Admin, detail};
use crate::auth::keys::KEYS_A_SOURCE_MAX;
use crate::auth::secret::{CredentialKind, issue};
use crate::auth::{KeyOwner, KeySource, KeySpec, VerifyingKey, sign};
use crate::config::Algorithm;
use crate::seal::Place;
use crate::store::SigningKeyRow;

/// What signing keys are sealed for. Never changes, or stored keys would not open.
pub(super) const PURPOSE: &str = "signing key";

/// A signing key as administrators see it: nothing of the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeyInfo {
    /// As in the header of tokens.
    pub kid: String,
    pub algorithm: Algorithm,
    pub created_unix_ms: u64,
}

/// A signing key to be added.
#[derive(Clone, Debug)]
pub struct NewSigningKey {
    /// Chosen by the broker if none.
    pub kid: Option<String>,
    pub algorithm: Algorithm,
    /// A shared secret for HS256 and its kin, which the broker makes if there is none; a public key in PEM for all others.
    pub material: Option<SecretString>,
}

/// A key in memory.
#[derive(Debug)]
pub(super) struct StoredKey {
    pub(super) info: SigningKeyInfo,
    pub(super) material: SecretString,
}

impl StoredKey {
    pub(super) fn verifying(&self, tenant: &TenantId) -> Result<VerifyingKey, Refusal> {
        let spec = KeySpec {
            owner: KeyOwner::Tenant(tenant.clone()),
            kid: Some(self.info.kid.as_str().into()),
            algorithm: self.info.algorithm,
            issuer: None,
            audience: None,
        };
        VerifyingKey::from_text(spec, self.material.expose_secret()).map_err(key_refusal)
    }
}

impl TenantRecord {
    /// The newest key that tokens can be made with.
    pub(super) fn newest_secret(&self) -> Option<&Arc<StoredKey>> {
        self.signing_keys
            .values()
            .filter(|key| key.info.algorithm.is_symmetric())
            .max_by_key(|key| key.info.created_unix_ms)
    }

    /// All keys, as verifiers want them.
    pub(super) fn verifying_keys(&self) -> Result<Vec<VerifyingKey>, Refusal> {
        let keys = self.signing_keys.values();
        keys.map(|key| key.verifying(&self.info.id)).collect()
    }
}

impl Admin {
    /// By name.
    ///
    /// # Errors
    /// `not_found` for the tenant.
    pub fn signing_keys(&self, tenant: &TenantId) -> Result<Vec<SigningKeyInfo>, Refusal> {
        let registry = self.registry.read();
        let keys = registry.tenant(tenant)?.signing_keys.values();
        Ok(keys.map(|key| key.info.clone()).collect())
    }

    /// Adds a key. Answers with the secret if the broker made it.
    ///
    /// # Errors
    /// `conflict` if the name is taken, also by a revoked key; `invalid` for a key that cannot be used or is weak;
    /// `quota_exceeded`, `not_found` for the tenant, `unavailable`.
    pub async fn add_signing_key(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        new: NewSigningKey,
    ) -> Result<(SigningKeyInfo, Option<SecretString>), Refusal> {
        let _change = self.changes.lock().await;
        self.add_signing_key_locked(actor, tenant, new).await
    }

    /// The same for whoever holds the lock of changes.
    pub(super) async fn add_signing_key_locked(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        new: NewSigningKey,
    ) -> Result<(SigningKeyInfo, Option<SecretString>), Refusal> {
        let (material, made) = match new.material {
            Some(material) => (material, None),
            None if new.algorithm.is_symmetric() => {
                let secret = sign::random_secret().map_err(|_| {
                    Refusal::new(Code::Unavailable, "the system has no random numbers to give")
                })?;
                (secret.clone(), Some(secret))
            }
            None => {
                let message = format!("{} needs a public key", new.algorithm);
                return Err(Refusal::new(Code::Invalid, message));
            }
        };
        let kid = match new.kid {
            Some(kid) => kid,
            None => issue(CredentialKind::ApiKey)?.id.to_string(),
        };
        let key = StoredKey {
            info: SigningKeyInfo {
                kid,
                algorithm: new.algorithm,
                created_unix_ms: self.unix_ms(),
            },
            material,
        };
        let verifying = key.verifying(tenant)?;
        let mut all = {
            let registry = self.registry.read();
            let record = registry.tenant(tenant)?;
            if record.signing_keys.contains_key(&key.info.kid) {
                return Err(Refusal::new(Code::Conflict, "the tenant has a key of this name"));
            }
            if record.signing_keys.len() >= KEYS_A_SOURCE_MAX {
                let message = format!("the tenant has {KEYS_A_SOURCE_MAX} signing keys already; revoke one");
                return Err(Refusal::new(Code::QuotaExceeded, message));
            }
            record.verifying_keys()?
        };
        all.push(verifying);
        if let (Some(store), Some(sealer)) = (&self.store, &self.sealer) {
            let place = Place {
                purpose: PURPOSE,
                tenant: Some(tenant),
                row: &key.info.kid,
            };
            let sealed = sealer.seal(place, key.material.expose_secret().as_bytes());
            let row = SigningKeyRow {
                tenant: tenant.clone(),
                kid: key.info.kid.clone(),
                alg: key.info.algorithm.name().to_owned(),
                material: sealed.map_err(seal_refusal)?,
                created_ms: key.info.created_unix_ms,
                revoked_ms: None,
            };
            store.add_signing_key(row).await.map_err(|e| store_refusal(&e))?;
        }
        let info = key.info.clone();
        let source = KeySource::Tenant(tenant.clone());
        self.hub.keys.replace(source, all).map_err(key_refusal)?;
        let mut registry = self.registry.write();
        let keys = &mut registry.tenant_mut(tenant)?.signing_keys;
        keys.insert(info.kid.clone(), Arc::new(key));
        drop(registry);
        let record = detail(&json!({ "alg": info.algorithm.name() }));
        self.audit(actor, Some(tenant), "signing_key.add", &info.kid, record);
        Ok((info, made))
    }

    /// Revokes a key: tokens signed with it open no connection from now on. Connections that are open stay until their
    /// tokens end.
    ///
    /// # Errors
    /// `not_found` if the tenant has no such key, `unavailable`.
    pub async fn revoke_signing_key(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        kid: &str,
    ) -> Result<(), Refusal> {
        let _change = self.changes.lock().await;
        if !self
            .registry
            .read()
            .tenant(tenant)?
            .signing_keys
            .contains_key(kid)
        {
            return Err(Refusal::new(Code::NotFound, "there is no such signing key"));
        }
        if let Some(store) = &self.store {
            let revoked = store.revoke_signing_key(tenant.clone(), kid.to_owned(), self.unix_ms());
            revoked.await.map_err(|e| store_refusal(&e))?;
        }
        let remaining = {
            let mut registry = self.registry.write();
            let record = registry.tenant_mut(tenant)?;
            record.signing_keys.remove(kid);
            record.verifying_keys()?
        };
        let source = KeySource::Tenant(tenant.clone());
        self.hub.keys.replace(source, remaining).map_err(key_refusal)?;
        self.audit(actor, Some(tenant), "signing_key.revoke", kid, Bytes::new());
        Ok(())
    }
}
