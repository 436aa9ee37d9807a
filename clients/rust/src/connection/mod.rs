//! What a client does and when: opening, asking, joining again, giving up. Pure: time is an argument, frames go in and out as
//! values, nothing is awaited. Answers leave through one-shot channels and queues, which are memory, not I/O.
//!
//! Around it, the driver: performs [`Action`]s, reports what became of them with `handle_connected` and `handle_lost`, feeds
//! frames, commands and the time, writes what `poll_outgoing` gives, and comes back at `poll_timeout`.
//!
//! What must stay true: hello goes first and nothing else before the welcome; joins go before waiting requests, so that a
//! client hears what it publishes; a broker that is silent too long is left; what the broker advises is what happens.

mod ending;
mod incoming;
mod outgoing;
mod renewal;
mod requests;
mod rooms;
mod services;
mod timers;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cauce_protocol::server::Dialect;
use cauce_protocol::wire::client_frame::Request;
use cauce_protocol::{Code, RoomName, limits, wire};

use self::renewal::Renewal;
use self::requests::Requests;
use self::rooms::{Added, Left, Rooms};
use self::services::Services;
use self::timers::{Timer, Timers};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::options::Reconnect;
use crate::queue::Queue;
use crate::room::Inboxes;
use crate::status::{Session, Status};

pub(crate) use self::ending::closed_error;
pub(crate) use self::requests::{Delivery, OfflineBounds, Submission, Ticket};
pub(crate) use self::rooms::{Beginning, Interest, Joining};
pub(crate) use self::services::{Response, Serving};

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
    /// Whether the user's notifications are wanted.
    pub(crate) notifications: bool,
    pub(crate) seed: u64,
}

/// Application to connection, in order.
#[derive(Debug)]
pub(crate) enum Command {
    Subscribe(Joining),
    Request(Submission),
    Serve(Box<Serving>),
}

/// Application to connection, from places that cannot wait. As many as there are handles to drop.
#[derive(Debug)]
pub(crate) enum Control {
    Leave {
        room: RoomName,
        queue: Arc<Queue<Event>>,
    },
    /// Nobody waits for the answer to this request any more.
    GiveUp(Ticket),
    Unserve {
        id: u64,
    },
    Respond(Response),
    Close,
}

/// What the driver has to do about the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Dial; with a new token if the last one is no good any more.
    Connect { token: TokenUse },
    /// Ask for another token, for the connection that lives.
    FetchToken,
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
    session: Arc<Session>,
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
    services: Services,
    renewal: Renewal,
    inboxes: Arc<Inboxes>,
    /// Ids of earlier connections, newest first: what excluded them excludes this one too.
    previous: VecDeque<u64>,
    /// The request for the number of unread notifications.
    unread_asked: Option<u32>,
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
            services: Services::default(),
            renewal: Renewal::new(settings.seed.rotate_left(32)),
            inboxes,
            previous: VecDeque::new(),
            unread_asked: None,
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
                features: self.features(),
                token,
                client: self.settings.client.clone(),
                previous: self.previous.iter().copied().collect(),
            })),
        });
        self.heard = now;
        self.phase = Phase::Opening {
            hello,
            until: now + WELCOME_MAX,
        };
    }

    fn features(&self) -> u64 {
        let notifications = match self.settings.notifications {
            true => wire::Feature::Notifications as u64,
            false => 0,
        };
        wire::Feature::Advance as u64 | wire::Feature::Gap as u64 | notifications
    }

    /// Something came from the broker, if only a ping.
    pub(crate) fn handle_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(crate) fn handle_command(&mut self, now: Instant, command: Command) {
        if matches!(self.phase, Phase::Closed) {
            // Dropping its sender answers it: the caller knows that the client is closed.
            return;
        }
        match command {
            Command::Subscribe(joining) => {
                let expires = now + self.settings.request_timeout + self.settings.offline.age_max;
                let together_max = self.rooms_max();
                let room = joining.room.clone();
                match self.rooms.add(joining, expires, together_max) {
                    Added::Settled => {}
                    Added::Waits(key) => self.timers.set(expires, Timer::Reader(key)),
                    Added::Rejoins(key) => {
                        self.timers.set(expires, Timer::Reader(key));
                        self.leave(&room);
                    }
                }
            }
            Command::Serve(serving) => {
                let expires = now + self.settings.request_timeout + self.settings.offline.age_max;
                if let Some(key) = self.services.add(*serving, expires) {
                    self.timers.set(expires, Timer::Service(key));
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
            Control::GiveUp(ticket) => {
                if let Some(request) = self.requests.give_up(ticket, &mut self.timers) {
                    self.say(Request::Cancel(wire::Cancel { request }));
                }
            }
            Control::Unserve { id } => {
                if let Some(method) = self.services.remove(id) {
                    self.unserve(method);
                }
            }
            Control::Respond(response) => {
                if let Some(request) = self.services.respond(response) {
                    self.say(request);
                }
            }
            Control::Close => self.close(None),
        }
    }

    /// A token that [`Action::FetchToken`] asked for, or the reason why there is none.
    pub(crate) fn handle_token(&mut self, now: Instant, fetched: Result<String, Error>) {
        if !self.renewal.is_fetching() {
            return;
        }
        match fetched {
            Ok(token) => {
                let id = self.requests.next_id();
                self.renewal.offer(id, now + self.settings.request_timeout);
                self.control.push_back(wire::ClientFrame {
                    id,
                    request: Some(Request::Refresh(wire::Refresh { token })),
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no new token; the old one is used on");
                self.renewal.fail(now, error.retry_after());
            }
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
                Timer::Service(key) => self.expire_service(now, key),
                Timer::Registration(key) => self.services.retry(key),
            }
        }
        if self.renewal.is_due(now) {
            self.actions.push_back(Action::FetchToken);
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

    fn expire_service(&mut self, now: Instant, key: usize) {
        let error = match self.phase {
            Phase::Open(_) => Error::new(ErrorKind::Timeout, "the broker did not answer a serve in time"),
            _ => Error::new(ErrorKind::Offline, "there was no connection to serve on in time"),
        };
        if let Some(method) = self.services.expire(key, now, &error) {
            self.unserve(method);
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
        [phase, self.timers.next(), self.renewal.next()]
            .into_iter()
            .flatten()
            .min()
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
