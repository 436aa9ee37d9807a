//! One room, the desk and mailboxes, in virtual time.

use bytes::Bytes;
use cauce_protocol::{Epoch, RoomId, RoomName};

use super::*;
use crate::publication::RoomKey;
use crate::rooms::Change;
use crate::rooms::room::{Budget, Make};

const GRACE_MS: u64 = 5_000;
const ON: PresenceMode = PresenceMode::On { grace_ms: GRACE_MS };

#[derive(Debug)]
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

type Box1 = StdArc<Mailbox<StdArc<PresenceNews>, NoWake>>;

struct World {
    room: StdArc<Room>,
    desk: PresenceDesk,
    mailboxes: [Box1; 2],
    now_ms: u64,
}

impl World {
    fn new(capacity: usize) -> Self {
        let name = RoomName::new("room").unwrap();
        let room = StdArc::new(Room::new(Make {
            key: RoomKey(1),
            id: RoomId(1),
            name,
            epoch: Epoch(1),
            head: None,
            class: StdArc::default(),
            budget: StdArc::new(Budget::new(0)),
            now_ms: 0,
        }));
        let desk = PresenceDesk::default();
        room.set_presence(&desk, ON, 10_000);
        Self {
            room,
            desk,
            mailboxes: std::array::from_fn(|_| StdArc::new(Mailbox::new(capacity, NoWake))),
            now_ms: 1_000,
        }
    }

    fn enter(&self, n: u64) {
        let arriving = Arriving {
            user: &user(n),
            connection: ConnectionId(n),
            info: &Bytes::new(),
        };
        let now = Now {
            mono_ms: self.now_ms,
            unix_ms: self.now_ms,
        };
        self.room.enter(&self.desk, arriving, now);
    }

    fn exit(&self, n: u64, exit: Exit) {
        self.room
            .exit(&self.desk, &user(n), ConnectionId(n), exit, self.now_ms);
    }

    fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now_ms += 50;
            self.desk.tick(self.now_ms, &self.mailboxes);
        }
    }

    /// What came to a shard; its room is given back.
    fn heard(&self, shard: usize) -> Vec<StdArc<PresenceNews>> {
        let mailbox = &self.mailboxes[shard];
        let news: Vec<_> = std::iter::from_fn(|| mailbox.pop()).collect();
        news.iter().for_each(|news| mailbox.release(news.cost()));
        news
    }

    fn queued(&self) -> usize {
        self.desk.due.lock().len()
    }
}

fn user(n: u64) -> UserId {
    UserId::new(&format!("u{n}")).unwrap()
}

fn names(change: &Change) -> (Vec<&str>, Vec<&str>) {
    (
        change
            .joined
            .iter()
            .map(|present| present.user.as_str())
            .collect(),
        change.left.iter().map(UserId::as_str).collect(),
    )
}

#[test]
fn only_shards_that_watch_are_told_and_a_quiet_room_is_in_no_queue() {
    let mut world = World::new(1 << 20);
    world.enter(1);
    assert_eq!(world.queued(), 0, "nobody watches");
    world.room.set_watch(1, Watch::Users);
    world.enter(2);
    world.exit(1, Exit::Lost);
    assert_eq!(world.desk.present(), 2);
    world.wait(GRACE_MS + 500);
    assert!(world.heard(0).is_empty());
    let heard = world.heard(1);
    assert_eq!(heard.len(), 2);
    assert_eq!(names(&heard[0].change), (vec!["u2"], vec![]));
    assert_eq!(names(&heard[1].change), (vec![], vec!["u1"]));
    assert_eq!((world.queued(), world.desk.present()), (0, 1));
    // One entry a reason, however much happens.
    for n in 10..500 {
        world.enter(n);
        world.exit(n, Exit::Lost);
    }
    assert_eq!(world.queued(), 2);
}

#[test]
fn a_change_that_a_full_mailbox_does_not_take_goes_on_collecting() {
    let mut world = World::new(100);
    world.room.set_watch(0, Watch::Users);
    world.room.set_watch(1, Watch::Users);
    // Something else waits for the second shard.
    assert!(world.mailboxes[1].reserve(90));
    world.enter(1);
    world.wait(1_000);
    world.enter(2);
    world.exit(1, Exit::Left);
    world.wait(1_000);
    assert!(world.heard(0).is_empty(), "all are told or none");
    assert_eq!(world.mailboxes[0].used(), 0, "reserved and never released");
    world.mailboxes[1].release(90);
    world.wait(200);
    for shard in 0..2 {
        let heard = world.heard(shard);
        assert_eq!(heard.len(), 1);
        assert_eq!(names(&heard[0].change), (vec!["u2"], vec![]));
        assert_eq!((heard[0].change.users, heard[0].kind), (1, NewsKind::Change));
    }
}

#[test]
fn who_missed_a_change_is_told_even_if_nothing_happens_any_more() {
    let mut world = World::new(1 << 20);
    world.room.set_watch(0, Watch::Users);
    world.enter(1);
    world.wait(200);
    let last = world.heard(0).pop().unwrap().change.version;
    for _ in 0..3 {
        world.room.change_missed(&world.desk, world.now_ms);
        world.room.change_missed(&world.desk, world.now_ms);
        world.wait(LARGE_ROOM_MS);
        let heard = world.heard(0);
        assert_eq!(heard.len(), 1);
        assert_eq!((heard[0].kind, heard[0].change.version), (NewsKind::Missed, last));
    }
    // A change tells it as well, and sooner.
    world.room.change_missed(&world.desk, world.now_ms);
    world.enter(2);
    world.wait(LARGE_ROOM_MS * 2);
    let heard = world.heard(0);
    assert_eq!((heard.len(), heard[0].kind), (1, NewsKind::Change));
    // Nobody watches any more.
    world.room.change_missed(&world.desk, world.now_ms);
    world.room.set_watch(0, Watch::None);
    world.wait(LARGE_ROOM_MS * 2);
    assert!(world.heard(0).is_empty());
    assert_eq!(world.queued(), 0);
}

#[test]
fn presence_that_is_switched_off_forgets_everybody_and_says_so() {
    let mut world = World::new(1 << 20);
    world.room.set_watch(0, Watch::Users);
    world.enter(1);
    world.enter(2);
    world.wait(200);
    world.heard(0);
    world.room.set_presence(&world.desk, PresenceMode::Off, 10_000);
    assert!(world.room.presence(PageQuery::default()).is_none());
    assert_eq!(world.desk.present(), 0);
    world.wait(200);
    let change = world.heard(0).pop().unwrap().change.clone();
    assert!(change.truncated);
    assert_eq!((change.users, change.connections), (0, 0));
    // Whoever was there before leaves nothing behind when it is switched on again.
    world.enter(3);
    world.room.set_presence(&world.desk, ON, 10_000);
    world.enter(4);
    world.exit(1, Exit::Left);
    let page = world.room.presence(PageQuery::default()).unwrap();
    assert_eq!((page.users, page.connections), (1, 1));
    assert!(page.version > change.version);
    world.wait(200);
    assert_eq!(names(&world.heard(0)[0].change), (vec!["u4"], vec![]));
}

#[test]
fn a_shorter_grace_holds_for_those_who_are_lost_from_then_on() {
    let mut world = World::new(1 << 20);
    world.enter(1);
    world.enter(2);
    world.exit(1, Exit::Lost);
    world
        .room
        .set_presence(&world.desk, PresenceMode::On { grace_ms: 100 }, 10_000);
    world.exit(2, Exit::Lost);
    world.wait(200);
    assert_eq!(world.desk.present(), 1);
    world.wait(GRACE_MS);
    assert_eq!((world.desk.present(), world.queued()), (0, 0));
}

/// A thousand joins and leaves a second for ten seconds, in a room of ten thousand, through locks, queue and mailboxes.
#[test]
fn a_large_room_in_motion_costs_its_watchers_a_frame_a_second() {
    let mut world = World::new(1 << 20);
    for n in 0..10_000 {
        world.enter(n);
    }
    world.room.set_watch(0, Watch::Users);
    world.room.set_watch(1, Watch::Counts);
    let started = std::time::Instant::now();
    for step in 0..200_u64 {
        for n in step * 50..(step + 1) * 50 {
            world.exit(n, Exit::Left);
            world.enter(10_000 + n);
        }
        world.wait(50);
    }
    assert_eq!(world.desk.present(), 10_000);
    for shard in 0..2 {
        let heard = world.heard(shard);
        assert!((10..=11).contains(&heard.len()), "{}", heard.len());
        assert!(heard.iter().skip(1).all(|news| news.change.truncated));
    }
    assert!(
        started.elapsed().as_secs() < 10,
        "slower than it happens: {:?}",
        started.elapsed()
    );
}
