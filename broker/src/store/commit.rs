//! Messages of durable rooms: taken in, committed in groups, answered.
//!
//! A message that finds nobody writing is written at once; what arrives during a commit is committed together after it.
//! The group grows with the load by itself, and nobody waits for a timer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use cauce_protocol::{Code, Refusal, TenantId};
use tokio::time::sleep;

use super::config::RETRY_LONGEST_MS;
use super::counters::Health;
use super::error::StoreError;
use super::handle::{Queued, Shared, StoreHandle};
use super::messages::{MessagePage, MessageQuery, MessageRow};
use super::queue::{NotReserved, Piece, Waiting};
use super::sql;

/// What a publisher should wait when a queue is merely full, in milliseconds. A full queue drains in about a second.
const FULL_RETRY_MS: u32 = 500;

/// What a publisher should wait when the database is in trouble, in milliseconds.
const TROUBLE_RETRY_MS: u32 = RETRY_LONGEST_MS as u32;
const _: () = assert!(TROUBLE_RETRY_MS as u64 == RETRY_LONGEST_MS);

/// Durable rooms.
impl StoreHandle {
    /// Room for one message of `bytes`. Never blocks. Use it by [`StoreHandle::message`] or give it back by
    /// [`StoreHandle::release_message`].
    ///
    /// # Errors
    /// `unavailable` if the store is shut down, or full because of a trouble of the database; `overloaded` if the queue or
    /// the tenant's share of it is full; `too_large` if this could never be taken. Nothing is reserved then.
    pub fn reserve_message(&self, tenant: &TenantId, bytes: usize) -> Result<(), Refusal> {
        let reserved = self.shared.messages.lock().reserve(tenant, bytes);
        reserved.map_err(|why| {
            self.shared.counters.not_reserved(why);
            self.not_reserved(why)
        })
    }

    /// Gives back what was reserved for a message that does not come after all. Never blocks.
    pub fn release_message(&self, tenant: &TenantId, bytes: usize) {
        self.shared.messages.lock().release(tenant, bytes);
    }

    /// Takes the message for which `bytes` were reserved. Never blocks: a lock held for one push, and a wake-up. The order
    /// of the calls is the order of the commits. `committed` runs exactly once and never within this call: after the commit,
    /// or at the end of the store. `late` runs before it if there is no commit for [`super::MessageLimits::answer_ms`].
    pub fn message(&self, row: MessageRow, bytes: usize) {
        let (row, mono_ms) = (Box::new(row), self.shared.clock.now().mono_ms);
        let pushed = self
            .shared
            .messages
            .lock()
            .push(row, bytes, mono_ms, Instant::now());
        match pushed {
            Ok(wakes) => {
                if wakes.writer {
                    self.shared.wake.notify_one();
                }
                if wakes.watch {
                    self.shared.watch.notify_one();
                }
            }
            Err(None) => {}
            Err(Some(callback)) => {
                // The store's thread is gone, and the caller holds the room's lock, which the callback may want. Without a
                // thread the process is beyond answering anybody.
                let _ = std::thread::Builder::new()
                    .name("cauce-store-late".to_owned())
                    .spawn(move || callback(Err(stopped())));
            }
        }
    }

    /// A page of a durable room: what is on the disk. Messages that its class does not keep any more are not shown, also
    /// while they wait for being deleted.
    ///
    /// Safe to cancel.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if too many look things up at the moment, the store is shut down, or the database
    /// cannot be read.
    pub async fn messages(&self, query: MessageQuery) -> Result<MessagePage, StoreError> {
        let (clock, tenant) = (self.shared.clock, query.tenant.clone());
        let place = self
            .shared
            .page_turns
            .enter(&tenant)
            .ok_or_else(StoreError::busy)?;
        let _turn = place.turn().await.map_err(|_| StoreError::closed())?;
        self.look_up(&self.shared.page_slots, move |c| {
            Box::pin(async move { sql::message_page(c, &query, clock.now().unix_ms).await })
        })
        .await
    }

    /// Messages of durable rooms that are not on the disk yet; the bytes include what is reserved.
    pub fn messages_queued(&self) -> Queued {
        let messages = self.shared.messages.lock();
        Queued {
            rows: messages.rows(),
            bytes: messages.bytes() as u64,
        }
    }

    fn not_reserved(&self, why: NotReserved) -> Refusal {
        let trouble = match *self.shared.health.lock() {
            Health::Degraded { reason, .. } => Some(reason),
            Health::Closed | Health::Ready => None,
        };
        match (why, trouble) {
            (NotReserved::Closed, _) => StoreError::closed().into(),
            (NotReserved::TooLarge, _) => Refusal::new(
                Code::TooLarge,
                "the message is larger than the queue of durable messages; make it smaller or raise store.messages_bytes",
            ),
            (NotReserved::Full | NotReserved::TenantFull, Some(trouble)) => Refusal::new(
                Code::Unavailable,
                format!("the message was not taken, for as many wait as may: {trouble}"),
            )
            .retry_after(TROUBLE_RETRY_MS),
            (NotReserved::Full, None) => Refusal::new(
                Code::Overloaded,
                "too many durable messages wait for the disk; the message was not taken, repeat it later",
            )
            .retry_after(FULL_RETRY_MS),
            (NotReserved::TenantFull, None) => Refusal::new(
                Code::Overloaded,
                "too many durable messages of this tenant wait for the disk; the message was not taken, repeat it later",
            )
            .retry_after(FULL_RETRY_MS),
        }
    }
}

/// The answer when a message may or may not be committed in the end.
fn unknown() -> Refusal {
    Refusal::new(
        Code::Unavailable,
        "the message is not on the disk yet; it may still be committed: repeat it with the same idempotency key",
    )
    .retry_after(TROUBLE_RETRY_MS)
}

fn stopped() -> Refusal {
    Refusal::new(
        Code::Unavailable,
        "the broker stopped before the message was on the disk; it may still be there: repeat it with the same \
         idempotency key",
    )
    .retry_after(FULL_RETRY_MS)
}

fn never() -> Refusal {
    Refusal::new(
        Code::Invalid,
        "the database does not take this message; it is not kept and its number stays empty; do not repeat it",
    )
}

/// The writer's side: what it has taken and not settled.
#[derive(Debug, Default)]
pub(super) struct Commits {
    backlog: VecDeque<Waiting>,
    /// In hand; after trouble written again as it is.
    piece: Option<Piece>,
    /// The piece in hand may have been committed.
    doubtful: bool,
}

impl Commits {
    /// Something has been taken that is not written.
    pub(super) fn waits(&self) -> bool {
        self.piece.is_some() || !self.backlog.is_empty()
    }

    /// Writes the next piece in one transaction. Those who wait for it are not answered yet: that is [`Done::settle`].
    ///
    /// # Errors
    /// The database's trouble; the piece stays in hand.
    pub(super) async fn write(&mut self, shared: &Shared) -> Result<Option<Done>, sqlx::Error> {
        if self.piece.is_none() {
            if self.backlog.is_empty() {
                self.backlog = shared.messages.lock().take();
            }
            self.piece = Piece::cut(&mut self.backlog);
            self.doubtful = false;
        }
        let Some(piece) = &self.piece else {
            return Ok(None);
        };
        let mut lane = shared.lane.lock().await;
        let begun = Instant::now();
        let result = async {
            let mut transaction = lane.begin().await?;
            let given_up = sql::write_messages(&mut transaction, piece, self.doubtful).await?;
            transaction.commit().await?;
            Ok(given_up)
        }
        .await;
        match result {
            Ok(given_up) => {
                let took = begun.elapsed();
                Ok(self.piece.take().map(|piece| Done {
                    piece,
                    given_up,
                    took,
                }))
            }
            Err(error) => {
                lane.discard();
                self.doubtful = true;
                Err(error)
            }
        }
    }
}

/// Messages that are on the disk, but for those that were given up.
#[derive(Debug)]
#[must_use]
pub(super) struct Done {
    piece: Piece,
    /// Places of rows in the piece, in ascending order.
    given_up: Vec<usize>,
    /// By the transaction, without the wait for the connection.
    took: Duration,
}

impl Done {
    /// Gives back what the messages held, and answers those who wait for them.
    pub(super) fn settle(self, shared: &Shared) {
        let Self {
            piece,
            given_up,
            took,
        } = self;
        let ticket = piece.last_ticket();
        let held = piece.held();
        let answers = shared
            .messages
            .lock()
            .settled(ticket, piece.rows.len() as u64, held.into_iter());
        let counters = &shared.counters;
        counters.commit.record(took);
        let (now, mut durable) = (Instant::now(), counters.durable.batch());
        for waiting in &piece.rows {
            durable.record(now.saturating_duration_since(waiting.since), 1);
        }
        drop(durable);
        let written = piece.rows.len() - given_up.len();
        counters.messages_written.fetch_add(written as u64, Relaxed);
        counters
            .messages_given_up
            .fetch_add(given_up.len() as u64, Relaxed);
        counters.commits.fetch_add(1, Relaxed);
        for (ticket, callback) in answers {
            let refused = given_up.iter().any(|&at| piece.rows[at].ticket == ticket);
            callback(if refused { Err(never()) } else { Ok(()) });
        }
        shared
            .settled
            .send_modify(|settled| settled.messages = settled.messages.max(ticket));
    }
}

/// Tells those who are late that it is not known what will become of their message. Lives as long as the executor.
pub(super) async fn watch(shared: Arc<Shared>) {
    loop {
        let now_ms = shared.clock.now().mono_ms;
        let (late, next_ms) = shared.messages.lock().late(now_ms);
        for tell in late.into_iter().filter_map(|late| late.0) {
            shared.counters.messages_late.fetch_add(1, Relaxed);
            tell(unknown());
        }
        match next_ms {
            Some(next_ms) => sleep(Duration::from_millis(next_ms.saturating_sub(now_ms).max(1))).await,
            None => shared.watch.notified().await,
        }
    }
}

/// What is not on the disk at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Every number that was given is accounted for.
    pub(super) clean: bool,
}

/// Nothing is taken or committed any more: whoever waits is told so.
pub(super) fn end(shared: &Shared) -> Left {
    let (left, callbacks) = {
        let mut messages = shared.messages.lock();
        let left = Left {
            rows: messages.rows(),
            bytes: messages.bytes() as u64,
            clean: messages.is_clean(),
        };
        (left, messages.end())
    };
    for callback in callbacks {
        callback(Err(stopped()));
    }
    left
}
