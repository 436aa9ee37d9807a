//! One error for everything the client does. Outside: a stable [`ErrorKind`], the code of the protocol's table where the
//! broker gave one, and whether and when to repeat. Inside it may change freely.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cauce_protocol::{Advice, Code, NameError, Refusal, wire};

/// What kind of thing went wrong. Stable across versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The broker refused: [`Error::code`] says why.
    Refused,
    /// No answer within the time allowed. What was asked may have been done.
    Timeout,
    /// The connection died between request and answer. What was asked may have been done.
    ConnectionLost,
    /// There was no connection for as long as a request may wait for one. Nothing was sent.
    Offline,
    /// Too many requests wait already. Nothing was sent.
    QueueFull,
    /// The client was closed, by [`crate::Client::close`] or for good by the broker.
    Closed,
    /// An argument or option is wrong. Nothing was sent.
    Invalid,
    /// The broker could not be reached.
    Connect,
    /// The other side does not speak this protocol.
    Protocol,
    /// The token provider failed.
    Token,
}

type Source = Arc<dyn std::error::Error + Send + Sync>;

/// Cheap to clone: one failure is told to everyone who waits.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    /// Number of the table, also where this version does not know it.
    code: Option<u16>,
    message: String,
    retryable: bool,
    retry_after: Option<Duration>,
    source: Option<Source>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            code: None,
            message: message.into(),
            retryable: matches!(
                kind,
                ErrorKind::Timeout
                    | ErrorKind::ConnectionLost
                    | ErrorKind::Offline
                    | ErrorKind::QueueFull
                    | ErrorKind::Connect
            ),
            retry_after: None,
            source: None,
        }))
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let mut error = Self::new(kind, message);
        error.set(|inner| inner.source = Some(Arc::from(source.into())));
        error
    }

    /// A refusal known by its number only, as in a close frame.
    pub(crate) fn from_code(code: u16, message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        let mut error = Self::new(ErrorKind::Refused, message);
        error.set(|inner| {
            inner.code = Some(code);
            inner.retryable = matches!(Advice::of(code), Some(Advice::RetryNow | Advice::RetryLater));
            inner.retry_after = retry_after;
        });
        error
    }

    /// Only for an error that nobody else holds yet.
    fn set(&mut self, change: impl FnOnce(&mut Inner)) {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The broker's code, if it gave one that this version knows.
    pub fn code(&self) -> Option<Code> {
        self.0.code.and_then(Code::from_number)
    }

    /// The broker's code as a number, also where this version does not know it.
    pub fn code_number(&self) -> Option<u16> {
        self.0.code
    }

    /// What the code's range advises.
    pub fn advice(&self) -> Option<Advice> {
        self.0.code.and_then(Advice::of)
    }

    /// What happened and what to do, for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same may succeed later without anyone changing it. After [`ErrorKind::Timeout`] and
    /// [`ErrorKind::ConnectionLost`] the first try may have been carried out all the same: repeat only what bears it.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Not before this much time has passed.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("retryable", &self.0.retryable)
            .field("retry_after", &self.0.retry_after)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code(), self.0.code) {
            (Some(code), _) => write!(f, "{code}: {}", self.0.message),
            (None, Some(number)) => write!(f, "code {number}: {}", self.0.message),
            (None, None) => f.write_str(&self.0.message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}

impl From<wire::Error> for Error {
    fn from(error: wire::Error) -> Self {
        let retry_after = (error.retry_after_ms > 0).then(|| millis(error.retry_after_ms));
        let mut made = Self::new(ErrorKind::Refused, error.message);
        made.set(|inner| {
            inner.code = u16::try_from(error.code).ok();
            inner.retryable = error.retryable;
            inner.retry_after = retry_after;
        });
        made
    }
}

impl From<Refusal> for Error {
    /// Our own check before anything is sent, by the broker's rule and with its code.
    fn from(refusal: Refusal) -> Self {
        let mut error = Self::new(ErrorKind::Invalid, refusal.message);
        error.set(|inner| inner.code = Some(refusal.code.number()));
        error
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::with_source(
            ErrorKind::Invalid,
            format!("not the JSON that is wanted: {error}"),
            error,
        )
    }
}

pub(crate) fn invalid_name(what: &str, error: NameError) -> Error {
    Refusal::new(Code::Invalid, format!("{what} {error}")).into()
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_are_kept() {
        let error = Error::from(wire::Error {
            code: 4101,
            name: "rate_limited".into(),
            message: "slow down".into(),
            retryable: true,
            retry_after_ms: 250,
        });
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Refused, Some(Code::RateLimited))
        );
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
        assert!(error.is_retryable());
        assert_eq!(error.to_string(), "rate_limited (4101): slow down");
    }

    #[test]
    fn a_code_of_a_later_version_still_advises() {
        let error = Error::from_code(4199, "later", None);
        assert_eq!((error.code(), error.code_number()), (None, Some(4199)));
        assert_eq!(error.advice(), Some(Advice::RetryLater));
        assert!(error.is_retryable());
    }
}
