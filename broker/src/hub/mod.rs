//! The one place through which everything is published: clients, devices, the API and the embedding program end here.
//!
//! What must stay true:
//! - There is one way to publish, [`Hub::publish`], whatever door a message came by.
//! - The hub hands work to shards through their mailboxes and never waits for one.
//! - It holds no socket and starts no thread.

mod calls;
mod classes;
mod commits;
mod delivery;
mod device_flow;
mod devices;
mod doors;
mod history;
mod leaving;
mod ledger;
mod log_lines;
mod logbook;
mod notifications;
mod pacing;
mod people;
mod placing;
mod presence;
mod publishing;
mod records;
mod schemas;
mod survey;
mod tenants;
mod tunables;
mod watching;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use bytes::Bytes;
use cauce_protocol::message::Recipient;
use cauce_protocol::{Code, Refusal};
use parking_lot::RwLock;

pub use calls::{
    CallId, CallWatch, Inbox, Invoke, MethodCall, ServerId, Switchboard, TIMEOUT_MS_MAX, no_such_request,
};
pub use classes::{ClassRule, RoomClasses};
pub use commits::Begun;
pub use delivery::{
    Answer, Arrival, Closing, DeviceCredential, DeviceFrames, Drain, Drained, Outcome, Purpose, Selection,
    Serving, ServingWord, ShardMailbox, ShardMessage,
};
pub use device_flow::{DEVICES_ROOM, device_room, mask_tokens};
pub use devices::{Caller, DeviceEntry, DeviceSide, Link, OutgoingCall, Rising, SharedDevice, call_refusal};
pub use doors::{Door, DoorLimits, Permit};
pub use history::HistoryPage;
pub use leaving::{Leaving, Underway};
pub use ledger::restored;
pub use log_lines::{LINE_BYTES_MAX, LINES_MAX, LogLine, LogLines};
pub use logbook::{Capped, ITEMS_MAX, Logbook, Period, Visit};
pub use notifications::{NOTIFICATIONS_PAGE_DEFAULT, News, Notice};
pub use pacing::PACED_MS_MAX;
pub use people::Person;
pub use placing::{SHARD_BITS, ShardPlan};
pub use presence::check_kept as check_presence_kept;
pub use publishing::{PublishLimit, PublishQuotas, Publisher};
pub use records::{Later, NoRecords, Records};
pub use schemas::{Schema, Schemas};
pub use survey::{ConnectionInfo, Question, Survey};
pub use tenants::{ConnectionLimits, Membership, Tenant, TenantKey, TenantSettings, Tenants};
pub use tunables::{DrainSettings, Tunables};
pub use watching::{ADMIN_ROOM, OPERATOR_ROOM, Watching};

use self::ledger::Ledger;
use crate::auth::fetch::Nudge;
use crate::auth::secret::{CredentialId, CredentialKind, Credentials};
use crate::auth::{KeyOwner, Keys, Standing};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::publication::{Direct, Draft};
use crate::rooms::{Accepted, Manner, PresenceDesk, TableLimits, overloaded, share_overloaded};
use crate::shelly::{CallToken, Session};

const _: () = assert!(1 << SHARD_BITS == crate::rooms::SHARDS_MAX);

/// The node's centre. Shared by all threads.
#[derive(Debug)]
pub struct Hub {
    pub tenants: Tenants,
    pub shards: Box<[Arc<ShardMailbox>]>,
    pub plan: ShardPlan,
    pub clock: Clock,
    pub metrics: Metrics,
    pub door: Arc<Door>,
    pub presence: PresenceDesk,
    pub records: Box<dyn Records>,
    pub keys: Arc<Keys>,
    pub credentials: RwLock<Credentials>,
    /// Rung when a token names a key that is not known: a key set may have changed.
    pub key_missing: Nudge,
    pub leaving: Arc<Leaving>,
    /// For whoever watches the node.
    pub log_lines: Arc<LogLines>,
    tunables: RwLock<Arc<Tunables>>,
    /// Connections by shard, for placing new ones.
    loads: Box<[AtomicUsize]>,
    /// Shards whose threads have ended.
    ended: Box<[AtomicBool]>,
    sessions: Rising,
    calls: Rising,
    call_watch: CallWatch,
}

impl Hub {
    pub fn new(
        plan: ShardPlan,
        tunables: Tunables,
        rooms: TableLimits,
        door: DoorLimits,
        mailbox_bytes: usize,
        clock: Clock,
        records: Box<dyn Records>,
    ) -> Self {
        Self {
            tenants: Tenants::new(rooms),
            shards: (0..plan.total())
                .map(|_| Arc::new(ShardMailbox::new(mailbox_bytes, Default::default())))
                .collect(),
            plan,
            clock,
            metrics: Metrics::new(plan.total()),
            door: Arc::new(Door::new(door)),
            presence: PresenceDesk::default(),
            records,
            keys: Arc::default(),
            credentials: RwLock::default(),
            key_missing: Nudge::default(),
            leaving: Arc::default(),
            log_lines: Arc::default(),
            tunables: RwLock::new(Arc::new(tunables)),
            loads: (0..plan.total()).map(|_| AtomicUsize::new(0)).collect(),
            ended: (0..plan.total()).map(|_| AtomicBool::new(false)).collect(),
            sessions: Rising::default(),
            calls: Rising::default(),
            call_watch: CallWatch::default(),
        }
    }

    pub fn tunables(&self) -> Arc<Tunables> {
        self.tunables.read().clone()
    }

    pub fn tune(&self, tunables: Tunables) {
        *self.tunables.write() = Arc::new(tunables);
    }

    /// Publishes to a room. `name` has been checked.
    ///
    /// # Errors
    /// `overloaded`, `quota_exceeded`, `invalid` or `schema_violation`; then nobody got the message.
    pub fn publish(
        &self,
        tenant: &Tenant,
        room: &str,
        mut draft: Draft,
        manner: Manner<'_>,
    ) -> Result<Accepted, Refusal> {
        tenant.check_payload(room, draft.event.as_str(), &draft.payload)?;
        let now = self.clock.now();
        draft.unix_ms = now.unix_ms;
        let ledger = Ledger {
            records: &*self.records,
            tenant: &tenant.id,
        };
        let manner = Manner {
            journal: Some(&ledger),
            share: Some(&tenant.share),
            ..manner
        };
        let published = tenant
            .rooms
            .publish(room, draft, manner, now.mono_ms, &self.shards);
        self.note(tenant, room, &published);
        published
    }

    /// Writes into the tenant's logbook what became of a message, if anybody reads it.
    fn note(&self, tenant: &Tenant, room: &str, published: &Result<Accepted, Refusal>) {
        // What is told to watchers is not what they watch.
        if !tenant.logbook.is_watched() || [ADMIN_ROOM, OPERATOR_ROOM].contains(&room) {
            return;
        }
        if let Ok(accepted) = published
            && !accepted.repeated
        {
            tenant.logbook.published(accepted.receivers);
        }
    }

    /// Publishes to a room only if somebody has use for it: what devices say to rooms that nobody listens to is not numbered.
    pub fn publish_if_open(
        &self,
        tenant: &Tenant,
        room: &str,
        draft: Draft,
    ) -> Option<Result<Accepted, Refusal>> {
        tenant
            .rooms
            .get(room)
            .map(|_| self.publish(tenant, room, draft, Manner::default()))
    }

    /// Gives every open room of the tenant its class as the settings say now. Rooms that were durable and are not any more
    /// close, and their subscribers are told.
    pub fn reclassify(&self, tenant: &Tenant) {
        let message = "the room is no longer durable, and its numbering begins anew; join it again";
        let refusal = Refusal::new(Code::GoingAway, message);
        tenant.rooms.reclassify(self.clock.now().mono_ms, |room, shards| {
            for shard in (0..self.shards.len()).filter(|shard| shards & 1 << shard != 0) {
                self.shards[shard].send(ShardMessage::RoomClosed(room.key, refusal.clone()));
            }
        });
        self.reset_presence(tenant);
    }

    /// A message to people or connections of one tenant. It has no number; whoever is connected gets it.
    ///
    /// # Errors
    /// `overloaded` if a shard cannot take it now; then nobody got it.
    pub fn send(&self, tenant: &Tenant, to: Recipient, draft: Draft) -> Result<(), Refusal> {
        let shards = match &to {
            Recipient::Connection(connection) => match self.shard_of(*connection) {
                Some(shard) => shard..shard + 1,
                None => return Ok(()),
            },
            _ => 0..self.plan.clients,
        };
        let direct = Arc::new(Direct::new(tenant.id.clone(), to, draft, tenant.share.clone()));
        let cost = direct.cost();
        for shard in shards.clone() {
            let refusal = if !tenant.share.reserve(shard, cost, self.shards[shard].capacity()) {
                share_overloaded()
            } else if self.shards[shard].reserve(cost) {
                continue;
            } else {
                tenant.share.release(shard, cost);
                overloaded()
            };
            for taken in shards.start..shard {
                self.shards[taken].release(cost);
                tenant.share.release(taken, cost);
            }
            return Err(refusal);
        }
        for mailbox in &self.shards[shards] {
            mailbox.send(ShardMessage::Direct(direct.clone()));
        }
        tenant.logbook.published(0);
        Ok(())
    }

    /// Calls a device. The answer goes to `caller`, exactly once, whatever happens. Answers by what the device knows the
    /// call, if it was asked.
    pub fn call(
        &self,
        tenant: &Tenant,
        device: &str,
        call: &OutgoingCall,
        caller: Caller,
    ) -> Option<CallToken> {
        let Some(entry) = tenant.device(device) else {
            self.answer(
                caller,
                Err(Refusal::new(
                    Code::NotFound,
                    "the tenant has no device of this id",
                )),
            );
            return None;
        };
        let token = CallToken(self.calls.next());
        let opened = entry.lock().call(self.clock.now(), call, token, caller);
        match opened {
            Ok((link, frame)) => {
                let frames = DeviceFrames {
                    peer: link.peer,
                    frames: vec![frame],
                };
                self.shards[link.shard].send(ShardMessage::DeviceFrames(frames));
                Some(token)
            }
            Err((refusal, caller)) => {
                self.answer(caller, Err(refusal));
                None
            }
        }
    }

    /// Gives a caller its answer.
    pub fn answer(&self, caller: Caller, result: Result<Bytes, Refusal>) {
        match caller {
            // Whoever gave up waiting has dropped the other end.
            Caller::Waiter(waiter) => drop(waiter.send(result)),
            Caller::Connection { connection, request } => {
                if let Some(shard) = self.shard_of(connection) {
                    self.shards[shard].send(ShardMessage::Answer(Box::new(Answer {
                        connection,
                        request,
                        result,
                    })));
                }
            }
        }
    }

    /// Whether a tenant is served, and what may be done there without a token's word.
    pub fn standing(&self, tenant: &str) -> Standing {
        match self.tenants.get(tenant).map(|tenant| tenant.settings()) {
            None => Standing::Unknown,
            Some(settings) if settings.disabled => Standing::Disabled,
            Some(settings) => Standing::Active(settings.defaults.clone()),
        }
    }

    /// What a device token stands for.
    ///
    /// # Errors
    /// `unauthenticated`, `token_invalid`, `token_revoked`, `token_expired` or `tenant_disabled`.
    pub fn device_credential(&self, token: &str) -> Result<DeviceCredential, Refusal> {
        let unix_ms = self.clock.now().unix_ms;
        let row = self
            .credentials
            .read()
            .authenticate(token, CredentialKind::Device, unix_ms)?
            .clone();
        let refused = || Refusal::new(Code::TokenInvalid, "the token's tenant is not there");
        let KeyOwner::Tenant(id) = &row.owner else {
            return Err(refused());
        };
        let tenant = self.tenants.get(id.as_str()).ok_or_else(refused)?;
        if tenant.settings().disabled {
            return Err(Refusal::new(Code::TenantDisabled, "the tenant is switched off"));
        }
        Ok(DeviceCredential {
            tenant,
            device: row.device.clone(),
            id: row.id.as_str().into(),
        })
    }

    /// Whether a device token is still good: it may have been revoked, or its tenant switched off, while the socket was on
    /// its way between threads and in no shard's list of peers to close.
    ///
    /// # Errors
    /// `token_revoked`, `token_expired` or `tenant_disabled`.
    pub fn still_stands(&self, credential: &DeviceCredential) -> Result<(), Refusal> {
        if credential.tenant.settings().disabled {
            return Err(Refusal::new(Code::TenantDisabled, "the tenant is switched off"));
        }
        let unix_ms = self.clock.now().unix_ms;
        let credentials = self.credentials.read();
        let row = CredentialId::new(&credential.id).and_then(|id| credentials.find(id));
        match row {
            Some(row) if row.expires_unix_ms.is_some_and(|end| end <= unix_ms) => {
                Err(Refusal::new(Code::TokenExpired, "the token has expired"))
            }
            Some(row) if row.revoked_unix_ms.is_none() => Ok(()),
            _ => Err(Refusal::new(Code::TokenRevoked, "the token was revoked")),
        }
    }

    /// Closes connections on one shard.
    pub fn close_one(&self, shard: usize, selection: Selection, refusal: Refusal) {
        self.shards[shard].send(ShardMessage::Close(Arc::new(Closing { selection, refusal })));
    }

    /// Closes connections, on whatever shard they are.
    pub fn close(&self, selection: Selection, refusal: Refusal) {
        let closing = Arc::new(Closing { selection, refusal });
        for mailbox in &self.shards {
            mailbox.send(ShardMessage::Close(closing.clone()));
        }
    }

    /// A session newer than all before.
    pub fn next_session(&self) -> Session {
        Session::new(self.sessions.next())
    }
}
