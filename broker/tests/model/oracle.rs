//! What must have been seen: a room's log and what it still keeps, and a subscriber that takes frame after frame and says
//! whether each was right. Pure: no socket and no clock.

use std::collections::{BTreeSet, HashMap};

/// One message as it was published.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) event: String,
    pub(crate) key: String,
    /// Tenant and a number that is never used twice.
    pub(crate) mark: String,
    pub(crate) excluded: Vec<u64>,
    pub(crate) user: String,
}

/// One room of one tenant.
#[derive(Debug, Default)]
pub(crate) struct RoomLog {
    pub(crate) epoch: Option<u64>,
    pub(crate) said: Vec<Said>,
    /// Messages that its class keeps.
    keep: u64,
    /// What lies before has left history.
    first: u64,
    /// By user and idempotency key.
    pub(crate) repeats: HashMap<(String, String), u64>,
    /// So much came at once that a reader may have fallen behind.
    pub(crate) burst: bool,
}

impl RoomLog {
    pub(crate) fn new(keep: u64) -> Self {
        Self {
            keep,
            first: 1,
            ..Self::default()
        }
    }

    pub(crate) fn head(&self) -> u64 {
        self.said.len() as u64
    }

    pub(crate) fn get(&self, seq: u64) -> &Said {
        usize::try_from(seq)
            .ok()
            .and_then(|seq| self.said.get(seq.checked_sub(1)?))
            .unwrap_or_else(|| panic!("number {seq} of {} was never given", self.head()))
    }

    /// Answers its number.
    pub(crate) fn publish(&mut self, said: Said) -> u64 {
        self.said.push(said);
        self.trim();
        self.head()
    }

    pub(crate) fn set_keep(&mut self, keep: u64) {
        self.keep = keep;
        self.trim();
    }

    fn trim(&mut self) {
        self.first = self.first.max((self.head() + 1).saturating_sub(self.keep));
    }

    /// The first number that is kept; one more than the last if none is.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The epoch that the broker tells is always the same.
    pub(crate) fn check_epoch(&mut self, told: u64) {
        assert_ne!(told, 0);
        assert_eq!(*self.epoch.get_or_insert(told), told, "another epoch");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Reliable,
    Latest,
    DropOldest,
    Sample,
}

/// Who a connection is when messages exclude it, and what it understands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Who {
    /// Its own id and those of earlier connections that it named.
    pub(crate) ids: Vec<u64>,
    pub(crate) knows_advance: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Meant,
    Filtered,
    Excluded,
}

/// One subscription of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Sub {
    pub(crate) who: Who,
    pub(crate) policy: Policy,
    pub(crate) events: Vec<String>,
    pub(crate) keys: Vec<String>,
    /// Where it began.
    pub(crate) from: u64,
    /// The position that the client would bring.
    pub(crate) after: u64,
    got: BTreeSet<u64>,
    lost: BTreeSet<u64>,
}

impl Sub {
    pub(crate) fn new(who: Who, policy: Policy, events: Vec<String>, keys: Vec<String>, from: u64) -> Self {
        Self {
            who,
            policy,
            events,
            keys,
            from,
            after: from,
            got: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    fn fate(&self, said: &Said) -> Fate {
        let named = |names: &[String], name: &String| names.is_empty() || names.contains(name);
        if !named(&self.events, &said.event) || !named(&self.keys, &said.key) {
            Fate::Filtered
        } else if said.excluded.iter().any(|id| self.who.ids.contains(id)) {
            Fate::Excluded
        } else {
            Fate::Meant
        }
    }

    /// Older messages of a key may give way to newer ones.
    fn is_lossy(&self, room: &RoomLog) -> bool {
        match self.policy {
            Policy::Reliable | Policy::DropOldest => false,
            Policy::Latest => room.burst,
            Policy::Sample => true,
        }
    }

    /// Nothing was said of the numbers before this one.
    fn pass(&self, room: &RoomLog, before: u64) {
        assert!(
            before > self.after,
            "{before} comes after {}: twice, or out of order",
            self.after
        );
        assert!(before <= room.head() + 1, "a number that was never given");
        if self.is_lossy(room) {
            return;
        }
        for seq in self.after + 1..before {
            match self.fate(room.get(seq)) {
                Fate::Filtered => {}
                Fate::Excluded => assert!(
                    !self.who.knows_advance,
                    "{seq} was not for it, and it was not told"
                ),
                Fate::Meant => panic!("{seq} was left out before {before}: {:?}", room.get(seq)),
            }
        }
    }

    pub(crate) fn push(&mut self, room: &RoomLog, seq: u64, event: &str, key: &str, mark: &str) {
        self.pass(room, seq);
        let said = room.get(seq);
        assert_eq!(
            (event, key, mark),
            (&*said.event, &*said.key, &*said.mark),
            "number {seq}"
        );
        assert_eq!(self.fate(said), Fate::Meant, "{seq} was not for it: {said:?}");
        self.got.insert(seq);
        self.after = seq;
    }

    pub(crate) fn advance(&mut self, room: &RoomLog, seq: u64) {
        assert!(self.who.knows_advance);
        self.pass(room, seq);
        assert_ne!(self.fate(room.get(seq)), Fate::Meant, "{seq} was for it");
        self.after = seq;
    }

    pub(crate) fn gap(&mut self, room: &RoomLog, from: u64, to: u64) {
        assert!(
            room.burst,
            "nobody could fall behind, and {from} to {to} are lost"
        );
        assert!(from <= to && to <= room.head());
        self.pass(room, from);
        match self.policy {
            Policy::Reliable => assert!(to < room.first(), "{from} to {to} are called lost, and are kept"),
            Policy::DropOldest | Policy::Latest | Policy::Sample => {}
        }
        self.lost.extend(from..=to);
        self.after = to;
    }

    /// It is told, to a client that joins again, that its pushes stand here.
    pub(crate) fn stands_at(&mut self, room: &RoomLog, seq: u64) {
        assert!(seq <= room.head());
        if seq > self.after {
            self.pass(room, seq + 1);
            if self.is_lossy(room) {
                // Whoever brings this position again is owed nothing that lies before it.
                self.assert_newest(room, seq);
            }
            self.after = seq;
        }
        assert!(
            seq == self.after,
            "it has {} already, and is told {seq}",
            self.after
        );
    }

    /// Nothing more has to come.
    pub(crate) fn is_complete(&self, room: &RoomLog) -> bool {
        if matches!(self.policy, Policy::Latest | Policy::Sample) {
            return self.missing(room, room.head()).is_none();
        }
        (self.after + 1..=room.head()).all(|seq| match self.fate(room.get(seq)) {
            Fate::Filtered => true,
            Fate::Excluded => !self.who.knows_advance,
            Fate::Meant => false,
        })
    }

    pub(crate) fn check_end(&self, room: &RoomLog) {
        if self.is_lossy(room) {
            self.assert_newest(room, room.head());
            return;
        }
        for seq in self.from + 1..=room.head() {
            let told = usize::from(self.got.contains(&seq)) + usize::from(self.lost.contains(&seq));
            match self.fate(room.get(seq)) {
                Fate::Meant => assert_eq!(told, 1, "{seq}: {:?}", room.get(seq)),
                Fate::Filtered | Fate::Excluded => assert!(!self.got.contains(&seq)),
            }
        }
    }

    fn assert_newest(&self, room: &RoomLog, upto: u64) {
        if let Some(seq) = self.missing(room, upto) {
            panic!("the newest of its key has not come: {seq} {:?}", room.get(seq));
        }
    }

    /// A message up to this number that was for it and neither came, nor was lost, nor gave way to a newer one of its key.
    fn missing(&self, room: &RoomLog, upto: u64) -> Option<u64> {
        let mut newer = BTreeSet::new();
        for seq in (self.from + 1..=room.head()).rev() {
            let said = room.get(seq);
            if self.fate(said) != Fate::Meant {
                continue;
            }
            let had = self.got.contains(&seq) || self.lost.contains(&seq);
            if seq <= upto && !had && !newer.contains(&said.key) {
                return Some(seq);
            }
            newer.insert(said.key.clone());
        }
        None
    }
}
