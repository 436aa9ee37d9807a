//! The closed loop: a fixed number of slots, each with one message under way, freed by the last receipt wherever it happens.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::poll::Bell;

#[derive(Debug)]
struct Slot {
    /// Receipts that are still missing.
    remaining: AtomicU32,
    /// The thread that sends the slot's messages.
    owner: u32,
}

/// All slots of a run.
#[derive(Debug)]
pub(crate) struct ClosedLoop {
    slots: Vec<Slot>,
    /// For each thread: slots that other threads freed. Taken whole, and only between events.
    freed: Vec<Mutex<Vec<u32>>>,
    bells: Vec<Bell>,
}

/// What a receipt did to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    StillUnderWay,
    /// It was the last one, and the slot is this thread's.
    FreedHere,
    /// It was the last one; the slot's thread has been told.
    FreedElsewhere,
}

impl ClosedLoop {
    /// `outstanding` slots, spread over the `senders`, the threads that have something to send.
    pub(crate) fn new(outstanding: u32, senders: &[u32], bells: Vec<Bell>) -> Self {
        let owner = |slot: u32| senders.get(slot as usize % senders.len().max(1)).copied();
        Self {
            slots: (0..outstanding)
                .filter_map(|slot| {
                    Some(Slot {
                        remaining: AtomicU32::new(0),
                        owner: owner(slot)?,
                    })
                })
                .collect(),
            freed: bells.iter().map(|_| Mutex::default()).collect(),
            bells,
        }
    }

    /// The slots of a thread.
    pub(crate) fn owned(&self, thread: u32) -> Vec<u32> {
        let slots = self.slots.iter().zip(0..);
        slots
            .filter(|(slot, _)| slot.owner == thread)
            .map(|(_, index)| index)
            .collect()
    }

    /// A message of this slot is about to be sent, and arrives with so many receipts.
    pub(crate) fn occupy(&self, slot: u32, receipts: u32) {
        if let Some(slot) = self.slots.get(slot as usize) {
            slot.remaining.store(receipts, Ordering::Release);
        }
    }

    /// A receipt that `thread` has not counted before.
    #[inline]
    pub(crate) fn receipt(&self, index: u32, thread: u32) -> Receipt {
        let Some(slot) = self.slots.get(index as usize) else {
            return Receipt::StillUnderWay;
        };
        if slot.remaining.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Receipt::StillUnderWay;
        }
        if slot.owner == thread {
            return Receipt::FreedHere;
        }
        let owner = slot.owner as usize;
        if let Ok(mut freed) = self.freed[owner].lock() {
            freed.push(index);
        }
        self.bells[owner].ring();
        Receipt::FreedElsewhere
    }

    /// Takes what other threads freed for this one.
    pub(crate) fn take_freed(&self, thread: u32, into: &mut Vec<u32>) {
        if self.bells.len() > 1
            && let Ok(mut freed) = self.freed[thread as usize].lock()
        {
            into.append(&mut freed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::Poller;

    #[test]
    fn a_slot_is_free_after_its_last_receipt_and_its_thread_learns_it() {
        let bells: Vec<_> = (0..3).map(|_| Poller::new().unwrap().bell()).collect();
        let closed = ClosedLoop::new(5, &[0, 2], bells);
        assert_eq!(closed.owned(0), [0, 2, 4]);
        assert_eq!(closed.owned(1), Vec::<u32>::new());
        assert_eq!(closed.owned(2), [1, 3]);
        closed.occupy(1, 2);
        assert_eq!(closed.receipt(1, 0), Receipt::StillUnderWay);
        assert_eq!(closed.receipt(1, 0), Receipt::FreedElsewhere);
        let mut freed = Vec::new();
        closed.take_freed(0, &mut freed);
        assert!(freed.is_empty());
        closed.take_freed(2, &mut freed);
        assert_eq!(freed, [1]);
        closed.occupy(1, 1);
        assert_eq!(closed.receipt(1, 2), Receipt::FreedHere);
        assert_eq!(closed.receipt(99, 2), Receipt::StillUnderWay);
    }
}
