//! How a room is followed: from where, what of it, and what happens when the reader falls behind.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use cauce_protocol::message::{Policy, Watch};
use cauce_protocol::{Position, RoomName, wire};
use tokio::sync::oneshot;

use crate::client::Handle;
use crate::connection::{Command, Interest, Joining};
use crate::error::{Error, invalid_name};
use crate::queue::Queue;
use crate::room::Subscription;

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    #[default]
    Now,
    /// So many messages back, as far as they are kept.
    Recent(u32),
    /// Behind this one.
    Since(Position),
}

/// What of a room comes, and how. One for all readers of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// `None` leaves it to the room's class.
    policy: Option<Policy>,
    /// Empty lets everything pass.
    events: Vec<String>,
    keys: Vec<String>,
}

impl Manner {
    /// Whether every message is due, so that a number left out is a message missed.
    pub(crate) fn is_everything(&self) -> bool {
        matches!(self.policy, None | Some(Policy::Reliable)) && self.events.is_empty() && self.keys.is_empty()
    }

    /// Bytes on the wire, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.events.iter().chain(&self.keys);
        names.map(|name| name.len() + 4).sum::<usize>() + 64
    }

    /// Fields and list entries, for the bound on those of a request.
    pub(crate) fn entries(&self) -> usize {
        10 + self.events.len() + self.keys.len()
    }

    #[cfg(test)]
    pub(crate) fn of_events(events: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            events: events.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn fill(&self, subscription: &mut wire::Subscription) {
        let (delivery, sample_ms) = match self.policy {
            None => (wire::Delivery::Default, 0),
            Some(Policy::Reliable) => (wire::Delivery::Reliable, 0),
            Some(Policy::Latest) => (wire::Delivery::Latest, 0),
            Some(Policy::DropOldest) => (wire::Delivery::DropOldest, 0),
            Some(Policy::Sample { every_ms }) => (wire::Delivery::Sample, every_ms),
        };
        subscription.delivery = delivery.into();
        subscription.sample_ms = sample_ms;
        subscription.events.clone_from(&self.events);
        subscription.keys.clone_from(&self.keys);
    }
}

/// From [`crate::Client::subscribe`]. Await it for the [`Subscription`]; dropping the future leaves the room again.
///
/// Subscriptions of one client to one room share one at the broker. The second one must have the same policy and filters, and
/// begins now.
#[must_use = "nothing is joined before it is awaited"]
pub struct Subscribe<'a> {
    handle: &'a Arc<Handle>,
    room: String,
    manner: Manner,
    start: Start,
    interest: Interest,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn new(handle: &'a Arc<Handle>, room: &str) -> Self {
        Self {
            handle,
            room: room.to_owned(),
            manner: Manner::default(),
            start: Start::Now,
            interest: Interest::Messages(Watch::None),
        }
    }

    /// Only who is there.
    pub(crate) fn presence_only(mut self) -> Self {
        self.interest = Interest::PresenceOnly;
        self
    }

    /// Begin this many messages back, as far as the room keeps them.
    pub fn recent(mut self, messages: u32) -> Self {
        self.start = Start::Recent(messages);
        self
    }

    /// Go on behind this position, which may be from an earlier run of the program ([`crate::Message::position`]). The first
    /// event is [`crate::Event::Resubscribed`] and says whether anything is missing.
    pub fn since(mut self, position: Position) -> Self {
        self.start = Start::Since(position);
        self
    }

    /// What happens when this client reads more slowly than messages come. Without, the room's class decides; where that is
    /// not [`Policy::Reliable`], choose it here too, or what it passes over is told as [`crate::Event::Gap`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.manner.policy = Some(policy);
        self
    }

    /// Only messages with one of these events; others never leave the broker. At most 32.
    pub fn events<S: Into<String>>(mut self, events: impl IntoIterator<Item = S>) -> Self {
        self.manner.events.extend(events.into_iter().map(Into::into));
        self
    }

    /// Only messages with one of these keys. At most 64.
    pub fn keys<S: Into<String>>(mut self, keys: impl IntoIterator<Item = S>) -> Self {
        self.manner.keys.extend(keys.into_iter().map(Into::into));
        self
    }

    /// Also tell who comes and goes ([`crate::Event::Presence`]). For a view that is kept up to date, see
    /// [`crate::Client::presence`].
    pub fn watch(mut self, watch: Watch) -> Self {
        self.interest = Interest::Messages(watch);
        self
    }

    pub(crate) async fn joined(self) -> Result<Subscription, Error> {
        let room = RoomName::new(&self.room).map_err(|e| invalid_name("room", e))?;
        let handle = self.handle;
        let queue = Arc::new(Queue::new(handle.buffer_events, handle.buffer_bytes));
        // Before the command, so that a future that is dropped takes back what it asked for.
        let subscription = Subscription::new(room.clone(), Arc::clone(&queue), Arc::clone(handle));
        let (joined, answer) = oneshot::channel();
        let command = Command::Subscribe(Joining {
            room,
            queue,
            joined,
            manner: self.manner,
            start: self.start,
            interest: self.interest,
        });
        handle.command(command).await?;
        let beginning = answer.await.map_err(|_| handle.closed())??;
        Ok(subscription.joined_at(beginning))
    }
}

impl<'a> IntoFuture for Subscribe<'a> {
    type Output = Result<Subscription, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.joined())
    }
}

impl fmt::Debug for Subscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribe")
            .field("room", &self.room)
            .field("manner", &self.manner)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}
