//! Time as a value. Pure modules take a [`Now`]; only the floors that do I/O read a clock.

/// One reading of both clocks, taken once per turn and handed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds on a monotonic clock whose zero is arbitrary: for deadlines and durations.
    pub mono_ms: u64,
    /// Wall clock, milliseconds since 1970-01-01 UTC: for what people read and rows keep. May step.
    pub unix_ms: u64,
}
