//! When each message is due: message k at k/rate, whatever became of the earlier ones; in bursts, all of one when its first is. Pure.
//!
//! Message k is published by publisher `k % publishers`. A thread that drives some of the publishers walks its own messages
//! and meets each exactly once, so that threads together send the whole schedule.

use crate::clock::SECOND_NS;

/// One message of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) publisher: u32,
    /// Since the run's first message was due.
    pub(crate) at_ns: u64,
}

/// The part of the schedule that one thread sends.
#[derive(Debug)]
pub(crate) struct Schedule {
    messages_per_second: f64,
    /// Messages that are due at the same moment.
    burst: u64,
    publishers: u64,
    /// Ascending.
    owned: Vec<u32>,
    until_ns: u64,
    round: u64,
    turn: usize,
}

impl Schedule {
    /// The messages of the publishers `owned` out of `publishers`, up to but without `until_ns`.
    pub(crate) fn new(messages_per_second: f64, publishers: u32, mut owned: Vec<u32>, until_ns: u64) -> Self {
        owned.sort_unstable();
        Self {
            messages_per_second,
            burst: 1,
            publishers: u64::from(publishers),
            owned,
            until_ns,
            round: 0,
            turn: 0,
        }
    }

    /// The same rate, so many messages at a time.
    pub(crate) fn in_bursts(self, burst: u32) -> Self {
        Self {
            burst: u64::from(burst.max(1)),
            ..self
        }
    }

    /// The next message, if one is left.
    pub(crate) fn peek(&self) -> Option<Due> {
        let publisher = *self.owned.get(self.turn)?;
        let k = self.round * self.publishers + u64::from(publisher);
        let at_ns = due_ns(k - k % self.burst, self.messages_per_second);
        (at_ns < self.until_ns).then_some(Due { publisher, at_ns })
    }

    pub(crate) fn advance(&mut self) {
        self.turn += 1;
        if self.turn >= self.owned.len() {
            self.turn = 0;
            self.round += 1;
        }
    }
}

/// When message `k` is due. A double is exact to the nanosecond for 104 days.
fn due_ns(k: u64, messages_per_second: f64) -> u64 {
    (k as f64 * SECOND_NS as f64 / messages_per_second) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(mut schedule: Schedule) -> Vec<Due> {
        let mut out = Vec::new();
        while let Some(due) = schedule.peek() {
            out.push(due);
            schedule.advance();
        }
        out
    }

    #[test]
    fn messages_are_due_evenly_and_by_turns() {
        let all = walk(Schedule::new(4.0, 2, vec![0, 1], SECOND_NS));
        let at: Vec<_> = all.iter().map(|d| (d.publisher, d.at_ns)).collect();
        assert_eq!(at, [(0, 0), (1, 250_000_000), (0, 500_000_000), (1, 750_000_000)]);
    }

    #[test]
    fn a_burst_is_due_when_its_first_message_is() {
        let all = walk(Schedule::new(8.0, 1, vec![0], SECOND_NS).in_bursts(3));
        let at: Vec<_> = all.iter().map(|d| d.at_ns / 1_000_000).collect();
        assert_eq!(at, [0, 0, 0, 375, 375, 375, 750, 750, 750]);
    }

    #[test]
    fn a_thread_without_publishers_has_nothing_to_send() {
        assert_eq!(Schedule::new(1000.0, 1, vec![], SECOND_NS).peek(), None);
    }

    #[test]
    fn a_rate_below_one_a_second_is_a_rate() {
        let all = walk(Schedule::new(0.5, 1, vec![0], 5 * SECOND_NS));
        assert_eq!(
            all.iter().map(|d| d.at_ns / SECOND_NS).collect::<Vec<_>>(),
            [0, 2, 4]
        );
    }

    proptest! {
        /// However the publishers are spread over threads, together they send what one thread would.
        #[test]
        fn threads_together_send_the_whole_schedule_once(
            publishers in 1u32..40, threads in 1u32..5, rate in 1u32..5_000,
        ) {
            let rate = f64::from(rate);
            let until = SECOND_NS / 4;
            let whole = walk(Schedule::new(rate, publishers, (0..publishers).collect(), until));
            let mut parts: Vec<_> = (0..threads)
                .flat_map(|t| walk(Schedule::new(rate, publishers, (0..publishers).filter(|p| p % threads == t).collect(), until)))
                .collect();
            parts.sort_by_key(|d| (d.at_ns, d.publisher));
            prop_assert_eq!(parts, whole);
        }
    }
}
