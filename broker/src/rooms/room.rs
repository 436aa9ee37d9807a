//! One room: its numbering, who listens, and the step that makes the order.

mod presence;
mod repeats;
mod tap;

use std::sync::Arc as StdArc;

use cauce_protocol::{Epoch, RoomId, RoomName, Seq};

pub use self::presence::PresenceDesk;
pub use self::repeats::Repeat;
use self::repeats::Repeats;
pub use self::tap::Tap;
use crate::mailbox::{Mailbox, Wake};
use crate::publication::{Draft, Publication, RoomKey, Shared};
use crate::sync::Mutex;

/// Shards a node may have: one bit each in a room's set of listeners.
pub const SHARDS_MAX: usize = 64;

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

#[derive(Debug, Default)]
struct State {
    /// Out of the table, or about to be: whoever found the room looks again.
    closed: bool,
    seq: u64,
    /// Shards with subscribers, a bit each.
    shards: u64,
    taps: Vec<StdArc<Tap>>,
    /// On all shards together.
    subscribers: u32,
    repeats: Option<Box<Repeats>>,
    /// In the table's queue of rooms that may have to close.
    lingering: bool,
    /// When the last listener left, or the room was made. Monotonic milliseconds.
    idle_since_ms: u64,
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
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub epoch: Epoch,
    pub seq: Seq,
    /// Subscribers at that moment.
    pub receivers: u32,
    /// The key had been seen: nothing was sent, and this is the first answer.
    pub repeated: bool,
}

/// Why a room did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// Look up the room again.
    Closed,
    /// This shard's mailbox is full.
    Full(usize),
}

impl Room {
    pub(super) fn new(key: RoomKey, id: RoomId, name: RoomName, epoch: Epoch, now_ms: u64) -> Self {
        let state = State {
            lingering: true,
            idle_since_ms: now_ms,
            ..State::default()
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

    /// Numbers the message and hands it to every listening shard: one step, so that all see one order.
    pub(super) fn publish<M: From<Shared>, W: Wake>(
        &self,
        draft: Draft,
        repeat: Option<Repeat<'_>>,
        mailboxes: &[StdArc<Mailbox<M, W>>],
    ) -> Result<Accepted, NotTaken> {
        let cost = draft.cost();
        // Allocated before the lock is taken, and unshared until it has its number.
        let mut publication = StdArc::new(Publication::draft(draft, self.key, self.id, self.epoch));
        let mut state = self.state.lock();
        if state.closed {
            return Err(NotTaken::Closed);
        }
        if let Some(repeat) = repeat
            && let Some(first) = state.repeats.as_mut().and_then(|repeats| repeats.find(repeat))
        {
            return Ok(Accepted {
                repeated: true,
                ..first
            });
        }
        let shards = state.shards;
        reserve(shards, cost, mailboxes)?;
        state.seq += 1;
        let accepted = Accepted {
            epoch: self.epoch,
            seq: Seq(state.seq),
            receivers: state.receivers(),
            repeated: false,
        };
        if let Some(publication) = StdArc::get_mut(&mut publication) {
            publication.seq = accepted.seq;
        }
        if let Some(repeat) = repeat {
            state.repeats.get_or_insert_default().remember(repeat, accepted);
        }
        for shard in bits(shards) {
            mailboxes[shard].push(M::from(publication.clone()));
        }
        state.taps.retain(|tap| tap.push(&publication, cost));
        drop(state);
        for shard in bits(shards) {
            mailboxes[shard].notify();
        }
        Ok(accepted)
    }

    /// `None` if the room has closed since it was found.
    pub(super) fn join(&self, listener: Listener<'_>) -> Option<Seq> {
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
        Some(Seq(state.seq))
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
        if !state.is_idle() {
            state.lingering = false;
            Idle::InUse
        } else if state
            .repeats
            .as_ref()
            .is_some_and(|repeats| repeats.until_ms > now_ms)
        {
            // Its keys are promised for longer than it lingers: look again as if it had just been left.
            Idle::Since(now_ms)
        } else if state.idle_since_ms > idle_before_ms {
            Idle::Since(state.idle_since_ms)
        } else {
            state.closed = true;
            Idle::Closed
        }
    }
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

/// Room in all mailboxes or in none.
fn reserve<M, W: Wake>(
    shards: u64,
    cost: usize,
    mailboxes: &[StdArc<Mailbox<M, W>>],
) -> Result<(), NotTaken> {
    for full in bits(shards) {
        if !mailboxes[full].reserve(cost) {
            for taken in bits(shards).take_while(|&taken| taken != full) {
                mailboxes[taken].release(cost);
            }
            return Err(NotTaken::Full(full));
        }
    }
    Ok(())
}
