//! Subscribers that are behind: what they missed comes from the room's history as their peer takes it, or, where memory has it no
//! longer, from the store (`stored`).
//!
//! What must stay true:
//! - Catching up goes through the same bounded outbox as everything else, in ordinary pushes, a handful a turn.
//! - What is lost is told in its place (`gap`), or, to a client that does not understand that, by closing.
//! - A subscriber becomes live under the room's lock, when it has the room's last number.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cauce_protocol::message::Policy;
use cauce_protocol::wire::{self, Feature};
use cauce_protocol::{RoomId, Seq};

use super::Shard;
use super::deliver::{Feed, Given, Member, is_excluded, knows};
use super::options::{Interval, Meant, Verdict};
use super::peer::Peer;
use crate::publication::{RoomKey, Shared, message_frame};
use crate::rooms::{CatchUp, Lost, Room};

/// Messages that one peer is given a turn, so that a herd that comes back is served side by side.
const MESSAGES_A_TURN: usize = 128;

/// Messages that all peers together are given a turn: a fourth of what those take who are there. A herd of ten thousand takes its time;
/// who never left does not wait for it.
pub(super) const CATCH_UP_A_TURN: usize = 16_384;

/// How far one look brought a subscriber.
enum Step {
    /// It is live, or gone, or waits for something that will call.
    Done,
    /// More is there, but not in this turn.
    More,
}

impl Shard {
    /// Notes that a subscriber of this peer has something to catch up with. It goes on when the outbox has been written.
    pub(super) fn fall_behind(&self, peer: &Rc<Peer>, room: RoomKey) {
        let mut backlog = peer.backlog.borrow_mut();
        let rooms = &mut backlog.get_or_insert_default().rooms;
        if !rooms.contains(&room) {
            rooms.push_back(room);
        }
        drop(backlog);
        // If nothing is on its way to the socket, nothing would call.
        self.mark(peer);
        self.hub.shards[self.index].notify();
    }

    /// A message for a subscriber with a policy of its own.
    pub(super) fn keep(self: &Rc<Self>, member: &mut Member, publication: &Shared, outbox_bytes_max: usize) {
        let Some(options) = &mut member.options else {
            return;
        };
        if options.waiting.is_empty() && options.interval.is_none() {
            match self.give(&member.peer, publication, outbox_bytes_max) {
                Given::NoRoom => {}
                Given::Queued | Given::Passed => {
                    self.begin_interval(member, publication.key);
                    return;
                }
            }
        }
        let Some(options) = &mut member.options else {
            return;
        };
        let meant = match is_excluded(&member.peer, &publication.excluded) {
            false => Meant::Yes,
            true => Meant::No,
        };
        options.waiting.add(publication, meant, outbox_bytes_max / 4);
        if options.interval.is_none() {
            self.fall_behind(&member.peer, publication.key);
        }
    }

    /// Under `sample`: nothing more until the interval has passed. One timer for each subscriber that has just been given
    /// something; none for a quiet one.
    fn begin_interval(self: &Rc<Self>, member: &mut Member, room: RoomKey) {
        let Some(options) = &mut member.options else {
            return;
        };
        if let Policy::Sample { every_ms } = options.policy {
            let (shard, peer) = (self.clone(), member.peer.clone());
            let timer = tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_millis(every_ms.into())).await;
                shard.interval_passed(&peer, room);
            });
            options.interval = Some(Interval(timer.abort_handle()));
        }
    }

    fn interval_passed(&self, peer: &Rc<Peer>, room: RoomKey) {
        let waits = {
            let mut rooms = self.rooms.borrow_mut();
            let member = rooms.get_mut(&room).and_then(|local| local.member(peer));
            let Some(options) = member.and_then(|member| member.options.as_mut()) else {
                return;
            };
            options.interval = None;
            !options.waiting.is_empty()
        };
        if waits {
            self.fall_behind(peer, room);
        }
    }

    /// Gives a peer more of what it is behind with. Called when its outbox has been written.
    pub(super) fn catch_up(self: &Rc<Self>, peer: &Rc<Peer>) {
        let outbox_bytes_max = self.tunables.borrow().outbox_bytes_max;
        let left = self.catch_up_left.get();
        let owes_states = peer
            .backlog
            .borrow()
            .as_ref()
            .is_some_and(|b| !b.states.is_empty());
        let before = match left {
            // States of devices come before what changes them, and that is not held back.
            _ if owes_states => MESSAGES_A_TURN,
            0 => return self.wait_for_turn(peer),
            left => left.min(MESSAGES_A_TURN),
        };
        let mut budget = before;
        while budget > 0 && !peer.is_closing() {
            if self.give_states(peer, outbox_bytes_max, &mut budget) {
                break;
            }
            let next = peer
                .backlog
                .borrow_mut()
                .as_mut()
                .and_then(|b| b.rooms.pop_front());
            let Some(room) = next else {
                *peer.backlog.borrow_mut() = None;
                break;
            };
            if let Step::More = self.catch_up_room(peer, room, outbox_bytes_max, &mut budget) {
                // Behind the others, so that a large room does not keep a small one waiting.
                if let Some(backlog) = peer.backlog.borrow_mut().as_mut() {
                    backlog.rooms.push_back(room);
                }
                if budget > 0 {
                    // The outbox is full.
                    break;
                }
            }
        }
        self.catch_up_left.set(left.saturating_sub(before - budget));
        if !peer.blocked.get() && !peer.is_closing() {
            self.mark(peer);
            self.hub.shards[self.index].notify();
        }
    }

    /// This turn has nothing left for the peer. Those who had something are marked behind it.
    fn wait_for_turn(&self, peer: &Rc<Peer>) {
        if !peer.marked.replace(true) {
            self.late.borrow_mut().push(peer.clone());
        }
        self.hub.shards[self.index].notify();
    }

    fn catch_up_room(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        key: RoomKey,
        outbox_bytes_max: usize,
        budget: &mut usize,
    ) -> Step {
        let mut rooms = self.rooms.borrow_mut();
        let Some(local) = rooms.get_mut(&key) else {
            return Step::Done;
        };
        let room = local.room.clone();
        let Some(member) = local.member(peer) else {
            return Step::Done;
        };
        match member.feed {
            Feed::Held => Step::Done,
            Feed::Live => self.give_waiting(member, &room, outbox_bytes_max, budget),
            Feed::Behind => loop {
                let (messages, head) = match room.catch_up(member.after) {
                    CatchUp::Messages { messages, head } => (messages, head),
                    CatchUp::InStore | CatchUp::Coming => {
                        self.hold(member, &room, None);
                        return Step::Done;
                    }
                    CatchUp::Fetch { messages } => {
                        self.hold(member, &room, Some(messages));
                        return Step::Done;
                    }
                };
                let none = messages.is_empty();
                for publication in messages {
                    if *budget == 0 || !self.advance_to(member, &room, &publication, outbox_bytes_max) {
                        return Step::More;
                    }
                    *budget -= 1;
                }
                if none && member.after < head {
                    let lost = Lost {
                        from: member.after.0 + 1,
                        to: head.0,
                    };
                    if !self.tell_gap(&member.peer, room.id, lost, outbox_bytes_max) {
                        return Step::More;
                    }
                    member.after = head;
                }
                if member.after >= head {
                    member.feed = Feed::Live;
                    return Step::Done;
                }
            },
        }
    }

    /// Gives one message out of history, after the word of what is lost before it.
    pub(super) fn advance_to(
        &self,
        member: &mut Member,
        room: &Room,
        publication: &Shared,
        outbox_bytes_max: usize,
    ) -> bool {
        if publication.seq.0 > member.after.0 + 1 {
            let lost = Lost {
                from: member.after.0 + 1,
                to: publication.seq.0 - 1,
            };
            if !self.tell_gap(&member.peer, room.id, lost, outbox_bytes_max) {
                return false;
            }
            member.after = Seq(publication.seq.0 - 1);
        }
        let verdict = match &mut member.options {
            None => Verdict::Give,
            Some(options) => options.judge(publication, &member.peer),
        };
        let given = match verdict {
            Verdict::Give | Verdict::Keep => self.give(&member.peer, publication, outbox_bytes_max),
            Verdict::Tell => self.pass(&member.peer, publication, outbox_bytes_max),
            Verdict::Skip => Given::Passed,
        };
        if given == Given::NoRoom {
            return false;
        }
        self.metrics().recovered.increment();
        member.after = publication.seq;
        true
    }

    /// Gives what waits under a policy.
    fn give_waiting(
        self: &Rc<Self>,
        member: &mut Member,
        room: &Room,
        outbox_bytes_max: usize,
        budget: &mut usize,
    ) -> Step {
        let peer = member.peer.clone();
        let mut given = false;
        while let Some(options) = &mut member.options {
            if options.interval.is_some() {
                return Step::Done;
            }
            if let Some(lost) = options.waiting.lost() {
                if !self.tell_gap(&peer, room.id, lost, outbox_bytes_max) {
                    return Step::More;
                }
                options.waiting.told();
            }
            let Some(publication) = options.waiting.first().cloned() else {
                break;
            };
            if *budget == 0 || self.give(&peer, &publication, outbox_bytes_max) == Given::NoRoom {
                return Step::More;
            }
            *budget -= 1;
            options.waiting.sent(publication.seq.0);
            given = true;
        }
        if given {
            self.begin_interval(member, room.key);
        }
        Step::Done
    }

    /// Tells what is lost. A client that would not understand it is closed instead: it must not believe that it has all.
    /// Answers whether there was room for the word.
    pub(super) fn tell_gap(
        &self,
        peer: &Rc<Peer>,
        room: RoomId,
        lost: Lost,
        outbox_bytes_max: usize,
    ) -> bool {
        let count = || {
            self.metrics().gaps.increment();
            self.metrics().lost.add(lost.to - lost.from + 1);
        };
        if knows(peer, Feature::Gap) {
            let gap = wire::Gap {
                room: room.0,
                from: lost.from,
                to: lost.to,
            };
            let frame = || message_frame(&gap.into(), peer.dialect);
            let told = self.offer(peer, frame, outbox_bytes_max);
            if told {
                count();
            }
            return told;
        }
        let mut overflowed = self.overflowed.borrow_mut();
        if !overflowed.iter().any(|other| Rc::ptr_eq(other, peer)) {
            count();
            overflowed.push(peer.clone());
        }
        false
    }

    /// The store must be asked, or is being asked, for what comes next.
    fn hold(self: &Rc<Self>, member: &mut Member, room: &Arc<Room>, fetch: Option<u32>) {
        member.feed = Feed::Held;
        let Some(tenant) = super::deliver::client(&member.peer, |c| c.membership.tenant.clone()) else {
            return;
        };
        let (shard, peer, room, ticket) = (self.clone(), member.peer.clone(), room.clone(), member.ticket);
        tokio::task::spawn_local(async move {
            if let Some(messages) = fetch {
                // Should it fail, the loop below tries again.
                let _ = shard.fetch_newest(&tenant, &room, messages).await;
            }
            shard.feed_from_store(&peer, ticket, &tenant, &room).await;
        });
    }

    /// Gives what rooms of devices are like now. Answers whether more must wait for room in the outbox.
    fn give_states(&self, peer: &Rc<Peer>, outbox_bytes_max: usize, budget: &mut usize) -> bool {
        loop {
            let next = peer.backlog.borrow_mut().as_mut().and_then(|backlog| {
                backlog
                    .states
                    .front_mut()
                    .map(|states| (states.room, states.devices.pop()))
            });
            match next {
                None => return false,
                Some((_, None)) => {
                    if let Some(backlog) = peer.backlog.borrow_mut().as_mut() {
                        backlog.states.pop_front();
                    }
                }
                Some((room, Some(device))) => {
                    let state = super::states::state_of(room, &device);
                    if *budget == 0
                        || !self.offer(peer, || message_frame(&state, peer.dialect), outbox_bytes_max)
                    {
                        if let Some(states) = peer
                            .backlog
                            .borrow_mut()
                            .as_mut()
                            .and_then(|b| b.states.front_mut())
                        {
                            states.devices.push(device);
                        }
                        return true;
                    }
                    *budget -= 1;
                }
            }
        }
    }
}
