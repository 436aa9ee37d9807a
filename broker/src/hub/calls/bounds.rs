//! What is bounded of a tenant's calls. Beyond a bound a request is refused; nothing that was taken is dropped.

/// Calls that one server works on at once, unless it says otherwise.
pub(super) const CONCURRENCY_DEFAULT: u32 = 16;

/// The most that it may say.
pub(super) const CONCURRENCY_MAX: u32 = 1_024;

/// Patterns that one server may serve.
pub(super) const PATTERNS_A_SERVER_MAX: usize = 256;

/// Different patterns that are served in a tenant.
pub(super) const PATTERNS_MAX: usize = 4_096;

/// Servers of a tenant: connections, and parts of the embedding program. A choice looks at each server of a pattern once.
pub(super) const SERVERS_MAX: usize = 1_024;

/// Calls of a tenant that have no answer yet.
pub(super) const OPEN_MAX: usize = 16_384;

/// Bytes of parameters that the open calls of a tenant came with.
pub(super) const PARAMS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Calls that wait for one pattern's servers to have room. Ten times what a server works on by default is a second's wait
/// where a call takes a tenth of one; a longer queue would only hide that servers are missing.
pub(super) const WAITING_MAX: usize = 1_024;

/// Servers that a call with `retry` is given to, one after the other.
pub(super) const ATTEMPTS_MAX: u32 = 3;

/// The longest that a caller may wait, in milliseconds.
pub const TIMEOUT_MS_MAX: u64 = 5 * 60_000;

const _: () = assert!(CONCURRENCY_DEFAULT <= CONCURRENCY_MAX && WAITING_MAX <= OPEN_MAX);
// One call at the protocol's bounds fits, whatever else is open.
const _: () = assert!(PARAMS_BYTES_MAX > 2 * cauce_protocol::limits::PAYLOAD_BYTES_MAX);
