//! Questions to shards about their clients, asked by administration and answered a slice at a time.
//!
//! A shard answers with the first of what it has, in order and with the bound of the page. The first of all shards together
//! are among these, so the asker merges and cuts.

use std::collections::BTreeMap;

use cauce_protocol::{ConnectionId, RoomName, UserId};
use tokio::sync::oneshot;

use super::delivery::ShardMessage;
use super::tenants::{Tenant, TenantKey};
use super::{Hub, SHARD_BITS};

/// What a shard is asked about clients of one tenant.
#[derive(Debug)]
pub struct Survey {
    pub tenant: TenantKey,
    pub question: Question,
}

/// What is to be known, and where the answer goes.
#[derive(Debug)]
pub enum Question {
    /// Connections in the order of their ids.
    Connections {
        /// Of this user only.
        user: Option<UserId>,
        /// Behind this one.
        after: Option<ConnectionId>,
        limit: usize,
        answer: oneshot::Sender<Vec<ConnectionInfo>>,
    },
    /// One connection.
    Connection {
        id: ConnectionId,
        answer: oneshot::Sender<Option<ConnectionInfo>>,
    },
    /// Rooms that a user's connections have joined, by name, with how many of them.
    Rooms {
        user: UserId,
        /// Behind this name.
        after: String,
        limit: usize,
        answer: oneshot::Sender<BTreeMap<RoomName, u32>>,
    },
}

/// An open connection of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    pub id: ConnectionId,
    pub user: UserId,
    /// The network that it came from, without the part that names the machine: `192.0.2.0/24`, `2001:db8:1::/48`.
    pub network: String,
    /// What the client calls itself, if it said so.
    pub client: Option<Box<str>>,
    /// Since when it is authenticated, in milliseconds since 1970.
    pub since_unix_ms: u64,
    pub rooms: u32,
    /// What waits to be written to it, in bytes.
    pub queued_bytes: u64,
}

impl Hub {
    /// The first `limit` connections of a tenant, or of one of its users, behind `after`. Cancel-safe.
    pub async fn connections_of(
        &self,
        tenant: &Tenant,
        user: Option<&UserId>,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Vec<ConnectionInfo> {
        let answers = self.survey(tenant, |answer| Question::Connections {
            user: user.cloned(),
            after,
            limit,
            answer,
        });
        let mut found = Vec::new();
        for answer in answers {
            // A shard that has ended has no connections.
            found.extend(answer.await.unwrap_or_default());
        }
        found.sort_unstable_by_key(|info| info.id);
        found.truncate(limit);
        found
    }

    /// A connection, if it is a client of this tenant. Cancel-safe.
    pub async fn connection_of(&self, tenant: &Tenant, id: ConnectionId) -> Option<ConnectionInfo> {
        let shard = (id.0 & ((1 << SHARD_BITS) - 1)) as usize;
        if shard >= self.plan.clients || !self.is_alive(shard) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        self.shards[shard].send(ShardMessage::Survey(Box::new(Survey {
            tenant: tenant.key,
            question: Question::Connection { id, answer },
        })));
        answered.await.ok().flatten()
    }

    /// The first `limit` rooms behind `after` that the user's connections have joined, with how many of them. Cancel-safe.
    pub async fn rooms_of(
        &self,
        tenant: &Tenant,
        user: &UserId,
        after: &str,
        limit: usize,
    ) -> BTreeMap<RoomName, u32> {
        let answers = self.survey(tenant, |answer| Question::Rooms {
            user: user.clone(),
            after: after.to_owned(),
            limit,
            answer,
        });
        let mut found = BTreeMap::new();
        for answer in answers {
            for (room, connections) in answer.await.unwrap_or_default() {
                *found.entry(room).or_insert(0) += connections;
            }
        }
        while found.len() > limit {
            found.pop_last();
        }
        found
    }

    /// Asks every client shard.
    fn survey<T>(
        &self,
        tenant: &Tenant,
        question: impl Fn(oneshot::Sender<T>) -> Question,
    ) -> Vec<oneshot::Receiver<T>> {
        let alive = (0..self.plan.clients).filter(|&shard| self.is_alive(shard));
        alive
            .map(|shard| {
                let (answer, answered) = oneshot::channel();
                self.shards[shard].send(ShardMessage::Survey(Box::new(Survey {
                    tenant: tenant.key,
                    question: question(answer),
                })));
                answered
            })
            .collect()
    }
}
