//! Pages of what rooms have kept, for clients.
//!
//! What must stay true: a page is given to one who has the right when it is given, however long the store took; and to one who
//! reads, so that nobody is closed for the size of what he asked.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::History;
use cauce_protocol::{Code, ConnectionId, Refusal, RoomName};

use super::Shard;
use super::deliver::client;
use super::peer::Peer;
use crate::auth::Action as Right;
use crate::hub::{HistoryPage, Tenant};

/// What is asked of a client that has not read what it was sent.
const CONGESTED_RETRY_MS: u32 = 200;

impl Shard {
    /// Answers with a page; at once from memory, later from the store.
    pub(super) fn history(self: &Rc<Self>, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, history: History) {
        if let Err(refusal) = self.takes_pages(peer) {
            return self.refuse(peer, id, &refusal);
        }
        match self.hub.history_in_memory(tenant, &history) {
            Ok(Some(page)) => self.answer(peer, id, page.to_wire()),
            Err(refusal) => self.refuse(peer, id, &refusal),
            Ok(None) => {
                let (shard, tenant, connection) = (self.clone(), tenant.clone(), peer.id);
                // Not the peer: who has gone needs no answer, and the store no peer.
                tokio::task::spawn_local(async move {
                    let page = shard.hub.history(&tenant, &history).await;
                    shard.answer_history(connection, id, &history.room, page);
                });
            }
        }
    }

    fn answer_history(
        &self,
        connection: ConnectionId,
        id: u32,
        room: &RoomName,
        page: Result<HistoryPage, Refusal>,
    ) {
        let Some(peer) = self.peer(connection) else { return };
        self.update_rights(&peer, self.now());
        let may = client(&peer, |client| {
            let grant = &client.connection.principal.grant;
            grant.explain(Right::History, room.as_str())
        });
        // It may be closing.
        let Some(may) = may else { return };
        match may.and_then(|()| self.takes_pages(&peer)).and(page) {
            Ok(page) => self.answer(&peer, id, page.to_wire()),
            Err(refusal) => self.refuse(&peer, id, &refusal),
        }
    }

    /// Whether the peer's outbox has room for an answer of many messages or names. Ordinary answers are small, and go in always.
    ///
    /// # Errors
    /// `overloaded` if it does not read what it was sent before.
    pub(super) fn takes_pages(&self, peer: &Rc<Peer>) -> Result<(), Refusal> {
        if !self.is_congested(peer, self.tunables().outbox_bytes_max) {
            return Ok(());
        }
        let message = "what you were sent before has not been read: read on, and ask again";
        Err(Refusal::new(Code::Overloaded, message).retry_after(CONGESTED_RETRY_MS))
    }
}
