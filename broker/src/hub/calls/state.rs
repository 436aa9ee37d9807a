//! Calls of one tenant, from the caller's word to the answer. Pure: time is an argument, and what follows is a list of
//! [`Effect`]s to carry out in order.
//!
//! What must stay true:
//! - A call is answered exactly once, unless its caller has gone; then it is never answered.
//! - A call is given to a server at most once, unless the caller allows more with `retry`.
//! - No server has more calls than it wants at once, and no call waits while a server of its pool has room.
//! - Only the server that a call was given to may answer it, and only until it was told that nobody waits.
//! - A call that is over leaves nothing behind.

mod steps;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::message::MethodPattern;
use cauce_protocol::{Code, ConnectionId, Refusal, UserId};
use smallvec::SmallVec;

use super::bounds::{CONCURRENCY_DEFAULT, CONCURRENCY_MAX, PATTERNS_A_SERVER_MAX, PATTERNS_MAX, SERVERS_MAX};
use super::call::{CallId, Effect, Effects, NewCall, ServerId};
use super::routes::{PoolId, Routes};
use crate::hub::Caller;
use crate::metrics::CallEnd;

/// Somebody who serves, or still works on calls from when it did.
#[derive(Debug)]
pub(super) struct Server {
    /// At least 1.
    pub(super) concurrency: u32,
    pub(super) working: BTreeSet<CallId>,
    pools: Vec<PoolId>,
}

impl Server {
    pub(super) fn has_room(&self) -> bool {
        self.working.len() < self.concurrency as usize
    }

    fn is_idle(&self) -> bool {
        self.pools.is_empty() && self.working.is_empty()
    }
}

/// A call that has no answer yet.
#[derive(Debug)]
struct Open {
    caller: Caller,
    user: Option<UserId>,
    method: Arc<str>,
    /// Kept while they may be needed: until the call is given to a server, or to its end if another may be asked.
    params: Bytes,
    params_bytes: usize,
    deadline_ms: u64,
    retry: bool,
    /// Servers that it was given to.
    attempts: u32,
    /// Rises with each call: who came first waits in front, also on a second attempt.
    order: u64,
    place: Place,
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Between two servers; only within a step.
    Nowhere,
    Waiting(PoolId),
    Given(ServerId),
}

/// The state of one tenant.
#[derive(Debug, Default)]
pub(super) struct Calls {
    servers: HashMap<ServerId, Server, foldhash::fast::RandomState>,
    routes: Routes,
    open: HashMap<CallId, Open, foldhash::fast::RandomState>,
    /// The open calls of each connection under their request ids.
    callers: HashMap<ConnectionId, BTreeSet<(u32, CallId)>, foldhash::fast::RandomState>,
    deadlines: BTreeSet<(u64, CallId)>,
    params_bytes: usize,
    orders: u64,
}

impl Calls {
    /// Lets a server serve patterns from now on, beside those it serves already. `concurrency` holds for all of them; 0
    /// means the default. All or nothing.
    ///
    /// # Errors
    /// `invalid` for a concurrency beyond the bound, `quota_exceeded` for too many patterns or servers.
    pub(super) fn serve(
        &mut self,
        now_ms: u64,
        server: ServerId,
        patterns: &[MethodPattern],
        concurrency: u32,
    ) -> Result<Effects, Refusal> {
        if concurrency > CONCURRENCY_MAX {
            let message = format!("concurrency is at most {CONCURRENCY_MAX}");
            return Err(Refusal::new(Code::Invalid, message));
        }
        let known = self.servers.get(&server);
        if known.is_none() && self.servers.len() >= SERVERS_MAX {
            return Err(quota(format!("the tenant has {SERVERS_MAX} servers of methods")));
        }
        let served = known.map_or(&[][..], |server| &server.pools);
        let is_served = |pattern| {
            let pool = self.routes.pool(pattern);
            pool.is_some_and(|pool| served.contains(&pool))
        };
        let new: BTreeSet<&MethodPattern> = patterns.iter().filter(|p| !is_served(p)).collect();
        if served.len() + new.len() > PATTERNS_A_SERVER_MAX {
            return Err(quota(format!(
                "a connection may serve {PATTERNS_A_SERVER_MAX} methods"
            )));
        }
        let unheard = new.iter().filter(|p| self.routes.pool(p).is_none()).count();
        if self.routes.len() + unheard > PATTERNS_MAX {
            return Err(quota(format!("the tenant serves {PATTERNS_MAX} methods")));
        }
        let pools: Vec<PoolId> = new
            .into_iter()
            .map(|pattern| self.routes.join(pattern, server))
            .collect();
        let entry = self.servers.entry(server).or_insert_with(|| Server {
            concurrency: CONCURRENCY_DEFAULT,
            working: BTreeSet::new(),
            pools: Vec::new(),
        });
        entry.pools.extend(pools);
        entry.concurrency = match concurrency {
            0 => CONCURRENCY_DEFAULT,
            concurrency => concurrency,
        };
        let mut effects = Effects::new();
        self.fill(now_ms, server, &mut effects);
        Ok(effects)
    }

    /// Ends what a server serves, but for the patterns that `keep` names. What it was given it may still answer.
    pub(super) fn unserve(
        &mut self,
        now_ms: u64,
        server: ServerId,
        keep: impl Fn(&MethodPattern) -> bool,
    ) -> Effects {
        let mut effects = Effects::new();
        let Some(entry) = self.servers.get_mut(&server) else {
            return effects;
        };
        let (kept, ended) = entry
            .pools
            .iter()
            .partition(|&&pool| self.routes.pattern(pool).is_some_and(&keep));
        entry.pools = kept;
        self.forget_if_idle(server);
        self.part(now_ms, server, ended, &mut effects);
        effects
    }

    /// Opens a call. `draw` is random. The answer may be among the effects already.
    pub(super) fn call(&mut self, now_ms: u64, draw: u64, new: NewCall) -> (CallId, Effects) {
        let mut effects = Effects::new();
        let id = self.free_id(draw);
        if let Err(refusal) = self.admit(&new) {
            effects.push(Effect::Answer {
                caller: new.caller,
                end: CallEnd::Refused,
                result: Err(refusal),
            });
            return (id, effects);
        }
        let NewCall {
            caller,
            user,
            method,
            params,
            timeout_ms,
            retry,
        } = new;
        if let Caller::Connection { connection, request } = caller {
            self.callers.entry(connection).or_default().insert((request, id));
        }
        // At least one, so that a call is never over before it began.
        let deadline_ms = now_ms.saturating_add(timeout_ms.max(1));
        self.deadlines.insert((deadline_ms, id));
        self.params_bytes += params.len();
        self.orders += 1;
        let open = Open {
            caller,
            user,
            method,
            params_bytes: params.len(),
            params,
            deadline_ms,
            retry,
            attempts: 0,
            order: self.orders,
            place: Place::Nowhere,
        };
        self.open.insert(id, open);
        self.place(now_ms, id, &mut effects);
        (id, effects)
    }

    /// The answer of a server.
    ///
    /// # Errors
    /// `not_found` unless the call was given to this server and waits for its answer. An answer that comes too late and one
    /// to somebody else's call look the same.
    pub(super) fn respond(
        &mut self,
        now_ms: u64,
        server: ServerId,
        call: CallId,
        result: Result<Bytes, String>,
    ) -> Result<Effects, Refusal> {
        self.given(server, call)?;
        let (end, result) = match result {
            Ok(json) => (CallEnd::Answered, Ok(json)),
            Err(words) if words.is_empty() => {
                let refusal = Refusal::new(
                    Code::MethodError,
                    "the method failed; its server does not say why",
                );
                (CallEnd::Failed, Err(refusal))
            }
            Err(words) => (CallEnd::Failed, Err(Refusal::new(Code::MethodError, words))),
        };
        let mut effects = Effects::new();
        self.end(call, end, result, &mut effects);
        self.fill(now_ms, server, &mut effects);
        Ok(effects)
    }

    /// A server lost one call: it will not be answered, though the server lives on.
    pub(super) fn lose(&mut self, now_ms: u64, server: ServerId, call: CallId) -> Effects {
        let mut effects = Effects::new();
        if self.given(server, call).is_ok() {
            self.take_back(call);
            self.lost(now_ms, call, &mut effects);
            self.fill(now_ms, server, &mut effects);
        }
        effects
    }

    /// A connection takes back its calls of this request id; they are answered with `cancelled`.
    ///
    /// # Errors
    /// `not_found` if there is none.
    pub(super) fn cancel(
        &mut self,
        now_ms: u64,
        connection: ConnectionId,
        request: u32,
    ) -> Result<Effects, Refusal> {
        let every = (request, CallId(0))..=(request, CallId(u64::MAX));
        let calls: SmallVec<[CallId; 1]> = match self.callers.get(&connection) {
            Some(calls) => calls.range(every).map(|&(_, call)| call).collect(),
            None => SmallVec::new(),
        };
        if calls.is_empty() {
            return Err(no_such_request());
        }
        let mut effects = Effects::new();
        for call in calls {
            let cancelled = Refusal::new(Code::Cancelled, "the caller gave up waiting");
            let freed = self.end(call, CallEnd::Cancelled, Err(cancelled), &mut effects);
            self.fill_all(now_ms, freed, &mut effects);
        }
        Ok(effects)
    }

    /// A caller inside the process stopped waiting.
    pub(super) fn abandon(&mut self, now_ms: u64, call: CallId) -> Effects {
        let mut effects = Effects::new();
        let freed = self.drop_call(call, &mut effects);
        self.fill_all(now_ms, freed, &mut effects);
        effects
    }

    /// A connection has gone, as caller and as server.
    pub(super) fn connection_left(&mut self, now_ms: u64, connection: ConnectionId) -> Effects {
        let mut effects = Effects::new();
        let mut freed = Vec::new();
        for (_, call) in self.callers.remove(&connection).unwrap_or_default() {
            freed.extend(self.drop_call(call, &mut effects));
        }
        self.gone(now_ms, ServerId::Connection(connection), freed, &mut effects);
        effects
    }

    /// A server has gone: what it worked on is lost, or asked of another.
    pub(super) fn server_left(&mut self, now_ms: u64, server: ServerId) -> Effects {
        let mut effects = Effects::new();
        self.gone(now_ms, server, Vec::new(), &mut effects);
        effects
    }

    /// Ends the calls whose time is over.
    pub(super) fn tick(&mut self, now_ms: u64) -> Effects {
        let mut effects = Effects::new();
        let mut freed = Vec::new();
        while let Some(&(deadline_ms, call)) = self.deadlines.first() {
            if deadline_ms > now_ms {
                break;
            }
            freed.extend(self.time_out(call, &mut effects));
        }
        // Only now, so that no room is given to a call whose time is over too.
        self.fill_all(now_ms, freed, &mut effects);
        effects
    }

    /// Ends everything: nobody serves and nobody waits afterwards.
    pub(super) fn stop(&mut self, refusal: &Refusal) -> Effects {
        let mut effects = Effects::new();
        let calls: Vec<CallId> = self.open.keys().copied().collect();
        for call in calls {
            self.end(call, CallEnd::Stopped, Err(refusal.clone()), &mut effects);
        }
        *self = Self::default();
        effects
    }

    /// Whether no call is open.
    pub(super) fn is_quiet(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether what is kept in several places agrees, and nobody waits in vain.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.routes.check();
        let (mut given, mut waiting, mut bytes, mut asked) = (0, 0, 0, 0);
        for (id, open) in &self.open {
            bytes += open.params_bytes;
            assert!(self.deadlines.contains(&(open.deadline_ms, *id)));
            if let Caller::Connection { connection, request } = open.caller {
                asked += 1;
                assert!(self.callers[&connection].contains(&(request, *id)));
            }
            match open.place {
                Place::Nowhere => panic!("a call is nowhere"),
                Place::Given(server) => {
                    given += 1;
                    assert!(self.servers[&server].working.contains(id));
                }
                Place::Waiting(_) => waiting += 1,
            }
        }
        assert_eq!(self.deadlines.len(), self.open.len());
        assert_eq!(self.params_bytes, bytes);
        assert_eq!(self.callers.values().map(BTreeSet::len).sum::<usize>(), asked);
        assert!(self.callers.values().all(|calls| !calls.is_empty()));
        assert_eq!(
            self.servers.values().map(|s| s.working.len()).sum::<usize>(),
            given
        );
        assert!(self.servers.values().all(|server| !server.is_idle()));
        assert_eq!(self.routes.check_waiting(&self.servers), waiting);
    }

    /// Whether nothing is kept at all.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
            && self.servers.is_empty()
            && self.callers.is_empty()
            && self.deadlines.is_empty()
            && self.routes.len() == 0
            && self.params_bytes == 0
    }
}

/// What a connection is told that takes back what it never asked, or what has been answered.
pub fn no_such_request() -> Refusal {
    Refusal::new(Code::NotFound, "no call of this request id waits for an answer")
}

fn quota(message: String) -> Refusal {
    Refusal::new(Code::QuotaExceeded, message + ", and may have no more").retry_after(60_000)
}
