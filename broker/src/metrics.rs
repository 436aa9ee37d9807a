//! Counters, one set a shard on cache lines of its own: counting is one relaxed addition on a line that nobody else writes.
//! Whoever wants a total reads all shards and adds.

mod histogram;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cauce_protocol::Code;
use crossbeam_utils::CachePadded;

pub use histogram::{BOUNDS_US, Batch, Histogram, Snapshot};

use crate::publication::Source;

/// Only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn increment(&self) {
        self.add(1);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long messages took from the broker's taking them to their bytes being handed to the kernel, one count a delivery, by
/// where they came from.
#[derive(Debug, Default)]
pub struct Latency([Histogram; Source::ALL.len()]);

impl Latency {
    /// The deliveries of one turn, which end at the same time.
    pub fn record(&self, now: Instant, taken: impl IntoIterator<Item = Taken>) {
        let mut batches = self.0.each_ref().map(Histogram::batch);
        for taken in taken {
            let took = now.saturating_duration_since(taken.accepted);
            batches[taken.source as usize].record(took, taken.deliveries);
        }
    }

    /// Adds the deliveries of messages from there to `sum`.
    pub fn read(&self, source: Source, sum: &mut Snapshot) {
        self.0[source as usize].read(sum);
    }
}

/// A message that has been handed to the outboxes of its receivers on one shard.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub accepted: Instant,
    pub source: Source,
    pub deliveries: u64,
}

/// What one shard counts.
#[derive(Debug, Default)]
pub struct ShardMetrics {
    pub connections_opened: Counter,
    pub connections_closed: Counter,
    pub devices_opened: Counter,
    pub devices_closed: Counter,
    pub handshakes_refused: Counter,
    /// WebSocket messages and bytes, as read.
    pub messages_in: Counter,
    pub bytes_in: Counter,
    /// Client requests, and those that were refused by reason.
    pub requests: Counter,
    pub refusals: ByCode,
    /// Frames from devices, and those that changed something.
    pub device_frames: Counter,
    pub device_changes: Counter,
    pub device_frames_malformed: Counter,
    pub device_frames_throttled: Counter,
    /// Messages taken from clients, devices and the API on this shard, and what became of them.
    pub publications: Counter,
    pub publications_refused: Counter,
    /// Handed to outboxes: one for each subscriber.
    pub deliveries: Counter,
    /// Changes of presence handed to watchers, and those that told counts because names were too many or had been missed.
    pub presence_changes: Counter,
    pub presence_truncated: Counter,
    /// Changes of presence that a watcher who reads slowly was not told; he learns that he missed something.
    pub presence_missed: Counter,
    /// Subscribers that read too slowly and went on from history, messages given from there, and what was lost to them.
    pub fell_behind: Counter,
    pub recovered: Counter,
    pub gaps: Counter,
    pub lost: Counter,
    /// Notices of notifications handed to outboxes, left out because the outbox was congested and they were of low priority,
    /// and left out because a queue was full.
    pub notices_pushed: Counter,
    pub notices_gave_way: Counter,
    pub notices_unpushed: Counter,
    /// Bytes and calls of writing to sockets.
    pub bytes_out: Counter,
    pub writes: Counter,
    /// Turns of the loop that found work.
    pub turns: Counter,
    pub latency: Latency,
    /// From a socket's taking no more bytes to all that waited for it being written: how long readers hold things up.
    pub stalls: Histogram,
    /// Connections that the broker closed, by reason.
    pub closes: ByCode,
}

/// A counter a code.
#[derive(Debug)]
pub struct ByCode([Counter; Code::ALL.len()]);

impl Default for ByCode {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl ByCode {
    /// It happened for this reason.
    pub fn increment(&self, code: Code) {
        if let Some(at) = Code::ALL.iter().position(|&c| c == code) {
            self.0[at].increment();
        }
    }

    /// How often it happened for which reason, in the order of [`Code::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Code, u64)> + '_ {
        Code::ALL
            .iter()
            .zip(&self.0)
            .map(|(&code, counter)| (code, counter.value()))
    }
}

impl ShardMetrics {
    /// The broker closed a connection for this reason.
    pub fn closed(&self, code: Code) {
        self.closes.increment(code);
    }
}

/// What the acceptor counts.
#[derive(Debug, Default)]
pub struct AcceptMetrics {
    pub accepted: Counter,
    /// Turned away at the door: too many connections, or too fast, from one address or in all.
    pub refused: Counter,
    /// `accept` failed, for want of file descriptors as a rule.
    pub errors: Counter,
}

/// How a call of a method ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallEnd {
    /// With a result.
    Answered,
    /// With an error of the server's own.
    Failed,
    /// Nobody serves the method.
    NotServed,
    /// Servers were lost before they answered.
    Lost,
    TimedOut,
    /// The caller took it back.
    Cancelled,
    /// The caller has gone.
    Abandoned,
    /// A bound was reached.
    Refused,
    /// The broker stops.
    Stopped,
}

impl CallEnd {
    pub const ALL: [Self; 9] = [
        Self::Answered,
        Self::Failed,
        Self::NotServed,
        Self::Lost,
        Self::TimedOut,
        Self::Cancelled,
        Self::Abandoned,
        Self::Refused,
        Self::Stopped,
    ];

    /// As in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::NotServed => "not_served",
            Self::Lost => "lost",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Abandoned => "abandoned",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        }
    }
}

/// What is counted of calls of methods, on all threads together: a call is worth thousands of additions.
#[derive(Debug, Default)]
pub struct CallMetrics {
    /// Calls that came, refused ones too.
    pub opened: Counter,
    /// Given to another server because the one before was lost.
    pub retried: Counter,
    ends: [Counter; CallEnd::ALL.len()],
}

impl CallMetrics {
    /// A call is over.
    pub fn ended(&self, end: CallEnd) {
        if let Some(at) = CallEnd::ALL.iter().position(|&e| e == end) {
            self.ends[at].increment();
        }
    }

    /// Calls that are over, by how they ended.
    pub fn ends(&self) -> impl Iterator<Item = (CallEnd, u64)> + '_ {
        CallEnd::ALL
            .iter()
            .zip(&self.ends)
            .map(|(&end, counter)| (end, counter.value()))
    }

    /// Calls that have no answer yet.
    pub fn outstanding(&self) -> u64 {
        // Ends first: a call that comes in between is then counted once too often rather than below zero.
        let ended: u64 = self.ends().map(|(_, n)| n).sum();
        self.opened.value().saturating_sub(ended)
    }
}

/// All counters of a node.
#[derive(Debug)]
pub struct Metrics {
    pub shards: Box<[CachePadded<ShardMetrics>]>,
    pub accept: AcceptMetrics,
    /// Messages refused by a limit on publishing, in the order of `PublishLimit::ALL`. Shared by all threads: refusing is
    /// rare, and paid by who is refused.
    pub publish_limited: [Counter; 5],
    pub calls: CallMetrics,
}

impl Metrics {
    pub fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| CachePadded::default()).collect(),
            accept: AcceptMetrics::default(),
            publish_limited: Default::default(),
            calls: CallMetrics::default(),
        }
    }

    /// Connections that are open and no devices, as far as counters of threads that go on can be read together.
    pub fn clients_open(&self) -> u64 {
        let open = |opened: u64, closed: u64| opened.saturating_sub(closed);
        let all = open(
            self.total(|m| &m.connections_opened),
            self.total(|m| &m.connections_closed),
        );
        all.saturating_sub(open(
            self.total(|m| &m.devices_opened),
            self.total(|m| &m.devices_closed),
        ))
    }

    /// The sum of one counter over all shards.
    pub fn total(&self, counter: impl Fn(&ShardMetrics) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| counter(shard).value()).sum()
    }

    /// The same for what is counted by code, in the order of [`Code::ALL`].
    pub fn total_by_code(
        &self,
        counters: impl Fn(&ShardMetrics) -> &ByCode,
    ) -> [(Code, u64); Code::ALL.len()] {
        std::array::from_fn(|at| {
            let shards = self.shards.iter();
            let n = shards.map(|shard| counters(shard).0[at].value()).sum();
            (Code::ALL[at], n)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn deliveries_of_one_turn_are_counted_by_where_their_messages_came_from() {
        let (latency, start) = (Latency::default(), Instant::now());
        let taken = |us, source, deliveries| Taken {
            accepted: start + Duration::from_micros(us),
            source,
            deliveries,
        };
        latency.record(
            start + Duration::from_micros(100),
            [
                taken(0, Source::Client, 3),
                taken(40, Source::Device, 5),
                taken(60, Source::Client, 2),
            ],
        );
        let read = |source| {
            let mut sum = Snapshot::default();
            latency.read(source, &mut sum);
            (sum.count(), sum.sum_us)
        };
        assert_eq!(read(Source::Client), (5, 3 * 100 + 2 * 40));
        assert_eq!(read(Source::Device), (5, 5 * 60));
        assert_eq!(read(Source::Api), (0, 0));
    }
}
