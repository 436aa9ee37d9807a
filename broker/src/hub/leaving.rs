//! What everybody must know when the node is about to end: that it is, and what has been begun and must be finished first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cauce_protocol::{Code, Refusal};
use parking_lot::{Condvar, Mutex};

/// Whether the node is being drained, and the API's requests that are under way.
#[derive(Debug, Default)]
pub struct Leaving {
    begun: AtomicBool,
    retry_after_ms: AtomicU32,
    /// Not on the path of messages: an API request costs far more than this lock.
    underway: Mutex<usize>,
    idle: Condvar,
}

impl Leaving {
    /// From now on whoever comes is told to come again, somewhere else or after this time.
    pub fn begin(&self, retry_after_ms: u32) {
        self.retry_after_ms.store(retry_after_ms, Ordering::Relaxed);
        self.begun.store(true, Ordering::Release);
    }

    /// Whether the node takes nobody new.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// What newcomers are told, and peers who must go.
    pub fn refusal(&self) -> Refusal {
        Refusal::new(Code::GoingAway, "the broker is stopping; connect again")
            .retry_after(self.retry_after_ms.load(Ordering::Relaxed))
    }

    /// Counts a request in, for as long as the answer lives.
    pub fn enter(self: &Arc<Self>) -> Underway {
        *self.underway.lock() += 1;
        Underway(self.clone())
    }

    /// Waits until no request is under way. Blocks. Answers how many were left when the time was over.
    pub fn wait_idle(&self, until: Instant) -> usize {
        let mut underway = self.underway.lock();
        while *underway > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO || self.idle.wait_for(&mut underway, left).timed_out() {
                break;
            }
        }
        *underway
    }
}

/// A request that has been begun; dropping it says that it has been answered.
#[derive(Debug)]
pub struct Underway(Arc<Leaving>);

impl Drop for Underway {
    fn drop(&mut self) {
        let mut underway = self.0.underway.lock();
        *underway -= 1;
        if *underway == 0 {
            self.0.idle.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_last_request_or_with_the_time() {
        let leaving = Arc::new(Leaving::default());
        assert_eq!(leaving.wait_idle(Instant::now()), 0);
        let (first, second) = (leaving.enter(), leaving.enter());
        assert_eq!(leaving.wait_idle(Instant::now()), 2, "the time was over");
        drop(first);
        let ending = std::thread::spawn(move || drop(second));
        assert_eq!(leaving.wait_idle(Instant::now() + Duration::from_secs(20)), 0);
        ending.join().unwrap();
    }

    #[test]
    fn who_comes_while_the_node_leaves_is_told_when_to_come_again() {
        let leaving = Leaving::default();
        assert!(!leaving.has_begun());
        leaving.begin(1_500);
        let refusal = leaving.refusal();
        assert_eq!((refusal.code, refusal.retry_after_ms), (Code::GoingAway, 1_500));
        assert!(leaving.has_begun());
    }
}
