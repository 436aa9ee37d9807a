//! The generator: threads that each drive a share of the connections with one epoll, and share nothing on the way of a
//! message but counters.
//!
//! What must stay true: nothing on the way of a message allocates, locks or waits for another thread; every receipt is
//! counted once, by its publisher's number; a message's latency counts from when it was due.
//!
//! A [`Shard`] lives through the phases of a scenario (dialling, load, losing connections), each of which borrows it for one
//! thread.

mod closed;
mod dial;
mod driver;
mod guest;
mod hear;
mod load;
mod shard;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hdrhistogram::Histogram;

use crate::clock::Clock;
use crate::dialect::Dialect;
use crate::stamp::Form;
use crate::tls::Dialer;
use crate::topology::Topology;

pub(crate) use dial::{Dialled, dial};
pub(crate) use guest::Guest;
pub(crate) use hear::{close_words, head_end};
pub(crate) use load::{LoadPlan, Loaded, Pace, SecondRow, Window, load};
pub(crate) use shard::{Shard, Tally};

/// The longest latency that a histogram tells apart, in nanoseconds.
const LONGEST_NS: u64 = 120_000_000_000;
/// Significant digits of a histogram: each value is exact to a thousandth.
const DIGITS: u8 = 3;

/// A histogram of nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    // The bounds are constants that the crate takes; the fallback only resizes itself where this one has room.
    Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)
        .or_else(|_| Histogram::new(DIGITS))
        .expect("three digits are within what the crate offers")
}

/// What all threads know of a run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) topology: Topology,
    pub(crate) target: SocketAddr,
    pub(crate) dialect: Dialect,
    /// Where the server speaks WebSocket, if not where its kind usually does.
    pub(crate) path: Option<String>,
    /// How to speak TLS, where the target does.
    pub(crate) tls: Option<Dialer>,
    /// One for each seat.
    pub(crate) tokens: Vec<String>,
    /// Keeps the rooms of one run apart from those of another.
    pub(crate) run: String,
    /// One for each room, as the dialect names them.
    pub(crate) names: Vec<String>,
    pub(crate) form: Form,
    pub(crate) payload_bytes: usize,
    pub(crate) clock: Clock,
    pub(crate) threads: u32,
}

/// One shard for each thread, with its share of the seats, all unconnected.
///
/// # Errors
/// If the kernel gives no epoll.
pub(crate) fn shards(world: &Arc<World>) -> io::Result<Vec<Shard>> {
    (0..world.threads)
        .map(|index| Shard::new(index, Arc::clone(world)))
        .collect()
}
