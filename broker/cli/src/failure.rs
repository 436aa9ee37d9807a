//! How a command fails: what is said on standard error, in one line, and the exit code for scripts.

use std::io::{self, Write};
use std::process::ExitCode;

use cauce_broker::StartError;
use cauce_broker::config::ConfigError;
use cauce_client::ErrorKind;

/// Wrong usage that only shows after parsing; the same number as clap's.
const EXIT_USAGE: u8 = 2;

/// Advice where nobody answers.
pub(crate) const NOT_RUNNING: &str = "; is the broker running? `cauce serve` starts one, --url names another";

#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration is wrong.
    Config(String),
    /// It did not work.
    Failed(String),
    /// Everything was said already; only the exit code is left to give.
    Told,
    /// Whoever read our output has gone, as `head` does: the end, and no failure.
    OutputClosed,
    /// The command line is wrong.
    Usage(String),
}

impl Failure {
    pub(crate) fn failed(message: impl std::fmt::Display) -> Self {
        Self::Failed(message.to_string())
    }

    pub(crate) fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::Config(message) => (message, ConfigError::EXIT_CODE.into()),
            Self::Failed(message) => (message, ExitCode::FAILURE),
            Self::Told => return ExitCode::FAILURE,
            Self::OutputClosed => return ExitCode::SUCCESS,
            Self::Usage(message) => (message, EXIT_USAGE.into()),
        };
        // If standard error is closed too, the exit code says it alone.
        let _ = writeln!(io::stderr(), "cauce: {}", one_line(&message));
        code
    }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(_) | StartError::Tls(_) => Self::Config(error.to_string()),
            other => Self::failed(other),
        }
    }
}

impl From<cauce_client::Error> for Failure {
    fn from(error: cauce_client::Error) -> Self {
        match error.kind() {
            ErrorKind::Connect => Self::failed(format_args!("{error}{NOT_RUNNING}")),
            _ => Self::failed(error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::failed(error),
        }
    }
}
