//! From one numbered message to the outboxes of its subscribers on this shard.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::Recipient;
use cauce_protocol::{RoomName, Seq};

use super::Shard;
use super::peer::{Client, Peer, Stage};
use crate::hub::Tenant;
use crate::publication::{Direct, Publication, RoomKey};
use crate::rooms::{Joined, Listener, Room};

/// A room as this shard sees it.
#[derive(Debug)]
pub(super) struct LocalRoom {
    /// The last number that was delivered here.
    seen: Seq,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    peer: Rc<Peer>,
    /// Where it joined. What is still in the mailbox from before is not for it.
    after: Seq,
}

impl Shard {
    /// Appends the message to the outbox of every subscriber here. Shares the bytes; allocates nothing.
    pub(super) fn deliver(&self, publication: &Publication, outbox_bytes_max: usize) -> u64 {
        let mut rooms = self.rooms.borrow_mut();
        // Nobody listens any more: the message crossed the last leave.
        let Some(room) = rooms.get_mut(&publication.key) else {
            return 0;
        };
        room.seen = room.seen.max(publication.seq);
        let mut count = 0;
        for member in &room.members {
            if publication.seq <= member.after {
                continue;
            }
            let peer = &member.peer;
            if !publication.excluded.is_empty() && publication.excluded.contains(&peer.id) {
                if knows_advance(peer) {
                    self.queue(
                        peer,
                        publication.skip_bytes(peer.dialect).clone(),
                        outbox_bytes_max,
                    );
                }
                continue;
            }
            self.queue(peer, publication.bytes(peer.dialect).clone(), outbox_bytes_max);
            count += 1;
        }
        count
    }

    /// The same for a message to people or connections.
    pub(super) fn deliver_direct(&self, direct: &Direct, outbox_bytes_max: usize) -> u64 {
        let Some(tenant) = self.hub.tenants.get(direct.tenant.as_str()) else {
            return 0;
        };
        let mut count = 0;
        let mut give = |peer: &Rc<Peer>| {
            if !direct.excluded.contains(&peer.id) {
                self.queue(peer, direct.bytes(peer.dialect).clone(), outbox_bytes_max);
                count += 1;
            }
        };
        let rosters = self.rosters.borrow();
        match &direct.to {
            Recipient::User(user) => rosters.user(tenant.key, user).iter().for_each(give),
            Recipient::Tenant => rosters.tenant(tenant.key).iter().for_each(give),
            Recipient::Role(role) => {
                let peers = rosters.tenant(tenant.key).iter();
                peers.filter(|peer| has_role(peer, role.as_str())).for_each(give);
            }
            Recipient::Connection(id) => {
                // The id alone is not enough: it must be of the sender's tenant.
                if let Some(peer) = self.peer(*id).filter(|peer| is_of(peer, &tenant)) {
                    give(&peer);
                }
            }
        }
        count
    }

    /// Makes the peer a subscriber. Answers where it begins.
    pub(super) fn join(
        &self,
        peer: &Rc<Peer>,
        tenant: &Tenant,
        name: &RoomName,
        now_ms: u64,
    ) -> Result<Joined, cauce_protocol::Refusal> {
        let joined = tenant.rooms.join(name, Listener::Shard(self.index), now_ms)?;
        let mut rooms = self.rooms.borrow_mut();
        let local = rooms.entry(joined.room.key).or_insert_with(|| LocalRoom {
            seen: joined.seq,
            members: Vec::new(),
        });
        local.members.push(Member {
            peer: peer.clone(),
            after: joined.seq,
        });
        Ok(joined)
    }

    /// Ends a subscription.
    pub(super) fn part(&self, peer: &Rc<Peer>, tenant: &Tenant, room: &Arc<Room>, now_ms: u64) {
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
        let rooms = self.rooms.borrow();
        let local = rooms.get(&room)?;
        let member = local
            .members
            .iter()
            .find(|member| Rc::ptr_eq(&member.peer, peer))?;
        Some(local.seen.max(member.after))
    }
}

pub(super) fn client<T>(peer: &Peer, ask: impl FnOnce(&Client) -> T) -> Option<T> {
    match &*peer.stage.borrow() {
        Stage::Client(client) => Some(ask(client)),
        _ => None,
    }
}

fn knows_advance(peer: &Peer) -> bool {
    client(peer, |client| client.connection.knows_advance()).unwrap_or(false)
}

fn has_role(peer: &Peer, role: &str) -> bool {
    client(peer, |client| client.connection.principal.has_role(role)).unwrap_or(false)
}

fn is_of(peer: &Peer, tenant: &Arc<Tenant>) -> bool {
    client(peer, |client| Arc::ptr_eq(&client.membership.tenant, tenant)).unwrap_or(false)
}
