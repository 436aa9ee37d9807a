//! A view of who is in a room, kept up to date by whoever reads its events. Its progress lies in its fields, so that reading
//! can be given up and taken up at any time.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::time::Sleep;

use super::roster::{Difference, Roster};
use super::{PresenceCounts, PresencePage, PresentUser, RoomPresence};
use crate::error::Error;
use crate::event::Event;
use crate::room::Subscription;

/// Before a page that was refused for now is asked for again, where the broker names no time.
const AGAIN: Duration = Duration::from_secs(1);

/// What happens in a [`PresenceView`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PresenceEvent {
    /// In whichever order; the first time everyone who is there.
    Joined(PresentUser),
    Left(String),
    /// One who was there has other connections, or is described in another way.
    Changed(PresentUser),
    /// Other numbers; also those of rooms so busy that names come later.
    Counts(PresenceCounts),
    /// Everyone was told: the view is whole.
    Loaded,
    /// The broker ended it, or refused to say who is there. Nothing comes after this.
    Ended {
        reason: Error,
    },
}

/// From [`RoomPresence::watch`]. A stream of [`PresenceEvent`]s that also holds the sum of them. It goes on by being read:
/// between two readings it stands still. It lives through lost connections.
pub struct PresenceView {
    room: RoomPresence,
    subscription: Subscription,
    roster: Roster,
    step: Step,
    told: VecDeque<PresenceEvent>,
    counts: PresenceCounts,
}

enum Step {
    /// No page is wanted, or none is asked for yet.
    Idle,
    /// A page under way, and of which loading it is.
    Page(PageFuture, u64),
    Pause(Pin<Box<Sleep>>),
    Ended,
}

type PageFuture = Pin<Box<dyn Future<Output = Result<PresencePage, Error>> + Send>>;

impl PresenceView {
    pub(super) fn new(room: RoomPresence, subscription: Subscription) -> Self {
        let mut roster = Roster::default();
        roster.begin();
        Self {
            room,
            subscription,
            roster,
            step: Step::Idle,
            told: VecDeque::new(),
            counts: PresenceCounts::default(),
        }
    }

    /// Who is there, as far as events were read, by name.
    pub fn users(&self) -> impl Iterator<Item = &PresentUser> {
        self.roster.users().values()
    }

    pub fn is_present(&self, user: &str) -> bool {
        self.roster.users().contains_key(user)
    }

    pub fn counts(&self) -> PresenceCounts {
        self.counts
    }

    /// Whether everyone is in it; not at the beginning and after a lost connection.
    pub fn is_loaded(&self) -> bool {
        self.roster.is_loaded()
    }

    /// The next event; `None` after the end. Cancel-safe: an event is taken only when it is returned.
    pub async fn next(&mut self) -> Option<PresenceEvent> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<PresenceEvent>> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Poll::Ready(Some(event));
            }
            if matches!(self.step, Step::Ended) {
                return Poll::Ready(None);
            }
            if let Poll::Ready(event) = self.subscription.poll_event(cx) {
                self.hear(event);
                continue;
            }
            match &mut self.step {
                Step::Idle => match self.roster.wants_after() {
                    None => return Poll::Pending,
                    Some(after) => {
                        let (room, after) = (self.room.clone(), after.to_owned());
                        let page = Box::pin(async move { room.page(&after, 0).await });
                        self.step = Step::Page(page, self.roster.generation());
                    }
                },
                Step::Page(page, generation) => {
                    let Poll::Ready(answer) = page.as_mut().poll(cx) else {
                        return Poll::Pending;
                    };
                    let generation = *generation;
                    self.step = Step::Idle;
                    self.load(answer, generation);
                }
                Step::Pause(pause) => {
                    if pause.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.step = Step::Idle;
                }
                Step::Ended => return Poll::Ready(None),
            }
        }
    }

    fn hear(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Presence(change)) => {
                let told = self.roster.change(change);
                self.tell(told);
            }
            // The broker has forgotten what we were told, or we were not told all of it.
            Some(Event::Resubscribed { .. } | Event::Lagged { .. }) => self.roster.begin(),
            Some(Event::Ended { reason }) => {
                self.told.push_back(PresenceEvent::Ended { reason });
                self.step = Step::Ended;
            }
            None => self.step = Step::Ended,
            Some(_) => {}
        }
    }

    fn load(&mut self, answer: Result<PresencePage, Error>, generation: u64) {
        match answer {
            Ok(_) if generation != self.roster.generation() => {}
            Ok(page) => {
                let told = self.roster.page(page);
                self.tell(told);
                if self.roster.is_loaded() {
                    self.told.push_back(PresenceEvent::Loaded);
                }
            }
            Err(reason) if reason.is_retryable() => {
                let pause = reason.retry_after().unwrap_or(AGAIN);
                self.step = Step::Pause(Box::pin(tokio::time::sleep(pause)));
            }
            Err(reason) => {
                self.told.push_back(PresenceEvent::Ended { reason });
                self.step = Step::Ended;
            }
        }
    }

    fn tell(&mut self, differences: Vec<Difference>) {
        self.told
            .extend(differences.into_iter().map(|difference| match difference {
                Difference::Joined(user) => PresenceEvent::Joined(user),
                Difference::Left(user) => PresenceEvent::Left(user),
                Difference::Changed(user) => PresenceEvent::Changed(user),
            }));
        let counts = self.roster.counts();
        if counts != self.counts {
            self.counts = counts;
            self.told.push_back(PresenceEvent::Counts(counts));
        }
    }
}

impl Stream for PresenceView {
    type Item = PresenceEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PresenceEvent>> {
        self.get_mut().poll(cx)
    }
}

impl fmt::Debug for PresenceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceView")
            .field("room", &self.room)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
