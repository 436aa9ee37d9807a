//! What a durable room adds: a journal that every message goes into, a lease on numbers, and publishers who wait for the disk.
//!
//! What must stay true:
//! - A number is given only if a lease that covers it is on the disk, or if the disk does not know this numbering at all. So
//!   after a crash, numbering that goes on behind the lease gives no number twice.
//! - Whoever waits for a commit is told exactly once: when the message is on the disk, or that it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc as StdArc;

use cauce_protocol::{Code, Refusal, RoomName, Seq};

use super::Accepted;
use crate::publication::Shared;
use crate::rooms::class::Keep;
use crate::sync::Mutex;

/// Numbers that a lease reaches ahead. One row of the store renews it every half of this.
pub const LEASE_NUMBERS: u64 = 4_096;

/// Messages that the disk refused which a room remembers.
const GIVEN_UP_MAX: usize = 256;

/// Publishers who wait for the same message: the first and those who repeat it.
const WAITING_FOR_ONE_MAX: usize = 64;

/// What is asked of a publisher when the store is behind.
const UNAVAILABLE_RETRY_MS: u32 = 1_000;

/// Takes the messages of durable rooms. Called with the room's lock held, so it never waits.
pub trait Journal {
    /// # Errors
    /// If a message of this cost would not be taken; then nothing was reserved.
    fn reserve(&self, cost: usize) -> Result<(), Refusal>;

    /// Takes the message for which room was reserved.
    fn append(&self, entry: JournalEntry, cost: usize);
}

/// One message on its way to the disk.
pub struct JournalEntry {
    pub publication: Shared,
    pub room: RoomName,
    /// Publisher and key, as [`super::Repeat::name`] joins them.
    pub repeat: Option<Box<str>>,
    pub lease: Seq,
    pub keep: Keep,
    /// To be called exactly once.
    pub committed: Box<dyn FnOnce(Result<(), Refusal>) + Send>,
    /// To be called at most once, before that, if the commit takes long.
    pub late: Box<dyn FnOnce(Refusal) + Send>,
}

impl fmt::Debug for JournalEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalEntry")
            .field("room", &self.room)
            .field("seq", &self.publication.seq)
            .finish_non_exhaustive()
    }
}

/// Called when a publish is on the disk, or will not be.
pub type OnCommit = Box<dyn FnOnce(Accepted, Result<(), Refusal>) + Send>;

/// Where a durable room stood when it was last in use.
#[derive(Clone, Debug)]
pub struct Head {
    pub epoch: cauce_protocol::Epoch,
    /// The last number on the disk.
    pub last: u64,
    /// The last number that may have been given.
    pub given: u64,
    /// The lease on the disk.
    pub lease: u64,
    /// Idempotency keys that are still promised, oldest first.
    pub keys: Vec<HeadKey>,
}

/// A key from before the room was made.
#[derive(Clone, Debug)]
pub struct HeadKey {
    /// Publisher and key, as [`super::Repeat::name`] joins them.
    pub name: Box<str>,
    pub seq: u64,
    /// When it came, in monotonic milliseconds.
    pub at_ms: u64,
    /// For how long it is promised.
    pub window_ms: u64,
}

/// Whether memory has what the disk has of the newest messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backfill {
    Needed,
    Running,
    Done,
}

#[derive(Debug)]
pub(super) struct Durable {
    /// As far as rows have claimed.
    pub(super) lease: u64,
    pub(super) backfill: Backfill,
    /// The last number that was given before the room was made. What the disk does not have up to here is nowhere.
    pub(super) begun: u64,
    commits: StdArc<Commits>,
}

impl Durable {
    /// `head` if the disk knows the room.
    pub(super) fn new(seq: u64, head: Option<&Head>) -> Self {
        let (lease, committed) = match head {
            Some(head) => (head.lease, head.last),
            // The disk does not know this numbering: if the row that makes it known is lost, so is the numbering.
            None => (seq + LEASE_NUMBERS, seq),
        };
        Self {
            lease,
            backfill: match head {
                Some(head) if head.last > 0 => Backfill::Needed,
                _ => Backfill::Done,
            },
            begun: seq,
            commits: StdArc::new(Commits(Mutex::new(Inner {
                leased: lease,
                committed,
                // What an earlier life has given is settled: a room closes only when all of it is.
                settled: seq,
                unsettled: BTreeSet::new(),
                late: 0,
                waiting: BTreeMap::new(),
                given_up: BTreeMap::new(),
            }))),
        }
    }

    /// Whether the number may be given to a message of this cost now; if so, the journal has room for it.
    pub(super) fn admit(&self, seq: u64, cost: usize, journal: Option<&dyn Journal>) -> Result<(), Refusal> {
        if self.leased() < seq {
            return Err(behind(
                "the store is behind: no more numbers may be given before it has written",
            ));
        }
        match journal {
            Some(journal) => journal.reserve(cost),
            None => Err(Refusal::new(
                Code::Unsupported,
                "this broker runs without a database: it has no durable rooms",
            )),
        }
    }

    /// Numbers up to this one may be given.
    pub(super) fn leased(&self) -> u64 {
        self.commits.0.lock().leased
    }

    /// The last number on the disk.
    pub(super) fn committed(&self) -> u64 {
        self.commits.0.lock().committed
    }

    /// Up to this number, what the disk does not have it never will.
    pub(super) fn settled(&self) -> u64 {
        let inner = self.commits.0.lock();
        inner.unsettled.first().map_or(inner.settled, |first| first - 1)
    }

    /// Whether nothing is on its way to the disk.
    pub(super) fn is_settled(&self) -> bool {
        self.commits.0.lock().unsettled.is_empty()
    }

    /// What a message must carry to the disk.
    pub(super) fn entry(
        &mut self,
        publication: &Shared,
        room: &RoomName,
        repeat: Option<Box<str>>,
        keep: Keep,
    ) -> JournalEntry {
        let seq = publication.seq.0;
        if self.lease.saturating_sub(seq) < LEASE_NUMBERS / 2 {
            self.lease = seq + LEASE_NUMBERS;
        }
        self.commits.0.lock().unsettled.insert(seq);
        let (commits, lease) = (self.commits.clone(), self.lease);
        let waiting = commits.clone();
        JournalEntry {
            publication: publication.clone(),
            room: room.clone(),
            repeat,
            lease: Seq(lease),
            keep,
            committed: Box::new(move |result| commits.settle(seq, lease, result)),
            late: Box::new(move |refusal| waiting.late(seq, &refusal)),
        }
    }

    /// Calls back when the message is on the disk. Answers whether it is already.
    ///
    /// # Errors
    /// If the disk has refused it for good, or takes too long, or too many wait already.
    pub(super) fn wait(&self, accepted: Accepted, on_commit: &dyn Fn() -> OnCommit) -> Result<bool, Refusal> {
        let mut inner = self.commits.0.lock();
        if let Some(refusal) = inner.given_up.get(&accepted.seq.0) {
            return Err(refusal.clone());
        }
        if inner.committed >= accepted.seq.0 {
            return Ok(true);
        }
        if accepted.seq.0 <= inner.late {
            return Err(behind("the message is not on the disk yet; it may be later"));
        }
        let waiting = inner.waiting.entry(accepted.seq.0).or_default();
        if waiting.len() >= WAITING_FOR_ONE_MAX {
            return Err(behind("many wait for this message to be on the disk already"));
        }
        waiting.push((accepted, on_commit()));
        Ok(false)
    }
}

fn behind(message: &'static str) -> Refusal {
    Refusal::new(Code::Unavailable, message).retry_after(UNAVAILABLE_RETRY_MS)
}

/// Who waits for which number.
struct Commits(Mutex<Inner>);

struct Inner {
    leased: u64,
    committed: u64,
    /// The last number of which the disk has said what became of it.
    settled: u64,
    /// On their way to the disk. As many as its queue takes.
    unsettled: BTreeSet<u64>,
    /// Whoever waited for numbers up to this one was told that the disk takes too long.
    late: u64,
    waiting: BTreeMap<u64, Vec<(Accepted, OnCommit)>>,
    /// The newest messages that the disk would never take: a repeat of one must not pass for written.
    given_up: BTreeMap<u64, Refusal>,
}

impl Commits {
    fn settle(&self, seq: u64, lease: u64, result: Result<(), Refusal>) {
        let waiting = {
            let mut inner = self.0.lock();
            inner.unsettled.remove(&seq);
            inner.settled = inner.settled.max(seq);
            match &result {
                Ok(()) => {
                    inner.leased = inner.leased.max(lease);
                    inner.committed = inner.committed.max(seq);
                }
                Err(refusal) => {
                    inner.given_up.insert(seq, refusal.clone());
                    if inner.given_up.len() > GIVEN_UP_MAX {
                        inner.given_up.pop_first();
                    }
                }
            }
            inner.waiting.remove(&seq)
        };
        // Outside the lock: those who are called may publish again.
        for (accepted, on_commit) in waiting.into_iter().flatten() {
            on_commit(accepted, result.clone());
        }
    }

    /// Who waits for this number is told; the number and its lease are settled when the row is.
    fn late(&self, seq: u64, refusal: &Refusal) {
        let waiting = {
            let mut inner = self.0.lock();
            inner.late = inner.late.max(seq);
            inner.waiting.remove(&seq)
        };
        for (accepted, on_commit) in waiting.into_iter().flatten() {
            on_commit(accepted, Err(refusal.clone()));
        }
    }
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.0.lock();
        f.debug_struct("Commits")
            .field("leased", &inner.leased)
            .field("committed", &inner.committed)
            .field("waiting", &inner.waiting.len())
            .finish()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::publication::{Draft, Publication, RoomKey};
    use crate::rooms::Written;
    use cauce_protocol::message::Text;
    use cauce_protocol::{Epoch, Payload, RoomId};

    fn entry(durable: &mut Durable, seq: u64) -> JournalEntry {
        let draft = Draft::new(Text::from("e"), Payload::NULL);
        let mut publication = Publication::draft(draft, RoomKey(1), RoomId(1), Epoch(1));
        publication.seq = Seq(seq);
        let name = RoomName::new("r").unwrap();
        durable.entry(&StdArc::new(publication), &name, None, Keep::NONE)
    }

    fn accepted(seq: u64) -> Accepted {
        Accepted {
            epoch: Epoch(1),
            seq: Seq(seq),
            receivers: 0,
            repeated: true,
            written: Written::No,
        }
    }

    #[test]
    fn who_repeats_a_message_that_the_disk_does_not_take_never_waits_for_ever_nor_without_bound() {
        let mut durable = Durable::new(0, None);
        let row = entry(&mut durable, 1);
        let told = StdArc::new(AtomicUsize::new(0));
        let on_commit = || -> OnCommit {
            let told = told.clone();
            Box::new(move |_, result| {
                result.unwrap_err();
                told.fetch_add(1, Ordering::Relaxed);
            })
        };
        for _ in 0..WAITING_FOR_ONE_MAX {
            assert_eq!(durable.wait(accepted(1), &on_commit), Ok(false));
        }
        let refusal = durable.wait(accepted(1), &on_commit).unwrap_err();
        assert_eq!(refusal.code, Code::Unavailable);
        (row.late)(behind("late"));
        assert_eq!(told.load(Ordering::Relaxed), WAITING_FOR_ONE_MAX);
        // Nobody would call again before the disk has taken it.
        let refusal = durable.wait(accepted(1), &on_commit).unwrap_err();
        assert_eq!(refusal.code, Code::Unavailable);
        (row.committed)(Ok(()));
        assert_eq!(durable.wait(accepted(1), &on_commit), Ok(true));
        assert_eq!(told.load(Ordering::Relaxed), WAITING_FOR_ONE_MAX);
    }

    #[test]
    fn numbers_are_settled_that_were_given_before_or_that_the_disk_has_taken_or_refused() {
        let head = Head {
            epoch: Epoch(1),
            last: 100,
            given: 4_196,
            lease: 8_292,
            keys: Vec::new(),
        };
        let mut durable = Durable::new(head.given, Some(&head));
        assert_eq!((durable.committed(), durable.settled()), (100, 4_196));
        (entry(&mut durable, 4_197).committed)(Err(behind("refused")));
        assert_eq!((durable.committed(), durable.settled()), (100, 4_197));
        (entry(&mut durable, 4_198).committed)(Ok(()));
        assert_eq!((durable.committed(), durable.settled()), (4_198, 4_198));
    }
}
