//! The loop: take what others left in the mailbox, append it to outboxes, write each marked peer once.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use cauce_protocol::{Code, Refusal};

use super::catching_up::CATCH_UP_A_TURN;
use super::outbox::{Flushed, Written};
use super::peer::{Peer, Stage};
use super::{SPARE_BUFFERS_MAX, Shard};
use crate::hub::{Closing, Selection, ShardMailbox, ShardMessage};
use crate::mailbox::Share;
use crate::metrics::Taken;
use crate::publication::message_frame;

/// Messages that one turn takes, so that sockets are read in between. Many: what a turn takes more, it writes in fewer calls,
/// and one call costs as much as appending a hundred frames.
const MESSAGES_A_TURN: usize = 4_096;
/// Peers that one turn looks at, give or take one message, for the same reason: a message to a thousand subscribers is a thousand
/// times the work, also where it is for none of them.
const PEERS_A_TURN: u64 = 65_536;

/// Accepts sockets for a shard: the transport's side of the loop, so that the shard knows no handshake.
pub trait Reception {
    /// Serves the socket on this thread.
    fn receive(&self, shard: &Rc<Shard>, arrival: crate::hub::Arrival);
}

/// What a turn has taken from the mailbox: given back when it is written.
struct Released {
    shard: usize,
    bytes: usize,
    /// Of whose part the last messages were, and how many bytes: most often a turn's are of one tenant.
    share: Option<(Arc<Share>, usize)>,
}

impl Released {
    fn new(shard: usize) -> Self {
        Self {
            shard,
            bytes: 0,
            share: None,
        }
    }

    fn add(&mut self, share: Option<&Arc<Share>>, cost: usize) {
        self.bytes += cost;
        match (&mut self.share, share) {
            (_, None) => {}
            (Some((last, bytes)), Some(share)) if Arc::ptr_eq(last, share) => *bytes += cost,
            (last, Some(share)) => {
                if let Some((other, bytes)) = last.replace((share.clone(), cost)) {
                    other.release(self.shard, bytes);
                }
            }
        }
    }

    fn give_back(self, mailbox: &ShardMailbox) {
        mailbox.release(self.bytes);
        if let Some((share, bytes)) = self.share {
            share.release(self.shard, bytes);
        }
    }
}

impl Shard {
    /// Runs until [`ShardMessage::Stop`] has been carried out.
    pub async fn run(self: &Rc<Self>, reception: &impl Reception) {
        let mailbox = self.hub.shards[self.index].clone();
        let taken: RefCell<Vec<Taken>> = RefCell::default();
        loop {
            mailbox.notified().await;
            mailbox.begin_turn();
            self.metrics().turns.increment();
            let outbox_bytes_max = self.tunables.borrow().outbox_bytes_max;
            let (mut released, mut met, mut full_bite) = (Released::new(self.index), 0, false);
            for n in 0.. {
                if n == MESSAGES_A_TURN || met >= PEERS_A_TURN {
                    // Come again after the sockets had their turn.
                    mailbox.notify();
                    full_bite = true;
                    break;
                }
                match mailbox.pop() {
                    None => break,
                    Some(ShardMessage::Publication(publication)) => {
                        let walk = self.deliver(&publication, outbox_bytes_max);
                        taken.borrow_mut().push(Taken {
                            accepted: publication.accepted,
                            source: publication.source,
                            deliveries: walk.given,
                        });
                        met += walk.met;
                        released.add(publication.share.as_ref(), publication.cost());
                    }
                    Some(ShardMessage::Direct(direct)) => {
                        let walk = self.deliver_direct(&direct, outbox_bytes_max);
                        taken.borrow_mut().push(Taken {
                            accepted: direct.accepted,
                            source: direct.source,
                            deliveries: walk.given,
                        });
                        met += walk.met;
                        released.add(Some(&direct.share), direct.cost());
                    }
                    Some(ShardMessage::Presence(news)) => {
                        met += self.presence_changed(&news, outbox_bytes_max);
                        released.add(None, news.cost());
                    }
                    Some(ShardMessage::Enroll(room)) => self.enroll(&room),
                    Some(ShardMessage::Notice(notice)) => {
                        met += self.deliver_notice(&notice, outbox_bytes_max);
                        released.add(None, notice.cost());
                    }
                    Some(ShardMessage::Answer(answer)) => self.answered(*answer),
                    Some(ShardMessage::Outcome(outcome)) => self.outcome(*outcome),
                    Some(ShardMessage::Serving(serving)) => self.tell_server(*serving),
                    Some(ShardMessage::DeviceFrames(frames)) => self.to_device(&frames),
                    Some(ShardMessage::Watch(tenant, device)) => self.watch(tenant, device),
                    Some(ShardMessage::Arrival(arrival)) => reception.receive(self, *arrival),
                    Some(ShardMessage::Fetched(room)) => self.fetched(room),
                    Some(ShardMessage::RoomClosed(room, refusal)) => self.room_closed(room, &refusal),
                    Some(ShardMessage::Close(closing)) => self.close_selected(&closing),
                    Some(ShardMessage::Survey(survey)) => self.survey(*survey),
                    Some(ShardMessage::Drain(drain)) => self.drain(&drain),
                    Some(ShardMessage::Recheck(tenant)) => self.recheck_later(&tenant),
                    Some(ShardMessage::Stop(refusal)) => self.stop(&refusal),
                }
            }
            self.recheck_some();
            self.flush_marked();
            released.give_back(&mailbox);
            self.report(&mut taken.borrow_mut());
            self.close_overflowed();
            // The mailbox's bell rings without ever making us wait; a node under load would read no socket otherwise.
            if full_bite {
                tokio::task::yield_now().await;
            } else {
                tokio::task::consume_budget().await;
            }
            if self.is_ending() && self.peers.borrow().is_empty() {
                return;
            }
        }
    }

    /// Counts the turn's deliveries, with one look at the clock for all of them.
    fn report(&self, taken: &mut Vec<Taken>) {
        if taken.is_empty() {
            return;
        }
        let metrics = self.metrics();
        metrics
            .deliveries
            .add(taken.iter().map(|taken| taken.deliveries).sum());
        metrics.latency.record(Instant::now(), taken.drain(..));
    }

    /// Writes each marked peer once.
    fn flush_marked(self: &Rc<Self>) {
        let mut written = Written::default();
        let late = std::mem::take(&mut *self.late.borrow_mut());
        let mut marked = std::mem::take(&mut *self.marked.borrow_mut());
        self.catch_up_left.set(CATCH_UP_A_TURN);
        for peer in late.into_iter().chain(marked.drain(..)) {
            peer.marked.set(false);
            if !peer.blocked.get() {
                self.flush(&peer, &mut written);
            }
        }
        // The list's buffer serves the next turn, unless somebody marked a peer meanwhile.
        let mut next = self.marked.borrow_mut();
        if next.is_empty() {
            *next = marked;
        }
        drop(next);
        self.metrics().writes.add(written.calls);
        self.metrics().bytes_out.add(written.bytes);
    }

    fn flush(self: &Rc<Self>, peer: &Rc<Peer>, written: &mut Written) {
        let flushed = peer.outbox.borrow_mut().flush(&peer.socket, written);
        match flushed {
            Ok(Flushed::All) => self.flushed(peer),
            Ok(Flushed::Blocked) => {
                if !peer.blocked.replace(true) {
                    self.stalls(peer);
                    tokio::task::spawn_local(wait_and_flush(self.clone(), peer.clone()));
                }
            }
            Err(error) => {
                tracing::debug!(connection = %peer.id, %error, "writing failed");
                self.gone(peer);
            }
        }
    }

    fn flushed(self: &Rc<Self>, peer: &Rc<Peer>) {
        if peer.backlog.borrow().is_some() && !peer.is_closing() {
            return self.catch_up(peer);
        }
        if let Some(buffer) = peer.outbox.borrow_mut().take_buffer() {
            let mut spare = self.spare_buffers.borrow_mut();
            if spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= 64 {
                spare.push(buffer);
            }
        }
        if matches!(*peer.stage.borrow(), Stage::Closing) {
            // The last words are out. The peer closes its side, or its time runs out.
            peer.socket.close_notify();
            peer.socket.shutdown(std::net::Shutdown::Write);
        }
    }

    fn close_overflowed(&self) {
        let overflowed = std::mem::take(&mut *self.overflowed.borrow_mut());
        for peer in overflowed {
            self.close(&peer, &Refusal::new(Code::Slow, super::timers::SLOW));
        }
    }

    fn close_selected(self: &Rc<Self>, closing: &Closing) {
        let Closing { selection, refusal } = closing;
        let chosen: Vec<_> = match selection {
            Selection::Connection(id) => self.peer(*id).into_iter().collect(),
            Selection::User(tenant, user) => match self.hub.tenants.get(tenant.as_str()) {
                Some(tenant) => self.rosters.borrow().user(tenant.key, user).to_vec(),
                None => Vec::new(),
            },
            selection => {
                let peers = self.peers.borrow();
                peers
                    .values()
                    .filter(|peer| is_selected(peer, selection))
                    .cloned()
                    .collect()
            }
        };
        for peer in chosen {
            self.close(&peer, refusal);
        }
    }

    fn stop(&self, refusal: &Refusal) {
        *self.stopping.borrow_mut() = Some(refusal.clone());
        self.ending.set(true);
        let peers: Vec<_> = self.peers.borrow().values().cloned().collect();
        for peer in peers {
            self.close(&peer, refusal);
        }
        // A turn follows even if there was nobody to close.
        self.hub.shards[self.index].notify();
    }

    /// Whether nobody new is served.
    pub fn is_stopping(&self) -> bool {
        self.stopping.borrow().is_some()
    }

    /// Whether no socket is taken any more.
    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Sends away a peer whose handshake ended after everybody was told to go: the shard waits for its last peer.
    pub(super) fn close_if_stopping(&self, peer: &Rc<Peer>) {
        let refusal = self.stopping.borrow().clone();
        if let Some(refusal) = refusal {
            self.close(peer, &refusal);
        }
    }

    /// Answers a request that others had to be asked for.
    fn outcome(&self, outcome: crate::hub::Outcome) {
        let Some(peer) = self.peer(outcome.connection).filter(|peer| !peer.is_closing()) else {
            return;
        };
        match outcome.result {
            Ok(result) => self.answer(&peer, outcome.request, result),
            Err(refusal) => self.refuse(&peer, outcome.request, &refusal),
        }
    }

    /// Sends the answer to a call to the client that waits for it.
    fn answered(&self, answer: crate::hub::Answer) {
        let Some(peer) = self.peer(answer.connection) else {
            return;
        };
        {
            let mut stage = peer.stage.borrow_mut();
            let Stage::Client(client) = &mut *stage else {
                return;
            };
            client.connection.call_ended();
            if let Some(calling) = &mut client.calling {
                calling.answered(answer.request);
            }
        }
        if answer.request == 0 && answer.result.is_ok() {
            return;
        }
        peer.answered(answer.request);
        let reply = match answer.result {
            Ok(json) => cauce_protocol::server::reply(answer.request, cauce_protocol::wire::Answer { json }),
            Err(refusal) => cauce_protocol::server::reply(answer.request, &refusal),
        };
        self.say(&peer, message_frame(&reply, peer.dialect));
    }
}

fn is_selected(peer: &Peer, selection: &Selection) -> bool {
    match (&*peer.stage.borrow(), selection) {
        (_, Selection::Connection(id)) => peer.id == *id,
        (Stage::Client(client), Selection::Tenant(tenant)) => client.membership.tenant.id == *tenant,
        (Stage::Device(device), Selection::Tenant(tenant)) => device.credential.tenant.id == *tenant,
        (Stage::Client(client), Selection::TokenId(tenant, jti)) => {
            client.membership.tenant.id == *tenant && client.connection.principal.jti.as_ref() == Some(jti)
        }
        (Stage::Device(device), Selection::DeviceToken(id)) => device.credential.id == *id,
        _ => false,
    }
}

/// Writes on when the kernel takes bytes again. One such task a blocked peer; an idle peer has none.
async fn wait_and_flush(shard: Rc<Shard>, peer: Rc<Peer>) {
    let since = Instant::now();
    loop {
        if peer.socket.writable().await.is_err() {
            shard.gone(&peer);
            return;
        }
        let mut written = Written::default();
        let flushed = peer.outbox.borrow_mut().flush(&peer.socket, &mut written);
        shard.metrics().writes.add(written.calls);
        shard.metrics().bytes_out.add(written.bytes);
        match flushed {
            Ok(Flushed::Blocked) => {
                if written.bytes > 0 {
                    shard.stalls(&peer);
                }
            }
            Ok(Flushed::All) => {
                shard.metrics().stalls.record(since.elapsed());
                peer.blocked.set(false);
                peer.time(|timing| timing.blocked_ms = 0);
                shard.flushed(&peer);
                return;
            }
            Err(_) => {
                shard.gone(&peer);
                return;
            }
        }
    }
}
