//! How threads hand work to each other: many senders, one owner, no lock, no waiting.
//!
//! What must stay true:
//! - Room is reserved before something is decided and given back after it is done, so a sender learns *before* it numbers a
//!   message whether every owner can take it. What has been reserved is never refused.
//! - One owner sees the messages of one sender in the order of their pushes, and messages pushed under one lock in the lock's
//!   order.
//! - An owner is woken once per turn however many push, and never sleeps on a message: the flag falls before the queue is
//!   read and rises after it was written. The shuttle test below runs the interleavings.

use crate::sync::{AtomicBool, AtomicUsize, Ordering, SegQueue};

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

/// Wakes a task of a tokio runtime, from any thread.
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
