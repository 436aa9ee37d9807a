//! Opening administration, and the first start: a tenant, a key to sign with, and the operator's API key.
//!
//! The operator's key goes into a file that only the broker's user can read. It is written under another name, then the
//! database learns of it, then it takes its place; whatever is interrupted, a later start finishes or begins again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cauce_protocol::TenantId;
use parking_lot::RwLock;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;

use super::api_keys::{ApiKey, store_owner};
use super::classes::ClassDefaults;
use super::error::store_refusal;
use super::registry::Registry;
use super::{Actor, Admin, AdminError, DEFAULT_TENANT, NewSigningKey, NewTenant};
use crate::auth::secret::{CREDENTIAL_CHARS, CredentialKind, Scope, issue};
use crate::auth::{KeyOwner, RoleGrants};
use crate::config::{Algorithm, Config, SECRET_FILE_BYTES_MAX};
use crate::hub::Hub;
use crate::seal::{MasterKey, Sealer};
use crate::store::{ApiKeyRow, Loaded, StoreHandle};

/// Key that secrets in the database are sealed with, in the data directory.
const MASTER_KEY_FILE: &str = "master.key";

/// What the first API key is called.
const OPERATOR_KEY_NAME: &str = "first operator key";

const _: () = assert!(CREDENTIAL_CHARS < SECRET_FILE_BYTES_MAX);

impl Admin {
    /// Puts in force what the database holds, and makes what a first start needs. Blocks.
    ///
    /// # Errors
    /// If a stored or configured key cannot be used, or a first one not be made.
    pub fn open(
        hub: Arc<Hub>,
        store: Option<StoreHandle>,
        loaded: Option<Loaded>,
        config: &Config,
    ) -> Result<Self, AdminError> {
        let sealer = match &store {
            None => None,
            Some(_) => {
                let master = MasterKey::load_or_create(&config.data_dir.join(MASTER_KEY_FILE))
                    .map_err(AdminError::MasterKey)?;
                let sealer = Sealer::new(&master, &[]);
                Some(sealer.map_err(|e| AdminError::Config(format!("{MASTER_KEY_FILE}: {e}")))?)
            }
        };
        let mut admin = Self {
            hub,
            store,
            sealer,
            registry: RwLock::new(Registry::default()),
            changes: tokio::sync::Mutex::new(()),
            class_defaults: RwLock::new(ClassDefaults::from(&config.rooms)),
            auth: RwLock::new(config.auth.clone()),
            auth_changed: Notify::new(),
            operator_key: None,
        };
        if let Some(loaded) = loaded {
            admin.take(loaded)?;
        }
        block_on(admin.expect_first_tenant())??;
        let key_file = admin.store.is_some().then(|| config.operator_key_path());
        admin.operator_key = block_on(admin.expect_operator_key(key_file.as_deref()))??;
        admin.reload(config)?;
        Ok(admin)
    }

    /// The default tenant of a fresh broker, and its key.
    async fn expect_first_tenant(&self) -> Result<(), AdminError> {
        let actor = Actor::local("start");
        if self.registry.read().tenants.is_empty() {
            let id = TenantId::new(DEFAULT_TENANT).map_err(|e| AdminError::Config(e.to_string()))?;
            let new = NewTenant {
                id,
                name: None,
                role_grants: RoleGrants::default(),
                room_classes: Vec::new(),
            };
            self.create_tenant(&actor, new).await?;
        }
        let fresh = {
            let registry = self.registry.read();
            let mut tenants = registry.tenants.iter();
            match (tenants.next(), tenants.next()) {
                (Some((id, only)), None) if only.signing_keys.is_empty() => Some(id.clone()),
                _ => None,
            }
        };
        if let Some(tenant) = fresh.filter(|id| id.as_str() == DEFAULT_TENANT) {
            let new = NewSigningKey {
                kid: None,
                algorithm: Algorithm::Hs256,
                material: None,
            };
            self.add_signing_key(&actor, &tenant, new).await?;
        }
        Ok(())
    }

    /// Tenants that the configuration speaks of, made if they are new. Blocks.
    pub(super) fn expect_configured_tenants(&self, config: &Config) -> Result<(), AdminError> {
        let keys = config.auth.keys.iter().filter_map(|key| key.tenant.as_ref());
        let sets = config.auth.jwks.iter().filter_map(|set| set.tenant.as_ref());
        let missing: Vec<TenantId> = {
            let registry = self.registry.read();
            keys.chain(sets)
                .filter(|id| !registry.tenants.contains_key(*id))
                .cloned()
                .collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        block_on(async {
            let actor = Actor::local("configuration");
            for id in missing {
                if self.tenant(&id).is_err() {
                    let new = NewTenant {
                        id,
                        name: None,
                        role_grants: RoleGrants::default(),
                        room_classes: Vec::new(),
                    };
                    self.create_tenant(&actor, new).await?;
                }
            }
            Ok(())
        })?
    }

    /// The operator's key as far as it is known: made if the operator has none. A broker without a database has no file.
    async fn expect_operator_key(&self, file: Option<&Path>) -> Result<Option<SecretString>, AdminError> {
        let has_key = {
            let registry = self.registry.read();
            registry
                .api_keys
                .values()
                .any(|key| key.owner == KeyOwner::Operator)
        };
        let Some(path) = file else {
            return self.make_operator_key(|_| Ok(())).await.map(Some);
        };
        let failed = |source| AdminError::KeyFile {
            path: path.to_path_buf(),
            source,
        };
        let draft = draft_of(path);
        match read_key(&draft).map_err(failed)? {
            // The start that wrote it ended before it could give it its name.
            Some(key) if self.knows(&key) => put_in_place(&draft, path).map_err(failed)?,
            Some(_) => fs::remove_file(&draft).map_err(failed)?,
            None => {}
        }
        match read_key(path).map_err(failed)? {
            Some(key) if self.knows(&key) => Ok(Some(key)),
            Some(_) if has_key => {
                tracing::warn!(path = %path.display(), "the file holds no operator's key that is valid here");
                Ok(None)
            }
            Some(_) => Err(AdminError::KeyFileStale {
                path: path.to_path_buf(),
            }),
            None if has_key => Ok(None),
            None => {
                let write = |key: &SecretString| write_key(&draft, key).map_err(failed);
                let key = self.make_operator_key(write).await?;
                put_in_place(&draft, path).map_err(failed)?;
                Ok(Some(key))
            }
        }
    }

    /// `keep` has the key before anybody else knows that there is one.
    async fn make_operator_key(
        &self,
        keep: impl FnOnce(&SecretString) -> Result<(), AdminError>,
    ) -> Result<SecretString, AdminError> {
        let issued = issue(CredentialKind::ApiKey)?;
        keep(&issued.text)?;
        let key = ApiKey {
            id: issued.id,
            owner: KeyOwner::Operator,
            name: OPERATOR_KEY_NAME.to_owned(),
            scopes: [Scope::All].into_iter().collect(),
            created_unix_ms: self.unix_ms(),
        };
        if let Some(store) = &self.store {
            let row = ApiKeyRow {
                owner: store_owner(&key.owner),
                id: key.id.to_string(),
                hash: issued.secret_sha256.to_vec().into(),
                name: key.name.clone(),
                scopes: vec![Scope::All.name().to_owned()],
                created_ms: key.created_unix_ms,
                revoked_ms: None,
            };
            store.create_api_key(row).await.map_err(|e| store_refusal(&e))?;
        }
        let row = issued.row(CredentialKind::ApiKey, KeyOwner::Operator, key.scopes);
        self.hub.credentials.write().insert(row)?;
        let id = key.id;
        self.registry.write().api_keys.insert(id, key);
        self.audit(
            &Actor::local("start"),
            None,
            "api_key.create",
            id.as_str(),
            bytes::Bytes::new(),
        );
        Ok(issued.text)
    }

    fn knows(&self, key: &SecretString) -> bool {
        let credentials = self.hub.credentials.read();
        credentials
            .authenticate(key.expose_secret(), CredentialKind::ApiKey, self.unix_ms())
            .is_ok_and(|row| row.owner == KeyOwner::Operator)
    }
}

/// Where the key lies until the database knows it.
fn draft_of(path: &Path) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    draft.into()
}

/// `None` if there is no such file.
fn read_key(path: &Path) -> io::Result<Option<SecretString>> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
        Ok(metadata) if metadata.len() > SECRET_FILE_BYTES_MAX as u64 => {
            return Err(io::Error::other("this is no key: the file is too large"));
        }
        Ok(_) => {}
    }
    let text = fs::read_to_string(path)?;
    Ok(Some(text.trim_end().into()))
}

fn write_key(path: &Path, key: &SecretString) -> Result<(), io::Error> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{}", key.expose_secret())?;
    file.sync_all()
}

/// Gives the draft its name, unless there is such a file by now.
fn put_in_place(draft: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(draft, path)?;
    fs::remove_file(draft)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Waits for the store on a thread of its own: the caller may be inside a runtime, where waiting is not allowed.
pub(super) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> Result<T, AdminError> {
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(runtime.block_on(future))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("cauce-start".to_owned())
            .spawn_scoped(scope, wait)
            .map_err(AdminError::Thread)?;
        let died = |_| Err(io::Error::other("it panicked; see the log"));
        thread.join().unwrap_or_else(died).map_err(AdminError::Thread)
    })
}
