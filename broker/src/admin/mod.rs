//! Tenants, keys, tokens, and what people say about devices: everything an administrator may change.
//!
//! What must stay true:
//! - A change is committed to the store first and takes effect in memory second, so what is in force survives a crash.
//! - Changes happen one after the other. Reading never waits for one.
//! - Every change leaves an audit row that says who did what; no secret is in it, in a log or in `Debug`.
//! - Without a store the same operations hold until the process ends.
//!
//! A change whose future is dropped midway may be in the store and not yet in memory. The HTTP API never does that: it runs
//! each change as a task of its own.

mod api_keys;
mod bootstrap;
mod classes;
mod connections;
mod device_tokens;
mod devices;
mod error;
mod key_sets;
mod load;
mod registry;
mod revocations;
mod signing;
mod tenants;
mod tokens;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::{Refusal, TenantId};
use parking_lot::RwLock;
use secrecy::SecretString;
use tokio::sync::Notify;

pub use api_keys::{API_KEYS_A_OWNER_MAX, ApiKey, NewApiKey};
pub use classes::{
    Age, CLASSES_A_TENANT_MAX, CLASSES_BYTES_MAX, ClassSpec, DeliveryName, DeliverySpec, GraceSpec,
    HistorySpec, PresenceSpec, RateSpec, SCHEMA_BYTES_MAX, SCHEMAS_A_TENANT_MAX, SampleSpec, Size,
    read_classes,
};
pub use connections::{Afterwards, Disconnect};
pub use device_tokens::{DEVICE_TOKENS_A_TENANT_MAX, DeviceToken, NewDeviceToken};
pub use devices::{ASSIGNMENT_EVENT, DeviceNotes, Equipment};
pub use error::AdminError;
pub(crate) use error::store_refusal;
pub(crate) use registry::no_tenant;
pub use revocations::{Lasts, NewRevocation};
pub use signing::{NewSigningKey, SigningKeyInfo};
pub use tenants::{NewTenant, TENANTS_MAX, TenantInfo, TenantUpdate};
pub use tokens::{NewToken, TOKEN_LIFETIME_DEFAULT, TOKEN_LIFETIME_MAX, Token};

use crate::auth::KeyOwner;
use crate::auth::secret::CredentialId;
use crate::config;
use crate::hub::Hub;
use crate::seal::Sealer;
use crate::store::{AuditRow, StoreHandle};
use registry::Registry;

/// The tenant that a fresh broker has.
pub const DEFAULT_TENANT: &str = "default";

/// Longest name or label that people give, in bytes: what the store takes.
pub const LABEL_BYTES_MAX: usize = 256;

/// Who makes a change, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(Arc<str>);

impl Actor {
    /// The bearer of an API key.
    pub fn api_key(id: CredentialId) -> Self {
        Self(format!("api_key:{id}").into())
    }

    /// The process itself, or the program that embeds it.
    pub fn local(name: &str) -> Self {
        Self(format!("local:{name}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something new, with the secret that is shown this once.
#[derive(Debug)]
pub struct WithSecret<T> {
    pub item: T,
    pub secret: SecretString,
}

/// Administration of a node. Shared by the API, the embedding program and the control thread.
#[derive(Debug)]
pub struct Admin {
    hub: Arc<Hub>,
    store: Option<StoreHandle>,
    /// There if the store is.
    sealer: Option<Sealer>,
    registry: RwLock<Registry>,
    /// Held from the check to the effect of a change.
    changes: tokio::sync::Mutex<()>,
    /// What the configuration says about rooms without a class.
    class_defaults: RwLock<classes::ClassDefaults>,
    /// What the configuration says about keys.
    auth: RwLock<config::Auth>,
    auth_changed: Notify,
    operator_key: Option<SecretString>,
}

impl Admin {
    /// The operator's first API key, if this process knows it: it made it, or read it from the file of an earlier start.
    pub fn operator_key(&self) -> Option<&SecretString> {
        self.operator_key.as_ref()
    }

    /// The database, if there is one: for history, which is nowhere else.
    pub fn store(&self) -> Option<&StoreHandle> {
        self.store.as_ref()
    }

    fn unix_ms(&self) -> u64 {
        self.hub.clock.now().unix_ms
    }

    /// Puts a change on record.
    fn audit(&self, actor: &Actor, tenant: Option<&TenantId>, action: &str, target: &str, detail: Bytes) {
        let whose = tenant.map_or("", |tenant| tenant.as_str());
        tracing::info!(%actor, tenant = whose, action, target, "administration");
        self.hub.records.audit(AuditRow {
            tenant: tenant.cloned(),
            at_ms: self.unix_ms(),
            actor: actor.0.clone(),
            action: action.into(),
            target: target.into(),
            detail,
        });
    }
}

/// A value of ours as JSON, for the record: these have string keys and finite numbers only.
fn detail(value: &serde_json::Value) -> Bytes {
    value.to_string().into()
}

/// Names and labels are for people, and stand in logs.
fn check_label(what: &str, label: &str) -> Result<(), Refusal> {
    if label.len() > LABEL_BYTES_MAX {
        let message = format!("{what} is longer than {LABEL_BYTES_MAX} bytes");
        return Err(Refusal::new(cauce_protocol::Code::TooLarge, message));
    }
    if label.chars().any(char::is_control) {
        let message = format!("{what} has control characters in it");
        return Err(Refusal::new(cauce_protocol::Code::Invalid, message));
    }
    Ok(())
}

/// The tenant that something of this owner is filed under.
fn owner_tenant(owner: &KeyOwner) -> Option<&TenantId> {
    match owner {
        KeyOwner::Operator => None,
        KeyOwner::Tenant(tenant) => Some(tenant),
    }
}
