//! Subscribers that are behind: what they missed comes from the room's history, or from the store, as their peer takes it.
//!
//! What must stay true:
//! - Catching up goes through the same bounded outbox as everything else, in ordinary pushes, a handful a turn.
//! - What is lost is told in its place (`gap`), or, to a client that does not understand that, by closing.
//! - A subscriber becomes live under the room's lock, when it has the room's last number.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cauce_protocol::message::{Direction, Policy};
use cauce_protocol::wire::{self, Feature};
use cauce_protocol::{Code, Refusal, RoomId, Seq};

use super::Shard;
use super::deliver::{Feed, Given, LocalRoom, Member, Ticket, knows};
use super::peer::Peer;
use crate::hub::{ShardMessage, Tenant, restored};
use crate::publication::{RoomKey, Shared, message_frame};
use crate::rooms::{CatchUp, Lost, Room};
use crate::store::{MessagePage, MessageQuery, StoredMessage};

/// Messages that one peer is given a turn, so that a herd that comes back is served side by side.
const MESSAGES_A_TURN: usize = 128;

/// Messages and bytes of one page of the store.
const PAGE_MESSAGES: u32 = 200;
const PAGE_BYTES: usize = 256 * 1024;

/// Bytes of the newest messages that are brought into memory at once.
const FETCH_BYTES: usize = 4 * 1024 * 1024;

/// First and longest pause before the store is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

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
        if options.waiting.is_empty() && !options.interval {
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
        options.waiting.add(publication, outbox_bytes_max / 4);
        if !options.interval {
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
            options.interval = true;
            let (shard, peer) = (self.clone(), member.peer.clone());
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_millis(every_ms.into())).await;
                shard.interval_passed(&peer, room);
            });
        }
    }

    fn interval_passed(&self, peer: &Rc<Peer>, room: RoomKey) {
        let waits = {
            let mut rooms = self.rooms.borrow_mut();
            let member = rooms.get_mut(&room).and_then(|local| local.member(peer));
            let Some(options) = member.and_then(|member| member.options.as_mut()) else {
                return;
            };
            options.interval = false;
            !options.waiting.is_empty()
        };
        if waits {
            self.fall_behind(peer, room);
        }
    }

    /// Gives a peer more of what it is behind with. Called when its outbox has been written.
    pub(super) fn catch_up(self: &Rc<Self>, peer: &Rc<Peer>) {
        let outbox_bytes_max = self.tunables.borrow().outbox_bytes_max;
        let mut budget = MESSAGES_A_TURN;
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
        if !peer.blocked.get() && !peer.is_closing() {
            self.mark(peer);
            self.hub.shards[self.index].notify();
        }
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
    fn advance_to(
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
        let passes = member
            .options
            .as_ref()
            .is_none_or(|options| options.passes(publication));
        if passes && self.give(&member.peer, publication, outbox_bytes_max) == Given::NoRoom {
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
            if options.interval {
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
    fn tell_gap(&self, peer: &Rc<Peer>, room: RoomId, lost: Lost, outbox_bytes_max: usize) -> bool {
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

    /// Brings the newest messages of a durable room into memory, for everyone who waits for them. If that fails, it says so
    /// after a pause.
    async fn fetch_newest(&self, tenant: &Tenant, room: &Room, messages: u32) -> Result<(), Refusal> {
        let query = MessageQuery {
            tenant: tenant.id.clone(),
            room: room.name.clone(),
            epoch: room.epoch,
            from: Seq(0),
            direction: Direction::Backwards,
            limit: messages.max(1),
            bytes_max: FETCH_BYTES,
        };
        let page = self.hub.records.messages(query).await;
        let now = self.now();
        let (older, outcome) = match page {
            Ok(page) => (Some(page), Ok(())),
            Err(refusal) => (None, Err(refusal)),
        };
        let older = older.map(|page| {
            let publication = |message: StoredMessage| {
                let age_ms = now.unix_ms.saturating_sub(message.unix_ms);
                (now.mono_ms.saturating_sub(age_ms), restored(room, message))
            };
            page.messages.into_iter().rev().map(publication).collect()
        });
        room.backfill(older, now.mono_ms);
        if outcome.is_err() {
            // Whoever waits tries again in a while.
            tokio::time::sleep(RETRY_FIRST).await;
        }
        // Whoever waits may not have joined yet, so all are told.
        for mailbox in &self.hub.shards[..self.hub.plan.clients] {
            mailbox.send(ShardMessage::Fetched(room.key));
        }
        outcome
    }

    /// The newest messages of a room have come from the store, or could not.
    pub(super) fn fetched(&self, room: RoomKey) {
        let waiting = self.fetching.borrow_mut().remove(&room);
        for waiter in waiting.into_iter().flatten() {
            // One who is gone does not wait.
            let _ = waiter.send(());
        }
    }

    /// Waits until somebody has fetched the newest messages of the room. To be called where the room has just said that they are
    /// coming: the word is taken by this thread, so it cannot come in between.
    async fn until_fetched(&self, room: RoomKey) {
        let (done, fetched) = tokio::sync::oneshot::channel();
        self.fetching.borrow_mut().entry(room).or_default().push(done);
        let _ = fetched.await;
    }

    /// The number after which a held subscriber goes on; `None` if it is no longer one.
    fn held_after(&self, peer: &Rc<Peer>, ticket: Ticket, room: RoomKey) -> Option<Seq> {
        let mut rooms = self.rooms.borrow_mut();
        held(rooms.get_mut(&room)?, peer, ticket).map(|member| member.after)
    }

    /// Lets a held subscriber go on.
    pub(super) fn resume(&self, peer: &Rc<Peer>, ticket: Ticket, room: RoomKey) {
        let mut rooms = self.rooms.borrow_mut();
        let Some(member) = rooms.get_mut(&room).and_then(|local| held(local, peer, ticket)) else {
            return;
        };
        member.feed = Feed::Behind;
        drop(rooms);
        self.fall_behind(peer, room);
    }

    /// Feeds a held subscriber until memory can go on.
    async fn feed_from_store(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        ticket: Ticket,
        tenant: &Tenant,
        room: &Arc<Room>,
    ) {
        let mut pause = RETRY_FIRST;
        while let Some(after) = self.held_after(peer, ticket, room.key) {
            match room.catch_up(after) {
                CatchUp::Messages { .. } => return self.resume(peer, ticket, room.key),
                CatchUp::Coming => self.until_fetched(room.key).await,
                CatchUp::Fetch { messages } => {
                    let _ = self.fetch_newest(tenant, room, messages).await;
                }
                CatchUp::InStore => match self.stored_after(tenant, room, after, PAGE_MESSAGES).await {
                    Ok(page) => {
                        if self.give_page(peer, ticket, room, page) {
                            return;
                        }
                        pause = RETRY_FIRST;
                    }
                    Err(refusal) => {
                        tracing::debug!(room = %room.name, %refusal, "a reader waits for the store");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(RETRY_LONGEST);
                    }
                },
            }
        }
    }

    async fn stored_after(
        &self,
        tenant: &Tenant,
        room: &Room,
        after: Seq,
        limit: u32,
    ) -> Result<MessagePage, Refusal> {
        let settled = room.settled();
        let mut page = self
            .hub
            .records
            .messages(MessageQuery {
                tenant: tenant.id.clone(),
                room: room.name.clone(),
                epoch: room.epoch,
                from: after,
                direction: Direction::Forwards,
                limit,
                bytes_max: PAGE_BYTES,
            })
            .await?;
        if page.messages.is_empty() && settled <= after {
            // What comes next has left memory and is still on its way to the disk.
            return Err(Refusal::new(Code::Unavailable, "the store is behind"));
        }
        // What came to the disk while we looked is for the next look.
        page.messages.retain(|message| message.seq <= settled);
        Ok(page)
    }

    /// Gives a page of the store to a held subscriber. Answers whether it goes on by itself.
    fn give_page(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        ticket: Ticket,
        room: &Arc<Room>,
        page: MessagePage,
    ) -> bool {
        let outbox_bytes_max = self.tunables.borrow().outbox_bytes_max;
        let mut rooms = self.rooms.borrow_mut();
        let Some(member) = rooms
            .get_mut(&room.key)
            .and_then(|local| held(local, peer, ticket))
        else {
            return true;
        };
        let (none, more) = (page.messages.is_empty(), page.more);
        let mut full = false;
        for message in page.messages {
            if !self.advance_to(member, room, &restored(room, message), outbox_bytes_max) {
                full = true;
                break;
            }
        }
        if none && !more {
            // The disk has nothing more before what memory holds.
            let next = room.memory_begins();
            if next > member.after {
                let lost = Lost {
                    from: member.after.0 + 1,
                    to: next.0,
                };
                full = !self.tell_gap(peer, room.id, lost, outbox_bytes_max);
                if !full {
                    member.after = next;
                }
            }
        }
        if full {
            member.feed = Feed::Behind;
            drop(rooms);
            self.fall_behind(peer, room.key);
            return true;
        }
        drop(rooms);
        self.mark(peer);
        self.hub.shards[self.index].notify();
        false
    }

    /// What a durable room has lost behind `after`, asking the store if need be: for the answer to a held subscriber who comes
    /// back. Nothing, if he has gone meanwhile.
    pub(super) async fn loss_after(
        self: &Rc<Self>,
        tenant: &Tenant,
        room: &Arc<Room>,
        after: Seq,
    ) -> Result<Option<Lost>, Refusal> {
        let mut tries = 0;
        loop {
            let tried = match room.catch_up(after) {
                CatchUp::Messages { .. } => return Ok(room.loss(after)),
                CatchUp::Coming => {
                    self.until_fetched(room.key).await;
                    continue;
                }
                CatchUp::Fetch { messages } => self.fetch_newest(tenant, room, messages).await,
                CatchUp::InStore => match self.stored_after(tenant, room, after, 1).await {
                    Ok(page) => {
                        let next = page.messages.first().map(|message| message.seq.0);
                        let to = next.map_or(room.memory_begins().0, |next| next - 1);
                        return Ok((to > after.0).then_some(Lost {
                            from: after.0 + 1,
                            to,
                        }));
                    }
                    Err(refusal) => Err(refusal),
                },
            };
            if let Err(refusal) = tried {
                tries += 1;
                if tries == 5 {
                    return Err(refusal);
                }
                tokio::time::sleep(RETRY_FIRST * tries).await;
            }
        }
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

/// The subscription, if it still waits for the store.
pub(super) fn held<'a>(local: &'a mut LocalRoom, peer: &Rc<Peer>, ticket: Ticket) -> Option<&'a mut Member> {
    local
        .member(peer)
        .filter(|member| member.feed == Feed::Held && member.ticket == ticket)
}
