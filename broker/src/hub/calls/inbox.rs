//! Calls that wait for a part of the embedding program to take them.
//!
//! It holds no more than that part may work on at once: a call that is revoked leaves it, taken or not.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::call::{CallId, Invoke};

/// One server inside the process.
#[derive(Debug, Default)]
pub struct Inbox {
    inner: Mutex<Inner>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Invoke>,
    /// Calls that were taken and not answered. Told when nobody waits any more.
    taken: HashMap<CallId, CancellationToken, foldhash::fast::RandomState>,
    is_over: bool,
}

impl Inbox {
    pub(super) fn put(&self, invoke: Invoke) {
        self.inner.lock().waiting.push_back(invoke);
        self.bell.notify_one();
    }

    pub(super) fn revoke(&self, call: CallId) {
        let mut inner = self.inner.lock();
        inner.waiting.retain(|invoke| invoke.call != call);
        if let Some(token) = inner.taken.remove(&call) {
            token.cancel();
        }
    }

    /// Nothing comes any more, and what was taken is of no use.
    pub(super) fn end(&self) {
        let mut inner = self.inner.lock();
        inner.is_over = true;
        inner.waiting.clear();
        for (_, token) in inner.taken.drain() {
            token.cancel();
        }
        drop(inner);
        self.bell.notify_one();
    }

    /// Forgets a call that its taker is done with.
    pub fn done(&self, call: CallId) {
        self.inner.lock().taken.remove(&call);
    }

    /// The next call, and what tells that nobody waits for its answer any more. `None` when nothing will come. For one
    /// waiter at a time; cancel-safe.
    pub async fn next(&self) -> Option<(Invoke, CancellationToken)> {
        loop {
            {
                let mut inner = self.inner.lock();
                if let Some(invoke) = inner.waiting.pop_front() {
                    let token = CancellationToken::new();
                    inner.taken.insert(invoke.call, token.clone());
                    return Some((invoke, token));
                }
                if inner.is_over {
                    return None;
                }
            }
            // A ring between the look and the wait is kept.
            self.bell.notified().await;
        }
    }
}
