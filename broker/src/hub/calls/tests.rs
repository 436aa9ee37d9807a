//! The rules of calls, one by one, without a clock.

mod bounds;
mod ending;
mod sharing;

use bytes::Bytes;
use cauce_protocol::message::MethodPattern;
use cauce_protocol::{Code, ConnectionId, Refusal, UserId};

use super::call::{CallId, Effect, Effects, NewCall, ServerId};
use super::state::Calls;
use crate::hub::Caller;
use crate::metrics::CallEnd;

const A: ServerId = ServerId::Connection(ConnectionId(101));
const B: ServerId = ServerId::Connection(ConnectionId(102));
const C: ServerId = ServerId::Program(1);

/// Calls, the time, and the next request id of the one caller.
#[derive(Default)]
struct Desk {
    calls: Calls,
    now_ms: u64,
    requests: u32,
}

const CALLER: ConnectionId = ConnectionId(7);

/// What was said, in short.
#[derive(Debug, PartialEq)]
enum Said {
    Invoke(ServerId, CallId),
    Revoke(ServerId, CallId),
    Answer(u32, CallEnd, Result<Bytes, Code>),
    Abandon(u32),
}

fn said(effects: Effects) -> Vec<Said> {
    let request = |caller| match caller {
        Caller::Connection { request, .. } => request,
        Caller::Waiter(_) => 0,
    };
    let short = |effect| match effect {
        Effect::Invoke(server, invoke) => Said::Invoke(server, invoke.call),
        Effect::Revoke(server, call) => Said::Revoke(server, call),
        Effect::Answer { caller, end, result } => {
            Said::Answer(request(caller), end, result.map_err(|refusal| refusal.code))
        }
        Effect::Abandon(caller) => Said::Abandon(request(caller)),
    };
    effects.into_iter().map(short).collect()
}

fn patterns(names: &[&str]) -> Vec<MethodPattern> {
    let new = |name: &&str| MethodPattern::new(name).expect("a pattern");
    names.iter().map(new).collect()
}

impl Desk {
    fn serve(&mut self, server: ServerId, names: &[&str], concurrency: u32) -> Vec<Said> {
        let served = self
            .calls
            .serve(self.now_ms, server, &patterns(names), concurrency);
        let said = said(served.expect("served"));
        self.calls.check();
        said
    }

    fn call_as(&mut self, method: &str, retry: bool) -> (u32, CallId, Vec<Said>) {
        self.requests += 1;
        let new = NewCall {
            caller: Caller::Connection {
                connection: CALLER,
                request: self.requests,
            },
            user: Some(UserId::new("ann").expect("a name")),
            method: method.into(),
            params: Bytes::from_static(b"{}"),
            timeout_ms: 1_000,
            retry,
        };
        let (call, effects) = self
            .calls
            .call(self.now_ms, u64::from(self.requests) * 1_000, new);
        self.calls.check();
        (self.requests, call, said(effects))
    }

    /// Opens a call and says whom it was given to.
    fn call(&mut self, method: &str) -> (CallId, Option<ServerId>) {
        let (_, call, said) = self.call_as(method, false);
        match said[..] {
            [] => (call, None),
            [Said::Invoke(server, invoked)] if invoked == call => (call, Some(server)),
            _ => panic!("{said:?}"),
        }
    }

    fn respond(&mut self, server: ServerId, call: CallId) -> Result<Vec<Said>, Refusal> {
        let result = Ok(Bytes::from_static(b"1"));
        let responded = self.calls.respond(self.now_ms, server, call, result).map(said);
        self.calls.check();
        responded
    }
}

fn answered(request: u32) -> Said {
    Said::Answer(request, CallEnd::Answered, Ok(Bytes::from_static(b"1")))
}
