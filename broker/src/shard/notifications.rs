//! Notifications of the user behind a connection: left, listed, read, and pushed.
//!
//! What must stay true:
//! - Whoever is not of an audience when a notification comes by does not get it, whatever he was before.
//! - Only connections that said they want them get pushes.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::ConnectionId;
use cauce_protocol::message::{Audience, MarkRead, Notifications, Notify, Priority};
use cauce_protocol::wire::reply::Outcome;
use cauce_protocol::wire::{self, Feature};

use super::Shard;
use super::deliver::client;
use super::outbox::Lane;
use super::peer::{Client, Peer};
use crate::hub::{self, News, Notice, ShardMessage, Tenant};
use crate::publication::message_frame;
use crate::store::{Done, Left, Marked, Reader, Sender};

/// The part of an outbox that one page may take: the rest is for what comes meanwhile.
const PAGE_OUTBOX_DIVISOR: usize = 4;

impl Shard {
    pub(super) fn notify(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, notify: Notify) {
        let Some(reader) = client(peer, reader) else {
            return;
        };
        let done = self.done(peer.id, id, |left: Left| wire::Notified { id: left.id }.into());
        self.hub.notify(tenant, Sender::User(reader.user), notify, done);
    }

    pub(super) fn notifications(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, asked: Notifications) {
        let Some(reader) = client(peer, reader) else {
            return;
        };
        if let Err(refusal) = self.takes_pages(peer) {
            return self.refuse(peer, id, &refusal);
        }
        let bytes_max = self.tunables().outbox_bytes_max / PAGE_OUTBOX_DIVISOR;
        let page = self.hub.notifications(tenant, reader, &asked, bytes_max);
        let (hub, shard, connection) = (self.hub.clone(), self.index, peer.id);
        // As many as the store lets ask at a time.
        tokio::task::spawn_local(async move {
            let result = page.await.map(|page| wire::NotificationPage::from(page).into());
            hub.shards[shard].send(ShardMessage::Outcome(Box::new(hub::Outcome {
                connection,
                request: id,
                result,
            })));
        });
    }

    pub(super) fn mark_read(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, mark: MarkRead) {
        let Some(reader) = client(peer, reader) else {
            return;
        };
        let answer = |marked: Marked| wire::NotificationsRead::from(&marked).into();
        let done = self.done(peer.id, id, answer);
        self.hub.mark_read(tenant, reader, mark, Some(peer.id), done);
    }

    /// Answers a request of this shard's, from whatever thread the answer comes.
    fn done<T: 'static>(&self, connection: ConnectionId, request: u32, answer: fn(T) -> Outcome) -> Done<T> {
        let (hub, shard) = (self.hub.clone(), self.index);
        Done::new(move |result| {
            hub.shards[shard].send(ShardMessage::Outcome(Box::new(hub::Outcome {
                connection,
                request,
                result: result.map(answer),
            })));
        })
    }

    /// Pushes a notice to those here whom it is for. Answers how many were looked at.
    pub(super) fn deliver_notice(self: &Rc<Self>, notice: &Notice, outbox_bytes_max: usize) -> u64 {
        let mut elsewhere_in_roles = Vec::new();
        let met = {
            let rosters = self.rosters.borrow();
            let peers = match &notice.to {
                Audience::User(user) => rosters.user(notice.tenant.key, user),
                Audience::Role(_) | Audience::Tenant => rosters.tenant(notice.tenant.key),
            };
            for peer in peers {
                match client(peer, |client| fits(client, notice)).unwrap_or(Fit::NotForIt) {
                    Fit::NotForIt => {}
                    Fit::OtherRoles => elsewhere_in_roles.push(peer.clone()),
                    Fit::ForIt => self.push_notice(peer, notice, outbox_bytes_max),
                }
            }
            peers.len() as u64
        };
        for peer in elsewhere_in_roles {
            self.tell_own_count(&peer, notice);
        }
        met
    }

    fn push_notice(&self, peer: &Rc<Peer>, notice: &Notice, outbox_bytes_max: usize) {
        let lane = match notice.priority() {
            Priority::High => Lane::Urgent,
            Priority::Normal => Lane::Ordered,
            Priority::Low if self.is_congested(peer, outbox_bytes_max) => {
                self.metrics().notices_gave_way.increment();
                return;
            }
            Priority::Low => Lane::Ordered,
        };
        self.queue_in(lane, peer, notice.bytes(peer.dialect).clone(), outbox_bytes_max);
        self.metrics().notices_pushed.increment();
    }

    /// Whether a frame that can do without should.
    pub(super) fn is_congested(&self, peer: &Rc<Peer>, outbox_bytes_max: usize) -> bool {
        let mut outbox = peer.outbox.borrow_mut();
        if outbox.is_congested(outbox_bytes_max) {
            self.relieve(peer, &mut outbox);
        }
        outbox.is_congested(outbox_bytes_max)
    }

    /// A user has read something on a connection in other roles: what is left unread differs here, so it is asked for. That is
    /// rare: a token was renewed with other roles, and an older connection is still open.
    fn tell_own_count(self: &Rc<Self>, peer: &Rc<Peer>, notice: &Notice) {
        let (News::Read(_, read), Some(reader)) = (&notice.news, client(peer, reader)) else {
            return;
        };
        let asked = Notifications {
            before: 0,
            limit: 1,
            unread_only: true,
        };
        let page = self.hub.notifications(&notice.tenant, reader, &asked, 0);
        let (shard, peer, read) = (self.clone(), peer.clone(), read.clone());
        tokio::task::spawn_local(async move {
            // Without an answer the connection goes without the news, as with a full mailbox.
            let Ok(page) = page.await else {
                return shard.metrics().notices_unpushed.increment();
            };
            if !peer.is_closing() {
                let frame = wire::NotificationsRead {
                    unread: page.unread,
                    ..read
                };
                shard.say(&peer, message_frame(&frame.into(), peer.dialect));
                shard.metrics().notices_pushed.increment();
            }
        });
    }
}

/// Whether a connection gets a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    ForIt,
    NotForIt,
    /// It is the same user's, but counts otherwise.
    OtherRoles,
}

fn fits(client: &Client, notice: &Notice) -> Fit {
    let connection = &client.connection;
    if !connection.knows(Feature::Notifications) || notice.except == Some(connection.id) {
        return Fit::NotForIt;
    }
    match (&notice.to, &notice.news) {
        (Audience::Role(role), _) if !connection.principal.has_role(role.as_str()) => Fit::NotForIt,
        (_, News::Read(reader, _)) if reader.roles != connection.principal.roles => Fit::OtherRoles,
        _ => Fit::ForIt,
    }
}

fn reader(client: &Client) -> Reader {
    let principal = &client.connection.principal;
    Reader {
        user: principal.user.clone(),
        roles: principal.roles.clone(),
    }
}
