//! Requests that wait to be sent, and requests that wait for their answer.
//!
//! What must stay true: every acknowledged request is answered exactly once, within a bounded time. A request is sent again
//! only if it is a publish with an idempotency key, in the order of the first sending and ahead of newer ones.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::wire::reply::Outcome;
use tokio::sync::oneshot;

use super::timers::{Timer, Timers};
use crate::error::{Error, ErrorKind};

/// Names a request to whoever made it, before it has an id on the wire.
pub(crate) type Ticket = u64;

pub(crate) type Answer = oneshot::Sender<Result<Outcome, Error>>;

/// One request of the application.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) request: Request,
    /// `None` asks for no answer (id 0 on the wire).
    pub(crate) answer: Option<Answer>,
    pub(crate) timeout: Duration,
    pub(crate) delivery: Delivery,
    /// For requests that can be given up: the broker is told ([`Requests::give_up`]).
    pub(crate) ticket: Option<Ticket>,
}

/// What a lost connection means for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Waits for a connection; once sent, it fails with the connection.
    Once,
    /// Waits for a connection; once sent, it is sent again on the next one.
    Repeat,
    /// Only on the connection that is open now.
    NowOnly,
}

/// Bounds of what may wait for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfflineBounds {
    pub(crate) count_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) age_max: Duration,
}

#[derive(Debug)]
pub(super) struct Requests {
    /// By id, sent or not. Ids of requests without an answer are used here only.
    pending: HashMap<u32, Pending>,
    /// Not sent yet, in order. May name a request that has expired meanwhile.
    unsent: VecDeque<u32>,
    /// Of the requests that are not sent yet, estimated by their payload.
    unsent_bytes: usize,
    next_id: u32,
    bounds: OfflineBounds,
    /// Ids of the requests that have a ticket.
    by_ticket: HashMap<Ticket, u32>,
}

#[derive(Debug)]
struct Pending {
    ticket: Option<Ticket>,
    /// Until it is sent, or for as long as it may be sent again.
    request: Option<Request>,
    answer: Option<Answer>,
    timeout: Duration,
    delivery: Delivery,
    stage: Stage,
    submitted: Instant,
    /// When [`Timer::Request`] fires for it.
    deadline: Instant,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unsent,
    Sent,
    /// Sent on a connection that died; what became of it is not known.
    Again,
}

impl Requests {
    pub(super) fn new(bounds: OfflineBounds) -> Self {
        Self {
            pending: HashMap::new(),
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            next_id: 0,
            bounds,
            by_ticket: HashMap::new(),
        }
    }

    /// An id that nobody waits for. Never 0, which asks for no answer.
    pub(super) fn next_id(&mut self) -> u32 {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if self.next_id != 0 && !self.pending.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn wind_to(&mut self, id: u32) {
        self.next_id = id;
    }

    pub(super) fn submit(&mut self, now: Instant, online: bool, timers: &mut Timers, submission: Submission) {
        let Submission {
            request,
            answer,
            timeout,
            delivery,
            ticket,
        } = submission;
        let bytes = payload_len(&request);
        if !online && let Err(error) = self.admit_offline(delivery, bytes) {
            match answer {
                Some(answer) => {
                    let _ = answer.send(Err(error));
                }
                None => tracing::debug!(%error, "a request without an answer was dropped"),
            }
            return;
        }
        let id = self.next_id();
        let deadline = now + if online { timeout } else { self.bounds.age_max };
        timers.set(deadline, Timer::Request(id));
        self.unsent.push_back(id);
        self.unsent_bytes += bytes;
        if let Some(ticket) = ticket {
            self.by_ticket.insert(ticket, id);
        }
        self.pending.insert(
            id,
            Pending {
                ticket,
                request: Some(request),
                answer,
                timeout,
                delivery,
                stage: Stage::Unsent,
                submitted: now,
                deadline,
                bytes,
            },
        );
    }

    fn admit_offline(&self, delivery: Delivery, bytes: usize) -> Result<(), Error> {
        if delivery == Delivery::NowOnly || self.bounds.count_max == 0 {
            return Err(Error::new(ErrorKind::Offline, "there is no connection now"));
        }
        if self.unsent.len() >= self.bounds.count_max || self.unsent_bytes + bytes > self.bounds.bytes_max {
            return Err(Error::new(
                ErrorKind::QueueFull,
                "there is no connection now, and the queue for its return is full",
            ));
        }
        Ok(())
    }

    /// The connection is open: what waited for it has its own time from now on.
    pub(super) fn online(&mut self, now: Instant, timers: &mut Timers) {
        for &id in &self.unsent {
            if let Some(pending) = self.pending.get_mut(&id) {
                timers.clear(pending.deadline, Timer::Request(id));
                pending.deadline = now + pending.timeout;
                timers.set(pending.deadline, Timer::Request(id));
            }
        }
    }

    /// The connection is gone.
    pub(super) fn lose(&mut self, now: Instant, timers: &mut Timers, error: &Error) {
        let mut lost: Vec<u32> = Vec::new();
        let mut again: Vec<u32> = Vec::new();
        for (&id, pending) in &mut self.pending {
            let sent = pending.stage == Stage::Sent;
            let expires = pending.submitted + self.bounds.age_max;
            let stays = match pending.delivery {
                Delivery::Repeat => expires > now && self.bounds.count_max > 0,
                Delivery::Once => !sent && expires > now && self.bounds.count_max > 0,
                Delivery::NowOnly => false,
            };
            if !stays {
                lost.push(id);
                continue;
            }
            timers.clear(pending.deadline, Timer::Request(id));
            pending.deadline = expires;
            timers.set(expires, Timer::Request(id));
            if sent {
                pending.stage = Stage::Again;
                again.push(id);
            }
        }
        for id in lost {
            self.finish(id, timers, Err(error.clone()));
        }
        // Ids rise with time and wrap: counted from the next one, the oldest comes first.
        let origin = self.next_id.wrapping_add(1);
        again.sort_unstable_by_key(|id| id.wrapping_sub(origin));
        for id in again.into_iter().rev() {
            self.unsent_bytes += self.pending.get(&id).map_or(0, |p| p.bytes);
            self.unsent.push_front(id);
        }
    }

    /// Gives the next request to `send`, with its id on the wire. `send` may refuse it, which is its answer then.
    pub(super) fn poll_unsent(
        &mut self,
        timers: &mut Timers,
        send: impl FnOnce(u32, Request) -> Result<(), Error>,
    ) -> bool {
        while let Some(id) = self.unsent.pop_front() {
            let Some(pending) = self.pending.get_mut(&id) else {
                continue;
            };
            self.unsent_bytes -= pending.bytes;
            // Whoever asked has gone, and nothing was sent yet: nothing need be.
            if pending.stage == Stage::Unsent && pending.answer.as_ref().is_some_and(Answer::is_closed) {
                self.forget(id, timers);
                continue;
            }
            let Some(request) = pending.request.take() else {
                continue;
            };
            if pending.delivery == Delivery::Repeat {
                pending.request = Some(request.clone());
            }
            pending.stage = Stage::Sent;
            let wire_id = if pending.answer.is_some() { id } else { 0 };
            match send(wire_id, request) {
                Ok(()) if wire_id == 0 => drop(self.forget(id, timers)),
                Ok(()) => {}
                Err(error) => self.finish(id, timers, Err(error)),
            }
            return true;
        }
        false
    }

    /// Whether the id belongs to a request that was sent.
    pub(super) fn answer(&mut self, id: u32, timers: &mut Timers, outcome: Result<Outcome, Error>) -> bool {
        if self.pending.get(&id).is_none_or(|p| p.stage != Stage::Sent) {
            return false;
        }
        self.finish(id, timers, outcome);
        true
    }

    /// [`Timer::Request`] fired.
    pub(super) fn expire(&mut self, id: u32, timers: &mut Timers) {
        let Some(pending) = self.pending.get(&id) else {
            return;
        };
        let error = match pending.stage {
            Stage::Unsent => Error::new(
                ErrorKind::Offline,
                "there was no connection to send it on in time; nothing was sent",
            ),
            Stage::Sent => Error::new(
                ErrorKind::Timeout,
                format!("the broker did not answer within {:?}", pending.timeout),
            ),
            Stage::Again => Error::new(
                ErrorKind::ConnectionLost,
                "the connection was lost before the answer, and none came back in time to ask again",
            ),
        };
        self.finish(id, timers, Err(error));
    }

    /// The client is closed.
    pub(super) fn close(&mut self, timers: &mut Timers, error: &Error) {
        let ids: Vec<u32> = self.pending.keys().copied().collect();
        for id in ids {
            self.finish(id, timers, Err(error.clone()));
        }
        self.unsent.clear();
        self.unsent_bytes = 0;
    }

    fn forget(&mut self, id: u32, timers: &mut Timers) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        timers.clear(pending.deadline, Timer::Request(id));
        if let Some(ticket) = pending.ticket {
            self.by_ticket.remove(&ticket);
        }
        Some(pending)
    }

    /// Nobody waits for the answer any more. The request's id, if the broker works on it.
    pub(super) fn give_up(&mut self, ticket: Ticket, timers: &mut Timers) -> Option<u32> {
        let id = *self.by_ticket.get(&ticket)?;
        // What is not sent yet is passed over when its turn comes, because nobody waits.
        if self.pending.get(&id)?.stage != Stage::Sent {
            return None;
        }
        self.forget(id, timers);
        Some(id)
    }

    fn finish(&mut self, id: u32, timers: &mut Timers, outcome: Result<Outcome, Error>) {
        let Some(pending) = self.forget(id, timers) else {
            return;
        };
        // Its place in the line is skipped when its turn comes; at the front, where the oldest are, it is given up at once,
        // so that a line of expired requests does not count as full.
        if pending.stage != Stage::Sent {
            self.unsent_bytes = self.unsent_bytes.saturating_sub(pending.bytes);
            while self
                .unsent
                .front()
                .is_some_and(|id| !self.pending.contains_key(id))
            {
                self.unsent.pop_front();
            }
        }
        match (pending.answer, outcome) {
            // Nobody need be there any more to hear it.
            (Some(answer), outcome) => drop(answer.send(outcome)),
            (None, Err(error)) => tracing::debug!(%error, "a request without an answer was dropped"),
            (None, Ok(_)) => {}
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn unsent(&self) -> usize {
        self.unsent.len()
    }
}

fn payload_len(request: &Request) -> usize {
    use cauce_protocol::wire::{publish, send};
    match request {
        Request::Publish(publish) => match &publish.payload {
            Some(publish::Payload::Json(bytes) | publish::Payload::Binary(bytes)) => bytes.len(),
            Some(publish::Payload::Text(text)) => text.len(),
            None => 0,
        },
        Request::Send(send) => match &send.payload {
            Some(send::Payload::Json(bytes) | send::Payload::Binary(bytes)) => bytes.len(),
            Some(send::Payload::Text(text)) => text.len(),
            None => 0,
        },
        Request::Call(call) => call.params.len(),
        Request::Notify(notify) => notify.title.len() + notify.message.len() + notify.json.len(),
        _ => 0,
    }
}
