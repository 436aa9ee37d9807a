//! The measured load: an open loop by the clock or a closed one by receipts, for the length of a window.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use hdrhistogram::Histogram;

use super::closed::ClosedLoop;
use super::driver::Driver;
use super::guest::Guest;
use super::histogram;
use super::shard::Shard;

/// When what happens, in the run's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// The first message is due.
    pub(crate) first_ns: u64,
    /// The measurement begins.
    pub(crate) from_ns: u64,
    /// The last message has been due.
    pub(crate) until_ns: u64,
    /// What has not arrived is lost.
    pub(crate) drained_ns: u64,
}

/// What the threads are to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadPlan {
    pub(crate) window: Window,
    /// Messages a second in all; otherwise so many are kept under way.
    pub(crate) pace: Pace,
    /// Subscribers a second, on all threads together, that lose their connection and come back.
    pub(crate) churn_per_second: f64,
    /// So long before the next message a thread wakes, and polls until it is due, in nanoseconds.
    pub(crate) spin_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// So many messages a second, in bursts of so many.
    Open {
        messages_per_second: f64,
        burst: u32,
    },
    Closed {
        outstanding: u32,
    },
}

/// One second of one thread.
#[derive(Debug)]
pub(crate) struct SecondRow {
    /// Since the measurement began; messages of the window that come after it are in further rows.
    pub(crate) second: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) latency: Histogram<u64>,
}

/// What the threads did, apart from their rows.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// How much later than due each measured message was handed to its socket. Empty in a closed loop.
    pub(crate) lateness: Histogram<u64>,
    /// For each thread: the share of the window that it did not wait.
    pub(crate) busy: Vec<f64>,
    /// Receipts within the window.
    pub(crate) received_in_window: u64,
    /// Messages sent within the window.
    pub(crate) sent_in_window: u64,
}

/// What each thread shows the others, on a line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Progress {
    pub(super) expected: AtomicU64,
    /// What has come, and what will not because the server refused it.
    pub(super) settled: AtomicU64,
    /// Nothing more will be sent by the schedule.
    pub(super) sent_all: AtomicBool,
}

/// What the threads know of each other.
pub(super) struct Shared {
    pub(super) plan: LoadPlan,
    pub(super) progress: Vec<Progress>,
    pub(super) rows: Sender<SecondRow>,
}

impl Shared {
    pub(super) fn all_arrived(&self) -> bool {
        let sum = |of: fn(&Progress) -> &AtomicU64| -> u64 {
            self.progress.iter().map(|p| of(p).load(Ordering::Acquire)).sum()
        };
        if !self.progress.iter().all(|p| p.sent_all.load(Ordering::Acquire)) {
            return false;
        }
        // In this order: what is expected only grows, and is stored first.
        let settled = sum(|p| &p.settled);
        sum(|p| &p.expected) == settled
    }
}

/// Runs the load on all shards, a thread each, and sends a row a second; the first thread serves the guest besides. Returns when everything
/// has arrived, or the time for that has passed.
///
/// # Errors
/// If epoll fails.
pub(crate) fn load(
    shards: &mut [Shard],
    plan: LoadPlan,
    rows: Sender<SecondRow>,
    mut guest: Option<&mut dyn Guest>,
) -> io::Result<Loaded> {
    let senders: Vec<u32> = shards.iter().filter(|s| s.sends()).map(|s| s.index).collect();
    for shard in shards.iter_mut() {
        // Of a window before this one.
        shard.closed = None;
        shard.freed.clear();
    }
    if let Pace::Closed { outstanding } = plan.pace {
        let bells = shards.iter().map(|s| s.poller.bell()).collect();
        let closed = Arc::new(ClosedLoop::new(outstanding, &senders, bells));
        for shard in shards.iter_mut() {
            shard.closed = Some(Arc::clone(&closed));
            shard.freed = closed.owned(shard.index);
        }
    }
    let shared = Shared {
        plan,
        progress: shards.iter().map(|_| Progress::default()).collect(),
        rows,
    };
    let outcomes: Vec<io::Result<Loaded>> = std::thread::scope(|scope| {
        let threads: Vec<_> = shards
            .iter_mut()
            .map(|shard| {
                let shared = &shared;
                let guest = guest.take().map(|guest| guest as &mut dyn Guest);
                scope.spawn(move || Driver::new(shard, shared, guest).run())
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
            })
            .collect()
    });
    let mut all = Loaded {
        lateness: histogram(),
        busy: Vec::new(),
        received_in_window: 0,
        sent_in_window: 0,
    };
    for outcome in outcomes {
        let one = outcome?;
        all.lateness.add(&one.lateness).map_err(io::Error::other)?;
        all.busy.extend(one.busy);
        all.received_in_window += one.received_in_window;
        all.sent_in_window += one.sent_in_window;
    }
    Ok(all)
}
