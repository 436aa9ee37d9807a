//! Who is in a room, under random interleavings of those who come and go, the class, and the desk that tells it.

use std::collections::BTreeSet;
use std::sync::Arc as StdArc;

use bytes::Bytes;
use cauce_protocol::message::Watch;
use cauce_protocol::{ConnectionId, UserId};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering::SeqCst};
use shuttle::thread;

use super::{NoWake, name};
use crate::clock::Now;
use crate::mailbox::Mailbox;
use crate::publication::Shared;
use crate::rooms::class::PresenceMode;
use crate::rooms::news::PresenceNews;
use crate::rooms::presence::{Arriving, Exit, PageQuery};
use crate::rooms::room::{Listener, PresenceDesk, Room, Start};
use crate::rooms::table::{RoomTable, TableLimits};

/// Interleavings: each of these runs is longer than those of the other models.
const RUNS: usize = 4_000;

const GRACE_MS: u64 = 50;

/// Longer than any grace and any wait for the next change.
const LATER_MS: u64 = 100_000;

/// What a shard is told.
enum Word {
    Message,
    News(StdArc<PresenceNews>),
}

impl From<Shared> for Word {
    fn from(_: Shared) -> Self {
        Self::Message
    }
}

impl From<StdArc<PresenceNews>> for Word {
    fn from(news: StdArc<PresenceNews>) -> Self {
        Self::News(news)
    }
}

struct World {
    room: StdArc<Room>,
    desk: PresenceDesk,
    mailboxes: Vec<StdArc<Mailbox<Word, NoWake>>>,
    clock: AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        let limits = TableLimits {
            rooms_max: 1,
            linger_ms: 1,
            history_bytes_max: 0,
        };
        let table = RoomTable::new(limits, Default::default());
        let joined = table
            .join(&name(), Listener::Shard(0), Start::Now, 1)
            .expect("room for a room");
        Arc::new(Self {
            room: joined.room,
            desk: PresenceDesk::default(),
            mailboxes: (0..2)
                .map(|_| StdArc::new(Mailbox::new(1 << 20, NoWake)))
                .collect(),
            clock: AtomicU64::new(1),
        })
    }

    fn now(&self) -> Now {
        let mono_ms = self.clock.fetch_add(1, SeqCst);
        Now {
            mono_ms,
            unix_ms: mono_ms,
        }
    }

    fn switch_on(&self) {
        let mode = PresenceMode::On { grace_ms: GRACE_MS };
        self.room.set_presence(&self.desk, mode, 100);
    }

    fn enter(&self, user: &str, connection: u64) {
        let arriving = Arriving {
            user: &user_id(user),
            connection: ConnectionId(connection),
            info: &Bytes::new(),
        };
        self.room.enter(&self.desk, arriving, self.now());
    }

    fn exit(&self, user: &str, connection: u64, exit: Exit) {
        let now_ms = self.now().mono_ms;
        self.room
            .exit(&self.desk, &user_id(user), ConnectionId(connection), exit, now_ms);
    }

    fn tick(&self, pass_ms: u64) {
        let now_ms = self.clock.fetch_add(pass_ms, SeqCst) + pass_ms;
        self.desk.tick(now_ms, &self.mailboxes);
    }

    /// Names by pages.
    fn page(&self) -> (u64, BTreeSet<String>) {
        let page = self.room.presence(PageQuery::default()).expect("presence is on");
        let names = page.page.iter().map(|present| present.user.as_str().to_owned());
        (page.version, names.collect())
    }

    /// What a watcher of a shard makes of a page and all that it is told.
    fn watch(&self, shard: usize, (version, mut names): (u64, BTreeSet<String>)) -> BTreeSet<String> {
        let mut last = 0;
        while let Some(word) = self.mailboxes[shard].pop() {
            let Word::News(news) = word else { continue };
            self.mailboxes[shard].release(news.cost());
            let change = &news.change;
            assert!(change.version >= last, "versions rise");
            last = change.version;
            if change.version > version {
                names.extend(change.joined.iter().map(|user| user.user.as_str().to_owned()));
                change.left.iter().for_each(|user| {
                    names.remove(user.as_str());
                });
            }
        }
        assert_eq!(self.mailboxes[shard].used(), 0);
        names
    }
}

fn user_id(user: &str) -> UserId {
    UserId::new(user).expect("a name")
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|&name| name.to_owned()).collect()
}

/// Connections of three users come and go by two shards, while the desk tells two watchers, one of whom comes late.
#[test]
fn pages_and_changes_make_the_same_list_for_all_watchers_in_the_end() {
    shuttle::check_random(
        || {
            let world = World::new();
            world.switch_on();
            world.room.set_watch(0, Watch::Users);
            let early = world.page();
            let shards = [
                thread::spawn({
                    let world = world.clone();
                    move || {
                        world.enter("ann", 1);
                        world.exit("ann", 1, Exit::Lost);
                        world.enter("bob", 2);
                        world.exit("bob", 2, Exit::Left);
                        world.enter("ann", 3);
                    }
                }),
                thread::spawn({
                    let world = world.clone();
                    move || {
                        world.enter("bob", 4);
                        world.enter("carl", 5);
                        world.exit("carl", 5, Exit::Lost);
                        world.exit("bob", 4, Exit::Left);
                    }
                }),
            ];
            let desk = thread::spawn({
                let world = world.clone();
                move || (0..3).for_each(|_| world.tick(60))
            });
            world.room.set_watch(1, Watch::Users);
            let late = world.page();
            shards
                .into_iter()
                .for_each(|shard| shard.join().expect("a shard"));
            desk.join().expect("the desk");
            for _ in 0..3 {
                world.tick(LATER_MS);
            }
            assert_eq!(world.page().1, names(&["ann"]));
            assert_eq!(world.watch(0, early), names(&["ann"]));
            assert_eq!(world.watch(1, late), names(&["ann"]));
            assert_eq!(world.desk.present(), 1);
            world.exit("ann", 3, Exit::Left);
            assert_eq!(world.desk.present(), 0);
        },
        RUNS,
    );
}

/// Presence is switched off and on while one comes and another goes.
#[test]
fn whoever_is_in_a_room_is_listed_however_often_presence_is_switched() {
    shuttle::check_random(
        || {
            let world = World::new();
            world.switch_on();
            world.enter("bob", 2);
            let shard = thread::spawn({
                let world = world.clone();
                move || {
                    world.enter("ann", 1);
                    world.exit("bob", 2, Exit::Left);
                }
            });
            let desk = thread::spawn({
                let world = world.clone();
                move || (0..2).for_each(|_| world.tick(60))
            });
            world.room.set_presence(&world.desk, PresenceMode::Off, 100);
            world.switch_on();
            shard.join().expect("a shard");
            desk.join().expect("the desk");
            // As the shards do when they are told that it was switched on: whoever enters twice is there once.
            world.enter("ann", 1);
            world.tick(LATER_MS);
            assert_eq!(world.page().1, names(&["ann"]));
            assert_eq!(world.desk.present(), 1);
        },
        RUNS,
    );
}
