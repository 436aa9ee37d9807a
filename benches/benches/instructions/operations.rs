//! What is counted. Each prepares its scene, then does the operation so many times.

use std::hint::black_box;

use bytes::BytesMut;
use cauce_protocol::message;

use crate::codec::{self, PAYLOAD_BYTES_MAX};
use crate::delivery::Stage;
use crate::device::Plug;

/// Subscribers of the room in which deliveries are counted: so many that a message's own cost hardly shows in one of them.
const AUDIENCE: u32 = 100;

/// Rounds before counting would begin if it could: buffers have grown, maps have their size. Both runs do them, so they cancel out.
const WARM_UP: u64 = 100;

/// One operation.
pub(crate) struct Operation {
    /// Its name in the record.
    pub(crate) name: &'static str,
    /// How often the shorter run does it. Enough that what a run adds by chance, some dozen instructions, is below a thousandth.
    pub(crate) count: u64,
    /// Does it so often.
    pub(crate) run: fn(u64),
}

pub(crate) const OPERATIONS: [Operation; 8] = [
    Operation {
        name: "decode_publish_protobuf",
        count: 1_000,
        run: |count| {
            let frame = codec::proto(&codec::publish());
            repeat(count, || {
                let decoded = black_box(message::decode_proto(black_box(&frame), PAYLOAD_BYTES_MAX));
                matches!(decoded, Ok(Ok(_)))
            });
        },
    },
    Operation {
        name: "decode_publish_json",
        count: 1_000,
        run: |count| {
            let text = codec::text(&codec::publish());
            repeat(count, || {
                let text = black_box(text.as_bytes());
                matches!(
                    black_box(message::decode_json(text, PAYLOAD_BYTES_MAX)),
                    Ok(Ok(_))
                )
            });
        },
    },
    Operation {
        name: "encode_push_protobuf",
        count: 1_000,
        run: |count| {
            let payload = codec::payload();
            let push = codec::push(&payload);
            repeat(count, || {
                let mut out = BytesMut::with_capacity(black_box(&push).len());
                push.put(&mut out);
                !black_box(out.freeze()).is_empty()
            });
        },
    },
    Operation {
        name: "encode_push_json",
        count: 1_000,
        run: |count| {
            let payload = codec::payload();
            let push = codec::push(&payload);
            repeat(count, || !black_box(black_box(&push).to_json()).is_empty());
        },
    },
    Operation {
        name: "publish_to_one",
        count: 1_000,
        run: |count| {
            let stage = Stage::new(1);
            repeat(count, || stage.round() == 1);
        },
    },
    Operation {
        name: "publish_per_subscriber",
        count: 100 * AUDIENCE as u64,
        run: |count| {
            let stage = Stage::new(AUDIENCE);
            repeat(count / u64::from(AUDIENCE), || {
                stage.round() == u64::from(AUDIENCE)
            });
        },
    },
    Operation {
        name: "device_merge",
        count: 300,
        run: |count| {
            let mut plug = Plug::new();
            repeat(count, || black_box(plug.merge()) > 0);
        },
    },
    Operation {
        name: "device_merge_and_write",
        count: 300,
        run: |count| {
            let mut plug = Plug::new();
            repeat(count, || !black_box(plug.merge_and_write()).is_empty());
        },
    },
];

/// Does it so often, and after the warm-up. Callgrind counts while this function runs ([`crate::callgrind`]): what prepares a scene asks
/// the cryptography library for randomness, which it gathers from the jitter of the clock with as many instructions as that takes.
/// An operation that did not do what it is for would count as a fast one.
#[inline(never)]
fn repeat(count: u64, mut once: impl FnMut() -> bool) {
    let mut failed = 0_u64;
    for _ in 0..WARM_UP + count {
        failed += u64::from(!once());
    }
    assert_eq!(failed, 0, "the operation did not do what is counted");
}
