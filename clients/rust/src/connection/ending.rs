//! How connections end, and what follows: another attempt at its time, or none.

use std::time::{Duration, Instant};

use cauce_protocol::{Advice, Code};

use super::timers::Timers;
use super::{Action, Connection, Phase, TokenUse};
use crate::backoff;
use crate::error::{Error, ErrorKind};
use crate::options::Reconnect;
use crate::status::Status;

impl Connection {
    /// The socket could not be had, or ended.
    pub(crate) fn handle_lost(&mut self, now: Instant, error: Error) {
        if matches!(
            self.phase,
            Phase::Dialling | Phase::Opening { .. } | Phase::Open(_)
        ) {
            let error = self.goaway.take().unwrap_or(error);
            self.lose(now, &error);
        }
    }

    /// The bytes of the broker are not this protocol.
    pub(crate) fn handle_malformed(&mut self, now: Instant, code: Code, message: String) {
        if matches!(self.phase, Phase::Opening { .. } | Phase::Open(_)) {
            self.leave_broker(now, code, &Error::new(ErrorKind::Protocol, message));
        }
    }

    /// We end it. The driver drops the socket and does not report it.
    pub(super) fn leave_broker(&mut self, now: Instant, code: Code, error: &Error) {
        self.actions.push_back(Action::Disconnect { code: code.number() });
        self.lose(now, error);
    }

    fn lose(&mut self, now: Instant, error: &Error) {
        let mut expired = false;
        if let Phase::Open(open) = &self.phase {
            self.backoff.ended(open.since, now);
            expired = open.session.token_expires.is_some_and(|at| at <= now);
        }
        self.goaway = None;
        self.control.clear();
        self.timers.clear_subscribes();
        self.rooms.lose();
        self.services.lose();
        let doubtful = self.renewal.is_doubtful();
        self.renewal.stop();
        let lost = Error::with_source(
            ErrorKind::ConnectionLost,
            "the connection was lost before the answer; it may have been carried out",
            error.clone(),
        );
        self.requests.lose(now, &mut self.timers, &lost);
        let Some((floor, mut token)) = self.advised(error) else {
            self.close(Some(error));
            return;
        };
        if (expired || doubtful) && self.settings.renewable {
            token = TokenUse::Renew;
        }
        let until = now + self.backoff.next(floor);
        tracing::debug!(%error, wait = ?until.saturating_duration_since(now), "waiting to connect again");
        self.phase = Phase::Waiting { until, token };
        self.status = Some(Status::Waiting {
            until,
            reason: error.clone(),
        });
    }

    /// The least time to wait and the token to come with; `None` to stay away.
    fn advised(&self, error: &Error) -> Option<(Duration, TokenUse)> {
        match self.settings.reconnect {
            Reconnect::Always => {}
            Reconnect::AfterWelcome if self.welcomed => {}
            Reconnect::AfterWelcome | Reconnect::Never => return None,
        }
        let floor = error.retry_after().unwrap_or(Duration::ZERO);
        match error.advice() {
            Some(Advice::Never) => None,
            Some(Advice::RenewToken) => self.settings.renewable.then_some((floor, TokenUse::Renew)),
            Some(Advice::RetryLater) => Some((error.retry_after().unwrap_or(backoff::LATER), TokenUse::Same)),
            Some(Advice::RetryNow) => Some((floor, TokenUse::Same)),
            // A wrong address or another kind of server. Once it was right, it may be a proxy in a bad moment.
            None if !self.welcomed && matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Protocol) => {
                None
            }
            None => Some((floor, TokenUse::Same)),
        }
    }

    /// For good.
    pub(super) fn close(&mut self, reason: Option<&Error>) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        let closed = closed_error(reason);
        self.requests.close(&mut self.timers, &closed);
        self.rooms.close(reason, &closed);
        self.services.close(&closed);
        self.renewal.stop();
        self.inboxes.finish();
        self.control.clear();
        self.timers = Timers::default();
        self.phase = Phase::Closed;
        self.status = Some(Status::Closed {
            reason: reason.cloned(),
        });
        self.actions.push_back(Action::Stop);
    }
}

/// What requests hear after the end.
pub(crate) fn closed_error(reason: Option<&Error>) -> Error {
    match reason {
        None => Error::new(ErrorKind::Closed, "the client was closed"),
        Some(reason) => Error::with_source(
            ErrorKind::Closed,
            format!("the client was closed for good: {reason}"),
            reason.clone(),
        ),
    }
}
