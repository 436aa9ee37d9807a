//! An authenticated client: rights, rates, and what it has joined.

use std::sync::Arc;

use cauce_protocol::message::{
    Audience, Call, Callee, Hello, History, MarkRead, MethodPattern, Notifications, Notify, Presence,
    Publish, Recipient, Respond, Secret, Send, Serve, Subscription as Wanted, Watch,
};
use cauce_protocol::server::Dialect;
use cauce_protocol::wire::Feature;
use cauce_protocol::{ClientMessage, Code, ConnectionId, Refusal, Request, RoomName};
use smallvec::SmallVec;

use super::opening::check_version;
use crate::auth::{Action as Right, Principal};
use crate::clock::Now;
use crate::publication::Excluded;
use crate::rate::{Gcra, Quota};
use crate::rooms::Room;

/// Requests of one connection that may be refused as too many, a minute and at once, before it is closed. A client that waits as
/// it is told meets one now and then; this is for one that does not listen.
pub const REFUSALS_A_MINUTE_MAX: u32 = 6_000;

const REFUSALS: Quota = Quota::per_minute(REFUSALS_A_MINUTE_MAX, REFUSALS_A_MINUTE_MAX);

/// Feature bits that this broker knows.
const FEATURES: u64 = Feature::Advance as u64 | Feature::Gap as u64 | Feature::Notifications as u64;

/// What a connection is held to. One for the whole node, replaced when configuration changes.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionSettings {
    pub requests: Quota,
    /// What may come at once: no single request weighs more.
    pub requests_burst: u32,
    pub subscriptions_max: usize,
    pub calls_max: usize,
    pub call_timeout_ms: u64,
}

/// A room this client has joined.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub room: Arc<Room>,
}

/// A verified client.
#[derive(Debug)]
pub struct Connection {
    pub id: ConnectionId,
    pub dialect: Dialect,
    pub principal: Arc<Principal>,
    pub features: u64,
    /// What the client calls itself, if it said so.
    pub client: Option<Box<str>>,
    pub subscriptions: SmallVec<[Subscription; 2]>,
    requests: Gcra,
    /// Bytes that it published lately.
    pub published: Gcra,
    refused: Gcra,
    calls: u16,
    /// A second hello is taken before anything else was asked.
    fresh: bool,
    previous: Option<Box<[ConnectionId]>>,
}

/// What follows from a message. Whoever performs it answers under `id`, unless that is 0.
#[derive(Debug)]
pub enum Action {
    /// Say welcome again, with the features now in use.
    Welcome {
        id: u32,
    },
    Subscribe {
        id: u32,
        rooms: Vec<Wanted>,
    },
    Unsubscribe {
        id: u32,
        rooms: Vec<RoomName>,
    },
    Publish {
        id: u32,
        publish: Publish,
        excluded: Excluded,
    },
    Send {
        id: u32,
        send: Send,
        excluded: Excluded,
    },
    Call {
        id: u32,
        call: Call,
        timeout_ms: u64,
    },
    Pong {
        id: u32,
    },
    Refresh {
        id: u32,
        token: Secret,
    },
    History {
        id: u32,
        history: History,
    },
    Presence {
        id: u32,
        presence: Presence,
    },
    Serve {
        id: u32,
        serve: Serve,
    },
    Unserve {
        id: u32,
        methods: Vec<MethodPattern>,
    },
    Respond {
        id: u32,
        respond: Respond,
    },
    Cancel {
        id: u32,
        /// The request id of the call.
        request: u32,
    },
    Notify {
        id: u32,
        notify: Notify,
    },
    Notifications {
        id: u32,
        asked: Notifications,
    },
    MarkRead {
        id: u32,
        mark: MarkRead,
    },
    /// Answer with this.
    Refuse {
        id: u32,
        refusal: Refusal,
    },
}

impl Connection {
    pub fn new(id: ConnectionId, dialect: Dialect, principal: Arc<Principal>, features: u64) -> Self {
        Self {
            id,
            dialect,
            principal,
            features: features & FEATURES,
            client: None,
            subscriptions: SmallVec::new(),
            requests: Gcra::default(),
            published: Gcra::default(),
            refused: Gcra::default(),
            calls: 0,
            fresh: true,
            previous: None,
        }
    }

    /// Whether the client understands that a room went on without it.
    pub fn knows_advance(&self) -> bool {
        self.knows(Feature::Advance)
    }

    /// Ids of this client's earlier connections.
    pub fn previous(&self) -> &[ConnectionId] {
        self.previous.as_deref().unwrap_or_default()
    }

    /// Takes up what a hello says of earlier connections.
    pub fn continues(&mut self, previous: &[ConnectionId]) {
        self.previous = (!previous.is_empty()).then(|| previous.into());
    }

    /// Whether the client said that it understands it.
    pub fn knows(&self, feature: Feature) -> bool {
        self.features & feature as u64 != 0
    }

    /// Judges a message by rate, right and size.
    pub fn handle_message(
        &mut self,
        now: Now,
        message: ClientMessage,
        settings: &ConnectionSettings,
    ) -> Action {
        let ClientMessage { id, request } = message;
        if let Err(refusal) = self.charge(now, cost(&request), settings) {
            return Action::Refuse { id, refusal };
        }
        let fresh = std::mem::replace(&mut self.fresh, false);
        let judged = match request {
            Request::Hello(hello) => self.hello(id, fresh, &hello),
            Request::Subscribe(rooms) => self.subscribe(id, rooms, settings),
            Request::Unsubscribe(rooms) => Ok(Action::Unsubscribe { id, rooms }),
            Request::Publish(publish) => self.publish(id, publish),
            Request::Send(send) => self.send(id, send),
            Request::Call(call) => self.call(id, call, settings),
            Request::Ping => Ok(Action::Pong { id }),
            Request::Refresh(token) => Ok(Action::Refresh { id, token }),
            Request::History(history) => self
                .may(Right::History, history.room.as_str())
                .map(|()| Action::History { id, history }),
            Request::Presence(presence) => self
                .may(Right::Presence, presence.room.as_str())
                .map(|()| Action::Presence { id, presence }),
            Request::Serve(serve) => self.serve(id, serve),
            Request::Unserve(methods) => Ok(Action::Unserve { id, methods }),
            Request::Respond(respond) => Ok(Action::Respond { id, respond }),
            Request::Cancel(request) => Ok(Action::Cancel { id, request }),
            Request::Notify(notify) => self.notify(id, notify),
            Request::Notifications(asked) => Ok(Action::Notifications { id, asked }),
            Request::MarkRead(mark) => Ok(Action::MarkRead { id, mark }),
        };
        judged.unwrap_or_else(|refusal| Action::Refuse { id, refusal })
    }

    /// What to answer to a request that could not be read to its end: the refusal, unless there are too many of these too.
    pub fn handle_rejected(&mut self, now: Now, refusal: Refusal, settings: &ConnectionSettings) -> Refusal {
        self.fresh = false;
        match self.charge(now, 1, settings) {
            Ok(()) => refusal,
            Err(limited) => limited,
        }
    }

    fn charge(&mut self, now: Now, cost: u32, settings: &ConnectionSettings) -> Result<(), Refusal> {
        let cost = cost.min(settings.requests_burst);
        self.requests
            .check(settings.requests, now.mono_ms, cost)
            .map_err(|retry_after_ms| {
                Refusal::new(Code::RateLimited, "more requests than this connection may send")
                    .retry_after(retry_after_ms)
            })
    }

    /// Remembers what the client calls itself. One that says nothing costs nothing.
    pub fn name_client(&mut self, name: &str) {
        self.client = (!name.is_empty()).then(|| name.into());
    }

    /// A request was refused as one too many. Whether it was so often that the connection must end.
    pub fn abuses(&mut self, now: Now) -> bool {
        self.refused.check(REFUSALS, now.mono_ms, 1).is_err()
    }

    /// A call of this connection was answered.
    pub fn call_ended(&mut self) {
        self.calls = self.calls.saturating_sub(1);
    }

    /// When its token ends, if it does, in milliseconds since 1970.
    pub fn expires_unix_ms(&self) -> Option<u64> {
        self.principal.expires_unix_ms
    }

    fn hello(&mut self, id: u32, fresh: bool, hello: &Hello) -> Result<Action, Refusal> {
        check_version(hello.version)?;
        if !fresh {
            return Err(Refusal::new(
                Code::Conflict,
                "hello must be the first request of a connection",
            ));
        }
        if !hello.token.is_empty() {
            return Err(Refusal::new(
                Code::Conflict,
                "the token came with the handshake already",
            ));
        }
        self.features = hello.features & FEATURES;
        self.name_client(&hello.client);
        self.continues(&hello.previous);
        Ok(Action::Welcome { id })
    }

    fn subscribe(
        &self,
        id: u32,
        rooms: Vec<Wanted>,
        settings: &ConnectionSettings,
    ) -> Result<Action, Refusal> {
        self.check_subscribe(&rooms, settings)?;
        Ok(Action::Subscribe { id, rooms })
    }

    /// Judges a subscribe by number and right; again if it has waited since.
    ///
    /// # Errors
    /// `quota_exceeded` or `forbidden`.
    pub fn check_subscribe(&self, rooms: &[Wanted], settings: &ConnectionSettings) -> Result<(), Refusal> {
        let new = rooms
            .iter()
            .filter(|wanted| !self.has_joined(wanted.room.as_str()))
            .count();
        if self.subscriptions.len() + new > settings.subscriptions_max {
            let message = format!("a connection may join {} rooms", settings.subscriptions_max);
            return Err(Refusal::new(Code::QuotaExceeded, message).retry_after(1_000));
        }
        for wanted in rooms {
            let room = wanted.room.as_str();
            self.may(Right::Subscribe, room)?;
            if wanted.recent > 0 {
                self.may(Right::History, room)?;
            }
            if wanted.watch != Watch::None {
                self.may(Right::Presence, room)?;
            }
        }
        Ok(())
    }

    fn publish(&self, id: u32, publish: Publish) -> Result<Action, Refusal> {
        self.principal
            .grant
            .explain(Right::Publish, publish.room.as_str())?;
        let excluded = self.excluded(&publish.exclude, publish.exclude_sender);
        Ok(Action::Publish {
            id,
            publish,
            excluded,
        })
    }

    /// Messages to people are publishes to rooms that bear their names: `$user:<id>`, `$connection`, `$role:<name>`,
    /// `$tenant`. The grant must name them; no `*` reaches them. Everyone may write to himself.
    fn send(&self, id: u32, send: Send) -> Result<Action, Refusal> {
        let own = matches!(&send.to, Recipient::User(user) if *user == self.principal.user);
        if !own {
            self.may_send(&match &send.to {
                Recipient::User(user) => format!("$user:{user}"),
                Recipient::Connection(_) => "$connection".into(),
                Recipient::Role(role) => format!("$role:{role}"),
                Recipient::Tenant => "$tenant".into(),
            })?;
        }
        let excluded = self.excluded(&send.exclude, send.exclude_sender);
        Ok(Action::Send { id, send, excluded })
    }

    fn call(&mut self, id: u32, call: Call, settings: &ConnectionSettings) -> Result<Action, Refusal> {
        let room = match &call.to {
            Callee::Device(device) => format!("$device:{device}"),
            Callee::Service => method_room(&call.method),
        };
        self.may(Right::Call, &room)?;
        if usize::from(self.calls) >= settings.calls_max {
            let message = format!(
                "{} calls of this connection wait for answers already",
                settings.calls_max
            );
            return Err(Refusal::new(Code::RateLimited, message).retry_after(1_000));
        }
        self.calls += 1;
        let timeout_ms = match call.timeout_ms {
            0 => settings.call_timeout_ms,
            timeout_ms => timeout_ms.into(),
        };
        Ok(Action::Call { id, call, timeout_ms })
    }

    /// To serve a method is to subscribe to its name: `$method:<name>`, or `$method:<prefix>*` for a pattern. A grant that
    /// matches the pattern as it is written covers every method that the pattern does, because both end in a `*`.
    fn serve(&self, id: u32, serve: Serve) -> Result<Action, Refusal> {
        for pattern in &serve.methods {
            self.may(Right::Subscribe, &method_room(pattern))?;
        }
        Ok(Action::Serve { id, serve })
    }

    /// Whether it may serve what it serves: asked again when its rights have changed.
    pub fn may_serve(&self, pattern: &MethodPattern) -> bool {
        self.may(Right::Subscribe, &method_room(pattern)).is_ok()
    }

    /// The same addresses as for messages to people.
    fn notify(&self, id: u32, notify: Notify) -> Result<Action, Refusal> {
        let own = matches!(&notify.to, Audience::User(user) if *user == self.principal.user);
        if !own {
            self.may_send(&match &notify.to {
                Audience::User(user) => format!("$user:{user}"),
                Audience::Role(role) => format!("$role:{role}"),
                Audience::Tenant => "$tenant".into(),
            })?;
        }
        Ok(Action::Notify { id, notify })
    }

    fn may(&self, right: Right, room: &str) -> Result<(), Refusal> {
        self.principal.grant.explain(right, room)
    }

    fn may_send(&self, address: &str) -> Result<(), Refusal> {
        if self.principal.grant.allows_send(address) {
            return Ok(());
        }
        let message = format!("the token grants no publish to {address}");
        Err(Refusal::new(Code::Forbidden, message))
    }

    fn has_joined(&self, room: &str) -> bool {
        self.subscriptions.iter().any(|s| s.room.name.as_str() == room)
    }

    fn excluded(&self, listed: &[ConnectionId], sender: bool) -> Excluded {
        listed.iter().copied().chain(sender.then_some(self.id)).collect()
    }
}

/// What a new token weighs: its signature takes some 30 µs to verify, where other requests take a few.
const REFRESH_COST: u32 = 10;

/// What a request weighs against the rate: each room and method of a list counts.
fn cost(request: &Request) -> u32 {
    match request {
        Request::Subscribe(rooms) => rooms.len() as u32,
        Request::Unsubscribe(rooms) => rooms.len() as u32,
        Request::Serve(serve) => serve.methods.len() as u32,
        Request::Unserve(methods) => methods.len() as u32,
        Request::Refresh(_) => REFRESH_COST,
        // Was asked for, and is charged if it was not.
        Request::Respond(_) => 0,
        _ => 1,
    }
}

/// The reserved name under which rights to a method are granted.
pub(crate) fn method_room(method: &impl std::fmt::Display) -> String {
    format!("$method:{method}")
}
