//! A shard: one thread, one single-threaded runtime, and the peers that it owns outright.
//!
//! What must stay true:
//! - Only this thread touches these peers; others reach them through the mailbox. So nothing here is locked, and no borrow
//!   of a cell is held across an await or a call that may come back.
//! - A turn drains the mailbox in a bounded bite, appends to outboxes, and writes each marked peer once at its end. Answers
//!   to what was read wait for the same end of turn. Under low load a turn holds one message and nothing waits.
//! - A peer that reads slowly has a bounded outbox and nothing else; over the bound it is closed.
//! - Leaving is synchronous: when a peer is closed, no room of this shard knows it any more.

#[cfg(feature = "testing")]
mod bench;
mod calls;
mod catching_up;
mod clients;
mod deliver;
mod devices;
mod drain;
mod farewell;
mod frames;
mod history;
mod joining;
mod limiting;
mod notifications;
mod options;
mod outbox;
mod peer;
mod presence;
mod publishing;
mod reading;
mod renewal;
mod rights;
mod roster;
mod states;
mod stored;
mod subscribing;
mod survey;
mod timers;
mod turn;
mod wheel;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::limits::INTEGER_MAX;
use cauce_protocol::{Code, ConnectionId, Refusal};

#[cfg(feature = "testing")]
pub use bench::{Audience, Queue};
pub use clients::ClientArrival;
pub use peer::Peer;
pub use turn::Reception;

use self::deliver::LocalRoom;
use self::farewell::Farewell;
use self::outbox::{Lane, Outbox, Pushed, Written};
use self::peer::Stage;
use self::presence::Watchers;
use self::rights::Rechecks;
use self::roster::Rosters;
use self::wheel::Wheel;
use crate::auth::Authenticator;
use crate::clock::Now;
use crate::connection::Connection;
use crate::hub::{Hub, SHARD_BITS, SharedDevice, Tenant, Tunables, Visit};
use crate::mailbox::BEHIND_BYTES;
use crate::metrics::ShardMetrics;
use crate::publication::{RoomKey, message_frame};
use crate::websocket::{Event, frame};

/// Bytes that one read takes at most. One buffer a shard, not one a connection.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Outbox buffers kept for the next turn; more are given back to the allocator.
const SPARE_BUFFERS_MAX: usize = 1_024;

/// How long a closing peer has to take the last words and close its side.
const CLOSING_MS: u64 = 2_000;

/// A shard's state. Lives on its thread.
#[derive(Debug)]
pub struct Shard {
    pub index: usize,
    pub hub: Arc<Hub>,
    auth: RefCell<Authenticator>,
    tunables: RefCell<Arc<Tunables>>,
    peers: RefCell<HashMap<ConnectionId, Rc<Peer>, foldhash::fast::RandomState>>,
    rooms: RefCell<HashMap<RoomKey, LocalRoom, foldhash::fast::RandomState>>,
    rosters: RefCell<Rosters>,
    /// Who waits for the newest messages of a durable room to come from the store. He need not have joined it yet.
    fetching: RefCell<HashMap<RoomKey, Vec<tokio::sync::oneshot::Sender<()>>, foldhash::fast::RandomState>>,
    /// The last subscription's.
    tickets: Cell<u32>,
    rechecks: RefCell<Rechecks>,
    watchers: RefCell<Watchers>,
    /// Peers with something to write at the end of the turn.
    marked: RefCell<Vec<Rc<Peer>>>,
    /// Messages out of history that this turn may still give.
    catch_up_left: Cell<usize>,
    /// Peers, marked, for whom nothing was left of that: the next turn begins with them.
    late: RefCell<Vec<Rc<Peer>>>,
    /// Peers whose outbox overflowed in this turn.
    overflowed: RefCell<Vec<Rc<Peer>>>,
    wheel: RefCell<Wheel<ConnectionId>>,
    /// Devices without a socket that have a timer.
    sleepers: RefCell<Vec<(Arc<Tenant>, SharedDevice)>>,
    scratch: RefCell<Box<[u8]>>,
    events: RefCell<Vec<Event>>,
    spare_buffers: RefCell<Vec<VecDeque<Bytes>>>,
    /// Why everybody must go.
    stopping: RefCell<Option<Refusal>>,
    /// The loop ends with the last peer.
    ending: Cell<bool>,
    drain: RefCell<Option<drain::Progress>>,
}

impl Shard {
    pub fn new(index: usize, hub: Arc<Hub>, auth: Authenticator) -> Self {
        let now = hub.clock.now();
        Self {
            index,
            tunables: RefCell::new(hub.tunables()),
            hub,
            auth: RefCell::new(auth),
            peers: RefCell::default(),
            rooms: RefCell::default(),
            rosters: RefCell::default(),
            fetching: RefCell::default(),
            tickets: Cell::default(),
            rechecks: RefCell::default(),
            watchers: RefCell::default(),
            marked: RefCell::default(),
            catch_up_left: Cell::default(),
            late: RefCell::default(),
            overflowed: RefCell::default(),
            wheel: RefCell::new(Wheel::new(now.mono_ms)),
            sleepers: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            events: RefCell::default(),
            spare_buffers: RefCell::default(),
            stopping: RefCell::default(),
            ending: Cell::default(),
            drain: RefCell::default(),
        }
    }

    pub fn metrics(&self) -> &ShardMetrics {
        &self.hub.metrics.shards[self.index]
    }

    pub fn now(&self) -> Now {
        self.hub.clock.now()
    }

    pub fn tunables(&self) -> Arc<Tunables> {
        self.tunables.borrow().clone()
    }

    /// The buffer that sockets are read into; borrowed for one read and what follows from it.
    pub fn scratch(&self) -> &RefCell<Box<[u8]>> {
        &self.scratch
    }

    /// Whether more waits for this shard than a few of its bites: peers that publish without end should wait.
    pub fn is_behind(&self) -> bool {
        self.hub.shards[self.index].used() > BEHIND_BYTES
    }

    /// Peers on this shard.
    pub fn len(&self) -> usize {
        self.peers.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A random id that names this shard. Random, so that it tells nothing about how many there are.
    fn next_id(&self) -> ConnectionId {
        loop {
            let mut bytes = [0; 8];
            // Without randomness no TLS key and no secret could be had either: then the clock must do.
            if aws_lc_rs::rand::fill(&mut bytes).is_err() {
                bytes = std::time::UNIX_EPOCH
                    .elapsed()
                    .map_or(7, |d| d.as_nanos() as u64)
                    .to_be_bytes();
            }
            let random = u64::from_be_bytes(bytes) & (INTEGER_MAX >> SHARD_BITS);
            let id = ConnectionId(random << SHARD_BITS | self.index as u64);
            if random != 0 && !self.peers.borrow().contains_key(&id) {
                return id;
            }
        }
    }

    fn peer(&self, id: ConnectionId) -> Option<Rc<Peer>> {
        self.peers.borrow().get(&id).cloned()
    }

    /// Sees to it that the outbox takes the frame, if it can.
    fn make_room(&self, peer: &Peer, outbox: &mut Outbox, frame: &Bytes, bytes_max: usize) {
        if !outbox.has_room(frame, bytes_max) {
            self.relieve(peer, outbox);
        }
    }

    /// Queues a frame if there is room for it.
    fn try_queue(&self, peer: &Rc<Peer>, frame: Bytes, bytes_max: usize) -> bool {
        let mut outbox = peer.outbox.borrow_mut();
        outbox.give_buffer(|| self.spare_buffers.borrow_mut().pop());
        self.make_room(peer, &mut outbox, &frame, bytes_max);
        if !outbox.try_push(frame, bytes_max) {
            return false;
        }
        drop(outbox);
        self.mark(peer);
        true
    }

    /// Queues a frame for a peer, to be written at the end of the turn. One that does not fit makes the peer too slow.
    fn queue(&self, peer: &Rc<Peer>, frame: Bytes, outbox_bytes_max: usize) {
        self.queue_in(Lane::Ordered, peer, frame, outbox_bytes_max);
    }

    /// The same, in the order of the lane.
    fn queue_in(&self, lane: Lane, peer: &Rc<Peer>, frame: Bytes, outbox_bytes_max: usize) {
        let mut outbox = peer.outbox.borrow_mut();
        outbox.give_buffer(|| self.spare_buffers.borrow_mut().pop());
        self.make_room(peer, &mut outbox, &frame, outbox_bytes_max);
        match outbox.push(lane, frame, outbox_bytes_max) {
            Pushed::Queued => {
                drop(outbox);
                self.mark(peer);
            }
            Pushed::Overflowed => self.overflowed.borrow_mut().push(peer.clone()),
            Pushed::Over => {}
        }
    }

    /// One turn's bite can be more than an outbox holds. Whether the reader is slow is for the kernel's buffer to say.
    fn relieve(&self, peer: &Peer, outbox: &mut Outbox) {
        if peer.blocked.get() {
            return;
        }
        let mut written = Written::default();
        // The turn's end meets the same error, and may drop the peer where this place may not.
        let _ = outbox.flush(&peer.socket, &mut written);
        self.metrics().writes.add(written.calls);
        self.metrics().bytes_out.add(written.bytes);
    }

    fn mark(&self, peer: &Rc<Peer>) {
        if !peer.marked.replace(true) {
            self.marked.borrow_mut().push(peer.clone());
        }
    }

    /// Queues a frame outside a turn, and sees to it that a turn comes.
    fn say(&self, peer: &Rc<Peer>, frame: Bytes) {
        let outbox_bytes_max = self.tunables.borrow().outbox_bytes_max;
        self.queue(peer, frame, outbox_bytes_max);
        self.hub.shards[self.index].notify();
    }

    /// Closes a peer for a reason of ours: it leaves everything now, is told why, and has a moment to hear it.
    pub fn close(&self, peer: &Rc<Peer>, refusal: &Refusal) {
        let close = frame::close(refusal.code.number(), &refusal.message);
        let goaway = match &*peer.stage.borrow() {
            Stage::Opening(_) | Stage::Client(_) => Some(message_frame(
                &cauce_protocol::server::goaway(refusal),
                peer.dialect,
            )),
            Stage::Device(_) => None,
            Stage::Closing | Stage::Gone => return,
        };
        tracing::debug!(connection = %peer.id, code = refusal.code.name(), reason = %refusal.message, "closing");
        self.metrics().closed(refusal.code);
        self.leave(peer, Some(refusal.code), &Farewell::from(refusal));
        if refusal.code == Code::Slow {
            peer.outbox.borrow_mut().drop_unsent();
        }
        self.last_words(peer, goaway.into_iter().chain([close]));
    }

    /// Closes a peer with nothing but a close frame: it closed itself, or broke the rules of WebSocket.
    pub fn close_plainly(&self, peer: &Rc<Peer>, websocket_code: u16, reason: &str) {
        if peer.is_closing() {
            return;
        }
        self.leave(peer, None, &Farewell::plain(websocket_code, reason));
        self.last_words(peer, [frame::close(websocket_code, reason)]);
    }

    fn last_words(&self, peer: &Rc<Peer>, words: impl IntoIterator<Item = Bytes>) {
        {
            let mut outbox = peer.outbox.borrow_mut();
            words.into_iter().for_each(|frame| outbox.push_last(frame));
        }
        *peer.stage.borrow_mut() = Stage::Closing;
        let until = self.now().mono_ms + self.patience_ms(peer);
        peer.time(|timing| timing.closing_ms = until);
        self.arm(peer, until);
        self.mark(peer);
        self.hub.shards[self.index].notify();
    }

    /// The socket has ended: nothing of the peer remains.
    pub fn gone(&self, peer: &Rc<Peer>) {
        self.leave(peer, None, &Farewell::unsaid());
        *peer.stage.borrow_mut() = Stage::Gone;
        if self.peers.borrow_mut().remove(&peer.id).is_some() {
            peer.socket.close_notify();
            peer.socket.shutdown(std::net::Shutdown::Both);
            *peer.outbox.borrow_mut() = Default::default();
            self.hub.displaced(self.index);
            self.metrics().connections_closed.increment();
            if self.is_stopping() {
                // The loop ends with the last peer, and looks at the end of a turn.
                self.hub.shards[self.index].notify();
            }
        }
    }

    /// Takes the peer out of rooms, rosters and its device, according to what it was. `code` says why, if it is we who close.
    fn leave(&self, peer: &Rc<Peer>, code: Option<Code>, farewell: &Farewell<'_>) {
        let stage = std::mem::replace(&mut *peer.stage.borrow_mut(), Stage::Closing);
        *peer.backlog.borrow_mut() = None;
        match stage {
            Stage::Client(client) => {
                let logbook = &client.membership.tenant.logbook;
                logbook.closed(code, || visit(&client.connection, code));
                self.log_closed(peer, &client, farewell, self.now());
                self.client_left(peer, *client);
            }
            Stage::Device(device) => self.device_left(*device, code.unwrap_or(Code::GoingAway)),
            Stage::Opening(_) | Stage::Closing | Stage::Gone => {}
        }
        // Nothing more is owed to it, and whoever writes its last words must not look for more.
        *peer.backlog.borrow_mut() = None;
    }
}

/// A connection's coming or going, for who watches the tenant.
fn visit(connection: &Connection, code: Option<Code>) -> Visit {
    Visit {
        connection: connection.id,
        user: connection.principal.user.clone(),
        client: connection.client.clone(),
        code,
    }
}
