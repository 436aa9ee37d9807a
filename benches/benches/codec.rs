//! Reading a publish and writing a push, by hand and by the generated types; reading what a client says that comes back.

#[path = "scenes/codec.rs"]
mod scene;

use bytes::BytesMut;
use cauce_protocol::server::Dialect;
use cauce_protocol::{message, wire};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scene::PAYLOAD_BYTES_MAX;

/// What a client says that comes back.
fn subscribe_frame() -> wire::ClientFrame {
    let subscriptions = (0..32)
        .map(|n| wire::Subscription {
            room: format!("chat:{n}"),
            epoch: 1_764_000_000,
            seq: 100_000 + n,
            ..wire::Subscription::default()
        })
        .collect();
    wire::ClientFrame {
        id: 8,
        request: Some(wire::client_frame::Request::Subscribe(wire::Subscribe {
            rooms: Vec::new(),
            subscriptions,
        })),
    }
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));
    let frame = scene::proto(&scene::publish());
    group.bench_function("publish read by hand and checked", |b| {
        b.iter(|| message::decode_proto(&frame, PAYLOAD_BYTES_MAX));
    });
    let text = scene::text(&scene::publish());
    group.bench_function("publish read from JSON and checked", |b| {
        b.iter(|| message::decode_json(text.as_bytes(), PAYLOAD_BYTES_MAX));
    });
    let subscribe = subscribe_frame();
    let frame = scene::proto(&subscribe);
    group.bench_function("32 rooms with positions read and checked", |b| {
        b.iter(|| message::decode_proto(&frame, PAYLOAD_BYTES_MAX));
    });
    let text = scene::text(&subscribe);
    group.bench_function("32 rooms with positions read from JSON and checked", |b| {
        b.iter(|| message::decode_json(text.as_bytes(), PAYLOAD_BYTES_MAX));
    });
    let payload = scene::payload();
    let push = scene::push(&payload);
    group.bench_function("push written by hand", |b| {
        b.iter(|| {
            let mut out = BytesMut::with_capacity(push.len());
            push.put(&mut out);
            out.freeze()
        });
    });
    let generated = wire::ServerFrame {
        message: Some(wire::server_frame::Message::Push(wire::Push {
            room: 12,
            seq: 100_000,
            event: "message".into(),
            payload: Some(wire::push::Payload::Json(payload.as_bytes().clone())),
            key: String::new(),
        })),
    };
    group.bench_function("push written by the generated types", |b| {
        b.iter(|| cauce_protocol::server::encode(&generated, Dialect::Proto));
    });
    group.bench_function("push written as JSON", |b| b.iter(|| push.to_json()));
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
