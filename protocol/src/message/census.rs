//! Counts what a frame holds before the generated types keep every entry of its lists. A list of empty names costs two bytes
//! an entry on the wire and up to 24 in memory, so without this a frame would grow twelvefold before a check sees it.

use bytes::Bytes;

use crate::code::{Code, Refusal};
use crate::frame::DecodeError;
use crate::limits::{EXCLUDE_MAX, REQUEST_ENTRIES_MAX, ROOMS_A_REQUEST_MAX};
use crate::varint::{Reader, Value};
use crate::wire;

use super::Rejected;

/// What a room with options weighs before its own fields are counted: as much as that many names.
const SUBSCRIPTION_WEIGHT: usize = size_of::<wire::Subscription>().div_ceil(size_of::<String>());

/// Fields of a room with options, its lists not counted.
const SUBSCRIPTION_FIELDS: usize = 7;

/// Fields of any request beside its lists, with what a later version may add.
const FIELDS_BESIDE: usize = 64;

/// Fields that a frame may have, with the entries of its lists: what the longest request within the limits takes, which is a
/// subscribe. Unknown fields count too.
const FIELDS_MAX: usize =
    ROOMS_A_REQUEST_MAX * (SUBSCRIPTION_WEIGHT + SUBSCRIPTION_FIELDS) + REQUEST_ENTRIES_MAX + FIELDS_BESIDE;
const _: () = assert!(EXCLUDE_MAX < FIELDS_MAX);

/// Lists of numbers that may be packed into one field, by request and field.
const PACKED: [(u32, u32); 4] = [
    (field::HELLO, 5),
    (field::PUBLISH, 8),
    (field::SEND, 10),
    (field::MARK_READ, 1),
];

/// Lists of messages that hold lists themselves, by request and field.
const NESTED: [(u32, u32); 1] = [(field::SUBSCRIBE, 2)];

/// Numbers of the schema.
mod field {
    pub(super) const ID: u32 = 1;
    pub(super) const HELLO: u32 = 2;
    pub(super) const SUBSCRIBE: u32 = 3;
    pub(super) const PUBLISH: u32 = 5;
    pub(super) const SEND: u32 = 6;
    pub(super) const MARK_READ: u32 = 18;
}

#[derive(Default)]
struct Census {
    id: u32,
    fields: usize,
}

impl Census {
    /// Fails where the generated types fail too: keys and lengths of the frame itself are broken.
    fn walk(&mut self, frame: &Bytes) -> Result<(), DecodeError> {
        let mut reader = Reader::new(frame);
        while let Some((number, value)) = reader.next()? {
            self.fields += 1;
            match value {
                Value::Varint(value) if number == field::ID => self.id = value as u32,
                Value::Bytes(request) => self.fields += fields_of_request(number, &request),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Ends where the bytes are no message, without failing: within a group they need not be one, for those who skip it.
fn fields_of_request(number: u32, request: &Bytes) -> usize {
    let (mut reader, mut fields) = (Reader::new(request), 0);
    while let Ok(Some((field, value))) = reader.next() {
        fields += match value {
            // Each packed number ends with a byte below 128.
            Value::Bytes(packed) if PACKED.contains(&(number, field)) => {
                packed.iter().filter(|&&byte| byte < 0x80).count()
            }
            Value::Bytes(nested) if NESTED.contains(&(number, field)) => {
                SUBSCRIPTION_WEIGHT + fields_of_nested(&nested)
            }
            _ => 1,
        };
    }
    fields
}

fn fields_of_nested(message: &Bytes) -> usize {
    let (mut reader, mut fields) = (Reader::new(message), 0);
    while let Ok(Some(_)) = reader.next() {
        fields += 1;
    }
    fields
}

/// Refuses a frame with more than the generated types should be given.
pub(super) fn too_many_fields(frame: &Bytes) -> Result<Option<Rejected>, DecodeError> {
    let mut census = Census::default();
    let walked = census.walk(frame);
    if census.fields <= FIELDS_MAX {
        // Also where the walk failed: what is wrong is theirs to say.
        return Ok(None);
    }
    walked?;
    Ok(Some(Rejected {
        id: census.id,
        refusal: Refusal::new(
            Code::TooLarge,
            format!("the request has more than {FIELDS_MAX} fields and list entries"),
        ),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use crate::limits::{
        EVENT_BYTES_MAX, FILTER_EVENTS_MAX, FILTER_KEYS_MAX, MARK_READ_MAX, METHODS_A_REQUEST_MAX,
        PREVIOUS_MAX,
    };
    use crate::message::decode_proto;
    use crate::varint;
    use crate::wire::client_frame::Request;
    use prost::Message as _;
    use protobuf3::descriptor::field_descriptor_proto::{Label, Type};

    /// More than any list may have.
    const ENTRIES: usize = 20_000;

    fn field(number: u64, content: &[u8]) -> Vec<u8> {
        let mut field = Vec::new();
        varint::put(&mut field, number << 3 | 2);
        varint::put(&mut field, content.len() as u64);
        field.extend_from_slice(content);
        field
    }

    fn frame(request: &[u8]) -> Bytes {
        [&[0x08, 7], request].concat().into()
    }

    fn is_refused(frame: &Bytes) {
        let rejected = too_many_fields(frame).unwrap().expect("it has too many");
        assert_eq!((rejected.id, rejected.refusal.code), (7, Code::TooLarge));
        assert_eq!(decode_proto(frame, 100), Ok(Err(rejected)));
    }

    #[test]
    fn long_lists_are_refused_before_the_generated_types_keep_them() {
        let name = [0x0a, 0];
        let number = [0x08, 1];
        let packed = vec![1; ENTRIES];
        let options = |list: u8| field(2, &[list << 3 | 2, 0].repeat(ENTRIES));
        for request in [
            // Empty names, as one subscribe or as one each, and as the lists of one filter.
            field(3, &name.repeat(ENTRIES)),
            field(3, &name).repeat(ENTRIES),
            field(3, &options(7)),
            field(3, &options(8)),
            // Rooms without a name or anything else.
            field(3, &field(2, &[]).repeat(ENTRIES)),
            field(4, &name.repeat(ENTRIES)),
            field(12, &name.repeat(ENTRIES)),
            field(13, &name.repeat(ENTRIES)),
            // Numbers, packed and not.
            field(2, &field(5, &packed)),
            field(6, &field(10, &packed)),
            field(18, &field(1, &packed)),
            field(18, &number.repeat(ENTRIES)),
        ] {
            is_refused(&frame(&request));
        }
    }

    #[test]
    fn what_is_no_message_hides_nothing_behind_it() {
        let many = field(3, &[0x0a, 0].repeat(ENTRIES));
        // An unknown request, and the inside of an unknown group, that are not messages.
        let unknown = field(99, &[0xff]);
        let group = [&[0xfb, 1][..], &field(3, &[0xff]), &[0xfc, 1]].concat();
        for before in [unknown, group] {
            is_refused(&frame(&[before, many.clone()].concat()));
        }
        // The same within a subscribe.
        let group = [&[0xfb, 1][..], &field(2, &[0xff]), &[0xfc, 1]].concat();
        let names = [0x0a, 0].repeat(ENTRIES);
        is_refused(&frame(&field(3, &[group, names].concat())));
    }

    #[test]
    fn a_request_at_all_its_limits_has_not_too_many_fields() {
        let entries = |count| vec![String::from("e"); count];
        let full = wire::Subscription {
            room: "r".into(),
            epoch: 1,
            seq: 1,
            recent: 1,
            delivery: wire::Delivery::Sample.into(),
            sample_ms: 100,
            presence: wire::Watch::Users.into(),
            events: entries(FILTER_EVENTS_MAX),
            keys: entries(FILTER_KEYS_MAX),
        };
        let filtered = REQUEST_ENTRIES_MAX / (FILTER_EVENTS_MAX + FILTER_KEYS_MAX);
        let mut subscriptions: Vec<_> = (0..ROOMS_A_REQUEST_MAX)
            .map(|at| wire::Subscription {
                room: format!("r{at}"),
                ..full.clone()
            })
            .collect();
        for unfiltered in &mut subscriptions[filtered..] {
            unfiltered.events.clear();
            unfiltered.keys.clear();
        }
        let left = REQUEST_ENTRIES_MAX % (FILTER_EVENTS_MAX + FILTER_KEYS_MAX);
        subscriptions[filtered].keys = entries(left);
        for request in [
            Request::Subscribe(wire::Subscribe {
                subscriptions,
                ..wire::Subscribe::default()
            }),
            Request::Subscribe(wire::Subscribe {
                rooms: entries(ROOMS_A_REQUEST_MAX),
                ..wire::Subscribe::default()
            }),
            Request::Send(wire::Send {
                to: Some(wire::send::To::Tenant(true)),
                event: "e".repeat(EVENT_BYTES_MAX),
                exclude: vec![u64::MAX; EXCLUDE_MAX],
                ..wire::Send::default()
            }),
            Request::Serve(wire::Serve {
                methods: entries(METHODS_A_REQUEST_MAX),
                concurrency: 1,
            }),
            Request::MarkRead(wire::MarkRead {
                ids: vec![1; MARK_READ_MAX],
                up_to: 1,
            }),
            Request::Hello(wire::Hello {
                previous: vec![1; PREVIOUS_MAX],
                ..wire::Hello::default()
            }),
        ] {
            let frame = wire::ClientFrame {
                id: 7,
                request: Some(request),
            };
            let said = decode_proto(&frame.encode_to_vec().into(), 100);
            assert!(matches!(said, Ok(Ok(_))), "{said:?}");
            assert_eq!(
                crate::message::decode_json(json::encode_client(&frame).as_bytes(), 100),
                said
            );
        }
    }

    #[test]
    fn long_lists_in_json_are_cut_while_they_are_read() {
        let read = |text: String| json::decode_client(text.as_bytes()).unwrap().request.unwrap();
        let names = vec!["\"a\""; ENTRIES].join(",");
        let Request::Subscribe(subscribe) = read(format!(r#"{{"subscribe":{{"rooms":[{names}]}}}}"#)) else {
            panic!("not a subscribe")
        };
        assert_eq!(subscribe.rooms.len(), ROOMS_A_REQUEST_MAX + 1);

        let filter = format!(r#"{{"events":[{names}],"keys":[{names}]}}"#);
        let filters = vec![filter; 20].join(",");
        let Request::Subscribe(subscribe) =
            read(format!(r#"{{"subscribe":{{"subscriptions":[{filters}]}}}}"#))
        else {
            panic!("not a subscribe")
        };
        let a_filter = FILTER_EVENTS_MAX + 1 + FILTER_KEYS_MAX + 1;
        let kept: usize = subscribe
            .subscriptions
            .iter()
            .map(|s| s.events.len() + s.keys.len())
            .sum();
        assert!((REQUEST_ENTRIES_MAX + 1..=REQUEST_ENTRIES_MAX + a_filter).contains(&kept));

        let rooms = vec!["{}"; ENTRIES].join(",");
        let Request::Subscribe(subscribe) = read(format!(r#"{{"subscribe":{{"subscriptions":[{rooms}]}}}}"#))
        else {
            panic!("not a subscribe")
        };
        assert_eq!(subscribe.subscriptions.len(), ROOMS_A_REQUEST_MAX + 1);

        let Request::Serve(serve) = read(format!(r#"{{"serve":{{"methods":[{names}]}}}}"#)) else {
            panic!("not a serve")
        };
        assert_eq!(serve.methods.len(), METHODS_A_REQUEST_MAX + 1);
        let numbers = vec!["1"; ENTRIES].join(",");
        let Request::MarkRead(mark) = read(format!(r#"{{"mark_read":{{"ids":[{numbers}]}}}}"#)) else {
            panic!("not a mark")
        };
        assert_eq!(mark.ids.len(), MARK_READ_MAX + 1);
        let Request::Hello(hello) = read(format!(r#"{{"hello":{{"previous":[{numbers}]}}}}"#)) else {
            panic!("not a hello")
        };
        assert_eq!(hello.previous.len(), PREVIOUS_MAX + 1);
    }

    #[test]
    fn the_tables_are_those_of_the_schema() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
        let schema = protobuf_parse::Parser::new()
            .pure()
            .include(folder)
            .input(format!("{folder}/cauce.proto"))
            .file_descriptor_set()
            .expect("the schema is readable");
        let message = |name: &str| {
            let mut messages = schema.file[0].message_type.iter();
            let name = name.rsplit('.').next().unwrap_or(name).to_owned();
            messages
                .find(|message| message.name() == name)
                .expect("a message")
        };
        let (mut packed, mut nested) = (Vec::new(), Vec::new());
        for request in &message("ClientFrame").field {
            if request.type_() != Type::TYPE_MESSAGE {
                continue;
            }
            for field in &message(request.type_name()).field {
                let place = (request.number() as u32, field.number() as u32);
                match (field.type_(), field.label()) {
                    (Type::TYPE_MESSAGE, _) => nested.push(place),
                    (Type::TYPE_STRING | Type::TYPE_BYTES, _) | (_, Label::LABEL_OPTIONAL) => {}
                    _ => packed.push(place),
                }
            }
        }
        assert_eq!((&packed[..], &nested[..]), (&PACKED[..], &NESTED[..]));
        let options = &message("Subscription").field;
        let lists = options
            .iter()
            .filter(|field| field.label() == Label::LABEL_REPEATED);
        assert_eq!(options.len() - lists.count(), SUBSCRIPTION_FIELDS);
        assert!(options.iter().all(|field| field.type_() != Type::TYPE_MESSAGE));
    }
}
