//! What clients say, carried out.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::{Call, Decoded, Hello, Respond, Send};
use cauce_protocol::server::{Dialect, reply};
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::{
    ClientMessage, Code, ConnectionId, DecodeError, Payload, Refusal, Rejected, Request, VERSION, limits,
    wire,
};

use super::joining::Joining;
use super::limiting::is_abusive;
use super::peer::{Client, Peer, Stage};
use super::renewal::expires_in_ms;
use super::{Shard, Tunables, visit};
use crate::auth::Principal;
use crate::clock::Now;
use crate::connection::{Action, Connection, Opening, Step, Subscription};
use crate::hub::{Permit, Tenant};
use crate::publication::{Draft, Source, message_frame};
use crate::rooms::Exit;
use crate::socket::Socket;

impl Shard {
    /// Begins to serve a client whose handshake has been answered. `token` came with the handshake, if one did.
    pub fn admit_client(self: &Rc<Self>, socket: Socket, arrival: ClientArrival) -> Rc<Peer> {
        let ClientArrival {
            address,
            permit,
            dialect,
            token,
        } = arrival;
        let (now, tunables) = (self.now(), self.tunables());
        let opening = Opening {
            deadline_ms: now.mono_ms + tunables.handshake_ms,
        };
        let peer = self.register(socket, address, permit, dialect, Stage::Opening(opening), now);
        if let Some(token) = token {
            let hello = Hello {
                version: VERSION,
                features: 0,
                token,
                client: String::new(),
                previous: Vec::new(),
            };
            self.authenticate(&peer, 0, &hello, now, &tunables);
        }
        self.close_if_stopping(&peer);
        self.arm_next(&peer, now);
        peer
    }

    pub(super) fn register(
        &self,
        socket: Socket,
        address: std::net::IpAddr,
        permit: Permit,
        dialect: Dialect,
        stage: Stage,
        now: Now,
    ) -> Rc<Peer> {
        let id = self.next_id();
        let peer = Rc::new(Peer::new(
            id,
            address,
            dialect,
            socket,
            stage,
            permit,
            now.mono_ms,
        ));
        self.peers.borrow_mut().insert(id, peer.clone());
        self.metrics().connections_opened.increment();
        peer
    }

    pub(super) fn handle_decoded(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        decoded: Result<Decoded, DecodeError>,
        now: Now,
        tunables: &Tunables,
    ) {
        match decoded {
            Ok(Ok(message)) => match too_deep(&message, tunables) {
                None => self.handle_message(peer, message, now, tunables),
                Some(refusal) => {
                    let rejected = Rejected {
                        id: message.id,
                        refusal,
                    };
                    self.handle_decoded(peer, Ok(Err(rejected)), now, tunables);
                }
            },
            Ok(Err(Rejected { id, refusal })) => {
                let refusal = match &mut *peer.stage.borrow_mut() {
                    Stage::Client(client) => {
                        peer.asked(id);
                        self.metrics().requests.increment();
                        let connection = &mut client.connection;
                        let refusal = connection.handle_rejected(now, refusal.clone(), &tunables.connection);
                        let abuses = refusal.code == Code::RateLimited && connection.abuses(now);
                        Some(if abuses { Err(refusal) } else { Ok(refusal) })
                    }
                    _ => None,
                }
                .unwrap_or(Err(refusal));
                match refusal {
                    Ok(refusal) => self.refuse(peer, id, &refusal),
                    Err(refusal) => self.close(peer, &refusal),
                }
            }
            Err(error) => self.close(peer, &error.into()),
        }
    }

    fn handle_message(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        message: ClientMessage,
        now: Now,
        tunables: &Tunables,
    ) {
        self.update_rights(peer, now);
        let mut stage = peer.stage.borrow_mut();
        match &mut *stage {
            Stage::Opening(opening) => {
                let step = opening.handle_message(message);
                drop(stage);
                match step {
                    Step::Authenticate { id, hello } => {
                        self.authenticate(peer, id, &hello, now, tunables);
                    }
                    Step::Refuse(refusal) => self.close(peer, &refusal),
                }
            }
            Stage::Client(client) => {
                peer.asked(message.id);
                self.metrics().requests.increment();
                let tenant = client.membership.tenant.clone();
                let action = client
                    .connection
                    .handle_message(now, message, &tunables.connection);
                let action = self.limit(client, action, now, tunables);
                let abusive = is_abusive(client, &action, now);
                drop(stage);
                if let Some(refusal) = abusive {
                    return self.close(peer, &refusal);
                }
                self.perform(peer, &tenant, action, now, tunables);
            }
            Stage::Device(_) | Stage::Closing | Stage::Gone => {}
        }
    }

    /// Verifies the token and, if it is good, makes a client of the stranger.
    fn authenticate(&self, peer: &Rc<Peer>, id: u32, hello: &Hello, now: Now, tunables: &Tunables) {
        let (principal, tenant) = match self.verify(&hello.token, now) {
            Ok(verified) => verified,
            Err(refusal) => return self.close(peer, &refusal),
        };
        let membership = match tenant.admit(&principal.user, tunables.connections) {
            Ok(membership) => membership,
            Err(refusal) => return self.close(peer, &refusal),
        };
        self.rosters.borrow_mut().enter(tenant.key, &principal.user, peer);
        let mut connection = Connection::new(peer.id, peer.dialect, principal, hello.features);
        connection.name_client(&hello.client);
        connection.continues(&hello.previous);
        let welcome = welcome(peer.id, &connection, now, tunables);
        tenant.logbook.opened(|| visit(&connection, None));
        self.log_opened(peer, &connection, now);
        *peer.stage.borrow_mut() = Stage::Client(Box::new(Client {
            connection,
            membership,
            calling: None,
            joining: None,
            since_unix_ms: now.unix_ms,
        }));
        self.answer(peer, id, welcome);
        self.arm_next(peer, now);
    }

    pub(super) fn client_left(&self, peer: &Rc<Peer>, client: Client) {
        let Client {
            connection,
            membership,
            calling,
            ..
        } = client;
        if calling.is_some() {
            self.hub.caller_or_server_left(&membership.tenant, peer.id);
        }
        let now_ms = self.now().mono_ms;
        for Subscription { room } in &connection.subscriptions {
            self.depart(peer, &connection.principal.user, room, Exit::Lost, now_ms);
            self.part(peer, &membership.tenant, room, now_ms);
        }
        self.rosters
            .borrow_mut()
            .leave(membership.tenant.key, &connection.principal.user, peer);
    }

    fn perform(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        tenant: &Arc<Tenant>,
        action: Action,
        now: Now,
        tunables: &Tunables,
    ) {
        match action {
            Action::Welcome { id } => {
                let welcome = match &*peer.stage.borrow() {
                    Stage::Client(client) => welcome(peer.id, &client.connection, now, tunables),
                    _ => return,
                };
                self.answer(peer, id, welcome);
            }
            Action::Subscribe { id, rooms } => {
                self.change_subscriptions(peer, tenant, id, Joining::Subscribe(rooms), now, tunables);
            }
            Action::Unsubscribe { id, rooms } => {
                self.change_subscriptions(peer, tenant, id, Joining::Unsubscribe(rooms), now, tunables);
            }
            Action::Publish {
                id,
                publish,
                excluded,
            } => self.publish(peer, tenant, id, publish, excluded, now, tunables),
            Action::Send { id, send, excluded } => {
                let Send {
                    to, event, payload, ..
                } = send;
                let draft = Draft {
                    excluded,
                    source: Source::Client,
                    ..Draft::new(event, payload)
                };
                match self.hub.send(tenant, to, draft) {
                    Ok(()) => {
                        self.metrics().publications.increment();
                        self.answer(peer, id, wire::Sent {});
                    }
                    Err(refusal) => self.refuse_publication(peer, id, &refusal),
                }
            }
            Action::Call { id, call, timeout_ms } => self.call(peer, tenant, id, call, timeout_ms),
            Action::Refresh { id, token } => self.refresh(peer, id, token.expose(), now, tunables),
            Action::History { id, history } => self.history(peer, tenant, id, history),
            Action::Presence { id, presence } => self.presence(peer, tenant, id, presence),
            Action::Serve { id, serve } => self.serve(peer, tenant, id, serve),
            Action::Unserve { id, methods } => self.unserve(peer, tenant, id, methods),
            Action::Respond { id, respond } => self.respond(peer, tenant, id, respond),
            Action::Cancel { id, request } => self.cancel(peer, tenant, id, request),
            Action::Notify { id, notify } => self.notify(peer, tenant, id, notify),
            Action::Notifications { id, asked } => self.notifications(peer, tenant, id, asked),
            Action::MarkRead { id, mark } => self.mark_read(peer, tenant, id, mark),
            Action::Pong { id } => self.answer(peer, id, wire::Pong { unix_ms: now.unix_ms }),
            Action::Refuse { id, refusal } => self.refuse(peer, id, &refusal),
        }
    }

    pub(super) fn answer(&self, peer: &Rc<Peer>, id: u32, outcome: impl Into<Outcome>) {
        let outcome = outcome.into();
        peer.answered(id);
        // A welcome is sent unasked when the token came with the handshake.
        if id != 0 || matches!(outcome, Outcome::Welcome(_)) {
            self.say(peer, message_frame(&reply(id, outcome), peer.dialect));
        }
    }

    pub(super) fn refuse(&self, peer: &Rc<Peer>, id: u32, refusal: &Refusal) {
        peer.answered(id);
        self.metrics().refusals.increment(refusal.code);
        self.say(peer, message_frame(&reply(id, refusal), peer.dialect));
    }

    pub(super) fn refuse_publication(&self, peer: &Rc<Peer>, id: u32, refusal: &Refusal) {
        self.metrics().publications_refused.increment();
        if let Stage::Client(client) = &*peer.stage.borrow() {
            client.membership.tenant.logbook.refused(refusal.code);
        }
        self.refuse(peer, id, refusal);
    }
}

/// Decoding has checked payloads against the protocol's bound; the operator's may be lower.
fn too_deep(message: &ClientMessage, tunables: &Tunables) -> Option<Refusal> {
    if tunables.payload_depth_max >= limits::PAYLOAD_DEPTH_MAX {
        return None;
    }
    let payload = match &message.request {
        Request::Publish(publish) => &publish.payload,
        Request::Send(send) => &send.payload,
        Request::Call(Call { params: json, .. }) if !json.is_empty() => &Payload::Json(json.clone()),
        Request::Respond(Respond { result: Ok(json), .. }) => &Payload::Json(json.clone()),
        _ => return None,
    };
    payload
        .check(tunables.payload_bytes_max, tunables.payload_depth_max)
        .err()
}

/// What the handshake told of a client.
#[derive(Debug)]
pub struct ClientArrival {
    pub address: std::net::IpAddr,
    pub permit: Permit,
    pub dialect: Dialect,
    pub token: Option<String>,
}

fn welcome(id: ConnectionId, connection: &Connection, now: Now, tunables: &Tunables) -> wire::Welcome {
    let principal: &Principal = &connection.principal;
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let (requests_per_second, requests_burst) = tunables.requests;
    wire::Welcome {
        connection: id.0,
        version: VERSION,
        features: connection.features,
        tenant: principal.tenant.as_str().into(),
        user: principal.user.as_str().into(),
        heartbeat_ms: u32::try_from(tunables.heartbeat_interval_ms).unwrap_or(u32::MAX),
        expires_in_ms: expires_in_ms(principal, now),
        limits: Some(wire::Limits {
            frame_bytes: number(tunables.frame_bytes_max),
            payload_bytes: number(tunables.payload_bytes_max),
            payload_depth: number(tunables.payload_depth_max),
            room_name_bytes: number(limits::NAME_BYTES_MAX),
            event_name_bytes: number(limits::EVENT_BYTES_MAX),
            subscriptions: number(tunables.connection.subscriptions_max),
            rooms_a_request: number(limits::ROOMS_A_REQUEST_MAX),
            exclude: number(limits::EXCLUDE_MAX),
            requests_per_second,
            requests_burst,
        }),
    }
}
