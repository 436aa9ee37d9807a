//! What a room has kept, page by page or as a stream, forwards or backwards.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use cauce_protocol::message::Direction;
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome};
use cauce_protocol::{Code, Epoch, Payload, Position, Seq};
use futures_util::Stream;
use serde::Deserialize;

use crate::client::{Handle, unexpected};
use crate::connection::Delivery;
use crate::error::Error;

/// A message that a room has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryEntry {
    pub seq: Seq,
    pub event: String,
    pub key: Option<String>,
    pub payload: Payload,
    /// When it was published, in milliseconds since 1970 by the broker's clock.
    pub unix_ms: u64,
    /// Who published it; `None` is a device, the API or the program that embeds the broker.
    pub user: Option<String>,
}

impl HistoryEntry {
    /// The payload as a value.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the payload is not JSON, or not of that type.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        Ok(self.payload.parse()?)
    }
}

impl From<wire::HistoryEntry> for HistoryEntry {
    fn from(entry: wire::HistoryEntry) -> Self {
        use wire::history_entry::Payload as P;
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            seq: Seq(entry.seq),
            event: entry.event,
            key: some(entry.key),
            payload: match entry.payload {
                None => Payload::NULL,
                Some(P::Json(json)) => Payload::Json(json),
                Some(P::Text(text)) => Payload::Text(text.into()),
                Some(P::Binary(binary)) => Payload::Binary(binary),
            },
            unix_ms: entry.unix_ms,
            user: some(entry.user),
        }
    }
}

/// A page of what a room has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryPage {
    pub epoch: Epoch,
    /// The oldest number that is kept; `None` if nothing is.
    pub first: Option<Seq>,
    /// The room's last number.
    pub head: Seq,
    /// In the order that was asked for.
    pub entries: Vec<HistoryEntry>,
    /// More lie beyond the last of them.
    pub more: bool,
}

/// From [`crate::Client::history`]: forwards from the oldest message unless told otherwise. Await it for one page, or take
/// [`History::stream`] for all.
#[derive(Clone)]
#[must_use = "nothing is asked before it is awaited"]
pub struct History {
    handle: Arc<Handle>,
    room: String,
    epoch: Epoch,
    from: Seq,
    direction: Direction,
    limit: u32,
}

impl History {
    pub(crate) fn new(handle: &Arc<Handle>, room: &str) -> Self {
        Self {
            handle: Arc::clone(handle),
            room: room.to_owned(),
            epoch: Epoch(0),
            from: Seq(0),
            direction: Direction::Forwards,
            limit: 0,
        }
    }

    /// Forwards from behind this one, whatever numbering it is of.
    pub fn after(mut self, seq: Seq) -> Self {
        self.from = seq;
        self.direction = Direction::Forwards;
        self
    }

    /// Forwards from behind this position. If numbering began anew since, the page is empty and of another epoch, and the
    /// stream fails with [`Code::Conflict`].
    pub fn since(mut self, position: Position) -> Self {
        self.epoch = position.epoch;
        self.after(position.seq)
    }

    /// Backwards from before this one.
    pub fn before(mut self, seq: Seq) -> Self {
        self.from = seq;
        self.direction = Direction::Backwards;
        self
    }

    /// Backwards from the newest.
    pub fn newest_first(self) -> Self {
        self.before(Seq(0))
    }

    /// At most so many a page, at most 1,000. Without, the broker's default.
    pub fn page_size(mut self, messages: u32) -> Self {
        self.limit = messages;
        self
    }

    /// All that is left in this direction, page after page. A message that the room gave up between two pages is not there:
    /// the numbers show it.
    ///
    /// # Errors
    /// The stream ends with the first error; with [`Code::Conflict`] if numbering began anew meanwhile.
    pub fn stream(self) -> impl Stream<Item = Result<HistoryEntry, Error>> + Send + 'static {
        let pages = futures_util::stream::try_unfold(Some(self), |history| async move {
            let Some(mut history) = history else {
                return Ok::<_, Error>(None);
            };
            let page = history.page().await?;
            if history.epoch != Epoch(0) && page.epoch != history.epoch {
                let message = format!(
                    "numbering of room {} began anew: read it from the start",
                    history.room
                );
                return Err(Error::from_code(Code::Conflict.number(), message, None));
            }
            let next = page.entries.last().filter(|_| page.more).map(|last| last.seq);
            let next = next.map(|from| {
                history.epoch = page.epoch;
                history.from = from;
                history
            });
            let entries = futures_util::stream::iter(page.entries.into_iter().map(Ok));
            Ok(Some((entries, next)))
        });
        futures_util::TryStreamExt::try_flatten(pages)
    }

    async fn page(&self) -> Result<HistoryPage, Error> {
        let request = Request::History(wire::History {
            room: self.room.clone(),
            epoch: self.epoch.0,
            from: self.from.0,
            backwards: self.direction == Direction::Backwards,
            limit: self.limit,
        });
        let timeout = self.handle.request_timeout;
        match self.handle.request(request, Delivery::Repeat, timeout).await? {
            Outcome::HistoryPage(page) => Ok(HistoryPage {
                epoch: Epoch(page.epoch),
                first: (page.first > 0).then_some(Seq(page.first)),
                head: Seq(page.head),
                entries: page.entries.into_iter().map(Into::into).collect(),
                more: page.more,
            }),
            other => Err(unexpected(&other)),
        }
    }
}

impl IntoFuture for History {
    type Output = Result<HistoryPage, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.page().await })
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("room", &self.room)
            .field("from", &self.from)
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}
