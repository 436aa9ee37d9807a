//! A call on its way: as it comes, as a server gets it, and what follows from each step.

use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::{ConnectionId, Refusal, UserId};
use smallvec::SmallVec;

use crate::hub::Caller;
use crate::metrics::CallEnd;

/// One call, as its server knows it. Drawn at random, so that it tells nothing about other calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Who serves methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerId {
    Connection(ConnectionId),
    /// A part of the embedding program.
    Program(u64),
}

/// A call as it comes, checked.
#[derive(Debug)]
pub(super) struct NewCall {
    pub(super) caller: Caller,
    /// Who asks; `None` for the API and the embedding program.
    pub(super) user: Option<UserId>,
    pub(super) method: Arc<str>,
    /// A JSON object, or empty.
    pub(super) params: Bytes,
    pub(super) timeout_ms: u64,
    pub(super) retry: bool,
}

/// A call on its way to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoke {
    pub call: CallId,
    pub method: Arc<str>,
    pub params: Bytes,
    pub user: Option<UserId>,
    /// What is left of the caller's time.
    pub timeout_ms: u64,
    /// 1 for the first server that is asked.
    pub attempt: u32,
}

/// What is to be done. In the order of the list.
#[derive(Debug)]
pub(super) enum Effect {
    /// Give a server a call.
    Invoke(ServerId, Invoke),
    /// Tell a server that nobody waits for its answer.
    Revoke(ServerId, CallId),
    /// Answer a caller.
    Answer {
        caller: Caller,
        end: CallEnd,
        result: Result<Bytes, Refusal>,
    },
    /// The caller has gone: there is nobody to answer.
    Abandon(Caller),
}

/// Most words have one or two consequences.
pub(super) type Effects = SmallVec<[Effect; 2]>;
