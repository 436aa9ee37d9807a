//! As many peers as the system lets one process have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors for all but the peers: the brokers' own, the database's, what other tests of this process need.
const OTHERS: u64 = 500;

/// As many peers as wanted, or as the limit of open files allows when each takes so many; says so if that is fewer.
pub fn peers(wanted: usize, files_each: u64) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Where it may not be raised, what there is must do.
    let _ = setrlimit(Resource::Nofile, raised);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let fit = usize::try_from(files.saturating_sub(OTHERS) / files_each).unwrap_or(usize::MAX);
    if fit < wanted {
        println!(
            "{fit} peers instead of {wanted}: this process may open {files} files, and each peer takes {files_each}"
        );
    }
    wanted.min(fit)
}
