//! What subscribers missed and only the store has: the newest messages of a durable room brought into memory for everyone who
//! waits, and older pages for one subscriber.
//!
//! What must stay true:
//! - A task that waits for the store goes on with the very subscription it began with, and with none that followed it.
//! - Nothing is told as lost that is on its way to the disk.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cauce_protocol::message::Direction;
use cauce_protocol::{Code, Refusal, Seq};

use super::Shard;
use super::deliver::{Feed, LocalRoom, Member, Ticket};
use super::peer::Peer;
use crate::hub::{ShardMessage, Tenant, restored};
use crate::publication::RoomKey;
use crate::rooms::{CatchUp, Lost, Room};
use crate::store::{MessagePage, MessageQuery, StoredMessage};

/// Messages and bytes of one page of the store.
const PAGE_MESSAGES: u32 = 200;
const PAGE_BYTES: usize = 256 * 1024;

/// Bytes of the newest messages that are brought into memory at once.
const FETCH_BYTES: usize = 4 * 1024 * 1024;

/// First and longest pause before the store is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

impl Shard {
    /// Brings the newest messages of a durable room into memory, for everyone who waits for them. If that fails, it says so
    /// after a pause.
    pub(super) async fn fetch_newest(
        &self,
        tenant: &Tenant,
        room: &Room,
        messages: u32,
    ) -> Result<(), Refusal> {
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
    pub(super) async fn feed_from_store(
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
                    Ok((page, settled)) => {
                        if self.give_page(peer, ticket, room, page, settled) {
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

    /// What the store has behind `after`; and the number up to which what is not among it never will be.
    async fn stored_after(
        &self,
        tenant: &Tenant,
        room: &Room,
        after: Seq,
        limit: u32,
    ) -> Result<(MessagePage, Seq), Refusal> {
        let settled = room.settled();
        let page = self
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
        // A room's rows come to the disk in order: whatever comes before one that is there has come, or never will.
        Ok((page, settled))
    }

    /// Gives a page of the store to a held subscriber. Answers whether it goes on by itself.
    fn give_page(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        ticket: Ticket,
        room: &Arc<Room>,
        page: MessagePage,
        settled: Seq,
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
            let next = room.memory_begins().min(settled);
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
                    Ok((page, settled)) => {
                        let next = page.messages.first().map(|message| message.seq.0);
                        let to = next.map_or(room.memory_begins().min(settled).0, |next| next - 1);
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
}

/// The subscription, if it still waits for the store.
pub(super) fn held<'a>(local: &'a mut LocalRoom, peer: &Rc<Peer>, ticket: Ticket) -> Option<&'a mut Member> {
    local
        .member(peer)
        .filter(|member| member.feed == Feed::Held && member.ticket == ticket)
}
