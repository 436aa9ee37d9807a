//! Durable rooms under random interleavings: they close and open again, lose their class, and wait for a disk that is slow.

use std::collections::BTreeSet;
use std::sync::Arc as StdArc;

use cauce_protocol::{Epoch, Refusal, Seq};
use shuttle::sync::Arc;
use shuttle::thread;

use super::{RUNS, World, draft, name};
use crate::rooms::class::{Durability, Keep, RoomClass};
use crate::rooms::room::{Accepted, Journal, JournalEntry, Manner};
use crate::sync::Mutex;

/// What is on its way to the disk, and what is there.
#[derive(Default)]
struct Disk {
    waiting: Mutex<Vec<JournalEntry>>,
    written: Mutex<Vec<(Epoch, Seq)>>,
}

impl Journal for Disk {
    fn reserve(&self, _cost: usize) -> Result<(), Refusal> {
        Ok(())
    }

    fn append(&self, entry: JournalEntry, _cost: usize) {
        self.waiting.lock().push(entry);
    }
}

impl Disk {
    /// Writes what waits, in its order.
    fn write(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for entry in waiting {
            let position = (entry.publication.epoch, entry.publication.seq);
            self.written.lock().push(position);
            (entry.committed)(Ok(()));
        }
    }
}

fn class(durability: Durability) -> StdArc<RoomClass> {
    StdArc::new(RoomClass {
        history: Keep {
            messages: 100,
            ..Keep::NONE
        },
        durability,
        ..RoomClass::default()
    })
}

fn world(durability: Durability) -> Arc<World> {
    let world = World::roomy();
    set_class(&world, durability);
    world
}

fn set_class(world: &World, durability: Durability) {
    let class = class(durability);
    world.table.set_classify(StdArc::new(move |_| class.clone()));
}

fn publish(world: &World, disk: &Disk, n: u64) -> Accepted {
    let manner = Manner {
        journal: Some(disk),
        ..Manner::default()
    };
    world
        .table
        .publish("room", draft(n), manner, world.now(), &world.mailboxes)
        .expect("published")
}

fn assert_distinct(accepted: &[Accepted]) {
    let distinct: BTreeSet<_> = accepted.iter().map(|a| (a.epoch, a.seq)).collect();
    assert_eq!(distinct.len(), accepted.len(), "a number was given twice");
}

/// A durable room closes again and again while publishers wake it.
fn close_and_wake() {
    let (world, disk) = (world(Durability::Durable), Arc::new(Disk::default()));
    // The disk knows the room, and nobody uses it: whoever makes it goes on with its numbering.
    let mut accepted = vec![publish(&world, &disk, 0)];
    disk.write();
    world.assert_empty();
    let publishers: Vec<_> = (0..2)
        .map(|n| {
            let (world, disk) = (world.clone(), disk.clone());
            thread::spawn(move || (0..2).map(|_| publish(&world, &disk, n)).collect::<Vec<_>>())
        })
        .collect();
    let sweepers: Vec<_> = (0..2)
        .map(|_| {
            let (world, disk) = (world.clone(), disk.clone());
            thread::spawn(move || {
                for _ in 0..3 {
                    disk.write();
                    world.clock.fetch_add(2, shuttle::sync::atomic::Ordering::SeqCst);
                    world.table.sweep(world.now());
                }
            })
        })
        .collect();
    for publisher in publishers {
        accepted.extend(publisher.join().expect("a publisher"));
    }
    sweepers.into_iter().for_each(|s| s.join().expect("a sweeper"));
    assert_distinct(&accepted);
    disk.write();
    let epoch = accepted[0].epoch;
    assert!(
        accepted.iter().all(|a| a.epoch == epoch),
        "the disk's numbering goes on"
    );
    let mut written = disk.written.lock().clone();
    written.sort();
    let all: Vec<_> = (1..=5).map(|seq| (epoch, Seq(seq))).collect();
    assert_eq!(written, all, "each message once, without a hole");
    world.assert_empty();
    // The next life begins behind all that.
    assert_eq!(publish(&world, &disk, 9).seq, Seq(6));
}

#[test]
fn a_durable_room_that_closes_and_opens_again_gives_no_number_twice() {
    shuttle::check_random(close_and_wake, RUNS);
    // Few preemptions at deep places: one who sleeps through a whole life of the room.
    shuttle::check_pct(close_and_wake, RUNS / 2, 3);
}

/// A room is not closed over what the disk has still to write: who wakes it would take that for lost.
#[test]
fn a_woken_room_knows_of_every_number_whether_the_disk_has_it() {
    shuttle::check_random(
        || {
            let (world, disk) = (world(Durability::Durable), Arc::new(Disk::default()));
            publish(&world, &disk, 0);
            disk.write();
            let publisher = thread::spawn({
                let (world, disk) = (world.clone(), disk.clone());
                move || publish(&world, &disk, 1)
            });
            let writer = thread::spawn({
                let disk = disk.clone();
                move || (0..2).for_each(|_| disk.write())
            });
            for _ in 0..3 {
                world.clock.fetch_add(2, shuttle::sync::atomic::Ordering::SeqCst);
                world.table.sweep(world.now());
            }
            let accepted = publisher.join().expect("a publisher");
            writer.join().expect("a writer");
            disk.write();
            let woken = world.table.wake(&name(), world.now()).expect("room for a room");
            let woken = woken.expect("the disk knows it");
            assert_eq!(
                (woken.epoch, woken.seq(), woken.settled()),
                (accepted.epoch, accepted.seq, accepted.seq)
            );
        },
        RUNS,
    );
}

/// The class says that rooms are durable no more, while publishers and a subscriber are at work.
#[test]
fn a_room_that_loses_its_class_closes_for_all_and_swallows_nothing() {
    shuttle::check_random(
        || {
            let (world, disk) = (world(Durability::Durable), Arc::new(Disk::default()));
            let first = publish(&world, &disk, 0);
            let publishers: Vec<_> = (0..2)
                .map(|n| {
                    let (world, disk) = (world.clone(), disk.clone());
                    thread::spawn(move || (0..2).map(|_| publish(&world, &disk, n)).collect::<Vec<_>>())
                })
                .collect();
            let joiner = thread::spawn({
                let world = world.clone();
                move || world.join(0)
            });
            set_class(&world, Durability::Memory);
            let mut told = Vec::new();
            world
                .table
                .reclassify(world.now(), |room, shards| told.push((room.key, shards)));
            let mut accepted = vec![first];
            for publisher in publishers {
                accepted.extend(publisher.join().expect("a publisher"));
            }
            let joined = joiner.join().expect("a joiner");
            assert_distinct(&accepted);
            disk.write();
            for a in &accepted {
                let written = disk
                    .written
                    .lock()
                    .iter()
                    .filter(|w| **w == (a.epoch, a.seq))
                    .count();
                assert_eq!(
                    written,
                    usize::from(a.epoch == first.epoch),
                    "a durable message is written once, and no other"
                );
            }
            // Who had joined the old room is told, or has joined the new one.
            let is_told = told
                .iter()
                .any(|&(key, shards)| key == joined.room.key && shards & 1 != 0);
            assert_eq!(is_told, joined.room.epoch == first.epoch);
            let owed: BTreeSet<_> = accepted
                .iter()
                .filter(|a| a.epoch == joined.room.epoch && a.seq > joined.seq)
                .map(|a| a.seq.0)
                .collect();
            let got = super::numbers(&world.drain(0), joined.room.epoch, joined.seq);
            assert_eq!(
                got,
                owed.into_iter().collect::<Vec<_>>(),
                "each once and in order"
            );
            if let Some(now) = world.table.get("room") {
                assert_eq!(now.class(), class(Durability::Memory));
                assert_ne!(now.epoch, first.epoch);
            }
        },
        RUNS,
    );
}
