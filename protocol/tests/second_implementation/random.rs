//! Random frames of every kind, by the schema alone: a message that is added to it is covered without a line here.

use bytes::Bytes;
use cauce_protocol::Payload;
use cauce_protocol::wire;
use proptest::prelude::*;
use prost::Message as _;
use protobuf3::reflect::{FieldDescriptor, MessageDescriptor, RuntimeFieldType, RuntimeType};
use serde_json::Value;

use crate::reflection::{JSON_FIELDS, message};

pub(crate) fn json_text() -> impl Strategy<Value = Bytes> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zé]{0,5}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
    .prop_map(|value| value.to_string().into())
}

pub(crate) fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..60).prop_map(Bytes::from)
}

/// Mostly names that pass the checks, so that the mutations start from something worth breaking.
pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z$:é]{1,20}", 1 => any::<String>()]
}

pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..300, any::<u64>()]
}

pub(crate) fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        json_text().prop_map(Payload::Json),
        any::<String>().prop_map(|text| Payload::Text(text.into())),
        bytes().prop_map(Payload::Binary),
    ]
}

/// Numbers of choices, a few beyond those that the schema has.
const CHOICES: u8 = 7;

pub(crate) fn client_frames() -> impl Strategy<Value = wire::ClientFrame> {
    let sound = "a random message is sound";
    encoded(&message("ClientFrame"))
        .prop_map(move |bytes| wire::ClientFrame::decode(&bytes[..]).expect(sound))
}

pub(crate) fn server_frames() -> impl Strategy<Value = wire::ServerFrame> {
    let sound = "a random message is sound";
    encoded(&message("ServerFrame"))
        .prop_map(move |bytes| wire::ServerFrame::decode(&bytes[..]).expect(sound))
}

type Encoded = BoxedStrategy<Vec<u8>>;

/// A message with each of its fields or without it, and one of each choice or none.
fn encoded(descriptor: &MessageDescriptor) -> Encoded {
    let beside = descriptor
        .fields()
        .filter(|field| field.containing_oneof().is_none());
    let choices = descriptor.oneofs().map(|choice| {
        let alternatives: Vec<_> = choice.fields().map(|field| present(&field)).collect();
        prop_oneof![1 => Just(Vec::new()), 9 => prop::strategy::Union::new(alternatives)].boxed()
    });
    let fields: Vec<_> = beside
        .map(|field| prop_oneof![Just(Vec::new()), present(&field)].boxed())
        .chain(choices)
        .collect();
    fields.prop_map(|fields| fields.concat()).boxed()
}

/// A field that is there, with its key.
fn present(field: &FieldDescriptor) -> Encoded {
    let number = field.number() as u64;
    match field.runtime_field_type() {
        RuntimeFieldType::Singular(kind) => with_key(number, content(field, &kind)),
        // Numbers in a list may be packed or not; here they are not, as only older writers do.
        RuntimeFieldType::Repeated(kind) => {
            prop::collection::vec(with_key(number, content(field, &kind)), 0..4)
                .prop_map(|entries| entries.concat())
                .boxed()
        }
        RuntimeFieldType::Map(..) => panic!("the schema has no maps"),
    }
}

enum Content {
    Number(BoxedStrategy<u64>),
    Bytes(Encoded),
}

fn content(field: &FieldDescriptor, kind: &RuntimeType) -> Content {
    match kind {
        RuntimeType::U32 => Content::Number(prop_oneof![0u64..300, 0..=u64::from(u32::MAX)].boxed()),
        RuntimeType::U64 => Content::Number(number().boxed()),
        RuntimeType::Bool => Content::Number((0u64..2).boxed()),
        RuntimeType::Enum(_) => Content::Number((0..u64::from(CHOICES)).boxed()),
        RuntimeType::String => Content::Bytes(name().prop_map(String::into_bytes).boxed()),
        RuntimeType::VecU8 if JSON_FIELDS.contains(&field.name()) => {
            Content::Bytes(json_text().prop_map(|json| json.to_vec()).boxed())
        }
        RuntimeType::VecU8 => Content::Bytes(bytes().prop_map(|bytes| bytes.to_vec()).boxed()),
        RuntimeType::Message(descriptor) => Content::Bytes(encoded(descriptor)),
        other => panic!("the schema has no such field: {other:?}"),
    }
}

fn with_key(field: u64, content: Content) -> Encoded {
    match content {
        Content::Number(numbers) => numbers
            .prop_map(move |number| [varint(field << 3), varint(number)].concat())
            .boxed(),
        Content::Bytes(bytes) => bytes
            .prop_map(move |bytes| [varint(field << 3 | 2), varint(bytes.len() as u64), bytes].concat())
            .boxed(),
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
