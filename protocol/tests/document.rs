//! docs/PROTOCOL.md says what the code does: its tables are the code's tables, its examples are frames.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cauce_protocol::frame::Frames;
use cauce_protocol::message::{decode_json, decode_proto};
use cauce_protocol::{Advice, Code, json, limits, wire};
use prost::Message as _;
use protobuf3::descriptor::FileDescriptorProto;
use protobuf3::descriptor::field_descriptor_proto::{Label, Type};

const DOCUMENT: &str = include_str!("../../docs/PROTOCOL.md");

/// Cells of the table rows in a text, without heads and rulers; code marks taken off.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut rows: Vec<Vec<&str>> = Vec::new();
    for line in text.lines() {
        let Some(row) = line.strip_prefix('|').and_then(|l| l.strip_suffix('|')) else {
            continue;
        };
        if row.starts_with(" ---") {
            // What stood above the ruler was the head.
            rows.pop();
            continue;
        }
        rows.push(row.split('|').map(|cell| cell.trim().trim_matches('`')).collect());
    }
    rows
}

/// From a heading to the next one of any level.
fn section(heading: &str) -> &'static str {
    let start = DOCUMENT
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("PROTOCOL.md has no heading {heading:?}"));
    let rest = &DOCUMENT[start + heading.len() + 2..];
    let end = rest.find("\n#").unwrap_or(rest.len());
    &rest[..end]
}

#[test]
fn the_table_of_codes_is_the_codes() {
    let expected: Vec<Vec<String>> = Code::ALL
        .iter()
        .map(|code| {
            vec![
                code.number().to_string(),
                code.name().into(),
                code.advice().name().into(),
                code.meaning().into(),
            ]
        })
        .collect();
    let found: Vec<_> = rows(section("## Codes"))
        .into_iter()
        .filter(|row| !row[0].contains('–'))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn the_table_of_ranges_is_the_ranges() {
    let found: Vec<_> = rows(section("## Codes"))
        .into_iter()
        .filter_map(|row| Some((row[0].split_once('–')?, row[1])))
        .collect();
    assert_eq!(found.len(), 4);
    for ((from, to), advice) in found {
        for number in from.parse::<u16>().unwrap()..=to.parse().unwrap() {
            assert_eq!(Advice::of(number).map(Advice::name), Some(advice), "{number}");
        }
    }
    assert_eq!((Advice::of(3999), Advice::of(4400)), (None, None));
}

#[test]
fn the_table_of_bounds_is_the_limits() {
    let expected = [
        (
            "frame, in bytes, unless configured otherwise",
            limits::FRAME_BYTES_DEFAULT,
        ),
        ("frame, in bytes, at most", limits::FRAME_BYTES_MAX),
        (
            "payload, in bytes, at most (4096 less than the frame)",
            limits::PAYLOAD_BYTES_MAX,
        ),
        ("nesting of a JSON payload", limits::PAYLOAD_DEPTH_MAX),
        ("frames in one WebSocket message", limits::FRAMES_A_MESSAGE_MAX),
        (
            "name of a room, user, role or device, in bytes",
            limits::NAME_BYTES_MAX,
        ),
        ("event name, in bytes", limits::EVENT_BYTES_MAX),
        ("key of a message, in bytes", limits::KEY_BYTES_MAX),
        ("idempotency key, in bytes", limits::IDEMPOTENCY_KEY_BYTES_MAX),
        ("method of a call, in bytes", limits::METHOD_BYTES_MAX),
        ("client name in hello, in bytes", limits::CLIENT_NAME_BYTES_MAX),
        ("token, in bytes", limits::TOKEN_BYTES_MAX),
        ("rooms in one request", limits::ROOMS_A_REQUEST_MAX),
        ("events in one filter", limits::FILTER_EVENTS_MAX),
        ("keys in one filter", limits::FILTER_KEYS_MAX),
        (
            "events and keys in the filters of one request",
            limits::REQUEST_ENTRIES_MAX,
        ),
        ("earlier connections in hello", limits::PREVIOUS_MAX),
        ("excluded connections in one message", limits::EXCLUDE_MAX),
        ("entries of a page", limits::PAGE_MAX),
        ("methods in one request", limits::METHODS_A_REQUEST_MAX),
        ("error of a respond, in bytes", limits::ERROR_BYTES_MAX),
        (
            "title of a notification, in bytes",
            limits::NOTIFICATION_TITLE_BYTES_MAX,
        ),
        (
            "message of a notification, in bytes",
            limits::NOTIFICATION_MESSAGE_BYTES_MAX,
        ),
        ("ids in one mark_read", limits::MARK_READ_MAX),
        ("ids, epochs and sequences", limits::INTEGER_MAX as usize),
        ("close reason, in bytes", limits::REASON_BYTES_MAX),
    ]
    .map(|(limit, value)| (limit, value.to_string()));
    let found: Vec<_> = rows(section("## Bounds"))
        .iter()
        .map(|row| (row[0], row[1].to_owned()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(limits::FRAME_BYTES_MAX - limits::PAYLOAD_BYTES_MAX, 4096);
}

fn schema() -> FileDescriptorProto {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut schema = protobuf_parse::Parser::new()
        .pure()
        .include(folder)
        .input(format!("{folder}/cauce.proto"))
        .file_descriptor_set()
        .expect("the schema is readable");
    schema.file.remove(0)
}

/// Headings as links name them: lower case, without punctuation, numbered from the second of a name on.
fn anchors() -> BTreeSet<String> {
    let (mut anchors, mut seen, mut fenced) = (BTreeSet::new(), BTreeMap::new(), false);
    for line in DOCUMENT.lines() {
        fenced ^= line.starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) else {
            continue;
        };
        let anchor: String = heading
            .trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            })
            .collect();
        let count = seen.entry(anchor.clone()).or_insert(0);
        anchors.insert(match *count {
            0 => anchor,
            count => format!("{anchor}-{count}"),
        });
        *count += 1;
    }
    anchors
}

#[test]
fn every_link_within_the_document_leads_somewhere() {
    let anchors = anchors();
    let links: Vec<_> = DOCUMENT
        .split("](#")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
        .collect();
    assert!(links.len() > 30, "only {} links", links.len());
    for link in links {
        assert!(anchors.contains(link), "#{link} leads nowhere");
    }
}

#[test]
fn every_choice_is_described_with_the_names_of_the_schema() {
    for choice in &schema().enum_type {
        let is_bits = choice.name() == "Feature";
        let expected: Vec<_> = choice
            .value
            .iter()
            // No bit at all is no feature.
            .filter(|value| !is_bits || value.number() != 0)
            .map(|value| (value.number(), value.name()))
            .collect();
        let found = rows(section(&format!("### {}", choice.name())));
        assert_eq!(found.len(), expected.len(), "{}", choice.name());
        for (row, (number, name)) in found.iter().zip(expected) {
            assert_eq!(row[0], number.to_string(), "{name}");
            // The prefix is the kind's own name; what remains is what JSON says, but bits are never said by name.
            let said = if is_bits {
                row[1].into()
            } else {
                row[1].to_uppercase()
            };
            assert!(name.ends_with(&format!("_{said}")), "{} is {name}", row[1]);
            assert!(is_bits || row[1] == row[1].to_lowercase(), "{}", row[1]);
        }
    }
}

#[test]
fn every_message_is_described_with_the_fields_of_the_schema() {
    for message in &schema().message_type {
        let described = section(&format!("### {}", message.name()));
        let found: Vec<Vec<&str>> = rows(described).into_iter().map(|row| row[..3].to_vec()).collect();
        let expected: Vec<Vec<String>> = message
            .field
            .iter()
            .map(|field| {
                let kind = match field.type_() {
                    Type::TYPE_UINT32 => "uint32",
                    Type::TYPE_UINT64 => "uint64",
                    Type::TYPE_BOOL => "bool",
                    Type::TYPE_STRING => "string",
                    Type::TYPE_BYTES => "bytes",
                    Type::TYPE_MESSAGE | Type::TYPE_ENUM => {
                        field.type_name().rsplit('.').next().expect("a name")
                    }
                    other => panic!("the document has no word for {other:?}"),
                };
                let repeated = if field.label() == Label::LABEL_REPEATED {
                    "repeated "
                } else {
                    ""
                };
                vec![
                    field.number().to_string(),
                    field.name().into(),
                    format!("{repeated}{kind}"),
                ]
            })
            .collect();
        assert_eq!(found, expected, "{}", message.name());
        assert!(
            !expected.is_empty() || described.contains("No fields."),
            "{} has no fields and should say so",
            message.name()
        );
    }
}

/// Fenced blocks with their info string, in order.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut blocks = Vec::new();
    let mut rest = DOCUMENT;
    while let Some(start) = rest.find("\n```") {
        let (info, behind) = rest[start + 4..].split_once('\n').expect("a fence ends its line");
        let (content, behind) = behind.split_once("\n```").expect("a fence is closed");
        blocks.push((info, content));
        rest = behind;
    }
    blocks
}

/// Frames in both directions, as the bytes of their messages.
fn from_json(info: &str, text: &str) -> Vec<Vec<u8>> {
    text.lines()
        .map(|line| {
            if info.ends_with("client") {
                let checked = decode_json(line.as_bytes(), limits::PAYLOAD_BYTES_MAX);
                assert!(matches!(checked, Ok(Ok(_))), "{line}: {checked:?}");
                json::decode_client(line.as_bytes())
                    .expect("it was just read")
                    .encode_to_vec()
            } else {
                let frame = json::decode_server(line.as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}"));
                assert!(frame.message.is_some(), "{line}: no message that we know");
                frame.encode_to_vec()
            }
        })
        .collect()
}

fn from_hex(text: &str) -> Bytes {
    text.lines()
        .flat_map(|line| {
            line.split_once('#')
                .map_or(line, |(bytes, _)| bytes)
                .split_whitespace()
        })
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{byte:?} is not hex")))
        .collect()
}

#[test]
fn every_example_is_a_frame_and_both_dialects_of_it_are_the_same() {
    let mut count = BTreeMap::new();
    let mut last: Option<(&str, Vec<Vec<u8>>)> = None;
    for (info, content) in blocks() {
        *count.entry(info).or_insert(0) += 1;
        match info {
            "json client" | "json server" => last = Some((info, from_json(info, content))),
            "hex client" | "hex server" => {
                let (above, said) = last.take().expect("hex follows its JSON");
                assert_eq!(above.split_once(' ').unwrap().1, info.split_once(' ').unwrap().1);
                let frames: Vec<_> = Frames::new(from_hex(content), limits::FRAME_BYTES_DEFAULT)
                    .map(|frame| frame.unwrap_or_else(|e| panic!("{content}: {e}")))
                    .collect();
                assert_eq!(frames, said, "{content}");
                if info == "hex client" {
                    let read = decode_proto(&frames[0], limits::PAYLOAD_BYTES_MAX);
                    assert!(matches!(read, Ok(Ok(_))), "{content}: {read:?}");
                } else {
                    assert!(wire::ServerFrame::decode(&frames[0][..]).is_ok(), "{content}");
                }
            }
            "js" | "sh" => {}
            other => panic!("a block of {other:?} is not checked"),
        }
    }
    assert!(count["hex client"] > 5 && count["hex server"] > 5, "{count:?}");
}

#[test]
fn errors_in_the_examples_are_of_the_table() {
    let errors: Vec<_> = blocks()
        .into_iter()
        .filter(|(info, _)| *info == "json server")
        .flat_map(|(_, content)| content.lines())
        .filter_map(|line| {
            use wire::{reply::Outcome, server_frame::Message};
            match json::decode_server(line.as_bytes()).ok()?.message? {
                Message::Goaway(goaway) => goaway.error,
                Message::Reply(wire::Reply {
                    outcome: Some(Outcome::Error(error)),
                    ..
                }) => Some(error),
                _ => None,
            }
        })
        .collect();
    assert!(!errors.is_empty());
    for error in errors {
        let code = u16::try_from(error.code).ok().and_then(Code::from_number);
        let code = code.unwrap_or_else(|| panic!("{} is not in the table", error.code));
        assert_eq!(
            (error.name.as_str(), error.retryable),
            (code.name(), code.is_retryable())
        );
    }
}
