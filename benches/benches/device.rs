//! What one report of a plug costs: merged, and merged and written as the update that subscribers get.

#[path = "scenes/device.rs"]
mod scene;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scene::Plug;

fn device(c: &mut Criterion) {
    let mut group = c.benchmark_group("device");
    group.throughput(Throughput::Elements(1));
    let mut plug = Plug::new();
    group.bench_function("report merged", |b| {
        b.iter(|| plug.merge());
    });
    let mut plug = Plug::new();
    group.bench_function("report merged, update written", |b| {
        b.iter(|| plug.merge_and_write());
    });
    group.finish();
}

criterion_group!(benches, device);
criterion_main!(benches);
