//! What time brings to a peer: handshakes that take too long, pings, dead peers, ended tokens, unfinished messages.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use cauce_protocol::{Code, Refusal};

use super::Shard;
use super::peer::{Peer, Stage};
use super::wheel::TICK_MS;
use crate::clock::Now;
use crate::websocket::Opcode;
use crate::websocket::frame::frame;

/// What a peer is told that was given time and did not read.
pub(super) const SLOW: &str = "you read more slowly than messages come; reconnect and catch up";

impl Shard {
    /// Fires timers for ever. Runs beside [`Shard::run`] on the same thread.
    pub async fn run_timers(self: &Rc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due = Vec::new();
        loop {
            ticks.tick().await;
            let now = self.now();
            let tunables = self.hub.tunables();
            self.auth.borrow_mut().set_policy(tunables.policy);
            *self.tunables.borrow_mut() = tunables;
            self.wheel.borrow_mut().fire(now.mono_ms, &mut due);
            for id in due.drain(..) {
                if let Some(peer) = self.peer(id) {
                    self.handle_timeout(&peer, now);
                }
            }
            self.wake_sleepers(now);
        }
    }

    /// Arms a timer for the peer, unless an earlier one will look anyway.
    pub(super) fn arm(&self, peer: &Peer, at_ms: u64) {
        if at_ms < peer.timing.get().armed_ms {
            let armed_ms = self.wheel.borrow_mut().arm(peer.id, at_ms);
            peer.time(|timing| timing.armed_ms = armed_ms);
        }
    }

    /// Arms the timer that the peer needs next.
    pub(super) fn arm_next(&self, peer: &Peer, now: Now) {
        if let Some(at_ms) = self.next_timeout(peer, now) {
            self.arm(peer, at_ms);
        }
    }

    fn handle_timeout(self: &Rc<Self>, peer: &Rc<Peer>, now: Now) {
        if now.mono_ms < peer.timing.get().armed_ms {
            // Left over from before an earlier timer was armed, which has armed the next by now. Arming again here would leave
            // two for ever, and each later case one more.
            return;
        }
        peer.time(|timing| timing.armed_ms = u64::MAX);
        if let Some(refusal) = self.verdict(peer, now) {
            self.close(peer, &refusal);
        } else if is_over(peer, now) && !self.takes_on(peer, now) {
            self.gone(peer);
            return;
        } else if self.ping_is_due(peer, now) {
            peer.time(|timing| timing.pinged_ms = now.mono_ms);
            self.say(peer, frame(Opcode::Ping, &Bytes::new()));
        }
        self.device_timeout(peer, now);
        self.arm_next(peer, now);
    }

    /// Why the peer must go now, if it must.
    fn verdict(&self, peer: &Peer, now: Now) -> Option<Refusal> {
        let tunables = self.tunables.borrow();
        let timing = peer.timing.get();
        let stage = peer.stage.borrow();
        let expired = match &*stage {
            Stage::Opening(opening) => return opening.handle_timeout(now),
            // The door lets in what has ended within the leeway, so it may stay as long.
            Stage::Client(client) => {
                let unix_ms = now.unix_ms.saturating_sub(tunables.policy.leeway_ms);
                client.connection.principal.is_expired(unix_ms)
            }
            Stage::Device(_) => false,
            Stage::Closing | Stage::Gone => return None,
        };
        if expired {
            return Some(Refusal::new(
                Code::TokenExpired,
                "the token has expired; connect with a new one",
            ));
        }
        if timing.begun_ms != 0 && now.mono_ms >= timing.begun_ms + tunables.assembly_ms {
            return Some(Refusal::new(
                Code::Malformed,
                "a message was begun and not finished in time",
            ));
        }
        if timing.blocked_ms != 0
            && peer.backlog.borrow().is_some()
            && now.mono_ms >= timing.blocked_ms + tunables.stall_ms
        {
            return Some(Refusal::new(Code::Slow, SLOW));
        }
        if timing.pinged_ms != 0 && now.mono_ms >= timing.pinged_ms + tunables.heartbeat_timeout_ms {
            return Some(Refusal::new(Code::HeartbeatTimeout, "no answer to a ping"));
        }
        None
    }

    /// The kernel takes nothing more for this peer from now on.
    pub(super) fn stalls(&self, peer: &Peer) {
        let now_ms = self.now().mono_ms;
        peer.time(|timing| timing.blocked_ms = now_ms);
        let stall_ms = self.tunables.borrow().stall_ms;
        self.arm(peer, now_ms + stall_ms);
    }

    fn ping_is_due(&self, peer: &Peer, now: Now) -> bool {
        let timing = peer.timing.get();
        let interval_ms = self.tunables.borrow().heartbeat_interval_ms;
        !peer.is_closing() && timing.pinged_ms == 0 && now.mono_ms >= timing.heard_ms + interval_ms
    }

    fn next_timeout(&self, peer: &Peer, now: Now) -> Option<u64> {
        let tunables = self.tunables.borrow();
        let timing = peer.timing.get();
        let stage = peer.stage.borrow();
        let special = match &*stage {
            Stage::Opening(opening) => return Some(opening.deadline_ms),
            Stage::Closing => return Some(timing.closing_ms),
            Stage::Gone => return None,
            Stage::Client(client) => {
                let ends = client.connection.expires_unix_ms();
                let until = |ends: u64| ends.saturating_add(tunables.policy.leeway_ms);
                ends.map(|ends| {
                    now.mono_ms
                        .saturating_add(until(ends).saturating_sub(now.unix_ms))
                })
            }
            Stage::Device(device) => device
                .device
                .as_ref()
                .and_then(|device| device.lock().device.poll_timeout()),
        };
        let heartbeat = match timing.pinged_ms {
            0 => timing.heard_ms + tunables.heartbeat_interval_ms,
            pinged_ms => pinged_ms + tunables.heartbeat_timeout_ms,
        };
        let assembly = (timing.begun_ms != 0).then(|| timing.begun_ms + tunables.assembly_ms);
        let stall =
            (timing.blocked_ms != 0).then(|| (timing.blocked_ms + tunables.stall_ms).max(now.mono_ms + 1));
        [Some(heartbeat), assembly, special, stall]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Whether a closing peer has had its time.
fn is_over(peer: &Peer, now: Now) -> bool {
    let timing = peer.timing.get();
    matches!(*peer.stage.borrow(), Stage::Closing) && now.mono_ms >= timing.closing_ms
}
