//! Another token before the old one expires, on the connection that lives. Pure.
//!
//! What must stay true: one token is fetched or offered at a time; what fails is tried again later, and costs the connection
//! nothing as long as the old token is good. Clients that got their tokens together do not renew them together.

use std::time::{Duration, Instant};

use cauce_protocol::{Advice, Code};

use crate::backoff::Backoff;
use crate::error::Error;

/// When in a token's life another is asked for, at random between these parts of what is left of it.
const FROM: f64 = 0.6;
const TO: f64 = 0.8;

/// Longer lives are looked at again after this time: what a timer holds, and no clock is right for longer.
const LOOK_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[derive(Debug)]
pub(super) struct Renewal {
    state: State,
    /// The newest token was offered and not taken: on the next connection another is the better one.
    doubtful: bool,
    backoff: Backoff,
}

#[derive(Debug)]
enum State {
    /// Tokens that do not expire, or cannot be had anew, or a broker that renews none.
    Off,
    At(Instant),
    Fetching,
    /// Offered to the broker under this id; the answer must come by then.
    Offered {
        id: u32,
        until: Instant,
    },
}

/// What the broker's answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It will be tried again.
    Later,
    /// There is no use in trying again, and none in going on.
    End,
}

impl Renewal {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: State::Off,
            doubtful: false,
            backoff: Backoff::new(seed),
        }
    }

    /// A token is in use that expires after this time.
    pub(super) fn schedule(&mut self, now: Instant, left: Option<Duration>) {
        self.backoff.forget();
        self.doubtful = false;
        self.state = match left {
            None => State::Off,
            Some(left) => State::At(now + self.backoff.within(left.min(LOOK_MAX), FROM, TO)),
        };
    }

    pub(super) fn stop(&mut self) {
        self.state = State::Off;
    }

    /// Whether it is time to fetch a token, which is then under way.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        match self.state {
            State::At(at) if at <= now => {
                self.state = State::Fetching;
                true
            }
            State::Offered { until, .. } if until <= now => {
                self.fail(now, None);
                false
            }
            _ => false,
        }
    }

    pub(super) fn is_fetching(&self) -> bool {
        matches!(self.state, State::Fetching)
    }

    /// The token is offered to the broker.
    pub(super) fn offer(&mut self, id: u32, until: Instant) {
        self.state = State::Offered { id, until };
        self.doubtful = true;
    }

    /// Whether the newest token may be no good.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether this is the request that offered the token.
    pub(super) fn is_offered(&self, asked: u32) -> bool {
        matches!(self.state, State::Offered { id, .. } if id == asked)
    }

    /// No token was to be had, or no answer.
    pub(super) fn fail(&mut self, now: Instant, floor: Option<Duration>) {
        self.state = State::At(now + self.backoff.next(floor.unwrap_or_default()));
    }

    /// The broker did not take it.
    pub(super) fn refused(&mut self, now: Instant, error: &Error) -> Judgement {
        match (error.code(), error.advice()) {
            // A broker that cannot renew: the connection ends with its token, as ever.
            (Some(Code::Unsupported), _) => self.state = State::Off,
            (Some(Code::TokenRevoked), _) | (_, Some(Advice::Never)) => {
                self.state = State::Off;
                return Judgement::End;
            }
            _ => self.fail(now, error.retry_after()),
        }
        Judgement::Later
    }

    pub(super) fn next(&self) -> Option<Instant> {
        match self.state {
            State::At(at) | State::Offered { until: at, .. } => Some(at),
            State::Off | State::Fetching => None,
        }
    }
}
