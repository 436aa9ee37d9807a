//! One socket that a shard owns, and what stands behind it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;

use cauce_protocol::ConnectionId;
use cauce_protocol::server::Dialect;

use super::calls::Calling;
use super::joining::Waiting;
use super::outbox::Outbox;
use super::states::States;
use crate::connection::{Connection, Opening};
use crate::hub::{DeviceCredential, Membership, Permit, SharedDevice};
use crate::publication::RoomKey;
use crate::rate::Gcra;
use crate::shelly::Session;
use crate::socket::Socket;
use crate::websocket::Reader;

/// A WebSocket peer. Only its shard's thread touches it, so cells are enough.
///
/// In this order in memory: what a delivery touches is together and in front, in two or three cache lines of the five. A shard has
/// thousands of peers, and finds each of them gone from its caches.
#[derive(Debug)]
#[repr(C)]
pub struct Peer {
    /// In the shard's list of peers to write to.
    pub(super) marked: Cell<bool>,
    /// The kernel took no more; a task waits until it does.
    pub(super) blocked: Cell<bool>,
    pub dialect: Dialect,
    /// It is about to be sent away: what it still asks is not heard.
    pub(super) leaving: Cell<bool>,
    /// Its last read filled a whole bite.
    has_more: Cell<bool>,
    pub(super) outbox: RefCell<Outbox>,
    pub socket: Socket,
    /// What it is behind with; none for one that keeps up.
    pub(super) backlog: RefCell<Option<Box<Backlog>>>,
    pub(super) stage: RefCell<Stage>,
    pub(super) reader: RefCell<Reader>,
    pub id: ConnectionId,
    /// Pings and pongs.
    pub(super) control: Cell<Gcra>,
    pub(super) timing: Cell<Timing>,
    /// Requests that wait for their answers.
    pub(super) unanswered: Cell<u32>,
    pub address: IpAddr,
    _permit: Permit,
}

/// What a peer is. It moves down this list and never back.
#[derive(Debug)]
pub(super) enum Stage {
    /// A client whose token has not been seen.
    Opening(Opening),
    Client(Box<Client>),
    Device(Box<DevicePeer>),
    /// The last words are being written; nothing that comes in counts.
    Closing,
    Gone,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) connection: Connection,
    pub(super) membership: Membership,
    /// When it was authenticated, in milliseconds since 1970.
    pub(super) since_unix_ms: u64,
    /// Set by its first call or serve.
    pub(super) calling: Option<Box<Calling>>,
    /// Changes of its subscriptions that wait behind one which asks the store; `None` if none does.
    pub(super) joining: Option<Box<Waiting>>,
}

#[derive(Debug)]
pub(super) struct DevicePeer {
    pub(super) credential: DeviceCredential,
    pub(super) session: Session,
    pub(super) frames: Gcra,
    /// Known from its first frame.
    pub(super) device: Option<SharedDevice>,
}

/// What a peer is to be given when its outbox has been written.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Rooms in which it is behind.
    pub(super) rooms: VecDeque<RoomKey>,
    /// States that newcomers are told.
    pub(super) states: VecDeque<States>,
}

/// When things happened and are due. Monotonic milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Anything was read.
    pub(super) heard_ms: u64,
    /// A ping waits for its pong since then; 0 if none does.
    pub(super) pinged_ms: u64,
    /// A message was begun then and is not whole; 0 if none is.
    pub(super) begun_ms: u64,
    /// The kernel has taken nothing since then; 0 if it takes all.
    pub(super) blocked_ms: u64,
    /// The last words must be out by then; 0 unless closing.
    pub(super) closing_ms: u64,
    /// The earliest timer armed for this peer.
    pub(super) armed_ms: u64,
}

impl Peer {
    pub(super) fn new(
        id: ConnectionId,
        address: IpAddr,
        dialect: Dialect,
        socket: Socket,
        stage: Stage,
        permit: Permit,
        now_ms: u64,
    ) -> Self {
        Self {
            id,
            address,
            dialect,
            socket,
            reader: RefCell::default(),
            outbox: RefCell::default(),
            stage: RefCell::new(stage),
            marked: Cell::new(false),
            blocked: Cell::new(false),
            backlog: RefCell::default(),
            control: Cell::default(),
            timing: Cell::new(Timing {
                heard_ms: now_ms,
                pinged_ms: 0,
                begun_ms: 0,
                blocked_ms: 0,
                closing_ms: 0,
                armed_ms: u64::MAX,
            }),
            unanswered: Cell::new(0),
            leaving: Cell::new(false),
            has_more: Cell::new(false),
            _permit: permit,
        }
    }

    pub(super) fn time(&self, change: impl FnOnce(&mut Timing)) {
        let mut timing = self.timing.get();
        change(&mut timing);
        self.timing.set(timing);
    }

    /// A request under this id was read, which is answered unless the id is 0.
    pub(super) fn asked(&self, id: u32) {
        self.unanswered
            .set(self.unanswered.get().saturating_add(u32::from(id != 0)));
    }

    /// The answer to the request of this id was queued.
    pub(super) fn answered(&self, id: u32) {
        self.unanswered
            .set(self.unanswered.get().saturating_sub(u32::from(id != 0)));
    }

    pub(super) fn is_device(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Device(_))
    }

    /// Whether its last read filled a whole bite, so that it probably has more to say.
    pub fn has_more(&self) -> bool {
        self.has_more.get()
    }

    pub fn set_has_more(&self, has_more: bool) {
        self.has_more.set(has_more);
    }

    /// Whether the peer is on its way out.
    pub fn is_closing(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Closing | Stage::Gone)
    }
}
