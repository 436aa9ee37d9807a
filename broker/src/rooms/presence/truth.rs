//! The roll against a model, and watchers that must end with the truth whatever they hear late, miss or see in pages.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::tests::{GRACE_MS, enter, exit, names, roll, user};
use super::*;

/// What a client does with pages and changes: for every name, the newest word counts.
#[derive(Debug, Default)]
struct Watcher {
    /// Where each page ended, and its version. The last page has no end.
    pages: Vec<(Option<String>, u64)>,
    known: BTreeSet<String>,
    /// The newest counts, and their version.
    counts: (u64, u32, u32),
    /// The broker could not tell it a change.
    missed: bool,
}

impl Watcher {
    fn is_whole(&self) -> bool {
        self.pages.last().is_some_and(|(end, _)| end.is_none())
    }

    fn count(&mut self, version: u64, users: u32, connections: u32) {
        if version >= self.counts.0 {
            self.counts = (version, users, connections);
        }
    }

    fn take_page(&mut self, roll: &mut Roll, limit: u32) {
        if self.is_whole() {
            self.pages.clear();
            self.known.clear();
        }
        let after = self.pages.last().and_then(|(end, _)| end.clone());
        let page = roll.page(PageQuery {
            after: after.as_deref(),
            limit,
            counts_only: false,
        });
        // Nothing of what was heard of these names is newer than the page.
        self.known
            .retain(|name| after.as_ref().is_some_and(|after| name <= after));
        let end = page.page.last().filter(|_| page.more);
        self.pages
            .push((end.map(|present| present.user.to_string()), page.version));
        self.count(page.version, page.users, page.connections);
        self.known
            .extend(page.page.into_iter().map(|present| present.user.to_string()));
    }

    /// The version of the page that the name belongs to, if that page was taken.
    fn version_of(&self, name: &str) -> Option<u64> {
        self.pages
            .iter()
            .find(|(end, _)| end.as_ref().is_none_or(|end| name <= end.as_str()))
            .map(|&(_, version)| version)
    }

    fn hear(&mut self, change: &Change, truncated: bool) {
        self.count(change.version, change.users, change.connections);
        if truncated {
            // Pages that are older tell nothing certain any more.
            if self.pages.iter().any(|&(_, version)| version < change.version) {
                self.pages.clear();
                self.known.clear();
            }
            return;
        }
        let newer = |watcher: &Self, name: &str| {
            watcher
                .version_of(name)
                .is_some_and(|version| version < change.version)
        };
        for user in &change.left {
            if newer(self, user.as_str()) {
                self.known.remove(user.as_str());
            }
        }
        for present in &change.joined {
            if newer(self, present.user.as_str()) {
                self.known.insert(present.user.to_string());
            }
        }
    }
}

/// What must be true of a user, in the plainest words.
#[derive(Clone, Debug, Default)]
struct Model {
    connections: BTreeSet<u64>,
    /// Lost connections that may come back, by the time that the last of them has.
    lost: u32,
    until_ms: u64,
    present: bool,
}

impl Model {
    fn settle(&mut self, now_ms: u64) {
        if self.until_ms <= now_ms {
            self.lost = 0;
        }
        self.present = !self.connections.is_empty() || (self.present && self.lost > 0);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Enter(usize, u64),
    Exit(usize, u64, bool),
    Wait(u64),
    /// A change is told, if one is due.
    Tell,
    /// More names change than a change may hold.
    Flood,
    /// A watcher takes a page.
    Page(usize, u32),
    /// The next change reaches a watcher.
    Hear(usize),
    /// A watcher takes no bytes when the next change comes.
    Miss(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let who = || (0usize..12, 0u64..3);
    let op = prop_oneof![
        6 => who().prop_map(|(user, tab)| Op::Enter(user, tab)),
        5 => (who(), any::<bool>()).prop_map(|((user, tab), lost)| Op::Exit(user, tab, lost)),
        2 => (0u64..3_000).prop_map(Op::Wait),
        6 => Just(Op::Tell),
        1 => Just(Op::Flood),
        3 => (0usize..2, 1u32..6).prop_map(|(watcher, limit)| Op::Page(watcher, limit)),
        5 => (0usize..2).prop_map(Op::Hear),
        1 => (0usize..2).prop_map(Op::Miss),
    ];
    prop::collection::vec(op, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn pages_and_later_changes_make_the_truth(ops in ops(), users_max in prop_oneof![Just(100usize), 1usize..8]) {
        let mut roll = roll(users_max);
        let mut models = vec![Model::default(); 12];
        let mut watchers = [Watcher::default(), Watcher::default()];
        // Told and not heard yet, by watcher.
        let mut on_the_way: [VecDeque<Change>; 2] = Default::default();
        // One who hears everything at once, and counts joins and leaves.
        let mut present: HashMap<String, bool> = HashMap::new();
        let mut flooded = false;
        let mut at_ms = 1_000;
        for op in ops {
            match op {
                Op::Enter(n, tab) => {
                    let connection = n as u64 * 10 + tab;
                    enter(&mut roll, n, connection, at_ms);
                    let model = &mut models[n];
                    if model.connections.insert(connection) {
                        model.settle(at_ms);
                        model.lost = model.lost.saturating_sub(1);
                        model.present = true;
                    }
                }
                Op::Exit(n, tab, lost) => {
                    let connection = n as u64 * 10 + tab;
                    exit(&mut roll, n, connection, if lost { Exit::Lost } else { Exit::Left }, at_ms);
                    let model = &mut models[n];
                    if model.connections.remove(&connection) {
                        if model.until_ms <= at_ms {
                            model.lost = 0;
                        }
                        if lost {
                            model.lost += 1;
                            model.until_ms = at_ms + GRACE_MS;
                        }
                        model.settle(at_ms);
                    }
                }
                Op::Wait(ms) => {
                    at_ms += ms;
                    roll.expire(at_ms, usize::MAX);
                    models.iter_mut().for_each(|model| model.settle(at_ms));
                }
                Op::Tell => {
                    if let Some(change) = roll.take_change(at_ms) {
                        for user in &change.left {
                            present.insert(user.to_string(), false);
                        }
                        for user in &change.joined {
                            present.insert(user.user.to_string(), true);
                        }
                        on_the_way.iter_mut().for_each(|queue| queue.push_back(change.clone()));
                    }
                }
                Op::Flood => {
                    flooded = true;
                    roll.news.leave_out();
                }
                Op::Page(watcher, limit) => watchers[watcher].take_page(&mut roll, limit),
                Op::Hear(watcher) => {
                    if let Some(change) = on_the_way[watcher].pop_front() {
                        let watcher = &mut watchers[watcher];
                        let truncated = std::mem::take(&mut watcher.missed) || change.truncated;
                        watcher.hear(&change, truncated);
                    }
                }
                Op::Miss(watcher) => {
                    watchers[watcher].missed |= on_the_way[watcher].pop_front().is_some();
                }
            }
            let connections: usize = models.iter().map(|model| model.connections.len()).sum();
            prop_assert_eq!(roll.connections as usize, connections);
            if users_max == 100 {
                let alive: Vec<String> = models.iter().enumerate().filter(|(_, m)| m.present)
                    .map(|(n, _)| user(n).to_string()).collect();
                prop_assert_eq!(names(&roll), alive);
            } else {
                prop_assert!(roll.listed.len() <= users_max);
                prop_assert!(roll.unlisted.is_empty() || roll.listed.len() == users_max);
            }
        }
        // All is told and heard; whoever missed something, or has not seen all pages, takes them.
        if let Some(change) = roll.take_change(at_ms + LARGE_ROOM_MS) {
            for user in &change.left {
                present.insert(user.to_string(), false);
            }
            for user in &change.joined {
                present.insert(user.user.to_string(), true);
            }
            on_the_way.iter_mut().for_each(|queue| queue.push_back(change.clone()));
        }
        let truth: BTreeSet<String> = roll.listed.keys().map(ToString::to_string).collect();
        for (watcher, mut queue) in watchers.iter_mut().zip(on_the_way) {
            while let Some(change) = queue.pop_front() {
                let truncated = std::mem::take(&mut watcher.missed) || change.truncated;
                watcher.hear(&change, truncated);
            }
            if watcher.missed {
                watcher.hear(&roll.counts(), true);
            }
            while !watcher.is_whole() {
                watcher.take_page(&mut roll, 3);
            }
            prop_assert_eq!(&watcher.known, &truth);
            prop_assert_eq!(watcher.counts.1 as usize, roll.users());
            prop_assert_eq!(watcher.counts.2, roll.connections);
        }
        let heard: BTreeSet<String> = present.into_iter().filter(|&(_, here)| here).map(|(name, _)| name).collect();
        if !flooded {
            prop_assert_eq!(heard, truth, "changes alone lead there too, from an empty room on");
        }
    }
}
