//! What is published, and its bytes: written once for each dialect that has a listener, then shared.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use cauce_protocol::message::Text;
use cauce_protocol::server::{self, Dialect};
use cauce_protocol::{ConnectionId, Epoch, Payload, RoomId, Seq, TenantId, UserId};
use smallvec::SmallVec;

use crate::mailbox::Share;
use crate::websocket::frame::{Opcode, frame, header_len, put_header};

/// Stands for a room within the process, whatever its tenant: shards find their subscribers by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomKey(pub u64);

/// Connections that a message is not for. Nearly always none or the sender.
pub type Excluded = SmallVec<[ConnectionId; 1]>;

/// Which door a message came through: its latency is counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// A client's socket.
    Client,
    /// A device's socket.
    Device,
    /// The API, the embedding program, or the broker itself.
    #[default]
    Api,
}

impl Source {
    pub const ALL: [Self; 3] = [Self::Client, Self::Device, Self::Api];

    /// As in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Device => "device",
            Self::Api => "api",
        }
    }
}

/// One numbered message of a room.
#[derive(Debug)]
pub struct Publication {
    pub key: RoomKey,
    pub room: RoomId,
    pub seq: Seq,
    pub epoch: Epoch,
    pub event: Text,
    pub payload: Payload,
    pub excluded: Excluded,
    /// What it is about within its event; empty means nothing in particular.
    pub topic: Text,
    /// Who published it, if it was a user.
    pub user: Option<UserId>,
    /// When the broker took it: for the latency that we report, and in milliseconds since 1970.
    pub accepted: Instant,
    pub unix_ms: u64,
    pub source: Source,
    /// Of whose part of the mailboxes it takes: whoever takes it from one gives that back.
    pub share: Option<Arc<Share>>,
    encoded: Encoded,
    skipped: Encoded,
}

impl Publication {
    /// A message that the room has not numbered yet: `seq` is set by [`crate::rooms::Room::publish`] before anyone sees it.
    pub(crate) fn draft(draft: Draft, key: RoomKey, room: RoomId, epoch: Epoch) -> Self {
        Self {
            key,
            room,
            seq: Seq(0),
            epoch,
            event: draft.event,
            payload: draft.payload,
            excluded: draft.excluded,
            topic: draft.topic,
            user: draft.user,
            accepted: draft.accepted,
            unix_ms: draft.unix_ms,
            source: draft.source,
            share: None,
            encoded: Encoded::default(),
            skipped: Encoded::default(),
        }
    }

    /// What it costs a mailbox and an outbox, in bytes: the payload and about what its frame and bookkeeping take.
    pub fn cost(&self) -> usize {
        cost(&self.event, &self.payload) + self.topic.as_bytes().len()
    }

    /// The whole WebSocket frame for subscribers of this dialect.
    pub fn bytes(&self, dialect: Dialect) -> &Bytes {
        self.encoded.get(dialect, |dialect| {
            let push = server::Push {
                room: self.room,
                seq: self.seq,
                event: self.event.as_str(),
                payload: &self.payload,
                key: self.topic.as_str(),
            };
            match dialect {
                Dialect::Proto => binary_frame(push.len(), |out| push.put(out)),
                Dialect::Json => frame(Opcode::Text, push.to_json().as_bytes()),
            }
        })
    }

    /// The frame for those it is not for: the room went on.
    pub fn skip_bytes(&self, dialect: Dialect) -> &Bytes {
        self.skipped.get(dialect, |dialect| {
            message_frame(&server::advance(self.room, self.seq), dialect)
        })
    }
}

/// A checked message on its way to a room.
#[derive(Clone, Debug)]
pub struct Draft {
    pub event: Text,
    pub payload: Payload,
    pub excluded: Excluded,
    /// See [`Publication::topic`].
    pub topic: Text,
    pub user: Option<UserId>,
    pub accepted: Instant,
    /// Set by the hub.
    pub unix_ms: u64,
    pub source: Source,
}

impl Draft {
    /// For everyone in the room.
    pub fn new(event: Text, payload: Payload) -> Self {
        Self {
            event,
            payload,
            excluded: Excluded::new(),
            topic: Text::default(),
            user: None,
            accepted: Instant::now(),
            unix_ms: 0,
            source: Source::default(),
        }
    }

    /// See [`Publication::cost`].
    pub fn cost(&self) -> usize {
        cost(&self.event, &self.payload) + self.topic.as_bytes().len()
    }
}

/// Bookkeeping of a queued message, in bytes: the shared record, its place in the queue and its frame's header.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

fn cost(event: &Text, payload: &Payload) -> usize {
    MESSAGE_OVERHEAD_BYTES + event.as_bytes().len() + payload.len()
}

/// A message to people or connections rather than to a room.
#[derive(Debug)]
pub struct Direct {
    pub tenant: TenantId,
    pub to: cauce_protocol::message::Recipient,
    pub event: Text,
    pub payload: Payload,
    pub excluded: Excluded,
    pub accepted: Instant,
    pub source: Source,
    /// See [`Publication::share`].
    pub share: Arc<Share>,
    encoded: Encoded,
}

impl Direct {
    pub fn new(
        tenant: TenantId,
        to: cauce_protocol::message::Recipient,
        draft: Draft,
        share: Arc<Share>,
    ) -> Self {
        Self {
            tenant,
            to,
            event: draft.event,
            payload: draft.payload,
            excluded: draft.excluded,
            accepted: draft.accepted,
            source: draft.source,
            share,
            encoded: Encoded::default(),
        }
    }

    /// See [`Publication::cost`].
    pub fn cost(&self) -> usize {
        cost(&self.event, &self.payload)
    }

    /// The whole WebSocket frame for receivers of this dialect.
    pub fn bytes(&self, dialect: Dialect) -> &Bytes {
        self.encoded.get(dialect, |dialect| {
            let direct = server::Direct {
                event: self.event.as_str(),
                payload: &self.payload,
            };
            match dialect {
                Dialect::Proto => binary_frame(direct.len(), |out| direct.put(out)),
                Dialect::Json => frame(Opcode::Text, direct.to_json().as_bytes()),
            }
        })
    }
}

/// The bytes of one message, written by the first who needs that dialect.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    proto: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
}

impl Encoded {
    pub(crate) fn get(&self, dialect: Dialect, write: impl FnOnce(Dialect) -> Bytes) -> &Bytes {
        let cell = match dialect {
            Dialect::Proto => &self.proto,
            Dialect::Json => &self.json,
        };
        cell.get_or_init(|| write(dialect))
    }
}

fn binary_frame(len: usize, put: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(header_len(len) + len);
    put_header(&mut out, Opcode::Binary, len);
    put(&mut out);
    out.freeze()
}

/// Any other message of the broker as a WebSocket frame, for one peer.
pub fn message_frame(message: &cauce_protocol::wire::ServerFrame, dialect: Dialect) -> Bytes {
    let opcode = match dialect {
        Dialect::Proto => Opcode::Binary,
        Dialect::Json => Opcode::Text,
    };
    frame(opcode, &server::encode(message, dialect))
}

/// A numbered message as subscribers share it.
pub type Shared = Arc<Publication>;
