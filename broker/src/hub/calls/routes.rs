//! Which servers a method's calls go to, and which calls wait for one of them.
//!
//! Servers of the same pattern are a pool. A method's pool is that of its exact name, else that of the longest prefix which
//! somebody serves. A pool lives as long as it has servers.

use std::collections::{BTreeMap, HashMap};

use cauce_protocol::message::MethodPattern;

use super::call::{CallId, ServerId};
use super::state::Server;

/// Stands for a pool within its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PoolId(u64);

/// All pools of a tenant.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pools: HashMap<PoolId, Pool, foldhash::fast::RandomState>,
    exact: HashMap<Box<str>, PoolId, foldhash::fast::RandomState>,
    prefixes: HashMap<Box<str>, PoolId, foldhash::fast::RandomState>,
    /// How many of the prefixes have each length, so that only lengths in use are tried.
    prefix_lengths: BTreeMap<usize, usize>,
    next: u64,
}

#[derive(Debug)]
struct Pool {
    pattern: MethodPattern,
    /// Never empty.
    servers: Vec<ServerId>,
    /// Where the next choice begins.
    turn: usize,
    /// By the order in which they came.
    waiting: BTreeMap<u64, CallId>,
}

impl Routes {
    pub(super) fn len(&self) -> usize {
        self.pools.len()
    }

    /// The pool that a method's calls go to.
    pub(super) fn find(&self, method: &str) -> Option<PoolId> {
        if let Some(&exact) = self.exact.get(method) {
            return Some(exact);
        }
        // Methods are ASCII, so every length is a boundary; `get` would merely find nothing otherwise.
        let mut lengths = self.prefix_lengths.range(..=method.len()).rev();
        lengths.find_map(|(&length, _)| self.prefixes.get(method.get(..length)?).copied())
    }

    /// The pool of exactly this pattern.
    pub(super) fn pool(&self, pattern: &MethodPattern) -> Option<PoolId> {
        match pattern {
            MethodPattern::Exactly(name) => self.exact.get(name).copied(),
            MethodPattern::Prefix(prefix) => self.prefixes.get(prefix).copied(),
        }
    }

    pub(super) fn pattern(&self, pool: PoolId) -> Option<&MethodPattern> {
        self.pools.get(&pool).map(|pool| &pool.pattern)
    }

    /// Adds a server that is not in the pool yet.
    pub(super) fn join(&mut self, pattern: &MethodPattern, server: ServerId) -> PoolId {
        let id = self.pool(pattern).unwrap_or_else(|| {
            self.next += 1;
            let id = PoolId(self.next);
            match pattern {
                MethodPattern::Exactly(name) => {
                    self.exact.insert(name.clone(), id);
                }
                MethodPattern::Prefix(prefix) => {
                    self.prefixes.insert(prefix.clone(), id);
                    *self.prefix_lengths.entry(prefix.len()).or_insert(0) += 1;
                }
            }
            id
        });
        let pool = self.pools.entry(id).or_insert_with(|| Pool {
            pattern: pattern.clone(),
            servers: Vec::new(),
            turn: 0,
            waiting: BTreeMap::new(),
        });
        pool.servers.push(server);
        id
    }

    /// Takes a server out. If it was the last one, the pool is gone, and the calls that waited there are given back.
    pub(super) fn leave(&mut self, id: PoolId, server: ServerId) -> Vec<CallId> {
        let Some(pool) = self.pools.get_mut(&id) else {
            return Vec::new();
        };
        pool.servers.retain(|&other| other != server);
        if !pool.servers.is_empty() {
            return Vec::new();
        }
        let Some(pool) = self.pools.remove(&id) else {
            return Vec::new();
        };
        match &pool.pattern {
            MethodPattern::Exactly(name) => {
                self.exact.remove(name);
            }
            MethodPattern::Prefix(prefix) => {
                self.prefixes.remove(prefix);
                if let Some(count) = self.prefix_lengths.get_mut(&prefix.len()) {
                    *count -= 1;
                    if *count == 0 {
                        self.prefix_lengths.remove(&prefix.len());
                    }
                }
            }
        }
        pool.waiting.into_values().collect()
    }

    /// The server that works on the least part of what it can work on; in turn among equals. `None` if all are full.
    pub(super) fn choose(
        &mut self,
        id: PoolId,
        servers: &HashMap<ServerId, Server, foldhash::fast::RandomState>,
    ) -> Option<ServerId> {
        let pool = self.pools.get_mut(&id)?;
        let count = pool.servers.len();
        let mut best: Option<(usize, u64, u64)> = None;
        for step in 0..count {
            let at = (pool.turn + step) % count;
            let Some(server) = servers.get(&pool.servers[at]).filter(|s| s.has_room()) else {
                continue;
            };
            let (works, can) = (server.working.len() as u64, u64::from(server.concurrency));
            // works / can < best_works / best_can, without dividing.
            if best.is_none_or(|(_, best_works, best_can)| works * best_can < best_works * can) {
                best = Some((at, works, can));
            }
            if works == 0 {
                break;
            }
        }
        let (at, ..) = best?;
        pool.turn = (at + 1) % count;
        Some(pool.servers[at])
    }

    /// How many calls wait in a pool.
    pub(super) fn waiting(&self, id: PoolId) -> usize {
        self.pools.get(&id).map_or(0, |pool| pool.waiting.len())
    }

    pub(super) fn wait(&mut self, id: PoolId, order: u64, call: CallId) {
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.waiting.insert(order, call);
        }
    }

    pub(super) fn stop_waiting(&mut self, id: PoolId, order: u64) {
        if let Some(pool) = self.pools.get_mut(&id) {
            pool.waiting.remove(&order);
        }
    }

    /// The call that has waited longest in any of these pools.
    pub(super) fn oldest(&self, pools: &[PoolId]) -> Option<CallId> {
        let heads = pools.iter().filter_map(|id| {
            let (&order, &call) = self.pools.get(id)?.waiting.first_key_value()?;
            Some((order, call))
        });
        heads.min().map(|(_, call)| call)
    }

    /// How many calls wait, none of them for a server that has room.
    #[cfg(test)]
    pub(super) fn check_waiting(
        &self,
        servers: &HashMap<ServerId, Server, foldhash::fast::RandomState>,
    ) -> usize {
        let busy = self.pools.values().filter(|pool| !pool.waiting.is_empty());
        busy.map(|pool| {
            assert!(pool.servers.iter().all(|server| !servers[server].has_room()));
            pool.waiting.len()
        })
        .sum()
    }

    /// Whether all maps agree and no pool is empty.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.pools.len(), self.exact.len() + self.prefixes.len());
        assert_eq!(self.prefix_lengths.values().sum::<usize>(), self.prefixes.len());
        for (id, pool) in &self.pools {
            assert_eq!(self.pool(&pool.pattern), Some(*id));
            assert!(!pool.servers.is_empty());
        }
    }
}
