//! Joining and leaving rooms.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::Subscription as Wanted;
use cauce_protocol::wire::{self, Feature};
use cauce_protocol::{Code, Refusal, RoomName, Seq};

use super::deliver::{Chosen, Feed, Ticket, forget_states, knows};
use super::options::Options;
use super::peer::{Peer, Stage};
use super::presence::{check_watches, watches};
use super::states::{States, devices_of};
use super::{Shard, Tunables};
use crate::auth::Action as Right;
use crate::clock::Now;
use crate::connection::Subscription;
use crate::hub::Tenant;
use crate::publication::{RoomKey, message_frame};
use crate::rooms::{Exit, Lost, Recovered, Room, Start};

/// What is asked of a client whose rooms changed under its subscribe.
const REJOIN_RETRY_MS: u32 = 100;

/// A room just joined whose past is partly in the store: what of it is lost must be asked there.
struct Open {
    /// Its place in the answer.
    at: usize,
    room: Arc<Room>,
    ticket: Ticket,
    after: Seq,
    /// It brought a position, and is told what became of it.
    positioned: bool,
}

/// What a request has joined.
#[derive(Default)]
struct Joining {
    positions: Vec<wire::RoomPosition>,
    open: Vec<Open>,
    /// The subscriptions that it made; only if some are open.
    made: Vec<Ticket>,
}

impl Shard {
    /// All rooms or none. A room that was joined before is answered with where its pushes stand.
    pub(super) fn subscribe(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        tenant: &Arc<Tenant>,
        id: u32,
        wanted: Vec<Wanted>,
        now: Now,
        tunables: &Tunables,
    ) {
        let joined = self.join_all(peer, tenant, wanted, now, tunables);
        match joined {
            Err(refusal) => self.refuse(peer, id, &refusal),
            Ok(joining) if joining.open.is_empty() => self.subscribed(peer, id, joining.positions),
            Ok(joining) => {
                let (shard, peer, tenant) = (self.clone(), peer.clone(), tenant.clone());
                tokio::task::spawn_local(async move { shard.finish(&peer, &tenant, id, joining).await });
            }
        }
    }

    /// Answers a subscribe once the store has said what is lost.
    async fn finish(self: &Rc<Self>, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, joining: Joining) {
        let Joining {
            mut positions,
            open,
            made,
        } = joining;
        let settled = self.settle(tenant, &mut positions, &open).await;
        if peer.is_closing() {
            return;
        }
        // Rights and rooms may end while the store is asked, and the word of it came before the client knew what it is about.
        let refusal = match settled {
            Ok(()) if made.iter().all(|ticket| self.is_held(ticket)) => {
                self.subscribed(peer, id, positions);
                return made.iter().for_each(|ticket| self.resume(ticket));
            }
            Ok(()) => {
                let message = "a room was left or closed while it was being joined; subscribe again";
                Refusal::new(Code::Unavailable, message).retry_after(REJOIN_RETRY_MS)
            }
            Err(refusal) => refusal,
        };
        self.take_back(peer, tenant, &made);
        self.refuse(peer, id, &refusal);
    }

    /// Ends subscriptions that were made for a request which is refused after all, but for those that a later one was promised.
    fn take_back(self: &Rc<Self>, peer: &Rc<Peer>, tenant: &Tenant, made: &[Ticket]) {
        let mut names = Vec::new();
        for ticket in made {
            let mut rooms = self.rooms.borrow_mut();
            let Some(local) = rooms.get_mut(&ticket.room) else {
                continue;
            };
            let name = local.room.name.clone();
            match local.holder(ticket).map(|member| member.feed) {
                None => {}
                Some(Feed::Joining { claimed: true }) => {
                    drop(rooms);
                    self.resume(ticket);
                }
                Some(_) => names.push(name),
            }
        }
        self.unsubscribe(peer, tenant, &names, self.now());
    }

    fn subscribed(self: &Rc<Self>, peer: &Rc<Peer>, id: u32, rooms: Vec<wire::RoomPosition>) {
        if peer.is_closing() {
            return;
        }
        self.answer(peer, id, wire::Subscribed { rooms });
        if peer.backlog.borrow().is_some() {
            // Behind the answer, and before anything that comes live.
            self.catch_up(peer);
        }
    }

    fn join_all(
        &self,
        peer: &Rc<Peer>,
        tenant: &Arc<Tenant>,
        wanted: Vec<Wanted>,
        now: Now,
        tunables: &Tunables,
    ) -> Result<Joining, Refusal> {
        check_watches(tenant, &wanted)?;
        let mut stage = peer.stage.borrow_mut();
        let Stage::Client(client) = &mut *stage else {
            return Ok(Joining::default());
        };
        let connection = &mut client.connection;
        let before = connection.subscriptions.len();
        let (mut positions, mut open) = (Vec::with_capacity(wanted.len()), Vec::new());
        let watches = watches(&wanted);
        for wanted in wanted {
            let joined = connection
                .subscriptions
                .iter()
                .find(|s| s.room.name == wanted.room)
                .map(|s| s.room.clone());
            if let Some(room) = joined {
                let seq = self.position(peer, room.key).unwrap_or_else(|| room.seq());
                positions.push(position(&room, seq, room.seq()));
                continue;
            }
            let start = match wanted.since {
                Some(position) => Start::Since {
                    position,
                    within_ms: (!connection
                        .principal
                        .grant
                        .allows(Right::History, wanted.room.as_str()))
                    .then_some(tunables.recovery_window_ms),
                },
                None if wanted.recent > 0 => Start::Recent(wanted.recent),
                None => Start::Now,
            };
            let name = wanted.room.clone();
            match self.join_one(peer, tenant, wanted, start, now) {
                Ok((room, answer, unsettled)) => {
                    open.extend(unsettled.map(|(ticket, after)| Open {
                        at: positions.len(),
                        room: room.clone(),
                        ticket,
                        after,
                        positioned: matches!(start, Start::Since { .. }),
                    }));
                    connection.subscriptions.push(Subscription { room });
                    positions.push(answer);
                }
                Err(refusal) => {
                    tracing::debug!(room = %name, %refusal, "a room could not be joined");
                    for Subscription { room } in connection.subscriptions.drain(before..) {
                        self.part(peer, tenant, &room, now.mono_ms);
                    }
                    return Err(refusal);
                }
            }
        }
        self.attend(peer, connection, before, &watches, now);
        let made = match open.is_empty() {
            true => Vec::new(),
            false => {
                let made = connection.subscriptions[before..].iter();
                made.filter_map(|s| self.ticket(peer, s.room.key)).collect()
            }
        };
        Ok(Joining {
            positions,
            open,
            made,
        })
    }

    /// Joins a room. Answers what the client is told, and where it stands if the store must be asked what is lost.
    fn join_one(
        &self,
        peer: &Rc<Peer>,
        tenant: &Arc<Tenant>,
        wanted: Wanted,
        start: Start,
        now: Now,
    ) -> Result<(Arc<Room>, wire::RoomPosition, Option<(Ticket, Seq)>), Refusal> {
        let options = match (wanted.policy, wanted.filter) {
            (Some(policy), filter) => Chosen::Client(Options::new(policy, filter)),
            (None, Some(filter)) => {
                let class = tenant.settings().classes.of(wanted.room.as_str());
                Chosen::Client(Options::new(class.policy, Some(filter)))
            }
            (None, None) => Chosen::Class,
        };
        let (joined, ticket) = self.join(peer, tenant, &wanted.room, start, options, now.mono_ms)?;
        let entered = joined.entered;
        let mut answer = position(&joined.room, entered.from, joined.seq);
        match entered.recovered {
            Recovered::None => {}
            Recovered::Continued => answer.recovery = wire::Recovery::Continued.into(),
            Recovered::Partial(lost) => partial(&mut answer, lost),
            Recovered::Reset => answer.recovery = wire::Recovery::Reset.into(),
        }
        if entered.ask_store {
            return Ok((joined.room, answer, Some((ticket, entered.from))));
        }
        if entered.from < joined.seq {
            self.fall_behind(peer, joined.room.key);
        }
        let continued = matches!(entered.recovered, Recovered::Continued | Recovered::Partial(_));
        if !continued {
            self.owe_states(peer, tenant, &joined.room);
        }
        Ok((joined.room, answer, None))
    }

    /// Who joins a room of devices is told first what they are like.
    fn owe_states(&self, peer: &Rc<Peer>, tenant: &Tenant, room: &Room) {
        if !room.name.is_reserved() {
            return;
        }
        let devices = devices_of(tenant, room.name.as_str());
        if devices.is_empty() {
            return;
        }
        let room = room.id;
        let mut backlog = peer.backlog.borrow_mut();
        backlog
            .get_or_insert_default()
            .states
            .push_back(States { room, devices });
        drop(backlog);
        self.mark(peer);
    }

    /// Asks the store what is lost of each open room, and writes it into the answer.
    async fn settle(
        self: &Rc<Self>,
        tenant: &Arc<Tenant>,
        rooms: &mut [wire::RoomPosition],
        open: &[Open],
    ) -> Result<(), Refusal> {
        for Open {
            at,
            room,
            ticket,
            after,
            positioned,
        } in open
        {
            let lost = self.loss_after(tenant, room, *after).await?;
            let Some(answer) = rooms.get_mut(*at) else {
                continue;
            };
            match lost {
                Some(lost) if *positioned => {
                    partial(answer, lost);
                    if lost.from == after.0 + 1 {
                        // Told in the answer, so not again by a gap.
                        answer.seq = lost.to;
                        self.skip_to(ticket, Seq(lost.to));
                    }
                }
                // Who asked for the newest few gets as many as there are.
                Some(lost) if lost.from == after.0 + 1 => {
                    answer.seq = lost.to;
                    self.skip_to(ticket, Seq(lost.to));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn skip_to(&self, ticket: &Ticket, seq: Seq) {
        self.with_holder(ticket, |member| member.after = member.after.max(seq));
    }

    pub(super) fn unsubscribe(&self, peer: &Rc<Peer>, tenant: &Tenant, names: &[RoomName], now: Now) {
        let mut stage = peer.stage.borrow_mut();
        let Stage::Client(client) = &mut *stage else {
            return;
        };
        let user = client.connection.principal.user.clone();
        client.connection.subscriptions.retain(|Subscription { room }| {
            let leaves = names.contains(&room.name);
            if leaves {
                self.depart(peer, &user, room, Exit::Left, now.mono_ms);
                self.part(peer, tenant, room, now.mono_ms);
            }
            !leaves
        });
    }

    /// A room has closed under its subscribers.
    pub(super) fn room_closed(self: &Rc<Self>, room: RoomKey, refusal: &Refusal) {
        let members = match self.rooms.borrow_mut().remove(&room) {
            Some(local) => local.members,
            None => return,
        };
        for member in members {
            let id = {
                let mut stage = member.peer.stage.borrow_mut();
                let Stage::Client(client) = &mut *stage else {
                    continue;
                };
                let user = client.connection.principal.user.clone();
                let subscriptions = &mut client.connection.subscriptions;
                match subscriptions.iter().position(|s| s.room.key == room) {
                    Some(at) => {
                        let Subscription { room } = subscriptions.swap_remove(at);
                        forget_states(&member.peer, &room);
                        self.depart(&member.peer, &user, &room, Exit::Left, self.now().mono_ms);
                        room.id
                    }
                    None => continue,
                }
            };
            self.tell_ended(&member.peer, id, refusal);
        }
    }

    /// Tells a client that a subscription has ended without its wish.
    pub(super) fn tell_ended(&self, peer: &Rc<Peer>, room: cauce_protocol::RoomId, refusal: &Refusal) {
        if !knows(peer, Feature::Gap) {
            // It would wait for ever for messages that do not come.
            return self.close(peer, refusal);
        }
        let ended = wire::Ended {
            room: room.0,
            error: Some(refusal.into()),
        };
        self.say(peer, message_frame(&ended.into(), peer.dialect));
    }
}

fn position(room: &Room, seq: Seq, head: Seq) -> wire::RoomPosition {
    wire::RoomPosition {
        name: room.name.as_str().into(),
        room: room.id.0,
        epoch: room.epoch.0,
        seq: seq.0,
        head: head.0,
        ..wire::RoomPosition::default()
    }
}

fn partial(answer: &mut wire::RoomPosition, lost: Lost) {
    answer.recovery = wire::Recovery::Partial.into();
    answer.lost_from = lost.from;
    answer.lost_to = lost.to;
}
