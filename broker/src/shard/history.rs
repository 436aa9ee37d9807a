//! Pages of what rooms have kept, for clients.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::History;
use cauce_protocol::{ConnectionId, Refusal};

use super::Shard;
use super::peer::Peer;
use crate::hub::{HistoryPage, Outcome, ShardMessage, Tenant};

impl Shard {
    /// Answers with a page; at once from memory, later from the store.
    pub(super) fn history(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, history: History) {
        match self.hub.history_in_memory(tenant, &history) {
            Ok(Some(page)) => self.answer(peer, id, page.to_wire()),
            Err(refusal) => self.refuse(peer, id, &refusal),
            Ok(None) => {
                let (hub, tenant, connection) = (self.hub.clone(), tenant.clone(), peer.id);
                // Not the peer: who has gone needs no answer, and the store no peer.
                tokio::task::spawn_local(async move {
                    let result = hub.history(&tenant, &history).await;
                    answer_later(&hub, connection, id, result);
                });
            }
        }
    }
}

fn answer_later(
    hub: &crate::hub::Hub,
    connection: ConnectionId,
    request: u32,
    result: Result<HistoryPage, Refusal>,
) {
    if let Some(shard) = hub.shard_of(connection) {
        hub.shards[shard].send(ShardMessage::Outcome(Box::new(Outcome {
            connection,
            request,
            result: result.map(|page| page.to_wire().into()),
        })));
    }
}
