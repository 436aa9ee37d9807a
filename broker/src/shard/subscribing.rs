//! Joining and leaving rooms.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::Subscription as Wanted;
use cauce_protocol::wire::{self, Feature};
use cauce_protocol::{Refusal, RoomName, Seq};

use super::deliver::{Chosen, forget, knows};
use super::joining::Losses;
use super::options::Options;
use super::peer::{Peer, Stage};
use super::presence::{check_watches, watches};
use super::states::{States, devices_of};
use super::{Shard, Tunables};
use crate::auth::Action as Right;
use crate::clock::Now;
use crate::connection::{Connection, Subscription};
use crate::hub::Tenant;
use crate::publication::{RoomKey, message_frame};
use crate::rooms::{Exit, Lost, Recovered, Room, Start};

impl Shard {
    /// All rooms or none. A room that was joined before is answered with where its pushes stand. `losses` is what the store
    /// said of rooms whose past is partly there.
    #[expect(clippy::too_many_arguments, reason = "one call, and each of them is needed")]
    pub(super) fn subscribe(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        tenant: &Arc<Tenant>,
        id: u32,
        wanted: Vec<Wanted>,
        losses: &Losses,
        now: Now,
        tunables: &Tunables,
    ) {
        match self.join_all(peer, tenant, wanted, losses, now, tunables) {
            Ok(rooms) => self.subscribed(peer, id, rooms),
            Err(refusal) => self.refuse(peer, id, &refusal),
        }
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
        losses: &Losses,
        now: Now,
        tunables: &Tunables,
    ) -> Result<Vec<wire::RoomPosition>, Refusal> {
        check_watches(tenant, &wanted)?;
        let mut stage = peer.stage.borrow_mut();
        let Stage::Client(client) = &mut *stage else {
            return Ok(Vec::new());
        };
        let connection = &mut client.connection;
        let before = connection.subscriptions.len();
        let mut positions = Vec::with_capacity(wanted.len());
        let watches = watches(&wanted);
        for (at, wanted) in wanted.into_iter().enumerate() {
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
            let start = start(connection, &wanted, tunables);
            let lost = losses
                .iter()
                .find(|(place, _)| *place == at)
                .and_then(|(_, lost)| *lost);
            let name = wanted.room.clone();
            match self.join_one(peer, tenant, wanted, start, lost, now) {
                Ok((room, answer)) => {
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
        Ok(positions)
    }

    /// Joins a room. Answers what the client is told.
    fn join_one(
        &self,
        peer: &Rc<Peer>,
        tenant: &Arc<Tenant>,
        wanted: Wanted,
        start: Start,
        lost: Option<Lost>,
        now: Now,
    ) -> Result<(Arc<Room>, wire::RoomPosition), Refusal> {
        let options = match (wanted.policy, wanted.filter) {
            (Some(policy), filter) => Chosen::Client(Options::new(policy, filter)),
            (None, Some(filter)) => {
                let class = tenant.settings().classes.of(wanted.room.as_str());
                Chosen::Client(Options::new(class.policy, Some(filter)))
            }
            (None, None) => Chosen::Class,
        };
        let joined = self.join(peer, tenant, &wanted.room, start, options, now.mono_ms)?;
        let entered = joined.entered;
        let mut answer = position(&joined.room, entered.from, joined.seq);
        match entered.recovered {
            Recovered::None => {}
            Recovered::Continued => answer.recovery = wire::Recovery::Continued.into(),
            Recovered::Partial(lost) => partial(&mut answer, lost),
            Recovered::Reset => answer.recovery = wire::Recovery::Reset.into(),
        }
        if let Some(lost) = lost.filter(|lost| entered.ask_store && lost.to <= joined.seq.0) {
            if matches!(start, Start::Since { .. }) {
                partial(&mut answer, lost);
            }
            if lost.from == entered.from.0 + 1 {
                // Told in the answer, so not again by a gap; and who asked for the newest few gets as many as there are.
                answer.seq = lost.to;
                self.skip_to(peer, joined.room.key, Seq(lost.to));
            }
        }
        if entered.from < joined.seq {
            self.fall_behind(peer, joined.room.key);
        }
        if matches!(entered.recovered, Recovered::None | Recovered::Reset) {
            self.owe_states(peer, tenant, &joined.room);
        }
        Ok((joined.room, answer))
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

    fn skip_to(&self, peer: &Rc<Peer>, room: RoomKey, seq: Seq) {
        let mut rooms = self.rooms.borrow_mut();
        if let Some(member) = rooms.get_mut(&room).and_then(|local| local.member(peer)) {
            member.after = member.after.max(seq);
        }
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
                        self.depart(&member.peer, &user, &room, Exit::Left, self.now().mono_ms);
                        forget(&member.peer, &room);
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

/// Where a client that asks so begins. Who may not read history reaches back only so far.
pub(super) fn start(connection: &Connection, wanted: &Wanted, tunables: &Tunables) -> Start {
    match wanted.since {
        Some(position) => {
            let all = connection
                .principal
                .grant
                .allows(Right::History, wanted.room.as_str());
            Start::Since {
                position,
                within_ms: (!all).then_some(tunables.recovery_window_ms),
            }
        }
        None if wanted.recent > 0 => Start::Recent(wanted.recent),
        None => Start::Now,
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
