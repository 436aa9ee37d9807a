use std::io::IoSlice;

use proptest::prelude::*;

use super::key_update::message;
use super::open::{EMPTY_RECORDS_MAX, KEY_UPDATES_MAX};
use super::stand_in::{Event, Receiver, SUITES, Sender, fuzz_records, key};
use super::*;

const SUITE: Suite = Suite::Aes128Gcm;
const HANDSHAKE: u8 = content_type::HANDSHAKE;
const DATA: u8 = content_type::APPLICATION_DATA;
const ALERT: u8 = content_type::ALERT;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Bytes of a dump in the style of an RFC.
fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("two digits"))
        .collect()
}

fn sender() -> Sender {
    Sender::new(SUITE, u64::MAX)
}

/// What a receiver makes of what `say` has said.
fn receive(say: impl FnOnce(&mut Sender)) -> (Result<(), RecordError>, Vec<Event>) {
    let mut sender = sender();
    say(&mut sender);
    let mut receiver = Receiver::new(SUITE);
    (receiver.receive(&sender.sent), receiver.events)
}

fn refusal(say: impl FnOnce(&mut Sender)) -> RecordError {
    receive(say).0.expect_err("it must not be taken")
}

/// Refused, and with that alert.
fn assert_refused(say: impl FnOnce(&mut Sender), error: RecordError, alert: Alert) {
    assert_eq!(refusal(say), error);
    assert_eq!(error.alert(), Some(alert), "{error}");
}

#[test]
fn the_traces_of_rfc_8448_open_and_seal_byte_by_byte() {
    // Section 3, "Simple 1-RTT Handshake": application data and closing alerts of both sides.
    let client = || {
        TrafficKey::new(
            Suite::Aes128Gcm,
            &hex("17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51"),
            &hex("5b 78 92 3d ee 08 57 90 33 e5 23 d9"),
        )
        .expect("lengths")
    };
    let server = TrafficKey::new(
        Suite::Aes128Gcm,
        &hex("9f 02 28 3b 6c 9c 07 ef c2 6b b9 f2 ac 92 e3 56"),
        &hex("cf 78 2b 88 dd 83 54 9a ad f1 e9 84"),
    )
    .expect("lengths");
    let content: Vec<u8> = (0..50).collect();
    let from_client = hex(
        "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4",
    );
    let client_closes = hex("17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3");
    let from_server = hex(
        "17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc 32 25 d0 5f 82 aa 1b 36 e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2 ab f3 32 54 0d d0 32 e1 67 c2 95 5d",
    );
    let server_closes = hex("17 03 03 00 13 b5 8f d6 71 66 eb f5 99 d2 47 20 cf be 7e fa 7a 88 64 a9");

    let mut opener = Opener::new(client(), 0);
    let mut turn = opener.turn();
    assert_eq!(turn.open(&mut from_client.clone()), Ok(Opened::Content(&content)));
    assert_eq!(turn.open(&mut client_closes.clone()), Ok(Opened::Closed));

    // The session ticket was the server's first record.
    let mut sealer = Sealer::new(server, 1, 1 << 24);
    let mut turn = sealer.turn().expect("a key");
    let (mut data, mut close) = (Vec::new(), Vec::new());
    let slices = [IoSlice::new(&content)];
    turn.content(&mut Gather::new(&slices, usize::MAX), &mut data)
        .expect("sealed");
    assert_eq!(data, from_server);
    turn.alert(Alert::CLOSE_NOTIFY, &mut close).expect("sealed");
    assert_eq!(close, server_closes);
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened_however_it_is_scattered_and_cut(
        suite in 0..SUITES.len(),
        messages in prop::collection::vec(prop::collection::vec(0usize..20_000, 1..4), 1..6),
        cuts in prop::collection::vec(1usize..30_000, 1..20),
        records_max in 2u64..9,
        asked in any::<u8>(),
    ) {
        let mut sender = Sender::new(SUITES[suite], records_max);
        let mut receiver = Receiver::new(SUITES[suite]);
        let mut said = Vec::new();
        for (n, sizes) in messages.iter().enumerate() {
            let parts: Vec<Vec<u8>> = sizes.iter().map(|&size| (0..size).map(|at| (at ^ n) as u8).collect()).collect();
            let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            if asked & 1 << (n % 8) != 0 {
                sender.sealer.owe_update();
            }
            sender.send(&slices).expect("sealed");
            said.extend(parts.concat());
        }
        let mut rest = &sender.sent[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at(rest.len().min(*cut));
            receiver.receive(piece).expect("taken");
            rest = later;
        }
        prop_assert_eq!(receiver.kept(), 0);
        prop_assert!(receiver.content() == said);
    }

    #[test]
    fn a_changed_bit_is_refused(at in 0usize..5 + 40 + 1 + 16, bit in 0u32..8) {
        let mut sender = sender();
        sender.seal(DATA, &[7; 40], 0);
        let mut changed = sender.sent.clone();
        changed[at] ^= 1 << bit;
        let mut receiver = Receiver::new(SUITE);
        let outcome = receiver.receive(&changed);
        // A length that grew waits for more; all else is refused.
        prop_assert!(outcome.is_err() || receiver.kept() > 0);
        prop_assert!(receiver.events.is_empty());
    }

    #[test]
    fn any_script_of_a_peer_and_a_stranger_is_judged_alike_however_it_is_cut(
        data in prop::collection::vec(any::<u8>(), 0..400)
    ) {
        fuzz_records(&data);
    }
}

#[test]
fn padding_and_empty_content_are_nothing() {
    let (verdict, events) = receive(|peer| {
        peer.seal(DATA, b"a", 300);
        peer.seal(DATA, b"", 0);
        peer.seal(DATA, b"", 1_000);
        peer.seal(DATA, b"b\0\0", 2);
    });
    assert_eq!(verdict, Ok(()));
    assert_eq!(
        events,
        [Event::Content(b"a".to_vec()), Event::Content(b"b\0\0".to_vec())]
    );
}

#[test]
fn a_record_is_as_long_as_the_rfc_allows_and_no_longer() {
    let full = vec![1; CONTENT_BYTES_MAX];
    let (verdict, events) = receive(|peer| {
        peer.seal(DATA, &full, 0);
        peer.seal(DATA, &full[1..], 1);
    });
    assert_eq!((verdict, events.len()), (Ok(()), 2));
    // Padding counts (5.4).
    for (content, padding) in [
        (CONTENT_BYTES_MAX + 1, 0),
        (CONTENT_BYTES_MAX, 1),
        (1, CONTENT_BYTES_MAX),
    ] {
        assert_refused(
            |peer| peer.seal(DATA, &vec![1; content], padding),
            RecordError::ContentTooLong(CONTENT_BYTES_MAX + 2),
            Alert::RECORD_OVERFLOW,
        );
    }
    // By its head alone.
    let long = CONTENT_BYTES_MAX + 257;
    let [high, low] = u16::try_from(long).expect("small").to_be_bytes();
    assert_refused(
        |peer| peer.sent.extend([23, 3, 3, high, low]),
        RecordError::RecordTooLong(long),
        Alert::RECORD_OVERFLOW,
    );
    let [high, low] = u16::try_from(long - 1).expect("small").to_be_bytes();
    assert_eq!(record_len(&[23, 3, 3, high, low]), Ok(None));
}

#[test]
fn what_is_not_protected_is_refused_by_its_first_byte() {
    // change_cipher_spec, an alert, a handshake message, a heartbeat, HTTP.
    for first in [20, 21, 22, 24, b'G', 0] {
        assert_refused(
            |peer| peer.sent.push(first),
            RecordError::Unprotected(first),
            Alert::UNEXPECTED_MESSAGE,
        );
    }
    assert_refused(
        |peer| peer.sent.extend([23, 3, 1, 0, 17]),
        RecordError::Version([3, 1]),
        Alert::DECODE_ERROR,
    );
}

#[test]
fn a_record_that_is_not_the_next_of_the_peer_is_a_bad_record() {
    let sealed = |say: &dyn Fn(&mut Sender)| {
        let mut sender = sender();
        say(&mut sender);
        sender.sent
    };
    let one = sealed(&|peer| peer.seal(DATA, b"one", 0));
    let both = sealed(&|peer| {
        peer.seal(DATA, b"one", 0);
        peer.seal(DATA, b"two", 0);
    });
    let replayed = [&one[..], &one[..]].concat();
    let skipped = both[one.len()..].to_vec();
    let other_key = sealed(&|peer| {
        peer.rekey();
        peer.seal(DATA, b"one", 0);
    });
    let too_short = vec![23, 3, 3, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for bytes in [replayed, skipped, other_key, too_short, vec![23, 3, 3, 0, 0]] {
        assert_refused(
            |peer| peer.sent = bytes,
            RecordError::BadMac,
            Alert::BAD_RECORD_MAC,
        );
    }
}

#[test]
fn a_record_without_a_type_or_with_a_foreign_one_is_refused() {
    for zeros in [0, 1, 500] {
        assert_refused(
            |peer| peer.seal_inner(&vec![0; zeros]),
            RecordError::NoContentType,
            Alert::UNEXPECTED_MESSAGE,
        );
    }
    // A protected change_cipher_spec, a heartbeat, anything.
    for kind in [20, 24, 255] {
        assert_refused(
            |peer| peer.seal(kind, &[1], 0),
            RecordError::ContentType(kind),
            Alert::UNEXPECTED_MESSAGE,
        );
    }
    for kind in [HANDSHAKE, ALERT] {
        assert_refused(
            |peer| peer.seal(kind, &[], 5),
            RecordError::EmptyMessage,
            Alert::UNEXPECTED_MESSAGE,
        );
    }
}

#[test]
fn close_notify_is_the_end_and_nothing_behind_it_counts() {
    let (verdict, events) = receive(|peer| {
        peer.seal(DATA, b"last", 0);
        peer.seal(ALERT, &[WARNING, 0], 0);
        peer.sent.extend(b"whatever");
    });
    assert_eq!(verdict, Ok(()));
    assert_eq!(events, [Event::Content(b"last".to_vec()), Event::Closed]);
    // Whatever its level.
    assert_eq!(
        receive(|peer| peer.seal(ALERT, &[FATAL, 0], 0)),
        (Ok(()), vec![Event::Closed])
    );
}

#[test]
fn every_other_alert_ends_with_its_name_and_without_an_answer() {
    for (level, number, name) in [
        (FATAL, 20, "bad_record_mac"),
        (FATAL, 48, "unknown_ca"),
        (WARNING, 80, "internal_error"),
        (99, 10, "unexpected_message"),
        (FATAL, 200, "alert 200"),
    ] {
        let error = refusal(|peer| peer.seal(ALERT, &[level, number], 0));
        assert_eq!(error, RecordError::AlertReceived(Alert(number)));
        assert!(error.to_string().ends_with(name), "{error}");
        assert_eq!(error.alert(), None);
    }
    let (verdict, events) = receive(|peer| {
        peer.seal(ALERT, &[WARNING, 90], 0);
        peer.seal(DATA, b"still here", 0);
    });
    assert_eq!(
        (verdict, events),
        (Ok(()), vec![Event::Content(b"still here".to_vec())])
    );
    for bytes in [&[FATAL][..], &[WARNING, 0, WARNING, 0]] {
        assert_refused(
            |peer| peer.seal(ALERT, bytes, 0),
            RecordError::AlertLength(bytes.len()),
            Alert::DECODE_ERROR,
        );
    }
}

#[test]
fn a_key_update_changes_the_peers_key_from_the_next_record_on() {
    for request in [UpdateRequest::NotRequested, UpdateRequest::Requested] {
        let (verdict, events) = receive(|peer| {
            peer.seal(DATA, b"old", 0);
            peer.seal(HANDSHAKE, &message(request), 0);
            peer.rekey();
            peer.seal(DATA, b"new", 0);
        });
        assert_eq!(verdict, Ok(()));
        let expected = [
            Event::Content(b"old".to_vec()),
            Event::KeyUpdate(request),
            Event::Content(b"new".to_vec()),
        ];
        assert_eq!(events, expected);
    }
    assert_refused(
        |peer| {
            peer.seal(HANDSHAKE, &message(UpdateRequest::NotRequested), 0);
            peer.seal(DATA, b"old key", 0);
        },
        RecordError::BadMac,
        Alert::BAD_RECORD_MAC,
    );
}

#[test]
fn a_key_update_may_come_in_pieces_of_any_size() {
    let update = message(UpdateRequest::Requested);
    for cut in 1..update.len() {
        let (verdict, events) = receive(|peer| {
            for piece in update.chunks(cut) {
                peer.seal(HANDSHAKE, piece, 3);
            }
            peer.rekey();
            peer.seal(DATA, b"new", 0);
        });
        assert_eq!(verdict, Ok(()));
        let expected = [
            Event::KeyUpdate(UpdateRequest::Requested),
            Event::Content(b"new".to_vec()),
        ];
        assert_eq!(events, expected, "in pieces of {cut}");
        for (kind, content) in [(DATA, &b"x"[..]), (DATA, b""), (ALERT, &[WARNING, 0])] {
            assert_refused(
                |peer| {
                    peer.seal(HANDSHAKE, &update[..cut], 0);
                    peer.seal(kind, content, 0);
                },
                RecordError::Interleaved,
                Alert::UNEXPECTED_MESSAGE,
            );
        }
    }
}

#[test]
fn a_key_update_that_is_none_is_refused_at_its_first_wrong_byte() {
    let cases = [
        (&[1][..], RecordError::HandshakeType(1), Alert::UNEXPECTED_MESSAGE),
        (
            &[11, 0, 0],
            RecordError::HandshakeType(11),
            Alert::UNEXPECTED_MESSAGE,
        ),
        (&[24, 1], RecordError::KeyUpdateLength, Alert::DECODE_ERROR),
        (&[24, 0, 0, 2], RecordError::KeyUpdateLength, Alert::DECODE_ERROR),
        (&[24, 0, 0, 0], RecordError::KeyUpdateLength, Alert::DECODE_ERROR),
        (
            &[24, 0, 0, 1, 2],
            RecordError::KeyUpdateRequest(2),
            Alert::ILLEGAL_PARAMETER,
        ),
        // Two in a record, or the beginning of a second.
        (
            &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
            RecordError::KeyUpdateNotLast,
            Alert::UNEXPECTED_MESSAGE,
        ),
        (
            &[24, 0, 0, 1, 1, 24],
            RecordError::KeyUpdateNotLast,
            Alert::UNEXPECTED_MESSAGE,
        ),
    ];
    for (bytes, error, alert) in cases {
        assert_refused(|peer| peer.seal(HANDSHAKE, bytes, 0), error, alert);
        // The same if its first byte came before.
        let (first, rest) = bytes.split_at(1);
        assert_refused(
            |peer| {
                peer.seal(HANDSHAKE, first, 0);
                if !rest.is_empty() {
                    peer.seal(HANDSHAKE, rest, 0);
                }
            },
            error,
            alert,
        );
    }
}

#[test]
fn records_that_bring_nothing_are_bounded_until_content_comes() {
    let updates = |peer: &mut Sender, count: u8| (0..count).for_each(|_| peer.update().expect("a key"));
    let empty = |peer: &mut Sender, count: u8| (0..count).for_each(|_| peer.seal(DATA, b"", 0));
    let (verdict, _) = receive(|peer| {
        for _ in 0..3 {
            updates(peer, KEY_UPDATES_MAX);
            empty(peer, EMPTY_RECORDS_MAX);
            peer.send(&[IoSlice::new(b"content")]).expect("sealed");
        }
    });
    assert_eq!(verdict, Ok(()));
    assert_refused(
        |peer| {
            updates(peer, KEY_UPDATES_MAX);
            // Empty content resets nothing.
            empty(peer, 1);
            updates(peer, 1);
        },
        RecordError::TooManyKeyUpdates,
        Alert::UNEXPECTED_MESSAGE,
    );
    assert_refused(
        |peer| empty(peer, EMPTY_RECORDS_MAX + 1),
        RecordError::TooManyEmptyRecords,
        Alert::UNEXPECTED_MESSAGE,
    );
    assert_refused(
        |peer| (0..=EMPTY_RECORDS_MAX).for_each(|_| peer.seal(ALERT, &[WARNING, 90], 0)),
        RecordError::TooManyEmptyRecords,
        Alert::UNEXPECTED_MESSAGE,
    );
}

#[test]
fn a_request_for_a_key_update_is_answered_once_and_before_content_alone() {
    let mut sender = sender();
    sender.sealer.owe_update();
    sender.sealer.owe_update();
    // Nothing to say, nothing said.
    sender.send(&[]).expect("nothing");
    assert!(sender.sent.is_empty());
    sender
        .send(&[IoSlice::new(b"a"), IoSlice::new(b"b")])
        .expect("sealed");
    sender.send(&[IoSlice::new(b"c")]).expect("sealed");
    let mut receiver = Receiver::new(SUITE);
    receiver.receive(&sender.sent).expect("taken");
    let expected = [
        Event::KeyUpdate(UpdateRequest::NotRequested),
        Event::Content(b"ab".to_vec()),
        Event::Content(b"c".to_vec()),
    ];
    assert_eq!(receiver.events, expected);

    // What is owed when the end is said stays owed.
    sender.sent.clear();
    sender.sealer.owe_update();
    let mut turn = sender.sealer.turn().expect("a key");
    turn.alert(Alert::CLOSE_NOTIFY, &mut sender.sent).expect("sealed");
    receiver.receive(&sender.sent).expect("taken");
    assert_eq!(receiver.events[3..], [Event::Closed]);
}

#[test]
fn content_is_not_sealed_while_a_key_update_is_owed() {
    let mut sealer = Sealer::new(key(SUITE, 0), 0, u64::MAX);
    sealer.owe_update();
    let mut turn = sealer.turn().expect("a key");
    let mut out = Vec::new();
    let slices = [IoSlice::new(b"early")];
    assert_eq!(
        turn.content(&mut Gather::new(&slices, 10), &mut out),
        Err(RecordError::Key)
    );
    assert!(out.is_empty());
}

#[test]
fn no_key_seals_more_records_than_its_suite_allows() {
    let mut sender = Sender::new(SUITE, 5);
    for n in 0..20_u8 {
        sender.send(&[IoSlice::new(&[n])]).expect("sealed");
    }
    let mut receiver = Receiver::new(SUITE);
    receiver.receive(&sender.sent).expect("taken");
    for under_a_key in receiver
        .events
        .split_inclusive(|event| *event == Event::KeyUpdate(UpdateRequest::NotRequested))
    {
        assert!(under_a_key.len() <= 5, "{under_a_key:?}");
    }
    assert_eq!(receiver.content(), (0..20).collect::<Vec<u8>>());
    // A write that passes the limit changes the key in its midst.
    let long = vec![3; 9 * CONTENT_BYTES_MAX];
    let mut receiver = Receiver::new(SUITE);
    let mut sender = Sender::new(SUITE, 5);
    sender.send(&[IoSlice::new(&long)]).expect("sealed");
    receiver.receive(&sender.sent).expect("taken");
    assert!(receiver.content() == long);
    assert_eq!(receiver.events.len(), 9 + 2);
}

#[test]
fn numbers_never_wrap() {
    let mut last = Sealer::new(key(SUITE, 0), u64::MAX - 1, u64::MAX);
    let mut out = Vec::new();
    let mut turn = last.turn().expect("a key");
    assert!(turn.wants_update(), "long before");
    turn.seal_inner(&mut out, |out| out.push(DATA))
        .expect("the last number");
    let sealed = out.len();
    assert_eq!(
        turn.seal_inner(&mut out, |out| out.push(DATA)),
        Err(RecordError::SequenceEnd)
    );
    assert_eq!(out.len(), sealed, "what is not sealed is not sent");

    let mut opener = Opener::new(key(SUITE, 0), u64::MAX - 1);
    let mut turn = opener.turn();
    assert_eq!(turn.open(&mut out.clone()), Ok(Opened::Nothing));
    let error = turn.open(&mut out).expect_err("no number is left");
    assert_eq!(error, RecordError::SequenceEnd);
    assert_eq!(error.alert(), Some(Alert::INTERNAL_ERROR));
}

#[test]
fn nothing_is_sealed_behind_the_end() {
    for alert in [Alert::CLOSE_NOTIFY, Alert::BAD_RECORD_MAC] {
        let mut sender = sender();
        let mut out = Vec::new();
        let mut turn = sender.sealer.turn().expect("a key");
        turn.alert(alert, &mut out).expect("the first");
        assert_eq!(turn.alert(alert, &mut out), Err(RecordError::Closed));
        assert_eq!(turn.update(key(SUITE, 1), &mut out), Err(RecordError::Closed));
        assert_eq!(sender.send(&[IoSlice::new(b"more")]), Err(RecordError::Closed));
        sender.sealer.owe_update();
        assert_eq!(sender.send(&[IoSlice::new(b"more")]), Err(RecordError::Closed));
        assert!(sender.sent.is_empty());
    }
}

#[test]
fn both_directions_go_on_with_the_numbers_they_are_given() {
    let mut sealer = Sealer::new(key(SUITE, 0), 4_711, u64::MAX);
    let mut out = Vec::new();
    let slices = [IoSlice::new(b"on")];
    sealer
        .turn()
        .expect("a key")
        .content(&mut Gather::new(&slices, 10), &mut out)
        .expect("sealed");
    let mut same = Opener::new(key(SUITE, 0), 4_711);
    assert_eq!(same.turn().open(&mut out.clone()), Ok(Opened::Content(b"on")));
    let mut next = Opener::new(key(SUITE, 0), 4_712);
    assert_eq!(next.turn().open(&mut out), Err(RecordError::BadMac));
}

#[test]
fn no_debug_shows_a_key() {
    let opener = Opener::new(key(SUITE, 0xab), 0);
    let sealer = Sealer::new(key(SUITE, 0xab), 0, u64::MAX);
    for text in [format!("{opener:?}"), format!("{sealer:?}")] {
        assert!(
            !text.contains("171") && !text.to_lowercase().contains("ab, ab"),
            "{text}"
        );
        assert!(text.contains("Aes128Gcm"), "{text}");
    }
}

#[test]
fn a_key_of_a_wrong_length_is_none() {
    for (suite, key, iv) in [
        (Suite::Aes128Gcm, 32, 12),
        (Suite::Aes256Gcm, 16, 12),
        (Suite::Chacha20Poly1305, 32, 8),
    ] {
        assert!(TrafficKey::new(suite, &vec![0; key], &vec![0; iv]).is_err());
    }
}
