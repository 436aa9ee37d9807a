//! A listener in the process.

use crate::mailbox::{Mailbox, TaskWaker};
use crate::publication::Shared;
use crate::sync::{AtomicBool, Ordering};

/// A listener in the process: a bounded queue of its own. One that does not keep up is cut off and told so; it never slows
/// the room.
#[derive(Debug)]
pub struct Tap {
    mailbox: Mailbox<Shared, TaskWaker>,
    overflowed: AtomicBool,
}

impl Tap {
    /// `capacity` in bytes, see [`crate::publication::Publication::cost`].
    pub fn new(capacity: usize) -> Self {
        Self {
            mailbox: Mailbox::new(capacity, TaskWaker::default()),
            overflowed: AtomicBool::new(false),
        }
    }

    /// Whether the tap stays.
    pub(super) fn push(&self, publication: &Shared, cost: usize) -> bool {
        let taken = self.mailbox.reserve(cost);
        if taken {
            self.mailbox.push(publication.clone());
        } else {
            self.overflowed.store(true, Ordering::Release);
        }
        self.mailbox.notify();
        taken
    }

    /// The next message if there is one.
    pub fn try_next(&self) -> Option<Shared> {
        let publication = self.mailbox.pop()?;
        self.mailbox.release(publication.cost());
        Some(publication)
    }

    /// Waits for the next message; `None` when the tap was cut off and all that came before has been taken. Cancel-safe.
    pub async fn next(&self) -> Option<Shared> {
        loop {
            self.mailbox.begin_turn();
            if let Some(publication) = self.try_next() {
                return Some(publication);
            }
            if self.overflowed.load(Ordering::Acquire) {
                // What was pushed before the cut is visible by now.
                return self.try_next();
            }
            self.mailbox.notified().await;
        }
    }
}
