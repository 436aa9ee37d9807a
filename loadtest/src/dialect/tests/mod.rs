//! What all dialects have in common: stamps that come back, requests that go where they should, and that nothing a server sends
//! makes a reader panic. `each` holds what each of them says, byte for byte.

mod each;

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::stamp::{NO_SLOT, Stamp};

const ROOM: &str = "loadtest:r:7";
const ANY: usize = 1 << 20;
const ALL: [Dialect; 6] = [
    Dialect::Cauce,
    Dialect::Plain,
    Dialect::SocketIo,
    Dialect::Centrifugo,
    Dialect::Nats,
    Dialect::Mqtt,
];

fn speaker<'a>(token: &'a str, rooms: &'a [Wanted<'a>]) -> Speaker<'a> {
    Speaker {
        run: "r",
        seat: 3,
        token,
        rooms,
    }
}

fn wanted(name: &str) -> [Wanted<'_>; 1] {
    [Wanted {
        name,
        epoch: 0,
        seq: 0,
    }]
}

/// The payloads of the frames, and whether they are text.
fn messages(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let frame = wire::frame(bytes, ANY).unwrap().unwrap();
        assert_eq!(frame.mask, Some([0; 4]));
        messages.push((frame.opcode, bytes[frame.payload.clone()].to_vec()));
        bytes = &bytes[frame.payload.end..];
    }
    messages
}

fn said(words: &Words) -> String {
    let messages = messages(&words.bytes).into_iter();
    let texts: Vec<_> = messages
        .map(|(_, payload)| String::from_utf8(payload).unwrap())
        .collect();
    texts.join(" | ")
}

fn next(dialect: Dialect, kind: Kind, input: &[u8]) -> (Result<Option<Heard<'_>>, &'static str>, usize) {
    let mut rest = input;
    let heard = match dialect {
        Dialect::Cauce => Cauce::next(kind, &mut rest),
        Dialect::Plain => Plain::next(kind, &mut rest),
        Dialect::SocketIo => SocketIo::next(kind, &mut rest),
        Dialect::Centrifugo => Centrifugo::next(kind, &mut rest),
        Dialect::Nats => Nats::next(kind, &mut rest),
        Dialect::Mqtt => Mqtt::next(kind, &mut rest),
    };
    (heard, rest.len())
}

fn hear(dialect: Dialect, kind: Kind, input: &[u8]) -> Heard<'_> {
    let (heard, left) = next(dialect, kind, input);
    assert_eq!(left, 0);
    heard.unwrap().unwrap()
}

fn push<'a>(room: RoomRef<'a>, payload: &'a [u8]) -> Heard<'a> {
    Heard::Push(Push {
        room,
        seq: None,
        payload,
    })
}

/// What a server sends to a subscriber when it gets this publish.
fn delivered(dialect: Dialect, published: &[u8]) -> Vec<u8> {
    match dialect {
        // These hand on what they get, or name the room the same way.
        Dialect::Plain | Dialect::SocketIo | Dialect::Mqtt => published.to_vec(),
        Dialect::Cauce => {
            let mut rest = published;
            let publish = wire::publish(wire::take_message(&mut rest).unwrap()).unwrap();
            let mut out = Vec::new();
            wire::put_push(&mut out, 1, 1, &publish);
            let frame = wire::frame(&out, ANY).unwrap().unwrap();
            out[frame.payload].to_vec()
        }
        Dialect::Centrifugo => {
            let command = centrifugo::Command::decode_length_delimited(published).unwrap();
            let publish = command.publish.unwrap();
            let push = centrifugo::ServerPush {
                channel: publish.channel,
                publication: Some(centrifugo::Publication {
                    data: publish.data,
                    offset: 0,
                }),
                ..centrifugo::ServerPush::default()
            };
            let reply = centrifugo::Reply {
                push: Some(push),
                ..centrifugo::Reply::default()
            };
            reply.encode_length_delimited_to_vec()
        }
        Dialect::Nats => {
            let rest = published.strip_prefix(b"PUB loadtest:r:7 ").unwrap();
            [b"MSG loadtest:r:7 1 ", rest].concat()
        }
    }
}

#[test]
fn a_stamped_publish_comes_back_with_its_stamp_in_every_dialect_and_form() {
    let stamp = Stamp {
        publisher: 3,
        number: 0x0a0d,
        due_ns: 1 << 40,
        slot: NO_SLOT,
    };
    for dialect in ALL {
        for wanted in [Form::Binary, Form::Json, Form::Text] {
            let form = dialect.carries(wanted);
            for bytes in [form.bytes_min(), 128, 70_000] {
                let mut template = dialect.template(ROOM, form, bytes);
                let range = template.payload.clone();
                assert_eq!(range.len(), bytes, "{dialect} {form:?}");
                form.write(&mut template.frame[range], stamp);
                let (opcode, published) = messages(&template.frame).pop().unwrap();
                let kind = if opcode == wire::TEXT {
                    Kind::Text
                } else {
                    Kind::Binary
                };
                let back = delivered(dialect, &published);
                let Heard::Push(push) = hear(dialect, kind, &back) else {
                    panic!("{dialect} {form:?}");
                };
                assert_eq!(form.read(push.payload), Some(stamp), "{dialect} {form:?}");
                match push.room {
                    RoomRef::Number(number) => assert_eq!(number, 1),
                    RoomRef::Name(name) => assert_eq!(name, ROOM.as_bytes()),
                }
                assert_eq!(push.seq.is_some(), dialect.has_positions());
            }
        }
    }
}

#[test]
fn requests_go_where_such_servers_are_and_name_the_subprotocol() {
    let target = "127.0.0.1:80".parse().unwrap();
    let request = |dialect: Dialect, token| dialect.request(target, None, token);
    assert!(request(Dialect::Cauce, "").contains("Sec-WebSocket-Protocol: cauce.v1.proto\r\n"));
    assert!(
        request(Dialect::SocketIo, "").starts_with("GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n")
    );
    assert!(request(Dialect::Centrifugo, "").contains("Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"));
    assert!(request(Dialect::Mqtt, "").contains("Sec-WebSocket-Protocol: mqtt\r\n"));
    assert!(!request(Dialect::Nats, "t").contains("Protocol:"));
    assert!(request(Dialect::Plain, "t").contains("Authorization: Bearer t\r\n"));
    for dialect in ALL {
        let asked = dialect.request(target, Some("/x?y=1"), "");
        assert!(asked.starts_with("GET /x?y=1 HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n"));
        assert!(!asked.contains("Bearer"));
    }
}

#[test]
fn a_connection_without_rooms_is_ready_after_the_fewest_answers() {
    for (dialect, cues) in [
        (Dialect::Cauce, &[1, 0, 0]),
        (Dialect::Plain, &[1, 0, 0]),
        (Dialect::SocketIo, &[1, 1, 0]),
        (Dialect::Centrifugo, &[1, 0, 0]),
        (Dialect::Nats, &[1, 1, 0]),
        (Dialect::Mqtt, &[1, 0, 0]),
    ] {
        let awaited = [Cue::Upgraded, Cue::Opened, Cue::Accepted]
            .map(|cue| dialect.words(cue, &speaker("", &[])).awaited);
        assert_eq!(&awaited, cues, "{dialect}");
    }
}

#[test]
fn scenarios_become_what_others_can_run_or_are_refused_in_words() {
    let load = |name: &str, change: &str| Scenario::load(name, &[change.to_owned()]).unwrap();
    let mut rooms = load("rooms", "load.payload=text");
    Dialect::SocketIo.suit(&mut rooms).unwrap();
    assert_eq!(rooms.load.payload, Form::Json);
    let mut rooms = load("rooms", "load.payload_bytes=64");
    assert!(
        Dialect::SocketIo
            .suit(&mut rooms.clone())
            .unwrap_err()
            .contains("92")
    );
    Dialect::Mqtt.suit(&mut rooms).unwrap();
    assert_eq!(rooms.load.payload, Form::Binary);
    let mut storm = load("storm", "shape.missed=20");
    Dialect::Nats.suit(&mut storm).unwrap();
    assert!(matches!(storm.shape, Shape::Storm { missed: 0, .. }));
    let mut soak = load("soak", "load.rate=10");
    Dialect::Plain.suit(&mut soak).unwrap();
    assert!(matches!(
        soak.shape,
        Shape::Soak {
            churn_per_second: 0.0,
            ..
        }
    ));
    let mut noisy = load("noisy", "load.rate=10");
    assert!(Dialect::Nats.suit(&mut noisy.clone()).is_err());
    Dialect::Cauce.suit(&mut noisy).unwrap();
    let mut devices = load("devices", "load.rate=10");
    assert!(Dialect::Mqtt.suit(&mut devices).is_err());
}

/// What a server of a stream's dialect may say, whole.
fn stream(dialect: Dialect, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for payload in payloads {
        match dialect {
            Dialect::Nats => {
                out.extend(format!("MSG a 1 {}\r\n", payload.len()).bytes());
                out.extend(payload);
                out.extend(b"\r\nPING\r\n");
            }
            _ => {
                let body = [b"\x00\x01a", payload.as_slice()].concat();
                out.push(0x30);
                let mut len = body.len();
                while len >= 0x80 {
                    out.push(len as u8 | 0x80);
                    len >>= 7;
                }
                out.push(len as u8);
                out.extend(body);
                out.extend(b"\xd0\x00");
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn whatever_a_server_sends_is_read_refused_or_waited_for(input: Vec<u8>, prefix in 0usize..9, text: bool) {
        let prefixes: [&[u8]; 9] = [
            b"", b"MSG ", b"MSG a 1 5\r\n", b"-ERR", b"42[\"message\",\"", b"{\"room\":\"", b"\x30\x10\x00\x03", b"\x20", b"\x08\x22\x06",
        ];
        let input = [prefixes[prefix], &input].concat();
        let kind = if text { Kind::Text } else { Kind::Binary };
        for dialect in ALL {
            let mut rest = &input[..];
            while !rest.is_empty() {
                let (heard, left) = next(dialect, kind, rest);
                match heard {
                    // Progress with everything that is heard, and none with what is incomplete: the loop ends.
                    Ok(Some(heard)) => {
                        prop_assert!(left < rest.len());
                        if let Heard::Push(push) = heard {
                            prop_assert!(push.payload.len() <= rest.len());
                        }
                        rest = &rest[rest.len() - left..];
                    }
                    Ok(None) => {
                        prop_assert_eq!(left, rest.len());
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
    }

    #[test]
    fn a_stream_means_the_same_however_it_is_cut(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..5),
        cuts in prop::collection::vec(1usize..40, 1..50),
    ) {
        for dialect in [Dialect::Nats, Dialect::Mqtt] {
            let whole = stream(dialect, &payloads);
            let (mut half, mut at, mut heard) = (Vec::new(), 0, Vec::new());
            let mut cuts = cuts.iter().cycle();
            while at < whole.len() {
                let to = (at + cuts.next().unwrap()).min(whole.len());
                half.extend(&whole[at..to]);
                at = to;
                let mut rest = &half[..];
                while !rest.is_empty() {
                    let (next, left) = next(dialect, Kind::Binary, rest);
                    match next.unwrap() {
                        Some(Heard::Push(push)) => heard.push(push.payload.to_vec()),
                        Some(_) => {}
                        None => break,
                    }
                    rest = &rest[rest.len() - left..];
                }
                half = rest.to_vec();
            }
            prop_assert!(half.is_empty());
            prop_assert_eq!(&heard, &payloads);
        }
    }
}
