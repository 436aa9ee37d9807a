//! Who is in one room. Pure: connections, time and the bounds are arguments.
//!
//! What must stay true:
//! - A user is in the room once, whatever the number of his connections. He joins with the first and leaves with the last: at
//!   once if that one unsubscribed, after the grace time if it was lost. Whoever comes back within it has never been away.
//! - Pages and changes fit together: whoever takes pages and lays every change of a later version over them, name by name,
//!   ends with the names that are in the room. A join of one who is known and a leave of one who is not are nothing.
//! - Nothing here grows with the number of changes: what is not told yet is at most [`CHANGE_NAMES_MAX`] names, or the mere
//!   fact that there were more.
//!
//! A name that comes and goes between two changes is in neither, unless somebody took a page in between and so may know it.

mod untold;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use cauce_protocol::message::Watch;
use cauce_protocol::{ConnectionId, UserId};
use smallvec::SmallVec;

use self::untold::Untold;
use crate::clock::Now;

/// Names of one change; when there are more, counts are told alone.
pub(super) const CHANGE_NAMES_MAX: usize = 200;

/// Names and infos of one change, in bytes; beyond, counts are told alone.
pub(super) const CHANGE_BYTES_MAX: usize = 64 * 1024;

/// Between two changes of a small room, in milliseconds.
pub(super) const SMALL_ROOM_MS: u64 = 100;

/// The same for a room with more than [`SMALL_ROOM_CONNECTIONS`].
pub(super) const LARGE_ROOM_MS: u64 = 1_000;

/// Connections of a small room.
pub(super) const SMALL_ROOM_CONNECTIONS: u32 = 200;

/// Users of a page unless asked otherwise.
pub(super) const PAGE_DEFAULT: u32 = 100;

/// Names and infos of one page, in bytes; it ends there, and more come after it.
pub(super) const PAGE_BYTES_MAX: usize = 256 * 1024;

/// What a user takes in a frame beside name and info, in bytes.
const USER_OVERHEAD_BYTES: usize = 32;

/// How a connection ceases to be in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It unsubscribed, or may be there no more.
    Left,
    /// It was lost, and may come back.
    Lost,
}

/// A connection that enters a room.
#[derive(Clone, Copy, Debug)]
pub struct Arriving<'a> {
    pub user: &'a UserId,
    pub connection: ConnectionId,
    /// What its token says of the user: JSON, or nothing.
    pub info: &'a Bytes,
}

/// One who is in the room, as others see him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentUser {
    pub user: UserId,
    /// What his newest token says of him: JSON, or nothing.
    pub info: Bytes,
    /// 0 while he may come back.
    pub connections: u32,
    pub since_unix_ms: u64,
}

/// Some of those who are in the room, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresencePage {
    /// Changes up to here are in it.
    pub version: u64,
    /// All users, also those that no page lists because there are too many.
    pub users: u32,
    pub connections: u32,
    pub page: Vec<PresentUser>,
    /// More come after the last of them.
    pub more: bool,
}

/// What has changed since the last change was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub version: u64,
    pub users: u32,
    pub connections: u32,
    pub joined: Vec<PresentUser>,
    pub left: Vec<UserId>,
    /// There were too many names to tell.
    pub truncated: bool,
}

/// Which part is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageQuery<'a> {
    /// Users whose names come after this one.
    pub after: Option<&'a str>,
    /// 0 means the default.
    pub limit: u32,
    pub counts_only: bool,
}

/// What a room's class and the configuration say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) grace_ms: u64,
    /// Users that are listed; those beyond are counted only, and get no grace.
    pub(super) users_max: usize,
}

/// Who is in a room.
#[derive(Debug)]
pub(super) struct Roll {
    bounds: Bounds,
    listed: BTreeMap<UserId, Present>,
    /// Those for whom the list has no room. As many as there are connections, so bounded with them.
    unlisted: BTreeMap<UserId, Present>,
    connections: u32,
    /// Listed users without a connection, by when they will have left.
    leaving: BTreeSet<(u64, UserId)>,
    version: u64,
    news: Untold,
}

#[derive(Debug)]
struct Present {
    info: Bytes,
    /// Sorted. Ids rather than a count, so that nobody enters twice and nobody leaves who never entered.
    connections: SmallVec<[ConnectionId; 1]>,
    since_unix_ms: u64,
    /// Connections that were lost and may come back, until the last one's time is over.
    lost: u32,
    held_until_ms: u64,
}

impl Present {
    fn forget_lost(&mut self, now_ms: u64) {
        if self.held_until_ms <= now_ms {
            self.lost = 0;
        }
    }
}

impl Roll {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            listed: BTreeMap::new(),
            unlisted: BTreeMap::new(),
            connections: 0,
            leaving: BTreeSet::new(),
            version: 0,
            news: Untold::new(),
        }
    }

    /// Other bounds from now on. Whoever is leaving keeps the time he was given; nobody is struck off the list.
    pub(super) fn configure(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Users in the room, listed or not.
    pub(super) fn users(&self) -> usize {
        self.listed.len() + self.unlisted.len()
    }

    /// A connection is in the room. If it was before, only what its token says of the user may be new: pages show that, and no
    /// change tells it.
    pub(super) fn enter(&mut self, arriving: Arriving<'_>, now: Now) {
        let Arriving {
            user,
            connection,
            info,
        } = arriving;
        let known = match self.listed.get_mut(user) {
            None => self.unlisted.get_mut(user),
            listed => listed,
        };
        match known {
            Some(present) => {
                present.info.clone_from(info);
                let Err(at) = present.connections.binary_search(&connection) else {
                    return;
                };
                if present.connections.is_empty() {
                    self.leaving.remove(&(present.held_until_ms, user.clone()));
                }
                present.connections.insert(at, connection);
                present.forget_lost(now.mono_ms);
                present.lost = present.lost.saturating_sub(1);
            }
            None => {
                let present = Present {
                    info: info.clone(),
                    connections: SmallVec::from_slice(&[connection]),
                    since_unix_ms: now.unix_ms,
                    lost: 0,
                    held_until_ms: 0,
                };
                if self.listed.len() < self.bounds.users_max {
                    self.list(user.clone(), present);
                } else {
                    self.unlisted.insert(user.clone(), present);
                }
            }
        }
        self.connections += 1;
        self.changed();
    }

    /// A connection is in the room no more. Nothing happens if it was not.
    pub(super) fn exit(&mut self, user: &UserId, connection: ConnectionId, exit: Exit, now_ms: u64) {
        if let Some(present) = self.listed.get_mut(user) {
            let Ok(at) = present.connections.binary_search(&connection) else {
                return;
            };
            present.connections.remove(at);
            present.forget_lost(now_ms);
            if exit == Exit::Lost && self.bounds.grace_ms > 0 {
                present.lost = present.lost.saturating_add(1);
                present.held_until_ms = present
                    .held_until_ms
                    .max(now_ms.saturating_add(self.bounds.grace_ms));
            }
            if present.connections.is_empty() {
                if present.lost > 0 {
                    self.leaving.insert((present.held_until_ms, user.clone()));
                } else {
                    self.strike(user);
                }
            }
        } else if let Some(present) = self.unlisted.get_mut(user) {
            let Ok(at) = present.connections.binary_search(&connection) else {
                return;
            };
            present.connections.remove(at);
            if present.connections.is_empty() {
                self.unlisted.remove(user);
            }
        } else {
            return;
        }
        self.connections -= 1;
        self.changed();
    }

    /// When the next of those who were lost will have left.
    pub(super) fn next_leave_ms(&self) -> Option<u64> {
        self.leaving.first().map(|&(at_ms, _)| at_ms)
    }

    /// Lets go whoever did not come back in time, at most `count_max` of them.
    pub(super) fn expire(&mut self, now_ms: u64, count_max: usize) {
        for _ in 0..count_max {
            match self.leaving.first() {
                Some(&(at_ms, _)) if at_ms <= now_ms => {}
                _ => return,
            }
            if let Some((_, user)) = self.leaving.pop_first() {
                self.strike(&user);
                self.changed();
            }
        }
    }

    /// Everybody goes.
    pub(super) fn clear(&mut self) {
        self.listed = BTreeMap::new();
        self.unlisted = BTreeMap::new();
        self.leaving = BTreeSet::new();
        self.connections = 0;
        if self.news.watch == Watch::Users {
            self.news.leave_out();
        }
        self.changed();
    }

    /// The most that any watcher wants from now on. A new watcher takes pages when it watches, not before.
    pub(super) fn watch(&mut self, watch: Watch) {
        self.news.watch = watch;
        if watch < Watch::Users {
            self.news.names = BTreeMap::new();
            self.news.overflowed = false;
        }
        if watch == Watch::None {
            self.news.any = false;
        }
    }

    /// When there is a change to take, if there is one.
    pub(super) fn next_change_ms(&self) -> Option<u64> {
        (self.news.any && self.news.watch != Watch::None).then_some(self.news.not_before_ms)
    }

    /// What has changed, if it is time to tell it. Whoever takes it sees to it that every watcher gets it, or learns that he
    /// missed something.
    pub(super) fn take_change(&mut self, now_ms: u64) -> Option<Change> {
        if self.next_change_ms()? > now_ms {
            return None;
        }
        let mut change = self.counts();
        change.truncated = self.news.overflowed || self.news_bytes() > CHANGE_BYTES_MAX;
        let names = std::mem::take(&mut self.news.names);
        if !change.truncated {
            for user in names.into_keys() {
                match self.listed.get(&user) {
                    Some(present) => change.joined.push(present.seen_as(&user)),
                    None => change.left.push(user),
                }
            }
        }
        self.news.any = false;
        self.news.overflowed = false;
        self.news.not_before_ms = now_ms
            + if self.connections > SMALL_ROOM_CONNECTIONS {
                LARGE_ROOM_MS
            } else {
                SMALL_ROOM_MS
            };
        Some(change)
    }

    /// Bytes of the names and infos that the next change would tell.
    pub(super) fn news_bytes(&self) -> usize {
        let names = self.news.names.keys();
        names
            .map(|user| {
                size(
                    user,
                    self.listed
                        .get(user)
                        .map_or(&Bytes::new(), |present| &present.info),
                )
            })
            .sum()
    }

    /// A change that tells the counts alone.
    pub(super) fn counts(&self) -> Change {
        Change {
            version: self.version,
            users: self.users() as u32,
            connections: self.connections,
            ..Change::default()
        }
    }

    /// A part of the list, as it is now.
    pub(super) fn page(&mut self, query: PageQuery<'_>) -> PresencePage {
        let Change {
            version,
            users,
            connections,
            ..
        } = self.counts();
        let mut page = PresencePage {
            version,
            users,
            connections,
            ..PresencePage::default()
        };
        if query.counts_only {
            return page;
        }
        self.news.pages += 1;
        let limit = match query.limit {
            0 => PAGE_DEFAULT,
            limit => limit,
        } as usize;
        let from = query.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut bytes = 0;
        for (user, present) in self.listed.range::<str, _>((from, Bound::Unbounded)) {
            bytes += size(user, &present.info);
            if page.page.len() == limit || (bytes > PAGE_BYTES_MAX && !page.page.is_empty()) {
                page.more = true;
                break;
            }
            page.page.push(present.seen_as(user));
        }
        page
    }

    fn list(&mut self, user: UserId, present: Present) {
        self.news.note(&user, false);
        self.listed.insert(user, present);
    }

    /// A listed user leaves; the list has room for another.
    fn strike(&mut self, user: &UserId) {
        if self.listed.remove(user).is_none() {
            return;
        }
        self.news.note(user, true);
        if self.listed.len() < self.bounds.users_max
            && let Some((user, present)) = self.unlisted.pop_first()
        {
            self.list(user, present);
        }
    }

    fn changed(&mut self) {
        self.version += 1;
        self.news.any |= self.news.watch != Watch::None;
    }
}

impl Present {
    fn seen_as(&self, user: &UserId) -> PresentUser {
        PresentUser {
            user: user.clone(),
            info: self.info.clone(),
            connections: self.connections.len() as u32,
            since_unix_ms: self.since_unix_ms,
        }
    }
}

fn size(user: &UserId, info: &Bytes) -> usize {
    USER_OVERHEAD_BYTES + user.as_str().len() + info.len()
}

#[cfg(all(test, not(shuttle)))]
mod tests;
#[cfg(all(test, not(shuttle)))]
mod truth;
