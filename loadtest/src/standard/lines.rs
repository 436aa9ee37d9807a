//! What a line of the standard set is: a run that stands behind a promise, how it is made, and what it must reach. Pure.

use super::judge::Target;
use crate::limit::Writing;

/// What a run is measured against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Against {
    /// Itself alone.
    Nothing,
    /// The bare server, in the same round.
    Limit(Writing),
    /// Itself without the disturbance.
    Calm,
    /// Itself with what rooms can do switched off.
    Features,
}

/// Which server a line wants, where we start it ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// One for all rounds of the line.
    OfTheLine,
    /// A new one for each run: what an earlier run left behind would be measured too.
    OfTheRun,
}

/// How clients reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    Tls,
}

/// Rounds of `Work::InProcess` at least, unless there is time for one only.
const IN_PROCESS_ROUNDS: u32 = 5;
/// The same of what is set beside itself without a disturbance: a tail beside a tail, and of two rounds a bad one would be half.
const CALM_ROUNDS: u32 = 3;

/// How a line is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Work {
    /// Runs of one scenario, in turns with what it is measured against.
    Runs { against: Against, server: Server },
    /// One run, in which turns with the disturbance and without it alternate.
    Turns,
    /// Short runs by turns at two servers of our own, of which one has the scenario's crowd all the while: what the machine does meanwhile
    /// meets both, and a crowd needs a while to arrive. So many runs at each.
    SideBySide { runs: u32 },
    /// The highest rate that keeps `SEARCH_RULE`, at the broker and at the bare server by turns.
    Search,
    /// Another program, which measures within one process.
    InProcess,
}

/// One line of the set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// The promise that it stands behind.
    pub(super) number: u8,
    pub(super) title: &'static str,
    pub(super) transport: Transport,
    pub(super) scenario: &'static str,
    pub(super) changes: &'static [&'static str],
    pub(super) work: Work,
    pub(super) targets: &'static [Target],
    /// What one round takes, in seconds; about.
    pub(super) round_seconds: f64,
    /// The name of its picture, where its latencies are worth one.
    pub(super) picture: Option<&'static str>,
}

impl Line {
    /// The same over TLS, like what it is measured against.
    pub(super) const fn secured(self, title: &'static str) -> Self {
        Self {
            title,
            transport: Transport::Tls,
            picture: None,
            ..self
        }
    }

    /// Rounds that this line makes where those that make rounds make so many.
    pub(super) fn rounds_max(&self, asked: u32) -> u32 {
        match self.work {
            // Memory is not a matter of chance.
            Work::Runs {
                against: Against::Nothing,
                ..
            } => asked.min(1),
            Work::Runs {
                against: Against::Calm,
                ..
            } if asked > 1 => asked.max(CALM_ROUNDS),
            Work::Runs { .. } => asked,
            // They are short, and the median of a few is a neighbour's.
            Work::InProcess if asked > 1 => asked.max(IN_PROCESS_ROUNDS),
            // Each of the others looks many times already.
            Work::Turns | Work::SideBySide { .. } | Work::Search | Work::InProcess => 1,
        }
    }
}
