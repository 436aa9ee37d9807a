//! Idempotency keys: what makes a repeat of a publish harmless.

use std::collections::{HashMap, VecDeque};

use super::Accepted;

/// A publisher's key for a message that may come twice.
#[derive(Clone, Copy, Debug)]
pub struct Repeat<'a> {
    /// Keys of different publishers do not meet.
    pub publisher: &'a str,
    pub key: &'a str,
    pub now_ms: u64,
    /// How long a key is remembered, in milliseconds.
    pub window_ms: u64,
    /// How many keys a room remembers; the oldest is forgotten for the next.
    pub keys_max: usize,
}

/// Idempotency keys of a room, newest last.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    first: HashMap<Box<str>, Accepted, foldhash::fast::RandomState>,
    order: VecDeque<(u64, Box<str>)>,
    /// The last of them is remembered until then.
    pub(super) until_ms: u64,
}

impl Repeats {
    /// A user id has no control characters, so the separator cannot be part of it.
    fn name(repeat: Repeat<'_>) -> Box<str> {
        [repeat.publisher, "\n", repeat.key].concat().into()
    }

    pub(super) fn find(&mut self, repeat: Repeat<'_>) -> Option<Accepted> {
        while let Some((at, _)) = self.order.front()
            && at + repeat.window_ms < repeat.now_ms
        {
            if let Some((_, name)) = self.order.pop_front() {
                self.first.remove(&name);
            }
        }
        self.first.get(&Self::name(repeat)).copied()
    }

    pub(super) fn remember(&mut self, repeat: Repeat<'_>, accepted: Accepted) {
        if self.order.len() >= repeat.keys_max
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
        let name = Self::name(repeat);
        self.until_ms = repeat.now_ms + repeat.window_ms;
        self.order.push_back((repeat.now_ms, name.clone()));
        self.first.insert(name, accepted);
    }
}
