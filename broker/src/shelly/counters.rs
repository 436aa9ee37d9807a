//! What went wrong without being fatal, counted per frame so that the caller can add it to its metrics.

use std::ops::AddAssign;

/// Oddities met while handling one input. Every field counts occurrences; all zero for a healthy frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `params.ts` was there but was seconds since boot, or more than a day ahead: the time of receipt was used.
    pub clock_bad: u32,
    /// A power of zero was derived because the device switched off and never said so.
    pub derived_power: u32,
    /// An energy counter went backwards (reset): a new baseline, no consumption.
    pub energy_resets: u32,
    /// Slots of an `events` array that were no objects, or beyond the bound.
    pub events_skipped: u32,
    /// The frame carried the `src` of another device than the one this session belongs to: ignored.
    pub foreign_src: u32,
    /// Calls the device made to us: answered with an error, never applied.
    pub inbound_calls: u32,
    /// Our own questions (`Shelly.GetStatus`, `Shelly.GetDeviceInfo`) that failed or went unanswered.
    pub own_calls_failed: u32,
    /// Frames that could not be read at all.
    pub malformed: u32,
    /// Keys or values not taken because a bound of the state was reached.
    pub refused_keys: u32,
    /// Frames that only became JSON after a `nan` or an infinite number in them was read as null.
    pub repaired: u32,
    /// Frames of a session that a newer one has replaced: ignored.
    pub superseded: u32,
    /// Notifications with a method we do not know, and objects that are neither notification, answer nor call.
    pub unknown_methods: u32,
    /// Answers to no pending call: late, or never asked.
    pub unmatched_replies: u32,
}

impl Counters {
    /// True when nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        // Destructured without `..`, so that a new field cannot be forgotten here.
        let Self {
            clock_bad,
            derived_power,
            energy_resets,
            events_skipped,
            foreign_src,
            inbound_calls,
            own_calls_failed,
            malformed,
            refused_keys,
            repaired,
            superseded,
            unknown_methods,
            unmatched_replies,
        } = other;
        for (sum, more) in [
            (&mut self.clock_bad, clock_bad),
            (&mut self.derived_power, derived_power),
            (&mut self.energy_resets, energy_resets),
            (&mut self.events_skipped, events_skipped),
            (&mut self.foreign_src, foreign_src),
            (&mut self.inbound_calls, inbound_calls),
            (&mut self.own_calls_failed, own_calls_failed),
            (&mut self.malformed, malformed),
            (&mut self.refused_keys, refused_keys),
            (&mut self.repaired, repaired),
            (&mut self.superseded, superseded),
            (&mut self.unknown_methods, unknown_methods),
            (&mut self.unmatched_replies, unmatched_replies),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}
