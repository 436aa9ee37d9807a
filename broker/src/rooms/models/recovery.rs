//! Coming back while publishers go on: what history gives and what comes live are one sequence, whatever is kept.

use std::sync::Arc as StdArc;

use cauce_protocol::{Epoch, Position, Seq};
use shuttle::sync::Arc;
use shuttle::thread;

use super::{RUNS, World, name};
use crate::rooms::class::{Keep, RoomClass};
use crate::rooms::room::{CatchUp, Joined, Listener, Recovered, Room, Start};

/// The shard of those who come back, and of the one who keeps the room open.
const OURS: usize = 0;
const OTHER: usize = 1;

/// A world whose rooms keep so many messages.
pub(super) fn keeping(messages: u32) -> Arc<World> {
    let world = World::roomy();
    let class = StdArc::new(RoomClass {
        history: Keep {
            messages,
            ..Keep::NONE
        },
        ..RoomClass::default()
    });
    world.table.set_classify(StdArc::new(move |_| class.clone()));
    world
}

/// A subscriber as a shard keeps it: live, or behind with a number up to which it has everything.
struct Reader {
    room: StdArc<Room>,
    after: u64,
    live: bool,
    seen: Vec<u64>,
    lost: Vec<u64>,
}

impl Reader {
    fn new(joined: Joined) -> Self {
        let Joined { room, seq, entered } = joined;
        let mut lost = Vec::new();
        if let Recovered::Partial(named) = entered.recovered
            && named.to == entered.from.0
        {
            lost.extend(named.from..=named.to);
        }
        Self {
            room,
            after: entered.from.0,
            live: entered.from == seq,
            seen: Vec::new(),
            lost,
        }
    }

    /// One look into history.
    fn look(&mut self) {
        if self.live {
            return;
        }
        let CatchUp::Messages { messages, head } = self.room.catch_up(Seq(self.after)) else {
            panic!("a room in memory has no store");
        };
        let none = messages.is_empty();
        for message in messages {
            self.lost.extend(self.after + 1..message.seq.0);
            self.seen.push(message.seq.0);
            self.after = message.seq.0;
        }
        if none {
            self.lost.extend(self.after + 1..=head.0);
            self.after = head.0;
        }
        self.live = self.after >= head.0;
    }

    /// What came by the mailbox.
    fn hear(&mut self, seq: u64) {
        if self.live && seq > self.after {
            assert_eq!(seq, self.after + 1, "live messages have no hole");
            self.seen.push(seq);
            self.after = seq;
        }
    }
}

/// Publishers run while one comes back by a position and reads history and mailbox in turns.
fn come_back(kept: u32, falls_behind: bool) {
    let world = keeping(kept);
    let steady = world.join(OTHER);
    let before = world.publish(0).expect("published");
    let publishers: Vec<_> = (0..2)
        .map(|n| {
            let world = world.clone();
            thread::spawn(move || (0..3).for_each(|_| assert!(world.publish(n).is_ok())))
        })
        .collect();
    let reader = thread::spawn({
        let world = world.clone();
        move || {
            let start = Start::Since {
                position: Position {
                    epoch: before.epoch,
                    seq: Seq(0),
                },
                within_ms: None,
            };
            let joined = world
                .table
                .join(&name(), Listener::Shard(OURS), start, world.now())
                .expect("room for a room");
            assert_ne!(joined.entered.recovered, Recovered::Reset);
            let mut reader = Reader::new(joined);
            for turn in 0..4 {
                for message in world.drain(OURS) {
                    reader.hear(message.seq.0);
                }
                if falls_behind && turn == 1 {
                    // Its outbox is full: from here on it reads history again.
                    reader.live = false;
                }
                reader.look();
            }
            reader
        }
    });
    publishers
        .into_iter()
        .for_each(|p| p.join().expect("a publisher"));
    let mut reader = reader.join().expect("a reader");
    loop {
        let waiting = world.drain(OURS);
        waiting.iter().for_each(|message| reader.hear(message.seq.0));
        if reader.live && waiting.is_empty() {
            break;
        }
        reader.look();
    }
    assert_eq!(reader.after, 7);
    assert!(reader.seen.is_sorted() && reader.lost.is_sorted());
    let mut all = [&reader.seen[..], &reader.lost[..]].concat();
    all.sort_unstable();
    assert_eq!(
        all,
        (1..=7).collect::<Vec<_>>(),
        "each number once, or named as lost"
    );
    assert!(
        kept < 7 || reader.lost.is_empty(),
        "lost, and kept: {:?}",
        reader.lost
    );
    for (joined, shard) in [(&steady.room, OTHER), (&reader.room, OURS)] {
        world.table.leave_shard(joined, shard, true, world.now());
    }
    drop((reader, steady));
    world.assert_empty();
    assert_eq!(world.table.history_bytes(), 0, "history of a room that is gone");
}

#[test]
fn who_comes_back_sees_each_number_once_from_history_and_then_live() {
    shuttle::check_random(|| come_back(100, false), RUNS);
}

#[test]
fn who_falls_behind_again_sees_each_number_once() {
    shuttle::check_random(|| come_back(100, true), RUNS);
}

#[test]
fn what_history_lost_is_named_and_nothing_else() {
    shuttle::check_random(|| come_back(2, true), RUNS);
    shuttle::check_random(|| come_back(0, true), RUNS / 4);
}

/// Rooms are made while the classes change: none keeps the class of before.
#[test]
fn a_room_that_is_made_while_classes_change_is_of_the_new_class() {
    shuttle::check_random(
        || {
            let world = keeping(1);
            let makers: Vec<_> = (0..2)
                .map(|shard| {
                    let world = world.clone();
                    thread::spawn(move || world.join(shard))
                })
                .collect();
            let class = StdArc::new(RoomClass {
                history: Keep {
                    messages: 2,
                    ..Keep::NONE
                },
                ..RoomClass::default()
            });
            let new = class.clone();
            world.table.set_classify(StdArc::new(move |_| new.clone()));
            world
                .table
                .reclassify(world.now(), |_, _| panic!("no room was durable"));
            for maker in makers {
                let joined = maker.join().expect("a maker");
                assert_eq!(joined.room.class(), class);
            }
        },
        RUNS,
    );
}

/// A position of another life of the room is a reset, whenever the room closed.
#[test]
fn a_position_of_an_earlier_life_is_never_taken_for_one_of_this() {
    shuttle::check_random(
        || {
            let world = keeping(0);
            let first = world.join(OTHER);
            let epoch: Epoch = world.publish(1).expect("published").epoch;
            world.table.leave_shard(&first.room, OTHER, true, world.now());
            let sweeper = thread::spawn({
                let world = world.clone();
                move || (0..3).for_each(|_| world.table.sweep(world.now() + 1))
            });
            let position = Position { epoch, seq: Seq(1) };
            let start = Start::Since {
                position,
                within_ms: None,
            };
            let joined = world
                .table
                .join(&name(), Listener::Shard(OURS), start, world.now())
                .expect("room for a room");
            sweeper.join().expect("a sweeper");
            let same = joined.room.epoch == epoch;
            let expected = match same {
                true => Recovered::Continued,
                false => Recovered::Reset,
            };
            assert_eq!(
                (joined.entered.recovered, joined.seq.0),
                (expected, u64::from(same))
            );
        },
        RUNS,
    );
}
