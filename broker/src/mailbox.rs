//! How threads hand work to each other: many senders, one owner, no lock, no waiting.
//!
//! What must stay true:
//! - Room is reserved before something is decided and given back after it is done, so a sender learns *before* it numbers a
//!   message whether every owner can take it. What has been reserved is never refused.
//! - No tenant takes more than its part of a mailbox ([`Share`]), so that a flood of one leaves room to the others.
//! - One owner sees the messages of one sender in the order of their pushes, and messages pushed under one lock in the lock's
//!   order.
//! - An owner is woken once per turn however many push, and never sleeps on a message: the flag falls before the queue is
//!   read and rises after it was written. The shuttle test below runs the interleavings.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use crate::sync::{AtomicBool, AtomicUsize, Ordering, SegQueue, thread};

/// An owner for whom so many bytes wait is behind. Some hundred small messages: what waits longest for it waits a few
/// milliseconds, and a flood does not fill the queue of which others need a place.
pub const BEHIND_BYTES: usize = 128 * 1024;

/// One tenant may have this part of a mailbox.
const SHARE_DIVISOR: usize = 2;

/// Mailboxes in which a tenant may have something: one bit each in a room's set of listeners.
pub const OWNERS_MAX: usize = 64;

/// Wakes the owner of a mailbox. The real one unparks a thread that may sleep in its poll.
pub trait Wake {
    fn wake(&self);
}

/// A queue bounded by the sum of its messages' costs.
#[derive(Debug)]
pub struct Mailbox<T, W> {
    queue: SegQueue<T>,
    /// Reserved and not yet released, in the unit of the cost (bytes).
    used: AtomicUsize,
    capacity: usize,
    /// Reservations for which there was no room.
    refused: AtomicUsize,
    /// A wake-up is on its way, or the owner is at work and will look again.
    scheduled: AtomicBool,
    waker: W,
}

impl<T, W: Wake> Mailbox<T, W> {
    /// `capacity` is in the unit of the costs.
    pub fn new(capacity: usize, waker: W) -> Self {
        Self {
            queue: SegQueue::new(),
            used: AtomicUsize::new(0),
            capacity,
            refused: AtomicUsize::new(0),
            scheduled: AtomicBool::new(false),
            waker,
        }
    }

    /// Room for a message of this cost. An empty mailbox takes any single message, so that nothing is refused for ever.
    pub fn reserve(&self, cost: usize) -> bool {
        let before = self.used.fetch_add(cost, Ordering::Relaxed);
        if before == 0 || before + cost <= self.capacity {
            return true;
        }
        self.used.fetch_sub(cost, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Gives back what `reserve` gave: by the sender who found another mailbox full, or by the owner when the work is done.
    pub fn release(&self, cost: usize) {
        self.used.fetch_sub(cost, Ordering::Relaxed);
    }

    /// Queues a message for which room was reserved, or one whose number is bounded elsewhere (a handed-over socket, an
    /// answer). The owner sleeps on until [`Mailbox::notify`].
    pub fn push(&self, message: T) {
        self.queue.push(message);
    }

    /// Wakes the owner, unless somebody has since its last look.
    pub fn notify(&self) {
        if !self.scheduled.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Pushes and notifies.
    pub fn send(&self, message: T) {
        self.push(message);
        self.notify();
    }

    /// The owner begins to look: from here on a push wakes it again.
    pub fn begin_turn(&self) {
        self.scheduled.swap(false, Ordering::AcqRel);
    }

    /// The owner's next message.
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Reserved, in the unit of the costs.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How often there was no room.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// What wakes the owner.
    pub fn waker(&self) -> &W {
        &self.waker
    }
}

/// What one tenant has waiting in the mailboxes, each for itself: reserved with the mailbox, and given back when the owner has
/// done the work.
#[derive(Debug)]
pub struct Share {
    /// By the mailbox's number.
    used: [AtomicUsize; OWNERS_MAX],
    refused: AtomicUsize,
    /// Rung when an owner that was behind with this tenant no longer is. Kept if nobody waits, so none is missed.
    caught_up: tokio::sync::Notify,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            used: std::array::from_fn(|_| AtomicUsize::new(0)),
            refused: AtomicUsize::new(0),
            caught_up: tokio::sync::Notify::new(),
        }
    }
}

impl Share {
    /// Room in this tenant's part of a mailbox of so much capacity. An empty part takes any single message.
    pub fn reserve(&self, owner: usize, cost: usize, capacity: usize) -> bool {
        let before = self.used[owner].fetch_add(cost, Ordering::Relaxed);
        if before == 0 || before + cost <= capacity / SHARE_DIVISOR {
            return true;
        }
        self.release(owner, cost);
        self.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Gives back what `reserve` gave.
    pub fn release(&self, owner: usize, cost: usize) {
        let before = self.used[owner].fetch_sub(cost, Ordering::Relaxed);
        if before > BEHIND_BYTES && before - cost <= BEHIND_BYTES {
            self.caught_up.notify_one();
        }
    }

    /// Reserved in one mailbox, in the unit of the costs.
    pub fn used(&self, owner: usize) -> usize {
        self.used[owner].load(Ordering::Relaxed)
    }

    /// How often there was no room.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether any owner is behind with what this tenant has said.
    pub fn is_behind(&self) -> bool {
        (0..OWNERS_MAX).any(|owner| self.used(owner) > BEHIND_BYTES)
    }

    /// Waits until none is. Cancel-safe; for one at a time, for only one is called.
    pub async fn caught_up(&self) {
        while self.is_behind() {
            self.caught_up.notified().await;
        }
    }
}

/// Wakes a task of a runtime, or a thread that sleeps without one, from any thread.
#[derive(Debug, Default)]
pub struct TaskWaker(pub tokio::sync::Notify);

impl Wake for TaskWaker {
    fn wake(&self) {
        self.0.notify_one();
    }
}

impl<T> Mailbox<T, TaskWaker> {
    /// Waits for [`Mailbox::notify`]. Cancel-safe: a wake-up that came before or during the wait is kept.
    pub async fn notified(&self) {
        self.waker.0.notified().await;
    }

    /// The same for a thread without a runtime, which sleeps until then.
    pub fn wait(&self) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut notified = pin!(self.notified());
        // A wake-up between the look and the sleep is kept for the sleep, which then ends at once.
        while notified.as_mut().poll(&mut context).is_pending() {
            thread::park();
        }
    }
}

/// Wakes a thread that sleeps in [`Mailbox::wait`].
struct Unpark(thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Count(std::cell::Cell<u32>);

    impl Wake for Count {
        fn wake(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn an_owner_is_woken_once_a_turn() {
        let mailbox = Mailbox::new(100, Count::default());
        mailbox.send(1);
        mailbox.send(2);
        assert_eq!(mailbox.waker.0.get(), 1);
        mailbox.begin_turn();
        assert_eq!(
            (mailbox.pop(), mailbox.pop(), mailbox.pop()),
            (Some(1), Some(2), None)
        );
        mailbox.send(3);
        assert_eq!(mailbox.waker.0.get(), 2);
    }

    #[test]
    fn a_full_mailbox_refuses_and_takes_again_when_released() {
        let mailbox = Mailbox::<u8, _>::new(100, Count::default());
        assert!(mailbox.reserve(60) && !mailbox.reserve(60) && mailbox.reserve(40));
        mailbox.release(60);
        assert!(mailbox.reserve(60));
        assert_eq!((mailbox.used(), mailbox.refused()), (100, 1));
    }

    #[test]
    fn one_share_takes_half_of_a_mailbox_and_each_mailbox_counts_for_itself() {
        let (a, b) = (Share::default(), Share::default());
        assert!(a.reserve(0, 50, 100) && !a.reserve(0, 1, 100) && a.reserve(1, 50, 100));
        assert!(b.reserve(0, 30, 100) && !b.reserve(0, 30, 100));
        a.release(0, 20);
        assert!(a.reserve(0, 20, 100));
        assert_eq!((a.used(0), a.refused(), b.refused()), (50, 1, 1));
        assert!(
            Share::default().reserve(0, 1_000, 100),
            "nothing is refused for ever"
        );
    }

    #[test]
    fn who_waits_for_a_share_to_be_taken_goes_on_when_the_last_owner_has_caught_up() {
        let share = Share::default();
        for owner in [0, 7] {
            assert!(share.reserve(owner, BEHIND_BYTES + 1, usize::MAX));
        }
        let mut waiting = std::pin::pin!(share.caught_up());
        let mut poll = || {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            waiting.as_mut().poll(&mut cx).is_ready()
        };
        assert!(!poll());
        share.release(7, 1);
        assert!(!poll(), "the other is behind still");
        // It is called between two looks, and by one who found no room.
        assert!(!share.reserve(7, 2 * BEHIND_BYTES, BEHIND_BYTES));
        share.release(0, 1);
        assert!(poll());
    }

    #[test]
    fn a_message_larger_than_the_mailbox_is_taken_alone() {
        let mailbox = Mailbox::<u8, _>::new(10, Count::default());
        assert!(mailbox.reserve(50) && !mailbox.reserve(1));
    }
}

#[cfg(all(test, shuttle))]
mod models {
    use super::*;
    use shuttle::sync::Arc;

    #[derive(Default)]
    struct Bell {
        rung: shuttle::sync::Mutex<bool>,
        condition: shuttle::sync::Condvar,
    }

    impl Wake for Arc<Bell> {
        fn wake(&self) {
            *self.rung.lock().unwrap() = true;
            self.condition.notify_one();
        }
    }

    impl Bell {
        fn wait(&self) {
            let mut rung = self.rung.lock().unwrap();
            while !*rung {
                rung = self.condition.wait(rung).unwrap();
            }
            *rung = false;
        }
    }

    /// Two senders, one owner that sleeps between turns: if a wake-up could be lost, the owner would sleep for ever, which
    /// shuttle reports as a deadlock.
    #[test]
    fn no_message_is_slept_on_and_each_senders_order_holds() {
        shuttle::check_random(
            || {
                let bell = Arc::new(Bell::default());
                let mailbox = Arc::new(Mailbox::new(1_000, bell.clone()));
                let senders: Vec<_> = (0..2u32)
                    .map(|sender| {
                        let mailbox = mailbox.clone();
                        shuttle::thread::spawn(move || {
                            for n in 0..3u32 {
                                assert!(mailbox.reserve(1));
                                mailbox.push((sender, n));
                                mailbox.notify();
                            }
                        })
                    })
                    .collect();
                let mut next = [0u32; 2];
                while next.iter().sum::<u32>() < 6 {
                    bell.wait();
                    mailbox.begin_turn();
                    while let Some((sender, n)) = mailbox.pop() {
                        mailbox.release(1);
                        assert_eq!(n, next[sender as usize]);
                        next[sender as usize] += 1;
                    }
                }
                for sender in senders {
                    sender.join().unwrap();
                }
                assert_eq!(mailbox.used(), 0);
            },
            5_000,
        );
    }
}
