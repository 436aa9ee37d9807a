//! Rooms under random interleavings: joins, leaves, publishes and sweeps race, and every promise of `rooms` holds.
//!
//! The checker sees the mutexes and atomics of `sync`. It does not see papaya (each of its calls is one step here, as it is
//! linearizable), `std::sync::Arc`, nor tokio's `Notify` in a tap (the same), so what these do wrong it would not find. It explores
//! sequentially consistent interleavings only: an ordering that is too relaxed would not be found either.

mod durable;
mod presence;
mod recovery;

use cauce_protocol::{Code, Epoch, Payload, RoomName, Seq};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64 as Shared64, Ordering::SeqCst};
use shuttle::thread;

use super::room::{Accepted, Joined, Listener, Manner, Repeat, Start, Tap};
use super::table::{RoomTable, TableLimits};
use crate::mailbox::{Mailbox, Wake};
use crate::publication::{Draft, Shared};

/// Interleavings a model. Races of this size show within hundreds.
const RUNS: usize = 20_000;

#[derive(Debug)]
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// Mailboxes of three shards, and a table.
struct World {
    table: RoomTable,
    mailboxes: Vec<std::sync::Arc<Mailbox<Shared, NoWake>>>,
    clock: Shared64,
}

impl World {
    fn new(rooms_max: usize, capacities: [usize; 3]) -> Arc<Self> {
        let limits = TableLimits {
            rooms_max,
            linger_ms: 1,
            history_bytes_max: usize::MAX,
        };
        Arc::new(Self {
            table: RoomTable::new(limits, Default::default()),
            mailboxes: capacities
                .map(|capacity| std::sync::Arc::new(Mailbox::new(capacity, NoWake)))
                .into(),
            clock: Shared64::new(1),
        })
    }

    fn roomy() -> Arc<Self> {
        Self::new(10, [1 << 20; 3])
    }

    /// Time goes on whenever anybody looks.
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    fn publish(&self, n: u64) -> Result<Accepted, cauce_protocol::Refusal> {
        self.table
            .publish("room", draft(n), Manner::default(), self.now(), &self.mailboxes)
    }

    fn join(&self, shard: usize) -> Joined {
        self.table
            .join(&name(), Listener::Shard(shard), Start::Now, self.now())
            .expect("room for a room")
    }

    /// All that waits for a shard, its reservations given back.
    fn drain(&self, shard: usize) -> Vec<Shared> {
        let mailbox = &self.mailboxes[shard];
        let mut all = Vec::new();
        while let Some(publication) = mailbox.pop() {
            mailbox.release(publication.cost());
            all.push(publication);
        }
        all
    }

    /// Nobody is left: rooms go, and nothing stays reserved.
    fn assert_empty(&self) {
        for shard in 0..self.mailboxes.len() {
            self.drain(shard);
            assert_eq!(self.mailboxes[shard].used(), 0, "reserved and never released");
        }
        for _ in 0..4 {
            self.clock.fetch_add(10, SeqCst);
            self.table.sweep(self.now());
        }
        let mut rooms = 0;
        self.table.for_each(|_| rooms += 1);
        assert_eq!(
            (rooms, self.table.len()),
            (0, 0),
            "a room without listeners stays"
        );
    }
}

fn name() -> RoomName {
    RoomName::new("room").expect("a name")
}

fn draft(n: u64) -> Draft {
    Draft::new("e".into(), Payload::text(n.to_string()))
}

fn numbers(of: &[Shared], epoch: Epoch, after: Seq) -> Vec<u64> {
    of.iter()
        .filter(|p| p.epoch == epoch && p.seq > after)
        .map(|p| p.seq.0)
        .collect()
}

/// Publishers and a sweep run against subscribers of two shards that join meanwhile and stay.
#[test]
fn who_joined_gets_every_later_message_once_and_in_order() {
    shuttle::check_random(
        || {
            let world = World::roomy();
            let publishers: Vec<_> = (0..2)
                .map(|publisher| {
                    let world = world.clone();
                    thread::spawn(move || {
                        (0..3)
                            .map(|n| world.publish(publisher * 10 + n).expect("published"))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            let sweeper = thread::spawn({
                let world = world.clone();
                move || (0..3).for_each(|_| world.table.sweep(world.now() + 1))
            });
            let joiners: Vec<_> = (0..2)
                .map(|shard| {
                    let world = world.clone();
                    thread::spawn(move || world.join(shard))
                })
                .collect();
            let accepted: Vec<Accepted> = publishers
                .into_iter()
                .flat_map(|p| p.join().expect("a publisher"))
                .collect();
            sweeper.join().expect("a sweeper");
            let joined: Vec<Joined> = joiners.into_iter().map(|j| j.join().expect("a joiner")).collect();
            let mut contents = Vec::new();
            for (shard, Joined { room, seq, .. }) in joined.iter().enumerate() {
                let all = world.drain(shard);
                let last = room.seq();
                assert_eq!(
                    numbers(&all, room.epoch, *seq),
                    (seq.0 + 1..=last.0).collect::<Vec<_>>(),
                    "a gap, or a duplicate"
                );
                // Whatever was accepted in this room after the join is among it: no publish is swallowed.
                let owed = accepted
                    .iter()
                    .filter(|a| a.epoch == room.epoch && a.seq > *seq)
                    .count();
                assert_eq!(numbers(&all, room.epoch, *seq).len(), owed);
                assert_eq!(room.subscribers(), 2);
                contents.push(all);
            }
            assert!(
                std::sync::Arc::ptr_eq(&joined[0].room, &joined[1].room),
                "two rooms of one name"
            );
            for one in &contents[0] {
                if let Some(other) = contents[1]
                    .iter()
                    .find(|other| other.seq == one.seq && other.epoch == one.epoch)
                {
                    assert_eq!(one.payload, other.payload, "one number, two messages");
                }
            }
            // No number was given twice in one life of the room.
            let mut given: Vec<_> = accepted.iter().map(|a| (a.epoch, a.seq)).collect();
            given.sort();
            given.dedup();
            assert_eq!(given.len(), accepted.len());
            for (shard, Joined { room, .. }) in joined.iter().enumerate() {
                world.table.leave_shard(room, shard, true, world.now());
            }
            world.assert_empty();
        },
        RUNS,
    );
}

/// Two members of one shard and one of another come and go, while publishes and sweeps run.
#[test]
fn rooms_close_when_the_last_has_left_and_not_before() {
    shuttle::check_random(
        || {
            let world = World::roomy();
            let shards: Vec<_> = (0..2)
                .map(|shard| {
                    let world = world.clone();
                    // A shard is one thread: its members join and leave in turn.
                    thread::spawn(move || {
                        for _ in 0..2 {
                            let (first, second) = (world.join(shard), world.join(shard));
                            assert!(
                                std::sync::Arc::ptr_eq(&first.room, &second.room),
                                "a room with a listener was closed"
                            );
                            world.table.leave_shard(&first.room, shard, false, world.now());
                            let accepted = world.publish(1).expect("published");
                            assert_eq!(
                                accepted.epoch, second.room.epoch,
                                "a room with a listener was closed"
                            );
                            assert!(
                                world
                                    .drain(shard)
                                    .iter()
                                    .any(|p| p.seq == accepted.seq && p.epoch == accepted.epoch)
                            );
                            world.table.leave_shard(&second.room, shard, true, world.now());
                        }
                    })
                })
                .collect();
            let sweeper = thread::spawn({
                let world = world.clone();
                move || (0..4).for_each(|_| world.table.sweep(world.now() + 1))
            });
            shards
                .into_iter()
                .for_each(|shard| shard.join().expect("a shard"));
            sweeper.join().expect("a sweeper");
            world.assert_empty();
        },
        RUNS,
    );
}

/// One shard has room for one message only: publishers are refused before a number is given, and nothing stays reserved.
#[test]
fn a_full_shard_refuses_for_all_and_nothing_leaks() {
    shuttle::check_random(
        || {
            let cost = draft(1).cost();
            let world = World::new(10, [1 << 20, cost, 1 << 20]);
            let joined: Vec<_> = (0..3).map(|shard| world.join(shard)).collect();
            let publishers: Vec<_> = (0..3)
                .map(|publisher| {
                    let world = world.clone();
                    thread::spawn(move || {
                        (0..2)
                            .filter_map(|_| {
                                world
                                    .publish(publisher)
                                    .map_err(|r| assert_eq!(r.code, Code::Overloaded))
                                    .ok()
                            })
                            .count()
                    })
                })
                .collect();
            let owner = thread::spawn({
                let world = world.clone();
                move || (0..3).flat_map(|_| world.drain(1)).collect::<Vec<_>>()
            });
            let accepted: usize = publishers
                .into_iter()
                .map(|p| p.join().expect("a publisher"))
                .sum();
            let mut narrow = owner.join().expect("an owner");
            narrow.extend(world.drain(1));
            assert!(accepted >= 1, "an empty mailbox takes any message");
            let all: Vec<u64> = (1..=accepted as u64).collect();
            for seen in [&world.drain(0), &narrow, &world.drain(2)] {
                assert_eq!(seen.iter().map(|p| p.seq.0).collect::<Vec<_>>(), all);
            }
            for (shard, Joined { room, .. }) in joined.iter().enumerate() {
                world.table.leave_shard(room, shard, true, world.now());
            }
            world.assert_empty();
        },
        RUNS,
    );
}

/// Repeats race with each other: one is sent, and all get its answer.
#[test]
fn a_repeated_key_is_sent_once_however_often_it_comes_at_once() {
    shuttle::check_random(
        || {
            let world = World::roomy();
            let joined = world.join(0);
            let publishers: Vec<_> = (0..3)
                .map(|n| {
                    let world = world.clone();
                    thread::spawn(move || {
                        let repeat = Repeat {
                            publisher: "ann",
                            key: "k",
                            now_ms: 1,
                            // Over at once, so that the room may close.
                            window_ms: 0,
                            keys_max: 100,
                        };
                        world
                            .table
                            .publish(
                                "room",
                                draft(n),
                                Manner {
                                    repeat: Some(repeat),
                                    ..Manner::default()
                                },
                                world.now(),
                                &world.mailboxes,
                            )
                            .expect("published")
                    })
                })
                .collect();
            let answers: Vec<Accepted> = publishers
                .into_iter()
                .map(|p| p.join().expect("a publisher"))
                .collect();
            assert_eq!(world.drain(0).len(), 1);
            assert!(answers.iter().all(|answer| answer.seq == Seq(1)));
            assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
            world.table.leave_shard(&joined.room, 0, true, world.now());
            world.assert_empty();
        },
        RUNS,
    );
}

/// A tap with room for two messages, between publishers: what it gets is without a gap up to where it is cut off.
#[test]
fn a_tap_sees_no_gap_before_it_is_cut_off() {
    shuttle::check_random(
        || {
            let world = World::roomy();
            let publishers: Vec<_> = (0..2)
                .map(|n| {
                    let world = world.clone();
                    thread::spawn(move || (0..3).for_each(|_| assert!(world.publish(n).is_ok())))
                })
                .collect();
            let tap = std::sync::Arc::new(Tap::new(2 * draft(1).cost()));
            let joined = world
                .table
                .join(&name(), Listener::Tap(&tap), Start::Now, world.now())
                .expect("room for a room");
            let mut seen = Vec::new();
            seen.extend(tap.try_next());
            publishers
                .into_iter()
                .for_each(|p| p.join().expect("a publisher"));
            seen.extend(std::iter::from_fn(|| tap.try_next()));
            let expected: Vec<_> = (joined.seq.0 + 1..).take(seen.len()).collect();
            assert_eq!(seen.iter().map(|p| p.seq.0).collect::<Vec<_>>(), expected);
            if joined.room.subscribers() == 1 {
                assert_eq!(
                    seen.len() as u64,
                    joined.room.seq().0 - joined.seq.0,
                    "still listening, so nothing is missing"
                );
            }
            world.table.leave_tap(&joined.room, &tap, world.now());
            world.assert_empty();
        },
        RUNS,
    );
}

/// A thread blocks on a tap, looking a few times or not at all before it sleeps, between publishers. A wake-up that is lost would let it
/// sleep for ever, which shuttle reports as a deadlock; in the second setting the tap is cut off meanwhile, and the end must wake it too.
#[test]
fn a_blocked_listener_sleeps_on_no_message_and_on_no_end() {
    for (room_for, looks) in [(10, 0), (10, 2), (1, 0), (1, 2)] {
        shuttle::check_random(
            move || {
                let world = World::roomy();
                let tap = std::sync::Arc::new(Tap::new(room_for * draft(1).cost()));
                let joined = world
                    .table
                    .join(&name(), Listener::Tap(&tap), Start::Now, world.now())
                    .expect("room for a room");
                let publishers: Vec<_> = (0..2)
                    .map(|n| {
                        let world = world.clone();
                        thread::spawn(move || (0..2).for_each(|_| assert!(world.publish(n).is_ok())))
                    })
                    .collect();
                let mut seen = 0;
                while seen < 4 {
                    let mut left = looks;
                    let found = tap.blocking_next(|| {
                        thread::yield_now();
                        let again = left > 0;
                        left -= i32::from(again);
                        again
                    });
                    let Some(found) = found else {
                        assert!(room_for < 4, "cut off though there was room");
                        assert!(tap.try_next().is_none(), "the end came before the rest");
                        break;
                    };
                    seen += 1;
                    assert_eq!(found.seq.0, joined.seq.0 + seen);
                }
                publishers
                    .into_iter()
                    .for_each(|p| p.join().expect("a publisher"));
                world.table.leave_tap(&joined.room, &tap, world.now());
                world.assert_empty();
            },
            RUNS / 4,
        );
    }
}

/// Different rooms are made at once at the edge of the quota: never one too many, and a refused one takes no place.
#[test]
fn the_number_of_rooms_holds_under_races() {
    shuttle::check_random(
        || {
            let world = World::new(2, [1 << 20; 3]);
            let makers: Vec<_> = (0..3)
                .map(|n| {
                    let world = world.clone();
                    thread::spawn(move || {
                        world
                            .table
                            .publish(
                                &format!("room-{n}"),
                                draft(n),
                                Manner::default(),
                                world.now(),
                                &world.mailboxes,
                            )
                            .is_ok()
                    })
                })
                .collect();
            let made = makers
                .into_iter()
                .map(|m| m.join().expect("a maker"))
                .filter(|&made| made)
                .count();
            assert_eq!((made, world.table.len()), (2, 2));
            world.assert_empty();
        },
        RUNS,
    );
}
