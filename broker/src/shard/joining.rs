//! Subscribes that must ask the store before they are answered, and what the client asked behind them.
//!
//! What must stay true:
//! - A room is joined when its answer is queued, and not before: a push never comes ahead of the number that it names.
//! - What one client asks of its subscriptions is carried out in the order in which it asked.
//! - Rights are judged again when a subscribe has waited.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::Subscription as Wanted;
use cauce_protocol::{Code, Refusal, RoomName, Seq, wire};

use super::peer::{Client, Peer, Stage};
use super::{Shard, Tunables};
use crate::clock::Now;
use crate::hub::Tenant;
use crate::rooms::{Lost, Room};

/// Requests of one client that wait behind a subscribe which asks the store.
const WAITING_MAX: usize = 64;

/// What is asked of a client that has more of them.
const WAITING_RETRY_MS: u32 = 500;

/// Requests that wait, oldest first.
pub(super) type Waiting = VecDeque<(u32, Joining)>;

/// A change of a client's subscriptions.
#[derive(Debug)]
pub(super) enum Joining {
    Subscribe(Vec<Wanted>),
    Unsubscribe(Vec<RoomName>),
}

/// What the store says is lost, by the place of the room in the request.
pub(super) type Losses = Vec<(usize, Option<Lost>)>;

/// A room whose past the store must be asked about.
struct Question {
    at: usize,
    room: Arc<Room>,
    after: Seq,
}

impl Shard {
    /// Carries out a change of subscriptions, at once or when its turn has come.
    pub(super) fn change_subscriptions(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        tenant: &Arc<Tenant>,
        id: u32,
        joining: Joining,
        now: Now,
        tunables: &Tunables,
    ) {
        let full = match &mut *peer.stage.borrow_mut() {
            Stage::Client(client) => match &mut client.joining {
                Some(waiting) if waiting.len() >= WAITING_MAX => true,
                Some(waiting) => {
                    waiting.push_back((id, joining));
                    return;
                }
                None => false,
            },
            _ => return,
        };
        if full {
            let message = "too many changes of subscriptions wait for the store";
            let refusal = Refusal::new(Code::Overloaded, message).retry_after(WAITING_RETRY_MS);
            return self.refuse(peer, id, &refusal);
        }
        self.begin(peer, tenant, id, joining, now, tunables);
    }

    /// Answers whether it is done; if not, it has begun to ask the store.
    fn begin(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        tenant: &Arc<Tenant>,
        id: u32,
        joining: Joining,
        now: Now,
        tunables: &Tunables,
    ) -> bool {
        let wanted = match joining {
            Joining::Subscribe(wanted) => wanted,
            Joining::Unsubscribe(rooms) => {
                self.unsubscribe(peer, tenant, &rooms, now);
                self.answer(peer, id, wire::Unsubscribed {});
                return true;
            }
        };
        let questions = match self.questions(peer, tenant, &wanted, now, tunables) {
            Ok(questions) if questions.is_empty() => {
                self.subscribe(peer, tenant, id, wanted, &Losses::new(), now, tunables);
                return true;
            }
            Ok(questions) => questions,
            Err(refusal) => {
                self.refuse(peer, id, &refusal);
                return true;
            }
        };
        with_client(peer, |client| {
            client.joining.get_or_insert_default();
        });
        let (shard, peer, tenant) = (self.clone(), peer.clone(), tenant.clone());
        tokio::task::spawn_local(async move {
            let losses = shard.ask(&tenant, questions).await;
            let (now, tunables) = (shard.now(), shard.tunables());
            let judged = losses.and_then(|losses| {
                let judge =
                    |client: &mut Client| client.connection.check_subscribe(&wanted, &tunables.connection);
                with_client(&peer, judge).unwrap_or(Ok(())).map(|()| losses)
            });
            if !peer.is_closing() {
                match judged {
                    Ok(losses) => shard.subscribe(&peer, &tenant, id, wanted, &losses, now, &tunables),
                    Err(refusal) => shard.refuse(&peer, id, &refusal),
                }
            }
            shard.go_on(&peer, &tenant);
        });
        false
    }

    /// Carries out what has waited, up to the next that must ask the store.
    fn go_on(self: &Rc<Self>, peer: &Rc<Peer>, tenant: &Arc<Tenant>) {
        loop {
            let next = with_client(peer, |client| {
                let next = client.joining.as_mut().and_then(|waiting| waiting.pop_front());
                if next.is_none() {
                    client.joining = None;
                }
                next
            });
            let Some(Some((id, joining))) = next else { return };
            let (now, tunables) = (self.now(), self.tunables());
            let judged = with_client(peer, |client| match &joining {
                Joining::Subscribe(wanted) => client.connection.check_subscribe(wanted, &tunables.connection),
                Joining::Unsubscribe(_) => Ok(()),
            });
            match judged {
                Some(Err(refusal)) => self.refuse(peer, id, &refusal),
                Some(Ok(())) => {
                    if !self.begin(peer, tenant, id, joining, now, &tunables) {
                        return;
                    }
                }
                None => return,
            }
        }
    }

    /// The rooms of a request whose past is partly in the store.
    fn questions(
        &self,
        peer: &Rc<Peer>,
        tenant: &Tenant,
        wanted: &[Wanted],
        now: Now,
        tunables: &Tunables,
    ) -> Result<Vec<Question>, Refusal> {
        let mut questions = Vec::new();
        for (at, wanted) in wanted.iter().enumerate() {
            if (wanted.since.is_none() && wanted.recent == 0) || self.has_joined(peer, wanted.room.as_str()) {
                continue;
            }
            let start = with_client(peer, |client| {
                super::subscribing::start(&client.connection, wanted, tunables)
            });
            let (Some(start), Some(room)) = (start, tenant.rooms.wake(&wanted.room, now.mono_ms)?) else {
                continue;
            };
            let entered = room.peek(start, now.mono_ms);
            if entered.ask_store {
                let after = entered.from;
                questions.push(Question { at, room, after });
            }
        }
        Ok(questions)
    }

    async fn ask(self: &Rc<Self>, tenant: &Tenant, questions: Vec<Question>) -> Result<Losses, Refusal> {
        let mut losses = Losses::with_capacity(questions.len());
        for Question { at, room, after } in questions {
            losses.push((at, self.loss_after(tenant, &room, after).await?));
        }
        Ok(losses)
    }
}

fn with_client<T>(peer: &Peer, change: impl FnOnce(&mut Client) -> T) -> Option<T> {
    match &mut *peer.stage.borrow_mut() {
        Stage::Client(client) => Some(change(client)),
        _ => None,
    }
}
