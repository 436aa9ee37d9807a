//! What threads say to a shard.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::{ConnectionId, DeviceId, Refusal, TenantId, UserId};

use super::calls::{CallId, Invoke};
use super::devices::SharedDevice;
use super::doors::Permit;
use super::notifications::Notice;
use super::survey::Survey;
use super::tenants::Tenant;
use crate::mailbox::{Mailbox, TaskWaker};
use crate::publication::{Direct, RoomKey, Shared};
use crate::rooms::{PresenceNews, Room};
use crate::socket::Parts;

/// A shard's mailbox. Publications, direct messages, notices and changes of presence reserve their cost; the rest is bounded by
/// connections, calls and rooms.
pub type ShardMailbox = Mailbox<ShardMessage, TaskWaker>;

/// One piece of work for a shard.
#[derive(Debug)]
pub enum ShardMessage {
    /// A numbered message of a room that has subscribers here.
    Publication(Shared),
    /// A message to people or connections, some of whom may be here.
    Direct(Arc<Direct>),
    /// News of notifications for users, some of whom may be here.
    Notice(Arc<Notice>),
    /// An answer that a client here waits for.
    Answer(Box<Answer>),
    /// The outcome of a request that others had to be asked for.
    Outcome(Box<Outcome>),
    /// A word for a client here that serves methods.
    Serving(Box<Serving>),
    /// A change of who is in a room that has watchers here. Reserves its cost.
    Presence(Arc<PresenceNews>),
    /// Presence of this room was switched on: its subscribers here enter.
    Enroll(Arc<Room>),
    /// Frames for a device whose socket is here.
    DeviceFrames(DeviceFrames),
    /// A device without a socket has a timer: a sleeper that may oversleep.
    Watch(Arc<Tenant>, SharedDevice),
    /// A socket to serve.
    Arrival(Box<Arrival>),
    /// The newest messages of this durable room have come from the store.
    Fetched(RoomKey),
    /// The room is no more: its subscriptions end for this reason.
    RoomClosed(RoomKey, Refusal),
    /// Connections to close.
    Close(Arc<Closing>),
    /// A question of administration.
    Survey(Box<Survey>),
    /// Send everybody away, each at a moment of its own.
    Drain(Arc<Drain>),
    /// A tenant's rights have changed: connections keep what they still may.
    Recheck(Arc<Tenant>),
    /// Close everything, then end the thread.
    Stop(Refusal),
}

impl From<Shared> for ShardMessage {
    fn from(publication: Shared) -> Self {
        Self::Publication(publication)
    }
}

impl From<Arc<PresenceNews>> for ShardMessage {
    fn from(news: Arc<PresenceNews>) -> Self {
        Self::Presence(news)
    }
}

/// The answer to a call.
#[derive(Debug)]
pub struct Answer {
    pub connection: ConnectionId,
    pub request: u32,
    pub result: Result<Bytes, Refusal>,
}

/// What became of a request that could not be answered at once.
#[derive(Debug)]
pub struct Outcome {
    pub connection: ConnectionId,
    pub request: u32,
    pub result: Result<cauce_protocol::wire::reply::Outcome, Refusal>,
}

/// A word for a connection that serves methods.
#[derive(Debug)]
pub struct Serving {
    pub connection: ConnectionId,
    pub word: ServingWord,
}

/// What is said to a server.
#[derive(Debug)]
pub enum ServingWord {
    Invoke(Invoke),
    Revoke(CallId),
}

/// Text frames for the socket of a device.
#[derive(Debug)]
pub struct DeviceFrames {
    pub peer: ConnectionId,
    pub frames: Vec<Bytes>,
}

/// A socket on its way to the shard that will own it.
#[derive(Debug)]
pub struct Arrival {
    pub parts: Parts,
    pub address: IpAddr,
    pub permit: Permit,
    pub purpose: Purpose,
}

/// What is known of an arriving socket.
#[derive(Debug)]
pub enum Purpose {
    /// Nothing has been read.
    Fresh,
    /// It asked for the device door with a good token.
    Device {
        credential: DeviceCredential,
        /// The answer to its handshake, still to be written.
        greeting: Bytes,
        /// What it sent behind the handshake.
        leftover: Bytes,
    },
}

/// What a device token stands for.
#[derive(Clone, Debug)]
pub struct DeviceCredential {
    pub tenant: Arc<Tenant>,
    /// The token serves this device only.
    pub device: Option<DeviceId>,
    /// The token's public part, for revocation and logs.
    pub id: Arc<str>,
}

/// Which connections to close, and what to tell them.
#[derive(Debug)]
pub struct Closing {
    pub selection: Selection,
    pub refusal: Refusal,
}

/// How a shard sends its peers away. Times are milliseconds of the node's monotonic clock.
#[derive(Debug)]
pub struct Drain {
    /// What they are told.
    pub refusal: Refusal,
    /// From the first peer's moment to the last's, if there are many.
    pub spread_ms: u64,
    /// Between two peers at most: a few are not kept waiting for the sake of a spread.
    pub interval_max_ms: u64,
    /// Until then a peer is not closed before its requests have been answered.
    pub answers_until_ms: u64,
    /// How long a closing peer may take nothing of what is meant for it.
    pub patience_ms: u64,
    /// Whoever is left then is cut off.
    pub gone_by_ms: u64,
    /// Told once, when no peer is left.
    pub done: std::sync::mpsc::Sender<Drained>,
}

/// A shard that has sent its peers away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    pub shard: usize,
    /// Peers that were cut off before they had taken everything.
    pub cut: u64,
}

/// A choice of connections. All but `Connection` look at every peer of a shard: they are an administrator's, and rare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    Connection(ConnectionId),
    Tenant(TenantId),
    User(TenantId, UserId),
    /// Device sockets opened with this device token.
    DeviceToken(Arc<str>),
    /// Connections whose token has this id.
    TokenId(TenantId, Box<str>),
}
