//! Keys from outside the database: those of the configuration, and key sets that identity providers publish.

use std::sync::Arc;

use super::bootstrap::block_on;
use super::classes::ClassDefaults;
use super::{Admin, AdminError};
use crate::auth::fetch::Refresher;
use crate::auth::{KeySource, keys};
use crate::config::{AuthJwks, Config};

impl Admin {
    /// Takes the keys of a configuration, and its defaults for rooms. Those of a changed key set come when it has been fetched. Blocks.
    ///
    /// # Errors
    /// If a key cannot be used; then all keys stay as they were.
    pub fn reload(&self, config: &Config) -> Result<(), AdminError> {
        block_on(self.take_class_defaults(ClassDefaults::from(&config.rooms)))?;
        self.expect_configured_tenants(config)?;
        let configured = keys::from_config(&config.auth).map_err(AdminError::Config)?;
        let mut auth = self.auth.write();
        let dropped = auth.jwks.iter().enumerate().filter(|(index, set)| {
            let now = config.auth.jwks.get(*index);
            !now.is_some_and(|now| is_same_set(now, set))
        });
        // Keys of a set that is no longer configured must not verify for another moment.
        let changes = dropped
            .map(|(index, _)| (KeySource::Jwks(index), Vec::new()))
            .chain([(KeySource::Config, configured)]);
        self.hub
            .keys
            .replace_many(changes)
            .map_err(|e| AdminError::Config(format!("auth.keys: {e}")))?;
        *auth = config.auth.clone();
        drop(auth);
        self.auth_changed.notify_one();
        Ok(())
    }

    /// Fetches key sets when they are due or a token names an unknown key, for ever.
    pub async fn follow_key_sets(self: Arc<Self>) {
        loop {
            let refresher = {
                let auth = self.auth.read();
                Refresher::new(
                    self.hub.keys.clone(),
                    &auth,
                    self.hub.clock,
                    self.hub.key_missing.clone(),
                )
            };
            match refresher {
                Ok(refresher) => tokio::select! {
                    () = refresher.run() => {}
                    () = self.auth_changed.notified() => continue,
                },
                Err(error) => tracing::error!(%error, "key sets are not followed"),
            }
            // Nothing to follow, until the configuration says otherwise.
            self.auth_changed.notified().await;
        }
    }
}

fn is_same_set(a: &AuthJwks, b: &AuthJwks) -> bool {
    a.tenant == b.tenant
        && a.operator == b.operator
        && a.url == b.url
        && a.issuer == b.issuer
        && a.audience == b.audience
}
