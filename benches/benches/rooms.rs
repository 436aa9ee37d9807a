//! The table of rooms under 1 to 4 threads with churn: fifteen look-ups, then a room that is made, left and closed again.
//!
//! Beside it the bare maps, so that the choice can be checked: the lock-free one that the table stands on, and a map behind a lock.
//! Time is that of one step on every thread at once: on as many cores as threads it stays the same if nobody waits for anybody.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use cauce_broker::rooms::{Listener, RoomKeys, RoomTable, Start, TableLimits};
use cauce_protocol::RoomName;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use foldhash::fast::RandomState;
use parking_lot::RwLock;

/// Rooms that stay.
const ROOMS: usize = 1_000;

/// Rooms that come and go, of each thread.
const CHURNING: usize = 64;

/// One step in so many is churn.
const CHURN_EVERY: u64 = 16;

/// Between two sweeps for closed rooms, in steps: the broker sweeps once a second.
const SWEEP_EVERY: u64 = 4_096;

/// What is looked up in.
trait Rooms: Sync {
    fn look_up(&self, name: &RoomName) -> bool;
    fn churn(&self, thread: usize, step: u64, name: &RoomName);
}

struct Ours(RoomTable);

impl Rooms for Ours {
    fn look_up(&self, name: &RoomName) -> bool {
        self.0.get(name.as_str()).is_some()
    }

    fn churn(&self, thread: usize, step: u64, name: &RoomName) {
        let joined = self.0.join(name, Listener::Shard(thread), Start::Now, step);
        let joined = joined.expect("room for it");
        self.0.leave_shard(&joined.room, thread, true, step);
        if step.is_multiple_of(SWEEP_EVERY) {
            // Long after every step, so that each room that was left closes.
            self.0.sweep(u64::MAX);
        }
    }
}

impl Rooms for papaya::HashMap<RoomName, Arc<u64>, RandomState> {
    fn look_up(&self, name: &RoomName) -> bool {
        self.pin().get(name).cloned().is_some()
    }

    fn churn(&self, _: usize, step: u64, name: &RoomName) {
        let map = self.pin();
        map.insert(name.clone(), Arc::new(step));
        map.remove(name);
    }
}

impl Rooms for RwLock<HashMap<RoomName, Arc<u64>, RandomState>> {
    fn look_up(&self, name: &RoomName) -> bool {
        self.read().get(name).cloned().is_some()
    }

    fn churn(&self, _: usize, step: u64, name: &RoomName) {
        self.write().insert(name.clone(), Arc::new(step));
        self.write().remove(name);
    }
}

fn names(prefix: &str, count: usize) -> Vec<RoomName> {
    (0..count)
        .map(|n| RoomName::new(&format!("{prefix}:{n}")).expect("a good name"))
        .collect()
}

fn ours(names: &[RoomName]) -> Ours {
    let limits = TableLimits {
        rooms_max: 100 * ROOMS,
        linger_ms: 0,
        history_bytes_max: 0,
    };
    let table = RoomTable::new(limits, Arc::<RoomKeys>::default());
    for name in names {
        // A listener on a shard of its own keeps the room.
        let joined = table.join(name, Listener::Shard(63), Start::Now, 0);
        joined.expect("room for it");
    }
    Ours(table)
}

/// So many steps on so many threads; how long until all were done.
fn run(rooms: &impl Rooms, stay: &[RoomName], threads: usize, steps: u64) -> Duration {
    let gate = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let gate = &gate;
                let churning = names(&format!("churn:{thread}"), CHURNING);
                scope.spawn(move || {
                    gate.wait();
                    let mut found = 0_u64;
                    for step in 0..steps {
                        // A stride that is prime to the number of rooms visits them all, and not in their order.
                        let at = (step as usize * 617 + thread * 251) % stay.len();
                        if step.is_multiple_of(CHURN_EVERY) {
                            let at = (step / CHURN_EVERY) as usize % CHURNING;
                            rooms.churn(thread, step, &churning[at]);
                        } else {
                            found += u64::from(rooms.look_up(&stay[at]));
                        }
                    }
                    black_box(found)
                })
            })
            .collect();
        gate.wait();
        let began = Instant::now();
        for worker in workers {
            worker.join().expect("no panic");
        }
        began.elapsed()
    })
}

fn table(c: &mut Criterion) {
    let stay = names("room", ROOMS);
    let ours = ours(&stay);
    let lock_free = papaya::HashMap::with_hasher(RandomState::default());
    let locked = RwLock::new(HashMap::with_hasher(RandomState::default()));
    for (n, name) in (0..).zip(&stay) {
        lock_free.pin().insert(name.clone(), Arc::new(n));
        locked.write().insert(name.clone(), Arc::new(n));
    }
    let mut group = c.benchmark_group("rooms");
    for threads in [1, 2, 4] {
        group.throughput(Throughput::Elements(threads as u64));
        group.bench_function(BenchmarkId::new("table", threads), |b| {
            b.iter_custom(|steps| run(&ours, &stay, threads, steps));
        });
        group.bench_function(BenchmarkId::new("bare lock-free map", threads), |b| {
            b.iter_custom(|steps| run(&lock_free, &stay, threads, steps));
        });
        group.bench_function(BenchmarkId::new("bare map behind a lock", threads), |b| {
            b.iter_custom(|steps| run(&locked, &stay, threads, steps));
        });
    }
    group.finish();
}

criterion_group!(benches, table);
criterion_main!(benches);
