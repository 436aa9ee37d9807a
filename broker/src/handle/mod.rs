//! The broker from inside the process: publish, listen, send and call without a socket.

mod calls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cauce_protocol::message::{
    Ack, History, Notify, Recipient, Text, check_event, check_method, check_params,
};
use cauce_protocol::{Code, ConnectionId, Epoch, Payload, Refusal, RoomName, Seq, UserId};
use tokio::sync::oneshot;

use crate::hub::{Caller, ConnectionInfo, HistoryPage, Hub, LogLines, OutgoingCall, Selection, Tenant};
use crate::publication::{Draft, Shared};
use crate::rooms::{Accepted, Listener, Manner, PageQuery, PresencePage, Repeat, Room, Start, Tap};

use crate::store::{Done, Left, Sender};
pub use calls::{Invocation, MethodServer};

/// Bytes that may wait for one in-process subscriber: as much as for a socket by default.
pub const TAP_BYTES_MAX: usize = 1024 * 1024;

/// A running broker. Cheap to clone, usable from any thread and any runtime.
#[derive(Clone, Debug)]
pub struct Handle {
    hub: Arc<Hub>,
}

impl Handle {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// A tenant by its id. The embedding program is trusted: it has every right within the tenant.
    ///
    /// # Errors
    /// `not_found` if there is no such tenant.
    pub fn tenant(&self, id: &str) -> Result<TenantHandle, Refusal> {
        match self.hub.tenants.get(id) {
            Some(tenant) => Ok(TenantHandle {
                hub: self.hub.clone(),
                tenant,
            }),
            None => Err(Refusal::new(Code::NotFound, format!("there is no tenant {id:?}"))),
        }
    }

    /// The node's counters.
    pub fn metrics(&self) -> &crate::metrics::Metrics {
        &self.hub.metrics
    }

    /// Where the program's logging leaves lines for whoever watches the node in the room `$operator`. Nothing is kept while
    /// nobody does: ask [`LogLines::is_watched`] before putting a line together.
    pub fn log_lines(&self) -> Arc<LogLines> {
        self.hub.log_lines.clone()
    }

    /// Users in rooms that keep presence; one who is in two rooms counts twice.
    pub fn present(&self) -> usize {
        self.hub.presence.present()
    }

    /// Open connections of all kinds.
    pub fn connections(&self) -> usize {
        self.hub.door.total()
    }
}

/// One tenant of a running broker.
#[derive(Clone, Debug)]
pub struct TenantHandle {
    hub: Arc<Hub>,
    tenant: Arc<Tenant>,
}

impl TenantHandle {
    /// Publishes to a room. Returns when the message has its number and has been handed to every shard that listens; never
    /// waits.
    ///
    /// # Errors
    /// `invalid`, `malformed` or `too_large` for what breaks a limit, `overloaded` if queues are full or half of one is this tenant's, `quota_exceeded` for a room too many.
    pub fn publish(&self, room: &str, event: &str, payload: Payload) -> Result<Accepted, Refusal> {
        self.publish_once(room, event, payload, None)
    }

    /// The same; a repeat with the same key is answered like the first and not sent again.
    ///
    /// # Errors
    /// As [`TenantHandle::publish`].
    pub fn publish_once(
        &self,
        room: &str,
        event: &str,
        payload: Payload,
        idempotency_key: Option<&str>,
    ) -> Result<Accepted, Refusal> {
        let draft = self.draft(event, payload)?;
        let repeat = idempotency_key.map(|key| self.repeat(key));
        let manner = Manner {
            repeat,
            ..Manner::default()
        };
        self.hub.publish(&self.tenant, room, draft, manner)
    }

    /// Publishes to a durable room and returns when the message is committed and synced to the disk.
    ///
    /// The message is published by the first poll; dropping the future later does not take it back.
    ///
    /// # Errors
    /// As [`TenantHandle::publish`]; `conflict` if the room is not durable, `unavailable` if the store cannot commit in time.
    pub async fn publish_durably(
        &self,
        room: &str,
        event: &str,
        payload: Payload,
        idempotency_key: Option<&str>,
    ) -> Result<Accepted, Refusal> {
        let draft = self.draft(event, payload)?;
        let repeat = idempotency_key.map(|key| self.repeat(key));
        let begun = self
            .hub
            .begin_publish(&self.tenant, room, draft, repeat, Ack::Durable)?;
        begun.written().await
    }

    /// Waits until the shards have taken what this tenant has published, but for some hundred messages; most often that is so
    /// already. A program that publishes whatever its users say awaits this before each message: then one tenant's flood neither
    /// delays the messages of others nor meets its bound in the queues. Cancel-safe.
    ///
    /// # Errors
    /// `rate_limited` if they have not after a second, or too many wait already.
    pub async fn ready(&self) -> Result<(), Refusal> {
        self.hub.pace(&self.tenant, Hub::paced_until()).await.map(drop)
    }

    /// A page of what the room has kept. Cancel-safe.
    ///
    /// # Errors
    /// `unavailable` if the store must be asked and cannot answer.
    pub async fn history(&self, asked: &History) -> Result<HistoryPage, Refusal> {
        self.hub.history(&self.tenant, asked).await
    }

    /// Sends to people or connections of the tenant. Whoever is connected gets it.
    ///
    /// # Errors
    /// As [`TenantHandle::publish`].
    pub fn send(&self, to: Recipient, event: &str, payload: Payload) -> Result<(), Refusal> {
        let draft = self.draft(event, payload)?;
        self.hub.send(&self.tenant, to, draft)
    }

    /// Leaves a notification for a user, a role or everyone in the tenant. Returns when it is committed, synced and handed to
    /// the shards of those who are connected. Safe to cancel; it is then left all the same, if it was taken.
    ///
    /// # Errors
    /// `invalid`, `malformed` or `too_large` for what breaks a limit, `unsupported` without a database, `overloaded` if too many
    /// wait, `unavailable` if the database does not take it.
    pub async fn notify(&self, notify: Notify) -> Result<Left, Refusal> {
        notify.check(self.hub.tunables().payload_bytes_max)?;
        let (done, left) = Done::awaited();
        self.hub.notify(&self.tenant, Sender::Program, notify, done);
        left.await
    }

    /// Listens to a room: every message from now on, in order.
    ///
    /// # Errors
    /// `invalid` for a bad name, `quota_exceeded` for a room too many.
    pub fn subscribe(&self, room: &str) -> Result<Subscription, Refusal> {
        let name = RoomName::new(room).map_err(|e| Refusal::new(Code::Invalid, format!("room {e}")))?;
        let tap = Arc::new(Tap::new(TAP_BYTES_MAX));
        let now_ms = self.hub.clock.now().mono_ms;
        let joined = self
            .tenant
            .rooms
            .join(&name, Listener::Tap(&tap), Start::Now, now_ms)?;
        Ok(Subscription {
            hub: self.hub.clone(),
            tenant: self.tenant.clone(),
            room: joined.room,
            after: joined.seq,
            tap,
        })
    }

    /// The first `limit` connected users by name behind `after` (empty for the beginning), with their connections.
    pub fn users(&self, after: &str, limit: usize) -> Vec<(UserId, u32)> {
        self.tenant.users("", after, limit)
    }

    /// How many connections a user has.
    pub fn connections_of(&self, user: &str) -> u32 {
        self.tenant.connections_of(user)
    }

    /// The first `limit` connections by id behind `after`, of all users or of one. Cancel-safe.
    pub async fn clients(
        &self,
        user: Option<&UserId>,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Vec<ConnectionInfo> {
        self.hub.connections_of(&self.tenant, user, after, limit).await
    }

    /// Ends all connections that a user has now, with this to tell them; they are gone a moment later. No audit row is
    /// written: [`crate::admin::Admin::disconnect_user`] does that.
    pub fn disconnect_user(&self, user: &UserId, refusal: Refusal) {
        let selection = Selection::User(self.tenant.id.clone(), user.clone());
        self.hub.close(selection, refusal);
    }

    /// Who is in a room, a page at a time.
    ///
    /// # Errors
    /// `conflict` if the room's class keeps no presence.
    pub fn presence(&self, room: &str, query: PageQuery<'_>) -> Result<PresencePage, Refusal> {
        self.hub.presence(&self.tenant, room, query)
    }

    /// Calls a device and waits for its answer: the `result` of its reply, as JSON. Safe to cancel; the device may act all the
    /// same.
    ///
    /// # Errors
    /// `not_found`, `device_offline`, `timeout`, `device_error` with the device's words, `invalid`, `too_large`.
    pub async fn call_device(&self, device: &str, call: OutgoingCall) -> Result<Bytes, Refusal> {
        check_method(&call.method)?;
        check_params(&call.params, self.hub.tunables().payload_bytes_max)?;
        let (answer, answered) = oneshot::channel();
        self.hub.call(&self.tenant, device, &call, Caller::Waiter(answer));
        answered
            .await
            .unwrap_or_else(|_| Err(Refusal::new(Code::GoingAway, "the broker is stopping")))
    }

    fn repeat<'a>(&self, key: &'a str) -> Repeat<'a> {
        Repeat {
            // No user is called so: user ids have no control characters.
            publisher: "\u{0}handle",
            key,
            now_ms: self.hub.clock.now().mono_ms,
            window_ms: self.hub.tunables().dedup_window_ms,
            keys_max: self.hub.tunables().dedup_keys_max,
        }
    }

    fn draft(&self, event: &str, payload: Payload) -> Result<Draft, Refusal> {
        check_event(event)?;
        let tunables = self.hub.tunables();
        payload.check(tunables.payload_bytes_max, tunables.payload_depth_max)?;
        Ok(Draft::new(Text::from(event), payload))
    }
}

/// A room's messages, in order and without gaps. Dropping it leaves the room.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    tenant: Arc<Tenant>,
    room: Arc<Room>,
    after: Seq,
    tap: Arc<Tap>,
}

impl Subscription {
    /// Where it began: the first message is `seq + 1` of this epoch.
    pub fn position(&self) -> (Epoch, Seq) {
        (self.room.epoch, self.after)
    }

    /// The next message; `None` when more waited than [`TAP_BYTES_MAX`] and the subscription was cut off. Cancel-safe.
    pub async fn next(&mut self) -> Option<Shared> {
        self.tap.next().await
    }

    /// The next message, if it is there already.
    pub fn try_next(&mut self) -> Option<Shared> {
        self.tap.try_next()
    }

    /// The same as [`Subscription::next`] for a thread that has nothing else to do, and needs no runtime: it looks again and again for up to
    /// `spin`, and then sleeps until a message wakes it. Messages come in the same order, and `None` says the same.
    ///
    /// Looking hands a message over in less than a microsecond, but takes a whole core while it lasts. Waking a thread takes the machine
    /// some 5 to 50 µs, and the core is free meanwhile. So a `spin` somewhat longer than the usual distance of two messages buys that time
    /// for a core; with [`Duration::ZERO`] the thread sleeps at once if no message is there, and with [`Duration::MAX`] it never does.
    /// Without a core of its own to spend, a thread that spins only keeps the publisher from running.
    ///
    /// Blocks the thread, for ever if nothing comes. Not for async code, where it would stop every task of its thread: await
    /// [`Subscription::next`] there. The two may be called in turns.
    pub fn blocking_next(&mut self, spin: Duration) -> Option<Shared> {
        let mut spinning = Spinning::new(spin);
        self.tap.blocking_next(|| spinning.goes_on())
    }
}

/// Looks between two readings of the clock, which costs about as much as a look: a spin ends a microsecond late at most.
const LOOKS_A_READING: u32 = 16;

/// How long a thread looks before it sleeps.
struct Spinning {
    spin: Duration,
    /// Of the first look; there is none where that found something.
    began: Option<Instant>,
    looks: u32,
}

impl Spinning {
    fn new(spin: Duration) -> Self {
        Self {
            spin,
            began: None,
            looks: 0,
        }
    }

    fn goes_on(&mut self) -> bool {
        if self.spin.is_zero() {
            return false;
        }
        std::hint::spin_loop();
        let began = *self.began.get_or_insert_with(Instant::now);
        self.looks = self.looks.wrapping_add(1);
        !self.looks.is_multiple_of(LOOKS_A_READING) || began.elapsed() < self.spin
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.tenant
            .rooms
            .leave_tap(&self.room, &self.tap, self.hub.clock.now().mono_ms);
    }
}
