//! Rights that change while a connection lives: by a new token, or by an administrator.
//!
//! What must stay true:
//! - What a connection may do next is judged by its principal alone, and no request is judged by one that is behind its
//!   tenant. Only what goes on without being asked for again, its subscriptions and the methods that it serves, has to be
//!   looked through.
//! - A tenant of any size is looked through in bounded bites, a turn each.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::MethodPattern;
use cauce_protocol::wire::Feature;
use cauce_protocol::{Code, ConnectionId, Refusal, RoomName};

use super::Shard;
use super::peer::{Peer, Stage};
use crate::auth::{Action, Principal};
use crate::clock::Now;
use crate::connection::method_room;
use crate::hub::{Tenant, TenantKey};

/// Connections that one turn looks through: each takes some microseconds, and more with many rooms and patterns.
const RECHECKS_A_TURN: usize = 64;

/// Connections still to be looked through. A tenant that changes again meanwhile begins anew, so that there are never more
/// of them than connections.
#[derive(Debug, Default)]
pub(super) struct Rechecks(Vec<(TenantKey, Vec<ConnectionId>)>);

impl Rechecks {
    fn begin(&mut self, tenant: TenantKey, connections: Vec<ConnectionId>) {
        self.0.retain(|(key, _)| *key != tenant);
        self.0.push((tenant, connections));
    }

    /// The next few.
    fn take(&mut self, max: usize) -> Vec<ConnectionId> {
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some((_, connections)) = self.0.first_mut()
        {
            let from = connections.len().saturating_sub(max - taken.len());
            taken.extend(connections.drain(from..));
            if connections.is_empty() {
                self.0.remove(0);
            }
        }
        taken
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Shard {
    /// A tenant's settings have changed: its connections here are given their rights anew from the next turn on.
    pub(super) fn recheck_later(&self, tenant: &Tenant) {
        let rosters = self.rosters.borrow();
        let connections: Vec<_> = rosters.tenant(tenant.key).iter().map(|peer| peer.id).collect();
        if !connections.is_empty() {
            self.rechecks.borrow_mut().begin(tenant.key, connections);
            self.hub.shards[self.index].notify();
        }
    }

    /// Looks through a few connections; to be called once a turn.
    pub(super) fn recheck_some(&self) {
        let (some, more) = {
            let mut rechecks = self.rechecks.borrow_mut();
            if rechecks.is_empty() {
                return;
            }
            (rechecks.take(RECHECKS_A_TURN), !rechecks.is_empty())
        };
        let now = self.now();
        for peer in some.into_iter().filter_map(|id| self.peer(id)) {
            self.update_rights(&peer, now);
        }
        if more {
            self.hub.shards[self.index].notify();
        }
    }

    /// Makes a connection's rights anew if its tenant's have changed; otherwise this is one comparison. To be called before a
    /// request is judged.
    pub(super) fn update_rights(&self, peer: &Rc<Peer>, now: Now) {
        let (tenant, principal) = match &*peer.stage.borrow() {
            Stage::Client(client) => {
                let (tenant, principal) = (&client.membership.tenant, &client.connection.principal);
                if principal.grant.version() == tenant.rights_version() {
                    return;
                }
                (tenant.clone(), principal.clone())
            }
            _ => return,
        };
        let defaults = tenant.settings().defaults.clone();
        let renewed = Principal {
            grant: principal.grant.over(&defaults, &principal.roles),
            ..(*principal).clone()
        };
        self.take_principal(peer, &tenant, Arc::new(renewed), now);
    }

    /// Gives a connection its rights, and ends what it has subscribed to or serves and may no longer. Leaving is synchronous: once this
    /// returns, nothing more of those rooms is queued for it.
    pub(super) fn take_principal(
        &self,
        peer: &Rc<Peer>,
        tenant: &Arc<Tenant>,
        principal: Arc<Principal>,
        now: Now,
    ) {
        let (lost, told, calling) = match &mut *peer.stage.borrow_mut() {
            Stage::Client(client) => {
                let connection = &mut client.connection;
                let may = |right, room: &RoomName| principal.grant.allows(right, room.as_str());
                let rooms = connection.subscriptions.iter().map(|s| &s.room);
                let lost = rooms.filter(|room| {
                    !may(Action::Subscribe, &room.name)
                        || (self.is_watching(peer, room.key) && !may(Action::Presence, &room.name))
                });
                let lost: Vec<_> = lost.map(|room| (room.name.clone(), room.id)).collect();
                let before = std::mem::replace(&mut connection.principal, principal.clone());
                if before.info != connection.principal.info {
                    self.speak_anew(connection, now);
                }
                (lost, connection.knows(Feature::Gap), client.calling.is_some())
            }
            _ => return,
        };
        if calling {
            let may =
                |method: &MethodPattern| principal.grant.allows(Action::Subscribe, &method_room(method));
            self.hub.unserve(tenant, peer.id, may);
        }
        if lost.is_empty() {
            return;
        }
        let refusal = Refusal::new(
            Code::Forbidden,
            "the right to subscribe to this room, or to watch who is in it, was taken away",
        );
        if !told {
            // It does not know that a subscription can end, and would wait for ever.
            return self.close(peer, &refusal);
        }
        let (names, rooms): (Vec<_>, Vec<_>) = lost.into_iter().unzip();
        self.unsubscribe(peer, tenant, &names, now);
        for room in rooms {
            self.tell_ended(peer, room, &refusal);
        }
    }
}

/// The tenant and principal of a client.
pub(super) fn who(peer: &Peer) -> Option<(Arc<Tenant>, Arc<Principal>)> {
    match &*peer.stage.borrow() {
        Stage::Client(client) => Some((
            client.membership.tenant.clone(),
            client.connection.principal.clone(),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(range: std::ops::Range<u64>) -> Vec<ConnectionId> {
        range.map(ConnectionId).collect()
    }

    proptest! {
        #[test]
        fn every_connection_is_looked_through_after_the_last_change_of_its_tenant_and_few_at_once(
            begun in prop::collection::vec((0u32..3, 1u64..20), 1..6), bite in 1usize..9,
        ) {
            let mut rechecks = Rechecks::default();
            let mut expected = std::collections::BTreeMap::new();
            for (number, &(tenant, count)) in begun.iter().enumerate() {
                let from = number as u64 * 100;
                rechecks.begin(TenantKey(tenant), ids(from..from + count));
                expected.insert(tenant, ids(from..from + count));
            }
            let mut seen = Vec::new();
            while !rechecks.is_empty() {
                let some = rechecks.take(bite);
                prop_assert!((1..=bite).contains(&some.len()));
                seen.extend(some);
            }
            seen.sort_unstable();
            let mut expected: Vec<_> = expected.into_values().flatten().collect();
            expected.sort_unstable();
            prop_assert_eq!(seen, expected);
        }
    }
}
