//! Where a thread runs.

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
