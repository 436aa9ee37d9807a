//! The loop on the store's thread: take what is due, write it, sweep out what is old, stop in good order.
//!
//! One batch is in hand at a time. An error of the database leaves it in hand, and it is tried again after a pause that
//! grows; what arrives meanwhile waits in [`Pending`], whose bounds count the batch in hand too.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::batch::Batch;
use super::config::{RETENTION_STEP_ROWS, RETRY_FIRST_MS, RETRY_LONGEST_MS, Retention, TRANSACTION_ROWS_MAX};
use super::counters::{Health, Trouble};
use super::handle::{Settled, Shared};
use super::sql::{self, Fault, Log, Written};

/// How long the writer goes on when the [`super::Store`] is dropped without a word, in milliseconds.
const GRACE_MS: u64 = 2_000;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What a shutdown could not bring into the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub rows: u64,
    pub bytes: u64,
    /// Whether the log has been moved into the database file. If not, the next start does that.
    pub checkpointed: bool,
}

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    boot: u64,
    in_hand: Option<Batch>,
    /// While the database is in trouble: when to try again, and the pause after that.
    retry: Option<Retry>,
    sweep: Sweep,
    /// From here on nothing is let in and only `in_hand` and what waits are written, until this moment (monotonic).
    stop_by_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    at_ms: u64,
    pause_ms: u64,
}

/// Goes through the logs, a step at a time, and then rests.
#[derive(Debug)]
struct Sweep {
    retention: Retention,
    next_ms: u64,
    /// Which of [`Sweep::LOGS`] is next.
    at: usize,
    /// A batch has been written since the last step, so it is the sweep's turn even if more rows wait.
    turn: bool,
}

impl Sweep {
    const LOGS: [Log; 4] = [Log::Readings, Log::Events, Log::Audit, Log::Notifications];

    fn days(&self) -> Option<u32> {
        match Self::LOGS[self.at] {
            Log::Audit => self.retention.audit_days,
            Log::Events => self.retention.events_days,
            // Each says for itself when it expires.
            Log::Notifications => Some(0),
            Log::Readings => self.retention.readings_days,
        }
    }

    fn advance(&mut self, now_ms: u64) {
        self.at += 1;
        if self.at == Self::LOGS.len() {
            self.rest(now_ms);
        }
    }

    fn rest(&mut self, now_ms: u64) {
        self.at = 0;
        self.next_ms = now_ms.saturating_add(self.retention.sweep_every_ms);
    }
}

/// What the loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Finish,
    Sweep,
    Take,
    /// Until something arrives, or at most until this moment.
    Wait {
        until_ms: Option<u64>,
    },
    Write,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, boot: u64, retention: Retention) -> Self {
        let next_ms = shared.clock.now().mono_ms;
        let sweep = Sweep {
            retention,
            next_ms,
            at: 0,
            turn: false,
        };
        Self {
            shared,
            boot,
            in_hand: None,
            retry: None,
            sweep,
            stop_by_ms: None,
        }
    }

    /// Until `stop` says how many milliseconds remain, or its sender is gone.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<u64>) -> Leftover {
        let shared = Arc::clone(&self.shared);
        loop {
            match self.next(shared.clock.now().mono_ms) {
                Next::Finish => return self.finish().await,
                Next::Sweep => self.sweep_step().await,
                Next::Take => {
                    let taken = shared.pending.lock().take();
                    self.in_hand = taken.map(Batch::from);
                    self.sweep.turn = true;
                }
                Next::Wait { until_ms } => {
                    let pause_ms =
                        until_ms.map(|until_ms| until_ms.saturating_sub(shared.clock.now().mono_ms));
                    tokio::select! {
                        () = shared.wake.notified() => {}
                        () = sleep(Duration::from_millis(pause_ms.unwrap_or(0))), if pause_ms.is_some() => {}
                        grace = &mut stop, if self.stop_by_ms.is_none() => self.stop(grace.unwrap_or(GRACE_MS)),
                    }
                }
                Next::Write => self.write().await,
            }
            // The loop may be busy for long without ever waiting.
            if self.stop_by_ms.is_none() {
                match stop.try_recv() {
                    Ok(grace_ms) => self.stop(grace_ms),
                    Err(oneshot::error::TryRecvError::Closed) => self.stop(GRACE_MS),
                    Err(oneshot::error::TryRecvError::Empty) => {}
                }
            }
        }
    }

    fn next(&self, now_ms: u64) -> Next {
        let late = self.stop_by_ms.is_some_and(|by_ms| now_ms >= by_ms);
        if late {
            return Next::Finish;
        }
        if self.in_hand.is_some() {
            return match self.retry {
                Some(retry) if now_ms < retry.at_ms => Next::Wait {
                    until_ms: Some(
                        self.stop_by_ms
                            .map_or(retry.at_ms, |by_ms| retry.at_ms.min(by_ms)),
                    ),
                },
                _ => Next::Write,
            };
        }
        let due_ms = self.shared.pending.lock().due_ms();
        let due = due_ms.is_some_and(|due_ms| due_ms <= now_ms);
        if self.stop_by_ms.is_some() {
            return if due { Next::Take } else { Next::Finish };
        }
        if now_ms >= self.sweep.next_ms && (!due || self.sweep.turn) {
            return Next::Sweep;
        }
        if due {
            return Next::Take;
        }
        let until_ms = due_ms.map_or(self.sweep.next_ms, |due_ms| due_ms.min(self.sweep.next_ms));
        Next::Wait {
            until_ms: Some(until_ms),
        }
    }

    fn stop(&mut self, grace_ms: u64) {
        self.stop_by_ms = Some(self.shared.clock.now().mono_ms.saturating_add(grace_ms));
        // Whatever the trouble was, try once more before giving up.
        self.retry = None;
        self.shared.close();
    }

    /// Writes the next piece of the batch in hand, in one transaction.
    async fn write(&mut self) {
        let Some(batch) = &mut self.in_hand else { return };
        let Some(piece) = batch.piece(TRANSACTION_ROWS_MAX) else {
            let last = batch.last();
            self.in_hand = None;
            self.shared.settled.send_modify(|settled| settled.last = last);
            return;
        };
        let load = piece.load();
        let mut lane = self.shared.lane.lock().await;
        let begun = Instant::now();
        let result = async {
            let mut transaction = lane.begin().await?;
            let written = sql::write_piece(&mut transaction, self.boot, piece).await?;
            transaction.commit().await?;
            Ok(written)
        }
        .await;
        match result {
            Ok(written) => {
                drop(lane);
                batch.advance(load.rows());
                self.shared.pending.lock().settled(load);
                self.count(written, begun.elapsed());
                self.recovered();
            }
            Err(error) => {
                lane.discard();
                drop(lane);
                self.failed(&error);
            }
        }
    }

    fn count(&self, written: Written, took: Duration) {
        let counters = &self.shared.counters;
        counters
            .device_states_written
            .fetch_add(written.states.written as u64, Relaxed);
        counters
            .readings_written
            .fetch_add(written.readings.written as u64, Relaxed);
        counters
            .events_written
            .fetch_add(written.events.written as u64, Relaxed);
        counters
            .audit_written
            .fetch_add(written.audits.written as u64, Relaxed);
        let given_up = written.states.given_up
            + written.readings.given_up
            + written.events.given_up
            + written.audits.given_up;
        counters.refused_by_database.fetch_add(given_up as u64, Relaxed);
        counters.flushed(took.as_millis() as u64);
    }

    fn recovered(&mut self) {
        if self.retry.take().is_some() {
            tracing::info!("the database takes rows again");
        }
        *self.shared.health.lock() = Health::Ready;
    }

    fn failed(&mut self, error: &sqlx::Error) {
        let counters = &self.shared.counters;
        counters.errors.fetch_add(1, Relaxed);
        counters.retries.fetch_add(1, Relaxed);
        let reason = match sql::fault(error) {
            Fault::Database(trouble) => trouble,
            // Rows at fault are dealt with where they are inserted; here it can only be something unforeseen.
            Fault::Row => Trouble::Other,
        };
        let now = self.shared.clock.now();
        let pause_ms = self
            .retry
            .map_or(RETRY_FIRST_MS, |r| (r.pause_ms * 2).min(RETRY_LONGEST_MS));
        self.retry = Some(Retry {
            at_ms: now.mono_ms + pause_ms,
            pause_ms,
        });
        let mut health = self.shared.health.lock();
        let since_unix_ms = match *health {
            Health::Degraded { since_unix_ms, .. } => since_unix_ms,
            Health::Closed | Health::Ready => {
                tracing::error!(code = reason.code(), %error, "{reason}");
                now.unix_ms
            }
        };
        *health = Health::Degraded {
            since_unix_ms,
            reason,
        };
    }

    async fn sweep_step(&mut self) {
        self.sweep.turn = false;
        let now = self.shared.clock.now();
        let Some(days) = self.sweep.days() else {
            return self.sweep.advance(now.mono_ms);
        };
        let before_ms = now.unix_ms.saturating_sub(u64::from(days) * DAY_MS);
        let log = Sweep::LOGS[self.sweep.at];
        let mut lane = self.shared.lane.lock().await;
        let result = async {
            let mut transaction = lane.begin().await?;
            let deleted = sql::delete_older(&mut transaction, log, before_ms, RETENTION_STEP_ROWS).await?;
            transaction.commit().await?;
            Ok(deleted)
        }
        .await;
        match result {
            Ok(deleted) => {
                self.shared.counters.retention_deleted.fetch_add(deleted, Relaxed);
                if deleted < u64::from(RETENTION_STEP_ROWS) {
                    self.sweep.advance(now.mono_ms);
                }
            }
            Err(error) => {
                let error: sqlx::Error = error;
                lane.discard();
                self.shared.counters.errors.fetch_add(1, Relaxed);
                tracing::warn!(%error, "old rows could not be deleted; the next sweep tries again");
                self.sweep.rest(now.mono_ms);
            }
        }
    }

    async fn finish(self) -> Leftover {
        // An admin operation that has begun is finished first: it holds the lane.
        let checkpointed = match self.shared.lane.lock().await.close().await {
            Ok(checkpointed) => checkpointed,
            Err(error) => {
                tracing::warn!(%error, "the log stays beside the database; the next start takes it up");
                false
            }
        };
        self.shared.readers.close().await;
        let load = self.shared.pending.lock().load();
        Leftover {
            rows: load.rows() as u64,
            bytes: load.bytes as u64,
            checkpointed,
        }
    }
}

/// Tells everyone that the writer is gone, also when it went by a panic: rows are refused from then on, nobody waits.
#[derive(Debug)]
pub(super) struct Gone(pub(super) Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.close();
        *self.0.health.lock() = Health::Closed;
        self.0
            .settled
            .send_modify(|settled: &mut Settled| settled.closed = true);
    }
}
