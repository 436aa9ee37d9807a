//! The buffer between the connection and one reader of the application. Pushing never waits: where the reader is slow, the
//! oldest items give way and are counted, and the reader is told the count before it reads on. Bounded in items and bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a queue holds.
pub(crate) trait Item {
    /// Payload bytes, for the bound.
    fn bytes(&self) -> usize;
    /// Messages that the reader misses if this gives way.
    fn messages(&self) -> u64;
    /// The word for so many missed messages.
    fn lagged(missed: u64) -> Self;
}

/// One lock, held for a push or a pop and never across an await.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    items_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    bytes: usize,
    /// Messages that gave way since the reader was last told.
    missed: u64,
    /// Something gave way, possibly an announcement that stands for no message.
    lagged: bool,
    end: End,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// No more will come; what is here may still be read.
    Finished,
    /// The reader is gone.
    Abandoned,
}

impl<T: Item> Queue<T> {
    pub(crate) fn new(items_max: usize, bytes_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                bytes: 0,
                missed: 0,
                lagged: false,
                end: End::Open,
                waker: None,
            }),
            items_max: items_max.max(1),
            bytes_max,
        }
    }

    /// A panic cannot leave the state half-changed, so a poisoned lock is as good as another.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, item: T) {
        let waker = {
            let mut state = self.lock();
            if state.end != End::Open {
                return;
            }
            state.bytes += item.bytes();
            state.items.push_back(item);
            // The newest stays even if it alone passes the bound in bytes: one frame is bounded elsewhere.
            while state.items.len() > self.items_max
                || (state.bytes > self.bytes_max && state.items.len() > 1)
            {
                let Some(oldest) = state.items.pop_front() else {
                    break;
                };
                state.bytes -= oldest.bytes();
                state.missed += oldest.messages();
                state.lagged = true;
            }
            state.waker.take()
        };
        // Outside the lock, so that a reader woken at once does not run into it.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Nothing comes after what was pushed.
    pub(crate) fn finish(&self) {
        let waker = {
            let mut state = self.lock();
            if state.end == End::Open {
                state.end = End::Finished;
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The reader is gone: what is here is dropped and nothing is taken any more.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.end = End::Abandoned;
        state.items = VecDeque::new();
        state.bytes = 0;
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.lock().end == End::Abandoned
    }

    /// The next item; `None` after the last. Cancel-safe: an item is taken only when it is returned.
    pub(crate) fn poll_pop(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.lock();
        if std::mem::take(&mut state.lagged) {
            let missed = std::mem::take(&mut state.missed);
            return Poll::Ready(Some(T::lagged(missed)));
        }
        if let Some(item) = state.items.pop_front() {
            state.bytes -= item.bytes();
            return Poll::Ready(Some(item));
        }
        if state.end != End::Open {
            return Poll::Ready(None);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Number {
        Is(u64),
        Missed(u64),
    }

    impl Item for Number {
        fn bytes(&self) -> usize {
            10
        }
        fn messages(&self) -> u64 {
            1
        }
        fn lagged(missed: u64) -> Self {
            Self::Missed(missed)
        }
    }

    fn pop(queue: &Queue<Number>) -> Poll<Option<Number>> {
        queue.poll_pop(&mut Context::from_waker(Waker::noop()))
    }

    proptest! {
        #[test]
        fn what_is_read_and_what_is_reported_missed_is_everything_in_order(
            turns in prop::collection::vec((0u64..20, 0usize..20), 1..50),
            items_max in 1usize..10,
            bytes_max in 0usize..200,
        ) {
            let queue = Queue::new(items_max, bytes_max);
            let (mut written, mut next) = (0, 0);
            for (writes, reads) in turns {
                for _ in 0..writes {
                    queue.push(Number::Is(written));
                    written += 1;
                }
                for _ in 0..reads {
                    match pop(&queue) {
                        Poll::Ready(Some(Number::Is(n))) => {
                            prop_assert_eq!(n, next);
                            next += 1;
                        }
                        Poll::Ready(Some(Number::Missed(n))) => next += n,
                        _ => prop_assert_eq!(next, written),
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_pushed_before_the_end_can_be_read_after_it() {
        let queue = Queue::new(4, 1000);
        queue.push(Number::Is(1));
        queue.finish();
        queue.push(Number::Is(2));
        assert_eq!(pop(&queue), Poll::Ready(Some(Number::Is(1))));
        assert_eq!(pop(&queue), Poll::Ready(None));
    }

    #[test]
    fn one_item_larger_than_the_bound_still_arrives() {
        let queue = Queue::new(4, 5);
        queue.push(Number::Is(1));
        assert_eq!(pop(&queue), Poll::Ready(Some(Number::Is(1))));
    }
}
