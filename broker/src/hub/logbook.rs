//! What happens in a tenant, written down for its `$admin` room while somebody listens there.
//!
//! What must stay true:
//! - While nobody listens nothing is kept, and asking whether somebody does is one read of memory that no one writes.
//! - While somebody does, publishing adds to counters and waits for nobody; comings and goings take a short lock.
//! - Everything is bounded: lists by [`ITEMS_MAX`] a period, with a count of the rest, and counters by the number of codes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use cauce_protocol::{Code, ConnectionId, UserId};
use parking_lot::Mutex;

/// Connections that are named in one period; of the others only the number is told. With the longest names these fill about
/// half of a frame.
pub const ITEMS_MAX: usize = 50;

const CODES: usize = Code::ALL.len();

/// The book of one tenant.
#[derive(Debug, Default)]
pub struct Logbook {
    watched: AtomicBool,
    /// Made when somebody listens for the first time.
    pages: OnceLock<Box<Pages>>,
}

#[derive(Debug)]
struct Pages {
    messages: AtomicU64,
    deliveries: AtomicU64,
    /// By the place of the code in [`Code::ALL`].
    refused: [AtomicU32; CODES],
    closed: [AtomicU32; CODES],
    comings: Mutex<Comings>,
}

#[derive(Debug, Default)]
struct Comings {
    opened: Capped,
    closed: Capped,
}

/// The first of a period, and how many more there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capped {
    pub items: Vec<Visit>,
    pub more: u64,
}

/// A connection that was opened or closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    pub connection: ConnectionId,
    pub user: UserId,
    /// What the client calls itself.
    pub client: Option<Box<str>>,
    /// Why the broker closed it; none if the peer did, or if it was opened.
    pub code: Option<Code>,
}

/// What was written since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Period {
    pub messages: u64,
    pub deliveries: u64,
    /// Messages that were refused, by reason.
    pub refused: Vec<(Code, u32)>,
    /// Connections that the broker closed, by reason.
    pub ended: Vec<(Code, u32)>,
    pub opened: Capped,
    pub closed: Capped,
}

impl Capped {
    fn push(&mut self, visit: impl FnOnce() -> Visit) {
        if self.items.len() < ITEMS_MAX {
            self.items.push(visit());
        } else {
            self.more += 1;
        }
    }

    /// All of them.
    pub fn len(&self) -> u64 {
        self.items.len() as u64 + self.more
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl Pages {
    fn new() -> Self {
        Self {
            messages: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU32::new(0)),
            closed: std::array::from_fn(|_| AtomicU32::new(0)),
            comings: Mutex::default(),
        }
    }
}

impl Logbook {
    /// Whether anything is written down.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Begins or ends to write. Whether it was written before.
    pub fn watch(&self, watched: bool) -> bool {
        if watched {
            self.pages.get_or_init(|| Box::new(Pages::new()));
        }
        self.watched.swap(watched, Ordering::Relaxed)
    }

    fn pages(&self) -> Option<&Pages> {
        self.is_watched()
            .then(|| self.pages.get().map(|pages| &**pages))?
    }

    /// A message was taken for so many receivers.
    pub fn published(&self, receivers: u32) {
        if let Some(pages) = self.pages() {
            pages.messages.fetch_add(1, Ordering::Relaxed);
            pages.deliveries.fetch_add(receivers.into(), Ordering::Relaxed);
        }
    }

    /// A message was refused.
    pub fn refused(&self, code: Code) {
        if let Some(pages) = self.pages() {
            count(&pages.refused, code);
        }
    }

    /// A client was welcomed.
    pub fn opened(&self, visit: impl FnOnce() -> Visit) {
        if let Some(pages) = self.pages() {
            pages.comings.lock().opened.push(visit);
        }
    }

    /// A client has gone; `code` says why, if it was the broker who closed.
    pub fn closed(&self, code: Option<Code>, visit: impl FnOnce() -> Visit) {
        if let Some(pages) = self.pages() {
            if let Some(code) = code {
                count(&pages.closed, code);
            }
            pages.comings.lock().closed.push(visit);
        }
    }

    /// Takes out what was written; the next period begins.
    pub fn take(&self) -> Period {
        let Some(pages) = self.pages.get() else {
            return Period::default();
        };
        let Comings { opened, closed } = std::mem::take(&mut *pages.comings.lock());
        Period {
            messages: pages.messages.swap(0, Ordering::Relaxed),
            deliveries: pages.deliveries.swap(0, Ordering::Relaxed),
            refused: counts(&pages.refused),
            ended: counts(&pages.closed),
            opened,
            closed,
        }
    }
}

fn count(counters: &[AtomicU32; CODES], code: Code) {
    if let Some(at) = Code::ALL.iter().position(|&c| c == code) {
        counters[at].fetch_add(1, Ordering::Relaxed);
    }
}

fn counts(counters: &[AtomicU32; CODES]) -> Vec<(Code, u32)> {
    let taken = Code::ALL
        .iter()
        .zip(counters)
        .map(|(&code, counter)| (code, counter.swap(0, Ordering::Relaxed)));
    taken.filter(|&(_, count)| count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(n: u64) -> Visit {
        Visit {
            connection: ConnectionId(n),
            user: UserId::new("ann").unwrap(),
            client: None,
            code: None,
        }
    }

    #[test]
    fn nothing_is_kept_while_nobody_listens() {
        let logbook = Logbook::default();
        let never = || -> Visit { unreachable!("nobody listens") };
        logbook.published(9);
        logbook.refused(Code::RateLimited);
        logbook.opened(never);
        logbook.closed(Some(Code::Slow), never);
        assert!(logbook.pages.get().is_none(), "not even the place for it");
        logbook.watch(true);
        logbook.opened(|| visit(1));
        assert!(logbook.watch(false));
        logbook.opened(never);
        assert_eq!(logbook.take().opened.len(), 1);
    }

    #[test]
    fn a_period_has_what_happened_in_it_and_lists_end_with_a_count() {
        let logbook = Logbook::default();
        logbook.watch(true);
        for n in 0..3 {
            logbook.published(n);
        }
        logbook.refused(Code::RateLimited);
        logbook.refused(Code::RateLimited);
        logbook.refused(Code::Overloaded);
        for n in 0..ITEMS_MAX as u64 + 7 {
            logbook.opened(|| visit(n));
        }
        logbook.closed(Some(Code::Slow), || visit(1));
        logbook.closed(None, || visit(2));
        let period = logbook.take();
        assert_eq!((period.messages, period.deliveries), (3, 3));
        assert_eq!(period.refused, [(Code::Overloaded, 1), (Code::RateLimited, 2)]);
        assert_eq!(period.ended, [(Code::Slow, 1)]);
        assert_eq!((period.opened.items.len(), period.opened.more), (ITEMS_MAX, 7));
        assert_eq!(period.closed.items.len(), 2);
        assert_eq!(logbook.take(), Period::default());
    }
}
