//! Where a thread runs, and which goes first.

use std::io;

use cauce_threads::{Priority, run_soon};
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

/// Lets a client shard run as soon as it has something to do. What [`check`] has allowed is not refused; a system that knows no
/// slices costs speed and nothing else.
pub(crate) fn hurry(priority: Priority) {
    if let Err(error) = run_soon(priority) {
        tracing::warn!(%error, "a client shard runs at the system's leisure");
    }
}

/// Whether the system grants this priority, which a thread of its own asks for.
///
/// # Errors
/// If it does not.
pub(crate) fn check(priority: Priority) -> io::Result<()> {
    if priority == Priority::NORMAL {
        return Ok(());
    }
    std::thread::scope(|scope| {
        let asking = std::thread::Builder::new().spawn_scoped(scope, || run_soon(priority))?;
        asking
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that asked panicked")))
    })
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
