//! Where a thread runs, and which goes first.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Pins this thread to one of the cores that the process may use, the `index`-th modulo their number. Without the right to do
/// so it stays where it is, which costs speed and nothing else.
pub(crate) fn pin(index: usize) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&core| allowed.is_set(core))
        .collect();
    let Some(&core) = cores.get(index % cores.len().max(1)) else {
        return;
    };
    let mut chosen = CpuSet::new();
    chosen.set(core);
    if let Err(error) = sched_setaffinity(None, &chosen) {
        tracing::warn!(core, %error, "cannot pin a shard");
    }
}

/// How far below the shards the store's threads run. At 5 a full core still gives them a quarter of it.
const BELOW: i32 = 5;

/// Lets shards go before this thread and those that it starts, where they share a core: the store works behind the traffic.
/// Where the system forbids it, both are equal.
pub(crate) fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, BELOW) {
        tracing::debug!(%error, "the store runs at the shards' priority");
    }
}
