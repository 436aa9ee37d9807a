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

impl Repeat<'_> {
    /// Publisher and key in one. A user id has no control characters, so the separator cannot be part of it.
    pub fn name(self) -> Box<str> {
        [self.publisher, "\n", self.key].concat().into()
    }
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
    /// Takes up a key from before the room was made. Older ones first.
    pub(super) fn restore(&mut self, name: Box<str>, accepted: Accepted, at_ms: u64, window_ms: u64) {
        self.until_ms = self.until_ms.max(at_ms.saturating_add(window_ms));
        self.order.push_back((at_ms, name.clone()));
        self.first.insert(name, accepted);
    }

    pub(super) fn find(&mut self, repeat: Repeat<'_>) -> Option<Accepted> {
        while let Some((at, _)) = self.order.front()
            && at + repeat.window_ms < repeat.now_ms
        {
            if let Some((_, name)) = self.order.pop_front() {
                self.first.remove(&name);
            }
        }
        self.first.get(&repeat.name()).copied()
    }

    pub(super) fn remember(&mut self, repeat: Repeat<'_>, accepted: Accepted) {
        if self.order.len() >= repeat.keys_max
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
        let name = repeat.name();
        self.until_ms = repeat.now_ms + repeat.window_ms;
        self.order.push_back((repeat.now_ms, name.clone()));
        self.first.insert(name, accepted);
    }
}
