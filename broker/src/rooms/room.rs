//! One room: its numbering, who listens, and the step that makes the order.

mod durable;
mod history;
mod manner;
mod presence;
mod recovery;
mod repeats;
mod tap;

use std::sync::Arc as StdArc;

use cauce_protocol::message::Ack;
use cauce_protocol::{Code, Epoch, Refusal, RoomId, RoomName, Seq};

use self::durable::Durable;
pub use self::durable::{Head, HeadKey, Journal, JournalEntry, LEASE_NUMBERS, OnCommit};
use self::history::History;
pub use self::history::{Budget, Lost};
pub(in crate::rooms) use self::manner::NotTaken;
pub use self::manner::{Accepted, Manner, Written};
pub use self::presence::PresenceDesk;
pub use self::recovery::{CatchUp, Entered, Page, Recovered, Start};
pub use self::repeats::Repeat;
use self::repeats::Repeats;
pub use self::tap::Tap;
use super::class::RoomClass;
use crate::mailbox::{Mailbox, Share, Wake};
use crate::publication::{Draft, Publication, RoomKey, Shared};
use crate::rate::Gcra;
use crate::sync::Mutex;

/// Shards a node may have: one bit each in a room's set of listeners.
pub const SHARDS_MAX: usize = crate::mailbox::OWNERS_MAX;

/// Messages of a durable room that are held in memory as well, so that a herd that comes back is served without the store.
pub const DURABLE_IN_MEMORY: u32 = 1_000;

/// One room of one tenant.
#[derive(Debug)]
pub struct Room {
    pub key: RoomKey,
    pub id: RoomId,
    pub name: RoomName,
    pub epoch: Epoch,
    state: Mutex<State>,
    presence: presence::Presence,
}

#[derive(Debug)]
struct State {
    /// Out of the table, or about to be: whoever found the room looks again.
    closed: bool,
    seq: u64,
    /// Shards with subscribers, a bit each.
    shards: u64,
    taps: Vec<StdArc<Tap>>,
    /// On all shards together.
    subscribers: u32,
    class: StdArc<RoomClass>,
    rate: Gcra,
    history: Option<Box<History>>,
    budget: StdArc<Budget>,
    durable: Option<Box<Durable>>,
    repeats: Option<Box<Repeats>>,
    /// In the table's queue of rooms that may have to close.
    lingering: bool,
    /// When the last listener left, or the room was made. Monotonic milliseconds.
    idle_since_ms: u64,
}

/// What a room is made of.
#[derive(Debug)]
pub(super) struct Make {
    pub(super) key: RoomKey,
    pub(super) id: RoomId,
    pub(super) name: RoomName,
    /// For a room that the disk does not know.
    pub(super) epoch: Epoch,
    pub(super) head: Option<Head>,
    pub(super) class: StdArc<RoomClass>,
    pub(super) budget: StdArc<Budget>,
    pub(super) now_ms: u64,
}

/// Who begins to listen.
#[derive(Clone, Copy, Debug)]
pub enum Listener<'a> {
    /// A subscriber on this shard.
    Shard(usize),
    /// The embedding program.
    Tap(&'a StdArc<Tap>),
}

/// Where a listener begins: it gets `seq + 1` and everything after.
#[derive(Clone, Debug)]
pub struct Joined {
    pub room: StdArc<Room>,
    pub seq: Seq,
    /// What became of the position that it brought.
    pub entered: Entered,
}

impl Room {
    pub(super) fn new(make: Make) -> Self {
        let Make {
            key,
            id,
            name,
            epoch,
            head,
            class,
            budget,
            now_ms,
        } = make;
        // The head of a room that is durable no longer is of no use.
        let head = head.filter(|_| class.is_durable());
        let seq = head.as_ref().map_or(0, |head| head.given);
        let epoch = head.as_ref().map_or(epoch, |head| head.epoch);
        let repeats = head.as_ref().filter(|head| !head.keys.is_empty()).map(|head| {
            let mut repeats = Repeats::default();
            for key in &head.keys {
                let accepted = Accepted {
                    epoch,
                    seq: Seq(key.seq),
                    receivers: 0,
                    repeated: true,
                    written: Written::Yes,
                };
                repeats.restore(key.name.clone(), accepted, key.at_ms, key.window_ms);
            }
            Box::new(repeats)
        });
        let durable = class
            .is_durable()
            .then(|| Box::new(Durable::new(seq, head.as_ref())));
        let state = State {
            closed: false,
            seq,
            shards: 0,
            taps: Vec::new(),
            subscribers: 0,
            class,
            rate: Gcra::default(),
            history: None,
            budget,
            durable,
            repeats,
            lingering: true,
            idle_since_ms: now_ms,
        };
        Self {
            key,
            id,
            name,
            epoch,
            state: Mutex::new(state),
            presence: presence::Presence::default(),
        }
    }

    /// The last number given.
    pub fn seq(&self) -> Seq {
        Seq(self.state.lock().seq)
    }

    /// Subscribers on all shards, and taps.
    pub fn subscribers(&self) -> u32 {
        self.state.lock().receivers()
    }

    /// What holds here now.
    pub fn class(&self) -> StdArc<RoomClass> {
        self.state.lock().class.clone()
    }

    /// Numbers the message and hands it to every listening shard: one step, so that all see one order.
    pub(super) fn publish<M: From<Shared>, W: Wake>(
        &self,
        draft: Draft,
        manner: Manner<'_>,
        now_ms: u64,
        mailboxes: &[StdArc<Mailbox<M, W>>],
    ) -> Result<Accepted, NotTaken> {
        let cost = draft.cost();
        // Allocated before the lock is taken, and unshared until it has its number.
        let mut publication = StdArc::new(Publication::draft(draft, self.key, self.id, self.epoch));
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(NotTaken::Closed);
        }
        if let Some(repeat) = manner.repeat
            && let Some(first) = state.repeats.as_mut().and_then(|repeats| repeats.find(repeat))
        {
            let accepted = Accepted {
                repeated: true,
                ..first
            };
            return state.written(accepted, manner);
        }
        if state.durable.is_none() && manner.ack == Ack::Durable {
            return Err(NotTaken::Refused(not_durable()));
        }
        if let Some(rate) = state.class.rate
            && let Err(retry_after_ms) = state.rate.check(rate, now_ms, 1)
        {
            return Err(NotTaken::Refused(too_fast(retry_after_ms)));
        }
        let shards = state.shards;
        reserve(shards, cost, mailboxes, manner.share)?;
        if let Some(durable) = &state.durable
            && let Err(refusal) = durable.admit(state.seq + 1, cost, manner.journal)
        {
            release(shards, cost, mailboxes, manner.share);
            return Err(NotTaken::Refused(refusal));
        }
        state.seq += 1;
        let accepted = Accepted {
            epoch: self.epoch,
            seq: Seq(state.seq),
            receivers: state.receivers(),
            repeated: false,
            written: Written::No,
        };
        if let Some(publication) = StdArc::get_mut(&mut publication) {
            publication.seq = accepted.seq;
            // Who takes it gives this back; where nobody does there is nothing to give.
            publication.share = manner.share.filter(|_| shards != 0).cloned();
        }
        if let Some(repeat) = manner.repeat {
            state.repeats.get_or_insert_default().remember(repeat, accepted);
        }
        state.keep(&publication, now_ms);
        for shard in bits(shards) {
            mailboxes[shard].push(M::from(publication.clone()));
        }
        state.taps.retain(|tap| tap.push(&publication, cost));
        let accepted = state.written(accepted, manner)?;
        if let (Some(durable), Some(journal)) = (&mut state.durable, manner.journal) {
            let repeat = manner.repeat.map(Repeat::name);
            journal.append(
                durable.entry(&publication, &self.name, repeat, state.class.history),
                cost,
            );
        }
        drop(guard);
        for shard in bits(shards) {
            mailboxes[shard].notify();
        }
        Ok(accepted)
    }

    /// Another class holds from now on.
    ///
    /// A room that becomes durable goes on. One that was durable must close: its numbering is known to the disk, and without
    /// a journal the lease there would fall behind the numbers given. Answers whether it must.
    pub(super) fn classify(&self, class: StdArc<RoomClass>, now_ms: u64) -> Reclassified {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.closed {
            return Reclassified::Kept;
        }
        if state.durable.is_some() && !class.is_durable() {
            state.closed = true;
            // It leaves no head: its numbering ends here.
            state.durable = None;
            return Reclassified::Closed { shards: state.shards };
        }
        if class.is_durable() && state.durable.is_none() {
            state.durable = Some(Box::new(Durable::new(state.seq, None)));
        }
        state.class = class;
        let keep = state.memory();
        if let Some(history) = &mut state.history {
            history.trim(keep, now_ms);
        }
        Reclassified::Kept
    }

    /// Begins to listen. `None` if the room has closed since it was found.
    pub(super) fn join(&self, listener: Listener<'_>, start: Start, now_ms: u64) -> Option<(Seq, Entered)> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        match listener {
            Listener::Shard(shard) => {
                state.shards |= 1 << shard;
                state.subscribers += 1;
            }
            Listener::Tap(tap) => state.taps.push(tap.clone()),
        }
        let entered = state.enter(self.epoch, start, now_ms);
        Some((Seq(state.seq), entered))
    }

    /// A subscriber leaves. `last` says that the shard has no other one in this room. Answers whether the room is idle now and
    /// must be queued to close.
    pub(super) fn leave_shard(&self, shard: usize, last: bool, now_ms: u64) -> bool {
        let mut state = self.state.lock();
        state.subscribers = state.subscribers.saturating_sub(1);
        if last {
            state.shards &= !(1 << shard);
        }
        state.left(now_ms)
    }

    /// The same for a tap.
    pub(super) fn leave_tap(&self, tap: &StdArc<Tap>, now_ms: u64) -> bool {
        let mut state = self.state.lock();
        state.taps.retain(|other| !StdArc::ptr_eq(other, tap));
        state.left(now_ms)
    }

    /// Closes the room if nobody has listened since `idle_before_ms`; otherwise says when to look again, if at all.
    pub(super) fn close_if_idle(&self, idle_before_ms: u64, now_ms: u64) -> Idle {
        let mut state = self.state.lock();
        let keep = state.memory();
        if let Some(history) = &mut state.history {
            history.trim(keep, now_ms);
        }
        if !state.is_idle() {
            state.lingering = false;
            Idle::InUse
        } else if state.history_is_fresh(now_ms) {
            // Whoever comes back finds what was said meanwhile.
            Idle::Since(now_ms)
        } else if state
            .repeats
            .as_ref()
            .is_some_and(|repeats| repeats.until_ms > now_ms)
        {
            // Its keys are promised for longer than it lingers: look again as if it had just been left.
            Idle::Since(now_ms)
        } else if state.idle_since_ms > idle_before_ms {
            Idle::Since(state.idle_since_ms)
        } else if state
            .durable
            .as_ref()
            .is_some_and(|durable| !durable.is_settled())
        {
            // Who wakes it reads the disk, and would take for lost what is still on its way there.
            Idle::Since(now_ms)
        } else {
            state.closed = true;
            // The table lets go of a room some time after it has left: its memory is given back now.
            state.history = None;
            Idle::Closed
        }
    }

    /// Where a durable room stands, for the next time that it is made. Asked once it has closed.
    pub(super) fn head(&self) -> Option<Head> {
        let state = self.state.lock();
        // Of a room that has given no number there is nothing to go on from.
        let durable = state.durable.as_ref().filter(|_| state.seq > 0);
        durable.map(|durable| Head {
            epoch: self.epoch,
            last: durable.committed(),
            given: state.seq,
            lease: durable.leased(),
            // A room closes when none is promised any more.
            keys: Vec::new(),
        })
    }
}

/// What became of a room when its class changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclassified {
    Kept,
    /// It is out of the table; these shards have subscribers to tell, a bit each.
    Closed {
        shards: u64,
    },
}

fn not_durable() -> Refusal {
    let message = "this room is not durable: its class must say so before a publish can wait for the disk";
    Refusal::new(Code::Conflict, message)
}

fn too_fast(retry_after_ms: u32) -> Refusal {
    Refusal::new(
        Code::RateLimited,
        "more messages than the class of this room allows",
    )
    .retry_after(retry_after_ms)
}

/// What the sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    InUse,
    Since(u64),
    Closed,
}

impl State {
    fn receivers(&self) -> u32 {
        self.subscribers + self.taps.len() as u32
    }

    fn is_idle(&self) -> bool {
        self.shards == 0 && self.taps.is_empty()
    }

    /// Notes whether the message is on the disk, and leaves word for when it is.
    fn written(&self, accepted: Accepted, manner: Manner<'_>) -> Result<Accepted, NotTaken> {
        let written = match (&self.durable, manner.on_commit) {
            (Some(durable), Some(on_commit)) if manner.ack != Ack::Memory => {
                match durable.wait(accepted, on_commit).map_err(NotTaken::Refused)? {
                    true => Written::Yes,
                    false => Written::Awaited,
                }
            }
            _ => Written::No,
        };
        Ok(Accepted { written, ..accepted })
    }

    fn left(&mut self, now_ms: u64) -> bool {
        if !self.is_idle() || self.closed {
            return false;
        }
        self.idle_since_ms = now_ms;
        !std::mem::replace(&mut self.lingering, true)
    }
}

fn bits(set: u64) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(set), |set| Some(set & set.wrapping_sub(1)))
        .take_while(|&set| set != 0)
        .map(|set| set.trailing_zeros() as usize)
}

fn release<M, W: Wake>(
    shards: u64,
    cost: usize,
    mailboxes: &[StdArc<Mailbox<M, W>>],
    share: Option<&StdArc<Share>>,
) {
    for shard in bits(shards) {
        mailboxes[shard].release(cost);
        if let Some(share) = share {
            share.release(shard, cost);
        }
    }
}

/// Room in all mailboxes or in none, and in the publisher's part of each.
fn reserve<M, W: Wake>(
    shards: u64,
    cost: usize,
    mailboxes: &[StdArc<Mailbox<M, W>>],
    share: Option<&StdArc<Share>>,
) -> Result<(), NotTaken> {
    for full in bits(shards) {
        let mailbox = &mailboxes[full];
        let refused = if share.is_some_and(|share| !share.reserve(full, cost, mailbox.capacity())) {
            NotTaken::ShareFull(full)
        } else if mailbox.reserve(cost) {
            continue;
        } else {
            if let Some(share) = share {
                share.release(full, cost);
            }
            NotTaken::Full(full)
        };
        release(shards & ((1 << full) - 1), cost, mailboxes, share);
        return Err(refused);
    }
    Ok(())
}
