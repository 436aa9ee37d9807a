//! How a room gets its one order: a critical section a room (what the broker does), or an owner thread a room to which every
//! publisher hands its message. Both number the message and push it to two listening shards' mailboxes.
//!
//! Prints, for each design, medians of the time from publish to the second shard's seeing it (threads asleep before), and the publishes a
//! second of 1, 2 and 4 publishers in one room and in a hundred. Compare within one run only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cauce_broker::mailbox::{Mailbox, Wake};
use cauce_broker::publication::{Draft, Shared};
use cauce_broker::rooms::{Listener, Manner, RoomKeys, RoomTable, Start, TableLimits};
use cauce_protocol::message::Text;
use cauce_protocol::{Payload, RoomName};
use hdrhistogram::Histogram;

const SHARDS: usize = 2;
const CAPACITY: usize = 64 << 20;

#[derive(Debug)]
struct Unpark(std::sync::OnceLock<Thread>);

impl Wake for Unpark {
    fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

#[derive(Debug)]
struct Delivery(Shared);

impl From<Shared> for Delivery {
    fn from(publication: Shared) -> Self {
        Self(publication)
    }
}

type Shard = Arc<Mailbox<Delivery, Unpark>>;
/// What a publisher hands to an owner.
type Order = Arc<Mailbox<(usize, Draft), Unpark>>;

struct World {
    table: Arc<RoomTable>,
    names: Vec<String>,
    shards: Vec<Shard>,
    owners: Vec<Order>,
    seen: Arc<AtomicU64>,
    latency: Arc<std::sync::Mutex<Histogram<u64>>>,
    ending: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

fn mailbox<T>() -> Arc<Mailbox<T, Unpark>> {
    Arc::new(Mailbox::new(CAPACITY, Unpark(std::sync::OnceLock::new())))
}

impl World {
    fn new(rooms: usize, owners: usize) -> Self {
        let limits = TableLimits {
            rooms_max: 1_000,
            linger_ms: 60_000,
            history_bytes_max: 64 * 1024 * 1024,
        };
        let table = Arc::new(RoomTable::new(limits, Arc::<RoomKeys>::default()));
        let names: Vec<String> = (0..rooms).map(|n| format!("room:{n}")).collect();
        let shards: Vec<Shard> = (0..SHARDS).map(|_| mailbox()).collect();
        for name in &names {
            for shard in 0..SHARDS {
                let name = RoomName::new(name).expect("a good name");
                table
                    .join(&name, Listener::Shard(shard), Start::Now, 0)
                    .expect("room for it");
            }
        }
        let mut world = Self {
            table,
            names,
            shards,
            owners: (0..owners).map(|_| mailbox()).collect(),
            seen: Arc::default(),
            latency: Arc::new(std::sync::Mutex::new(Histogram::new(3).expect("three digits"))),
            ending: Arc::default(),
            threads: Vec::new(),
        };
        for index in 0..SHARDS {
            world.spawn_shard(index);
        }
        for index in 0..owners {
            world.spawn_owner(index);
        }
        world
    }

    fn spawn_shard(&mut self, index: usize) {
        let (shard, ending) = (self.shards[index].clone(), self.ending.clone());
        let (seen, latency) = (self.seen.clone(), self.latency.clone());
        let last = index == SHARDS - 1;
        self.threads.push(thread::spawn(move || {
            let _ = shard_waker(&shard).set(thread::current());
            let mut local = Histogram::<u64>::new(3).expect("three digits");
            while !ending.load(Ordering::Acquire) {
                shard.begin_turn();
                while let Some(Delivery(publication)) = shard.pop() {
                    if last {
                        let _ = local.record(publication.accepted.elapsed().as_nanos() as u64);
                        seen.fetch_add(1, Ordering::Release);
                    }
                    shard.release(publication.cost());
                }
                thread::park_timeout(Duration::from_millis(50));
            }
            if last {
                let _ = latency.lock().expect("not poisoned").add(local);
            }
        }));
    }

    fn spawn_owner(&mut self, index: usize) {
        let (owner, ending) = (self.owners[index].clone(), self.ending.clone());
        let (table, names, shards) = (self.table.clone(), self.names.clone(), self.shards.clone());
        self.threads.push(thread::spawn(move || {
            let _ = shard_waker(&owner).set(thread::current());
            while !ending.load(Ordering::Acquire) {
                owner.begin_turn();
                while let Some((room, draft)) = owner.pop() {
                    let cost = draft.cost();
                    // The owner is alone, so its lock is never contended: this is as cheap as numbering gets.
                    while table
                        .publish(&names[room], draft.clone(), Manner::default(), 0, &shards)
                        .is_err()
                    {
                        thread::yield_now();
                    }
                    owner.release(cost);
                }
                thread::park_timeout(Duration::from_millis(50));
            }
        }));
    }

    fn publish(&self, room: usize) {
        let draft = Draft::new(
            Text::from_static("m"),
            Payload::Json(Bytes::from_static(&[b'1'; 128])),
        );
        if self.owners.is_empty() {
            let mut draft = draft;
            while self
                .table
                .publish(
                    &self.names[room],
                    draft.clone(),
                    Manner::default(),
                    0,
                    &self.shards,
                )
                .is_err()
            {
                thread::yield_now();
                draft.accepted = Instant::now();
            }
        } else {
            let owner = &self.owners[room % self.owners.len()];
            while !owner.reserve(draft.cost()) {
                thread::yield_now();
            }
            owner.send((room, draft));
        }
    }

    fn end(mut self) -> Histogram<u64> {
        self.ending.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().expect("no panic");
        }
        let latency = self.latency.lock().expect("not poisoned");
        latency.clone()
    }
}

/// The waker of a mailbox is set by its owner's thread once it runs.
fn shard_waker<T>(mailbox: &Mailbox<T, Unpark>) -> &std::sync::OnceLock<Thread> {
    &mailbox.waker().0
}

fn latency(owners: usize) -> Histogram<u64> {
    let world = World::new(1, owners);
    thread::sleep(Duration::from_millis(50));
    for _ in 0..400 {
        world.publish(0);
        // Long enough for everybody to fall asleep again.
        thread::sleep(Duration::from_micros(300));
    }
    thread::sleep(Duration::from_millis(100));
    world.end()
}

fn throughput(rooms: usize, owners: usize, publishers: usize) -> f64 {
    const EACH: usize = 50_000;
    let world = World::new(rooms, owners);
    thread::sleep(Duration::from_millis(50));
    let began = Instant::now();
    thread::scope(|scope| {
        for publisher in 0..publishers {
            let world = &world;
            scope.spawn(move || {
                for n in 0..EACH {
                    world.publish((publisher * 37 + n) % rooms);
                }
            });
        }
    });
    let goal = (publishers * EACH) as u64;
    while world.seen.load(Ordering::Acquire) < goal {
        thread::sleep(Duration::from_micros(100));
    }
    let rate = goal as f64 / began.elapsed().as_secs_f64();
    world.end();
    rate
}

/// Rounds of each measurement. The designs alternate, so that what else the machine does falls on both.
const ROUNDS: usize = 9;

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    println!("medians of {ROUNDS} alternating rounds");
    println!("{:<34} {:>16} {:>16}", "", "critical section", "owner thread");
    let rounds: Vec<_> = (0..ROUNDS).map(|_| [latency(0), latency(1)]).collect();
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        let of = |design: usize| {
            median(
                rounds
                    .iter()
                    .map(|r| r[design].value_at_quantile(quantile) as f64 / 1e3)
                    .collect(),
            )
        };
        println!(
            "{:<34} {:>13.1} us {:>13.1} us",
            format!("publish to last shard, {name}"),
            of(0),
            of(1)
        );
    }
    for rooms in [1, 100] {
        for publishers in [1, 2, 4] {
            let rounds: Vec<_> = (0..ROUNDS)
                .map(|_| {
                    [
                        throughput(rooms, 0, publishers),
                        throughput(rooms, SHARDS, publishers),
                    ]
                })
                .collect();
            let of = |design: usize| median(rounds.iter().map(|r| r[design]).collect());
            let name = format!("{rooms} rooms, {publishers} publishers");
            println!("{name:<34} {:>14.0}/s {:>14.0}/s", of(0), of(1));
        }
    }
}
