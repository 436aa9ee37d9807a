//! Broken bytes: the two must judge them alike. Where they do not is listed in [`Difference`], and nothing else is allowed.

use bytes::Bytes;
use cauce_protocol::limits::PAYLOAD_BYTES_MAX;
use cauce_protocol::message::decode_proto;
use cauce_protocol::wire::{self, client_frame};
use cauce_protocol::{fuzzing, json};
use proptest::prelude::*;
use prost::Message as _;
use protobuf3::reflect::{MessageDescriptor, RuntimeFieldType, RuntimeType};

use crate::random::{client_frames, server_frames};
use crate::reflection::{message, to_twin};

#[derive(Clone, Debug)]
enum Mutation {
    Flip { at: usize, bits: u8 },
    Insert { at: usize, byte: u8 },
    Remove { at: usize },
    Cut { at: usize },
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let mutation = prop_oneof![
        3 => (any::<usize>(), 1u8..).prop_map(|(at, bits)| Mutation::Flip { at, bits }),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert { at, byte }),
        1 => any::<usize>().prop_map(|at| Mutation::Remove { at }),
        1 => any::<usize>().prop_map(|at| Mutation::Cut { at }),
    ];
    prop::collection::vec(mutation, 1..4)
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        // Keys and lengths stand in front; half of the mutations hit the first bytes.
        let place = |at: usize, bytes: &[u8]| {
            let span = if at.is_multiple_of(2) {
                bytes.len().min(12)
            } else {
                bytes.len()
            };
            (at / 2) % span
        };
        match *mutation {
            Mutation::Flip { at, bits } => {
                let at = place(at, &bytes);
                bytes[at] ^= bits;
            }
            Mutation::Insert { at, byte } => bytes.insert(place(at, &bytes), byte),
            Mutation::Remove { at } => drop(bytes.remove(place(at, &bytes))),
            Mutation::Cut { at } => bytes.truncate(place(at, &bytes)),
        }
    }
    bytes
}

/// Where the two part, and which of them protobuf's specification backs. Everything else must be judged alike.
#[derive(Debug, PartialEq)]
enum Difference {
    /// A message inside claims more bytes than there are. Ours refuses; the other one reads to the end and is content.
    TruncatedInside,
    /// A group that ends under another number than it began. Ours refuses; the other one does not compare the two.
    CrossedGroups,
    /// More than 32 bits in a field of 32. Ours keeps the low ones, as specified; the other one refuses.
    WideNumber,
    /// The same message field twice. Ours merges the two, as specified; the other one's reflection keeps the last.
    Merged,
}

/// The reason why one accepts what the other refuses, if it is one of ours to know.
fn explained(
    bytes: &[u8],
    ours: Result<(), prost::DecodeError>,
    theirs: Result<(), protobuf3::Error>,
) -> Option<Difference> {
    match (ours, theirs) {
        (Err(ours), Ok(())) => {
            let ours = ours.to_string();
            if ours.ends_with("buffer underflow") {
                Some(Difference::TruncatedInside)
            } else if ours.ends_with("unexpected end group tag") {
                Some(Difference::CrossedGroups)
            } else {
                None
            }
        }
        (Ok(()), Err(_)) => {
            let goes_on = |byte: &u8| *byte >= 0x80;
            let wide = |five: &[u8]| five[..4].iter().all(goes_on) && five[4] > 0x0f;
            bytes.windows(5).any(wide).then_some(Difference::WideNumber)
        }
        _ => None,
    }
}

/// Whether a message field occurs twice in one message, at any depth. `None` where the bytes cannot be walked.
fn repeats_a_message(descriptor: &MessageDescriptor, bytes: &[u8]) -> Option<bool> {
    let mut stream = protobuf3::CodedInputStream::from_bytes(bytes);
    let mut seen = std::collections::HashSet::new();
    while !stream.eof().ok()? {
        let key = stream.read_raw_varint32().ok()?;
        let field = descriptor.field_by_number(key >> 3);
        let inner = field.and_then(|field| match field.runtime_field_type() {
            RuntimeFieldType::Singular(RuntimeType::Message(inner)) => Some(inner),
            _ => None,
        });
        match inner {
            Some(inner) if key & 7 == 2 => {
                let content = stream.read_bytes().ok()?;
                if !seen.insert(key) || repeats_a_message(&inner, &content)? {
                    return Some(true);
                }
            }
            _ => protobuf3::rt::skip_field_for_tag(key, &mut stream).ok()?,
        }
    }
    Some(false)
}

/// Both accept the bytes and read the same from them, or both refuse them, or the difference is a known one.
macro_rules! judge_alike {
    ($bytes:expr, $type:ident) => {{
        let bytes = $bytes;
        let descriptor = message(stringify!($type));
        match (
            wire::$type::decode(&bytes[..]),
            descriptor.parse_from_bytes(&bytes),
        ) {
            (Ok(ours), Ok(theirs)) => {
                let ours = descriptor
                    .parse_from_bytes(&ours.encode_to_vec())
                    .expect("our writing is sound");
                let difference = (to_twin(&*ours) != to_twin(&*theirs)).then_some(Difference::Merged);
                prop_assert!(
                    difference.is_none() || repeats_a_message(&descriptor, &bytes) == Some(true),
                    "{:02x?} means {} to us and {} to them",
                    bytes,
                    ours,
                    theirs
                );
            }
            (Err(_), Err(_)) => {}
            (ours, theirs) => {
                let (ours, theirs) = (ours.map(drop), theirs.map(drop));
                let message = format!("{bytes:02x?}: we say {ours:?}, they say {theirs:?}");
                prop_assert!(explained(&bytes, ours, theirs).is_some(), "{message}");
            }
        }
    }};
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn broken_client_frames_are_judged_alike(frame in client_frames(), mutations in mutations()) {
        let bytes = mutate(frame.encode_to_vec(), &mutations);
        judge_alike!(&bytes, ClientFrame);
    }

    #[test]
    fn broken_server_frames_are_judged_alike(frame in server_frames(), mutations in mutations()) {
        let bytes = mutate(frame.encode_to_vec(), &mutations);
        judge_alike!(&bytes, ServerFrame);
    }

    #[test]
    fn broken_client_frames_are_judged_alike_by_hand_and_by_the_generated_types(
        frame in client_frames(), mutations in mutations(),
    ) {
        let bytes = Bytes::from(mutate(frame.encode_to_vec(), &mutations));
        let by_hand = decode_proto(&bytes, PAYLOAD_BYTES_MAX);
        match wire::ClientFrame::decode(bytes) {
            // Written again there is nothing unusual left in it.
            Ok(frame) => prop_assert_eq!(by_hand, decode_proto(&frame.encode_to_vec().into(), PAYLOAD_BYTES_MAX)),
            Err(_) => prop_assert!(by_hand.is_err()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// The promises that the fuzzers look after, from frames that they would take long to find.
    #[test]
    fn what_the_fuzzers_hold_for_any_bytes_holds_for_broken_frames_of_every_kind(
        said in client_frames(), heard in server_frames(), mutations in mutations(),
    ) {
        fuzzing::fuzz_decode_proto(&said.encode_to_vec());
        fuzzing::fuzz_decode_proto(&mutate(said.encode_to_vec(), &mutations));
        let text = json::encode_client(&said).into_bytes();
        fuzzing::fuzz_decode_json(&text);
        fuzzing::fuzz_decode_json(&mutate(text, &mutations));
        let text = json::encode_server(&heard).into_bytes();
        fuzzing::fuzz_decode_server_json(&text);
        fuzzing::fuzz_decode_server_json(&mutate(text, &mutations));
    }
}

#[test]
fn the_known_differences_are_still_there() {
    let judged = |bytes: &[u8]| {
        let ours = wire::ClientFrame::decode(bytes).map(drop);
        let theirs = message("ClientFrame").parse_from_bytes(bytes).map(drop);
        explained(bytes, ours, theirs)
    };
    assert_eq!(judged(&[0x12, 6]), Some(Difference::TruncatedInside));
    assert_eq!(judged(&[0xa3, 1, 0xac, 1]), Some(Difference::CrossedGroups));
    assert_eq!(
        judged(&[0x08, 0x87, 0x80, 0x80, 0x80, 0x10]),
        Some(Difference::WideNumber)
    );
    // Hello with version 1, then hello with features 1.
    let twice = [0x12, 2, 0x08, 1, 0x12, 2, 0x10, 1];
    assert_eq!(repeats_a_message(&message("ClientFrame"), &twice), Some(true));
    let Some(client_frame::Request::Hello(hello)) = wire::ClientFrame::decode(&twice[..]).unwrap().request
    else {
        panic!("not a hello")
    };
    assert_eq!((hello.version, hello.features), (1, 1));
}
