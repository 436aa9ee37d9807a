//! Which shard does what: how many there are of a kind, where a new socket goes, whose connection an id is.

use std::sync::atomic::Ordering;

use cauce_protocol::ConnectionId;

use super::Hub;

/// How many low bits of a connection id name its shard.
pub const SHARD_BITS: u32 = 6;

/// How shards divide the work: the first ones serve clients, the others take device streams. Where there are no others, the
/// first ones take both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPlan {
    pub clients: usize,
    pub ingest: usize,
}

impl ShardPlan {
    pub fn total(self) -> usize {
        self.clients + self.ingest
    }

    /// The shards that devices are placed on.
    pub fn for_devices(self) -> std::ops::Range<usize> {
        match self.ingest {
            0 => 0..self.clients,
            _ => self.clients..self.total(),
        }
    }
}

impl Hub {
    /// The shard that owns a connection, read off its id. `None` for an id that this node never gave.
    pub fn shard_of(&self, connection: ConnectionId) -> Option<usize> {
        let shard = (connection.0 & ((1 << SHARD_BITS) - 1)) as usize;
        (shard < self.shards.len()).then_some(shard)
    }

    /// The client shard with the fewest connections; counts one more there.
    pub fn place_client(&self) -> usize {
        self.place(0..self.plan.clients)
    }

    /// The same among the shards for devices.
    pub fn place_device(&self) -> usize {
        self.place(self.plan.for_devices())
    }

    fn place(&self, among: std::ops::Range<usize>) -> usize {
        let start = among.start;
        let shard = among
            .min_by_key(|&shard| self.loads[shard].load(Ordering::Relaxed))
            .unwrap_or(start);
        self.loads[shard].fetch_add(1, Ordering::Relaxed);
        shard
    }

    /// A connection left the shard that it was placed on.
    pub fn displaced(&self, shard: usize) {
        self.loads[shard].fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections by shard.
    pub fn load(&self, shard: usize) -> usize {
        self.loads[shard].load(Ordering::Relaxed)
    }

    /// The thread of this shard has ended, whatever the reason.
    pub fn shard_ended(&self, shard: usize) {
        self.ended[shard].store(true, Ordering::Relaxed);
    }

    /// Whether the thread of this shard has not ended.
    pub fn is_alive(&self, shard: usize) -> bool {
        !self.ended[shard].load(Ordering::Relaxed)
    }
}
