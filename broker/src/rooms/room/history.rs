//! What a room has kept: its newest messages in the order of their numbers, bounded by count, age and bytes.
//!
//! What must stay true:
//! - Numbers rise from front to back. A hole between two neighbours is a loss, and every reader sees it by the numbers.
//! - Every byte kept is counted in the tenant's budget, and given back when it goes.

use std::collections::VecDeque;
use std::sync::Arc as StdArc;

use crate::publication::Shared;
use crate::rooms::class::Keep;
use crate::sync::{AtomicUsize, Ordering};

/// Memory for the history of all rooms of a tenant, in bytes.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    bytes_max: usize,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            bytes_max,
        }
    }

    /// Bytes that rooms keep now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.used() > self.bytes_max
    }
}

/// A message and when it came, in monotonic milliseconds.
#[derive(Debug)]
struct Entry {
    at_ms: u64,
    publication: Shared,
}

#[derive(Debug)]
pub(super) struct History {
    entries: VecDeque<Entry>,
    bytes: usize,
    budget: StdArc<Budget>,
}

/// Numbers that are lost, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub from: u64,
    pub to: u64,
}

impl History {
    pub(super) fn new(budget: StdArc<Budget>) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            budget,
        }
    }

    /// Appends the newest message and lets go of what is too much, too old or too large.
    pub(super) fn push(&mut self, publication: &Shared, keep: Keep, now_ms: u64) {
        self.charge(publication.cost());
        self.entries.push_back(Entry {
            at_ms: now_ms,
            publication: publication.clone(),
        });
        self.trim(keep, now_ms);
    }

    /// Puts older messages, newest last, in front of what is there, as many as fit. Those that are there already are passed over:
    /// some may have come while the others were looked up.
    pub(super) fn backfill(&mut self, older: Vec<(u64, Shared)>, keep: Keep, now_ms: u64) {
        let first = self.first().unwrap_or(u64::MAX);
        let older = older.into_iter().rev();
        for (at_ms, publication) in older.skip_while(|(_, publication)| publication.seq.0 >= first) {
            let full = self.entries.len() >= keep.messages as usize
                || keep.bytes > 0 && (self.bytes + publication.cost()) as u64 > keep.bytes
                || self.budget.is_over();
            if full {
                break;
            }
            self.charge(publication.cost());
            self.entries.push_front(Entry { at_ms, publication });
        }
        self.trim(keep, now_ms);
    }

    /// Lets go of what is beyond the bounds.
    pub(super) fn trim(&mut self, keep: Keep, now_ms: u64) {
        while let Some(oldest) = self.entries.front() {
            let beyond = self.entries.len() > keep.messages as usize
                || keep.age_ms > 0 && oldest.at_ms.saturating_add(keep.age_ms) <= now_ms
                || keep.bytes > 0 && self.bytes as u64 > keep.bytes
                || self.budget.is_over();
            if !beyond {
                return;
            }
            self.drop_oldest();
        }
        // What held a burst is not kept for ever.
        if self.entries.capacity() > 1_024 {
            self.entries = VecDeque::new();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            let cost = entry.publication.cost();
            self.bytes -= cost;
            self.budget.used.fetch_sub(cost, Ordering::Relaxed);
        }
    }

    fn charge(&mut self, cost: usize) {
        self.bytes += cost;
        self.budget.used.fetch_add(cost, Ordering::Relaxed);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The oldest number that is kept.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.publication.seq.0)
    }

    /// When the newest message came.
    pub(super) fn newest_ms(&self) -> Option<u64> {
        self.entries.back().map(|entry| entry.at_ms)
    }

    /// Messages after `seq`, oldest first.
    pub(super) fn after(&self, seq: u64) -> impl DoubleEndedIterator<Item = &Shared> {
        let start = self
            .entries
            .partition_point(|entry| entry.publication.seq.0 <= seq);
        self.entries.range(start..).map(|entry| &entry.publication)
    }

    /// Messages before `seq`, newest first.
    pub(super) fn before(&self, seq: u64) -> impl Iterator<Item = &Shared> {
        let end = self
            .entries
            .partition_point(|entry| entry.publication.seq.0 < seq);
        self.entries.range(..end).rev().map(|entry| &entry.publication)
    }

    /// The number before the first message that came at `since_ms` or later; `head` if none did.
    pub(super) fn before_time(&self, since_ms: u64, head: u64) -> u64 {
        let at = self.entries.partition_point(|entry| entry.at_ms < since_ms);
        self.entries
            .get(at)
            .map_or(head, |entry| entry.publication.seq.0 - 1)
    }

    /// Where a reader begins that wants the newest `count` messages.
    pub(super) fn back(&self, count: usize, head: u64) -> u64 {
        let at = self.entries.len().saturating_sub(count);
        self.entries
            .get(at)
            .map_or(head, |entry| entry.publication.seq.0 - 1)
    }

    /// The first numbers after `seq` and up to `head` that are not here.
    pub(super) fn first_loss(&self, seq: u64, head: u64) -> Option<Lost> {
        let mut expected = seq + 1;
        let (mut entries, mut count) = (self.after(seq), 0);
        // The usual case without a walk: as many messages as numbers.
        if let (Some(first), Some(last)) = (entries.next(), self.entries.back()) {
            count =
                (self.entries.len() - self.entries.partition_point(|e| e.publication.seq.0 <= seq)) as u64;
            if first.seq.0 == expected && last.publication.seq.0 == head && head - seq == count {
                return None;
            }
        }
        if count > 0 {
            for publication in self.after(seq) {
                if publication.seq.0 > expected {
                    break;
                }
                expected = publication.seq.0 + 1;
            }
        }
        let next = self.after(expected - 1).next().map(|p| p.seq.0);
        let to = next.map_or(head, |next| next - 1);
        (expected <= to).then_some(Lost { from: expected, to })
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::publication::{Draft, Publication, RoomKey};
    use cauce_protocol::message::Text;
    use cauce_protocol::{Epoch, Payload, RoomId, Seq};

    fn message(seq: u64, bytes: usize) -> Shared {
        let draft = Draft::new(Text::from("e"), Payload::text("x".repeat(bytes)));
        let mut publication = Publication::draft(draft, RoomKey(1), RoomId(1), Epoch(1));
        publication.seq = Seq(seq);
        StdArc::new(publication)
    }

    fn numbers<'a>(messages: impl Iterator<Item = &'a Shared>) -> Vec<u64> {
        messages.map(|message| message.seq.0).collect()
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push { skip: u64, bytes: usize },
        Pass { ms: u64 },
    }

    proptest! {
        /// Against a plain list of (number, time, cost).
        #[test]
        fn what_is_kept_is_the_newest_within_every_bound(
            messages in 0u32..8, age_ms in 0u64..50, bytes in prop_oneof![Just(0u64), 300u64..2_000],
            ops in prop::collection::vec(prop_oneof![
                4 => (0u64..3, 0usize..200).prop_map(|(skip, bytes)| Op::Push { skip, bytes }),
                1 => (0u64..30).prop_map(|ms| Op::Pass { ms }),
            ], 1..60),
            asked in 0u64..80,
        ) {
            let keep = Keep { messages, age_ms, bytes };
            let budget = StdArc::new(Budget::new(usize::MAX));
            let mut history = History::new(budget.clone());
            let (mut model, mut seq, mut now) = (Vec::<(u64, u64, u64)>::new(), 0u64, 100u64);
            for op in ops {
                match op {
                    Op::Push { skip, bytes } => {
                        seq += 1 + skip;
                        let message = message(seq, bytes);
                        model.push((seq, now, message.cost() as u64));
                        history.push(&message, keep, now);
                    }
                    Op::Pass { ms } => {
                        now += ms;
                        history.trim(keep, now);
                    }
                }
                loop {
                    let sum: u64 = model.iter().map(|m| m.2).sum();
                    let beyond = model.len() > messages as usize
                        || keep.age_ms > 0 && model.first().is_some_and(|m| m.1 + age_ms <= now)
                        || keep.bytes > 0 && sum > bytes;
                    if model.is_empty() || !beyond { break }
                    model.remove(0);
                }
                let expected: Vec<u64> = model.iter().map(|m| m.0).collect();
                prop_assert_eq!(numbers(history.after(0)), expected.clone());
                prop_assert_eq!(budget.used() as u64, model.iter().map(|m| m.2).sum::<u64>());
                prop_assert_eq!(numbers(history.before(asked)), expected.iter().rev().copied().filter(|&s| s < asked).collect::<Vec<_>>());
                if asked <= seq {
                    let missing: Vec<u64> = (asked + 1..=seq).filter(|s| !expected.contains(s)).collect();
                    let first = missing.first().map(|&from| {
                        let run = missing.iter().zip(from..).take_while(|(a, b)| **a == *b).count() as u64;
                        Lost { from, to: from + run - 1 }
                    });
                    prop_assert_eq!(history.first_loss(asked, seq), first);
                }
            }
            drop(history);
            prop_assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn what_is_put_in_front_never_overlaps_and_never_exceeds_the_bounds() {
        let keep = Keep {
            messages: 5,
            age_ms: 0,
            bytes: 0,
        };
        let mut history = History::new(StdArc::new(Budget::new(usize::MAX)));
        history.push(&message(10, 1), keep, 100);
        history.push(&message(11, 1), keep, 100);
        // 10 and 11 came while the others were looked up.
        history.backfill((3..=11).map(|seq| (50, message(seq, 1))).collect(), keep, 100);
        assert_eq!(numbers(history.after(0)), [7, 8, 9, 10, 11]);
    }

    #[test]
    fn a_tenant_over_its_budget_keeps_less() {
        let keep = Keep {
            messages: 100,
            age_ms: 0,
            bytes: 0,
        };
        let one = message(1, 100).cost();
        let budget = StdArc::new(Budget::new(3 * one));
        let mut history = History::new(budget.clone());
        for seq in 1..=10 {
            history.push(&message(seq, 100), keep, 0);
            assert!(budget.used() <= 3 * one);
        }
        assert_eq!(numbers(history.after(0)), [8, 9, 10]);
    }
}
