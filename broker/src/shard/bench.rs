//! A shard without its loop, for benches: what a delivery costs up to the write, and what an outbox costs by itself.
//!
//! What must stay true:
//! - Everything measured is the code that serves; this module only replaces the loop around it, and writes nothing to a socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::RoomName;
use cauce_protocol::server::Dialect;

use super::Shard;
use super::deliver::Chosen;
use super::outbox::{Lane, Outbox, Pushed};
use super::peer::Stage;
use crate::auth::Authenticator;
use crate::connection::Opening;
use crate::hub::{Hub, ShardMessage, Tenant};
use crate::rooms::Start;
use crate::socket::{Parts, Socket};

/// Address of the first subscriber. Each has one of its own, so that no bound on addresses is met.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// Subscribers of one room on one shard.
#[derive(Debug)]
pub struct Audience {
    shard: Rc<Shard>,
}

impl Audience {
    /// So many subscribers on the node's first shard. Their sockets are copies of one that nobody reads.
    ///
    /// # Errors
    /// If the system gives no more sockets, the node or the tenant lets no more in, or this is not called in a runtime.
    pub fn new(
        hub: &Arc<Hub>,
        tenant: &Tenant,
        room: &RoomName,
        subscribers: u32,
        dialect: Dialect,
    ) -> io::Result<Self> {
        let auth = Authenticator::new(hub.keys.clone(), hub.tunables().policy, 1);
        let shard = Rc::new(Shard::new(0, hub.clone(), auth));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let tcp = TcpStream::connect(listener.local_addr()?)?;
        let now = shard.now();
        for n in 0..subscribers {
            let parts = Parts {
                tcp: tcp.try_clone()?,
                tls: None,
            };
            let address = IpAddr::from(Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + n));
            let permit = hub.door.admit(address, now.mono_ms).map_err(io::Error::other)?;
            let opening = Opening {
                deadline_ms: u64::MAX,
            };
            let socket = Socket::adopt(parts)?;
            let peer = shard.register(socket, address, permit, dialect, Stage::Opening(opening), now);
            shard
                .join(&peer, tenant, room, Start::Now, Chosen::Class, now.mono_ms)
                .map_err(io::Error::other)?;
        }
        Ok(Self { shard })
    }

    /// Takes what publishers left in the mailbox and queues it for every subscriber, as a turn does. Answers how many times.
    pub fn deliver(&self) -> u64 {
        let mailbox = &self.shard.hub.shards[self.shard.index];
        mailbox.begin_turn();
        let outbox_bytes_max = self.shard.tunables().outbox_bytes_max;
        let mut count = 0;
        while let Some(message) = mailbox.pop() {
            if let ShardMessage::Publication(publication) = message {
                count += self.shard.deliver(&publication, outbox_bytes_max).given;
                mailbox.release(publication.cost());
                if let Some(share) = &publication.share {
                    share.release(self.shard.index, publication.cost());
                }
            }
        }
        count
    }

    /// Forgets what is queued, as if the kernel had taken all of it. Answers how many peers had something.
    pub fn discard(&self) -> usize {
        let mut marked = std::mem::take(&mut *self.shard.marked.borrow_mut());
        let peers = marked.len();
        for peer in marked.drain(..) {
            peer.marked.set(false);
            let mut outbox = peer.outbox.borrow_mut();
            outbox.drop_unsent();
            self.shard.spare_buffers.borrow_mut().extend(outbox.take_buffer());
        }
        *self.shard.marked.borrow_mut() = marked;
        peers
    }
}

/// What waits for one peer.
#[derive(Debug, Default)]
pub struct Queue(Outbox);

impl Queue {
    /// Appends a frame if there is room. After the first that is refused, all are.
    pub fn push(&mut self, frame: Bytes, bytes_max: usize) -> bool {
        self.0.push(Lane::Ordered, frame, bytes_max) == Pushed::Queued
    }

    /// The same, before all that waits.
    pub fn push_urgent(&mut self, frame: Bytes, bytes_max: usize) -> bool {
        self.0.push(Lane::Urgent, frame, bytes_max) == Pushed::Queued
    }

    /// The kernel took so many bytes.
    pub fn written(&mut self, bytes: usize) {
        self.0.advance(bytes);
    }
}
