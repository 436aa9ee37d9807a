//! One device over its life: sessions come and go, the merged state stays.
//!
//! What must stay true:
//! - `seq` rises by one with every message that is to be published ([`Changes`] and [`Offline`] share it), and never
//!   goes back, not over a restart either ([`RESTORED_SEQ_GAP`]).
//! - Every call that [`Device::call`] accepted gets exactly one [`CallReply`]: answer, time-out or end of session.
//! - A method that is told of an older [`Session`] than the current one changes nothing.
//! - `stale` is true from a restart, or from a first frame that is not a full status, until a full status is merged:
//!   until then parts of the state are older than this session.

mod listening;

use bytes::Bytes;

use super::calls::{
    CALL_WAIT_MS_MAX, CallError, CallFailure, CallReply, CallToken, Calls, GET_INFO, GET_STATUS, Pending,
};
use super::frame::{self, Body, Frame};
use super::identity::Identity;
use super::info::Info;
use super::outcome::{Changes, Outcome, Stamp};
use super::power::{self, PowerWatch};
use super::presence::{self, LossReason, Offline, OfflineReason, Presence, Session, Superseded};
use super::reading::{self, Baselines, Reading, Vitals};
use super::resync::Resync;
use super::status::{Merged, Object, State};
use super::update::Saved;
use crate::clock::Now;

/// How far the sequence jumps at a restore. Rows are written behind the publications, so the sequence read back may
/// be older than the last one published; no device publishes as many messages between two writes.
pub const RESTORED_SEQ_GAP: u64 = 1 << 20;

/// A device's state machine. It owns no socket and no clock; see the module's page for the driver's duty.
#[derive(Debug)]
pub struct Device {
    identity: Identity,
    state: State,
    info: Info,
    presence: Presence,
    /// The session that counts, while its socket stands.
    live: Option<Live>,
    /// The newest session ever seen; older ones are not let in again.
    newest: Option<Session>,
    seq: u64,
    last_seen_ms: u64,
    last_stamp: Stamp,
    /// When a sleeper is overdue, monotonic; `Some` exactly while it is asleep.
    overdue_at: Option<u64>,
    calls: Calls,
    power: PowerWatch,
    baselines: Baselines,
    resync: Resync,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    session: Session,
    /// Its first frame came.
    spoke: bool,
    /// It said that it goes to sleep.
    slept: bool,
}

/// What one input changed so far.
#[derive(Default)]
struct News {
    delta: Object,
    /// Presence, staleness or info changed.
    visible: bool,
}

impl Device {
    /// A device never seen before.
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            state: State::default(),
            info: Info::default(),
            presence: Presence::Offline,
            live: None,
            newest: None,
            seq: 0,
            last_seen_ms: 0,
            last_stamp: Stamp::default(),
            overdue_at: None,
            calls: Calls::default(),
            power: PowerWatch::default(),
            baselines: Baselines::default(),
            resync: Resync::OPENING,
        }
    }

    /// A device as last stored: its state is stale until it tells its whole status, and it is offline until it
    /// speaks, unless it is a sleeper that is not overdue yet.
    pub fn restore(identity: Identity, saved: Saved, now: Now) -> Self {
        let state = State::new(saved.state);
        let allowance_ms =
            presence::sleep_allowance_ms(state.components(), saved.presence == Presence::Asleep).unwrap_or(0);
        let overdue_in_ms = saved
            .last_seen_ms
            .saturating_add(allowance_ms)
            .saturating_sub(now.unix_ms);
        // A last_seen ahead of our clock must not stretch the sleep.
        let overdue_in_ms = overdue_in_ms.min(allowance_ms);
        let asleep = overdue_in_ms > 0;
        Self {
            baselines: Baselines::of(state.components()),
            state,
            info: saved.info,
            presence: if asleep {
                Presence::Asleep
            } else {
                Presence::Offline
            },
            seq: saved.seq.saturating_add(RESTORED_SEQ_GAP),
            last_seen_ms: saved.last_seen_ms,
            last_stamp: saved.stamp,
            overdue_at: asleep.then(|| now.mono_ms.saturating_add(overdue_in_ms)),
            ..Self::new(identity)
        }
    }

    /// A socket of this device was accepted: its session replaces the one before, whose pending calls fail.
    ///
    /// Presence does not change: only a frame makes a device online.
    ///
    /// # Errors
    /// [`Superseded`] if a session as new or newer was seen; the caller closes the socket.
    pub fn connect(&mut self, session: Session, now: Now) -> Result<Outcome, Superseded> {
        if let Some(newest) = self.newest.filter(|newest| *newest >= session) {
            return Err(Superseded { newest });
        }
        let mut out = Outcome::new(now);
        fail_all(self.calls.drain(), &CallFailure::Replaced, &mut out);
        self.newest = Some(session);
        self.live = Some(Live {
            session,
            spoke: false,
            slept: false,
        });
        Ok(out)
    }

    /// A text message came on `session`.
    pub fn handle_frame(&mut self, session: Session, now: Now, text: &[u8]) -> Outcome {
        match Frame::parse(text) {
            Ok(frame) => self.handle(session, now, frame),
            Err(error) => {
                let mut out = Outcome::new(now);
                out.malformed = Some(error);
                out.counters.malformed = 1;
                out
            }
        }
    }

    /// As [`handle_frame`](Self::handle_frame), for a frame that was parsed already to learn whose it is.
    pub fn handle(&mut self, session: Session, now: Now, frame: Frame<'_>) -> Outcome {
        let mut out = Outcome::new(now);
        let Some(live) = self.live.as_mut().filter(|live| live.session == session) else {
            out.counters.superseded = 1;
            return out;
        };
        if let Some(src) = &frame.src
            && **src != *self.identity.src()
        {
            match Identity::parse(src) {
                // The same MAC under a new name: what it calls itself last is what it answers to.
                Ok(renamed) if renamed.key() == self.identity.key() => self.identity = renamed,
                _ => {
                    out.counters.foreign_src = 1;
                    return out;
                }
            }
        }
        out.counters.repaired = u32::from(frame.repaired);
        let first = !std::mem::replace(&mut live.spoke, true);
        let was_stale = self.is_stale();
        let mut news = News {
            visible: self.presence != Presence::Online,
            ..News::default()
        };
        self.presence = Presence::Online;
        self.overdue_at = None;
        self.last_seen_ms = now.unix_ms;
        if first {
            self.resync.open();
        }
        match frame.body {
            Body::Notification(notification) => self.notice(now, notification, &mut news, &mut out),
            Body::Response(response) => self.answer(response, &mut news, &mut out),
            Body::Call(call) => {
                out.counters.inbound_calls = 1;
                if let Some(id) = call.id {
                    out.send.push(frame::refusal(&id, &self.identity, &call.method));
                }
            }
        }
        if first {
            out.send
                .extend(self.calls.ask(&self.identity, GET_INFO, now.mono_ms));
        }
        self.ask_status_if_due(now, &mut out);
        news.visible |= self.is_stale() != was_stale;
        self.publish(news, &mut out);
        out
    }

    /// Asks the device. Send the bytes at once; the answer comes as a [`CallReply`] with `token`.
    ///
    /// `deadline_ms` is monotonic, and at most [`CALL_WAIT_MS_MAX`] ahead. `params` is a JSON object as text.
    ///
    /// # Errors
    /// [`CallError`]; the device knows nothing of the call then, and no reply will come.
    pub fn call(
        &mut self,
        now: Now,
        method: &str,
        params: Option<&[u8]>,
        deadline_ms: u64,
        token: CallToken,
    ) -> Result<Bytes, CallError> {
        if self.live.is_none() {
            return Err(match self.presence {
                Presence::Asleep => CallError::Asleep,
                Presence::Offline | Presence::Online => CallError::Offline,
            });
        }
        let deadline_ms = deadline_ms.min(now.mono_ms.saturating_add(CALL_WAIT_MS_MAX));
        self.calls
            .open(&self.identity, method, params, deadline_ms, token)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, monotonic milliseconds.
    pub fn poll_timeout(&self) -> Option<u64> {
        [self.calls.deadline(), self.power.deadline(), self.overdue_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed: calls expire, a missing zero is derived, a sleeper may be overdue. Too early is harmless.
    pub fn handle_timeout(&mut self, now: Now) -> Outcome {
        let mut out = Outcome::new(now);
        fail_all(self.calls.expire(now.mono_ms), &CallFailure::TimedOut, &mut out);
        let zeros = self.power.expire(now.mono_ms, self.state.components());
        if !zeros.is_empty() {
            out.counters.derived_power = u32::try_from(zeros.len()).unwrap_or(u32::MAX);
            let Merged { delta, refused } = self.state.overlay(zeros);
            out.counters.refused_keys = refused;
            self.publish(
                News {
                    delta,
                    ..News::default()
                },
                &mut out,
            );
        }
        if self
            .overdue_at
            .is_some_and(|overdue_at| overdue_at <= now.mono_ms)
        {
            self.go_offline(now, OfflineReason::Overslept, &mut out);
        }
        out
    }

    /// The socket of `session` is gone. If that session still counts, its calls fail and the device is offline at
    /// once, or asleep if it is a sleeper; if a newer one replaced it, nothing happens.
    pub fn disconnect(&mut self, session: Session, now: Now, reason: LossReason) -> Outcome {
        let mut out = Outcome::new(now);
        let Some(live) = self.live.take_if(|live| live.session == session) else {
            out.counters.superseded = 1;
            return out;
        };
        fail_all(self.calls.drain(), &CallFailure::Disconnected, &mut out);
        let may_sleep = matches!(reason, LossReason::Closed | LossReason::Timeout);
        let allowance_ms =
            presence::sleep_allowance_ms(self.state.components(), live.slept).filter(|_| may_sleep);
        match (self.presence, allowance_ms) {
            (Presence::Online, Some(allowance_ms)) => {
                self.presence = Presence::Asleep;
                self.overdue_at = Some(now.mono_ms.saturating_add(allowance_ms));
                self.publish(
                    News {
                        visible: true,
                        ..News::default()
                    },
                    &mut out,
                );
            }
            (Presence::Asleep, Some(_)) | (Presence::Offline, _) => {}
            (Presence::Online | Presence::Asleep, None) => {
                self.go_offline(now, OfflineReason::Lost(reason), &mut out);
            }
        }
        out
    }

    /// The merged state.
    pub fn components(&self) -> &Object {
        self.state.components()
    }

    /// The components whose power is a zero that we derived.
    pub fn derived_power(&self) -> &[Box<str>] {
        self.power.derived.keys()
    }

    /// The device's names.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Make and firmware.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Whether parts of the state may be older than this session.
    pub fn is_stale(&self) -> bool {
        self.resync.is_stale()
    }

    /// When its last frame came, wall clock, milliseconds; 0 if none ever did.
    pub fn last_seen_ms(&self) -> u64 {
        self.last_seen_ms
    }

    /// The times of the last change.
    pub fn last_stamp(&self) -> Stamp {
        self.last_stamp
    }

    /// Calls that await their answers, our own questions included.
    pub fn pending_calls(&self) -> usize {
        self.calls.len()
    }

    /// Whether it is there.
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// All measurements as they stand, without consumption.
    pub fn readings(&self) -> Vec<Reading> {
        let components = self.state.components();
        reading::take(
            components,
            components,
            &self.power.derived,
            &mut Baselines::default(),
        )
        .0
    }

    /// The number of the last message published.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The session that counts, while its socket stands.
    pub fn session(&self) -> Option<Session> {
        self.live.map(|live| live.session)
    }

    /// The state with its measures, for checks.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is told of the device as a whole.
    pub fn vitals(&self) -> Vitals<'_> {
        Vitals {
            firmware: self.info.firmware.as_deref(),
            rssi_dbm: reading::rssi_dbm(self.components()),
        }
    }

    /// Asks for the full status where it is missing: not more often than the pause allows, and not twice at once.
    fn ask_status_if_due(&mut self, now: Now, out: &mut Outcome) {
        if !self.resync.is_due(now.mono_ms) {
            return;
        }
        if let Some(question) = self.calls.ask(&self.identity, GET_STATUS, now.mono_ms) {
            out.send.push(question);
            self.resync.asked(now.mono_ms);
        }
    }

    fn publish(&mut self, news: News, out: &mut Outcome) {
        if news.delta.is_empty() && !news.visible {
            return;
        }
        let (readings, resets) = reading::take(
            self.state.components(),
            &news.delta,
            &self.power.derived,
            &mut self.baselines,
        );
        out.counters.energy_resets = resets;
        let at = out.at;
        self.last_stamp = at;
        self.seq = self.seq.saturating_add(1);
        out.changes = Some(Changes {
            seq: self.seq,
            delta: news.delta,
            at,
            readings,
        });
    }

    fn go_offline(&mut self, now: Now, reason: OfflineReason, out: &mut Outcome) {
        self.presence = Presence::Offline;
        self.overdue_at = None;
        self.seq = self.seq.saturating_add(1);
        let last_seen_ms = self.last_seen_ms;
        out.offline = Some(Offline {
            seq: self.seq,
            reason,
            at_ms: now.unix_ms,
            last_seen_ms,
        });
    }
}

/// Gives each caller its failure; our own questions are only counted.
fn fail_all(calls: impl Iterator<Item = Pending>, failure: &CallFailure, out: &mut Outcome) {
    for call in calls {
        match call.token {
            Some(token) => out.replies.push(CallReply {
                token,
                result: Err(failure.clone()),
            }),
            None => out.counters.own_calls_failed += 1,
        }
    }
}
