//! Stopping in the order that loses nothing.
//!
//! 1. Whoever comes is told to come again: handshakes and API requests with 503 and a time, `/health/ready` with 503. The port
//!    stays open meanwhile, because a load balancer that is refused a connection learns less than one that is answered, and
//!    because no successor can begin before this process has let go of the data directory.
//! 2. Clients are sent away, each at a moment of its own, with all that was queued for it and the answers that it waits for.
//!    The store and the ingest shards still work: those answers may come from them. Calls of methods that nobody answers are
//!    answered with the refusal before the time for answers is over.
//! 3. API requests that were begun are answered.
//! 4. Devices are sent away. They go last, so that nobody is left who could see them offline.
//! 5. The port is closed, threads end, and the store writes what waits.
//!
//! Each step has an end by the deadline, and the steps before the store leave it a sixth of the whole time at least.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cauce_protocol::Refusal;

use super::Server;
use crate::hub::{Drain, DrainSettings, Drained, ShardMessage};
use crate::store::Store;

/// How long a closing peer may take nothing, in milliseconds, if the deadline is not near.
const PATIENCE_MS: u64 = 2_000;

/// Between two clients that one node sends away at most, in milliseconds: 200 a second are no herd.
const INTERVAL_MAX_MS: u64 = 5;

/// Between two looks at whether a shard that owes its word is still alive.
const LOOK: Duration = Duration::from_millis(100);

/// What a stop left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// Rows that the database did not take in time.
    pub unwritten_rows: u64,
    /// Peers that were cut off before they had taken all that was meant for them.
    pub cut_peers: u64,
}

/// When each step ends, in milliseconds from the beginning. Sixths of the deadline, so that a short one shortens everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    spread_ms: u64,
    patience_ms: u64,
    answers_ms: u64,
    clients_gone_ms: u64,
    devices_gone_ms: u64,
}

impl Plan {
    fn new(deadline_ms: u64, settings: DrainSettings) -> Self {
        let sixth = deadline_ms / 6;
        Self {
            spread_ms: settings.spread_ms.min(sixth),
            patience_ms: PATIENCE_MS.min(sixth),
            answers_ms: sixth * 3,
            clients_gone_ms: sixth * 4,
            devices_gone_ms: sixth * 5,
        }
    }
}

impl Server {
    /// Stops within about `deadline`: newcomers are refused, clients are told to come again one after another and get all that
    /// was queued for them, API requests are answered, and what is queued for the store is written. Few peers who take their
    /// leave at once make it short. Blocks; from async code, call it on a blocking thread.
    ///
    /// How long the farewells are spread and when clients come again is in the configuration's section `drain`.
    pub fn stop(mut self, deadline: Duration) -> Stopped {
        let begun = Instant::now();
        let plan = Plan::new(super::ms(deadline), self.hub.tunables().drain);
        let cut_peers = self.drain(begun, plan);
        self.closing.cancel();
        let refusal = self.hub.leaving.refusal();
        for mailbox in &self.hub.shards {
            mailbox.send(ShardMessage::Stop(refusal.clone()));
        }
        for shard in self.shards.drain(..) {
            // A panic in a shard has been reported by then; the others are still stopped in order.
            let _ = shard.join();
        }
        self.ending.cancel();
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
        let left = deadline.saturating_sub(begun.elapsed()).max(deadline / 6);
        let unwritten = self.store.take().map(|store| stop_store(store, left));
        Stopped {
            unwritten_rows: unwritten.unwrap_or(0),
            cut_peers,
        }
    }

    /// Sends everybody away. Answers how many peers were cut off.
    fn drain(&self, begun: Instant, plan: Plan) -> u64 {
        let (hub, now_ms) = (&self.hub, self.hub.clock.now().mono_ms);
        hub.leaving.begin(hub.tunables().drain.retry_after_ms);
        let refusal = hub.leaving.refusal();
        let ask = |shards: std::ops::Range<usize>, gone_ms: u64| {
            let (done, answers) = mpsc::channel();
            let drain = Arc::new(Drain {
                refusal: refusal.clone(),
                spread_ms: plan.spread_ms,
                interval_max_ms: INTERVAL_MAX_MS * shards.len() as u64,
                answers_until_ms: now_ms + plan.answers_ms,
                patience_ms: plan.patience_ms,
                gone_by_ms: now_ms + gone_ms,
                done,
            });
            for shard in shards.clone() {
                hub.shards[shard].send(ShardMessage::Drain(drain.clone()));
            }
            let calls_end = begun + Duration::from_millis(plan.answers_ms).saturating_sub(2 * LOOK);
            self.gone(
                shards,
                &answers,
                begun + Duration::from_millis(gone_ms) + LOOK,
                || {
                    if Instant::now() >= calls_end {
                        hub.stop_calls(&refusal);
                    }
                },
            )
        };
        let clients = ask(0..hub.plan.clients, plan.clients_gone_ms);
        // Whoever still waits for an answer in this process is told that none comes.
        hub.stop_calls(&refusal);
        let unanswered = hub
            .leaving
            .wait_idle(begun + Duration::from_millis(plan.clients_gone_ms));
        if unanswered > 0 {
            tracing::warn!(unanswered, "requests of the API were not answered in time");
        }
        let devices = ask(hub.plan.clients..hub.plan.total(), plan.devices_gone_ms);
        let cut = clients + devices;
        if cut > 0 {
            tracing::warn!(cut, "peers were cut off before they had taken everything");
        }
        cut
    }

    /// Waits until these shards have sent everybody away or ended, or the time is over; `meanwhile` is called at each look.
    /// Answers how many peers they cut off.
    fn gone(
        &self,
        shards: std::ops::Range<usize>,
        answers: &mpsc::Receiver<Drained>,
        until: Instant,
        meanwhile: impl Fn(),
    ) -> u64 {
        let mut drained = Vec::with_capacity(shards.len());
        loop {
            if shards
                .clone()
                .all(|shard| !self.hub.is_alive(shard) || drained.iter().any(|d: &Drained| d.shard == shard))
            {
                break;
            }
            meanwhile();
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                tracing::warn!("a shard does not end its work in time");
                break;
            }
            drained.extend(answers.recv_timeout(left.min(LOOK)).ok());
        }
        drained.iter().map(|drained| drained.cut).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.cancel();
        self.ending.cancel();
        let refusal = Refusal::new(cauce_protocol::Code::GoingAway, "the broker is stopping");
        self.hub.stop_calls(&refusal);
        for mailbox in &self.hub.shards {
            mailbox.send(ShardMessage::Stop(refusal.clone()));
        }
    }
}

/// Runs the store's farewell on a runtime of its own: whoever stops the broker has none.
fn stop_store(store: Store, grace: Duration) -> u64 {
    match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime.block_on(store.shutdown(grace)).rows,
        // Dropping the store stops it unobserved.
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: DrainSettings = DrainSettings {
        spread_ms: 5_000,
        retry_after_ms: 1_000,
    };

    #[test]
    fn the_default_deadline_gives_the_default_spread_and_a_short_one_shrinks_everything() {
        let plan = Plan::new(30_000, SETTINGS);
        assert_eq!((plan.spread_ms, plan.patience_ms), (5_000, 2_000));
        let plan = Plan::new(600, SETTINGS);
        assert_eq!(
            (plan.spread_ms, plan.patience_ms, plan.answers_ms),
            (100, 100, 300)
        );
    }

    #[test]
    fn the_steps_follow_each_other_and_leave_the_store_its_time() {
        for deadline_ms in [0, 1, 5, 6, 100, 1_000, 30_000, 3_600_000] {
            let plan = Plan::new(deadline_ms, SETTINGS);
            let steps = [
                plan.spread_ms,
                plan.answers_ms,
                plan.clients_gone_ms,
                plan.devices_gone_ms,
            ];
            assert!(steps.is_sorted(), "{plan:?}");
            assert!(plan.devices_gone_ms + deadline_ms / 6 <= deadline_ms);
            assert!(plan.patience_ms <= plan.clients_gone_ms - plan.answers_ms);
        }
    }
}
