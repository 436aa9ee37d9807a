//! Each dialect of the others, byte for byte where its documentation has bytes.

use super::*;

#[test]
fn plain_joins_by_text_and_is_ready_when_a_ping_behind_it_is_answered() {
    let rooms = wanted(ROOM);
    let words = Dialect::Plain.words(Cue::Upgraded, &speaker("", &rooms));
    let messages = messages(&words.bytes);
    assert_eq!(messages[0], (wire::TEXT, br#"{"join":"loadtest:r:7"}"#.to_vec()));
    assert_eq!(messages[1], (wire::PING, Vec::new()));
    assert_eq!(words.awaited, 1);
}

#[test]
fn plain_overhears_what_is_not_ours() {
    for text in [
        "hello",
        r#"{"join":"x"}"#,
        r#"{"room":"x"#,
        r#"{"room":"x","data":1"#,
    ] {
        assert_eq!(hear(Dialect::Plain, Kind::Text, text.as_bytes()), Heard::Nothing);
    }
    assert_eq!(hear(Dialect::Plain, Kind::Binary, &[9, b'x']), Heard::Nothing);
    let text = br#"{"room":"x","data":{"a":1}}"#;
    assert_eq!(
        hear(Dialect::Plain, Kind::Text, text),
        push(RoomRef::Name(b"x"), br#"{"a":1}"#)
    );
}

#[test]
fn socket_io_waits_to_be_opened_and_accepted_and_joins_with_acknowledgements() {
    let rooms = wanted(ROOM);
    let speaker = speaker("t", &rooms);
    let words = |cue| Dialect::SocketIo.words(cue, &speaker);
    assert!(words(Cue::Upgraded).bytes.is_empty());
    assert_eq!(said(&words(Cue::Opened)), r#"40{"token":"t"}"#);
    assert_eq!(said(&words(Cue::Accepted)), r#"420["join","loadtest:r:7"]"#);
    assert_eq!(words(Cue::Accepted).awaited, 1);
    let hear = |text: &'static str| hear(Dialect::SocketIo, Kind::Text, text.as_bytes());
    assert_eq!(
        hear(r#"0{"sid":"a","pingInterval":25000}"#),
        Heard::Cue(Cue::Opened)
    );
    assert_eq!(hear(r#"40{"sid":"b"}"#), Heard::Cue(Cue::Accepted));
    assert_eq!(hear("430[]"), Heard::Answer);
    assert_eq!(
        hear(r#"44{"message":"no"}"#),
        Heard::Refused(r#"{"message":"no"}"#.into())
    );
    assert!(matches!(hear("41"), Heard::Ended(_)));
    assert_eq!(
        hear(r#"42["message","x",{"a":1}]"#),
        push(RoomRef::Name(b"x"), br#"{"a":1}"#)
    );
    assert_eq!(hear(r#"42["news",1]"#), Heard::Nothing);
    let Heard::Echo(pong) = hear("2") else { panic!() };
    assert_eq!(messages(pong), [(wire::TEXT, b"3".to_vec())]);
    assert!(next(Dialect::SocketIo, Kind::Text, b"hello").0.is_err());
}

/// The numbers of the fields are those of Centrifugo's published schema; the bytes are written out by hand from it.
#[test]
fn centrifugo_says_and_hears_what_its_schema_has() {
    let rooms = wanted("c");
    let words = Dialect::Centrifugo.words(Cue::Upgraded, &speaker("t", &rooms));
    let (_, message) = messages(&words.bytes).pop().unwrap();
    let connect: &[u8] = b"\x11\x08\x01\x22\x0d\x0a\x01t\x22\x08loadtest";
    let subscribe: &[u8] = b"\x07\x08\x02\x2a\x03\x0a\x01c";
    assert_eq!(message, [connect, subscribe].concat());
    assert_eq!(words.awaited, 2);
    let hear = |bytes: &'static [u8]| hear(Dialect::Centrifugo, Kind::Binary, bytes);
    // Answers to connect and to subscribe, with results that are skipped.
    assert_eq!(hear(b"\x07\x08\x01\x2a\x03\x0a\x01x"), Heard::Answer);
    assert_eq!(hear(b"\x04\x08\x02\x32\x00"), Heard::Answer);
    // Error 103 with words.
    assert_eq!(
        hear(b"\x0c\x08\x02\x12\x08\x08\x67\x12\x04nope"),
        Heard::Refused("nope (103)".into())
    );
    // A publication with an offset, and one with who sent it.
    assert_eq!(
        hear(b"\x0c\x22\x0a\x12\x01c\x22\x05\x22\x01p\x30\x05"),
        push(RoomRef::Name(b"c"), b"p")
    );
    assert_eq!(
        hear(b"\x0f\x22\x0d\x12\x01c\x22\x08\x22\x01p\x2a\x03\x0a\x01u"),
        push(RoomRef::Name(b"c"), b"p")
    );
    // Unsubscribed, disconnected.
    assert!(matches!(
        hear(b"\x0a\x22\x08\x12\x01c\x3a\x03\x10\xc4\x13"),
        Heard::Note(_)
    ));
    assert!(matches!(
        hear(b"\x07\x22\x05\x5a\x03\x08\xb8\x17"),
        Heard::Ended(_)
    ));
    let Heard::Echo(pong) = hear(b"\x00") else {
        panic!()
    };
    assert_eq!(messages(pong), [(wire::BINARY, vec![0])]);
    // The answer to a publish is none that joining awaits.
    let reply = centrifugo::Reply {
        id: u32::MAX,
        ..centrifugo::Reply::default()
    };
    let bytes = reply.encode_length_delimited_to_vec();
    assert_eq!(
        self::hear(Dialect::Centrifugo, Kind::Binary, &bytes),
        Heard::Nothing
    );
    assert!(next(Dialect::Centrifugo, Kind::Text, b"{}").0.is_err());
}

#[test]
fn nats_introduces_itself_after_the_server_and_is_ready_at_the_pong() {
    let rooms = wanted("loadtest.r.7");
    let speaker = speaker("t", &rooms);
    assert!(Dialect::Nats.words(Cue::Upgraded, &speaker).bytes.is_empty());
    let words = said(&Dialect::Nats.words(Cue::Opened, &speaker));
    let lines: Vec<_> = words.split("\r\n").collect();
    let options: serde_json::Value =
        serde_json::from_str(lines[0].strip_prefix("CONNECT ").unwrap()).unwrap();
    assert_eq!(
        (&options["auth_token"], &options["verbose"]),
        (&"t".into(), &false.into())
    );
    assert_eq!(lines[1..], ["SUB loadtest.r.7 1", "PING", ""]);
}

#[test]
fn nats_reads_its_lines_wherever_they_are_cut() {
    let hear = |bytes: &'static [u8]| hear(Dialect::Nats, Kind::Binary, bytes);
    assert_eq!(hear(b"INFO {\"server_id\":\"x\"} \r\n"), Heard::Cue(Cue::Opened));
    assert_eq!(hear(b"PONG\r\n"), Heard::Answer);
    assert_eq!(hear(b"+OK\r\n"), Heard::Nothing);
    assert_eq!(
        hear(b"-ERR 'Authorization Violation'\r\n"),
        Heard::Refused("'Authorization Violation'".into())
    );
    let Heard::Echo(pong) = hear(b"PING\r\n") else {
        panic!()
    };
    assert_eq!(messages(pong), [(wire::BINARY, b"PONG\r\n".to_vec())]);
    assert_eq!(
        hear(b"MSG a.b 9 reply.to 2\r\nhi\r\n"),
        push(RoomRef::Number(9), b"hi")
    );
    assert_eq!(hear(b"MSG a\t1  0\r\n\r\n"), push(RoomRef::Number(1), b""));
    for bad in [
        &b"MSG a 1\r\n"[..],
        b"MSG a x 2\r\nhi\r\n",
        b"MSG a 1 2\r\nhigh\r\n",
        b"MSG a 1 99999999999999999999\r\n",
        b"MSG a 1 99999999\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ] {
        assert!(next(Dialect::Nats, Kind::Binary, bad).0.is_err(), "{bad:?}");
    }
    let endless = vec![b'x'; 40_000];
    assert!(next(Dialect::Nats, Kind::Binary, &endless).0.is_err());
}

#[test]
fn mqtt_connects_and_subscribes_in_one_breath() {
    let rooms = wanted("a/b");
    let words = Dialect::Mqtt.words(Cue::Upgraded, &speaker("", &rooms));
    let packets: Vec<_> = messages(&words.bytes).into_iter().map(|(_, p)| p).collect();
    assert_eq!(packets[0], b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x00\x00\x03r-3");
    assert_eq!(packets[1], b"\x82\x08\x00\x01\x00\x03a/b\x00");
    assert_eq!(words.awaited, 2);
    let words = Dialect::Mqtt.words(Cue::Upgraded, &speaker("t", &[]));
    let (_, connect) = messages(&words.bytes).pop().unwrap();
    assert_eq!(connect[9], 0xc2);
    assert!(connect.ends_with(b"\x00\x0aloadtest-3\x00\x01t"));
}

#[test]
fn mqtt_reads_its_packets_wherever_they_are_cut() {
    let hear = |bytes: &'static [u8]| hear(Dialect::Mqtt, Kind::Binary, bytes);
    assert_eq!(hear(b"\x20\x02\x00\x00"), Heard::Answer);
    assert_eq!(
        hear(b"\x20\x02\x00\x05"),
        Heard::Refused("not authorised (CONNACK 5)".into())
    );
    assert_eq!(hear(b"\x90\x03\x00\x01\x00"), Heard::Answer);
    assert!(matches!(hear(b"\x90\x03\x00\x01\x80"), Heard::Refused(_)));
    assert_eq!(hear(b"\xd0\x00"), Heard::Pong);
    assert_eq!(hear(b"\x30\x07\x00\x03a/bhi"), push(RoomRef::Name(b"a/b"), b"hi"));
    // With a number, where it is to be acknowledged.
    assert_eq!(
        hear(b"\x32\x09\x00\x03a/b\x00\x09hi"),
        push(RoomRef::Name(b"a/b"), b"hi")
    );
    for bad in [
        &b"\x30\x01\x00"[..],
        b"\x30\x03\x00\x09a",
        b"\x20\x01\x00",
        b"\x00\x00",
        b"\x30\xff\xff\xff\xff\x01",
        b"\x30\xff\xff\xff\x7f",
    ] {
        assert!(next(Dialect::Mqtt, Kind::Binary, bad).0.is_err(), "{bad:?}");
    }
}
