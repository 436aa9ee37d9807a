//! Who is in a room: a page, everyone, or a view that is kept up to date.

mod roster;
mod view;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::wire::{self, client_frame::Request, reply::Outcome};
use futures_util::Stream;
use serde::Deserialize;

pub use self::view::{PresenceEvent, PresenceView};

use crate::client::{Handle, unexpected};
use crate::connection::Delivery;
use crate::error::Error;
use crate::subscribe::Subscribe;

/// One user in a room, however many connections that is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresentUser {
    pub user: String,
    /// What the user's token says of him; JSON, empty means nothing.
    pub info: Bytes,
    pub connections: u32,
    /// Milliseconds since 1970, by the broker's clock.
    pub since_unix_ms: u64,
}

impl PresentUser {
    /// [`PresentUser::info`] as a value; `None` if there is nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if it is not of that type.
    pub fn info<'a, T: Deserialize<'a>>(&'a self) -> Result<Option<T>, Error> {
        match self.info.is_empty() {
            true => Ok(None),
            false => Ok(Some(serde_json::from_slice(&self.info)?)),
        }
    }
}

impl From<wire::PresenceUser> for PresentUser {
    fn from(user: wire::PresenceUser) -> Self {
        Self {
            user: user.user,
            info: user.info,
            connections: user.connections,
            since_unix_ms: user.since_unix_ms,
        }
    }
}

/// Who came and went since the last change, coalesced by the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// Changes up to here are in it.
    pub version: u64,
    pub counts: PresenceCounts,
    pub joined: Vec<PresentUser>,
    pub left: Vec<String>,
    /// Names are left out: only the counts hold. Ask for pages to know.
    pub truncated: bool,
}

/// How many are in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceCounts {
    pub users: u32,
    pub connections: u32,
}

impl Presence {
    /// Bytes that it holds in a reader's buffer.
    pub(crate) fn bytes(&self) -> usize {
        let joined = self.joined.iter().map(|user| user.user.len() + user.info.len());
        joined.chain(self.left.iter().map(String::len)).sum()
    }
}

impl From<wire::PresenceChange> for Presence {
    fn from(change: wire::PresenceChange) -> Self {
        Self {
            version: change.version,
            counts: PresenceCounts {
                users: change.users,
                connections: change.connections,
            },
            joined: change.joined.into_iter().map(Into::into).collect(),
            left: change.left,
            truncated: change.truncated,
        }
    }
}

/// Some of those who are in a room, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresencePage {
    /// See [`Presence::version`]: a change of this or an earlier version is in it already.
    pub version: u64,
    pub counts: PresenceCounts,
    pub users: Vec<PresentUser>,
    /// More come after the last of them.
    pub more: bool,
}

impl From<wire::PresencePage> for PresencePage {
    fn from(page: wire::PresencePage) -> Self {
        Self {
            version: page.version,
            counts: PresenceCounts {
                users: page.users,
                connections: page.connections,
            },
            users: page.page.into_iter().map(Into::into).collect(),
            more: page.more,
        }
    }
}

/// Asks who is in a room, from [`crate::Client::presence`].
#[derive(Clone)]
pub struct RoomPresence {
    handle: Arc<Handle>,
    room: String,
}

impl RoomPresence {
    pub(crate) fn new(handle: &Arc<Handle>, room: &str) -> Self {
        Self {
            handle: Arc::clone(handle),
            room: room.to_owned(),
        }
    }

    /// How many, without names. Cancel-safe.
    ///
    /// # Errors
    /// As of any request; [`crate::Code::Forbidden`] without the right to presence.
    pub async fn counts(&self) -> Result<PresenceCounts, Error> {
        Ok(self.ask("", 0, true).await?.counts)
    }

    /// Those whose names come after `after` (empty: from the first), at most `limit` of them (0: as the broker has it).
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`RoomPresence::counts`].
    pub async fn page(&self, after: &str, limit: u32) -> Result<PresencePage, Error> {
        self.ask(after, limit, false).await
    }

    /// Everyone by name, page after page. Who comes or goes meanwhile may be in it or not.
    ///
    /// # Errors
    /// The stream ends with the first error.
    pub fn users(&self) -> impl Stream<Item = Result<PresentUser, Error>> + Send + 'static {
        let pages = futures_util::stream::try_unfold(
            (self.clone(), Some(String::new())),
            |(room, after)| async move {
                let Some(after) = after else {
                    return Ok::<_, Error>(None);
                };
                let page = room.page(&after, 0).await?;
                let next = page
                    .users
                    .last()
                    .filter(|_| page.more)
                    .map(|last| last.user.clone());
                let users = futures_util::stream::iter(page.users.into_iter().map(Ok));
                Ok(Some((users, (room, next))))
            },
        );
        futures_util::TryStreamExt::try_flatten(pages)
    }

    /// Joins the room for its presence and keeps a view of who is there. The broker sends the room's messages too, and they
    /// are passed over.
    ///
    /// # Errors
    /// As of a subscription, which it is.
    pub async fn watch(&self) -> Result<PresenceView, Error> {
        let subscription = Subscribe::new(&self.handle, &self.room)
            .presence_only()
            .joined()
            .await?;
        Ok(PresenceView::new(self.clone(), subscription))
    }

    async fn ask(&self, after: &str, limit: u32, counts_only: bool) -> Result<PresencePage, Error> {
        let request = Request::Presence(wire::Presence {
            room: self.room.clone(),
            after: after.to_owned(),
            limit,
            counts_only,
        });
        let timeout = self.handle.request_timeout;
        match self.handle.request(request, Delivery::Repeat, timeout).await? {
            Outcome::PresencePage(page) => Ok(page.into()),
            other => Err(unexpected(&other)),
        }
    }
}

impl fmt::Debug for RoomPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomPresence")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}
