//! What a client does and when: opening, asking, joining again, giving up. Pure: time is an argument, frames go in and out as
//! values, nothing is awaited. Answers leave through one-shot channels and queues, which are memory, not I/O.
//!
//! Around it, the driver: performs [`Action`]s, reports what became of them with `handle_connected` and `handle_lost`, feeds
//! frames, commands and the time, writes what `poll_outgoing` gives, and comes back at `poll_timeout`.
//!
//! What must stay true: hello goes first and nothing else before the welcome; joins go before waiting requests, so that a
//! client hears what it publishes; a broker that is silent too long is left; what the broker advises is what happens.

mod requests;
mod rooms;
mod timers;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cauce_protocol::server::Dialect;
use cauce_protocol::wire::{client_frame::Request, reply::Outcome, server_frame};
use cauce_protocol::{Advice, Code, ConnectionId, Payload, RoomName, TenantId, UserId, limits, wire};
use prost::Message as _;

use self::requests::Requests;
use self::rooms::{Joined, Left, Refused, Rooms};
use self::timers::{Timer, Timers};
use crate::backoff::{self, Backoff};
use crate::error::{Error, ErrorKind};
use crate::event::{Direct, DirectMessage, Event};
use crate::options::Reconnect;
use crate::queue::Queue;
use crate::room::Inboxes;
use crate::status::{Session, Status};

pub(crate) use self::requests::{Delivery, OfflineBounds, Submission};

/// Time between the socket and the welcome.
const WELCOME_MAX: Duration = Duration::from_secs(10);
/// Heartbeat where the broker announces none.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(30);
/// Allowance for a slow network on top of the heartbeat.
const HEARTBEAT_GRACE: Duration = Duration::from_secs(5);
/// How long a broker that said goaway may take to close before we do.
const GOAWAY_GRACE: Duration = Duration::from_secs(5);
/// Requests that may lie encoded-next before the driver stops taking more from the application.
const UNSENT_MAX: usize = 1024;

/// What stays the same for the client's life.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) dialect: Dialect,
    pub(crate) client: String,
    pub(crate) request_timeout: Duration,
    pub(crate) offline: OfflineBounds,
    /// Requests that may wait for their answers.
    pub(crate) in_flight_max: usize,
    pub(crate) reconnect: Reconnect,
    /// Whether another token can be had.
    pub(crate) renewable: bool,
    pub(crate) seed: u64,
}

/// Application to connection, in order.
#[derive(Debug)]
pub(crate) enum Command {
    Subscribe {
        room: RoomName,
        queue: Arc<Queue<Event>>,
        joined: Joined,
    },
    Request(Submission),
}

/// Application to connection, from places that cannot wait. As many as there are handles to drop.
#[derive(Debug)]
pub(crate) enum Control {
    Leave {
        room: RoomName,
        queue: Arc<Queue<Event>>,
    },
    Close,
}

/// What the driver has to do about the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Dial; with a new token if the last one is no good any more.
    Connect { token: TokenUse },
    /// Drop the socket, with this close code if it can still be said.
    Disconnect { code: u16 },
    /// Nothing will happen any more.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenUse {
    Same,
    Renew,
}

#[derive(Debug)]
enum Phase {
    Waiting { until: Instant, token: TokenUse },
    Dialling,
    Opening { hello: u32, until: Instant },
    Open(Open),
    Closed,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    heartbeat: Duration,
    token_expires: Option<Instant>,
    frame_bytes_max: usize,
    rooms_max: usize,
    /// The broker asked us to go: it closes, or we do at this time.
    leave_at: Option<Instant>,
    silence: Silence,
}

#[derive(Clone, Copy, Debug)]
enum Silence {
    /// Ask when nothing is heard until then.
    AskAt(Instant),
    /// Asked; leave when nothing is heard until then.
    LeaveAt(Instant),
}

#[derive(Debug)]
pub(crate) struct Connection {
    settings: Settings,
    phase: Phase,
    /// Whether any connection was ever welcomed: until then a wrong address looks like what it is.
    welcomed: bool,
    heard: Instant,
    /// Why the broker is about to close.
    goaway: Option<Error>,
    rooms: Rooms,
    requests: Requests,
    inboxes: Arc<Inboxes>,
    timers: Timers,
    backoff: Backoff,
    /// Frames that go before requests: hello, joins, leaves, our own pings.
    control: VecDeque<wire::ClientFrame>,
    actions: VecDeque<Action>,
    status: Option<Status>,
}

impl Connection {
    pub(crate) fn new(now: Instant, settings: Settings, inboxes: Arc<Inboxes>) -> Self {
        Self {
            phase: Phase::Dialling,
            welcomed: false,
            heard: now,
            goaway: None,
            rooms: Rooms::default(),
            requests: Requests::new(settings.offline),
            inboxes,
            timers: Timers::default(),
            backoff: Backoff::new(settings.seed),
            control: VecDeque::new(),
            actions: VecDeque::from([Action::Connect {
                token: TokenUse::Same,
            }]),
            status: Some(Status::Connecting),
            settings,
        }
    }

    /// The socket is there.
    pub(crate) fn handle_connected(&mut self, now: Instant, token: String) {
        if !matches!(self.phase, Phase::Dialling) {
            return;
        }
        let hello = self.requests.next_id();
        self.control.push_back(wire::ClientFrame {
            id: hello,
            request: Some(Request::Hello(wire::Hello {
                version: cauce_protocol::VERSION,
                features: wire::Feature::Advance as u64,
                token,
                client: self.settings.client.clone(),
            })),
        });
        self.heard = now;
        self.phase = Phase::Opening {
            hello,
            until: now + WELCOME_MAX,
        };
    }

    /// Something came from the broker, if only a ping.
    pub(crate) fn handle_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(crate) fn handle_frame(&mut self, now: Instant, frame: wire::ServerFrame) {
        use server_frame::Message;
        self.heard = now;
        match frame.message {
            Some(Message::Push(push)) => self.rooms.push(push),
            Some(Message::Advance(advance)) => self.rooms.advance(advance),
            Some(Message::Direct(direct)) => self.handle_direct(direct),
            Some(Message::Reply(reply)) => self.handle_reply(now, reply),
            Some(Message::Goaway(goaway)) => self.handle_goaway(now, goaway),
            // A message of a later version, which we did not ask for.
            None => tracing::debug!("a message that this version does not know"),
        }
    }

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

    pub(crate) fn handle_command(&mut self, now: Instant, command: Command) {
        if matches!(self.phase, Phase::Closed) {
            // Dropping its sender answers it: the caller knows that the client is closed.
            return;
        }
        match command {
            Command::Subscribe { room, queue, joined } => {
                let expires = now + self.settings.request_timeout + self.settings.offline.age_max;
                let together_max = self.rooms_max();
                if let Some(key) = self.rooms.add(room, queue, joined, expires, together_max) {
                    self.timers.set(expires, Timer::Reader(key));
                }
            }
            Command::Request(submission) => {
                let online = matches!(self.phase, Phase::Open(_));
                self.requests.submit(now, online, &mut self.timers, submission);
            }
        }
    }

    pub(crate) fn handle_control(&mut self, control: Control) {
        match control {
            Control::Leave { room, queue } => {
                if self.rooms.remove(&room, &queue) == Left::Tell {
                    self.leave(&room);
                }
            }
            Control::Close => self.close(None),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Request(id) => self.requests.expire(id, &mut self.timers),
                Timer::Subscribe(id) => {
                    if self.rooms.is_asked(id) {
                        let error = Error::new(ErrorKind::Timeout, "the broker did not answer a subscribe");
                        self.leave_broker(now, Code::HeartbeatTimeout, &error);
                    }
                }
                Timer::Reader(key) => self.expire_reader(now, key),
                Timer::Room(key) => self.rooms.retry(key, now),
            }
        }
        match self.phase {
            Phase::Waiting { until, token } if until <= now => {
                self.phase = Phase::Dialling;
                self.actions.push_back(Action::Connect { token });
                self.status = Some(Status::Connecting);
            }
            Phase::Opening { until, .. } if until <= now => {
                let error = Error::new(ErrorKind::Timeout, "the broker did not answer hello");
                self.leave_broker(now, Code::HandshakeTimeout, &error);
            }
            Phase::Open(_) => self.handle_open_timeout(now),
            _ => {}
        }
    }

    fn handle_open_timeout(&mut self, now: Instant) {
        let Phase::Open(open) = &mut self.phase else {
            return;
        };
        if open.leave_at.is_some_and(|at| at <= now) {
            let error = self
                .goaway
                .take()
                .unwrap_or_else(|| Error::new(ErrorKind::ConnectionLost, "the broker asked us to go"));
            self.leave_broker(now, Code::GoingAway, &error);
            return;
        }
        let ask_at = self.heard + open.heartbeat + HEARTBEAT_GRACE;
        let leave_at = ask_at + open.heartbeat;
        match open.silence {
            Silence::AskAt(at) | Silence::LeaveAt(at) if at > now => {}
            // Something was heard since the time was set.
            _ if ask_at > now => open.silence = Silence::AskAt(ask_at),
            _ if leave_at > now => {
                if matches!(open.silence, Silence::AskAt(_)) {
                    let id = self.requests.next_id();
                    self.control.push_back(wire::ClientFrame {
                        id,
                        request: Some(Request::Ping(wire::Ping {})),
                    });
                }
                open.silence = Silence::LeaveAt(leave_at);
            }
            _ => {
                let silent = now.saturating_duration_since(self.heard);
                let error = Error::new(
                    ErrorKind::ConnectionLost,
                    format!("nothing was heard from the broker for {silent:?}"),
                );
                self.leave_broker(now, Code::HeartbeatTimeout, &error);
            }
        }
    }

    fn handle_direct(&mut self, direct: wire::Direct) {
        use wire::direct::Payload as P;
        let payload = match direct.payload {
            None => Payload::NULL,
            Some(P::Json(json)) => Payload::Json(json),
            Some(P::Text(text)) => Payload::Text(text.into()),
            Some(P::Binary(binary)) => Payload::Binary(binary),
        };
        self.inboxes.push(&Direct::Message(DirectMessage {
            event: direct.event.into(),
            payload,
        }));
    }

    fn handle_goaway(&mut self, now: Instant, goaway: wire::Goaway) {
        let error = goaway.error.unwrap_or_default().into();
        tracing::debug!(%error, "the broker asks us to go");
        self.goaway = Some(error);
        if let Phase::Open(open) = &mut self.phase {
            open.leave_at = Some(now + GOAWAY_GRACE);
        }
    }

    fn handle_reply(&mut self, now: Instant, reply: wire::Reply) {
        let wire::Reply { id, outcome } = reply;
        let outcome = match outcome {
            None => Err(Error::new(
                ErrorKind::Protocol,
                "the broker's answer is of a kind that this version does not know",
            )),
            Some(Outcome::Error(error)) => Err(Error::from(error)),
            Some(outcome) => Ok(outcome),
        };
        match self.phase {
            Phase::Opening { hello, .. } => match outcome {
                Ok(Outcome::Welcome(welcome)) if id == hello || id == 0 => self.welcome(now, &welcome),
                Err(error) if id == hello || id == 0 => {
                    self.leave_broker(now, Code::GoingAway, &error);
                }
                _ => tracing::debug!(id, "an answer before the welcome"),
            },
            Phase::Open(_) if self.rooms.is_asked(id) => self.handle_subscribe_reply(now, id, outcome),
            Phase::Open(_) => {
                if let Err(error) = &outcome
                    && id == 0
                {
                    tracing::debug!(%error, "a request without an answer was refused");
                } else if !self.requests.answer(id, &mut self.timers, outcome) {
                    // It came after the time-out, or answers our own ping or a second hello.
                    tracing::trace!(id, "an answer that nobody waits for");
                }
            }
            _ => {}
        }
    }

    fn handle_subscribe_reply(&mut self, now: Instant, id: u32, outcome: Result<Outcome, Error>) {
        match outcome {
            Ok(Outcome::Subscribed(subscribed)) => {
                if let Err(error) = self.rooms.join(id, &subscribed) {
                    self.leave_broker(now, Code::Malformed, &error);
                }
            }
            Ok(_) => {
                let error = Error::new(
                    ErrorKind::Protocol,
                    "the broker answered a subscribe with something else",
                );
                self.leave_broker(now, Code::Malformed, &error);
            }
            Err(error) => {
                let floor = error.retry_after().unwrap_or(backoff::LATER);
                let later = now + self.backoff.spread(floor);
                if let Refused::Later(keys) = self.rooms.refuse(id, &error, later) {
                    for key in keys {
                        self.timers.set(later, Timer::Room(key));
                    }
                }
            }
        }
        // Lists that were refused are asked for again in halves, lists that were accepted have made room for others.
        self.ask_for_rooms(now);
    }

    fn welcome(&mut self, now: Instant, welcome: &wire::Welcome) {
        let session = match session(now, welcome) {
            Ok(session) => session,
            Err(error) => {
                self.leave_broker(now, Code::Unsupported, &error);
                return;
            }
        };
        let limits = welcome.limits.unwrap_or_default();
        let frame_bytes_max = at_most(
            limits.frame_bytes,
            limits::FRAME_BYTES_DEFAULT,
            limits::FRAME_BYTES_MAX,
        );
        let rooms_max = at_most(
            limits.rooms_a_request,
            limits::ROOMS_A_REQUEST_MAX,
            limits::ROOMS_A_REQUEST_MAX,
        );
        self.phase = Phase::Open(Open {
            since: now,
            heartbeat: session.heartbeat,
            token_expires: session.token_expires,
            frame_bytes_max,
            rooms_max,
            leave_at: None,
            silence: Silence::AskAt(now + session.heartbeat + HEARTBEAT_GRACE),
        });
        self.welcomed = true;
        self.goaway = None;
        self.status = Some(Status::Online(Arc::new(session)));
        self.rooms.welcome(rooms_max);
        self.ask_for_rooms(now);
        self.requests.online(now, &mut self.timers);
    }

    /// Asks for every room that is wanted now.
    pub(crate) fn ask_for_rooms(&mut self, now: Instant) {
        let Phase::Open(open) = &self.phase else {
            return;
        };
        let rooms_max = open.rooms_max;
        while self.rooms.is_any_wanted() {
            let id = self.requests.next_id();
            let Some(rooms) = self.rooms.ask(id, rooms_max) else {
                return;
            };
            self.timers
                .set(now + self.settings.request_timeout, Timer::Subscribe(id));
            self.control.push_back(wire::ClientFrame {
                id,
                request: Some(Request::Subscribe(wire::Subscribe { rooms })),
            });
        }
    }

    fn leave(&mut self, room: &RoomName) {
        let Phase::Open(open) = &self.phase else {
            return;
        };
        let rooms_max = open.rooms_max;
        if let Some(wire::ClientFrame {
            request: Some(Request::Unsubscribe(last)),
            ..
        }) = self.control.back_mut()
            && last.rooms.len() < rooms_max
        {
            last.rooms.push(room.as_str().to_owned());
            return;
        }
        self.control.push_back(wire::ClientFrame {
            id: 0,
            request: Some(Request::Unsubscribe(wire::Unsubscribe {
                rooms: vec![room.as_str().to_owned()],
            })),
        });
    }

    fn expire_reader(&mut self, now: Instant, key: usize) {
        let error = match self.phase {
            Phase::Open(_) => Error::new(ErrorKind::Timeout, "the room could not be joined in time"),
            _ => Error::new(
                ErrorKind::Offline,
                "there was no connection to join the room on in time",
            ),
        };
        if let Some(room) = self.rooms.expire(key, now, &error) {
            self.leave(&room);
        }
    }

    /// We end it. The driver drops the socket and says nothing about it.
    fn leave_broker(&mut self, now: Instant, code: Code, error: &Error) {
        self.actions.push_back(Action::Disconnect { code: code.number() });
        self.lose(now, error);
    }

    /// The bytes of the broker are not this protocol.
    pub(crate) fn handle_malformed(&mut self, now: Instant, code: Code, message: String) {
        if matches!(self.phase, Phase::Opening { .. } | Phase::Open(_)) {
            self.leave_broker(now, code, &Error::new(ErrorKind::Protocol, message));
        }
    }

    fn lose(&mut self, now: Instant, error: &Error) {
        let mut expired = false;
        if let Phase::Open(open) = &self.phase {
            self.backoff.ended(open.since, now);
            expired = open.token_expires.is_some_and(|at| at <= now);
        }
        self.goaway = None;
        self.control.clear();
        self.timers.clear_subscribes();
        self.rooms.lose();
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
        if expired && self.settings.renewable {
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

    fn close(&mut self, reason: Option<&Error>) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        let closed = closed_error(reason);
        self.requests.close(&mut self.timers, &closed);
        self.rooms.close(reason, &closed);
        self.inboxes.finish();
        self.control.clear();
        self.timers = Timers::default();
        self.phase = Phase::Closed;
        self.status = Some(Status::Closed {
            reason: reason.cloned(),
        });
        self.actions.push_back(Action::Stop);
    }

    /// Appends one frame in the dialect of the connection. `None` if there is none now.
    pub(crate) fn poll_outgoing(&mut self, now: Instant, out: &mut BytesMut) -> Option<()> {
        self.ask_for_rooms(now);
        if let Some(frame) = self.control.pop_front() {
            encode(&frame, self.settings.dialect, out);
            return Some(());
        }
        let Phase::Open(open) = &self.phase else {
            return None;
        };
        let (dialect, frame_bytes_max) = (self.settings.dialect, open.frame_bytes_max);
        loop {
            let before = out.len();
            let polled = self.requests.poll_unsent(&mut self.timers, |id, request| {
                let frame = wire::ClientFrame {
                    id,
                    request: Some(request),
                };
                let bytes = encode(&frame, dialect, out);
                if bytes <= frame_bytes_max {
                    return Ok(());
                }
                // The broker would close on it, and a repeat would do it again.
                out.truncate(before);
                let message = format!("the request takes {bytes} bytes, the broker allows {frame_bytes_max}");
                Err(cauce_protocol::Refusal::new(Code::TooLarge, message).into())
            });
            match polled {
                false => return None,
                true if out.len() > before => return Some(()),
                true => {}
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Waiting { until, .. } | Phase::Opening { until, .. } => Some(*until),
            Phase::Open(open) => {
                let (Silence::AskAt(at) | Silence::LeaveAt(at)) = open.silence;
                Some(open.leave_at.map_or(at, |leave_at| leave_at.min(at)))
            }
            Phase::Dialling | Phase::Closed => None,
        };
        [phase, self.timers.next()].into_iter().flatten().min()
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The status, if it changed since the last time.
    pub(crate) fn poll_status(&mut self) -> Option<Status> {
        self.status.take()
    }

    /// Whether the application may go on, or has to wait until something was sent or answered.
    pub(crate) fn takes_commands(&self) -> bool {
        match self.phase {
            Phase::Open(_) => {
                self.requests.unsent() < UNSENT_MAX
                    && self.requests.in_flight() < self.settings.in_flight_max
                    && self.control.len() < UNSENT_MAX
            }
            _ => true,
        }
    }

    fn rooms_max(&self) -> usize {
        match &self.phase {
            Phase::Open(open) => open.rooms_max,
            _ => limits::ROOMS_A_REQUEST_MAX,
        }
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

fn session(now: Instant, welcome: &wire::Welcome) -> Result<Session, Error> {
    if welcome.version != cauce_protocol::VERSION {
        return Err(Error::from_code(
            Code::Unsupported.number(),
            format!(
                "the broker speaks version {} of the protocol, this client {}",
                welcome.version,
                cauce_protocol::VERSION
            ),
            None,
        ));
    }
    let name = |what, error| Error::new(ErrorKind::Protocol, format!("welcome: {what} {error}"));
    Ok(Session {
        connection: ConnectionId(welcome.connection),
        tenant: TenantId::new(&welcome.tenant).map_err(|e| name("tenant", e))?,
        user: UserId::new(&welcome.user).map_err(|e| name("user", e))?,
        heartbeat: match welcome.heartbeat_ms {
            0 => HEARTBEAT_DEFAULT,
            ms => Duration::from_millis(ms.into()),
        },
        // A time too far for the clock to hold is never.
        token_expires: Some(welcome.expires_in_ms)
            .filter(|&ms| ms > 0)
            .and_then(|ms| now.checked_add(Duration::from_millis(ms))),
    })
}

/// A limit the broker told, within what the protocol allows; 0 means that it told none.
fn at_most(told: u32, default: usize, max: usize) -> usize {
    match usize::try_from(told) {
        Ok(0) => default,
        Ok(told) => told.min(max),
        Err(_) => max,
    }
}

/// Appends the frame; its bytes without a length in front.
fn encode(frame: &wire::ClientFrame, dialect: Dialect, out: &mut BytesMut) -> usize {
    match dialect {
        Dialect::Proto => {
            // A `BytesMut` grows as needed, so this cannot fail.
            let _ = frame.encode_length_delimited(out);
            frame.encoded_len()
        }
        Dialect::Json => {
            let text = cauce_protocol::json::encode_client(frame);
            out.extend_from_slice(text.as_bytes());
            text.len()
        }
    }
}
