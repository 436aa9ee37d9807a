//! Pages of a room's past, wherever they lie. Whoever asks has the right; this place only finds.

use std::sync::Arc;

use cauce_protocol::message::{Direction, History};
use cauce_protocol::{Epoch, Payload, Refusal, Seq, wire};

use super::Hub;
use super::tenants::Tenant;
use crate::publication::{Publication, Shared};
use crate::rooms::Room;
use crate::store::{MessageQuery, StoredMessage};

/// Messages of a page where the caller names no number.
const PAGE_DEFAULT: u32 = 100;

/// Bytes of one page's messages, and the part of an outbox that they may take: an answer must not fill it. One message is
/// always given.
const PAGE_BYTES: usize = 128 * 1024;
const PAGE_OUTBOX_DIVISOR: usize = 4;

/// Messages of a room in the order that was asked for.
#[derive(Debug)]
pub struct HistoryPage {
    pub epoch: Epoch,
    /// The oldest number that was found to be kept, 0 if none is. Of a durable room older ones may lie on the disk.
    pub first: Seq,
    pub head: Seq,
    pub messages: Vec<Shared>,
    pub more: bool,
}

impl HistoryPage {
    pub fn to_wire(&self) -> wire::HistoryPage {
        wire::HistoryPage {
            epoch: self.epoch.0,
            first: self.first.0,
            head: self.head.0,
            entries: self.messages.iter().map(|message| entry(message)).collect(),
            more: self.more,
        }
    }

    fn empty(epoch: Epoch, head: Seq) -> Self {
        Self {
            epoch,
            first: Seq(0),
            head,
            messages: Vec::new(),
            more: false,
        }
    }
}

impl Hub {
    /// A page, if it lies in memory; `None` if the store must be asked.
    ///
    /// # Errors
    /// `quota_exceeded` if a durable room that is not in use cannot be woken. A room that does not exist has an empty past.
    pub fn history_in_memory(
        &self,
        tenant: &Tenant,
        asked: &History,
    ) -> Result<Option<HistoryPage>, Refusal> {
        let Some(room) = tenant.rooms.wake(&asked.room, self.clock.now().mono_ms)? else {
            return Ok(Some(HistoryPage::empty(Epoch(0), Seq(0))));
        };
        let (page, in_store) = self.page_in_memory(&room, asked);
        Ok((!in_store).then_some(page))
    }

    fn page_bytes(&self) -> usize {
        PAGE_BYTES.min(self.tunables().outbox_bytes_max / PAGE_OUTBOX_DIVISOR)
    }

    fn page_in_memory(&self, room: &Room, asked: &History) -> (HistoryPage, bool) {
        if asked.epoch.is_some_and(|epoch| epoch != room.epoch) {
            return (HistoryPage::empty(room.epoch, room.seq()), false);
        }
        let (limit, now_ms) = (limit(asked) as usize, self.clock.now().mono_ms);
        let page = room.page(asked.from, asked.direction, limit, self.page_bytes(), now_ms);
        let in_memory = HistoryPage {
            epoch: room.epoch,
            first: page.first,
            head: page.head,
            messages: page.messages,
            more: page.more,
        };
        (in_memory, page.in_store)
    }

    /// A page, from memory or from the store. Cancel-safe.
    ///
    /// # Errors
    /// `unavailable` if the store cannot answer now.
    pub async fn history(&self, tenant: &Arc<Tenant>, asked: &History) -> Result<HistoryPage, Refusal> {
        let Some(room) = tenant.rooms.wake(&asked.room, self.clock.now().mono_ms)? else {
            return Ok(HistoryPage::empty(Epoch(0), Seq(0)));
        };
        let (mut page, in_store) = self.page_in_memory(&room, asked);
        if !in_store {
            return Ok(page);
        }
        if asked.direction == Direction::Forwards {
            page.messages.clear();
        }
        // Backwards, memory comes first: its newest may still be on their way to the disk.
        let missing = limit(asked).saturating_sub(page.messages.len() as u32);
        let cost: usize = page.messages.iter().map(|message| message.cost()).sum();
        let stored = self
            .records
            .messages(MessageQuery {
                tenant: tenant.id.clone(),
                room: asked.room.clone(),
                epoch: room.epoch,
                from: page.messages.last().map_or(asked.from, |last| last.seq),
                direction: asked.direction,
                limit: missing.max(1),
                bytes_max: self.page_bytes().saturating_sub(cost),
            })
            .await?;
        page.first = stored.first;
        page.head = room.seq();
        page.more = stored.more || (missing == 0 && !stored.messages.is_empty());
        let restored = |message: StoredMessage| super::restored(&room, message);
        let stored = stored.messages.into_iter().map(restored);
        page.messages.extend(stored.take(missing as usize));
        if !page.more && asked.direction == Direction::Forwards {
            // What is still on its way to the disk is in memory.
            page.more = page.messages.last().is_some_and(|last| last.seq < page.head);
        }
        Ok(page)
    }
}

fn limit(asked: &History) -> u32 {
    match asked.limit {
        0 => PAGE_DEFAULT,
        limit => limit,
    }
}

fn entry(message: &Publication) -> wire::HistoryEntry {
    use wire::history_entry::Payload as P;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    wire::HistoryEntry {
        seq: message.seq.0,
        event: message.event.as_str().into(),
        payload: Some(match &message.payload {
            Payload::Json(json) => P::Json(json.clone()),
            Payload::Text(bytes) => P::Text(text(bytes)),
            Payload::Binary(bytes) => P::Binary(bytes.clone()),
        }),
        key: message.topic.as_str().into(),
        unix_ms: message.unix_ms,
        user: message
            .user
            .as_ref()
            .map(|user| user.as_str().into())
            .unwrap_or_default(),
    }
}
