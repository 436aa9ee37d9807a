//! The roll against a model, and watchers that must end with the truth.

use std::collections::{BTreeSet, HashMap, VecDeque};

use proptest::prelude::*;

use super::*;

const GRACE_MS: u64 = 5_000;

fn roll(users_max: usize) -> Roll {
    let mut roll = Roll::new(Bounds {
        grace_ms: GRACE_MS,
        users_max,
    });
    roll.watch(Watch::Users);
    roll
}

fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n:02}")).unwrap()
}

fn now(mono_ms: u64) -> Now {
    Now {
        mono_ms,
        unix_ms: mono_ms + 1_000_000,
    }
}

fn enter(roll: &mut Roll, n: usize, connection: u64, at_ms: u64) {
    let arriving = Arriving {
        user: &user(n),
        connection: ConnectionId(connection),
        info: &Bytes::new(),
    };
    roll.enter(arriving, now(at_ms));
}

fn exit(roll: &mut Roll, n: usize, connection: u64, how: Exit, at_ms: u64) {
    roll.exit(&user(n), ConnectionId(connection), how, at_ms);
}

fn names(roll: &Roll) -> Vec<&str> {
    roll.listed.keys().map(UserId::as_str).collect()
}

/// The next change, whenever it may be told.
fn change(roll: &mut Roll) -> Option<Change> {
    roll.take_change(u64::MAX / 2).map(|mut change| {
        roll.news.not_before_ms = 0;
        change.version = 0;
        change
    })
}

fn told(roll: &mut Roll) -> (Vec<String>, Vec<String>) {
    let change = change(roll).unwrap_or_default();
    assert!(!change.truncated);
    let joined = change.joined.iter().map(|present| present.user.to_string());
    (
        joined.collect(),
        change.left.iter().map(ToString::to_string).collect(),
    )
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn many_tabs_make_one_join_and_one_leave() {
    let mut roll = roll(100);
    for tab in 1..=5 {
        enter(&mut roll, 1, tab, 0);
    }
    assert_eq!(told(&mut roll), (words(&["u01"]), vec![]));
    let page = roll.page(PageQuery::default());
    assert_eq!(
        (page.users, page.connections, page.page[0].connections),
        (1, 5, 5)
    );
    for tab in 1..=4 {
        exit(&mut roll, 1, tab, Exit::Left, 0);
        assert_eq!(told(&mut roll), (vec![], vec![]));
    }
    exit(&mut roll, 1, 5, Exit::Left, 0);
    assert_eq!(told(&mut roll), (vec![], words(&["u01"])));
    assert_eq!((roll.users(), roll.connections), (0, 0));
}

#[test]
fn who_comes_back_in_time_has_never_been_away() {
    let mut roll = roll(100);
    enter(&mut roll, 1, 1, 0);
    told(&mut roll);
    exit(&mut roll, 1, 1, Exit::Lost, 10_000);
    assert_eq!(roll.next_leave_ms(), Some(10_000 + GRACE_MS));
    roll.expire(10_000 + GRACE_MS - 1, 100);
    enter(&mut roll, 1, 2, 10_000 + GRACE_MS - 1);
    assert_eq!(roll.next_leave_ms(), None);
    roll.expire(u64::MAX, 100);
    assert_eq!(told(&mut roll), (vec![], vec![]));
    assert_eq!(roll.page(PageQuery::default()).page[0].since_unix_ms, 1_000_000);
}

#[test]
fn who_does_not_come_back_leaves_once_when_his_time_is_over() {
    let mut roll = roll(100);
    enter(&mut roll, 1, 1, 0);
    told(&mut roll);
    exit(&mut roll, 1, 1, Exit::Lost, 10_000);
    exit(&mut roll, 1, 1, Exit::Lost, 11_000);
    roll.expire(10_000 + GRACE_MS - 1, 100);
    let page = roll.page(PageQuery::default());
    assert_eq!(
        (page.users, page.connections, page.page[0].connections),
        (1, 0, 0)
    );
    roll.expire(10_000 + GRACE_MS, 100);
    assert_eq!(told(&mut roll), (vec![], words(&["u01"])));
    roll.expire(u64::MAX, 100);
    assert_eq!(told(&mut roll), (vec![], vec![]));
}

#[test]
fn an_unsubscribe_is_a_leave_at_once_unless_another_tab_was_just_lost() {
    let mut roll = roll(100);
    enter(&mut roll, 1, 1, 0);
    exit(&mut roll, 1, 1, Exit::Left, 1);
    assert_eq!(roll.users(), 0);
    // Lost and back: nothing is owed to it any more.
    enter(&mut roll, 1, 2, 10);
    exit(&mut roll, 1, 2, Exit::Lost, 11);
    enter(&mut roll, 1, 3, 12);
    exit(&mut roll, 1, 3, Exit::Left, 13);
    assert_eq!(roll.users(), 0);
    // One tab was lost and may come back; the other unsubscribes.
    enter(&mut roll, 1, 4, 20);
    enter(&mut roll, 1, 5, 20);
    exit(&mut roll, 1, 4, Exit::Lost, 21);
    exit(&mut roll, 1, 5, Exit::Left, 22);
    assert_eq!(roll.next_leave_ms(), Some(21 + GRACE_MS));
    // The same, when the time of the lost one is over.
    enter(&mut roll, 1, 6, 23);
    enter(&mut roll, 1, 7, 23);
    exit(&mut roll, 1, 6, Exit::Lost, 24);
    exit(&mut roll, 1, 7, Exit::Left, 24 + GRACE_MS);
    assert_eq!(roll.users(), 0);
}

#[test]
fn whoever_never_entered_takes_nobody_with_him() {
    let mut roll = roll(100);
    enter(&mut roll, 1, 1, 0);
    exit(&mut roll, 1, 2, Exit::Left, 0);
    exit(&mut roll, 2, 1, Exit::Left, 0);
    enter(&mut roll, 1, 1, 0);
    assert_eq!((roll.users(), roll.connections), (1, 1));
}

#[test]
fn what_comes_and_goes_between_two_changes_is_not_told_unless_a_page_showed_it() {
    let mut roll = roll(100);
    enter(&mut roll, 1, 1, 0);
    told(&mut roll);
    enter(&mut roll, 2, 2, 0);
    exit(&mut roll, 2, 2, Exit::Left, 0);
    exit(&mut roll, 1, 1, Exit::Left, 0);
    enter(&mut roll, 1, 1, 0);
    assert_eq!(told(&mut roll), (vec![], vec![]));
    enter(&mut roll, 2, 2, 0);
    roll.page(PageQuery {
        counts_only: true,
        ..PageQuery::default()
    });
    exit(&mut roll, 2, 2, Exit::Left, 0);
    assert_eq!(told(&mut roll), (vec![], vec![]));
    enter(&mut roll, 2, 2, 0);
    roll.page(PageQuery::default());
    exit(&mut roll, 2, 2, Exit::Left, 0);
    assert_eq!(told(&mut roll), (vec![], words(&["u02"])));
}

#[test]
fn more_names_than_a_change_may_hold_are_told_as_counts() {
    let mut roll = roll(10_000);
    for n in 0..=CHANGE_NAMES_MAX {
        enter(&mut roll, n, n as u64, 0);
    }
    let all = CHANGE_NAMES_MAX + 1;
    let change = change(&mut roll).unwrap();
    assert!(change.truncated && change.joined.is_empty() && change.left.is_empty());
    assert_eq!((change.users, change.connections), (all as u32, all as u32));
    // The next one tells names again.
    exit(&mut roll, 7, 7, Exit::Left, 0);
    assert_eq!(told(&mut roll), (vec![], words(&["u07"])));
}

#[test]
fn a_change_and_a_page_are_bounded_in_bytes() {
    let mut roll = roll(10_000);
    let info = Bytes::from(vec![b'1'; 1_024]);
    for n in 0..400 {
        let arriving = Arriving {
            user: &user(n),
            connection: ConnectionId(n as u64),
            info: &info,
        };
        roll.enter(arriving, now(0));
        if n == 50 {
            assert!(!change(&mut roll).unwrap().truncated);
        }
        if n == 150 {
            assert!(roll.news_bytes() > CHANGE_BYTES_MAX);
            assert!(change(&mut roll).unwrap().truncated);
        }
    }
    let (mut seen, mut after) = (0, None);
    loop {
        let page = roll.page(PageQuery {
            after: after.as_deref(),
            limit: 1_000,
            counts_only: false,
        });
        assert!(page.page.len() * 1_024 <= PAGE_BYTES_MAX && !page.page.is_empty());
        seen += page.page.len();
        after = page.page.last().map(|present| present.user.to_string());
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, 400);
}

#[test]
fn users_beyond_the_bound_are_counted_and_listed_when_there_is_room() {
    let mut roll = roll(2);
    for n in 1..=4 {
        enter(&mut roll, n, n as u64, 0);
    }
    assert_eq!((names(&roll), roll.users()), (vec!["u01", "u02"], 4));
    assert_eq!(told(&mut roll), (words(&["u01", "u02"]), vec![]));
    // Nobody is kept who is not listed.
    exit(&mut roll, 4, 4, Exit::Lost, 0);
    assert_eq!(roll.users(), 3);
    exit(&mut roll, 1, 1, Exit::Left, 0);
    assert_eq!((names(&roll), roll.users()), (vec!["u02", "u03"], 2));
    assert_eq!(told(&mut roll), (words(&["u03"]), words(&["u01"])));
}

#[test]
fn changes_are_told_ten_times_a_second_in_a_small_room_and_once_in_a_large_one() {
    let mut roll = roll(10_000);
    for (connections, window_ms) in [
        (SMALL_ROOM_CONNECTIONS as usize, SMALL_ROOM_MS),
        (1 + SMALL_ROOM_CONNECTIONS as usize, LARGE_ROOM_MS),
    ] {
        for n in 0..connections {
            enter(&mut roll, n, n as u64, 0);
        }
        let start = roll.news.not_before_ms;
        assert!(roll.take_change(start).is_some());
        exit(&mut roll, 0, 0, Exit::Left, start);
        enter(&mut roll, 0, 0, start);
        assert!(roll.take_change(start + window_ms - 1).is_none());
        assert!(roll.take_change(start + window_ms).is_some());
        assert_eq!(roll.next_change_ms(), None);
    }
}

#[test]
fn a_room_that_nobody_watches_collects_nothing() {
    let mut roll = roll(10_000);
    roll.watch(Watch::None);
    for n in 0..100 {
        enter(&mut roll, n, n as u64, 0);
    }
    assert!(roll.news.names.is_empty() && change(&mut roll).is_none());
    roll.watch(Watch::Counts);
    exit(&mut roll, 0, 0, Exit::Left, 0);
    assert!(roll.news.names.is_empty());
    let change = change(&mut roll).unwrap();
    assert_eq!(
        (change.users, change.truncated, change.left.len()),
        (99, false, 0)
    );
}

/// A thousand joins and a thousand leaves a second, a hundred seconds long, in a room of ten thousand: a change a second, of
/// counts, and a moment of the machine.
#[test]
fn a_large_room_in_motion_tells_one_change_a_second_and_stays_cheap() {
    let mut roll = roll(20_000);
    for n in 0..10_000 {
        enter(&mut roll, n, n as u64, 0);
    }
    let started = std::time::Instant::now();
    let mut changes = 0;
    for step in 0..100_000_usize {
        let at_ms = step as u64;
        exit(&mut roll, step, step as u64, Exit::Lost, at_ms);
        enter(&mut roll, 10_000 + step, 10_000 + step as u64, at_ms);
        if step % 50 == 0 {
            roll.expire(at_ms, usize::MAX);
            changes += usize::from(roll.take_change(at_ms).is_some());
        }
    }
    assert!((99..=101).contains(&changes), "{changes}");
    roll.expire(99_999, usize::MAX);
    // Those whose grace goes on are still here.
    assert_eq!(roll.users(), 10_000 + GRACE_MS as usize);
    // Far more time than it takes, and far less than these hundred seconds, so that it holds on a busy machine without
    // optimisation.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

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
