//! One room: its numbering, who listens, and the step that makes the order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc as StdArc;

use cauce_protocol::{Epoch, RoomId, RoomName, Seq};

use crate::mailbox::{Mailbox, TaskWaker, Wake};
use crate::publication::{Draft, Publication, RoomKey, Shared};
use crate::sync::{AtomicBool, Mutex, Ordering};

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

/// A publisher's key for a message that may come twice.
#[derive(Clone, Copy, Debug)]
pub struct Repeat<'a> {
    /// Keys of different publishers do not meet.
    pub publisher: &'a str,
    pub key: &'a str,
    pub now_ms: u64,
    /// How long a key is remembered, in milliseconds.
    pub window_ms: u64,
    /// How many keys a room remembers; the oldest is forgotten for the next.
    pub keys_max: usize,
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

/// Idempotency keys of a room, newest last.
#[derive(Debug, Default)]
struct Repeats {
    first: HashMap<Box<str>, Accepted, foldhash::fast::RandomState>,
    order: VecDeque<(u64, Box<str>)>,
    /// The last of them is remembered until then.
    until_ms: u64,
}

impl Repeats {
    /// A user id has no control characters, so the separator cannot be part of it.
    fn name(repeat: Repeat<'_>) -> Box<str> {
        [repeat.publisher, "\n", repeat.key].concat().into()
    }

    fn find(&mut self, repeat: Repeat<'_>) -> Option<Accepted> {
        while let Some((at, _)) = self.order.front()
            && at + repeat.window_ms < repeat.now_ms
        {
            if let Some((_, name)) = self.order.pop_front() {
                self.first.remove(&name);
            }
        }
        self.first.get(&Self::name(repeat)).copied()
    }

    fn remember(&mut self, repeat: Repeat<'_>, accepted: Accepted) {
        if self.order.len() >= repeat.keys_max
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
        let name = Self::name(repeat);
        self.until_ms = repeat.now_ms + repeat.window_ms;
        self.order.push_back((repeat.now_ms, name.clone()));
        self.first.insert(name, accepted);
    }
}

/// A listener in the process: a bounded queue of its own. One that does not keep up is cut off and told so; it never slows
/// the room.
#[derive(Debug)]
pub struct Tap {
    mailbox: Mailbox<Shared, TaskWaker>,
    overflowed: AtomicBool,
}

impl Tap {
    /// `capacity` in bytes, see [`Publication::cost`].
    pub fn new(capacity: usize) -> Self {
        Self {
            mailbox: Mailbox::new(capacity, TaskWaker::default()),
            overflowed: AtomicBool::new(false),
        }
    }

    /// Whether the tap stays.
    fn push(&self, publication: &Shared, cost: usize) -> bool {
        let taken = self.mailbox.reserve(cost);
        if taken {
            self.mailbox.push(publication.clone());
        } else {
            self.overflowed.store(true, Ordering::Release);
        }
        self.mailbox.notify();
        taken
    }

    /// The next message if there is one.
    pub fn try_next(&self) -> Option<Shared> {
        let publication = self.mailbox.pop()?;
        self.mailbox.release(publication.cost());
        Some(publication)
    }

    /// Waits for the next message; `None` when the tap was cut off and all that came before has been taken. Cancel-safe.
    pub async fn next(&self) -> Option<Shared> {
        loop {
            self.mailbox.begin_turn();
            if let Some(publication) = self.try_next() {
                return Some(publication);
            }
            if self.overflowed.load(Ordering::Acquire) {
                // What was pushed before the cut is visible by now.
                return self.try_next();
            }
            self.mailbox.notified().await;
        }
    }
}
