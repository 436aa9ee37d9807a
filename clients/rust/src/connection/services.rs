//! Methods that the application serves, and the calls that it works on.
//!
//! What must stay true: every call that the broker gives us is answered once on the connection it came on, or revoked; what
//! is served is registered on every connection, until the application or the broker ends it.

use std::collections::HashMap;
use std::time::Instant;

use cauce_protocol::message::MethodPattern;
use cauce_protocol::wire::{self, client_frame::Request, respond};
use slab::Slab;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, ErrorKind};
use crate::serve::{CONCURRENCY_MAX, Invoked};

/// Calls that we work on at once at most, over all services: far more than a broker gives to one connection.
const CALLS_MAX: usize = 4096;

/// Served methods of one client at most.
const SERVICES_MAX: usize = 256;

/// The longest error that a broker takes, in bytes.
const ERROR_BYTES_MAX: usize = cauce_protocol::limits::ERROR_BYTES_MAX;

/// A service that the application begins.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) id: u64,
    pub(crate) pattern: MethodPattern,
    pub(crate) concurrency: u32,
    /// Holds what the broker may give to one connection.
    pub(crate) invocations: mpsc::Sender<Invoked>,
    pub(crate) served: oneshot::Sender<Result<(), Error>>,
}

/// The answer to a call.
#[derive(Debug)]
pub(crate) struct Response {
    /// Of which connection the call is.
    pub(crate) generation: u64,
    pub(crate) call: u64,
    pub(crate) result: respond::Result,
}

#[derive(Debug, Default)]
pub(super) struct Services {
    services: Slab<Service>,
    /// Counts connections, so that an answer does not go to a call of another.
    generation: u64,
    /// Calls that are worked on. Dropping what stands here tells whoever does that nobody waits any more.
    calls: HashMap<u64, oneshot::Sender<()>>,
    /// Services to register, in order.
    wanted: Vec<usize>,
    /// Registrations without an answer yet, by request.
    asked: HashMap<u32, usize>,
}

#[derive(Debug)]
struct Service {
    id: u64,
    pattern: MethodPattern,
    concurrency: u32,
    invocations: mpsc::Sender<Invoked>,
    /// Until it was registered for the first time.
    served: Option<oneshot::Sender<Result<(), Error>>>,
    expires: Instant,
}

impl Services {
    /// A new service; its key, for the time until which it must be registered.
    pub(super) fn add(&mut self, serving: Serving, expires: Instant) -> Option<usize> {
        let Serving {
            id,
            pattern,
            concurrency,
            invocations,
            served,
        } = serving;
        if invocations.is_closed() {
            return None;
        }
        let refused = if self.services.len() >= SERVICES_MAX {
            Some(format!("a client serves at most {SERVICES_MAX} patterns"))
        } else if self
            .services
            .iter()
            .any(|(_, service)| service.pattern == pattern)
        {
            Some(format!("this client serves {pattern} already"))
        } else {
            None
        };
        if let Some(message) = refused {
            let _ = served.send(Err(Error::new(ErrorKind::Invalid, message)));
            return None;
        }
        let key = self.services.insert(Service {
            id,
            pattern,
            concurrency,
            invocations,
            served: Some(served),
            expires,
        });
        self.wanted.push(key);
        Some(key)
    }

    /// The application has ended a service. Its method, if the broker has to be told.
    pub(super) fn remove(&mut self, id: u64) -> Option<String> {
        let (key, _) = self.services.iter().find(|(_, service)| service.id == id)?;
        let service = self.services.remove(key);
        self.wanted.retain(|&wanted| wanted != key);
        self.asked.retain(|_, asked| *asked != key);
        Some(service.pattern.to_string())
    }

    /// The next registration to ask for.
    pub(super) fn ask(&mut self, next_id: impl FnOnce() -> u32) -> Option<(u32, Request)> {
        let key = self.wanted.pop()?;
        let pattern = self.services.get(key)?.pattern.to_string();
        // The broker counts by connection, whatever the method.
        let total = self
            .services
            .iter()
            .fold(0u32, |sum, (_, service)| sum.saturating_add(service.concurrency));
        let id = next_id();
        self.asked.insert(id, key);
        let request = Request::Serve(wire::Serve {
            methods: vec![pattern],
            concurrency: total.min(CONCURRENCY_MAX),
        });
        Some((id, request))
    }

    pub(super) fn is_any_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    pub(super) fn is_asked(&self, id: u32) -> bool {
        self.asked.contains_key(&id)
    }

    /// The broker's word on a registration. The key, if it may be asked for again later.
    pub(super) fn registered(&mut self, id: u32, outcome: Result<(), Error>) -> Option<usize> {
        let key = self.asked.remove(&id)?;
        let service = self.services.get_mut(key)?;
        match (outcome, service.served.take()) {
            (Ok(()), served) => {
                if let Some(served) = served {
                    let _ = served.send(Ok(()));
                }
                None
            }
            // It was served before, and this may pass.
            (Err(error), None) if error.is_retryable() => Some(key),
            (Err(error), served) => {
                let service = self.services.remove(key);
                match served {
                    Some(served) => drop(served.send(Err(error))),
                    // There is room for the last word, or the application works on calls and hears of it later.
                    None => drop(service.invocations.try_send(Invoked::Ended(error))),
                }
                None
            }
        }
    }

    /// The time for which [`Services::registered`] told to wait has come.
    pub(super) fn retry(&mut self, key: usize) {
        let asked = self.asked.values().any(|&asked| asked == key);
        if self.services.contains(key) && !asked && !self.wanted.contains(&key) {
            self.wanted.push(key);
        }
    }

    /// A service that has waited too long for its first registration. Its method, if the broker may know it by now.
    pub(super) fn expire(&mut self, key: usize, now: Instant, error: &Error) -> Option<String> {
        let service = self.services.get_mut(key)?;
        if service.expires > now {
            return None;
        }
        let served = service.served.take()?;
        let _ = served.send(Err(error.clone()));
        self.remove(self.services.get(key)?.id)
    }

    /// A call to serve. What to answer at once, if it finds nobody.
    pub(super) fn invoke(&mut self, now: Instant, invoke: wire::Invoke) -> Option<Request> {
        let call = invoke.call;
        let refusal = |message: &str| {
            Some(Request::Respond(wire::Respond {
                call,
                result: Some(respond::Result::Error(message.to_owned())),
            }))
        };
        let Some(service) = self.serves(&invoke.method) else {
            return refusal("this client serves the method no longer");
        };
        if self.calls.len() >= CALLS_MAX {
            return refusal("this client works on as many calls as it can");
        }
        let (revoke, revoked) = oneshot::channel();
        let invoked = Invoked::Call {
            generation: self.generation,
            invoke,
            at: now,
            revoked,
        };
        if service.invocations.try_send(invoked).is_err() {
            return refusal("this client works on as many calls as it said");
        }
        self.calls.insert(call, revoke);
        None
    }

    /// The one that serves a method: who names it, before the longest beginning.
    fn serves(&self, method: &str) -> Option<&Service> {
        let fits = self.services.iter().map(|(_, service)| service);
        fits.filter(|service| service.pattern.matches(method))
            .max_by_key(|service| match &service.pattern {
                MethodPattern::Exactly(_) => (1, 0),
                MethodPattern::Prefix(prefix) => (0, prefix.len()),
            })
    }

    /// Nobody waits for the answer any more.
    pub(super) fn revoke(&mut self, call: u64) {
        self.calls.remove(&call);
    }

    /// The application's answer, as a request; `None` if nobody waits for it.
    pub(super) fn respond(&mut self, response: Response) -> Option<Request> {
        if response.generation != self.generation {
            return None;
        }
        self.calls.remove(&response.call)?;
        let result = match response.result {
            respond::Result::Error(error) => respond::Result::Error(shortened(error)),
            json @ respond::Result::Json(_) => json,
        };
        Some(Request::Respond(wire::Respond {
            call: response.call,
            result: Some(result),
        }))
    }

    /// The connection is gone, and with it whoever waits. Everything is to be registered again.
    pub(super) fn lose(&mut self) {
        self.generation += 1;
        self.calls.clear();
        self.asked.clear();
        self.wanted = self.services.iter().map(|(key, _)| key).collect();
    }

    /// The client is closed.
    pub(super) fn close(&mut self, closed: &Error) {
        for service in self.services.drain() {
            if let Some(served) = service.served {
                let _ = served.send(Err(closed.clone()));
            }
        }
        *self = Self {
            generation: self.generation + 1,
            ..Self::default()
        };
    }
}

fn shortened(mut error: String) -> String {
    if error.len() > ERROR_BYTES_MAX {
        let mut end = ERROR_BYTES_MAX;
        while !error.is_char_boundary(end) {
            end -= 1;
        }
        error.truncate(end);
    }
    error
}
