//! The rules of the roll, one by one.

use super::*;

pub(super) const GRACE_MS: u64 = 5_000;

pub(super) fn roll(users_max: usize) -> Roll {
    let mut roll = Roll::new(Bounds {
        grace_ms: GRACE_MS,
        users_max,
    });
    roll.watch(Watch::Users);
    roll
}

pub(super) fn user(n: usize) -> UserId {
    UserId::new(&format!("u{n:02}")).unwrap()
}

pub(super) fn now(mono_ms: u64) -> Now {
    Now {
        mono_ms,
        unix_ms: mono_ms + 1_000_000,
    }
}

pub(super) fn enter(roll: &mut Roll, n: usize, connection: u64, at_ms: u64) {
    let arriving = Arriving {
        user: &user(n),
        connection: ConnectionId(connection),
        info: &Bytes::new(),
    };
    roll.enter(arriving, now(at_ms));
}

pub(super) fn exit(roll: &mut Roll, n: usize, connection: u64, how: Exit, at_ms: u64) {
    roll.exit(&user(n), ConnectionId(connection), how, at_ms);
}

pub(super) fn names(roll: &Roll) -> Vec<&str> {
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
fn a_renewed_token_speaks_for_the_user_from_then_on() {
    let mut roll = roll(100);
    enter(&mut roll, 1, 1, 0);
    told(&mut roll);
    let before = roll.version;
    let arriving = Arriving {
        user: &user(1),
        connection: ConnectionId(1),
        info: &Bytes::from_static(b"7"),
    };
    roll.enter(arriving, now(1));
    let page = roll.page(PageQuery::default());
    assert_eq!((&page.page[0].info[..], page.version), (&b"7"[..], before));
    assert_eq!((page.users, page.connections), (1, 1));
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
