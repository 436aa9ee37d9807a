//! From what the database holds to what is in force.

use std::collections::HashMap;
use std::sync::Arc;

use cauce_protocol::{DeviceId, RoomName, TenantId};
use secrecy::{ExposeSecret, SecretString};

use super::api_keys::ApiKey;
use super::device_tokens::DeviceToken;
use super::devices::DeviceNotes;
use super::registry::TenantRecord;
use super::signing::{PURPOSE, SigningKeyInfo, StoredKey};
use super::tenants::TenantInfo;
use super::{Admin, AdminError};
use crate::auth::secret::{CredentialId, CredentialKind, CredentialRow, Scope, Scopes, SecretHash};
use crate::auth::{KeyOwner, KeySource};
use crate::hub::{DeviceEntry, ShardMessage};
use crate::rooms::{Head, HeadKey};
use crate::seal::Place;
use crate::shelly::{self, Identity, Saved};
use crate::store::{self, ApiKeyRow, DeviceRow, DeviceTokenRow, Loaded, RoomHead, SeenKey, SigningKeyRow};

impl Admin {
    /// Puts in force what was stored.
    pub(super) fn take(&self, loaded: Loaded) -> Result<(), AdminError> {
        for row in loaded.tenants {
            let info = TenantInfo::from(row);
            let settings = info.settings_or_plain(&self.class_defaults.read());
            self.take_tenant(info, settings);
        }
        for row in loaded.signing_keys {
            self.take_signing_key(row)?;
        }
        self.put_keys_in_force()?;
        for row in loaded.api_keys {
            self.take_api_key(row);
        }
        for row in loaded.device_tokens {
            self.take_device_token(row);
        }
        self.take_rooms(loaded.room_heads, loaded.seen_keys);
        for row in loaded.revocations {
            self.take_revocation(row);
        }
        for (number, row) in loaded.devices.into_iter().enumerate() {
            self.take_device(number, row);
        }
        Ok(())
    }

    /// Durable rooms go on where they stood.
    fn take_rooms(&self, heads: Vec<RoomHead>, keys: Vec<SeenKey>) {
        let (now, window_ms) = (self.hub.clock.now(), self.hub.tunables().dedup_window_ms);
        let mut seen: HashMap<(TenantId, RoomName), Vec<SeenKey>> = HashMap::new();
        for key in keys {
            seen.entry((key.tenant.clone(), key.room.clone()))
                .or_default()
                .push(key);
        }
        for head in heads {
            let Some(tenant) = self.hub.tenants.get(head.tenant.as_str()) else {
                tracing::warn!(tenant = %head.tenant, room = %head.room, "a durable room of an unknown tenant is left alone");
                continue;
            };
            let keys = seen.remove(&(head.tenant, head.room.clone())).unwrap_or_default();
            let head_key = |key: SeenKey| HeadKey {
                name: key.repeat,
                seq: key.seq.0,
                at_ms: now
                    .mono_ms
                    .saturating_sub(now.unix_ms.saturating_sub(key.unix_ms)),
                window_ms,
            };
            let keys = keys
                .into_iter()
                .filter(|key| key.epoch == head.epoch)
                .map(head_key);
            tenant.rooms.restore(
                head.room,
                Head {
                    epoch: head.epoch,
                    last: head.last.0,
                    given: head.given.0,
                    lease: head.lease.0,
                    keys: keys.collect(),
                },
            );
        }
    }

    fn take_signing_key(&self, row: SigningKeyRow) -> Result<(), AdminError> {
        let unusable = |reason: String| AdminError::SigningKey {
            tenant: row.tenant.to_string(),
            kid: row.kid.clone(),
            reason,
        };
        let place = Place {
            purpose: PURPOSE,
            tenant: Some(&row.tenant),
            row: &row.kid,
        };
        let Some(sealer) = &self.sealer else {
            return Err(unusable("there is no master key to open it with".to_owned()));
        };
        let opened = sealer
            .open(place, &row.material)
            .map_err(|e| unusable(e.to_string()))?;
        let text = std::str::from_utf8(opened.expose_secret());
        let material: SecretString = text.map_err(|e| unusable(e.to_string()))?.into();
        let key = StoredKey {
            info: SigningKeyInfo {
                kid: row.kid.clone(),
                algorithm: row.alg.parse().map_err(&unusable)?,
                created_unix_ms: row.created_ms,
            },
            material,
        };
        // The schema has no key without its tenant.
        if let Some(record) = self.registry.write().tenants.get_mut(&row.tenant) {
            record.signing_keys.insert(row.kid.clone(), Arc::new(key));
        }
        Ok(())
    }

    /// All stored keys with one rebuild.
    fn put_keys_in_force(&self) -> Result<(), AdminError> {
        let registry = self.registry.read();
        let source = |record: &TenantRecord| {
            let keys = record.verifying_keys()?;
            Ok((KeySource::Tenant(record.info.id.clone()), keys))
        };
        let sources: Result<Vec<_>, AdminError> = registry.tenants.values().map(source).collect();
        self.hub
            .keys
            .replace_many(sources?)
            .map_err(|e| AdminError::Config(format!("stored signing keys: {e}")))
    }

    fn take_api_key(&self, row: ApiKeyRow) {
        let Some((id, hash)) = stored_credential(&row.id, &row.hash) else {
            return tracing::error!(id = row.id, "a stored API key is damaged and left out");
        };
        let owner = match row.owner {
            store::KeyOwner::Operator => KeyOwner::Operator,
            store::KeyOwner::Tenant(tenant) => KeyOwner::Tenant(tenant),
        };
        // A scope that only another version knows gives nothing here.
        let scopes: Scopes = row
            .scopes
            .iter()
            .filter_map(|name| Scope::from_name(name))
            .collect();
        self.take_credential(CredentialRow {
            id,
            kind: CredentialKind::ApiKey,
            owner: owner.clone(),
            secret_sha256: hash,
            scopes,
            device: None,
            expires_unix_ms: None,
            revoked_unix_ms: None,
        });
        let key = ApiKey {
            id,
            owner,
            name: row.name,
            scopes,
            created_unix_ms: row.created_ms,
        };
        self.registry.write().api_keys.insert(id, key);
    }

    fn take_device_token(&self, row: DeviceTokenRow) {
        let Some((id, hash)) = stored_credential(&row.id, &row.hash) else {
            return tracing::error!(id = row.id, "a stored device token is damaged and left out");
        };
        self.take_credential(CredentialRow {
            id,
            kind: CredentialKind::Device,
            owner: KeyOwner::Tenant(row.tenant.clone()),
            secret_sha256: hash,
            scopes: Scopes::NONE,
            device: row.device.clone(),
            expires_unix_ms: None,
            revoked_unix_ms: None,
        });
        let token = DeviceToken {
            id,
            device: row.device,
            label: row.label,
            created_unix_ms: row.created_ms,
        };
        if let Some(record) = self.registry.write().tenants.get_mut(&row.tenant) {
            record.device_tokens.insert(id, token);
        }
    }

    fn take_credential(&self, row: CredentialRow) {
        if let Err(refusal) = self.hub.credentials.write().insert(row) {
            tracing::error!(%refusal, "a stored key or token is left out");
        }
    }

    /// `number` spreads the devices that need a timer over the shards for devices.
    fn take_device(&self, number: usize, row: DeviceRow) {
        let Some(tenant) = self.hub.tenants.get(row.tenant.as_str()) else {
            return;
        };
        let notes = DeviceNotes {
            assignment: row.assignment.clone(),
            metadata: row.metadata.clone(),
        };
        if notes != DeviceNotes::default() {
            self.take_notes(&row.tenant, &row.device, notes);
        }
        let Some(device) = self.restored(&row) else {
            return tracing::error!(tenant = %row.tenant, device = %row.device, "a stored device has no usable name");
        };
        // Whatever the limit is now: these devices are there.
        let made = tenant.device_or_make(&row.device, usize::MAX, || {
            DeviceEntry::new(row.device.clone(), device)
        });
        let Ok(entry) = made else { return };
        let has_timer = entry.lock().device.poll_timeout().is_some();
        if has_timer {
            let shards = self.hub.plan.for_devices();
            let shard = shards.start + number % shards.len().max(1);
            self.hub.shards[shard].send(ShardMessage::Watch(tenant, entry));
        }
    }

    fn restored(&self, row: &DeviceRow) -> Option<shelly::Device> {
        let Some(last) = &row.last else {
            let identity = Identity::parse(row.device.as_str()).ok()?;
            return Some(shelly::Device::new(identity));
        };
        match Saved::from_update(&last.state) {
            Ok(saved) => {
                let now = self.hub.clock.now();
                Some(shelly::Device::restore(saved.identity.clone(), saved, now))
            }
            Err(error) => {
                tracing::warn!(tenant = %row.tenant, device = %row.device, %error, "a device starts without its last state");
                Identity::parse(&last.src).ok().map(shelly::Device::new)
            }
        }
    }

    fn take_notes(&self, tenant: &TenantId, device: &DeviceId, notes: DeviceNotes) {
        if let Some(record) = self.registry.write().tenants.get_mut(tenant) {
            record.devices.insert(device.clone(), notes);
        }
    }
}

fn stored_credential(id: &str, hash: &[u8]) -> Option<(CredentialId, SecretHash)> {
    Some((CredentialId::new(id)?, hash.try_into().ok()?))
}
