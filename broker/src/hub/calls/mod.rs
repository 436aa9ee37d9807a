//! Calls of methods: who serves, who asks, and the way of the answer.
//!
//! The state of each tenant lies behind a lock of its own, held for one step; nothing waits inside. What follows from a step
//! is carried out with the lock held, so that a server never hears that a call is revoked before it hears of the call.
//! Tenants share nothing here but the clock's attention.
//!
//! Reading order: `call` has the words, `state` decides, `routes` finds servers, `inbox` is the embedding program's end, this file carries out.

mod bounds;
mod call;
mod inbox;
#[cfg(test)]
mod model;
mod routes;
mod state;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cauce_protocol::message::{MethodPattern, check_method, check_params};
use cauce_protocol::{Code, ConnectionId, Payload, Refusal, UserId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};

pub use bounds::TIMEOUT_MS_MAX;
pub use call::{CallId, Invoke, ServerId};
pub use inbox::Inbox;
pub use state::no_such_request;

use self::call::{Effect, Effects, NewCall};
use self::state::Calls;
use super::delivery::{Serving, ServingWord, ShardMessage};
use super::{Caller, Hub, Rising, Tenant};
use crate::metrics::CallEnd;

/// How late a time-out may come. Nobody looks while no call is open.
const TICK: Duration = Duration::from_millis(20);

/// One tenant's calls.
#[derive(Debug, Default)]
pub struct Switchboard(Mutex<Board>);

#[derive(Debug, Default)]
struct Board {
    calls: Calls,
    programs: HashMap<u64, Arc<Inbox>, foldhash::fast::RandomState>,
    /// The tenant is in the list of those that the clock looks at.
    is_watched: bool,
}

/// What the tenants' switchboards share.
#[derive(Debug, Default)]
pub struct CallWatch {
    /// Tenants with open calls, and some that had one a moment ago. Locked after a board, never before one.
    busy: Mutex<Vec<Arc<Tenant>>>,
    bell: Notify,
    /// Why nobody calls any more.
    stopped: RwLock<Option<Refusal>>,
    programs: Rising,
}

/// A call of a method by the API or the embedding program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodCall {
    pub method: String,
    /// A JSON object, or empty.
    pub params: Bytes,
    /// Milliseconds; 0 means the broker's default. At most [`TIMEOUT_MS_MAX`].
    pub timeout_ms: u64,
    /// If the server is lost before it answers, ask another: the method may then run more than once.
    pub retry: bool,
}

impl MethodCall {
    /// At most once, within the default time.
    pub fn new(method: impl Into<String>, params: impl Into<Bytes>) -> Self {
        Self {
            method: method.into(),
            params: params.into(),
            timeout_ms: 0,
            retry: false,
        }
    }
}

impl Hub {
    /// Lets a connection serve patterns from now on, `concurrency` calls at once (0 means the default).
    ///
    /// # Errors
    /// `invalid`, `quota_exceeded`, or `going_away` when the broker stops; then nothing has changed.
    pub fn serve(
        &self,
        tenant: &Tenant,
        connection: ConnectionId,
        patterns: &[MethodPattern],
        concurrency: u32,
    ) -> Result<(), Refusal> {
        let mut board = tenant.switchboard.0.lock();
        self.calls_go_on()?;
        let server = ServerId::Connection(connection);
        let effects = board
            .calls
            .serve(self.clock.now().mono_ms, server, patterns, concurrency)?;
        self.carry_out(&board, effects);
        Ok(())
    }

    /// The same for a part of the embedding program. Ends with [`Hub::program_left`].
    ///
    /// # Errors
    /// As [`Hub::serve`].
    pub fn serve_in_process(
        &self,
        tenant: &Tenant,
        patterns: &[MethodPattern],
        concurrency: u32,
    ) -> Result<(u64, Arc<Inbox>), Refusal> {
        let mut board = tenant.switchboard.0.lock();
        self.calls_go_on()?;
        let (program, inbox) = (self.call_watch.programs.next(), Arc::<Inbox>::default());
        board.programs.insert(program, inbox.clone());
        let server = ServerId::Program(program);
        match board
            .calls
            .serve(self.clock.now().mono_ms, server, patterns, concurrency)
        {
            Ok(effects) => self.carry_out(&board, effects),
            Err(refusal) => {
                board.programs.remove(&program);
                return Err(refusal);
            }
        }
        Ok((program, inbox))
    }

    /// Ends what a connection serves, but for what `keep` names: at its wish, or because its rights have shrunk.
    pub fn unserve(&self, tenant: &Tenant, connection: ConnectionId, keep: impl Fn(&MethodPattern) -> bool) {
        let server = ServerId::Connection(connection);
        self.step(tenant, |calls, now_ms| calls.unserve(now_ms, server, keep));
    }

    /// The answer of a server to a call that it was given.
    ///
    /// # Errors
    /// `not_found` if nobody waits for it.
    pub fn respond(
        &self,
        tenant: &Tenant,
        server: ServerId,
        call: CallId,
        result: Result<Bytes, String>,
    ) -> Result<(), Refusal> {
        let mut board = tenant.switchboard.0.lock();
        let effects = board
            .calls
            .respond(self.clock.now().mono_ms, server, call, result)?;
        self.carry_out(&board, effects);
        Ok(())
    }

    /// A part of the embedding program will not answer this call.
    pub fn lose_call(&self, tenant: &Tenant, server: ServerId, call: CallId) {
        self.step(tenant, |calls, now_ms| calls.lose(now_ms, server, call));
    }

    /// A connection takes back its calls of this request id.
    ///
    /// # Errors
    /// `not_found` if it has none that waits.
    pub fn cancel_call(
        &self,
        tenant: &Tenant,
        connection: ConnectionId,
        request: u32,
    ) -> Result<(), Refusal> {
        let mut board = tenant.switchboard.0.lock();
        let effects = board
            .calls
            .cancel(self.clock.now().mono_ms, connection, request)?;
        self.carry_out(&board, effects);
        Ok(())
    }

    /// A connection that has served or called has gone.
    pub fn caller_or_server_left(&self, tenant: &Tenant, connection: ConnectionId) {
        self.step(tenant, |calls, now_ms| calls.connection_left(now_ms, connection));
    }

    /// A part of the embedding program serves no more.
    pub fn program_left(&self, tenant: &Tenant, program: u64) {
        let mut board = tenant.switchboard.0.lock();
        let server = ServerId::Program(program);
        let effects = board.calls.server_left(self.clock.now().mono_ms, server);
        self.carry_out(&board, effects);
        if let Some(inbox) = board.programs.remove(&program) {
            inbox.end();
        }
    }

    /// Calls a method for a client. The answer goes to `caller`, exactly once, unless he leaves.
    pub fn call_method(&self, tenant: &Arc<Tenant>, caller: Caller, user: Option<UserId>, call: MethodCall) {
        self.open_call(tenant, caller, user, call);
    }

    /// Calls a method for the API or the embedding program. Safe to cancel: the server is told that nobody waits.
    ///
    /// # Errors
    /// `not_served`, `method_error` with the server's words, `timeout`, `overloaded`, `invalid`, `too_large`, `malformed`,
    /// `going_away`.
    pub async fn ask(&self, tenant: &Arc<Tenant>, call: MethodCall) -> Result<Bytes, Refusal> {
        let tunables = self.tunables();
        check_method(&call.method)?;
        check_params(&call.params, tunables.payload_bytes_max)?;
        if !call.params.is_empty() {
            Payload::Json(call.params.clone())
                .check(tunables.payload_bytes_max, tunables.payload_depth_max)?;
        }
        let timeout_ms = match call.timeout_ms {
            0 => tunables.connection.call_timeout_ms,
            timeout_ms => timeout_ms,
        };
        let call = MethodCall { timeout_ms, ..call };
        let (answer, answered) = oneshot::channel();
        let id = self.open_call(tenant, Caller::Waiter(answer), None, call);
        let mut waiting = Waiting {
            hub: self,
            tenant,
            call: Some(id),
        };
        let result = answered.await;
        waiting.call = None;
        result.unwrap_or_else(|_| Err(Refusal::new(Code::GoingAway, "the broker is stopping")))
    }

    /// Ends calls whose time is over. Runs as long as the broker; sleeps while no call is open.
    pub async fn watch_calls(self: Arc<Self>) {
        loop {
            self.call_watch.bell.notified().await;
            while self.tick_calls() {
                tokio::time::sleep(TICK).await;
            }
        }
    }

    /// Answers every open call with this and refuses all that come.
    pub fn stop_calls(&self, refusal: &Refusal) {
        *self.call_watch.stopped.write() = Some(refusal.clone());
        // A step that saw the old word has let go of its board before this comes to it.
        self.tenants.for_each(|tenant| {
            let mut board = tenant.switchboard.0.lock();
            let effects = board.calls.stop(refusal);
            self.carry_out(&board, effects);
            for (_, inbox) in board.programs.drain() {
                inbox.end();
            }
        });
    }

    fn open_call(
        &self,
        tenant: &Arc<Tenant>,
        caller: Caller,
        user: Option<UserId>,
        call: MethodCall,
    ) -> CallId {
        let MethodCall {
            method,
            params,
            timeout_ms,
            retry,
        } = call;
        let draw = self.draw();
        let mut board = tenant.switchboard.0.lock();
        self.metrics.calls.opened.increment();
        if let Err(refusal) = self.calls_go_on() {
            self.metrics.calls.ended(CallEnd::Stopped);
            self.answer(caller, Err(refusal));
            return CallId(draw);
        }
        let new = NewCall {
            caller,
            user,
            method: method.into(),
            params,
            timeout_ms,
            retry,
        };
        let (id, effects) = board.calls.call(self.clock.now().mono_ms, draw, new);
        self.carry_out(&board, effects);
        if !board.calls.is_quiet() && !board.is_watched {
            board.is_watched = true;
            self.call_watch.busy.lock().push(tenant.clone());
            self.call_watch.bell.notify_one();
        }
        id
    }

    /// Looks at each tenant with open calls. Answers whether there is any.
    fn tick_calls(&self) -> bool {
        let busy = std::mem::take(&mut *self.call_watch.busy.lock());
        let now_ms = self.clock.now().mono_ms;
        let mut still = Vec::with_capacity(busy.len());
        for tenant in busy {
            let mut board = tenant.switchboard.0.lock();
            let effects = board.calls.tick(now_ms);
            self.carry_out(&board, effects);
            board.is_watched = !board.calls.is_quiet();
            let is_watched = board.is_watched;
            drop(board);
            if is_watched {
                still.push(tenant);
            }
        }
        let mut busy = self.call_watch.busy.lock();
        busy.append(&mut still);
        !busy.is_empty()
    }

    fn step(&self, tenant: &Tenant, step: impl FnOnce(&mut Calls, u64) -> Effects) {
        let mut board = tenant.switchboard.0.lock();
        let effects = step(&mut board.calls, self.clock.now().mono_ms);
        self.carry_out(&board, effects);
    }

    fn carry_out(&self, board: &Board, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Invoke(server, invoke) => {
                    if invoke.attempt > 1 {
                        self.metrics.calls.retried.increment();
                    }
                    match server {
                        ServerId::Connection(connection) => {
                            self.tell_server(connection, ServingWord::Invoke(invoke));
                        }
                        ServerId::Program(program) => {
                            if let Some(inbox) = board.programs.get(&program) {
                                inbox.put(invoke);
                            }
                        }
                    }
                }
                Effect::Revoke(ServerId::Connection(connection), call) => {
                    self.tell_server(connection, ServingWord::Revoke(call));
                }
                Effect::Revoke(ServerId::Program(program), call) => {
                    if let Some(inbox) = board.programs.get(&program) {
                        inbox.revoke(call);
                    }
                }
                Effect::Answer { caller, end, result } => {
                    self.metrics.calls.ended(end);
                    self.answer(caller, result);
                }
                Effect::Abandon(caller) => {
                    self.metrics.calls.ended(CallEnd::Abandoned);
                    drop(caller);
                }
            }
        }
    }

    /// To a connection that serves. Bounded by what it works on at once.
    fn tell_server(&self, connection: ConnectionId, word: ServingWord) {
        if let Some(shard) = self.shard_of(connection) {
            let serving = Box::new(Serving { connection, word });
            self.shards[shard].send(ShardMessage::Serving(serving));
        }
    }

    fn calls_go_on(&self) -> Result<(), Refusal> {
        match &*self.call_watch.stopped.read() {
            None => Ok(()),
            Some(refusal) => Err(refusal.clone()),
        }
    }

    fn draw(&self) -> u64 {
        let mut bytes = [0; 8];
        match aws_lc_rs::rand::fill(&mut bytes) {
            Ok(()) => u64::from_be_bytes(bytes),
            // To guess a call's id gains nothing: whoever answers is compared with whom it was given to.
            Err(_) => self.calls.next(),
        }
    }
}

/// A caller inside the process, for as long as it waits.
struct Waiting<'a> {
    hub: &'a Hub,
    tenant: &'a Tenant,
    /// `None` once it was answered.
    call: Option<CallId>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.hub
                .step(self.tenant, |calls, now_ms| calls.abandon(now_ms, call));
        }
    }
}
