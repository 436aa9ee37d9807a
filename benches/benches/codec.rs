//! Reading a publish and writing a push, by hand and by the generated types; reading what a client says that comes back.

use bytes::{Bytes, BytesMut};
use cauce_protocol::server::{Dialect, Push};
use cauce_protocol::{Payload, RoomId, Seq, message, wire};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn payload() -> Payload {
    Payload::Json(Bytes::from(format!("{{\"text\":\"{}\"}}", "x".repeat(116))))
}

fn publish_frame() -> wire::ClientFrame {
    let publish = wire::Publish {
        room: "chat:lobby".into(),
        event: "message".into(),
        payload: Some(wire::publish::Payload::Json(payload().as_bytes().clone())),
        ..wire::Publish::default()
    };
    wire::ClientFrame {
        id: 7,
        request: Some(wire::client_frame::Request::Publish(publish)),
    }
}

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
    let mut framed = cauce_broker_frame(&publish_frame());
    let frame = framed.split_off(2);
    group.bench_function("publish read by hand and checked", |b| {
        b.iter(|| message::decode_proto(&frame, 60_000));
    });
    let text = cauce_protocol::json::encode_client(&publish_frame());
    group.bench_function("publish read from JSON and checked", |b| {
        b.iter(|| message::decode_json(text.as_bytes(), 60_000));
    });
    let subscribe = subscribe_frame();
    let frame = Bytes::from(prost::Message::encode_to_vec(&subscribe));
    group.bench_function("32 rooms with positions read and checked", |b| {
        b.iter(|| message::decode_proto(&frame, 60_000));
    });
    let text = cauce_protocol::json::encode_client(&subscribe);
    group.bench_function("32 rooms with positions read from JSON and checked", |b| {
        b.iter(|| message::decode_json(text.as_bytes(), 60_000));
    });
    let payload = payload();
    let push = Push {
        room: RoomId(12),
        seq: Seq(100_000),
        event: "message",
        payload: &payload,
        key: "",
    };
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

/// The length prefix of a frame of this size has two bytes.
fn cauce_broker_frame(frame: &wire::ClientFrame) -> Bytes {
    use cauce_protocol::frame::put_length;
    let mut out = BytesMut::new();
    let mut body = BytesMut::new();
    prost_encode(frame, &mut body);
    put_length(&mut out, body.len());
    out.extend_from_slice(&body);
    out.freeze()
}

fn prost_encode(frame: &wire::ClientFrame, out: &mut BytesMut) {
    use prost::Message as _;
    // A `BytesMut` grows as needed, so this cannot fail.
    let _ = frame.encode(out);
}

criterion_group!(benches, codec);
criterion_main!(benches);
