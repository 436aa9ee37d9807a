//! What the broker says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cauce_protocol::wire::{client_frame::Request, reply::Outcome, server_frame};
use cauce_protocol::{Code, ConnectionId, Payload, TenantId, UserId, limits, wire};

use super::renewal::Judgement;
use super::rooms::Refused;
use super::timers::Timer;
use super::{Connection, GOAWAY_GRACE, HEARTBEAT_DEFAULT, HEARTBEAT_GRACE, Open, Phase, Silence};
use crate::backoff;
use crate::client::unexpected;
use crate::error::{Error, ErrorKind};
use crate::event::{Direct, DirectMessage};
use crate::notifications::Noticed;
use crate::status::{Session, Status};

impl Connection {
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: wire::ServerFrame) {
        use server_frame::Message;
        self.heard = now;
        match frame.message {
            Some(Message::Push(push)) => self.rooms.push(push),
            Some(Message::Advance(advance)) => self.rooms.advance(advance),
            Some(Message::Direct(direct)) => self.handle_direct(direct),
            Some(Message::Reply(reply)) => self.handle_reply(now, reply),
            Some(Message::Goaway(goaway)) => self.handle_goaway(now, goaway),
            Some(Message::Gap(gap)) => self.rooms.gap(gap),
            Some(Message::State(state)) => self.rooms.state(state),
            Some(Message::PresenceChange(change)) => self.rooms.presence(change),
            Some(Message::Ended(ended)) => {
                self.rooms
                    .end(ended.room, &ended.error.unwrap_or_default().into());
            }
            Some(Message::Invoke(invoke)) => {
                if let Some(refusal) = self.services.invoke(now, invoke) {
                    self.say(refusal);
                }
            }
            Some(Message::Revoke(revoke)) => self.services.revoke(revoke.call),
            Some(Message::Notification(notification)) => self.inboxes.notify(notification),
            Some(Message::NotificationsRead(read)) => self.inboxes.notify_read(read),
            // Messages that we did not ask for, or of a later version.
            _ => tracing::debug!("a message that this version does not know"),
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
            Phase::Open(_) if self.services.is_asked(id) => self.handle_serve_reply(now, id, outcome),
            Phase::Open(_) if self.unread_asked == Some(id) => self.handle_unread_reply(outcome),
            Phase::Open(_) if self.renewal.is_offered(id) => self.handle_refresh_reply(now, outcome),
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
        self.ask_for_all(now);
    }

    fn handle_serve_reply(&mut self, now: Instant, id: u32, outcome: Result<Outcome, Error>) {
        let outcome = outcome.and_then(|outcome| match outcome {
            Outcome::Done(_) => Ok(()),
            other => Err(unexpected(&other)),
        });
        let floor = outcome.as_ref().err().and_then(Error::retry_after);
        if let Some(key) = self.services.registered(id, outcome) {
            let later = now + self.backoff.spread(floor.unwrap_or(backoff::LATER));
            self.timers.set(later, Timer::Registration(key));
        }
    }

    fn handle_refresh_reply(&mut self, now: Instant, outcome: Result<Outcome, Error>) {
        let refused = match outcome {
            Ok(Outcome::Refreshed(refreshed)) => {
                let left = time_left(refreshed.expires_in_ms);
                self.renewal.schedule(now, left);
                if let Phase::Open(open) = &mut self.phase {
                    let session = Session {
                        token_expires: left.and_then(|left| now.checked_add(left)),
                        ..Session::clone(&open.session)
                    };
                    open.session = Arc::new(session);
                    self.status = Some(Status::Online(Arc::clone(&open.session)));
                }
                return;
            }
            Ok(other) => unexpected(&other),
            Err(error) => error,
        };
        tracing::warn!(error = %refused, "the broker did not take the new token");
        if self.renewal.refused(now, &refused) == Judgement::End {
            self.close(Some(&refused));
        }
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
        if self.settings.renewable {
            self.renewal.schedule(now, time_left(welcome.expires_in_ms));
        }
        self.previous.push_front(session.connection.0);
        self.previous.truncate(limits::PREVIOUS_MAX);
        let session = Arc::new(session);
        self.phase = Phase::Open(Open {
            since: now,
            heartbeat: session.heartbeat,
            session: Arc::clone(&session),
            frame_bytes_max,
            rooms_max,
            leave_at: None,
            silence: Silence::AskAt(now + session.heartbeat + HEARTBEAT_GRACE),
        });
        self.welcomed = true;
        self.goaway = None;
        self.status = Some(Status::Online(session));
        self.rooms.welcome(rooms_max);
        self.ask_for_all(now);
        self.requests.online(now, &mut self.timers);
        self.unread_asked = None;
        if welcome.features & wire::Feature::Notifications as u64 != 0 {
            self.ask_for_unread();
        }
    }

    /// How many are unread by now; what came meanwhile is asked for by whoever listens.
    fn ask_for_unread(&mut self) {
        let id = self.requests.next_id();
        self.unread_asked = Some(id);
        self.control.push_back(wire::ClientFrame {
            id,
            request: Some(Request::Notifications(wire::Notifications {
                before: 0,
                limit: 1,
                unread_only: false,
            })),
        });
        self.inboxes.notified(&Noticed::Online);
    }

    fn handle_unread_reply(&mut self, outcome: Result<Outcome, Error>) {
        self.unread_asked = None;
        match outcome {
            Ok(Outcome::NotificationPage(page)) => {
                let newest = page.notifications.first().map_or(0, |newest| newest.id);
                self.inboxes.count_unread(page.unread, newest);
            }
            Ok(other) => tracing::debug!(error = %unexpected(&other), "unread notifications"),
            Err(error) => {
                tracing::debug!(%error, "the broker does not say how many notifications are unread");
            }
        }
    }
}

/// How long a token is good for; `None` means for ever.
fn time_left(expires_in_ms: u64) -> Option<Duration> {
    (expires_in_ms > 0).then(|| Duration::from_millis(expires_in_ms))
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
        token_expires: time_left(welcome.expires_in_ms).and_then(|left| now.checked_add(left)),
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
