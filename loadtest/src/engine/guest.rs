//! Who is served by a thread that measures, beside its own connections: one thread for all that shares a core, because two would wait for
//! each other as long as the system lets a thread run, which is some milliseconds.

use crate::poll::Poller;

/// Somebody with sockets and a schedule of its own. Nothing that it does may take long: each call is between two messages of whoever hosts it.
pub(crate) trait Guest: Send {
    /// Ready when something has come for it.
    fn poller(&self) -> &Poller;

    /// How long until it has something to do by itself, in nanoseconds; 0 when that is due.
    fn due_in_ns(&self) -> u64;

    /// Does one thing that is due.
    fn act(&mut self);

    /// Reads what has come, and calls `between` after each connection that it reads from.
    fn hear(&mut self, between: &mut dyn FnMut());
}
