//! What has to happen at a time.

use std::collections::BTreeSet;
use std::time::Instant;

/// What a time was set for. One that is no longer meant finds nothing to do when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A request has waited long enough, to be sent or to be answered.
    Request(u32),
    /// A subscribe has not been answered.
    Subscribe(u32),
    /// A reader of this room has waited long enough for its first answer.
    Reader(usize),
    /// A room that was refused for now may be asked for again.
    Room(usize),
    /// A service has waited long enough for its first registration.
    Service(usize),
    /// A service that was refused for now may be registered again.
    Registration(usize),
}

#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(super) fn clear(&mut self, at: Instant, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// The timers of the connection that is gone.
    pub(super) fn clear_subscribes(&mut self) {
        self.0.retain(|(_, timer)| !matches!(timer, Timer::Subscribe(_)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|&(at, _)| at)
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }
}
