//! The application's ends of what comes in: a [`Subscription`] for one room, an [`Inbox`] for what is sent to the user. Both
//! are streams over a bounded queue; dropping one takes it off the connection.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use cauce_protocol::{Epoch, RoomName, Seq};
use futures_util::Stream;

use crate::client::Handle;
use crate::connection::Control;
use crate::event::{Direct, Event, Position};
use crate::queue::Queue;

/// A room's events, from [`crate::Client::subscribe`]. Several subscriptions to one room share one at the broker; dropping
/// the last leaves the room.
///
/// It lives through lost connections: see [`Event::Resubscribed`]. It keeps the client connected as long as it lives.
pub struct Subscription {
    room: RoomName,
    start: Position,
    queue: Arc<Queue<Event>>,
    handle: Arc<Handle>,
}

impl Subscription {
    /// Not joined yet: until [`Subscription::joined_at`] it is there to take the room back if it is dropped.
    pub(crate) fn new(room: RoomName, queue: Arc<Queue<Event>>, handle: Arc<Handle>) -> Self {
        Self {
            room,
            start: Position {
                epoch: Epoch(0),
                seq: Seq(0),
            },
            queue,
            handle,
        }
    }

    pub(crate) fn joined_at(mut self, position: Position) -> Self {
        self.start = position;
        self
    }

    pub fn room(&self) -> &RoomName {
        &self.room
    }

    /// Where the room stood when this subscription began: its first message carries the number after it.
    pub fn start(&self) -> Position {
        self.start
    }

    /// The next event; `None` after the end. Cancel-safe: an event is taken only when it is returned.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.queue.poll_pop(cx)).await
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.queue.poll_pop(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // First the mark, then the word: a subscribe that is still on its way to the connection sees the mark.
        self.queue.abandon();
        self.handle.control(Control::Leave {
            room: self.room.clone(),
            queue: Arc::clone(&self.queue),
        });
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("room", &self.room)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// Messages sent to this user, connection, role or tenant, from [`crate::Client::directs`]. Each inbox gets all of them from
/// its creation on. It keeps the client connected as long as it lives.
pub struct Inbox {
    queue: Arc<Queue<Direct>>,
    handle: Arc<Handle>,
}

impl Inbox {
    pub(crate) fn new(queue: Arc<Queue<Direct>>, handle: Arc<Handle>) -> Self {
        handle.inboxes().add(&queue);
        Self { queue, handle }
    }

    /// The next message; `None` after the client has closed. Cancel-safe: a message is taken only when it is returned.
    pub async fn next(&mut self) -> Option<Direct> {
        std::future::poll_fn(|cx| self.queue.poll_pop(cx)).await
    }
}

impl Stream for Inbox {
    type Item = Direct;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Direct>> {
        self.queue.poll_pop(cx)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.handle.inboxes().remove(&self.queue);
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// The inboxes of one client, shared between it and the connection. As many as the application holds.
#[derive(Debug, Default)]
pub(crate) struct Inboxes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queues: Vec<Arc<Queue<Direct>>>,
    finished: bool,
}

impl Inboxes {
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, queue: &Arc<Queue<Direct>>) {
        self.change(|state| {
            if state.finished {
                queue.finish();
            } else {
                state.queues.push(Arc::clone(queue));
            }
        });
    }

    fn remove(&self, queue: &Arc<Queue<Direct>>) {
        self.change(|state| state.queues.retain(|other| !Arc::ptr_eq(other, queue)));
    }

    pub(crate) fn push(&self, direct: &Direct) {
        self.change(|state| {
            for queue in &state.queues {
                queue.push(direct.clone());
            }
        });
    }

    pub(crate) fn finish(&self) {
        self.change(|state| {
            state.finished = true;
            for queue in state.queues.drain(..) {
                queue.finish();
            }
        });
    }
}
