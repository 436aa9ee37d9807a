//! Sending everybody away without losing anything, and not all at once.
//!
//! What must stay true:
//! - Until its moment a peer is served as ever. At its moment it is not heard any more, gets the answers to what it asked,
//!   everything that was queued for it, a goaway and a close: in this order.
//! - On a shard that serves both, devices wait for the clients: they are who answers what those have asked, and nobody shall be
//!   left who could see them offline.
//! - Nobody is waited for without end. A peer that takes nothing is given up after a while, one that takes its bytes slowly
//!   when the time is over, and an answer that does not come holds its own peer only.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cauce_protocol::ConnectionId;

use super::peer::{Peer, Stage};
use super::{CLOSING_MS, Shard};
use crate::clock::Now;
use crate::hub::{Drain, Drained};

/// Between two looks at who is next.
const STEP: Duration = Duration::from_millis(10);

/// When each of a number of peers has its moment: evenly over a time, the first at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    count: usize,
    spread_ms: u64,
}

impl Pace {
    /// Over `spread_ms`, or faster if the peers are so few that nobody would wait `interval_max_ms` for the next.
    fn new(count: usize, spread_ms: u64, interval_max_ms: u64) -> Self {
        let few_ms = (count as u64).saturating_mul(interval_max_ms);
        Self {
            count,
            spread_ms: spread_ms.min(few_ms),
        }
    }

    /// How many have had their moment by then.
    fn due(self, elapsed_ms: u64) -> usize {
        if elapsed_ms >= self.spread_ms {
            return self.count;
        }
        let share = self.count as u128 * u128::from(elapsed_ms) / u128::from(self.spread_ms);
        (share as usize + 1).min(self.count)
    }
}

/// What a draining shard remembers.
#[derive(Debug)]
pub(super) struct Progress {
    patience_ms: u64,
    gone_by_ms: u64,
    /// Bytes that closing peers had to take when they were last looked at.
    left: HashMap<ConnectionId, usize>,
    /// Peers that were given up before they had taken everything.
    given_up: u64,
}

impl Shard {
    /// Begins to send everybody away.
    pub(super) fn drain(self: &Rc<Self>, drain: &Arc<Drain>) {
        if self.is_stopping() {
            return;
        }
        *self.stopping.borrow_mut() = Some(drain.refusal.clone());
        *self.drain.borrow_mut() = Some(Progress {
            patience_ms: drain.patience_ms,
            gone_by_ms: drain.gone_by_ms,
            left: HashMap::new(),
            given_up: 0,
        });
        tokio::task::spawn_local(send_away(self.clone(), drain.clone()));
    }

    /// Closes a peer whose moment has come once nothing that it asked waits for an answer. Whether it has been closed.
    fn sent_away(&self, peer: &Rc<Peer>, drain: &Drain, now: Now) -> bool {
        peer.leaving.set(true);
        if peer.unanswered.get() > 0 && now.mono_ms < drain.answers_until_ms && !peer.is_closing() {
            return false;
        }
        self.close(peer, &drain.refusal);
        true
    }

    /// How long a peer that has been told to go has to take the last words and close its side.
    pub(super) fn patience_ms(&self, peer: &Peer) -> u64 {
        match &mut *self.drain.borrow_mut() {
            None => CLOSING_MS,
            Some(progress) => {
                progress.left.insert(peer.id, peer.outbox.borrow().bytes());
                progress.patience_ms
            }
        }
    }

    /// Whether a closing peer whose time is over has taken some of its bytes since it was last looked at, and may go on.
    pub(super) fn takes_on(&self, peer: &Peer, now: Now) -> bool {
        let mut drain = self.drain.borrow_mut();
        let Some(progress) = &mut *drain else {
            return false;
        };
        let left = peer.outbox.borrow().bytes();
        let before = progress.left.insert(peer.id, left).unwrap_or(0);
        if left >= before {
            progress.given_up += u64::from(left > 0);
            return false;
        }
        let until = (now.mono_ms + progress.patience_ms).min(progress.gone_by_ms);
        peer.time(|timing| timing.closing_ms = until);
        true
    }
}

async fn send_away(shard: Rc<Shard>, drain: Arc<Drain>) {
    // In no order: a map of random ids has none, so nobody's tenant is sent away before the others.
    let (mut devices, mut waiting): (Vec<_>, Vec<_>) = {
        let peers = shard.peers.borrow();
        peers.values().cloned().partition(|peer| peer.is_device())
    };
    let mut pace = Pace::new(waiting.len(), drain.spread_ms, drain.interval_max_ms);
    let mut begun_ms = shard.now().mono_ms;
    let mut leaving = Vec::new();
    let mut steps = tokio::time::interval(STEP);
    steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let cut = loop {
        steps.tick().await;
        let now = shard.now();
        let clients_gone = || waiting.is_empty() && shard.hub.metrics.clients_open() == 0;
        if !devices.is_empty() && (clients_gone() || now.mono_ms >= drain.answers_until_ms) {
            waiting.append(&mut devices);
            pace = Pace::new(waiting.len(), drain.spread_ms, drain.interval_max_ms);
            begun_ms = now.mono_ms;
        }
        let due = pace.due(now.mono_ms.saturating_sub(begun_ms));
        leaving.extend(waiting.drain(pace.count - due..));
        leaving.retain(|peer| !shard.sent_away(peer, &drain, now));
        if shard.is_empty() {
            break 0;
        }
        if now.mono_ms >= drain.gone_by_ms {
            let left: Vec<_> = shard.peers.borrow().values().cloned().collect();
            let cut = left.iter().filter(|peer| is_owed(peer)).count() as u64;
            left.iter().for_each(|peer| shard.gone(peer));
            break cut;
        }
    };
    let given_up = shard
        .drain
        .borrow()
        .as_ref()
        .map_or(0, |progress| progress.given_up);
    // Whoever drains has given up waiting, or hears it.
    let _ = drain.done.send(Drained {
        shard: shard.index,
        cut: cut + given_up,
    });
}

/// Whether the peer has not got everything that was meant for it.
fn is_owed(peer: &Peer) -> bool {
    let closing = matches!(*peer.stage.borrow(), Stage::Closing | Stage::Gone);
    !closing || peer.outbox.borrow().bytes() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moments_come_evenly_and_everybody_has_one(
            count in 0usize..20_000, spread_ms in 0u64..10_000, interval_max_ms in 1u64..50,
        ) {
            let pace = Pace::new(count, spread_ms, interval_max_ms);
            prop_assert!(pace.spread_ms <= spread_ms);
            prop_assert!(pace.spread_ms <= count as u64 * interval_max_ms);
            prop_assert_eq!(pace.due(pace.spread_ms), count);
            let mut before = 0;
            for elapsed in 0..=pace.spread_ms {
                let due = pace.due(elapsed);
                prop_assert!(due >= before);
                // Never more in a millisecond than the even share, rounded up, and the first one.
                if elapsed > 0 && elapsed < pace.spread_ms {
                    prop_assert!(((due - before) as u64) <= (count as u64).div_ceil(pace.spread_ms));
                }
                before = due;
            }
        }
    }

    #[test]
    fn a_few_peers_are_not_kept_waiting() {
        assert_eq!(Pace::new(10, 5_000, 5).spread_ms, 50);
        assert_eq!(Pace::new(10_000, 5_000, 5).spread_ms, 5_000);
    }

    #[test]
    fn a_drain_costs_idle_peers_nothing_but_a_counter() {
        // What the fields of a peer add up to on 64 bits; whoever makes it larger pays by the ten thousand.
        assert!(size_of::<Peer>() <= 384, "{}", size_of::<Peer>());
    }
}
