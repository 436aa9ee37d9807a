//! The schema read by somebody else: another parser of the schema file, another reader and writer of protobuf, reflection
//! instead of generated types. Frames must mean the same to both, in both directions, and the JSON twin must be what the
//! schema alone makes of them.

mod broken;
mod random;
mod reflection;

use bytes::BytesMut;
use cauce_protocol::ids::{RoomId, Seq};
use cauce_protocol::json;
use cauce_protocol::limits::PAYLOAD_BYTES_MAX;
use cauce_protocol::message::decode_proto;
use cauce_protocol::server::{Direct, Push};
use cauce_protocol::wire;
use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value;

use crate::random::{client_frames, name, number, payload, server_frames};
use crate::reflection::{Zero, from_twin, message, to_twin, without_defaults};

fn parsed(twin: &str) -> Value {
    serde_json::from_str(twin).expect("the twin is JSON")
}

/// Both directions at once: they read what we write and see what our twin says; we read what they write from the twin.
macro_rules! agree_on {
    ($frame:expr, $type:ident, $encode:path) => {{
        let frame = $frame;
        let descriptor = message(stringify!($type));
        let read = descriptor
            .parse_from_bytes(&frame.encode_to_vec())
            .expect("the other one reads it");
        let twin = without_defaults(&descriptor, &parsed(&$encode(&frame)), Zero::KeptInChoice);
        prop_assert_eq!(to_twin(&*read), twin.clone());
        prop_assert!(
            read.unknown_fields_dyn().iter().next().is_none(),
            "it knows every field"
        );
        let written = from_twin(&descriptor, &twin)
            .write_to_bytes_dyn()
            .expect("the other one writes it");
        let frame = wire::$type::decode(&written[..]).expect("we read what the other one writes");
        prop_assert_eq!(
            without_defaults(&descriptor, &parsed(&$encode(&frame)), Zero::DroppedEverywhere),
            without_defaults(&descriptor, &twin, Zero::DroppedEverywhere)
        );
        (frame, written)
    }};
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn client_frames_mean_the_same_to_both(frame in client_frames()) {
        let (frame, written) = agree_on!(frame, ClientFrame, json::encode_client);
        // The reader by hand, too, sees no difference between the two writers.
        prop_assert_eq!(
            decode_proto(&written.into(), PAYLOAD_BYTES_MAX),
            decode_proto(&frame.encode_to_vec().into(), PAYLOAD_BYTES_MAX)
        );
    }

    #[test]
    fn server_frames_mean_the_same_to_both(frame in server_frames()) {
        agree_on!(frame, ServerFrame, json::encode_server);
    }

    #[test]
    fn pushes_and_direct_messages_written_by_hand_mean_the_same_to_both(
        room in number(), seq in number(), event in name(), payload in payload(), key in "[a-zé]{0,9}",
    ) {
        let descriptor = message("ServerFrame");
        let push = Push { room: RoomId(room), seq: Seq(seq), event: &event, payload: &payload, key: &key };
        let direct = Direct { event: &event, payload: &payload };
        let (mut pushed, mut sent) = (BytesMut::new(), BytesMut::new());
        push.put(&mut pushed);
        direct.put(&mut sent);
        for (bytes, twin) in [(pushed, push.to_json()), (sent, direct.to_json())] {
            let frame = wire::ServerFrame::decode_length_delimited(&bytes[..]).expect("we read it");
            prop_assert_eq!(parsed(&json::encode_server(&frame)), parsed(&twin));
            let read = descriptor.parse_from_bytes(&bytes[bytes.len() - frame_len(&bytes)..]).expect("they read it");
            prop_assert_eq!(to_twin(&*read), without_defaults(&descriptor, &parsed(&twin), Zero::KeptInChoice));
        }
    }
}

/// Length of the message in a frame, read by the other implementation.
fn frame_len(frame: &[u8]) -> usize {
    let mut stream = protobuf3::CodedInputStream::from_bytes(frame);
    stream.read_raw_varint32().expect("a length stands in front") as usize
}

#[test]
fn the_golden_vectors_mean_the_same_to_the_other_implementation() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).expect("vectors/ is there") {
        let text = std::fs::read_to_string(entry.expect("entry").path()).expect("a vector file is text");
        let file: Value = serde_json::from_str(&text).expect("a vector file is JSON");
        let descriptor = match file["direction"].as_str() {
            Some("client to broker") => message("ClientFrame"),
            Some("broker to client") => message("ServerFrame"),
            _ => continue,
        };
        for vector in file["vectors"].as_array().expect("vectors are a list") {
            let frame = unhex(vector["hex"].as_str().expect("hex is a text"));
            let frame = &frame[frame.len() - frame_len(&frame)..];
            let message = descriptor
                .parse_from_bytes(frame)
                .expect("the other one reads it");
            assert_eq!(
                to_twin(&*message),
                without_defaults(&descriptor, &vector["json"], Zero::KeptInChoice),
                "{}",
                vector["name"]
            );
            read += 1;
        }
    }
    assert!(read > 50, "only {read} vectors were found");
}

fn unhex(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hex is ASCII");
            u8::from_str_radix(pair, 16).expect("hex")
        })
        .collect()
}
