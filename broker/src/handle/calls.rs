//! Calling and serving methods from inside the process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cauce_protocol::message::MethodPattern;
use cauce_protocol::{Code, Payload, Refusal, UserId};
use tokio_util::sync::CancellationToken;

use super::TenantHandle;
use crate::hub::{CallId, Hub, Inbox, Invoke, MethodCall, ServerId, Tenant};

impl TenantHandle {
    /// Calls a method and waits for the answer of whoever serves it: a client, or this program. The answer is JSON. Safe to
    /// cancel: the server is told that nobody waits; the method may have run all the same.
    ///
    /// # Errors
    /// `not_served` if nobody serves the method or the server was lost, `method_error` with the server's words, `timeout`,
    /// `overloaded` if too many calls wait, `going_away` when the broker stops, `invalid`, `malformed` or `too_large`.
    pub async fn call(&self, call: MethodCall) -> Result<Bytes, Refusal> {
        self.hub.ask(&self.tenant, call).await
    }

    /// Serves a method, or all that begin like `prefix*`, together with whoever serves the same: at most `concurrency` calls
    /// at once, 0 meaning the default of 16. Dropping the answer ends it.
    ///
    /// # Errors
    /// `invalid` or `too_large` for a bad pattern or concurrency, `quota_exceeded` for a server too many, `going_away` when
    /// the broker stops.
    pub fn serve(&self, pattern: &str, concurrency: u32) -> Result<MethodServer, Refusal> {
        let patterns = [MethodPattern::new(pattern)?];
        let (program, inbox) = self.hub.serve_in_process(&self.tenant, &patterns, concurrency)?;
        Ok(MethodServer {
            hub: self.hub.clone(),
            tenant: self.tenant.clone(),
            program,
            inbox,
        })
    }
}

/// Calls of a method that this program serves. Dropping it ends the service; calls that it was given and that are not
/// answered are lost: their callers are told, or another server is asked if they allowed it.
#[derive(Debug)]
pub struct MethodServer {
    hub: Arc<Hub>,
    tenant: Arc<Tenant>,
    program: u64,
    inbox: Arc<Inbox>,
}

impl MethodServer {
    /// The next call; `None` when the broker stops. Cancel-safe. Calls whose callers gave up are not given out.
    pub async fn next(&mut self) -> Option<Invocation> {
        let (invoke, revoked) = self.inbox.next().await?;
        let Invoke {
            call,
            method,
            params,
            user,
            timeout_ms,
            ..
        } = invoke;
        Some(Invocation {
            method,
            params,
            user,
            timeout: Duration::from_millis(timeout_ms),
            open: Some(Open {
                hub: self.hub.clone(),
                tenant: self.tenant.clone(),
                inbox: self.inbox.clone(),
                program: self.program,
                call,
            }),
            revoked,
        })
    }
}

impl Drop for MethodServer {
    fn drop(&mut self) {
        self.hub.program_left(&self.tenant, self.program);
    }
}

/// One call to answer. Dropping it without an answer gives it up: the caller is told that its server was lost, or another
/// is asked if the caller allowed it.
#[derive(Debug)]
pub struct Invocation {
    pub method: Arc<str>,
    /// A JSON object, or empty.
    pub params: Bytes,
    /// Who asks. `None`: the API or this program.
    pub user: Option<UserId>,
    /// What was left of the caller's time when the call was given out.
    pub timeout: Duration,
    open: Option<Open>,
    revoked: CancellationToken,
}

/// The right to answer.
#[derive(Debug)]
struct Open {
    hub: Arc<Hub>,
    tenant: Arc<Tenant>,
    inbox: Arc<Inbox>,
    program: u64,
    call: CallId,
}

impl Invocation {
    /// Answers with JSON, or with what went wrong.
    ///
    /// # Errors
    /// `not_found` if nobody waits any more. `malformed` or `too_large` for what is no JSON within the limits; the caller
    /// then gets `method_error`.
    pub fn respond(mut self, result: Result<Bytes, String>) -> Result<(), Refusal> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let tunables = open.hub.tunables();
        let checked = match &result {
            Ok(json) => {
                Payload::Json(json.clone()).check(tunables.payload_bytes_max, tunables.payload_depth_max)
            }
            Err(words) => check_words(words),
        };
        match checked {
            Ok(()) => open.answer(result),
            Err(refusal) => {
                // Whether somebody still waited is of no interest beside this.
                let _ = open.answer(Err("the server gave an answer that breaks the limits".into()));
                Err(refusal)
            }
        }
    }

    /// Returns when nobody waits for the answer any more: the time is over, or the caller gave up. Cancel-safe.
    pub async fn revoked(&self) {
        self.revoked.cancelled().await;
    }
}

fn check_words(words: &str) -> Result<(), Refusal> {
    const MAX: usize = cauce_protocol::limits::ERROR_BYTES_MAX;
    if words.len() <= MAX {
        return Ok(());
    }
    let message = format!("error is longer than {MAX} bytes");
    Err(Refusal::new(Code::TooLarge, message))
}

impl Open {
    fn answer(&self, result: Result<Bytes, String>) -> Result<(), Refusal> {
        self.inbox.done(self.call);
        let server = ServerId::Program(self.program);
        self.hub.respond(&self.tenant, server, self.call, result)
    }
}

impl Drop for Invocation {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.inbox.done(open.call);
            let server = ServerId::Program(open.program);
            open.hub.lose_call(&open.tenant, server, open.call);
        }
    }
}
