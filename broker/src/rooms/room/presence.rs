//! Who is in this room, and the times at which somebody must look at it again.
//!
//! What must stay true:
//! - It has a lock of its own: who publishes never waits for who pages, joins or leaves.
//! - A change is handed to the shards under that lock, so all of them see the versions rise.
//! - What was taken reaches every shard that watches: room in the mailboxes is reserved first. Where there is none the change
//!   goes on collecting, and is tried again.
//! - A room is in the desk's queue at most once for each reason to look at it, so a quiet room costs nothing.

use std::cmp::{Ordering as Order, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc as StdArc;

use cauce_protocol::message::Watch;
use cauce_protocol::{ConnectionId, UserId};

use super::{Room, bits, reserve};
use crate::clock::Now;
use crate::mailbox::{Mailbox, Wake};
use crate::rooms::PresenceMode;
use crate::rooms::news::{NewsKind, PresenceNews};
use crate::rooms::presence::{Arriving, Bounds, Exit, LARGE_ROOM_MS, PageQuery, PresencePage, Roll};
use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Users that may leave one room at one look, so that its lock is held for milliseconds only.
const LEAVES_A_LOOK: usize = 2_000;

/// When to try again to hand a change to shards whose mailboxes are full, in milliseconds.
const FULL_RETRY_MS: u64 = 100;

/// Presence of one room. A room that never had any costs a pointer and a lock.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<Option<Box<State>>>);

#[derive(Debug)]
struct State {
    mode: PresenceMode,
    roll: Roll,
    /// Shards with watchers of counts and of names, a bit each.
    counts: u64,
    names: u64,
    /// Somebody could not be told the last change, and is to be told that it was missed at this time.
    missed_ms: Option<u64>,
    /// When the desk will look at the room, for each reason.
    leavers_at: Option<u64>,
    news_at: Option<u64>,
}

impl State {
    fn new() -> Self {
        Self {
            mode: PresenceMode::Off,
            roll: Roll::new(Bounds {
                grace_ms: 0,
                users_max: 0,
            }),
            counts: 0,
            names: 0,
            missed_ms: None,
            leavers_at: None,
            news_at: None,
        }
    }

    fn is_on(&self) -> bool {
        self.mode != PresenceMode::Off
    }

    /// Changes the roll and sees to it that somebody looks when something is due.
    fn change<T>(
        &mut self,
        room: &StdArc<Room>,
        desk: &PresenceDesk,
        change: impl FnOnce(&mut Roll) -> T,
    ) -> T {
        let before = self.roll.users();
        let answer = change(&mut self.roll);
        desk.count(before, self.roll.users());
        self.arm(room, desk);
        answer
    }

    fn arm(&mut self, room: &StdArc<Room>, desk: &PresenceDesk) {
        let leavers = self.roll.next_leave_ms();
        arm(&mut self.leavers_at, leavers, Reason::Leavers, room, desk);
        let news = self.roll.next_change_ms().into_iter().chain(self.missed_ms).min();
        arm(&mut self.news_at, news, Reason::News, room, desk);
    }
}

fn arm(armed: &mut Option<u64>, due: Option<u64>, reason: Reason, room: &StdArc<Room>, desk: &PresenceDesk) {
    if let Some(at_ms) = due
        && armed.is_none_or(|armed| at_ms < armed)
    {
        *armed = Some(at_ms);
        desk.due.lock().push(Reverse(Due {
            at_ms,
            reason,
            room: room.clone(),
        }));
    }
}

/// Rooms that somebody must look at, by time, and how many users are in rooms. One a node.
#[derive(Debug, Default)]
pub struct PresenceDesk {
    due: Mutex<BinaryHeap<Reverse<Due>>>,
    /// Users in rooms: one who is in two rooms counts twice.
    present: AtomicUsize,
}

#[derive(Debug)]
struct Due {
    at_ms: u64,
    reason: Reason,
    room: StdArc<Room>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Users who were lost did not come back.
    Leavers,
    /// Watchers are to be told.
    News,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at_ms == other.at_ms
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Order {
        self.at_ms.cmp(&other.at_ms)
    }
}

impl PresenceDesk {
    /// Users in rooms: one who is in two rooms counts twice.
    pub fn present(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }

    fn count(&self, before: usize, after: usize) {
        if after >= before {
            self.present.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.present.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Looks at the rooms where something is due, and at no others. To be called every 50 milliseconds or so.
    pub fn tick<M: From<StdArc<PresenceNews>>, W: Wake>(
        &self,
        now_ms: u64,
        mailboxes: &[StdArc<Mailbox<M, W>>],
    ) {
        loop {
            let due = {
                let mut queue = self.due.lock();
                match queue.peek() {
                    Some(Reverse(due)) if due.at_ms <= now_ms => queue.pop(),
                    _ => None,
                }
            };
            let Some(Reverse(Due { at_ms, reason, room })) = due else {
                return;
            };
            room.presence_due(self, at_ms, reason, now_ms, mailboxes);
        }
    }
}

impl Room {
    /// Keeps presence as the room's class says at this moment: the class is read under the same lock, so that of two changes at
    /// once the later one holds. Answers as [`set_presence`](Self::set_presence).
    pub fn follow_class(self: &StdArc<Self>, desk: &PresenceDesk, users_max: usize) -> bool {
        let mut presence = self.presence.0.lock();
        let mode = self.class().presence;
        self.keep_presence(&mut presence, desk, mode, users_max)
    }

    /// Sets whether presence is kept here. Switched off, it forgets who is here and tells watchers
    /// so. Answers whether it was switched on just now: then whoever has joined before must still [enter](Self::enter).
    pub fn set_presence(
        self: &StdArc<Self>,
        desk: &PresenceDesk,
        mode: PresenceMode,
        users_max: usize,
    ) -> bool {
        self.keep_presence(&mut self.presence.0.lock(), desk, mode, users_max)
    }

    fn keep_presence(
        self: &StdArc<Self>,
        presence: &mut Option<Box<State>>,
        desk: &PresenceDesk,
        mode: PresenceMode,
        users_max: usize,
    ) -> bool {
        if mode == PresenceMode::Off && presence.is_none() {
            return false;
        }
        let state = presence.get_or_insert_with(|| Box::new(State::new()));
        let was_on = state.is_on();
        state.mode = mode;
        match mode {
            PresenceMode::On { grace_ms } => state.roll.configure(Bounds { grace_ms, users_max }),
            PresenceMode::Off if state.roll.users() > 0 => state.change(self, desk, Roll::clear),
            PresenceMode::Off => {}
        }
        state.is_on() && !was_on
    }

    /// A connection is in the room, if presence is kept. Said twice, it is there once.
    pub fn enter(self: &StdArc<Self>, desk: &PresenceDesk, arriving: Arriving<'_>, now: Now) {
        if let Some(state) = self.presence.0.lock().as_mut().filter(|state| state.is_on()) {
            state.change(self, desk, |roll| roll.enter(arriving, now));
        }
    }

    /// A connection is in the room no more. One that never entered leaves nothing.
    pub fn exit(
        self: &StdArc<Self>,
        desk: &PresenceDesk,
        user: &UserId,
        connection: ConnectionId,
        exit: Exit,
        now_ms: u64,
    ) {
        if let Some(state) = self.presence.0.lock().as_mut() {
            state.change(self, desk, |roll| roll.exit(user, connection, exit, now_ms));
        }
    }

    /// What the watchers of this shard want at most.
    pub fn set_watch(&self, shard: usize, watch: Watch) {
        let mut presence = self.presence.0.lock();
        if watch == Watch::None && presence.is_none() {
            return;
        }
        let state = presence.get_or_insert_with(|| Box::new(State::new()));
        let bit = 1 << shard;
        let set = |bits: &mut u64, on| if on { *bits |= bit } else { *bits &= !bit };
        set(&mut state.counts, watch != Watch::None);
        set(&mut state.names, watch == Watch::Users);
        state.roll.watch(match (state.names, state.counts) {
            (0, 0) => Watch::None,
            (0, _) => Watch::Counts,
            _ => Watch::Users,
        });
        if state.counts == 0 {
            state.missed_ms = None;
        }
    }

    /// Somebody could not be told a change: he is told that he missed something as soon as he reads again.
    pub fn change_missed(self: &StdArc<Self>, desk: &PresenceDesk, now_ms: u64) {
        if let Some(state) = self.presence.0.lock().as_mut()
            && state.counts != 0
        {
            state.missed_ms.get_or_insert(now_ms + LARGE_ROOM_MS);
            state.arm(self, desk);
        }
    }

    /// Who is here; `None` if nobody ever was while presence was kept.
    pub fn presence(&self, query: PageQuery<'_>) -> Option<PresencePage> {
        let mut presence = self.presence.0.lock();
        let state = presence.as_mut().filter(|state| state.is_on())?;
        Some(state.roll.page(query))
    }

    fn presence_due<M: From<StdArc<PresenceNews>>, W: Wake>(
        self: &StdArc<Self>,
        desk: &PresenceDesk,
        at_ms: u64,
        reason: Reason,
        now_ms: u64,
        mailboxes: &[StdArc<Mailbox<M, W>>],
    ) {
        let mut presence = self.presence.0.lock();
        let Some(state) = presence.as_mut() else { return };
        let armed = match reason {
            Reason::Leavers => &mut state.leavers_at,
            Reason::News => &mut state.news_at,
        };
        // Another entry was earlier, and did what this one was for.
        if *armed != Some(at_ms) {
            return;
        }
        *armed = None;
        match reason {
            Reason::Leavers => state.change(self, desk, |roll| roll.expire(now_ms, LEAVES_A_LOOK)),
            Reason::News => {
                let shards = state.counts;
                if !tell(self, state, now_ms, mailboxes) {
                    // Not before: it would be tried over and over within this tick.
                    let retry = Some(now_ms + FULL_RETRY_MS);
                    arm(&mut state.news_at, retry, Reason::News, self, desk);
                    return;
                }
                state.arm(self, desk);
                drop(presence);
                bits(shards).for_each(|shard| mailboxes[shard].notify());
            }
        }
    }
}

/// Hands what there is to tell to the shards that watch. Answers `false` if one of them has no room for it.
fn tell<M: From<StdArc<PresenceNews>>, W: Wake>(
    room: &StdArc<Room>,
    state: &mut State,
    now_ms: u64,
    mailboxes: &[StdArc<Mailbox<M, W>>],
) -> bool {
    let changes = state.roll.next_change_ms().is_some_and(|at_ms| at_ms <= now_ms);
    let missed = state.missed_ms.is_some_and(|at_ms| at_ms <= now_ms);
    if state.counts == 0 || !(changes || missed) {
        return true;
    }
    let cost = PresenceNews::cost_of(state.roll.news_bytes());
    if reserve(state.counts, cost, mailboxes, None).is_err() {
        return false;
    }
    // A change also tells those who missed one.
    state.missed_ms = None;
    let (kind, change) = match state.roll.take_change(now_ms) {
        Some(change) => (NewsKind::Change, change),
        None => (NewsKind::Missed, state.roll.counts()),
    };
    let news = StdArc::new(PresenceNews::new(room.clone(), kind, change, cost));
    bits(state.counts).for_each(|shard| mailboxes[shard].push(M::from(news.clone())));
    true
}

#[cfg(all(test, not(shuttle)))]
mod tests;
