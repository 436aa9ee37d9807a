//! Asynchronous work for callers that are not.

use std::panic::resume_unwind;
use std::thread::Builder;

use tokio::runtime::{self, Runtime};

use super::error::OpenError;

/// One thread with its own executor: what the store runs on.
pub(super) fn runtime() -> Result<Runtime, OpenError> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(OpenError::Thread)
}

/// Runs `work` to its end on a thread of its own, so that it may be called from anywhere, also from within an executor.
pub(super) fn on_own_thread<T: Send>(
    name: &str,
    work: impl FnOnce(&Runtime) -> T + Send,
) -> Result<T, OpenError> {
    std::thread::scope(|scope| {
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn_scoped(scope, move || runtime().map(|runtime| work(&runtime)))
            .map_err(OpenError::Thread)?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
