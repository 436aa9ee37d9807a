//! Open files: one for each connection.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit on open files to what the system allows this process. What shells give by default, often 1,024, is far
/// below what a broker is for.
pub(crate) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
}
