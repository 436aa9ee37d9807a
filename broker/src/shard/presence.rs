//! Who enters and leaves rooms by this shard, and who here is told of it.
//!
//! What must stay true:
//! - A watcher gets every change of a version after its subscription was answered, or is told that it missed one. A watcher
//!   that reads slowly gets nothing queued behind what already waits; when it reads again it gets one change with counts, and
//!   takes pages to know the names.
//! - A connection that watches nothing is in no list here.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::{Presence, Subscription as Wanted, Watch};
use cauce_protocol::{ConnectionId, Refusal, RoomName, UserId, wire};

use super::Shard;
use super::deliver::client;
use super::peer::Peer;
use crate::clock::Now;
use crate::connection::{Connection, Subscription};
use crate::hub::{Tenant, check_presence_kept};
use crate::publication::RoomKey;
use crate::rooms::{Arriving, Exit, NewsForm, NewsKind, PageQuery, PresenceNews, Room};

/// A watcher that takes no bytes now is told no change if more than this part of its outbox would be full: the rest is for
/// messages.
const OUTBOX_PART: usize = 4;

/// Who watches which room.
#[derive(Debug, Default)]
pub(super) struct Watchers(HashMap<RoomKey, RoomWatchers, foldhash::fast::RandomState>);

#[derive(Debug, Default)]
struct RoomWatchers {
    watchers: HashMap<ConnectionId, Watcher, foldhash::fast::RandomState>,
    /// How many of them want names.
    names: usize,
}

#[derive(Debug)]
struct Watcher {
    peer: Rc<Peer>,
    watch: Watch,
    /// It was not told a change.
    missed: bool,
}

impl RoomWatchers {
    fn most(&self) -> Watch {
        match (self.names, self.watchers.len()) {
            (0, 0) => Watch::None,
            (0, _) => Watch::Counts,
            _ => Watch::Users,
        }
    }
}

impl Watchers {
    /// Sets what a peer wants. Answers the most that anybody here wants now, if that is something else than before.
    fn set(&mut self, room: RoomKey, peer: &Rc<Peer>, watch: Watch) -> Option<Watch> {
        if watch == Watch::None && !self.0.contains_key(&room) {
            return None;
        }
        let watchers = self.0.entry(room).or_default();
        let before = watchers.most();
        let old = match watch {
            Watch::None => watchers.watchers.remove(&peer.id),
            watch => {
                let missed = watchers.watchers.get(&peer.id).is_some_and(|old| old.missed);
                let peer = peer.clone();
                let watcher = Watcher { peer, watch, missed };
                watchers.watchers.insert(watcher.peer.id, watcher)
            }
        };
        watchers.names += usize::from(watch == Watch::Users);
        watchers.names -= usize::from(old.is_some_and(|old| old.watch == Watch::Users));
        let after = watchers.most();
        if after == Watch::None {
            self.0.remove(&room);
        }
        (after != before).then_some(after)
    }
}

/// Whether the rooms that a subscriber wants to watch keep presence.
///
/// # Errors
/// `conflict` for the first that does not.
pub(super) fn check_watches(tenant: &Tenant, wanted: &[Wanted]) -> Result<(), Refusal> {
    let mut watched = wanted.iter().filter(|wanted| wanted.watch != Watch::None);
    watched.try_for_each(|wanted| check_presence_kept(tenant, wanted.room.as_str()))
}

/// What a subscriber wants to watch. Whoever names nothing for a room that he watches goes on watching it.
pub(super) fn watches(wanted: &[Wanted]) -> Vec<(RoomName, Watch)> {
    let watched = wanted.iter().filter(|wanted| wanted.watch != Watch::None);
    watched
        .map(|wanted| (wanted.room.clone(), wanted.watch))
        .collect()
}

impl Shard {
    /// The peer has joined the rooms behind the first `before` of its subscriptions, and watches some of all that it has
    /// joined.
    pub(super) fn attend(
        &self,
        peer: &Rc<Peer>,
        connection: &Connection,
        before: usize,
        watches: &[(RoomName, Watch)],
        now: Now,
    ) {
        // Watching comes first, so that a watcher is told of its own join whether others watch or not.
        for (name, watch) in watches {
            let joined = connection.subscriptions.iter().find(|s| s.room.name == *name);
            if let Some(Subscription { room }) = joined {
                self.set_watch(peer, room, *watch);
            }
        }
        let (desk, users_max) = (&self.hub.presence, self.tunables.borrow().presence_users_max);
        for Subscription { room } in &connection.subscriptions[before..] {
            let switched_on = room.follow_class(desk, users_max);
            self.enter(connection, room, now);
            if switched_on && room.subscribers() > 1 {
                // Others came before its class changed. Whoever enters twice is there once.
                self.hub.enroll(room);
            }
        }
    }

    /// The connection's new token says something else of its user: pages show that from now on.
    pub(super) fn speak_anew(&self, connection: &Connection, now: Now) {
        for Subscription { room } in &connection.subscriptions {
            self.enter(connection, room, now);
        }
    }

    fn enter(&self, connection: &Connection, room: &Arc<Room>, now: Now) {
        let arriving = Arriving {
            user: &connection.principal.user,
            connection: connection.id,
            info: &connection.principal.info,
        };
        room.enter(&self.hub.presence, arriving, now);
    }

    /// Presence of a room was switched on: whoever has joined it here enters.
    pub(super) fn enroll(&self, room: &Arc<Room>) {
        let (rooms, now) = (self.rooms.borrow(), self.now());
        for member in rooms.get(&room.key).iter().flat_map(|local| &local.members) {
            client(&member.peer, |client| self.enter(&client.connection, room, now));
        }
    }

    /// The peer leaves a room: nobody sees it there any more, at once or when it does not come back.
    pub(super) fn depart(&self, peer: &Rc<Peer>, user: &UserId, room: &Arc<Room>, exit: Exit, now_ms: u64) {
        self.set_watch(peer, room, Watch::None);
        // Everybody goes, and nobody stays who could be told.
        if !self.is_stopping() {
            room.exit(&self.hub.presence, user, peer.id, exit, now_ms);
        }
    }

    /// Whether the peer is told of those who come and go.
    pub(super) fn is_watching(&self, peer: &Peer, room: RoomKey) -> bool {
        let watchers = self.watchers.borrow();
        watchers
            .0
            .get(&room)
            .is_some_and(|room| room.watchers.contains_key(&peer.id))
    }

    /// Sets what the peer is told of those who come and go.
    fn set_watch(&self, peer: &Rc<Peer>, room: &Arc<Room>, watch: Watch) {
        if let Some(most) = self.watchers.borrow_mut().set(room.key, peer, watch) {
            room.set_watch(self.index, most);
        }
    }

    /// Appends a change to the outboxes of those who watch. Shares the bytes; allocates nothing.
    pub(super) fn presence_changed(&self, news: &PresenceNews, outbox_bytes_max: usize) -> u64 {
        let mut watchers = self.watchers.borrow_mut();
        let Some(room) = watchers.0.get_mut(&news.room.key) else {
            return 0;
        };
        let met = room.watchers.len() as u64;
        let (mut told, mut truncated, mut missed) = (0, 0, 0);
        for watcher in room.watchers.values_mut() {
            if news.kind == NewsKind::Missed && !watcher.missed {
                continue;
            }
            let form = match (watcher.watch, watcher.missed) {
                (Watch::Users, true) => NewsForm::Truncated,
                (Watch::Users, false) => NewsForm::Names,
                (Watch::Counts | Watch::None, _) => NewsForm::Counts,
            };
            let frame = news.bytes(form, watcher.peer.dialect).clone();
            watcher.missed = !self.try_queue(&watcher.peer, frame, outbox_bytes_max / OUTBOX_PART);
            if watcher.missed {
                missed += 1;
            } else {
                told += 1;
                truncated += u64::from(news.is_truncated(form));
            }
        }
        drop(watchers);
        self.metrics().presence_changes.add(told);
        self.metrics().presence_truncated.add(truncated);
        self.metrics().presence_missed.add(missed);
        if missed > 0 {
            news.room.change_missed(&self.hub.presence, self.now().mono_ms);
        }
        met
    }

    /// Answers with a page of who is in a room. That the caller may ask has been checked.
    pub(super) fn presence(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, asked: Presence) {
        let Presence {
            room,
            after,
            limit,
            counts_only,
        } = asked;
        let query = PageQuery {
            after: after.as_ref().map(UserId::as_str),
            limit,
            counts_only,
        };
        let page = self
            .takes_pages(peer)
            .and_then(|()| self.hub.presence(tenant, room.as_str(), query));
        match page {
            Ok(page) => self.answer(peer, id, wire::PresencePage::from(page)),
            Err(refusal) => self.refuse(peer, id, &refusal),
        }
    }
}
