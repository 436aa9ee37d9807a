//! One thread of a running load: sends what is due, attends to what is ready, and keeps the seconds.

use std::io;
use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;

use super::guest::Guest;
use super::histogram;
use super::load::{Loaded, Pace, SecondRow, Shared, Window};
use super::shard::{Shard, Stage};
use crate::clock::SECOND_NS;
use crate::poll::{Interest, Wait};
use crate::schedule::Schedule;
use crate::stamp::NO_SLOT;

/// Longest sleep while load runs, so that a thread without traffic notices the end, in nanoseconds.
const NAP_NS: u64 = 20_000_000;
/// What a guest's sockets are called among the thread's; seats are fewer.
const GUEST: u64 = 1 << 32;
/// The same while the last messages arrive.
const DRAIN_NAP_NS: u64 = 1_000_000;
/// What lies in our own sockets when the time to drain has passed has arrived: who was kept from reading it reads it first, for at most so long.
const OVERTIME_NS: u64 = 10 * SECOND_NS;

/// Counts at the beginning of a second.
#[derive(Clone, Copy, Default)]
struct Mark {
    sent: u64,
    received: u64,
}

pub(super) struct Driver<'a> {
    shard: &'a mut Shard,
    shared: &'a Shared,
    guest: Option<&'a mut dyn Guest>,
    schedule: Option<Schedule>,
    /// Publishers of this thread that follow the schedule; the closed loop takes them by turns.
    scheduled: usize,
    turn: usize,
    lateness: Histogram<u64>,
    waited_ns: u64,
    /// The measurement's phase: before the window, its seconds, after it.
    second: Option<u64>,
    mark: Mark,
    at_window: Mark,
    after_window: Option<Mark>,
    /// When the next subscriber loses its connection, and where to look for it.
    next_churn_ns: u64,
    next_churned: usize,
    churn_every_ns: u64,
}

impl<'a> Driver<'a> {
    pub(super) fn new(shard: &'a mut Shard, shared: &'a Shared, guest: Option<&'a mut dyn Guest>) -> Self {
        let Window {
            first_ns,
            from_ns,
            until_ns,
            ..
        } = shared.plan.window;
        shard.meter.from_ns = from_ns;
        shard.meter.until_ns = until_ns;
        let scheduled = shard.world.topology.scheduled;
        let owned: Vec<u32> = shard
            .publishers
            .iter()
            .map(|p| p.index)
            .filter(|p| *p < scheduled)
            .collect();
        let churn = shared.plan.churn_per_second / shared.progress.len() as f64;
        let churn_every_ns = if churn > 0.0 {
            (SECOND_NS as f64 / churn) as u64
        } else {
            u64::MAX
        };
        Self {
            scheduled: owned.len(),
            schedule: match shared.plan.pace {
                Pace::Open {
                    messages_per_second,
                    burst,
                } => {
                    let until_ns = until_ns - first_ns;
                    Some(Schedule::new(messages_per_second, scheduled, owned, until_ns).in_bursts(burst))
                }
                Pace::Closed { .. } => None,
            },
            shard,
            shared,
            guest,
            turn: 0,
            lateness: histogram(),
            waited_ns: 0,
            second: None,
            mark: Mark::default(),
            at_window: Mark::default(),
            after_window: None,
            next_churn_ns: if churn_every_ns == u64::MAX {
                u64::MAX
            } else {
                from_ns
            },
            next_churned: 0,
            churn_every_ns,
        }
    }

    pub(super) fn run(mut self) -> io::Result<Loaded> {
        let clock = self.shard.world.clock;
        let window = self.shared.plan.window;
        if let Some(guest) = &self.guest {
            self.shard.poller.add(guest.poller(), GUEST, Interest::Read)?;
        }
        let mut nothing_left = false;
        loop {
            let now = clock.now_ns();
            self.keep_seconds(now);
            self.churn(now)?;
            let late = now >= window.drained_ns && (nothing_left || now >= window.drained_ns + OVERTIME_NS);
            if now >= window.until_ns && (late || self.shared.all_arrived()) {
                break;
            }
            let next = self.send(now);
            if let Some(guest) = &mut self.guest
                && guest.due_in_ns() == 0
            {
                guest.act();
            }
            self.show(now >= window.until_ns);
            let wait = self.wait_for(next, clock.now_ns());
            let before = clock.now_ns();
            let events = self.shard.poller.wait(wait)?;
            nothing_left = before >= window.drained_ns && events == 0;
            let after = clock.now_ns();
            // A turn of polling that found nothing was waiting too.
            self.count_wait(if events == 0 { now } else { before }, after);
            let mut next = next;
            for event in 0..events {
                let Some(ready) = self.shard.poller.ready(event) else {
                    continue;
                };
                if ready.key == GUEST {
                    next = self.hear_guest(next);
                    continue;
                }
                self.shard.attend(ready);
                // A long batch of readers must not make messages late.
                if next.is_some_and(|due| clock.now_ns() >= due) || !self.shard.freed.is_empty() {
                    next = self.send(clock.now_ns());
                }
            }
        }
        if let Some(guest) = &self.guest {
            self.shard.poller.remove(guest.poller())?;
        }
        self.end_second();
        let after = self.after_window.unwrap_or_else(|| self.counts());
        let length = (window.until_ns - window.from_ns).max(1);
        Ok(Loaded {
            lateness: self.lateness,
            busy: vec![1.0 - (self.waited_ns as f64 / length as f64).min(1.0)],
            received_in_window: after.received - self.at_window.received,
            sent_in_window: after.sent - self.at_window.sent,
        })
    }

    /// Lets the guest read, and sends what is due meanwhile. Returns when the next message is.
    fn hear_guest(&mut self, mut next: Option<u64>) -> Option<u64> {
        let clock = self.shard.world.clock;
        if let Some(guest) = self.guest.take() {
            guest.hear(&mut || {
                let now = clock.now_ns();
                if next.is_some_and(|due| now >= due) {
                    next = self.send(now);
                }
            });
            self.guest = Some(guest);
        }
        next
    }

    /// Sends what is due. Returns when the next message is.
    fn send(&mut self, mut now: u64) -> Option<u64> {
        let window = self.shared.plan.window;
        let clock = self.shard.world.clock;
        let Some(schedule) = &mut self.schedule else {
            self.send_freed(now);
            return None;
        };
        let mut together = 0;
        loop {
            let due = schedule.peek()?;
            let due_ns = window.first_ns + due.at_ns;
            if due_ns > now {
                self.shard.flush();
                return Some(due_ns);
            }
            // The publishers of a thread are in ascending order.
            let place = self
                .shard
                .publishers
                .binary_search_by_key(&due.publisher, |p| p.index);
            if let Ok(place) = place {
                self.shard.publish(place, due_ns, NO_SLOT);
                together += 1;
            }
            schedule.advance();
            // Those of a burst leave in one write.
            if schedule.peek().is_none_or(|next| next.at_ns > due.at_ns) {
                self.shard.flush();
                now = clock.now_ns();
                if due_ns >= window.from_ns {
                    self.lateness.saturating_record_n(now - due_ns, together);
                }
                together = 0;
            }
        }
    }

    /// The closed loop's next messages, one for each slot that is free.
    fn send_freed(&mut self, now: u64) {
        let window = self.shared.plan.window;
        let closed = self.shard.closed.clone();
        let Some(closed) = closed.filter(|_| self.scheduled > 0) else {
            return;
        };
        closed.take_freed(self.shard.index, &mut self.shard.freed);
        if now < window.first_ns || now >= window.until_ns {
            return;
        }
        while let Some(slot) = self.shard.freed.pop() {
            let place = self.turn;
            self.turn = (self.turn + 1) % self.scheduled;
            closed.occupy(slot, self.shard.publishers[place].receipts_to_finish);
            self.shard.publish(place, now, slot);
        }
        self.shard.flush();
    }

    /// Cuts the next subscriber whose turn it is, and dials it again: it comes back with its position and misses nothing.
    fn churn(&mut self, now: u64) -> io::Result<()> {
        if now < self.next_churn_ns || now >= self.shared.plan.window.until_ns {
            return Ok(());
        }
        // One a turn: a thread that is behind catches up turn by turn.
        self.next_churn_ns += self.churn_every_ns.max(1);
        for _ in 0..self.shard.seats.len() {
            let at = self.next_churned;
            self.next_churned = (at + 1) % self.shard.seats.len();
            if self.shard.churns(at) {
                return self.shard.redial(at);
            }
        }
        Ok(())
    }

    fn wait_for(&self, next: Option<u64>, now: u64) -> Wait {
        let window = self.shared.plan.window;
        if now >= window.until_ns {
            return Wait::AtMostNs(DRAIN_NAP_NS);
        }
        // The window's edges and each second end a nap too.
        let edge = match self.second {
            None => window.from_ns,
            Some(second) => window.from_ns + (second + 1) * SECOND_NS,
        };
        let first = if now < window.first_ns {
            window.first_ns
        } else {
            u64::MAX
        };
        let until = next.unwrap_or(u64::MAX).min(edge).min(window.until_ns).min(first);
        let guest = self.guest.as_ref().map_or(u64::MAX, |guest| guest.due_in_ns());
        let until = until.min(self.next_churn_ns).min(now.saturating_add(guest));
        let spin = self.shared.plan.spin_ns;
        match until.saturating_sub(now) {
            near if near <= spin => Wait::Not,
            // It wakes before the moment, so that what waking up costs does not make it late.
            far => Wait::AtMostNs((far - spin).min(NAP_NS)),
        }
    }

    fn count_wait(&mut self, before: u64, after: u64) {
        let window = self.shared.plan.window;
        let (from, until) = (before.max(window.from_ns), after.min(window.until_ns));
        self.waited_ns += until.saturating_sub(from);
    }

    fn show(&self, sent_all: bool) {
        let progress = &self.shared.progress[self.shard.index as usize];
        let tally = &self.shard.tally;
        let settled = tally.received + tally.refused_receipts;
        progress.expected.store(tally.expected, Ordering::Release);
        progress.settled.store(settled, Ordering::Release);
        progress.sent_all.store(sent_all, Ordering::Release);
    }

    fn counts(&self) -> Mark {
        Mark {
            sent: self.shard.tally.sent,
            received: self.shard.tally.received,
        }
    }

    fn keep_seconds(&mut self, now: u64) {
        let window = self.shared.plan.window;
        match self.second {
            None if now >= window.from_ns => {
                self.mark = self.counts();
                self.at_window = self.mark;
                self.second = Some((now - window.from_ns) / SECOND_NS);
            }
            Some(second) if now >= window.from_ns + (second + 1) * SECOND_NS => {
                self.end_second();
                self.second = Some((now - window.from_ns) / SECOND_NS);
            }
            _ => {}
        }
        if now >= window.until_ns && self.after_window.is_none() {
            self.after_window = Some(self.counts());
        }
    }

    fn end_second(&mut self) {
        let Some(second) = self.second else {
            return;
        };
        let counts = self.counts();
        let latency = std::mem::replace(&mut self.shard.meter.latency, histogram());
        // Whoever collects the rows may have gone; the run ends all the same.
        let _ = self.shared.rows.send(SecondRow {
            second,
            sent: counts.sent - self.mark.sent,
            received: counts.received - self.mark.received,
            latency,
        });
        self.mark = counts;
    }
}

impl Shard {
    /// It has a publisher that follows the schedule.
    pub(super) fn sends(&self) -> bool {
        let scheduled = self.world.topology.scheduled;
        self.publishers.first().is_some_and(|p| p.index < scheduled)
    }

    /// A subscriber that is there, reads, and publishes nothing that could be lost on the way.
    fn churns(&self, at: usize) -> bool {
        let seat = &self.seats[at];
        seat.stage == Stage::Ready && !seat.stalled && !self.publishers.iter().any(|p| p.seat == at)
    }

    fn redial(&mut self, at: usize) -> io::Result<()> {
        self.cut_seat(at);
        self.tally.churned += 1;
        self.connect(at)
    }
}
