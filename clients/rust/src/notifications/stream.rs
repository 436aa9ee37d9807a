//! Notifications as they come, also those that came while there was no connection. Progress lies in the fields, so that
//! reading can be given up and taken up at any time.
//!
//! What must stay true: each notification is told once; what was missed in the order of ids, what comes as it comes.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::time::Sleep;

use super::{Noticed, Notification, NotificationInbox, NotificationPage};
use crate::client::Handle;
use crate::error::Error;
use crate::queue::Queue;

/// Missed notifications that are fetched after a lost connection at most; the rest is told as [`NotificationEvent::Missed`].
const MISSED_MAX: usize = 1000;

/// Ids of told ones that are remembered, so that what overtook is not mistaken for what came before.
const TOLD_IDS_MAX: usize = 1024;

/// Before a page that was refused for now is asked for again, where the broker names no time.
const AGAIN: Duration = Duration::from_secs(1);

/// What happens to the user's notifications.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NotificationEvent {
    New(Notification),
    /// These, and all up to and including `up_to`, were read: here, in another tab, or on another device.
    Read {
        ids: Vec<u64>,
        up_to: u64,
    },
    /// More came than could be told: look at the list.
    Missed,
}

/// From [`crate::Client::notifications`]: a stream of [`NotificationEvent`]s from now on, through lost connections. It keeps
/// the client connected as long as it lives.
pub struct Notifications {
    queue: Arc<Queue<Noticed>>,
    handle: Arc<Handle>,
    inbox: NotificationInbox,
    /// What is missed lies behind this one; `None` until the broker has said for the first time what there is.
    floor: Option<u64>,
    /// Those behind it that were told. Not always in the order of ids: urgent ones overtake.
    told_ids: BTreeSet<u64>,
    step: Step,
    /// Missed ones as pages bring them, newest first.
    missed: Vec<Notification>,
    told: VecDeque<NotificationEvent>,
}

enum Step {
    Idle,
    Load { before: u64 },
    Page(PageFuture),
    Pause(Pin<Box<Sleep>>, u64),
    Ended,
}

type PageFuture = Pin<Box<dyn Future<Output = (u64, Result<NotificationPage, Error>)> + Send>>;

impl Notifications {
    pub(crate) fn new(handle: &Arc<Handle>) -> Self {
        let queue = Arc::new(Queue::new(handle.buffer_events, handle.buffer_bytes));
        // First the ear, then the question: what comes between the two is told.
        handle.inboxes().listen(&queue);
        let floor = handle.inboxes().newest();
        Self {
            queue,
            handle: Arc::clone(handle),
            inbox: NotificationInbox::new(handle),
            floor,
            told_ids: BTreeSet::new(),
            step: Step::Idle,
            missed: Vec::new(),
            told: VecDeque::new(),
        }
    }

    /// The next event; `None` after the client has closed. Cancel-safe: an event is taken only when it is returned.
    pub async fn next(&mut self) -> Option<NotificationEvent> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<NotificationEvent>> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Poll::Ready(Some(event));
            }
            match &mut self.step {
                Step::Ended => return Poll::Ready(None),
                Step::Load { before } => {
                    let (inbox, before) = (self.inbox.clone(), *before);
                    self.step = Step::Page(Box::pin(async move { (before, inbox.page(before, 0).await) }));
                }
                Step::Page(page) => {
                    let Poll::Ready((before, answer)) = page.as_mut().poll(cx) else {
                        return Poll::Pending;
                    };
                    self.load(before, answer);
                }
                Step::Pause(pause, before) => {
                    if pause.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.step = Step::Load { before: *before };
                }
                // What comes waits in the queue while pages are loaded, so that it is told after them.
                Step::Idle => match self.queue.poll_pop(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => self.step = Step::Ended,
                    Poll::Ready(Some(noticed)) => self.hear(noticed),
                },
            }
        }
    }

    fn hear(&mut self, noticed: Noticed) {
        match noticed {
            Noticed::Notification(notification) => {
                // What a page has brought already is not told again.
                if !self.told_ids.contains(&notification.id) {
                    self.tell(notification);
                }
            }
            Noticed::Read { ids, up_to } => self.told.push_back(NotificationEvent::Read { ids, up_to }),
            Noticed::Begins(newest) => self.floor = self.floor.or(Some(newest)),
            Noticed::Online | Noticed::Lagged(_) if self.floor.is_none() => {}
            Noticed::Online | Noticed::Lagged(_) => self.step = Step::Load { before: 0 },
        }
    }

    fn tell(&mut self, notification: Notification) {
        self.told_ids.insert(notification.id);
        if self.told_ids.len() > TOLD_IDS_MAX {
            self.floor = self
                .floor
                .map(|floor| self.told_ids.pop_first().unwrap_or(floor).max(floor));
        }
        self.told.push_back(NotificationEvent::New(notification));
    }

    fn load(&mut self, before: u64, answer: Result<NotificationPage, Error>) {
        let page = match answer {
            Ok(page) => page,
            Err(error) if error.is_retryable() => {
                let pause = error.retry_after().unwrap_or(AGAIN);
                self.step = Step::Pause(Box::pin(tokio::time::sleep(pause)), before);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "notifications that came meanwhile cannot be asked for");
                self.missed.clear();
                self.told.push_back(NotificationEvent::Missed);
                self.step = Step::Idle;
                return;
            }
        };
        let floor = self.floor.unwrap_or(0);
        let last = page.notifications.last().map(|last| last.id);
        let reached = !page.more || last.is_none_or(|last| last <= floor);
        let told_ids = &self.told_ids;
        let missed = page.notifications.into_iter();
        self.missed
            .extend(missed.filter(|n| n.id > floor && !told_ids.contains(&n.id)));
        match last {
            Some(last) if !reached && self.missed.len() < MISSED_MAX => {
                self.step = Step::Load { before: last };
            }
            _ => {
                if !reached {
                    self.told.push_back(NotificationEvent::Missed);
                }
                for notification in std::mem::take(&mut self.missed).into_iter().rev() {
                    self.tell(notification);
                }
                self.step = Step::Idle;
            }
        }
    }
}

impl Stream for Notifications {
    type Item = NotificationEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<NotificationEvent>> {
        self.get_mut().poll(cx)
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        self.handle.inboxes().unlisten(&self.queue);
    }
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications")
            .field("floor", &self.floor)
            .finish_non_exhaustive()
    }
}
