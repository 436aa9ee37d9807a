//! What every request passes: its key is looked at, its rate is judged, and it is carried through in a task of its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cauce_protocol::{Code, Refusal};
use parking_lot::Mutex;

use super::Api;
use super::answer::Refused;
use super::caller::Caller;
use super::serve::Peer;
use crate::auth::secret::{CredentialId, CredentialKind};
use crate::hub::Underway;
use crate::rate::{ByAddress, Gcra, Quota};

/// Failed attempts of one address: ten a minute after the first twenty. Whoever has a good key is not held up by others
/// behind the same address.
const FAILURES: Quota = Quota::per_minute(10, 20);

/// Addresses whose failures are remembered, 24 bytes each.
const ADDRESSES_MAX: usize = 65_536;

/// Requests of one API key.
const REQUESTS: Quota = Quota::per_second(1_000, 2_000);

/// Keys whose rate is remembered before those that owe nothing are forgotten.
const KEYS_REMEMBERED: usize = 4_096;

/// From the request's head to the beginning of the answer.
pub(super) const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Rates of strangers and of keys.
#[derive(Debug)]
pub(super) struct Gate {
    failures: Mutex<ByAddress>,
    /// Bounded by the keys that exist, for only they come this far.
    keys: Mutex<HashMap<CredentialId, Gcra, foldhash::fast::RandomState>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            failures: Mutex::new(ByAddress::new(FAILURES, ADDRESSES_MAX)),
            keys: Mutex::default(),
        }
    }
}

impl Gate {
    /// Turns a failed attempt into its answer.
    fn failed(&self, address: IpAddr, now_ms: u64, refusal: Refusal) -> Refusal {
        match self.failures.lock().check(address, now_ms, 1) {
            Ok(()) => refusal,
            Err(retry_after_ms) => {
                let message = "too many requests of this address had no valid key";
                Refusal::new(Code::RateLimited, message).retry_after(retry_after_ms)
            }
        }
    }

    fn charge(&self, key: CredentialId, now_ms: u64) -> Result<(), Refusal> {
        let mut keys = self.keys.lock();
        if keys.len() >= KEYS_REMEMBERED && !keys.contains_key(&key) {
            keys.retain(|_, state| !state.is_idle(now_ms));
        }
        let state = keys.entry(key).or_default();
        state.check(REQUESTS, now_ms, 1).map_err(|retry_after_ms| {
            Refusal::new(Code::RateLimited, "too many requests with this API key").retry_after(retry_after_ms)
        })
    }
}

impl Api {
    fn authenticate(&self, request: &Request) -> Result<Caller, Refusal> {
        let now = self.hub.clock.now();
        let header = request.headers().get(header::AUTHORIZATION);
        let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let key = match text.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
            _ => "",
        };
        let row = {
            let credentials = self.hub.credentials.read();
            let row = credentials.authenticate(key, CredentialKind::ApiKey, now.unix_ms);
            row.cloned()
        };
        match row {
            Ok(row) => {
                self.gate.charge(row.id, now.mono_ms)?;
                Ok(Caller::new(row))
            }
            Err(refusal) => {
                self.counters.unauthenticated.increment();
                let address = request.extensions().get::<Peer>().map(|peer| peer.address);
                Err(match address {
                    Some(address) => self.gate.failed(address, now.mono_ms, refusal),
                    None => refusal,
                })
            }
        }
    }
}

/// Lets a request in, or not.
pub(super) async fn pass(
    State(api): State<Api>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let wants_key = path.is_some_and(|path| path.as_str().starts_with("/v1/"));
    // Counted before it is asked whether the node leaves: so none is let in that nobody waits for.
    let underway = wants_key.then(|| api.hub.leaving.enter());
    let response = if wants_key && api.hub.leaving.has_begun() {
        Refused::from(api.hub.leaving.refusal()).into_response()
    } else if wants_key {
        match api.authenticate(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                carry_through(underway, request, next).await
            }
            Err(refusal) => Refused::from(refusal).into_response(),
        }
    } else {
        carry_through(None, request, next).await
    };
    api.counters
        .answered(response.status(), response.extensions().get().copied());
    response
}

/// Whoever hangs up has still asked: what was begun is done to its end, so that the store and memory agree.
async fn carry_through(underway: Option<Underway>, request: Request, next: Next) -> Response {
    let task = tokio::spawn(async move {
        let response = next.run(request).await;
        drop(underway);
        response
    });
    match tokio::time::timeout(REQUEST_TIME, task).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::error!(%error, "a request ended in a fault");
            Refused::new(Code::Internal, "a fault of the broker; see its log").into_response()
        }
        Err(_) => {
            let message = "this took too long; what was begun goes on";
            Refused::new(Code::Unavailable, message).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_who_fail_too_often_are_told_to_wait_and_others_are_not() {
        let gate = Gate::default();
        let (bad, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let wrong = || Refusal::new(Code::TokenInvalid, "wrong");
        for _ in 0..20 {
            assert_eq!(gate.failed(bad, 1_000, wrong()).code, Code::TokenInvalid);
        }
        let refusal = gate.failed(bad, 1_000, wrong());
        assert_eq!((refusal.code, refusal.retry_after_ms), (Code::RateLimited, 6_000));
        assert_eq!(gate.failed(other, 1_000, wrong()).code, Code::TokenInvalid);
        assert_eq!(gate.failed(bad, 7_000, wrong()).code, Code::TokenInvalid);
    }

    #[test]
    fn a_key_has_a_rate_of_its_own_and_idle_ones_are_forgotten() {
        let gate = Gate::default();
        let id = |n: usize| {
            let digits = b"0123456789abcdefghjkmnpqrstvwxyz";
            let name: String = (0..16)
                .map(|i| char::from(digits[n.checked_shr(i * 5).unwrap_or(0) & 31]))
                .collect();
            CredentialId::new(&name).unwrap()
        };
        for _ in 0..2_000 {
            assert_eq!(gate.charge(id(0), 1_000), Ok(()));
        }
        assert_eq!(gate.charge(id(0), 1_000).unwrap_err().code, Code::RateLimited);
        for n in 1..=KEYS_REMEMBERED {
            assert_eq!(gate.charge(id(n), 60_000 + n as u64 * 10), Ok(()));
        }
        assert!(gate.keys.lock().len() < KEYS_REMEMBERED);
    }
}
