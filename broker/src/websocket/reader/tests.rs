//! What comes out of bytes that are whole, cut, forbidden or too many.

use super::*;
use proptest::prelude::*;

const LIMITS: ReaderLimits = ReaderLimits {
    message_bytes_max: 70_000,
    fragments_max: 4,
};

fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut out = vec![u8::from(fin) << 7 | opcode];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

fn read(bytes: &[u8]) -> (Result<(), Violation>, Vec<Event>) {
    let mut events = Vec::new();
    let verdict = Reader::default().read(&mut bytes.to_vec(), LIMITS, &mut events);
    (verdict, events)
}

fn violation(bytes: &[u8]) -> u16 {
    read(bytes).0.unwrap_err().close_code()
}

proptest! {
    #[test]
    fn messages_come_out_whole_wherever_the_stream_is_cut(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..10),
        cut in 1usize..100,
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|m| masked(true, 2, m)).collect();
        let (mut reader, mut events) = (Reader::default(), Vec::new());
        for piece in stream.chunks(cut) {
            reader.read(&mut piece.to_vec(), LIMITS, &mut events).unwrap();
        }
        let expected: Vec<_> = messages.into_iter().map(|m| Event::Binary(m.into())).collect();
        prop_assert_eq!(events, expected);
        prop_assert!(!reader.is_incomplete());
        prop_assert_eq!(reader.buffered_bytes(), 0);
    }

    #[test]
    fn any_bytes_are_read_alike_however_they_are_cut(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_reader(&data);
    }

    #[test]
    fn unmasking_is_xor_with_the_repeated_mask(data in prop::collection::vec(any::<u8>(), 0..100), mask: [u8; 4]) {
        let mut out = data.clone();
        unmask(&mut out, mask);
        let expected: Vec<u8> = data.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]).collect();
        prop_assert_eq!(out, expected);
    }
}

#[test]
fn a_message_in_pieces_may_have_control_frames_between_them() {
    let stream = [
        masked(false, 1, b"he"),
        masked(true, 9, b"?"),
        masked(true, 0, b"llo"),
    ]
    .concat();
    let (verdict, events) = read(&stream);
    assert_eq!(verdict, Ok(()));
    assert_eq!(events, [Event::Ping("?".into()), Event::Text("hello".into())]);
}

#[test]
fn a_length_beyond_the_limit_is_refused_from_the_header_alone() {
    let mut header = vec![0x82, 0x80 | 127];
    header.extend((1u64 << 63).to_be_bytes());
    assert_eq!(violation(&header), 1009);
    let pieces = [masked(false, 2, &[0; 40_000]), masked(true, 0, &[0; 40_000])].concat();
    assert_eq!(violation(&pieces), 1009);
}

#[test]
fn what_the_rfc_forbids_ends_the_connection_with_its_code() {
    assert_eq!(violation(&[0x82, 0x01, 0]), 1002, "no mask");
    assert_eq!(violation(&masked(true, 0x3, b"")), 1002, "reserved opcode");
    assert_eq!(violation(&[0xc2, 0x80, 0, 0, 0, 0]), 1002, "reserved bit");
    assert_eq!(violation(&masked(false, 9, b"")), 1002, "ping in pieces");
    assert_eq!(violation(&masked(true, 9, &[0; 126])), 1002, "long ping");
    assert_eq!(violation(&masked(true, 0, b"")), 1002, "continuation of nothing");
    assert_eq!(
        violation(&[masked(false, 1, b""), masked(true, 1, b"")].concat()),
        1002,
        "interleaved"
    );
    assert_eq!(violation(&masked(true, 8, &[3])), 1002, "half a close code");
    assert_eq!(
        violation(&masked(true, 8, &1005u16.to_be_bytes())),
        1002,
        "a code that is never sent"
    );
    assert_eq!(violation(&masked(true, 1, b"\xff")), 1007, "not UTF-8");
    let many: Vec<u8> = std::iter::once(masked(false, 2, b""))
        .chain((0..4).map(|_| masked(false, 0, b"")))
        .flatten()
        .collect();
    assert_eq!(violation(&many), 1008, "too many pieces");
}

#[test]
fn the_beginning_of_a_frame_does_not_pin_the_read_that_brought_it() {
    let message = masked(true, 2, &[7; 1_000]);
    let (mut reader, mut events) = (Reader::default(), Vec::new());
    reader
        .read(&mut message[..10].to_vec(), LIMITS, &mut events)
        .unwrap();
    // The rest of it, as much more as a read holds, and the first bytes of the next.
    let mut read = message[10..].to_vec();
    read.extend(message.repeat(60));
    read.extend(&message[..20]);
    reader.read(&mut read, LIMITS, &mut events).unwrap();
    assert_eq!(events.len(), 61);
    assert!(
        reader.buffered_bytes() <= 2 * message.len(),
        "{}",
        reader.buffered_bytes()
    );
}

#[test]
fn only_what_was_open_before_has_waited() {
    let mut reader = Reader::default();
    let mut after = |bytes: &[u8]| {
        let mut events = Vec::new();
        reader.read(&mut bytes.to_vec(), LIMITS, &mut events).unwrap();
        reader.has_waited(&events)
    };
    let message = masked(true, 2, b"message");
    assert!(after(&message[..5]), "begun");
    assert!(after(&message[5..8]), "still the same");
    assert!(
        !after(&[&message[8..], &message[..3]].concat()),
        "the next one began just now"
    );
    assert!(!after(&message[3..]), "nothing is open");
    after(&masked(false, 1, b"in pieces"));
    assert!(after(&masked(true, 9, b"ping")), "a ping does not end it");
    assert!(!after(
        &[masked(true, 0, b"."), masked(false, 1, b"another")].concat()
    ));
}

#[test]
fn nothing_after_a_close_counts() {
    let stream = [
        masked(true, 8, &1000u16.to_be_bytes()),
        masked(true, 1, b"late"),
        vec![0xff; 10],
    ]
    .concat();
    assert_eq!(read(&stream), (Ok(()), vec![Event::Close { code: Some(1000) }]));
}
