//! Which peers of a shard belong to a user or a tenant, for messages that go to people rather than to rooms.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use cauce_protocol::UserId;
use smallvec::SmallVec;

use super::peer::Peer;
use crate::hub::TenantKey;

/// Peers by some name. A name with one peer, as most users are, has no list on the heap.
#[derive(Debug)]
struct Roster<K>(HashMap<K, SmallVec<[Rc<Peer>; 1]>, foldhash::fast::RandomState>);

impl<K> Default for Roster<K> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Eq + Hash> Roster<K> {
    fn enter(&mut self, key: K, peer: &Rc<Peer>) {
        self.0.entry(key).or_default().push(peer.clone());
    }

    fn leave(&mut self, key: &K, peer: &Rc<Peer>) {
        let Some(peers) = self.0.get_mut(key) else { return };
        if let Some(at) = peers.iter().position(|other| Rc::ptr_eq(other, peer)) {
            peers.swap_remove(at);
        }
        if peers.is_empty() {
            self.0.remove(key);
        }
    }

    fn peers(&self, key: &K) -> &[Rc<Peer>] {
        self.0.get(key).map_or(&[], SmallVec::as_slice)
    }
}

/// The authenticated clients of a shard.
#[derive(Debug, Default)]
pub(super) struct Rosters {
    users: Roster<(TenantKey, UserId)>,
    tenants: Roster<TenantKey>,
}

impl Rosters {
    pub(super) fn enter(&mut self, tenant: TenantKey, user: &UserId, peer: &Rc<Peer>) {
        self.users.enter((tenant, user.clone()), peer);
        self.tenants.enter(tenant, peer);
    }

    pub(super) fn leave(&mut self, tenant: TenantKey, user: &UserId, peer: &Rc<Peer>) {
        self.users.leave(&(tenant, user.clone()), peer);
        self.tenants.leave(&tenant, peer);
    }

    pub(super) fn user(&self, tenant: TenantKey, user: &UserId) -> &[Rc<Peer>] {
        self.users.peers(&(tenant, user.clone()))
    }

    pub(super) fn tenant(&self, tenant: TenantKey) -> &[Rc<Peer>] {
        self.tenants.peers(&tenant)
    }
}
