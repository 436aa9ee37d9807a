//! A listener in the process.
//!
//! What must stay true: whoever falls asleep has begun a turn before the last look, so that what comes after that look wakes it; and what was
//! pushed before a cut-off is taken before the end is told. The shuttle model of a blocked listener runs the interleavings.

use std::task::Poll;

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
            if let Poll::Ready(found) = self.look() {
                return found;
            }
            self.mailbox.notified().await;
        }
    }

    /// The same on a thread that may block: looks again while `look_again` says so, and then sleeps. It is not asked where the first look
    /// finds something.
    pub fn blocking_next(&self, mut look_again: impl FnMut() -> bool) -> Option<Shared> {
        // No turn begins: after the first push the others find a wake-up on its way, and cost their publisher none.
        loop {
            if let Poll::Ready(found) = self.look() {
                return found;
            }
            if !look_again() {
                break;
            }
        }
        loop {
            self.mailbox.begin_turn();
            if let Poll::Ready(found) = self.look() {
                return found;
            }
            self.mailbox.wait();
        }
    }

    /// What there is: a message, the end (`None`), or nothing yet.
    fn look(&self) -> Poll<Option<Shared>> {
        if let Some(publication) = self.try_next() {
            return Poll::Ready(Some(publication));
        }
        if self.overflowed.load(Ordering::Acquire) {
            // What was pushed before the cut is visible by now.
            return Poll::Ready(self.try_next());
        }
        Poll::Pending
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;
    use std::time::Duration;

    use cauce_protocol::{Epoch, Payload, RoomId, Seq};

    use super::*;
    use crate::publication::{Draft, Publication, RoomKey};

    /// How long a test waits for what must happen.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn message(seq: u64) -> Shared {
        let draft = Draft::new("e".into(), Payload::text("x"));
        let mut message = Publication::draft(draft, RoomKey(1), RoomId(1), Epoch(1));
        message.seq = Seq(seq);
        Shared::new(message)
    }

    /// As the room does it.
    fn push(tap: &Tap, seq: u64) -> bool {
        let message = message(seq);
        tap.push(&message, message.cost())
    }

    fn seq(found: Option<Shared>) -> Option<u64> {
        found.map(|message| message.seq.0)
    }

    fn roomy() -> Tap {
        Tap::new(1 << 20)
    }

    #[test]
    fn a_message_that_is_there_is_taken_at_the_first_look() {
        let tap = roomy();
        assert!(push(&tap, 1) && push(&tap, 2));
        let never = || unreachable!("there was no need to look again");
        assert_eq!(seq(tap.blocking_next(never)), Some(1));
        assert_eq!(seq(tap.blocking_next(never)), Some(2));
        assert_eq!(tap.mailbox.used(), 0);
    }

    #[test]
    fn a_message_that_comes_between_two_looks_is_taken_without_sleep() {
        let tap = roomy();
        let mut looks = 0;
        let found = tap.blocking_next(|| {
            looks += 1;
            // Nobody else is there: a sleep would not end.
            looks < 3 || push(&tap, 1)
        });
        assert_eq!((seq(found), looks), (Some(1), 3));
    }

    #[test]
    fn a_message_that_comes_after_the_last_look_but_before_the_sleep_is_not_slept_on() {
        let tap = roomy();
        let found = tap.blocking_next(|| {
            assert!(push(&tap, 1));
            false
        });
        assert_eq!(seq(found), Some(1));
    }

    #[test]
    fn a_listener_that_is_cut_off_while_it_looks_gets_the_rest_and_then_the_end() {
        let tap = Tap::new(message(1).cost());
        let found = tap.blocking_next(|| {
            assert!(push(&tap, 1) && !push(&tap, 2), "room for one only");
            true
        });
        assert_eq!(seq(found), Some(1));
        let never = || unreachable!("what has ended is not looked at again");
        assert!(tap.blocking_next(never).is_none() && tap.blocking_next(never).is_none());
    }

    /// A listener on a thread of its own that never looks twice: it tells when it is about to sleep, and what it found.
    fn sleeper(tap: &Arc<Tap>) -> (mpsc::Receiver<()>, mpsc::Receiver<Option<u64>>) {
        let (about_to, asleep) = mpsc::channel();
        let (found, told) = mpsc::channel();
        let tap = tap.clone();
        thread::spawn(move || {
            loop {
                let next = seq(tap.blocking_next(|| {
                    let _ = about_to.send(());
                    false
                }));
                let _ = found.send(next);
                if next.is_none() {
                    return;
                }
            }
        });
        (asleep, told)
    }

    #[test]
    fn every_message_wakes_a_listener_that_sleeps() {
        let tap = Arc::new(roomy());
        let (asleep, told) = sleeper(&tap);
        for n in 1..=1_000 {
            asleep.recv_timeout(PATIENCE).expect("it goes to sleep");
            assert!(push(&tap, n));
            assert_eq!(told.recv_timeout(PATIENCE), Ok(Some(n)));
        }
    }

    #[test]
    fn a_listener_that_is_cut_off_while_it_sleeps_gets_the_rest_and_then_the_end() {
        let tap = Arc::new(roomy());
        // All its room is taken, so that the next push cuts it off however fast it is.
        assert!(tap.mailbox.reserve(1 << 20));
        let (asleep, told) = sleeper(&tap);
        asleep.recv_timeout(PATIENCE).expect("it goes to sleep");
        for n in 1..=3 {
            // Pushed and not yet told.
            tap.mailbox.push(message(n));
        }
        assert!(!push(&tap, 4));
        for expected in [Some(1), Some(2), Some(3), None] {
            assert_eq!(told.recv_timeout(PATIENCE), Ok(expected));
        }
    }
}
