//! Who is there, put together from pages and from changes that come between them. Pure.
//!
//! Pages are of different versions, each for its range of names. A change counts for a name unless the page that holds the
//! name's place is of the change's version or a later one. What must stay true: once every page is here and every change up to
//! a version has been applied, the roster is what the broker had at that version.

use std::collections::{BTreeMap, VecDeque};

use super::{Presence, PresenceCounts, PresencePage, PresentUser};

/// Changes that may come while pages are loaded; more, and loading begins again.
const WAITING_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Roster {
    users: BTreeMap<String, PresentUser>,
    counts: PresenceCounts,
    counts_version: u64,
    loading: Option<Loading>,
    /// Counts the loadings, so that a page of one that was given up is known.
    generation: u64,
    /// Of which version each range of names was when it was loaded, by the range's last name; `None` has no last one. Kept
    /// until changes have passed all of them.
    ranges: Vec<(Option<String>, u64)>,
}

#[derive(Debug, Default)]
struct Loading {
    users: BTreeMap<String, PresentUser>,
    ranges: Vec<(Option<String>, u64)>,
    after: String,
    /// In the order of their versions.
    waiting: VecDeque<Presence>,
}

/// One difference that the application hears of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    Joined(PresentUser),
    Left(String),
    /// Of one who was there: other connections, or another description.
    Changed(PresentUser),
}

impl Roster {
    /// Everything has to be loaded; what was known stays until it is.
    pub(super) fn begin(&mut self) {
        self.loading = Some(Loading::default());
        self.counts_version = 0;
        self.generation += 1;
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    fn count(&mut self, counts: PresenceCounts, version: u64) {
        if version >= self.counts_version {
            self.counts = counts;
            self.counts_version = version;
        }
    }

    /// After which name the next page is wanted, if one is.
    pub(super) fn wants_after(&self) -> Option<&str> {
        self.loading.as_ref().map(|loading| loading.after.as_str())
    }

    /// The page that [`Roster::wants_after`] asked for.
    pub(super) fn page(&mut self, page: PresencePage) -> Vec<Difference> {
        self.count(page.counts, page.version);
        let Some(loading) = &mut self.loading else {
            return Vec::new();
        };
        let last = page.users.last().map(|last| last.user.clone());
        let more = page.more && last.as_ref().is_some_and(|last| *last > loading.after);
        loading.ranges.push((last.clone().filter(|_| more), page.version));
        loading
            .users
            .extend(page.users.into_iter().map(|user| (user.user.clone(), user)));
        if let (true, Some(last)) = (more, last) {
            loading.after = last;
            return Vec::new();
        }
        let loaded = self.loading.take().unwrap_or_default();
        let before = std::mem::replace(&mut self.users, loaded.users);
        self.ranges = loaded.ranges;
        for change in loaded.waiting {
            self.apply(change);
        }
        differences(&before, &self.users)
    }

    /// What the broker tells.
    pub(super) fn change(&mut self, change: Presence) -> Vec<Difference> {
        self.count(change.counts, change.version);
        if change.truncated {
            self.begin();
            return Vec::new();
        }
        match &mut self.loading {
            Some(loading) if loading.waiting.len() < WAITING_MAX => {
                loading.waiting.push_back(change);
                Vec::new()
            }
            Some(_) => {
                self.begin();
                Vec::new()
            }
            None => self.apply(change),
        }
    }

    fn apply(&mut self, change: Presence) -> Vec<Difference> {
        let mut told = Vec::new();
        for user in change.joined {
            if !self.is_newer(&user.user, change.version) {
                continue;
            }
            match self.users.insert(user.user.clone(), user.clone()) {
                None => told.push(Difference::Joined(user)),
                Some(before) if before == user => {}
                Some(_) => told.push(Difference::Changed(user)),
            }
        }
        for user in change.left {
            if self.is_newer(&user, change.version) && self.users.remove(&user).is_some() {
                told.push(Difference::Left(user));
            }
        }
        // Every later change is newer than all of these pages.
        if self.ranges.iter().all(|&(_, version)| version <= change.version) {
            self.ranges.clear();
        }
        told
    }

    fn is_newer(&self, name: &str, version: u64) -> bool {
        // Ranges lie in the order of names.
        let range = self
            .ranges
            .iter()
            .find(|(last, _)| last.as_deref().is_none_or(|last| name <= last));
        range.is_none_or(|&(_, loaded)| loaded < version)
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.loading.is_none()
    }

    pub(super) fn counts(&self) -> PresenceCounts {
        self.counts
    }

    pub(super) fn users(&self) -> &BTreeMap<String, PresentUser> {
        &self.users
    }
}

fn differences(
    before: &BTreeMap<String, PresentUser>,
    after: &BTreeMap<String, PresentUser>,
) -> Vec<Difference> {
    let left = before.keys().filter(|name| !after.contains_key(*name));
    let mut told: Vec<Difference> = left.map(|name| Difference::Left(name.clone())).collect();
    told.extend(after.values().filter_map(|user| match before.get(&user.user) {
        None => Some(Difference::Joined(user.clone())),
        Some(was) if was == user => None,
        Some(_) => Some(Difference::Changed(user.clone())),
    }));
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Op {
        Join(u8),
        Leave(u8),
        /// The broker tells what happened since it last told.
        Tell,
        /// It has lost count of the names.
        Truncate,
        /// So many told changes arrive.
        Arrive(usize),
        /// The page that is wanted is made, and arrives once the changes told before it have.
        Page(usize),
        Lose,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        prop::collection::vec(
            prop_oneof![
                4 => (0u8..12).prop_map(Op::Join),
                3 => (0u8..12).prop_map(Op::Leave),
                4 => Just(Op::Tell),
                1 => Just(Op::Truncate),
                4 => (0usize..4).prop_map(Op::Arrive),
                4 => (1usize..4).prop_map(Op::Page),
                1 => Just(Op::Lose),
            ],
            0..120,
        )
    }

    fn user(name: &str) -> PresentUser {
        PresentUser {
            user: name.to_owned(),
            info: bytes::Bytes::new(),
            connections: 1,
            since_unix_ms: 0,
        }
    }

    #[derive(Default)]
    struct Broker {
        users: BTreeSet<String>,
        /// Names to tell of: the broker keeps those of whom a page may have told.
        touched: BTreeSet<String>,
        version: u64,
        under_way: VecDeque<Presence>,
    }

    impl Broker {
        fn tell(&mut self, truncated: bool) {
            let change = Presence {
                version: self.version,
                counts: self.counts(),
                joined: self.touched.intersection(&self.users).map(|n| user(n)).collect(),
                left: self.touched.difference(&self.users).cloned().collect(),
                truncated: false,
            };
            self.touched.clear();
            self.under_way.push_back(match truncated {
                false => change,
                true => Presence {
                    joined: Vec::new(),
                    left: Vec::new(),
                    truncated,
                    ..change
                },
            });
        }

        fn set(&mut self, n: u8, present: bool) {
            let name = format!("u{n:02}");
            let changed = match present {
                true => self.users.insert(name.clone()),
                false => self.users.remove(&name),
            };
            if changed {
                self.touched.insert(name);
                self.version += 1;
            }
        }

        fn counts(&self) -> PresenceCounts {
            PresenceCounts {
                users: self.users.len() as u32,
                connections: self.users.len() as u32,
            }
        }

        fn page(&self, after: &str, limit: usize) -> PresencePage {
            let mut rest = self.users.iter().filter(|name| name.as_str() > after);
            let users = rest.by_ref().take(limit).map(|n| user(n)).collect();
            PresencePage {
                version: self.version,
                counts: self.counts(),
                users,
                more: rest.next().is_some(),
            }
        }
    }

    /// What an application has that only listens to the differences.
    fn follow(known: &mut BTreeSet<String>, told: Vec<Difference>) {
        for difference in told {
            match difference {
                Difference::Joined(user) => assert!(known.insert(user.user), "joined twice"),
                Difference::Left(name) => assert!(known.remove(&name), "left and was not there"),
                Difference::Changed(user) => assert!(known.contains(&user.user)),
            }
        }
    }

    proptest! {
        #[test]
        fn pages_and_changes_in_any_order_make_what_the_broker_has(ops in ops()) {
            let (mut broker, mut roster, mut known) = (Broker::default(), Roster::default(), BTreeSet::new());
            roster.begin();
            let arrive = |broker: &mut Broker, roster: &mut Roster, known: &mut BTreeSet<String>, count: usize| {
                for _ in 0..count {
                    if let Some(change) = broker.under_way.pop_front() {
                        follow(known, roster.change(change));
                    }
                }
            };
            for op in ops {
                match op {
                    Op::Join(n) => broker.set(n, true),
                    Op::Leave(n) => broker.set(n, false),
                    Op::Tell => broker.tell(false),
                    Op::Truncate => broker.tell(true),
                    Op::Arrive(count) => arrive(&mut broker, &mut roster, &mut known, count),
                    Op::Page(limit) => {
                        if let Some(after) = roster.wants_after().map(str::to_owned) {
                            let page = broker.page(&after, limit);
                            // A page overtakes nothing that was told before it, but changes told before may be under way to
                            // be told still.
                            let count = broker.under_way.len();
                            arrive(&mut broker, &mut roster, &mut known, count);
                            if roster.wants_after() == Some(after.as_str()) {
                                follow(&mut known, roster.page(page));
                            }
                        }
                    }
                    Op::Lose => {
                        broker.under_way.clear();
                        broker.touched.clear();
                        roster.begin();
                    }
                }
            }
            broker.tell(false);
            let count = broker.under_way.len();
            arrive(&mut broker, &mut roster, &mut known, count);
            while let Some(after) = roster.wants_after().map(str::to_owned) {
                let page = broker.page(&after, 3);
                follow(&mut known, roster.page(page));
            }
            let names: BTreeSet<String> = roster.users().keys().cloned().collect();
            prop_assert_eq!(&names, &broker.users);
            prop_assert_eq!(&known, &broker.users);
            prop_assert_eq!(roster.counts(), broker.counts());
        }
    }

    #[test]
    fn a_change_that_a_page_has_already_is_not_applied_again() {
        let mut roster = Roster::default();
        roster.begin();
        roster.page(PresencePage {
            version: 5,
            users: vec![user("ana")],
            ..PresencePage::default()
        });
        let late = Presence {
            version: 4,
            left: vec!["ana".into()],
            ..Presence::default()
        };
        assert!(roster.change(late).is_empty());
        assert!(roster.users().contains_key("ana"));
    }
}
