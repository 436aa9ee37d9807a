//! The steps that the words of callers and servers come down to. Each leaves what it touches consistent, but for a call that
//! is nowhere and a server with room, which the caller of the step sees to.

use bytes::Bytes;
use cauce_protocol::limits::INTEGER_MAX;
use cauce_protocol::{Code, Refusal};

use super::super::bounds::{ATTEMPTS_MAX, OPEN_MAX, PARAMS_BYTES_MAX, TIMEOUT_MS_MAX, WAITING_MAX};
use super::super::call::{CallId, Effect, Effects, Invoke, NewCall, ServerId};
use super::super::routes::PoolId;
use super::{Calls, Open, Place, Server};
use crate::hub::Caller;
use crate::metrics::CallEnd;

/// When to come again after a refusal that time alone may heal, in milliseconds.
const RETRY_AFTER_MS: u32 = 1_000;

impl Calls {
    pub(super) fn free_id(&self, draw: u64) -> CallId {
        let mut id = CallId(draw & INTEGER_MAX);
        // Never 0, which the wire's default is.
        while id.0 == 0 || self.open.contains_key(&id) {
            id.0 = (id.0 + 1) & INTEGER_MAX;
        }
        id
    }

    pub(super) fn admit(&self, new: &NewCall) -> Result<(), Refusal> {
        if new.timeout_ms > TIMEOUT_MS_MAX {
            let message = format!("timeout_ms is at most {TIMEOUT_MS_MAX}");
            return Err(Refusal::new(Code::Invalid, message));
        }
        if self.open.len() >= OPEN_MAX || self.params_bytes + new.params.len() > PARAMS_BYTES_MAX {
            return Err(overloaded("too many calls of the tenant wait for answers"));
        }
        Ok(())
    }

    pub(super) fn given(&self, server: ServerId, call: CallId) -> Result<(), Refusal> {
        match self.open.get(&call) {
            Some(open) if open.place == Place::Given(server) => Ok(()),
            _ => Err(Refusal::new(
                Code::NotFound,
                "nobody waits for an answer of yours to this call",
            )),
        }
    }

    /// Gives a call to a server, or lets it wait, or ends it because neither can be.
    pub(super) fn place(&mut self, now_ms: u64, id: CallId, effects: &mut Effects) {
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let asked = open.attempts > 0;
        let Some(pool) = self.routes.find(&open.method) else {
            let (end, refusal) = match asked {
                false => (
                    CallEnd::NotServed,
                    not_served(format!("nobody serves the method {}", open.method)),
                ),
                true => (
                    CallEnd::Lost,
                    not_served(format!(
                        "the server of {} was lost before it answered, and nobody else serves it; it may have run",
                        open.method
                    )),
                ),
            };
            self.end(id, end, Err(refusal), effects);
            return;
        };
        if let Some(server) = self.routes.choose(pool, &self.servers) {
            self.give(now_ms, server, id, effects);
        } else if self.routes.waiting(pool) < WAITING_MAX {
            open.place = Place::Waiting(pool);
            self.routes.wait(pool, open.order, id);
        } else {
            let (end, refusal) = match asked {
                false => (
                    CallEnd::Refused,
                    overloaded(format!(
                        "all servers of {} are busy, and many calls wait",
                        open.method
                    )),
                ),
                true => (
                    CallEnd::Lost,
                    not_served(format!(
                        "the server of {} was lost before it answered, and all others are busy; it may have run",
                        open.method
                    )),
                ),
            };
            self.end(id, end, Err(refusal), effects);
        }
    }

    pub(super) fn give(&mut self, now_ms: u64, server: ServerId, id: CallId, effects: &mut Effects) {
        let (Some(open), Some(entry)) = (self.open.get_mut(&id), self.servers.get_mut(&server)) else {
            return;
        };
        entry.working.insert(id);
        open.place = Place::Given(server);
        open.attempts += 1;
        let params = match open.retry {
            true => open.params.clone(),
            false => std::mem::take(&mut open.params),
        };
        let invoke = Invoke {
            call: id,
            method: open.method.clone(),
            params,
            user: open.user.clone(),
            timeout_ms: open.deadline_ms.saturating_sub(now_ms).max(1),
            attempt: open.attempts,
        };
        effects.push(Effect::Invoke(server, invoke));
    }

    /// Gives a server the calls that have waited longest, while it has room.
    pub(super) fn fill(&mut self, now_ms: u64, server: ServerId, effects: &mut Effects) {
        loop {
            let Some(entry) = self.servers.get(&server).filter(|entry| entry.has_room()) else {
                return;
            };
            let Some(call) = self.routes.oldest(&entry.pools) else {
                return;
            };
            if self.open.get(&call).is_none_or(|open| open.deadline_ms <= now_ms) {
                self.time_out(call, effects);
            } else {
                self.take_back(call);
                self.give(now_ms, server, call, effects);
            }
        }
    }

    pub(super) fn fill_all(
        &mut self,
        now_ms: u64,
        servers: impl IntoIterator<Item = ServerId>,
        effects: &mut Effects,
    ) {
        for server in servers {
            self.fill(now_ms, server, effects);
        }
    }

    /// Takes a call from where it is. Answers the server that has room now.
    pub(super) fn take_back(&mut self, id: CallId) -> Option<ServerId> {
        let open = self.open.get_mut(&id)?;
        match std::mem::replace(&mut open.place, Place::Nowhere) {
            Place::Nowhere => None,
            Place::Waiting(pool) => {
                self.routes.stop_waiting(pool, open.order);
                None
            }
            Place::Given(server) => {
                if let Some(entry) = self.servers.get_mut(&server) {
                    entry.working.remove(&id);
                }
                self.forget_if_idle(server);
                Some(server)
            }
        }
    }

    pub(super) fn remove(&mut self, id: CallId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.deadlines.remove(&(open.deadline_ms, id));
        self.params_bytes -= open.params_bytes;
        if let Caller::Connection { connection, request } = open.caller
            && let Some(calls) = self.callers.get_mut(&connection)
        {
            calls.remove(&(request, id));
            if calls.is_empty() {
                self.callers.remove(&connection);
            }
        }
        Some(open)
    }

    /// Ends a call with its answer. Answers the server that has room now.
    pub(super) fn end(
        &mut self,
        id: CallId,
        end: CallEnd,
        result: Result<Bytes, Refusal>,
        effects: &mut Effects,
    ) -> Option<ServerId> {
        let freed = self.take_back(id);
        let open = self.remove(id)?;
        match (end, freed) {
            // The server has spoken itself.
            (CallEnd::Answered | CallEnd::Failed, _) | (_, None) => {}
            (_, Some(server)) => effects.push(Effect::Revoke(server, id)),
        }
        effects.push(Effect::Answer {
            caller: open.caller,
            end,
            result,
        });
        freed
    }

    /// Ends a call whose caller has gone. Answers the server that has room now.
    pub(super) fn drop_call(&mut self, id: CallId, effects: &mut Effects) -> Option<ServerId> {
        let freed = self.take_back(id);
        let open = self.remove(id)?;
        if let Some(server) = freed {
            effects.push(Effect::Revoke(server, id));
        }
        effects.push(Effect::Abandon(open.caller));
        freed
    }

    pub(super) fn time_out(&mut self, id: CallId, effects: &mut Effects) -> Option<ServerId> {
        let message = match self.open.get(&id)?.place {
            Place::Given(_) => "the server of the method did not answer in time; it may have run",
            Place::Waiting(_) | Place::Nowhere => "no server of the method had room in time",
        };
        let refusal = Refusal::new(Code::Timeout, message).retry_after(RETRY_AFTER_MS);
        self.end(id, CallEnd::TimedOut, Err(refusal), effects)
    }

    /// What becomes of a call that its server took with it. It has been taken back.
    pub(super) fn lost(&mut self, now_ms: u64, id: CallId, effects: &mut Effects) {
        let Some(open) = self.open.get(&id) else {
            return;
        };
        if open.retry && open.attempts < ATTEMPTS_MAX {
            return self.place(now_ms, id, effects);
        }
        let (method, attempts) = (&open.method, open.attempts);
        let message = match attempts {
            0 | 1 => format!("the server of {method} was lost before it answered; it may have run"),
            _ => format!("{attempts} servers of {method} were lost before they answered; it may have run"),
        };
        self.end(id, CallEnd::Lost, Err(not_served(message)), effects);
    }

    /// Takes a server out, and then fills those that have room.
    pub(super) fn gone(
        &mut self,
        now_ms: u64,
        server: ServerId,
        freed: Vec<ServerId>,
        effects: &mut Effects,
    ) {
        // It is out of the map first, so that nothing more is given to it.
        let left = self.servers.remove(&server);
        self.fill_all(now_ms, freed, effects);
        let Some(left) = left else {
            return;
        };
        let mut lost: Vec<(u64, CallId)> = left
            .working
            .iter()
            .filter_map(|call| Some((self.open.get(call)?.order, *call)))
            .collect();
        lost.sort_unstable();
        for &(_, call) in &lost {
            self.take_back(call);
        }
        self.part(now_ms, server, left.pools, effects);
        for (_, call) in lost {
            self.lost(now_ms, call, effects);
        }
    }

    /// Takes a server out of pools. Calls that waited in one that is no more go where their method leads now.
    pub(super) fn part(&mut self, now_ms: u64, server: ServerId, pools: Vec<PoolId>, effects: &mut Effects) {
        let mut orphans = Vec::new();
        for pool in pools {
            orphans.extend(self.routes.leave(pool, server));
        }
        for call in orphans {
            if let Some(open) = self.open.get_mut(&call) {
                open.place = Place::Nowhere;
            }
            self.place(now_ms, call, effects);
        }
    }

    pub(super) fn forget_if_idle(&mut self, server: ServerId) {
        if self.servers.get(&server).is_some_and(Server::is_idle) {
            self.servers.remove(&server);
        }
    }
}

fn not_served(message: String) -> Refusal {
    Refusal::new(Code::NotServed, message).retry_after(RETRY_AFTER_MS)
}

fn overloaded(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::Overloaded, message).retry_after(RETRY_AFTER_MS)
}
