//! What happens between publish and the write: the room's step, the hand-over to a shard, and a place in every subscriber's outbox.

#[path = "scenes/delivery.rs"]
mod scene;

use bytes::Bytes;
use cauce_broker::shard::Queue;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scene::Stage;

/// Frames that one write takes at most.
const FRAMES: usize = 64;

/// An outbox's bound by default, in bytes.
const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// Full outboxes that are made at once, some 200 kB of places each.
const FULL_QUEUES: u64 = 16;

fn fan_out(c: &mut Criterion) {
    raise_descriptors();
    let mut group = c.benchmark_group("publish, queue for all, take");
    for subscribers in [1_u32, 10, 1_000] {
        let stage = Stage::new(subscribers);
        group.throughput(Throughput::Elements(u64::from(subscribers)));
        group.bench_function(BenchmarkId::new("subscribers", subscribers), |b| {
            b.iter(|| stage.round());
        });
    }
    group.finish();
}

fn outbox(c: &mut Criterion) {
    let frame = Bytes::from(vec![b'x'; 150]);
    let mut group = c.benchmark_group("outbox");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let mut queue = Queue::default();
    group.bench_function("64 frames queued and written", |b| {
        b.iter(|| {
            for _ in 0..FRAMES {
                queue.push(frame.clone(), OUTBOX_BYTES_MAX);
            }
            queue.written(FRAMES * frame.len());
        });
    });
    let mut queue = Queue::default();
    group.bench_function("64 urgent frames queued and written", |b| {
        b.iter(|| {
            for _ in 0..FRAMES {
                queue.push_urgent(frame.clone(), OUTBOX_BYTES_MAX);
            }
            queue.written(FRAMES * frame.len());
        });
    });
    let full = || {
        let mut queue = Queue::default();
        while queue.push(frame.clone(), OUTBOX_BYTES_MAX) {}
        queue
    };
    group.bench_function("64 frames refused by a full one", |b| {
        b.iter_batched_ref(
            full,
            |queue| (0..FRAMES).all(|_| !queue.push(frame.clone(), OUTBOX_BYTES_MAX)),
            BatchSize::NumIterations(FULL_QUEUES),
        );
    });
    group.finish();
}

/// Each subscriber holds a socket. Where that is not allowed, the largest room says so.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("the limit on descriptors stays: {error}");
    }
}

criterion_group!(benches, fan_out, outbox);
criterion_main!(benches);
