//! The loop on the store's thread: take what is due, write it, sweep out what is old, stop in good order.
//!
//! Messages that somebody waits for are committed at once; telemetry and retention have their turns between commits, in
//! small transactions. One batch of telemetry is in hand at a time. An error of the database leaves it in hand, and it is tried again after a pause that
//! grows; what arrives meanwhile waits in [`Pending`], whose bounds count the batch in hand too.

mod upkeep;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::sleep;

use self::upkeep::{Sweep, Trim};
use super::batch::Batch;
use super::commit::{self, Commits};
use super::config::{
    COMMITS_RECENT_MS, MessageLimits, RETRY_AWAITED_MS, RETRY_FIRST_MS, RETRY_LONGEST_MS, Retention,
    TRANSACTION_ROWS_BESIDE_COMMITS, TRANSACTION_ROWS_MAX, TRIM_PAUSE_MS,
};
use super::counters::{Health, Trouble};
use super::handle::{Settled, Shared};
use super::sql::{self, Fault, Written};

/// How long the writer goes on when the [`super::Store`] is dropped without a word, in milliseconds.
const GRACE_MS: u64 = 2_000;

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
    commits: Commits,
    /// When messages were committed last.
    commit_ms: Option<u64>,
    /// Messages have been committed since anything else had a turn.
    gives_way: bool,
    /// While the database is in trouble: when to try again, and the pause after that.
    retry: Option<Retry>,
    sweep: Sweep,
    trim: Trim,
    /// From here on nothing is let in and only `in_hand` and what waits are written, until this moment (monotonic).
    stop_by_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    at_ms: u64,
    pause_ms: u64,
}

/// What the loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Commit,
    Finish,
    Sweep,
    Take,
    Trim,
    /// Until something arrives, or at most until this moment.
    Wait {
        until_ms: Option<u64>,
    },
    Write,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, boot: u64, retention: Retention, messages: MessageLimits) -> Self {
        let next_ms = shared.clock.now().mono_ms;
        let sweep = Sweep {
            retention,
            next_ms,
            at: 0,
            turn: false,
        };
        let trim = Trim {
            every_ms: messages.trim_every_ms,
            next_ms,
            turn: false,
        };
        Self {
            shared,
            boot,
            in_hand: None,
            commits: Commits::default(),
            commit_ms: None,
            gives_way: false,
            retry: None,
            sweep,
            trim,
            stop_by_ms: None,
        }
    }

    /// Until `stop` says how many milliseconds remain, or its sender is gone.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<u64>) -> Leftover {
        let shared = Arc::clone(&self.shared);
        loop {
            match self.next(shared.clock.now().mono_ms) {
                Next::Commit => self.commit().await,
                Next::Finish => return self.finish().await,
                Next::Sweep => self.sweep_step().await,
                Next::Take => {
                    let taken = shared.pending.lock().take();
                    self.in_hand = taken.map(Batch::from);
                    self.sweep.turn = true;
                }
                Next::Trim => self.trim_step().await,
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
        if let Some(retry) = self.retry
            && now_ms < retry.at_ms
        {
            let at_ms = self
                .stop_by_ms
                .map_or(retry.at_ms, |by_ms| retry.at_ms.min(by_ms));
            return Next::Wait {
                until_ms: Some(at_ms),
            };
        }
        let due_ms = self.shared.pending.lock().due_ms();
        let commit_ms = self.shared.messages.lock().due_ms();
        let is_due = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        let telemetry = self.in_hand.is_some() || is_due(due_ms);
        let messages = self.commits.waits() || is_due(commit_ms);
        let stopping = self.stop_by_ms.is_some();
        let sweep = !stopping && now_ms >= self.sweep.next_ms;
        if !stopping && now_ms >= self.trim.next_ms && (self.trim.turn || !(telemetry || messages)) {
            return Next::Trim;
        }
        if messages && !(self.gives_way && (telemetry || sweep)) {
            return Next::Commit;
        }
        if self.in_hand.is_some() {
            return Next::Write;
        }
        if sweep && (!telemetry || self.sweep.turn) {
            return Next::Sweep;
        }
        if telemetry {
            return Next::Take;
        }
        if stopping {
            return Next::Finish;
        }
        let until_ms = [due_ms, commit_ms]
            .into_iter()
            .flatten()
            .fold(self.sweep.next_ms.min(self.trim.next_ms), u64::min);
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

    /// Commits the next messages of durable rooms.
    async fn commit(&mut self) {
        let result = self.commits.write(&self.shared).await;
        let now_ms = self.shared.clock.now().mono_ms;
        self.commit_ms = Some(now_ms);
        match result {
            Ok(done) => {
                self.gives_way = true;
                self.trim.turn = true;
                self.trim.next_ms = self.trim.next_ms.min(now_ms.saturating_add(TRIM_PAUSE_MS));
                // First, so that whoever is answered finds the store in health.
                self.recovered();
                if let Some(done) = done {
                    done.settle(&self.shared);
                }
            }
            Err(error) => self.failed(&error).await,
        }
    }

    /// Writes the next piece of the batch in hand, in one transaction.
    async fn write(&mut self) {
        self.gives_way = false;
        self.trim.turn = true;
        let now_ms = self.shared.clock.now().mono_ms;
        let beside_commits = self
            .commit_ms
            .is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < COMMITS_RECENT_MS);
        let rows_max = if beside_commits {
            TRANSACTION_ROWS_BESIDE_COMMITS
        } else {
            TRANSACTION_ROWS_MAX
        };
        let Some(batch) = &mut self.in_hand else { return };
        let Some(piece) = batch.piece(rows_max) else {
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
                self.failed(&error).await;
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
        counters
            .connection_logs_written
            .fetch_add(written.connections.written as u64, Relaxed);
        let given_up = written.states.given_up
            + written.readings.given_up
            + written.events.given_up
            + written.audits.given_up
            + written.connections.given_up;
        counters.refused_by_database.fetch_add(given_up as u64, Relaxed);
        counters.flushed(took);
    }

    fn recovered(&mut self) {
        if self.retry.take().is_some() {
            tracing::info!("the database takes rows again");
        }
        *self.shared.health.lock() = Health::Ready;
    }

    async fn failed(&mut self, error: &sqlx::Error) {
        let counters = &self.shared.counters;
        counters.errors.fetch_add(1, Relaxed);
        counters.retries.fetch_add(1, Relaxed);
        let reason = match sql::fault(error) {
            Fault::Database(trouble) => trouble,
            // Rows at fault are dealt with where they are inserted; here it can only be something unforeseen.
            Fault::Row => Trouble::Other,
        };
        let now = self.shared.clock.now();
        let longest_ms = if self.commits.waits() || self.shared.messages.lock().rows() > 0 {
            RETRY_AWAITED_MS
        } else {
            RETRY_LONGEST_MS
        };
        let pause_ms = self
            .retry
            .map_or(RETRY_FIRST_MS, |r| (r.pause_ms * 2).min(longest_ms));
        self.retry = Some(Retry {
            at_ms: now.mono_ms + pause_ms,
            pause_ms,
        });
        self.degraded(reason, now.unix_ms, error);
        if reason == Trouble::DiskFull && self.stop_by_ms.is_none() {
            // Deleting needs no place in the file, and makes some.
            self.trim_step().await;
        }
    }

    fn degraded(&self, reason: Trouble, unix_ms: u64, error: &sqlx::Error) {
        let mut health = self.shared.health.lock();
        let since_unix_ms = match *health {
            Health::Degraded { since_unix_ms, .. } => since_unix_ms,
            Health::Closed | Health::Ready => {
                tracing::error!(code = reason.code(), %error, "{reason}");
                unix_ms
            }
        };
        *health = Health::Degraded {
            since_unix_ms,
            reason,
        };
    }

    async fn finish(self) -> Leftover {
        // An admin operation that has begun is finished first: it holds the lane.
        let mut lane = self.shared.lane.lock().await;
        let left = commit::end(&self.shared);
        if left.clean {
            // Without the mark the next start skips the numbers of the leases, which is always right.
            let marked: Result<(), sqlx::Error> = async {
                let mut transaction = lane.begin().await?;
                sql::mark_clean(&mut transaction).await?;
                transaction.commit().await
            }
            .await;
            if let Err(error) = marked {
                lane.discard();
                tracing::warn!(%error, "the stop could not be marked as clean; the next start skips some numbers");
            }
        }
        let checkpointed = match lane.close().await {
            Ok(checkpointed) => checkpointed,
            Err(error) => {
                tracing::warn!(%error, "the log stays beside the database; the next start takes it up");
                false
            }
        };
        self.shared.readers.close().await;
        let load = self.shared.pending.lock().load();
        Leftover {
            rows: load.rows() as u64 + left.rows,
            bytes: load.bytes as u64 + left.bytes,
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
        commit::end(&self.0);
        *self.0.health.lock() = Health::Closed;
        self.0
            .settled
            .send_modify(|settled: &mut Settled| settled.closed = true);
    }
}
