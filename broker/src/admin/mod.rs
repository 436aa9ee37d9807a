//! Tenants, keys and tokens: interim.

use std::sync::Arc;

use crate::auth::KeySource;
use crate::config::Config;
use crate::hub::{Hub, TenantSettings};
use crate::store::{Loaded, StoreHandle};

/// Why administration cannot start.
#[derive(Debug)]
pub struct AdminError(pub String);

impl std::fmt::Display for AdminError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Interim.
#[derive(Debug)]
pub struct Admin {
    hub: Arc<Hub>,
    _store: Option<StoreHandle>,
}

impl Admin {
    /// # Errors
    /// If keys cannot be used.
    pub fn open(
        hub: Arc<Hub>,
        store: Option<StoreHandle>,
        _loaded: Option<Loaded>,
        config: &Config,
    ) -> Result<Self, AdminError> {
        let default = cauce_protocol::TenantId::new("default").map_err(|e| AdminError(e.to_string()))?;
        hub.tenants.get_or_make(&default, TenantSettings::default());
        for key in &config.auth.keys {
            if let Some(tenant) = &key.tenant {
                hub.tenants.get_or_make(tenant, TenantSettings::default());
            }
        }
        let admin = Self { hub, _store: store };
        admin.reload(config)?;
        Ok(admin)
    }

    /// # Errors
    /// If keys cannot be used.
    pub fn reload(&self, config: &Config) -> Result<(), AdminError> {
        let keys = crate::auth::keys::from_config(&config.auth).map_err(AdminError)?;
        self.hub
            .keys
            .replace(KeySource::Config, keys)
            .map_err(|e| AdminError(e.to_string()))
    }

    /// Fetches key sets for ever.
    pub async fn follow_key_sets(self: Arc<Self>) {
        std::future::pending::<()>().await;
    }
}
