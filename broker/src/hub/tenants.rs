//! Tenants and what belongs to each. A connection holds its tenant, so it cannot even name what another one owns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use cauce_protocol::{Code, DeviceId, Payload, Refusal, TenantId, UserId};
use parking_lot::RwLock;

use super::calls::Switchboard;
use super::classes::RoomClasses;
use super::devices::DeviceEntry;
use super::logbook::Logbook;
use super::pacing::Pacing;
use super::people::{People, Person};
use super::publishing::PublishRates;
use crate::auth::{Defaults, Principal, Revocations};
use crate::mailbox::Share;
use crate::rooms::{RoomKeys, RoomTable, TableLimits};

/// Stands for a tenant within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TenantKey(pub u32);

/// What an administrator may change while the broker runs.
#[derive(Clone, Debug, Default)]
pub struct TenantSettings {
    pub disabled: bool,
    /// What may be done under what a token grants.
    pub defaults: Arc<Defaults>,
    /// What holds in its rooms.
    pub classes: RoomClasses,
}

/// One customer: its rooms, devices and connections.
#[derive(Debug)]
pub struct Tenant {
    pub key: TenantKey,
    pub id: TenantId,
    pub rooms: RoomTable,
    /// Asked when a token is brought, never on the publish path.
    pub revocations: RwLock<Revocations>,
    pub switchboard: Switchboard,
    devices: papaya::HashMap<DeviceId, Arc<DeviceEntry>, foldhash::fast::RandomState>,
    devices_count: AtomicUsize,
    settings: RwLock<Arc<TenantSettings>>,
    /// Whether `settings` has a schema, so that publishing asks nothing else where there is none.
    has_schemas: AtomicBool,
    /// Version of the defaults in `settings`. Asked with every request, and changed hardly ever.
    rights_version: AtomicU32,
    connections: AtomicUsize,
    people: People,
    pub(super) rates: PublishRates,
    /// Its part of the shards' mailboxes.
    pub share: Arc<Share>,
    pub(super) pacing: Pacing,
    /// For its `$admin` room.
    pub logbook: Logbook,
}

/// How many connections a tenant and a user may have.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    pub per_tenant_max: usize,
    pub per_user_max: usize,
}

impl Tenant {
    fn new(key: TenantKey, id: TenantId, settings: TenantSettings, rooms: RoomTable) -> Self {
        Self {
            key,
            id,
            rooms,
            revocations: RwLock::default(),
            switchboard: Switchboard::default(),
            devices: papaya::HashMap::with_hasher(foldhash::fast::RandomState::default()),
            devices_count: AtomicUsize::new(0),
            has_schemas: AtomicBool::new(settings.classes.has_schemas()),
            rights_version: AtomicU32::new(settings.defaults.version),
            settings: RwLock::new(Arc::new(settings)),
            connections: AtomicUsize::new(0),
            people: People::default(),
            rates: PublishRates::default(),
            share: Arc::default(),
            pacing: Pacing::default(),
            logbook: Logbook::default(),
        }
    }

    pub fn settings(&self) -> Arc<TenantSettings> {
        self.settings.read().clone()
    }

    /// Takes other settings. Rooms that are opened from now on are of the new classes; those that are open learn it by
    /// [`crate::hub::Hub::reclassify`]. Answers whether rights have changed: then what clients have subscribed to is to be
    /// looked through.
    pub fn configure(&self, mut settings: TenantSettings) -> bool {
        let mut held = self.settings.write();
        let same_rights = held.defaults.agrees_with(&settings.defaults);
        if same_rights {
            settings.defaults = held.defaults.clone();
        } else {
            Arc::make_mut(&mut settings.defaults).version = held.defaults.version.wrapping_add(1);
        }
        self.has_schemas
            .store(settings.classes.has_schemas(), Ordering::Relaxed);
        let (version, classes) = (settings.defaults.version, settings.classes.clone());
        *held = Arc::new(settings);
        self.rooms.set_classify(Arc::new(move |room| classes.of(room)));
        // Whoever sees the new version finds the new settings: the lock is still held.
        self.rights_version.store(version, Ordering::Release);
        !same_rights
    }

    /// A grant of another version is to be made anew: see [`Grant::over`](crate::auth::Grant::over).
    pub fn rights_version(&self) -> u32 {
        self.rights_version.load(Ordering::Acquire)
    }

    /// Whether a payload is what the schema of its event asks for. Where the tenant has no schemas, this is one look at a flag.
    ///
    /// # Errors
    /// `schema_violation` with the path of the first fault.
    pub fn check_payload(&self, room: &str, event: &str, payload: &Payload) -> Result<(), Refusal> {
        if !self.has_schemas.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.settings().classes.schema(room, event) {
            None => Ok(()),
            Some(schema) => schema.check(payload),
        }
    }

    /// Whether a token of this tenant that verifies was revoked nevertheless.
    ///
    /// # Errors
    /// `token_revoked`.
    pub fn check_revoked(&self, principal: &Principal, unix_ms: u64) -> Result<(), Refusal> {
        self.revocations.read().check(principal, unix_ms)
    }

    /// Authenticated connections on this node.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Users with at least one connection on this node.
    pub fn users_len(&self) -> usize {
        self.people.len()
    }

    /// Connections of a user on this node.
    pub fn connections_of(&self, user: &str) -> u32 {
        self.people.connections(user)
    }

    /// The first `limit` connected users behind `after` whose names begin with `prefix`, with their connections.
    pub fn users(&self, prefix: &str, after: &str, limit: usize) -> Vec<(UserId, u32)> {
        self.people.page(prefix, after, limit)
    }

    /// Counts a connection in, for as long as the answer lives.
    ///
    /// # Errors
    /// `too_many_connections`, with which limit.
    pub fn admit(self: &Arc<Self>, user: &UserId, limits: ConnectionLimits) -> Result<Membership, Refusal> {
        const RETRY_MS: u32 = 10_000;
        if self.connections.fetch_add(1, Ordering::Relaxed) >= limits.per_tenant_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            let message = format!(
                "the tenant has {} connections, and may have no more",
                limits.per_tenant_max
            );
            return Err(Refusal::new(Code::TooManyConnections, message).retry_after(RETRY_MS));
        }
        let Some(person) = self.people.enter(user, limits.per_user_max) else {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            let message = format!(
                "this user has {} connections, and may have no more; close one",
                limits.per_user_max
            );
            return Err(Refusal::new(Code::TooManyConnections, message).retry_after(RETRY_MS));
        };
        Ok(Membership {
            tenant: self.clone(),
            person,
        })
    }

    /// Whether the user has a connection on this node.
    pub fn is_connected(&self, user: &UserId) -> bool {
        self.connections_of(user.as_str()) > 0
    }

    pub fn device(&self, id: &str) -> Option<Arc<DeviceEntry>> {
        self.devices.pin().get(id).cloned()
    }

    /// Devices ever seen and not deleted.
    pub fn devices_len(&self) -> usize {
        self.devices_count.load(Ordering::Relaxed)
    }

    /// Calls `visit` with each device, in no order.
    pub fn for_each_device(&self, mut visit: impl FnMut(&Arc<DeviceEntry>)) {
        for (_, device) in &self.devices.pin() {
            visit(device);
        }
    }

    /// The device of this id, made by `make` if it is new.
    ///
    /// # Errors
    /// `quota_exceeded` if it would be one too many.
    pub fn device_or_make(
        &self,
        id: &DeviceId,
        devices_max: usize,
        make: impl FnOnce() -> DeviceEntry,
    ) -> Result<Arc<DeviceEntry>, Refusal> {
        if let Some(device) = self.device(id.as_str()) {
            return Ok(device);
        }
        if self.devices_count.fetch_add(1, Ordering::Relaxed) >= devices_max {
            self.devices_count.fetch_sub(1, Ordering::Relaxed);
            let message = format!("the tenant has {devices_max} devices, and may have no more");
            return Err(Refusal::new(Code::QuotaExceeded, message).retry_after(60_000));
        }
        let made = Arc::new(make());
        let device = self.devices.pin().get_or_insert(id.clone(), made.clone()).clone();
        if !Arc::ptr_eq(&device, &made) {
            self.devices_count.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(device)
    }
}

/// One authenticated connection in its tenant's count; dropping it counts it out.
#[derive(Debug)]
pub struct Membership {
    pub tenant: Arc<Tenant>,
    pub person: Arc<Person>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.tenant.connections.fetch_sub(1, Ordering::Relaxed);
        self.tenant.people.leave(&self.person.id);
    }
}

/// All tenants of the node by id. Looked up when a connection opens or an API call comes, never on the publish path.
#[derive(Debug)]
pub struct Tenants {
    tenants: papaya::HashMap<TenantId, Arc<Tenant>, foldhash::fast::RandomState>,
    next_key: AtomicU32,
    room_keys: Arc<RoomKeys>,
    room_limits: TableLimits,
}

impl Tenants {
    pub fn new(room_limits: TableLimits) -> Self {
        Self {
            tenants: papaya::HashMap::with_hasher(foldhash::fast::RandomState::default()),
            next_key: AtomicU32::new(1),
            room_keys: Arc::default(),
            room_limits,
        }
    }

    pub fn get(&self, id: &str) -> Option<Arc<Tenant>> {
        self.tenants.pin().get(id).cloned()
    }

    /// The tenant of this id, made if it is new. Existing settings are kept.
    pub fn get_or_make(&self, id: &TenantId, settings: TenantSettings) -> Arc<Tenant> {
        if let Some(tenant) = self.get(id.as_str()) {
            return tenant;
        }
        let key = TenantKey(self.next_key.fetch_add(1, Ordering::Relaxed));
        let rooms = RoomTable::new(self.room_limits, self.room_keys.clone());
        let classes = settings.classes.clone();
        rooms.set_classify(Arc::new(move |room| classes.of(room)));
        let made = Arc::new(Tenant::new(key, id.clone(), settings, rooms));
        self.tenants.pin().get_or_insert(id.clone(), made).clone()
    }

    /// Calls `visit` with each tenant, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Tenant>)) {
        for (_, tenant) in &self.tenants.pin() {
            visit(tenant);
        }
    }
}
