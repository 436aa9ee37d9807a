//! What grows old: logs are swept and durable rooms trimmed, a small transaction at a time, between everything else.

use std::sync::atomic::Ordering::Relaxed;

use super::Writer;
use crate::store::config::{RETENTION_STEP_ROWS, Retention};
use crate::store::sql::{self, Log, Trimmed};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Goes through the logs, a step at a time, and then rests.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) retention: Retention,
    pub(super) next_ms: u64,
    /// Which of [`Sweep::LOGS`] is next.
    pub(super) at: usize,
    /// A batch has been written since the last step, so it is the sweep's turn even if more rows wait.
    pub(super) turn: bool,
}

impl Sweep {
    const LOGS: [Log; 5] = [
        Log::Readings,
        Log::Events,
        Log::Audit,
        Log::Connections,
        Log::Notifications,
    ];

    fn days(&self) -> Option<u32> {
        match Self::LOGS[self.at] {
            Log::Audit => self.retention.audit_days,
            Log::Connections => self.retention.connections_days,
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

/// When durable rooms are trimmed: a step at a time while there is something to do, then a rest.
#[derive(Debug)]
pub(super) struct Trim {
    pub(super) every_ms: u64,
    pub(super) next_ms: u64,
    /// Something else has been written since the last step, so it is the turn of this even if more waits.
    pub(super) turn: bool,
}

impl Writer {
    pub(super) async fn sweep_step(&mut self) {
        self.sweep.turn = false;
        self.gives_way = false;
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

    pub(super) async fn trim_step(&mut self) {
        self.trim.turn = false;
        let now = self.shared.clock.now();
        let mut lane = self.shared.lane.lock().await;
        let result: Result<Trimmed, sqlx::Error> = async {
            let mut transaction = lane.begin().await?;
            let trimmed = sql::trim(&mut transaction, now.unix_ms).await?;
            transaction.commit().await?;
            Ok(trimmed)
        }
        .await;
        let counters = &self.shared.counters;
        match result {
            Ok(trimmed) => {
                counters.messages_trimmed.fetch_add(trimmed.messages, Relaxed);
                counters.rooms_forgotten.fetch_add(trimmed.heads, Relaxed);
                let pause_ms = if trimmed.busy { 0 } else { self.trim.every_ms };
                self.trim.next_ms = now.mono_ms.saturating_add(pause_ms);
            }
            Err(error) => {
                lane.discard();
                counters.errors.fetch_add(1, Relaxed);
                if self.retry.is_none() {
                    tracing::warn!(%error, "old messages could not be deleted; the next sweep tries again");
                }
                self.trim.next_ms = now.mono_ms.saturating_add(self.trim.every_ms);
            }
        }
    }
}
