//! A device as the node knows it: its state machine, the socket it hangs on, and who waits for its answers.
//!
//! The machine lies behind a lock of its own, because three parties meet there: the ingest shard that owns the device's
//! socket, the shard of a newer connection that takes over, and whoever calls the device. Each holds the lock for one step
//! and none waits inside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cauce_protocol::{Code, ConnectionId, DeviceId, Refusal};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::shelly::{self, CallError, CallFailure, CallToken, Session};

/// One device of one tenant.
#[derive(Debug)]
pub struct DeviceEntry {
    pub id: DeviceId,
    inner: Mutex<DeviceSide>,
}

/// What the lock guards.
#[derive(Debug)]
pub struct DeviceSide {
    pub device: shelly::Device,
    /// The socket that counts, if any.
    pub link: Option<Link>,
    callers: HashMap<CallToken, Caller, foldhash::fast::RandomState>,
}

/// Where a device's socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub shard: usize,
    pub peer: ConnectionId,
    pub session: Session,
}

/// Who waits for an answer of a device.
#[derive(Debug)]
pub enum Caller {
    /// A client's request.
    Connection { connection: ConnectionId, request: u32 },
    /// The API, or the embedding program.
    Waiter(oneshot::Sender<Result<Bytes, Refusal>>),
}

impl DeviceEntry {
    pub fn new(id: DeviceId, device: shelly::Device) -> Self {
        let inner = DeviceSide {
            device,
            link: None,
            callers: HashMap::default(),
        };
        Self {
            id,
            inner: Mutex::new(inner),
        }
    }

    /// Held for one step: nothing waits inside.
    pub fn lock(&self) -> MutexGuard<'_, DeviceSide> {
        self.inner.lock()
    }
}

impl DeviceSide {
    /// Opens a call and remembers who waits for it.
    ///
    /// # Errors
    /// If the device cannot be asked; `caller` is given back.
    pub fn call(
        &mut self,
        now: crate::clock::Now,
        call: &OutgoingCall,
        token: CallToken,
        caller: Caller,
    ) -> Result<(Link, Bytes), (Refusal, Caller)> {
        let params = Some(&call.params[..]).filter(|params| !params.is_empty());
        match (
            self.device
                .call(now, &call.method, params, now.mono_ms + call.timeout_ms, token),
            self.link,
        ) {
            (Ok(frame), Some(link)) => {
                self.callers.insert(token, caller);
                Ok((link, frame))
            }
            (Ok(_), None) => Err((refusal(CallError::Offline), caller)),
            (Err(error), _) => Err((refusal(error), caller)),
        }
    }

    /// Forgets who waits; those in this process find that nobody will answer.
    pub fn abandon_callers(&mut self) {
        self.callers.clear();
    }

    /// Who waits for this answer.
    pub fn caller(&mut self, token: CallToken) -> Option<Caller> {
        self.callers.remove(&token)
    }
}

/// A call as a caller gives it, checked.
#[derive(Clone, Debug)]
pub struct OutgoingCall {
    pub method: String,
    /// A JSON object, or empty.
    pub params: Bytes,
    pub timeout_ms: u64,
}

fn refusal(error: CallError) -> Refusal {
    let message = error.to_string();
    match error {
        CallError::Asleep | CallError::Offline => {
            Refusal::new(Code::DeviceOffline, message).retry_after(5_000)
        }
        CallError::Busy => Refusal::new(Code::RateLimited, message).retry_after(1_000),
        CallError::Method | CallError::Params => Refusal::new(Code::Invalid, message),
        CallError::ParamsTooLarge => Refusal::new(Code::TooLarge, message),
    }
}

/// What a caller is told when there is no result.
pub fn call_refusal(failure: &CallFailure) -> Refusal {
    let message = failure.to_string();
    match failure {
        CallFailure::Device(_) => Refusal::new(Code::DeviceError, message),
        CallFailure::Disconnected | CallFailure::Replaced => {
            Refusal::new(Code::DeviceOffline, message).retry_after(1_000)
        }
        CallFailure::TimedOut => Refusal::new(Code::Timeout, message).retry_after(1_000),
    }
}

/// Numbers that rise over the whole node.
#[derive(Debug, Default)]
pub struct Rising(AtomicU64);

impl Rising {
    /// The next number; the first is 1.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Shared by everything that handles a device.
pub type SharedDevice = Arc<DeviceEntry>;
