//! What the store does with rows before it speaks SQL: into the queue, out as a batch, cut into transactions. No database.

use std::sync::Arc;

use bytes::Bytes;
use cauce_broker::publication::Excluded;
use cauce_broker::rooms::Keep;
use cauce_broker::store::{
    Admission, Batcher, Channel, Committed, DeviceStateRow, Late, MessageLimits, MessageRow, Messages,
    ReadingRow, StoreLimits, TRANSACTION_ROWS_MAX,
};
use cauce_protocol::message::Text;
use cauce_protocol::{DeviceId, Epoch, Payload, RoomName, Seq, TenantId};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Rows of one batch.
const ROWS: usize = 1_000;

/// Devices and rooms that they come from.
const SOURCES: usize = 100;

fn tenant() -> TenantId {
    TenantId::new("default").expect("a good name")
}

fn devices() -> Vec<DeviceId> {
    (0..SOURCES)
        .map(|n| DeviceId::new(&format!("8CBFEAA1{n:04X}")).expect("a good name"))
        .collect()
}

fn readings() -> Vec<ReadingRow> {
    let (tenant, devices) = (tenant(), devices());
    let channel = Channel::new("switch:0").expect("a good name");
    (0..ROWS)
        .map(|n| ReadingRow {
            tenant: tenant.clone(),
            device: devices[n % SOURCES].clone(),
            channel: channel.clone(),
            ts_ms: n as u64,
            received_ms: n as u64,
            output: Some(true),
            power_w: Some(27.3),
            voltage_v: Some(233.3),
            current_a: Some(0.123),
            energy_wh: Some(30_473.8),
            temperature_c: Some(36.1),
        })
        .collect()
}

fn states() -> Vec<DeviceStateRow> {
    let (tenant, devices) = (tenant(), devices());
    let (src, state) = (
        Arc::<str>::from("shellyplusplugs-80646fd031f8"),
        Bytes::from(vec![b' '; 1_700]),
    );
    (0..ROWS)
        .map(|n| DeviceStateRow {
            tenant: tenant.clone(),
            device: devices[n % SOURCES].clone(),
            seq: n as u64,
            received_ms: n as u64,
            src: src.clone(),
            model: None,
            state: state.clone(),
        })
        .collect()
}

fn messages() -> Vec<(MessageRow, usize)> {
    let tenant = tenant();
    let rooms: Vec<_> = (0..SOURCES)
        .map(|n| RoomName::new(&format!("order:{n}")).expect("a good name"))
        .collect();
    let payload = Payload::Json(Bytes::from(format!("\"{}\"", "x".repeat(126))));
    (0..ROWS)
        .map(|n| {
            let row = MessageRow {
                tenant: tenant.clone(),
                room: rooms[n % SOURCES].clone(),
                epoch: Epoch(1),
                seq: Seq((n / SOURCES) as u64 + 1),
                event: Text::from_static("message"),
                payload: payload.clone(),
                topic: Text::default(),
                user: None,
                excluded: Excluded::new(),
                unix_ms: 1_795_000_000_000,
                repeat: None,
                lease: Seq(65_536),
                keep: Keep {
                    messages: 100,
                    age_ms: 0,
                    bytes: 0,
                },
                committed: Committed(None),
                late: Late(None),
            };
            (row, 400)
        })
        .collect()
}

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("store, without SQL");
    group.throughput(Throughput::Elements(ROWS as u64));
    let mut batcher = Batcher::new(StoreLimits::default());
    group.bench_function("1,000 readings into a batch", |b| {
        b.iter_batched(
            readings,
            |rows| {
                for row in rows {
                    assert_eq!(batcher.reading(row), Admission::Accepted);
                }
                assert_eq!(batcher.write(TRANSACTION_ROWS_MAX), ROWS);
            },
            BatchSize::SmallInput,
        );
    });
    let mut batcher = Batcher::new(StoreLimits::default());
    group.bench_function("1,000 states of 100 devices into a batch of 100", |b| {
        b.iter_batched(
            states,
            |rows| {
                for row in rows {
                    assert!(!matches!(batcher.state(row), Admission::Refused(_)));
                }
                assert_eq!(batcher.write(TRANSACTION_ROWS_MAX), SOURCES);
            },
            BatchSize::SmallInput,
        );
    });
    let mut queue = Messages::new(MessageLimits::default());
    group.bench_function("1,000 durable messages of 100 rooms into transactions", |b| {
        b.iter_batched(
            messages,
            |rows| {
                for (row, bytes) in rows {
                    assert!(queue.push(row, bytes));
                }
                assert_eq!(queue.commit(), ROWS);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, batches);
criterion_main!(benches);
