//! The journal of one tenant's durable rooms: what the rooms write, as rows for the store.

use std::sync::Arc;

use cauce_protocol::{Refusal, TenantId};

use super::records::Records;
use crate::publication::{Draft, Publication, Shared};
use crate::rooms::{Journal, JournalEntry, Room};
use crate::store::{Committed, Late, MessageRow, StoredMessage};

/// Lends the store to the rooms of a tenant for one publish.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ledger<'a> {
    pub(super) records: &'a dyn Records,
    pub(super) tenant: &'a TenantId,
}

impl Journal for Ledger<'_> {
    fn reserve(&self, cost: usize) -> Result<(), Refusal> {
        self.records.reserve_message(self.tenant, cost)
    }

    fn append(&self, entry: JournalEntry, cost: usize) {
        let JournalEntry {
            publication,
            room,
            repeat,
            lease,
            keep,
            committed,
            late,
        } = entry;
        let row = MessageRow {
            tenant: self.tenant.clone(),
            room,
            epoch: publication.epoch,
            seq: publication.seq,
            event: publication.event.clone(),
            payload: publication.payload.clone(),
            topic: publication.topic.clone(),
            user: publication.user.clone(),
            excluded: publication.excluded.clone(),
            unix_ms: publication.unix_ms,
            repeat,
            lease,
            keep,
            committed: Committed(Some(committed)),
            late: Late(Some(late)),
        };
        self.records.message(row, cost);
    }
}

/// A message as it was when the room numbered it.
pub fn restored(room: &Room, message: StoredMessage) -> Shared {
    let draft = Draft {
        topic: message.topic,
        user: message.user,
        excluded: message.excluded,
        unix_ms: message.unix_ms,
        ..Draft::new(message.event, message.payload)
    };
    let mut publication = Publication::draft(draft, room.key, room.id, room.epoch);
    publication.seq = message.seq;
    Arc::new(publication)
}
