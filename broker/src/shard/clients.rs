//! What clients say, carried out.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::{Call, Decoded, Hello, Publish, Send};
use cauce_protocol::server::{Dialect, reply};
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::{
    ClientMessage, Code, ConnectionId, DecodeError, Refusal, Rejected, Request, RoomName, VERSION, limits,
    wire,
};

use super::peer::{Client, Peer, Stage};
use super::{Shard, Tunables};
use crate::auth::Principal;
use crate::clock::Now;
use crate::connection::{Action, Connection, Opening, Step, Subscription};
use crate::hub::{Caller, OutgoingCall, Permit, Tenant};
use crate::publication::{Draft, Excluded, message_frame};
use crate::rooms::Repeat;
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
            dialect,
            deadline_ms: now.mono_ms + tunables.handshake_ms,
        };
        let peer = self.register(socket, address, permit, dialect, Stage::Opening(opening), now);
        if let Some(token) = token {
            self.authenticate(&peer, 0, &token, 0, now, &tunables);
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
                        self.metrics().requests.increment();
                        let connection = &mut client.connection;
                        Some(connection.handle_rejected(now, refusal.clone(), &tunables.connection))
                    }
                    _ => None,
                }
                .ok_or(refusal);
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
        let mut stage = peer.stage.borrow_mut();
        match &mut *stage {
            Stage::Opening(opening) => {
                let step = opening.handle_message(message);
                drop(stage);
                match step {
                    Step::Authenticate {
                        id,
                        hello: Hello { features, token, .. },
                    } => {
                        self.authenticate(peer, id, &token, features, now, tunables);
                    }
                    Step::Refuse(refusal) => self.close(peer, &refusal),
                }
            }
            Stage::Client(client) => {
                self.metrics().requests.increment();
                let tenant = client.membership.tenant.clone();
                let action = client
                    .connection
                    .handle_message(now, message, &tunables.connection);
                drop(stage);
                self.perform(peer, &tenant, action, now, tunables);
            }
            Stage::Device(_) | Stage::Closing | Stage::Gone => {}
        }
    }

    /// Verifies the token and, if it is good, makes a client of the stranger.
    fn authenticate(
        &self,
        peer: &Rc<Peer>,
        id: u32,
        token: &str,
        features: u64,
        now: Now,
        tunables: &Tunables,
    ) {
        let verified = self
            .auth
            .borrow_mut()
            .authenticate(token, now, |tenant| self.hub.standing(tenant.as_str()));
        let principal = match verified {
            Ok(principal) => principal,
            Err(denied) => return self.close(peer, &denied.refusal),
        };
        // The standing was asked a moment ago; a tenant is never taken out of the table while the node runs.
        let Some(tenant) = self.hub.tenants.get(principal.tenant.as_str()) else {
            return self.close(peer, &Refusal::new(Code::Internal, "the tenant is not there"));
        };
        let membership = match tenant.admit(&principal.user, tunables.connections) {
            Ok(membership) => membership,
            Err(refusal) => return self.close(peer, &refusal),
        };
        self.rosters.borrow_mut().enter(tenant.key, &principal.user, peer);
        let connection = Connection::new(peer.id, peer.dialect, principal, features);
        let welcome = welcome(peer.id, &connection, now, tunables);
        *peer.stage.borrow_mut() = Stage::Client(Box::new(Client {
            connection,
            membership,
        }));
        self.answer(peer, id, welcome);
        self.arm_next(peer, now);
    }

    pub(super) fn client_left(&self, peer: &Rc<Peer>, client: Client) {
        let Client {
            connection,
            membership,
        } = client;
        let now_ms = self.now().mono_ms;
        for Subscription { room } in &connection.subscriptions {
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
            Action::Subscribe { id, rooms } => match self.subscribe(peer, tenant, &rooms, now) {
                Ok(rooms) => self.answer(peer, id, wire::Subscribed { rooms }),
                Err(refusal) => self.refuse(peer, id, &refusal),
            },
            Action::Unsubscribe { id, rooms } => {
                self.unsubscribe(peer, tenant, &rooms, now);
                self.answer(peer, id, wire::Unsubscribed {});
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
                    event,
                    payload,
                    excluded,
                    accepted: std::time::Instant::now(),
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
            Action::Pong { id } => self.answer(peer, id, wire::Pong { unix_ms: now.unix_ms }),
            Action::Refuse { id, refusal } => self.refuse(peer, id, &refusal),
        }
    }

    /// All rooms or none. A room that was joined before is answered with where its pushes stand.
    fn subscribe(
        &self,
        peer: &Rc<Peer>,
        tenant: &Tenant,
        names: &[RoomName],
        now: Now,
    ) -> Result<Vec<wire::RoomPosition>, Refusal> {
        let mut stage = peer.stage.borrow_mut();
        let Stage::Client(client) = &mut *stage else {
            return Ok(Vec::new());
        };
        let subscriptions = &mut client.connection.subscriptions;
        let before = subscriptions.len();
        let mut positions = Vec::with_capacity(names.len());
        for name in names {
            let (room, seq) = match subscriptions.iter().find(|s| s.room.name == *name) {
                Some(Subscription { room }) => (
                    room.clone(),
                    self.position(peer, room.key).unwrap_or_else(|| room.seq()),
                ),
                None => match self.join(peer, tenant, name, now.mono_ms) {
                    Ok(joined) => {
                        subscriptions.push(Subscription {
                            room: joined.room.clone(),
                        });
                        (joined.room, joined.seq)
                    }
                    Err(refusal) => {
                        for Subscription { room } in subscriptions.drain(before..) {
                            self.part(peer, tenant, &room, now.mono_ms);
                        }
                        return Err(refusal);
                    }
                },
            };
            positions.push(wire::RoomPosition {
                name: name.as_str().into(),
                room: room.id.0,
                epoch: room.epoch.0,
                seq: seq.0,
            });
        }
        Ok(positions)
    }

    fn unsubscribe(&self, peer: &Rc<Peer>, tenant: &Tenant, names: &[RoomName], now: Now) {
        let mut stage = peer.stage.borrow_mut();
        let Stage::Client(client) = &mut *stage else {
            return;
        };
        client.connection.subscriptions.retain(|Subscription { room }| {
            let leaves = names.contains(&room.name);
            if leaves {
                self.part(peer, tenant, room, now.mono_ms);
            }
            !leaves
        });
    }

    #[expect(clippy::too_many_arguments, reason = "one call, and each of them is needed")]
    fn publish(
        &self,
        peer: &Rc<Peer>,
        tenant: &Tenant,
        id: u32,
        publish: Publish,
        excluded: Excluded,
        now: Now,
        tunables: &Tunables,
    ) {
        let Publish {
            room,
            event,
            payload,
            idempotency_key,
            exclude_sender,
            want_receivers,
            ..
        } = publish;
        let draft = Draft {
            event,
            payload,
            excluded,
            accepted: std::time::Instant::now(),
        };
        let user;
        let repeat = if idempotency_key.as_bytes().is_empty() {
            None
        } else {
            user = match &*peer.stage.borrow() {
                Stage::Client(client) => client.connection.principal.user.clone(),
                _ => return,
            };
            Some(Repeat {
                publisher: user.as_str(),
                key: idempotency_key.as_str(),
                now_ms: now.mono_ms,
                window_ms: tunables.dedup_window_ms,
                keys_max: tunables.dedup_keys_max,
            })
        };
        let accepted = match self.hub.publish(tenant, room.as_str(), draft, repeat) {
            Ok(accepted) => accepted,
            Err(refusal) => return self.refuse_publication(peer, id, &refusal),
        };
        self.metrics().publications.increment();
        if id == 0 {
            return;
        }
        let receivers = match want_receivers {
            false => 0,
            // A repeat is answered like the first, when the sender may not have joined yet.
            true => accepted
                .receivers
                .saturating_sub(u32::from(exclude_sender && self.has_joined(peer, room.as_str()))),
        };
        let published = wire::Published {
            epoch: accepted.epoch.0,
            seq: accepted.seq.0,
            receivers,
            repeated: accepted.repeated,
        };
        self.answer(peer, id, published);
    }

    fn has_joined(&self, peer: &Peer, room: &str) -> bool {
        match &*peer.stage.borrow() {
            Stage::Client(client) => client
                .connection
                .subscriptions
                .iter()
                .any(|s| s.room.name.as_str() == room),
            _ => false,
        }
    }

    fn call(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, call: Call, timeout_ms: u64) {
        let Call {
            device,
            method,
            params,
            ..
        } = call;
        let actor = match &*peer.stage.borrow() {
            Stage::Client(client) => client.connection.principal.user.clone(),
            _ => return,
        };
        let call = OutgoingCall {
            method,
            params,
            timeout_ms,
        };
        self.hub
            .audit_call(tenant, actor.as_str(), device.as_str(), &call);
        self.hub.call(
            tenant,
            device.as_str(),
            &call,
            Caller::Connection {
                connection: peer.id,
                request: id,
            },
        );
    }

    fn answer(&self, peer: &Rc<Peer>, id: u32, outcome: impl Into<Outcome>) {
        let outcome = outcome.into();
        // A welcome is sent unasked when the token came with the handshake.
        if id != 0 || matches!(outcome, Outcome::Welcome(_)) {
            self.say(peer, message_frame(&reply(id, outcome), peer.dialect));
        }
    }

    fn refuse(&self, peer: &Rc<Peer>, id: u32, refusal: &Refusal) {
        self.metrics().requests_refused.increment();
        self.say(peer, message_frame(&reply(id, refusal), peer.dialect));
    }

    fn refuse_publication(&self, peer: &Rc<Peer>, id: u32, refusal: &Refusal) {
        self.metrics().publications_refused.increment();
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
        expires_in_ms: principal
            .expires_unix_ms
            .map_or(0, |ends| ends.saturating_sub(now.unix_ms).max(1)),
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
