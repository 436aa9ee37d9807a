//! The rooms of one tenant by name.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc as StdArc;

use cauce_protocol::{Code, Epoch, Refusal, RoomId, RoomName};

use super::class::RoomClass;
use super::room::{
    Accepted, Budget, Head, Idle, Joined, Listener, Make, Manner, NotTaken, Reclassified, Room, Start, Tap,
};
use crate::mailbox::{Mailbox, Wake};
use crate::publication::{Draft, RoomKey, Shared};
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, random, step};

/// What is asked of a publisher when a shard is full: about what a full mailbox takes to drain.
const OVERLOADED_RETRY_MS: u32 = 200;

/// Rooms that one sweep looks at, so that it stays a matter of microseconds.
const SWEEP_ROOMS_MAX: usize = 1_000;

/// Bounds of one tenant's rooms.
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// Rooms that may exist at once.
    pub rooms_max: usize,
    /// How long a room without listeners keeps its numbering, in milliseconds.
    pub linger_ms: u64,
    /// Memory for the history of all rooms, in bytes.
    pub history_bytes_max: usize,
}

/// Tells the class of a room by its name.
pub type Classify = dyn Fn(&str) -> StdArc<RoomClass> + Send + Sync;

/// All rooms of one tenant. Nothing in it can name a room of another.
pub struct RoomTable {
    rooms: papaya::HashMap<RoomName, StdArc<Room>, foldhash::fast::RandomState>,
    /// Rooms in the table, counted before they enter so that the limit holds under races.
    count: AtomicUsize,
    /// Number of the next room on the wire: counted per tenant, so that it tells nothing about others.
    next_id: AtomicU64,
    /// Rooms that may have to close, by the time of the next look.
    lingering: Mutex<VecDeque<(u64, StdArc<Room>)>>,
    making: Mutex<Making>,
    budget: StdArc<Budget>,
    limits: TableLimits,
    keys: StdArc<RoomKeys>,
}

/// What a room is made after. Rooms enter and leave the table under its lock, so a new one goes on where the last of its name
/// ended, and is of the class that holds now or is told of a later one like all others.
struct Making {
    classify: StdArc<Classify>,
    /// Durable rooms that are not in use.
    dormant: HashMap<RoomName, Head, foldhash::fast::RandomState>,
}

impl fmt::Debug for RoomTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomTable")
            .field("rooms", &self.len())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Gives every room of the process a key of its own.
#[derive(Debug, Default)]
pub struct RoomKeys(AtomicU64);

impl RoomTable {
    pub fn new(limits: TableLimits, keys: StdArc<RoomKeys>) -> Self {
        Self {
            rooms: papaya::HashMap::with_hasher(foldhash::fast::RandomState::default()),
            count: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            lingering: Mutex::new(VecDeque::new()),
            making: Mutex::new(Making {
                classify: StdArc::new(|_| StdArc::default()),
                dormant: HashMap::default(),
            }),
            budget: StdArc::new(Budget::new(limits.history_bytes_max)),
            limits,
            keys,
        }
    }

    /// Rooms that exist now.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The room, if it exists.
    pub fn get(&self, name: &str) -> Option<StdArc<Room>> {
        step();
        self.rooms.pin().get(name).cloned()
    }

    /// The room, if it exists or existed durably: then it is made again.
    ///
    /// # Errors
    /// `quota_exceeded` if it would be one too many.
    pub fn wake(&self, name: &RoomName, now_ms: u64) -> Result<Option<StdArc<Room>>, Refusal> {
        if let Some(room) = self.get(name.as_str()) {
            return Ok(Some(room));
        }
        if self.making.lock().dormant.contains_key(name) {
            return self.get_or_make(name.as_str(), now_ms).map(Some);
        }
        Ok(None)
    }

    /// Calls `visit` with each room, in no order.
    pub fn for_each(&self, mut visit: impl FnMut(&StdArc<Room>)) {
        for (_, room) in &self.rooms.pin() {
            visit(room);
        }
    }

    /// Publishes to a room, which is made if it does not exist. `name` has been checked.
    ///
    /// # Errors
    /// `quota_exceeded` if the room would be one too many, `overloaded` if a shard cannot take the message now; then nobody
    /// got it and no number was given.
    pub fn publish<M: From<Shared>, W: Wake>(
        &self,
        name: &str,
        draft: Draft,
        manner: Manner<'_>,
        now_ms: u64,
        mailboxes: &[StdArc<Mailbox<M, W>>],
    ) -> Result<Accepted, Refusal> {
        loop {
            let room = self.get_or_make(name, now_ms)?;
            match room.publish(draft.clone(), manner, now_ms, mailboxes) {
                Ok(accepted) => return Ok(accepted),
                Err(NotTaken::Closed) => self.remove(&room),
                Err(NotTaken::Full(shard)) => {
                    tracing::debug!(shard, "a full mailbox refused a message");
                    return Err(overloaded());
                }
                Err(NotTaken::ShareFull(shard)) => {
                    tracing::debug!(
                        shard,
                        "a tenant's part of a mailbox is full, and refused a message"
                    );
                    return Err(share_overloaded());
                }
                Err(NotTaken::Refused(refusal)) => return Err(refusal),
            }
        }
    }

    /// Begins to listen to a room, which is made if it does not exist.
    ///
    /// # Errors
    /// `quota_exceeded` if the room would be one too many.
    pub fn join(
        &self,
        name: &RoomName,
        listener: Listener<'_>,
        start: Start,
        now_ms: u64,
    ) -> Result<Joined, Refusal> {
        loop {
            let room = self.get_or_make(name.as_str(), now_ms)?;
            match room.join(listener, start, now_ms) {
                Some((seq, entered)) => return Ok(Joined { room, seq, entered }),
                None => self.remove(&room),
            }
        }
    }

    /// A subscriber on `shard` leaves; `last` says that the shard has no other one in this room.
    pub fn leave_shard(&self, room: &StdArc<Room>, shard: usize, last: bool, now_ms: u64) {
        if room.leave_shard(shard, last, now_ms) {
            self.linger(room, now_ms);
        }
    }

    /// A tap leaves.
    pub fn leave_tap(&self, room: &StdArc<Room>, tap: &StdArc<Tap>, now_ms: u64) {
        if room.leave_tap(tap, now_ms) {
            self.linger(room, now_ms);
        }
    }

    /// Closes rooms that nobody has listened to for the linger time. To be called every second or so; does a bounded amount.
    pub fn sweep(&self, now_ms: u64) {
        let idle_before = now_ms.saturating_sub(self.limits.linger_ms);
        for _ in 0..SWEEP_ROOMS_MAX {
            let room = {
                let mut lingering = self.lingering.lock();
                match lingering.front() {
                    Some((look_at, _)) if *look_at <= now_ms => lingering.pop_front().map(|(_, room)| room),
                    _ => None,
                }
            };
            let Some(room) = room else { break };
            match room.close_if_idle(idle_before, now_ms) {
                Idle::InUse => {}
                Idle::Since(since_ms) => self.linger(&room, since_ms),
                Idle::Closed => self.remove(&room),
            }
        }
    }

    /// How rooms that are made from now on find their class.
    pub fn set_classify(&self, classify: StdArc<Classify>) {
        self.making.lock().classify = classify;
    }

    /// Gives every open room its class again. Calls `closed` with those that had to close, and the shards that have
    /// subscribers there, a bit each.
    pub fn reclassify(&self, now_ms: u64, mut closed: impl FnMut(&StdArc<Room>, u64)) {
        let classify = self.making.lock().classify.clone();
        let mut must_go = Vec::new();
        self.for_each(|room| {
            let class = classify(room.name.as_str());
            if room.class() == class {
                return;
            }
            match room.classify(class, now_ms) {
                Reclassified::Kept => {}
                Reclassified::Closed { shards } => must_go.push((room.clone(), shards)),
            }
        });
        for (room, shards) in must_go {
            self.remove(&room);
            // What the disk knows of it is of an earlier numbering from now on.
            self.making.lock().dormant.remove(&room.name);
            closed(&room, shards);
        }
    }

    /// Takes up where a durable room stood when the broker last ran.
    pub fn restore(&self, name: RoomName, head: Head) {
        self.making.lock().dormant.insert(name, head);
    }

    /// Bytes of history in memory.
    pub fn history_bytes(&self) -> usize {
        self.budget.used()
    }

    /// Whether rooms keep less than their classes say because the tenant's memory for history is taken, to within a part in
    /// sixteen: it is full when the next message lets an older one go.
    pub fn is_history_full(&self) -> bool {
        let bytes_max = self.limits.history_bytes_max;
        self.budget.used() > bytes_max - bytes_max / 16
    }

    fn linger(&self, room: &StdArc<Room>, since_ms: u64) {
        self.lingering
            .lock()
            .push_back((since_ms + self.limits.linger_ms, room.clone()));
    }

    fn get_or_make(&self, name: &str, now_ms: u64) -> Result<StdArc<Room>, Refusal> {
        if let Some(room) = self.get(name) {
            return Ok(room);
        }
        let name = RoomName::new(name).map_err(|e| Refusal::new(Code::Invalid, format!("room {e}")))?;
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.limits.rooms_max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            let message = format!(
                "the tenant has {} rooms, and may have no more",
                self.limits.rooms_max
            );
            return Err(Refusal::new(Code::QuotaExceeded, message).retry_after(1_000));
        }
        let key = RoomKey(self.keys.0.fetch_add(1, Ordering::Relaxed));
        let id = RoomId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let making = self.making.lock();
        let class = (making.classify)(name.as_str());
        let head = match class.is_durable() {
            true => making.dormant.get(&name).cloned(),
            false => None,
        };
        if class.is_durable() && head.is_none() && making.dormant.len() >= self.limits.rooms_max {
            drop(making);
            self.count.fetch_sub(1, Ordering::Relaxed);
            let message = format!(
                "the tenant has {} durable rooms, and may have no more",
                self.limits.rooms_max
            );
            return Err(Refusal::new(Code::QuotaExceeded, message).retry_after(60_000));
        }
        let made = StdArc::new(Room::new(Make {
            key,
            id,
            name: name.clone(),
            epoch: epoch(),
            head,
            class,
            budget: self.budget.clone(),
            now_ms,
        }));
        step();
        let room = self.rooms.pin().get_or_insert(name, made.clone()).clone();
        drop(making);
        if StdArc::ptr_eq(&room, &made) {
            self.linger(&room, now_ms);
        } else {
            // Somebody was faster: ours was never seen.
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(room)
    }

    /// Takes a closed room out of the table; whoever comes second finds another one there, or none.
    fn remove(&self, room: &StdArc<Room>) {
        let mut making = self.making.lock();
        step();
        let rooms = self.rooms.pin();
        if let Ok(Some(_)) = rooms.remove_if(room.name.as_str(), |_, other| StdArc::ptr_eq(other, room)) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            // Before it can be made again.
            if let Some(head) = room.head() {
                making.dormant.insert(room.name.clone(), head);
            }
        }
    }
}

/// What a publisher is told when a shard is full: nobody got the message, and it may be sent again.
pub fn overloaded() -> Refusal {
    let message = "the broker's queues are full; try again shortly";
    Refusal::new(Code::Overloaded, message).retry_after(OVERLOADED_RETRY_MS)
}

/// The same where the tenant's own messages are what is in the way.
pub fn share_overloaded() -> Refusal {
    let message = "this tenant's part of the broker's queues is full; publish more slowly";
    Refusal::new(Code::Overloaded, message).retry_after(OVERLOADED_RETRY_MS)
}

/// A random numbering, so that a position of an earlier life is never mistaken for one of this.
fn epoch() -> Epoch {
    Epoch((random() & cauce_protocol::limits::INTEGER_MAX).max(1))
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use cauce_protocol::{Payload, message::Text};

    use super::*;
    use crate::hub::ShardMailbox;
    use crate::mailbox::Share;

    /// Once, whoever came first could fill a mailbox, and all others were refused until the shard had taken it.
    #[test]
    fn a_tenant_that_fills_its_part_of_a_mailbox_leaves_the_rest_to_others() {
        let limits = TableLimits {
            rooms_max: 10,
            linger_ms: 60_000,
            history_bytes_max: usize::MAX,
        };
        let mailboxes =
            [1 << 20, 1 << 16].map(|capacity| StdArc::new(ShardMailbox::new(capacity, Default::default())));
        let keys = StdArc::<RoomKeys>::default();
        let tenants = [(); 2].map(|()| (RoomTable::new(limits, keys.clone()), StdArc::<Share>::default()));
        let name = RoomName::new("r").unwrap();
        let publish = |(table, share): &(RoomTable, StdArc<Share>)| {
            let draft = Draft::new(Text::from("e"), Payload::text("x".repeat(1_000)));
            let manner = Manner {
                share: Some(share),
                ..Manner::default()
            };
            table.publish("r", draft, manner, 1_000, &mailboxes)
        };
        for (table, _) in &tenants {
            for shard in 0..mailboxes.len() {
                table
                    .join(&name, Listener::Shard(shard), Start::Now, 1_000)
                    .unwrap();
            }
        }
        let [a, b] = &tenants;
        let mut accepted = 0;
        let refusal = loop {
            match publish(a) {
                Ok(_) => accepted += 1,
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal.code, Code::Overloaded);
        assert!(refusal.message.contains("this tenant") && refusal.retry_after_ms > 0);
        // The smaller mailbox decides, and what was refused has taken nothing of the other.
        let used = [0, 1].map(|shard| mailboxes[shard].used());
        assert_eq!(used, [a.1.used(0), a.1.used(1)]);
        assert_eq!(used[0], used[1]);
        assert!(used[1] <= 1 << 15, "{used:?}");
        for _ in 0..accepted {
            publish(b).expect("the other half");
        }
        assert_eq!((a.1.refused(), b.1.refused()), (1, 0));
        // When the shards have taken it, all is given back.
        for (shard, mailbox) in mailboxes.iter().enumerate() {
            while let Some(crate::hub::ShardMessage::Publication(publication)) = mailbox.pop() {
                mailbox.release(publication.cost());
                publication
                    .share
                    .as_ref()
                    .unwrap()
                    .release(shard, publication.cost());
            }
            assert_eq!((mailbox.used(), a.1.used(shard), b.1.used(shard)), (0, 0, 0));
        }
        publish(a).expect("room again");
    }

    #[test]
    fn a_room_stays_for_as_long_as_its_keys_are_promised() {
        let limits = TableLimits {
            rooms_max: 10,
            linger_ms: 60_000,
            history_bytes_max: usize::MAX,
        };
        let table = RoomTable::new(limits, StdArc::default());
        let mailboxes: [StdArc<ShardMailbox>; 0] = [];
        let publish = |now_ms: u64| {
            let repeat = crate::rooms::Repeat {
                publisher: "ann",
                key: "k",
                now_ms,
                window_ms: 300_000,
                keys_max: 10,
            };
            let draft = Draft::new(Text::from("e"), Payload::NULL);
            table
                .publish(
                    "r",
                    draft,
                    Manner {
                        repeat: Some(repeat),
                        ..Manner::default()
                    },
                    now_ms,
                    &mailboxes,
                )
                .unwrap()
        };
        assert!(!publish(1_000).repeated);
        for now_ms in (1_000..=299_000).step_by(1_000) {
            table.sweep(now_ms);
        }
        assert!(publish(300_000).repeated);
        for now_ms in (300_000..=500_000).step_by(1_000) {
            table.sweep(now_ms);
        }
        assert!(table.is_empty());
    }
}
