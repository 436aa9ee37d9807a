//! The application's ends of what comes in: a [`Subscription`] for one room, an [`Inbox`] for what is sent to the user. Both
//! are streams over a bounded queue; dropping one takes it off the connection.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use cauce_protocol::{Epoch, Position, RoomName, Seq, wire};
use futures_util::Stream;
use tokio::sync::watch;

use crate::client::Handle;
use crate::connection::{Beginning, Control};
use crate::event::{Direct, Event};
use crate::notifications::Noticed;
use crate::queue::{Item, Queue};

/// A room's events, from [`crate::Client::subscribe`]. Several subscriptions to one room share one at the broker; dropping
/// the last leaves the room.
///
/// It lives through lost connections: see [`Event::Resubscribed`]. It keeps the client connected as long as it lives.
pub struct Subscription {
    room: RoomName,
    start: Position,
    head: Seq,
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
            head: Seq(0),
            queue,
            handle,
        }
    }

    pub(crate) fn joined_at(mut self, beginning: Beginning) -> Self {
        self.start = beginning.position;
        self.head = beginning.head;
        self
    }

    pub fn room(&self) -> &RoomName {
        &self.room
    }

    /// Where this subscription began: its first message carries the number after it, unless a filter or policy passes that
    /// over.
    pub fn start(&self) -> Position {
        self.start
    }

    /// The room's last number when this subscription began: up to there messages are from before.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// The next event; `None` after the end. Cancel-safe: an event is taken only when it is returned.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    pub(crate) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.queue.poll_pop(cx)
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(cx)
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

/// Where what is sent to the user goes, shared between one client and its connection.
#[derive(Debug)]
pub(crate) struct Inboxes {
    directs: Fan<Direct>,
    notices: Fan<Noticed>,
    /// The user's unread notifications, once the broker has said so.
    unread: watch::Sender<Option<u32>>,
    /// Those up to this one are in the number, once it is known.
    counted_up_to: AtomicU64,
    /// The newest that was heard of.
    newest: AtomicU64,
}

impl Default for Inboxes {
    fn default() -> Self {
        Self {
            directs: Fan::default(),
            notices: Fan::default(),
            unread: watch::Sender::new(None),
            counted_up_to: AtomicU64::new(0),
            newest: AtomicU64::new(0),
        }
    }
}

impl Inboxes {
    fn add(&self, queue: &Arc<Queue<Direct>>) {
        self.directs.add(queue);
    }

    fn remove(&self, queue: &Arc<Queue<Direct>>) {
        self.directs.remove(queue);
    }

    pub(crate) fn push(&self, direct: &Direct) {
        self.directs.push(direct);
    }

    pub(crate) fn listen(&self, queue: &Arc<Queue<Noticed>>) {
        self.notices.add(queue);
    }

    pub(crate) fn unlisten(&self, queue: &Arc<Queue<Noticed>>) {
        self.notices.remove(queue);
    }

    pub(crate) fn notified(&self, noticed: &Noticed) {
        self.notices.push(noticed);
    }

    pub(crate) fn notify(&self, notification: wire::Notification) {
        self.newest.fetch_max(notification.id, Ordering::Relaxed);
        let counted = notification.id <= self.counted_up_to.load(Ordering::Relaxed);
        match notification.unread {
            // The broker leaves the counting to us.
            0 if !counted && !notification.read => {
                self.unread.send_if_modified(|known| {
                    *known = known.map(|unread| unread.saturating_add(1));
                    known.is_some()
                });
            }
            0 => {}
            unread => self.set_unread(unread),
        }
        self.notified(&Noticed::Notification(notification.into()));
    }

    pub(crate) fn notify_read(&self, read: wire::NotificationsRead) {
        self.set_unread(read.unread);
        self.notified(&Noticed::Read {
            ids: read.ids,
            up_to: read.up_to,
        });
    }

    /// The broker's count, in which the newest is this one.
    pub(crate) fn count_unread(&self, unread: u32, newest: u64) {
        self.counted_up_to.store(newest, Ordering::Relaxed);
        self.newest.fetch_max(newest, Ordering::Relaxed);
        let begins = self.unread.borrow().is_none();
        self.set_unread(unread);
        if begins {
            self.notified(&Noticed::Begins(newest));
        }
    }

    /// The newest notification that was heard of; `None` before the broker has said for the first time what there is.
    pub(crate) fn newest(&self) -> Option<u64> {
        let known = self.unread.borrow().is_some();
        known.then(|| self.newest.load(Ordering::Relaxed))
    }

    pub(crate) fn set_unread(&self, unread: u32) {
        self.unread.send_if_modified(|known| {
            let changed = *known != Some(unread);
            *known = Some(unread);
            changed
        });
    }

    pub(crate) fn unread(&self) -> watch::Receiver<Option<u32>> {
        self.unread.subscribe()
    }

    pub(crate) fn finish(&self) {
        self.directs.finish();
        self.notices.finish();
    }
}

/// Everything to everyone who listens: as many as the application holds.
#[derive(Debug)]
struct Fan<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    queues: Vec<Arc<Queue<T>>>,
    finished: bool,
}

impl<T> Default for Fan<T> {
    fn default() -> Self {
        Self(Mutex::new(State {
            queues: Vec::new(),
            finished: false,
        }))
    }
}

impl<T: Item + Clone> Fan<T> {
    fn change<R>(&self, change: impl FnOnce(&mut State<T>) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, queue: &Arc<Queue<T>>) {
        self.change(|state| {
            if state.finished {
                queue.finish();
            } else {
                state.queues.push(Arc::clone(queue));
            }
        });
    }

    fn remove(&self, queue: &Arc<Queue<T>>) {
        self.change(|state| state.queues.retain(|other| !Arc::ptr_eq(other, queue)));
    }

    fn push(&self, item: &T) {
        self.change(|state| {
            for queue in &state.queues {
                queue.push(item.clone());
            }
        });
    }

    fn finish(&self) {
        self.change(|state| {
            state.finished = true;
            for queue in state.queues.drain(..) {
                queue.finish();
            }
        });
    }
}
