//! What one receiver has seen of one publisher: each number is new, late or a double, and what never came is lost. Counted,
//! not estimated. Pure.

/// Ranges of missing numbers that one ledger remembers. Beyond, the oldest is given up: its messages stay lost, and one that
/// comes after all counts as a double.
const HOLES_MAX: usize = 4_096;

/// What a number was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The next one, or one after a hole.
    New,
    /// It fills a hole: a later one came before it.
    Late,
    /// It had come before.
    Double,
}

/// The account of one publisher's messages at one receiver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// All numbers below have come or are holes.
    next: u64,
    received: u64,
    pub(crate) doubles: u32,
    pub(crate) late: u32,
    /// Ascending, disjoint, end excluded. None until the first hole: most receivers never have one.
    #[expect(
        clippy::box_collection,
        reason = "a pointer in the ledgers that never need it"
    )]
    holes: Option<Box<Vec<(u64, u64)>>>,
}

impl Ledger {
    #[inline]
    pub(crate) fn see(&mut self, number: u64) -> Seen {
        if number == self.next {
            self.next += 1;
            self.received += 1;
            return Seen::New;
        }
        self.see_out_of_turn(number)
    }

    #[cold]
    fn see_out_of_turn(&mut self, number: u64) -> Seen {
        if number > self.next {
            let holes = self.holes.get_or_insert_default();
            if holes.len() >= HOLES_MAX {
                holes.remove(0);
            }
            holes.push((self.next, number));
            self.next = number.saturating_add(1);
            self.received += 1;
            return Seen::New;
        }
        let holes = self.holes.as_deref_mut();
        let found = holes.and_then(|holes| {
            let at = holes.partition_point(|&(_, end)| end <= number);
            (holes.get(at)?.0 <= number).then_some((holes, at))
        });
        let Some((holes, at)) = found else {
            self.doubles += 1;
            return Seen::Double;
        };
        let (from, end) = holes[at];
        match (from < number, number + 1 < end) {
            (true, true) => {
                holes[at] = (from, number);
                holes.insert(at + 1, (number + 1, end));
            }
            (true, false) => holes[at] = (from, number),
            (false, true) => holes[at] = (number + 1, end),
            (false, false) => {
                holes.remove(at);
            }
        }
        self.late += 1;
        self.received += 1;
        Seen::Late
    }

    /// How many of the `sent` first messages never came.
    pub(crate) fn lost(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn in_turn_nothing_is_lost_late_or_double() {
        let mut ledger = Ledger::default();
        for n in 0..1000 {
            assert_eq!(ledger.see(n), Seen::New);
        }
        assert_eq!((ledger.lost(1000), ledger.late, ledger.doubles), (0, 0, 0));
        assert_eq!(ledger.lost(1003), 3);
    }

    #[test]
    fn a_swap_of_two_is_one_late_message_and_no_loss() {
        let mut ledger = Ledger::default();
        let seen: Vec<_> = [0, 2, 1, 3].map(|n| ledger.see(n)).into();
        assert_eq!(seen, [Seen::New, Seen::New, Seen::Late, Seen::New]);
        assert_eq!((ledger.lost(4), ledger.late, ledger.doubles), (0, 1, 0));
    }

    #[test]
    fn holes_are_bounded_and_what_is_forgotten_stays_lost() {
        let mut ledger = Ledger::default();
        for n in 0..=HOLES_MAX as u64 {
            ledger.see(2 * n + 1);
        }
        assert_eq!(ledger.see(0), Seen::Double);
        assert_eq!(ledger.see(2), Seen::Late);
    }

    proptest! {
        /// Against the plainest model there is: a set and the highest number so far.
        #[test]
        fn every_number_is_judged_as_a_set_would(numbers in prop::collection::vec(0u64..60, 0..200), more in 0u64..10) {
            let (mut ledger, mut set, mut highest) = (Ledger::default(), BTreeSet::new(), None);
            for &n in &numbers {
                let expected = match (set.insert(n), highest) {
                    (false, _) => Seen::Double,
                    (true, Some(h)) if n < h => Seen::Late,
                    (true, _) => Seen::New,
                };
                highest = highest.max(Some(n));
                prop_assert_eq!(ledger.see(n), expected);
            }
            let sent = highest.map_or(0, |h| h + 1) + more;
            prop_assert_eq!(ledger.lost(sent), sent - set.len() as u64);
        }
    }
}
