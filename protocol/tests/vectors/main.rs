//! The golden vectors say what the code does. `CAUCE_WRITE_VECTORS=1 cargo test -p cauce-protocol --test vectors` writes them
//! anew; whoever changes a byte of an existing one breaks every client in the field, so read the difference before committing.

mod client;
mod invalid;
mod server;

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use cauce_protocol::frame::Frames;
use cauce_protocol::limits::{FRAME_BYTES_DEFAULT, PAYLOAD_BYTES_MAX};
use cauce_protocol::message::{decode_json, decode_proto};
use cauce_protocol::server::{Dialect, encode};
use cauce_protocol::{Advice, Code, fuzzing, json, wire};
use prost::Message as _;

const PUSH_NOTE: &str = "The broker writes this message by hand, once for all subscribers: fields in this order, none left out, \
                         lengths without padding. A reader must still take them in any order.";

fn main_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn is_writing() -> bool {
    std::env::var_os("CAUCE_WRITE_VECTORS").is_some_and(|v| v == "1")
}

/// Compares a file with what the code says, or writes it.
fn hold(path: &str, expected: &[u8]) {
    let file = main_folder().join(path);
    if is_writing() {
        std::fs::create_dir_all(file.parent().expect("a file lies in a folder")).expect("folder is made");
        std::fs::write(&file, expected).expect("vector is written");
        return;
    }
    let found =
        std::fs::read(&file).unwrap_or_else(|e| panic!("{path}: {e}; write it with CAUCE_WRITE_VECTORS=1"));
    assert!(
        found == expected,
        "{path} says otherwise than the code; if the code is right, write it anew with CAUCE_WRITE_VECTORS=1"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

/// An object of one line a field, where the values are JSON already.
fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("      {}: {value}", quoted(name)))
        .collect();
    format!("    {{\n{}\n    }}", fields.join(",\n"))
}

fn document(head: &[(&str, String)], list: &str, entries: &[String]) -> String {
    let mut out = String::from("{\n");
    for (name, value) in head {
        let _ = writeln!(out, "  {}: {value},", quoted(name));
    }
    let _ = write!(out, "  {}: [\n{}\n  ]\n}}\n", quoted(list), entries.join(",\n"));
    out
}

#[test]
fn client_vectors_hold_and_both_dialects_are_read_alike() {
    for (message, vectors) in client::files() {
        let entries: Vec<_> = vectors
            .iter()
            .map(|said| {
                let bytes = said.frame.encode_length_delimited_to_vec();
                let text = json::encode_client(&said.frame);
                check_client(said.name, &said.frame, &bytes, &text);
                object(&[
                    ("name", quoted(said.name)),
                    ("meaning", quoted(said.meaning)),
                    ("hex", quoted(&hex(&bytes))),
                    ("json", text),
                ])
            })
            .collect();
        let head = [
            ("message", quoted(message)),
            ("direction", quoted("client to broker")),
        ];
        hold(
            &format!("vectors/{message}.json"),
            document(&head, "vectors", &entries).as_bytes(),
        );
    }
}

fn check_client(name: &str, frame: &wire::ClientFrame, bytes: &[u8], text: &str) {
    let frames: Vec<_> = Frames::new(Bytes::copy_from_slice(bytes), FRAME_BYTES_DEFAULT).collect();
    let [Ok(message)] = &frames[..] else {
        panic!("{name}: not one whole frame")
    };
    assert_eq!(json::decode_client(text.as_bytes()).as_ref(), Ok(frame), "{name}");
    let from_bytes = decode_proto(message, PAYLOAD_BYTES_MAX);
    assert!(
        matches!(from_bytes, Ok(Ok(_))),
        "{name} is refused: {from_bytes:?}"
    );
    assert_eq!(
        decode_json(text.as_bytes(), PAYLOAD_BYTES_MAX),
        from_bytes,
        "{name}"
    );
}

#[test]
fn server_vectors_hold_and_both_dialects_are_read_alike() {
    for (message, vectors) in server::files() {
        let entries: Vec<_> = vectors
            .iter()
            .map(|said| {
                let frame = wire::ServerFrame::decode_length_delimited(said.bytes.clone())
                    .unwrap_or_else(|e| panic!("{}: {e}", said.name));
                assert_eq!(
                    server::file_of(&frame),
                    message,
                    "{} lies in another file",
                    said.name
                );
                assert_eq!(encode(&frame, Dialect::Proto), said.bytes, "{}", said.name);
                assert_eq!(
                    json::decode_server(said.json.as_bytes()),
                    Ok(frame),
                    "{}",
                    said.name
                );
                object(&[
                    ("name", quoted(said.name)),
                    ("meaning", quoted(said.meaning)),
                    ("hex", quoted(&hex(&said.bytes))),
                    ("json", said.json.clone()),
                ])
            })
            .collect();
        let mut head = vec![
            ("message", quoted(message)),
            ("direction", quoted("broker to client")),
        ];
        if matches!(message, "push" | "direct") {
            head.push(("note", quoted(PUSH_NOTE)));
        }
        hold(
            &format!("vectors/{message}.json"),
            document(&head, "vectors", &entries).as_bytes(),
        );
    }
}

#[test]
fn a_websocket_message_holds_one_or_many_frames() {
    let said = client::files();
    let client_frames = |picks: &[(usize, usize)]| {
        let (mut bytes, mut texts) = (Vec::new(), Vec::new());
        for &(file, vector) in picks {
            let frame = &said[file].1[vector].frame;
            bytes.extend(frame.encode_length_delimited_to_vec());
            texts.push(json::encode_client(frame));
        }
        (bytes, texts)
    };
    let answers = server::files();
    let server_frames = |picks: &[(usize, usize)]| {
        let (mut bytes, mut texts) = (Vec::new(), Vec::new());
        for &(file, vector) in picks {
            let said = &answers[file].1[vector];
            bytes.extend_from_slice(&said.bytes);
            texts.push(said.json.clone());
        }
        (bytes, texts)
    };
    let up = "client to broker";
    let down = "broker to client";
    let entries = [
        (
            "hello_subscribe_publish",
            up,
            "Three requests at once: no need to wait for an answer before the next.",
            client_frames(&[(0, 0), (1, 0), (3, 0)]),
        ),
        (
            "two_pings",
            up,
            "The same frame twice, answered twice.",
            client_frames(&[(6, 0), (6, 0)]),
        ),
        (
            "pushes_and_an_answer",
            down,
            "A reader loops over the frames of a message, however many they are, in their order.",
            server_frames(&[(0, 0), (0, 1), (8, 0), (0, 2)]),
        ),
    ]
    .map(|(name, direction, meaning, (bytes, texts))| {
        let frames = Frames::new(bytes.clone().into(), FRAME_BYTES_DEFAULT);
        assert_eq!(frames.filter(Result::is_ok).count(), texts.len(), "{name}");
        object(&[
            ("name", quoted(name)),
            ("direction", quoted(direction)),
            ("meaning", quoted(meaning)),
            ("hex", quoted(&hex(&bytes))),
            (
                "frames",
                format!("[\n        {}\n      ]", texts.join(",\n        ")),
            ),
        ])
    });
    let head = [(
        "meaning",
        quoted(
            "Binary WebSocket messages of several frames, and the JSON text of each frame (JSON: one text message a frame).",
        ),
    )];
    hold(
        "vectors/messages.json",
        document(&head, "vectors", &entries).as_bytes(),
    );
}

#[test]
fn what_must_be_refused_is_refused_with_its_code() {
    let entries: Vec<_> = invalid::all()
        .iter()
        .map(|refused| {
            let fate = invalid::fate(&refused.message);
            assert_eq!(fate.as_ref(), Some(&refused.fate), "{}", refused.name);
            let mut fields = vec![
                ("name", quoted(refused.name)),
                ("meaning", quoted(refused.meaning)),
                match &refused.message {
                    invalid::Message::Binary(bytes) => ("hex", quoted(&hex(bytes))),
                    invalid::Message::Text(text) => ("text", quoted(text)),
                },
            ];
            let (connection, id, code) = match refused.fate {
                invalid::Fate::Refused { id, code } => ("lives", Some(id), code),
                invalid::Fate::Closed { code } => ("closed", None, code),
            };
            fields.push(("code", code.number().to_string()));
            fields.push(("code_name", quoted(code.name())));
            fields.push(("connection", quoted(connection)));
            if let Some(id) = id {
                fields.push(("id", id.to_string()));
            }
            object(&fields)
        })
        .collect();
    let head = [
        (
            "meaning",
            quoted(
                "Client messages that a broker with these limits refuses: binary ones as hex, JSON ones as text. \
                 Where the connection lives, a reply with the id carries the code; else the close does.",
            ),
        ),
        (
            "limits",
            format!(
                "{{\"frame_bytes\":{},\"payload_bytes\":{}}}",
                invalid::FRAME_BYTES_MAX,
                invalid::PAYLOAD_BYTES_MAX
            ),
        ),
    ];
    hold(
        "vectors/invalid.json",
        document(&head, "vectors", &entries).as_bytes(),
    );
}

#[test]
fn the_table_of_codes_holds() {
    let entries: Vec<_> = Code::ALL
        .iter()
        .map(|code| {
            format!(
                "    {{\"code\": {}, \"name\": {}, \"advice\": {}, \"retryable\": {}, \"meaning\": {}}}",
                code.number(),
                quoted(code.name()),
                quoted(code.advice().name()),
                code.is_retryable(),
                quoted(code.meaning()),
            )
        })
        .collect();
    let ranges: Vec<_> = [4000, 4100, 4200, 4300]
        .map(|from| {
            let advice = Advice::of(from).expect("the range is in the table");
            assert!((from..from + 100).all(|number| Advice::of(number) == Some(advice)));
            format!(
                "{{\"from\": {from}, \"to\": {}, \"advice\": {}}}",
                from + 99,
                quoted(advice.name())
            )
        })
        .into();
    let head = [
        (
            "meaning",
            quoted(
                "Codes of errors and closes. A client that does not know a number follows the advice of its range.",
            ),
        ),
        ("ranges", format!("[\n    {}\n  ]", ranges.join(",\n    "))),
    ];
    hold(
        "vectors/codes.json",
        document(&head, "codes", &entries).as_bytes(),
    );
}

/// One seed a vector would make the fuzzers' start slow for nothing; every third shows all shapes.
const SEEDS_STEP: usize = 3;

#[test]
fn seeds_of_the_fuzzers_come_from_the_vectors_and_break_no_promise() {
    let said = client::files().into_iter().flat_map(|(_, said)| said);
    let said: Vec<_> = said.step_by(SEEDS_STEP).collect();
    let mut stream = Vec::new();
    for (at, said) in said.iter().enumerate() {
        let message = said.frame.encode_to_vec();
        seed("decode_proto", at, &message, fuzzing::fuzz_decode_proto);
        let text = json::encode_client(&said.frame);
        seed("decode_json", at, text.as_bytes(), fuzzing::fuzz_decode_json);
        if let Some(wire::client_frame::Request::Publish(publish)) = &said.frame.request
            && let Some(wire::publish::Payload::Json(payload)) = &publish.payload
        {
            seed("check_json", at, payload, fuzzing::fuzz_check_json);
        }
        stream.extend(said.frame.encode_length_delimited_to_vec());
        seed("frames", at, &stream, fuzzing::fuzz_frames);
        // Three cuts: 1, 3 and 20 bytes.
        let cut = [&[3, 1, 3, 20], &stream[..]].concat();
        seed("take_frame", at, &cut, fuzzing::fuzz_take_frame);
    }
    let heard = server::files().into_iter().flat_map(|(_, said)| said);
    for (at, said) in heard.step_by(SEEDS_STEP).enumerate() {
        seed(
            "decode_server_json",
            at,
            said.json.as_bytes(),
            fuzzing::fuzz_decode_server_json,
        );
    }
    for (at, refused) in invalid::all().iter().enumerate().step_by(SEEDS_STEP) {
        match &refused.message {
            invalid::Message::Binary(bytes) => fuzzing::fuzz_frames(bytes),
            invalid::Message::Text(text) => seed(
                "decode_json",
                100 + at,
                text.as_bytes(),
                fuzzing::fuzz_decode_json,
            ),
        }
    }
}

fn seed(target: &str, at: usize, bytes: &[u8], promise: fn(&[u8])) {
    promise(bytes);
    hold(&format!("fuzz/seeds/{target}/{at:03}"), bytes);
}

#[test]
fn every_file_of_vectors_is_one_that_the_code_knows() {
    if is_writing() {
        // The other tests have not made them all yet.
        return;
    }
    let known: std::collections::BTreeSet<_> = client::files()
        .iter()
        .map(|(message, _)| *message)
        .chain(server::files().iter().map(|(message, _)| *message))
        .chain(["messages", "invalid", "codes"])
        .map(|name| format!("{name}.json"))
        .collect();
    let found = std::fs::read_dir(main_folder().join("vectors")).expect("vectors/ is there");
    let found: std::collections::BTreeSet<_> = found
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, known);
}
