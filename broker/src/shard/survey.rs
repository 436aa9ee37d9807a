//! Answers about the clients of this shard, in slices, so that ten thousand connections do not hold up a turn.
//!
//! A list that is walked while peers come and go is walked from its end: whoever leaves is replaced by the last, which has been
//! seen by then. So nobody who stays is passed over; one who is seen twice is the same entry.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use cauce_protocol::{ConnectionId, RoomName, UserId};

use super::Shard;
use super::peer::{Peer, Stage};
use crate::hub::{ConnectionInfo, Question, Survey, TenantKey};

/// Peers that one slice looks at: some tens of microseconds.
const PEERS_A_SLICE: usize = 512;

/// Descriptions that one slice makes.
const INFOS_A_SLICE: usize = 128;

/// Joined rooms that one slice looks at.
const ROOMS_A_SLICE: usize = 512;

impl Shard {
    pub(super) fn survey(self: &Rc<Self>, survey: Survey) {
        let (shard, Survey { tenant, question }) = (self.clone(), survey);
        tokio::task::spawn_local(async move {
            // Whoever has stopped waiting has dropped the other end.
            match question {
                Question::Connections {
                    user,
                    after,
                    limit,
                    answer,
                } => drop(answer.send(shard.connections(tenant, user.as_ref(), after, limit).await)),
                Question::Connection { id, answer } => drop(answer.send(shard.info(tenant, id))),
                Question::Rooms {
                    user,
                    after,
                    limit,
                    answer,
                } => drop(answer.send(shard.rooms_of(tenant, &user, &after, limit).await)),
            }
        });
    }

    async fn connections(
        &self,
        tenant: TenantKey,
        user: Option<&UserId>,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Vec<ConnectionInfo> {
        let mut first = BTreeSet::new();
        let mut end = usize::MAX;
        while end > 0 {
            {
                let rosters = self.rosters.borrow();
                let peers = match user {
                    Some(user) => rosters.user(tenant, user),
                    None => rosters.tenant(tenant),
                };
                end = end.min(peers.len());
                let start = end.saturating_sub(PEERS_A_SLICE);
                for peer in &peers[start..end] {
                    if after.is_none_or(|after| peer.id > after) {
                        first.insert(peer.id);
                        if first.len() > limit {
                            first.pop_last();
                        }
                    }
                }
                end = start;
            }
            tokio::task::yield_now().await;
        }
        let mut infos = Vec::with_capacity(first.len());
        for (n, id) in first.into_iter().enumerate() {
            if n % INFOS_A_SLICE == INFOS_A_SLICE - 1 {
                tokio::task::yield_now().await;
            }
            // Some may have left meanwhile.
            infos.extend(self.info(tenant, id));
        }
        infos
    }

    async fn rooms_of(
        &self,
        tenant: TenantKey,
        user: &UserId,
        after: &str,
        limit: usize,
    ) -> BTreeMap<RoomName, u32> {
        // By connection, so that one who is met twice counts once.
        let ids: BTreeSet<ConnectionId> = {
            let rosters = self.rosters.borrow();
            rosters.user(tenant, user).iter().map(|peer| peer.id).collect()
        };
        let mut first = BTreeMap::new();
        let mut looked_at = 0;
        for id in ids {
            if let Some(peer) = self.peer(id)
                && let Stage::Client(client) = &*peer.stage.borrow()
            {
                for subscription in &client.connection.subscriptions {
                    looked_at += 1;
                    count(&mut first, &subscription.room.name, after, limit);
                }
            }
            if looked_at >= ROOMS_A_SLICE {
                looked_at = 0;
                tokio::task::yield_now().await;
            }
        }
        first
    }

    /// A connection, if it is a client of this tenant.
    fn info(&self, tenant: TenantKey, id: ConnectionId) -> Option<ConnectionInfo> {
        let peer = self.peer(id)?;
        let stage = peer.stage.borrow();
        match &*stage {
            Stage::Client(client) if client.membership.tenant.key == tenant => Some(ConnectionInfo {
                id,
                user: client.connection.principal.user.clone(),
                network: network(peer.address),
                client: client.connection.client.clone(),
                since_unix_ms: client.since_unix_ms,
                rooms: client.connection.subscriptions.len() as u32,
                queued_bytes: queued(&peer),
            }),
            _ => None,
        }
    }
}

fn queued(peer: &Peer) -> u64 {
    peer.outbox.borrow().bytes() as u64
}

/// Counts a room in, if it is among the first `limit` behind `after`.
fn count(first: &mut BTreeMap<RoomName, u32>, name: &RoomName, after: &str, limit: usize) {
    if name.as_str() <= after {
        return;
    }
    if let Some(connections) = first.get_mut(name) {
        *connections += 1;
        return;
    }
    let full = first.len() >= limit;
    if full && first.last_key_value().is_none_or(|(last, _)| name > last) {
        return;
    }
    first.insert(name.clone(), 1);
    if full {
        first.pop_last();
    }
}

/// An address without what names one machine or household.
pub(super) fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_rooms_are_counted_exactly_however_they_come(
            names in prop::collection::vec("[a-d]{1,2}", 0..80), after in "[a-d]{0,2}", limit in 1usize..8,
        ) {
            let mut first = BTreeMap::new();
            for name in &names {
                count(&mut first, &RoomName::new(name).unwrap(), &after, limit);
            }
            let mut all = BTreeMap::<RoomName, u32>::new();
            for name in names.iter().filter(|name| **name > after) {
                *all.entry(RoomName::new(name).unwrap()).or_default() += 1;
            }
            let expected: BTreeMap<_, _> = all.into_iter().take(limit).collect();
            prop_assert_eq!(first, expected);
        }
    }

    #[test]
    fn an_address_is_told_without_its_machine() {
        assert_eq!(network("192.0.2.77".parse().unwrap()), "192.0.2.0/24");
        assert_eq!(network("::ffff:192.0.2.77".parse().unwrap()), "192.0.2.0/24");
        assert_eq!(network("2001:db8:1:2::3".parse().unwrap()), "2001:db8:1::/48");
    }
}
