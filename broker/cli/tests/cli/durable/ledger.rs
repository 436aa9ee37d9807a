//! What anybody was told, saw or read of any message, and that all of it agrees.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use cauce_protocol::{Epoch, Position, Seq};

/// A position in a room's numbering.
pub(super) type At = (Epoch, Seq);

/// What the messages carry: who published it, and the how manyeth of his it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) publisher: usize,
    pub(super) n: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.publisher, self.n)
    }
}

impl Id {
    pub(super) fn read(text: &str) -> Self {
        let (publisher, n) = text.split_once(' ').expect("a publisher and a number");
        Self {
            publisher: publisher.parse().expect("a publisher"),
            n: n.parse().expect("a number"),
        }
    }
}

#[derive(Debug, Default)]
struct Room {
    /// Whose a number is, by whoever saw it: never another's.
    numbers: HashMap<At, Id>,
    /// Acknowledged as on the disk.
    acknowledged: BTreeMap<Id, At>,
    /// As far as history was last read.
    kept: BTreeMap<Id, At>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    rooms: HashMap<String, Room>,
    /// What publishers sent and will repeat until it is acknowledged.
    insisted: HashMap<Id, String>,
    /// Where the follower was when the broker died.
    pub(super) followed: Option<Position>,
    repeats: u64,
    observed: u64,
}

impl Ledger {
    pub(super) fn rooms(&self) -> Vec<String> {
        self.rooms.keys().cloned().collect()
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.rooms
            .values()
            .map(|room| room.acknowledged.len() as u64)
            .sum()
    }

    /// A publisher is about to send this, and will not rest before it is acknowledged.
    pub(super) fn insists(&mut self, room: &str, id: &Id) {
        self.rooms.entry(room.to_owned()).or_default();
        self.insisted.insert(id.clone(), room.to_owned());
    }

    /// Somebody has seen this message under this number.
    fn seen(&mut self, room: &str, at: At, id: &Id) {
        let numbers = &mut self.rooms.entry(room.to_owned()).or_default().numbers;
        let owner = numbers.entry(at).or_insert_with(|| id.clone());
        assert_eq!(owner, id, "{room} {at:?} was given to two messages");
    }

    /// A publisher was told that its message has this number, and perhaps that it is on the disk.
    pub(super) fn told(&mut self, room: &str, at: At, id: &Id, durable: bool, repeated: bool) {
        self.seen(room, at, id);
        self.repeats += u64::from(repeated);
        let room = self.rooms.entry(room.to_owned()).or_default();
        if let Some(before) = room.kept.get(id) {
            assert_eq!(
                (*before, repeated),
                (at, true),
                "{id} was there and was taken again"
            );
        }
        if durable {
            let before = room.acknowledged.insert(id.clone(), at);
            assert!(
                before.is_none(),
                "{id} was acknowledged at {before:?} and at {at:?}"
            );
        }
    }

    /// A subscriber was given this message live, or from what it had missed.
    pub(super) fn observed(&mut self, room: &str, at: At, id: &Id) {
        self.seen(room, at, id);
        self.observed += 1;
    }

    /// A subscriber was told that these numbers are lost: nothing acknowledged is among them.
    pub(super) fn lost(&self, room: &str, from: At, to: Seq) {
        let Some(room) = self.rooms.get(room) else {
            return;
        };
        for (id, at) in &room.acknowledged {
            assert!(
                at.0 != from.0 || at.1 < from.1 || at.1 > to,
                "{id} at {at:?} was acknowledged and is told as lost"
            );
        }
    }

    /// All that history shows of a room, in its order.
    pub(super) fn kept(&mut self, name: &str, epoch: Epoch, entries: Vec<(Seq, Id)>) {
        let mut kept = BTreeMap::new();
        // Publishers that have one message on its way at a time are in order among themselves.
        let mut last = HashMap::new();
        let mut before = Seq(0);
        for (seq, id) in entries {
            assert!(seq > before, "{name}: {seq:?} comes after {before:?}");
            before = seq;
            self.seen(name, (epoch, seq), &id);
            if id.publisher < super::load::SEQUENTIAL {
                let previous = last.insert(id.publisher, id.n);
                assert!(previous < Some(id.n), "{name}: {id} comes after {previous:?}");
            }
            let double = kept.insert(id.clone(), (epoch, seq));
            assert!(
                double.is_none(),
                "{name}: {id} is there twice, at {double:?} and at {seq:?}"
            );
        }
        let room = self.rooms.entry(name.to_owned()).or_default();
        for (id, at) in &room.acknowledged {
            assert_eq!(kept.get(id), Some(at), "{name}: {id} was acknowledged at {at:?}");
        }
        for (id, at) in &room.kept {
            assert_eq!(kept.get(id), Some(at), "{name}: {id} was there at {at:?}");
        }
        room.kept = kept;
    }

    /// Every number that anybody has seen is there, and no number was left out: after a stop in order, acknowledged or not.
    pub(super) fn check_nothing_was_numbered_in_vain(&self) {
        for (name, room) in &self.rooms {
            let kept: HashSet<&At> = room.kept.values().collect();
            for (at, id) in &room.numbers {
                assert!(
                    kept.contains(at),
                    "{name}: {id} at {at:?} was numbered and is not there"
                );
            }
            let last = kept.iter().map(|at| at.1.0).max().unwrap_or(0);
            assert_eq!(kept.len() as u64, last, "{name}: a number was left out");
        }
    }

    /// Everything that a publisher insisted on is there.
    pub(super) fn check_complete(&self) {
        for (id, room) in &self.insisted {
            assert!(
                self.rooms[room].kept.contains_key(id),
                "{room}: {id} is not there"
            );
        }
        let distinct: HashSet<&Id> = self.rooms.values().flat_map(|room| room.kept.keys()).collect();
        let all: usize = self.rooms.values().map(|room| room.kept.len()).sum();
        assert_eq!(distinct.len(), all, "a message is in two rooms");
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept: usize = self.rooms.values().map(|room| room.kept.len()).sum();
        let numbers: usize = self.rooms.values().map(|room| room.numbers.len()).sum();
        write!(
            f,
            "{} acknowledged, {kept} kept, {numbers} numbers seen, {} seen by a subscriber, {} repeats recognised, {} rooms",
            self.acknowledged(),
            self.observed,
            self.repeats,
            self.rooms.len()
        )
    }
}
