//! From one numbered message to the outboxes of its subscribers on this shard.
//!
//! What must stay true:
//! - A subscriber is live, or behind with a number up to which it has everything. Live messages pass by one that is behind: it
//!   takes them from the room's history when its peer can take more ([`super::catching_up`]), so nothing comes twice or is
//!   skipped at the change.
//! - The walk over subscribers shares bytes and allocates nothing for those without options.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::Recipient;
use cauce_protocol::wire::Feature;
use cauce_protocol::{ConnectionId, RoomName, Seq};

use super::Shard;
use super::options::{Options, Verdict};
use super::peer::{Client, Peer, Stage};
use crate::hub::Tenant;
use crate::publication::{Direct, Publication, RoomKey, Shared};
use crate::rooms::{Joined, Listener, Room, Start};

/// Of a peer's outbox, so much is for pushes of rooms, in quarters; the rest stays free for answers and messages to people.
const PUSH_QUARTERS: usize = 3;

/// A room as this shard sees it.
#[derive(Debug)]
pub(super) struct LocalRoom {
    pub(super) room: Arc<Room>,
    /// The last number that was delivered here.
    seen: Seq,
    pub(super) members: Vec<Member>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) peer: Rc<Peer>,
    /// It has everything up to here that it is going to get; while it is live, this is where it joined or caught up.
    pub(super) after: Seq,
    pub(super) feed: Feed,
    /// Tells this subscription from an earlier or later one of the same peer to the same room: what waits for the store belongs
    /// to one of them.
    pub(super) ticket: Ticket,
    /// `None` for those who want everything, reliably: nearly all.
    pub(super) options: Option<Box<Options>>,
}

/// One subscription of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticket(u32);

/// Where a subscriber's messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feed {
    /// From publishers.
    Live,
    /// From the room's history, as its peer takes them.
    Behind,
    /// From the store, which has been asked.
    Held,
}

impl LocalRoom {
    pub(super) fn member(&mut self, peer: &Rc<Peer>) -> Option<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| Rc::ptr_eq(&member.peer, peer))
    }
}

impl Shard {
    /// Appends the message to the outbox of every subscriber here. Shares the bytes; allocates nothing.
    pub(super) fn deliver(self: &Rc<Self>, publication: &Shared, outbox_bytes_max: usize) -> Walk {
        let mut rooms = self.rooms.borrow_mut();
        // Nobody listens any more: the message crossed the last leave.
        let Some(room) = rooms.get_mut(&publication.key) else {
            return Walk::default();
        };
        room.seen = room.seen.max(publication.seq);
        let mut walk = Walk {
            met: room.members.len() as u64,
            given: 0,
        };
        for member in &mut room.members {
            if publication.seq <= member.after || member.feed != Feed::Live {
                continue;
            }
            let given = match &mut member.options {
                None => self.give(&member.peer, publication, outbox_bytes_max),
                Some(options) => match options.judge(publication, &member.peer) {
                    Verdict::Give => self.give(&member.peer, publication, outbox_bytes_max),
                    Verdict::Skip => Given::Passed,
                    Verdict::Tell => self.pass(&member.peer, publication, outbox_bytes_max),
                    Verdict::Keep => {
                        self.keep(member, publication, outbox_bytes_max);
                        continue;
                    }
                },
            };
            match given {
                Given::Queued => walk.given += 1,
                Given::Passed => {}
                Given::NoRoom => {
                    member.feed = Feed::Behind;
                    member.after = Seq(publication.seq.0 - 1);
                    self.metrics().fell_behind.increment();
                    self.fall_behind(&member.peer, publication.key);
                }
            }
        }
        walk
    }

    /// Queues the message for one subscriber, or the word that it was not for it.
    pub(super) fn give(&self, peer: &Rc<Peer>, publication: &Publication, outbox_bytes_max: usize) -> Given {
        if is_excluded(peer, &publication.excluded) {
            return self.pass(peer, publication, outbox_bytes_max);
        }
        match self.offer(peer, || publication.bytes(peer.dialect).clone(), outbox_bytes_max) {
            true => Given::Queued,
            false => Given::NoRoom,
        }
    }

    /// Tells a subscriber that the room went on without it.
    pub(super) fn pass(&self, peer: &Rc<Peer>, publication: &Publication, outbox_bytes_max: usize) -> Given {
        let skip = || publication.skip_bytes(peer.dialect).clone();
        if !knows(peer, Feature::Advance) || self.offer(peer, skip, outbox_bytes_max) {
            Given::Passed
        } else {
            Given::NoRoom
        }
    }

    /// Queues a frame of a room if the peer's outbox has room for it.
    pub(super) fn offer(
        &self,
        peer: &Rc<Peer>,
        frame: impl FnOnce() -> bytes::Bytes,
        outbox_bytes_max: usize,
    ) -> bool {
        self.try_queue(peer, frame(), outbox_bytes_max / 4 * PUSH_QUARTERS)
    }

    /// The same for a message to people or connections.
    pub(super) fn deliver_direct(&self, direct: &Direct, outbox_bytes_max: usize) -> Walk {
        let Some(tenant) = self.hub.tenants.get(direct.tenant.as_str()) else {
            return Walk::default();
        };
        let mut walk = Walk::default();
        let mut give = |peer: &Rc<Peer>| {
            if !is_excluded(peer, &direct.excluded) {
                self.queue(peer, direct.bytes(peer.dialect).clone(), outbox_bytes_max);
                walk.given += 1;
            }
        };
        let rosters = self.rosters.borrow();
        match &direct.to {
            Recipient::User(user) => {
                let peers = rosters.user(tenant.key, user);
                peers.iter().for_each(give);
                walk.met = peers.len() as u64;
            }
            Recipient::Tenant => {
                let peers = rosters.tenant(tenant.key);
                peers.iter().for_each(give);
                walk.met = peers.len() as u64;
            }
            Recipient::Role(role) => {
                let peers = rosters.tenant(tenant.key);
                let of_role = peers.iter().filter(|peer| has_role(peer, role.as_str()));
                of_role.for_each(give);
                walk.met = peers.len() as u64;
            }
            Recipient::Connection(id) => {
                // The id alone is not enough: it must be of the sender's tenant.
                if let Some(peer) = self.peer(*id).filter(|peer| is_of(peer, &tenant)) {
                    give(&peer);
                    walk.met = 1;
                }
            }
        }
        walk
    }

    /// Makes the peer a subscriber. Answers where it begins.
    pub(super) fn join(
        &self,
        peer: &Rc<Peer>,
        tenant: &Tenant,
        name: &RoomName,
        start: Start,
        options: Chosen,
        now_ms: u64,
    ) -> Result<Joined, cauce_protocol::Refusal> {
        let joined = tenant
            .rooms
            .join(name, Listener::Shard(self.index), start, now_ms)?;
        let options = match options {
            Chosen::Class => Options::new(joined.room.class().policy, None),
            Chosen::Client(options) => options,
        };
        let mut rooms = self.rooms.borrow_mut();
        let local = rooms.entry(joined.room.key).or_insert_with(|| LocalRoom {
            room: joined.room.clone(),
            seen: joined.seq,
            members: Vec::new(),
        });
        let ticket = Ticket(self.tickets.get().wrapping_add(1));
        self.tickets.set(ticket.0);
        local.members.push(Member {
            ticket,
            peer: peer.clone(),
            after: joined.entered.from,
            feed: match joined.entered.from < joined.seq {
                true => Feed::Behind,
                false => Feed::Live,
            },
            options,
        });
        Ok(joined)
    }

    /// Ends a subscription.
    pub(super) fn part(&self, peer: &Rc<Peer>, tenant: &Tenant, room: &Arc<Room>, now_ms: u64) {
        forget(peer, room);
        let mut rooms = self.rooms.borrow_mut();
        let Some(local) = rooms.get_mut(&room.key) else {
            return;
        };
        let Some(at) = local
            .members
            .iter()
            .position(|member| Rc::ptr_eq(&member.peer, peer))
        else {
            return;
        };
        local.members.swap_remove(at);
        let last = local.members.is_empty();
        if last {
            rooms.remove(&room.key);
        }
        tenant.rooms.leave_shard(room, self.index, last, now_ms);
    }

    /// Where a subscriber's pushes stand: it gets the next number and everything after. It may have joined behind what this
    /// shard has delivered, when messages from before still wait in the mailbox.
    pub(super) fn position(&self, peer: &Rc<Peer>, room: RoomKey) -> Option<Seq> {
        let mut rooms = self.rooms.borrow_mut();
        let local = rooms.get_mut(&room)?;
        let seen = local.seen;
        let member = local.member(peer)?;
        let waiting = member.options.as_ref().and_then(|o| o.waiting.begins());
        Some(match (member.feed, waiting) {
            // Delivered here, and not to this one yet.
            (Feed::Live, Some(begins)) => Seq(begins - 1),
            (Feed::Live, None) => seen.max(member.after),
            (Feed::Behind | Feed::Held, _) => member.after,
        })
    }
}

/// What waits for a subscriber of this room goes with the subscription: the right to it may have gone, too.
pub(super) fn forget(peer: &Peer, room: &Room) {
    if let Some(backlog) = peer.backlog.borrow_mut().as_mut() {
        backlog.states.retain(|states| states.room != room.id);
        backlog.rooms.retain(|&key| key != room.key);
    }
}

/// Who chose a subscriber's options.
pub(super) enum Chosen {
    Class,
    Client(Option<Box<Options>>),
}

/// What one message came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// Those who were looked at, whether it was for them or not: this is the work.
    pub(super) met: u64,
    /// Those whose outbox it is in.
    pub(super) given: u64,
}

/// What became of a message for one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    Queued,
    /// It was not for this one.
    Passed,
    /// The outbox is full.
    NoRoom,
}

pub(super) fn client<T>(peer: &Peer, ask: impl FnOnce(&Client) -> T) -> Option<T> {
    match &*peer.stage.borrow() {
        Stage::Client(client) => Some(ask(client)),
        _ => None,
    }
}

pub(super) fn knows(peer: &Peer, feature: Feature) -> bool {
    client(peer, |client| client.connection.knows(feature)).unwrap_or(false)
}

/// Whether this connection, or an earlier one of the same client, is on the list.
pub(super) fn is_excluded(peer: &Peer, excluded: &[ConnectionId]) -> bool {
    if excluded.is_empty() {
        return false;
    }
    excluded.contains(&peer.id)
        || client(peer, |client| {
            let previous = client.connection.previous();
            previous.iter().any(|id| excluded.contains(id))
        })
        .unwrap_or(false)
}

fn has_role(peer: &Peer, role: &str) -> bool {
    client(peer, |client| client.connection.principal.has_role(role)).unwrap_or(false)
}

fn is_of(peer: &Peer, tenant: &Arc<Tenant>) -> bool {
    client(peer, |client| Arc::ptr_eq(&client.membership.tenant, tenant)).unwrap_or(false)
}
