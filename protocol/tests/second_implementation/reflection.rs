//! The schema by another parser, and the twin of a message by reflection over it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use protobuf3::MessageDyn;
use protobuf3::reflect::{
    EnumDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor, ReflectValueBox, ReflectValueRef,
    RuntimeFieldType, RuntimeType,
};
use serde_json::{Map, Value};

static SCHEMA: LazyLock<FileDescriptor> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let files = protobuf_parse::Parser::new()
        .pure()
        .include(folder)
        .input(format!("{folder}/cauce.proto"))
        .file_descriptor_set()
        .expect("the schema is readable to another parser");
    FileDescriptor::new_dynamic_fds(files.file, &[])
        .expect("the schema is consistent")
        .remove(0)
});

pub(crate) fn message(name: &str) -> MessageDescriptor {
    SCHEMA
        .message_by_package_relative_name(name)
        .unwrap_or_else(|| panic!("the schema has no {name}"))
}

/// Fields that hold JSON as bytes, and stand in the twin as that JSON.
pub(crate) const JSON_FIELDS: &[&str] = &["json", "params", "info"];

/// What the twin should say of a message, by the schema alone: fields under their names, defaults left out.
pub(crate) fn to_twin(message: &dyn MessageDyn) -> Value {
    // Reflection counts a zero that stands in the bytes as present; the schema does not.
    without_defaults(
        &message.descriptor_dyn(),
        &present_fields(message),
        Zero::KeptInChoice,
    )
}

pub(crate) fn present_fields(message: &dyn MessageDyn) -> Value {
    let mut twin = Map::new();
    for field in message.descriptor_dyn().fields() {
        let value = match field.runtime_field_type() {
            RuntimeFieldType::Repeated(_) => {
                let list = field.get_repeated(message);
                if list.is_empty() {
                    continue;
                }
                (0..list.len())
                    .map(|i| value_to_twin(&field, list.get(i)))
                    .collect()
            }
            _ => match field.get_singular(message) {
                Some(value) => value_to_twin(&field, value),
                None => continue,
            },
        };
        twin.insert(field.name().into(), value);
    }
    Value::Object(twin)
}

pub(crate) fn value_to_twin(field: &FieldDescriptor, value: ReflectValueRef<'_>) -> Value {
    match value {
        ReflectValueRef::U32(number) => number.into(),
        ReflectValueRef::U64(number) => number.into(),
        ReflectValueRef::Bool(yes) => yes.into(),
        ReflectValueRef::String(text) => text.into(),
        ReflectValueRef::Bytes(json) if JSON_FIELDS.contains(&field.name()) => {
            // Mutated bytes need not be JSON any more; then they stand for themselves.
            serde_json::from_slice(json).unwrap_or_else(|_| json.into())
        }
        ReflectValueRef::Bytes(bytes) => BASE64.encode(bytes).into(),
        ReflectValueRef::Enum(descriptor, number) => name_of(&descriptor, number),
        ReflectValueRef::Message(message) => present_fields(&*message),
        other => panic!("the schema has no such field: {other:?}"),
    }
}

/// A choice by name, in lower case and without what all names of its kind begin with; what has no name stays a number.
fn name_of(descriptor: &EnumDescriptor, number: i32) -> Value {
    match descriptor.value_by_number(number) {
        Some(value) => value
            .name()
            .strip_prefix(&prefix(descriptor))
            .expect("names begin with their kind")
            .to_lowercase()
            .into(),
        None => number.into(),
    }
}

/// `NOTIFICATION_KIND_` of `NotificationKind`.
fn prefix(descriptor: &EnumDescriptor) -> String {
    let mut prefix = String::new();
    for (at, letter) in descriptor.name().char_indices() {
        if at > 0 && letter.is_uppercase() {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
    }
    prefix + "_"
}

/// The message that a twin describes, by the schema alone.
pub(crate) fn from_twin(descriptor: &MessageDescriptor, twin: &Value) -> Box<dyn MessageDyn> {
    let mut message = descriptor.new_instance();
    for (name, value) in twin.as_object().expect("a message is an object") {
        let field = field_of(descriptor, name);
        match field.runtime_field_type() {
            RuntimeFieldType::Repeated(element) => {
                let mut list = field.mut_repeated(&mut *message);
                for value in value.as_array().expect("a list is an array") {
                    list.push(value_from_twin(&field, &element, value));
                }
            }
            RuntimeFieldType::Singular(kind) => {
                field.set_singular_field(&mut *message, value_from_twin(&field, &kind, value));
            }
            RuntimeFieldType::Map(..) => panic!("the schema has no maps"),
        }
    }
    message
}

pub(crate) fn value_from_twin(field: &FieldDescriptor, kind: &RuntimeType, value: &Value) -> ReflectValueBox {
    let number = || value.as_u64().expect("a number");
    let text = || value.as_str().expect("a text");
    match kind {
        RuntimeType::U32 => ReflectValueBox::U32(number().try_into().expect("32 bits")),
        RuntimeType::U64 => ReflectValueBox::U64(number()),
        RuntimeType::Bool => ReflectValueBox::Bool(value.as_bool().expect("true or false")),
        RuntimeType::String => ReflectValueBox::String(text().into()),
        RuntimeType::VecU8 if JSON_FIELDS.contains(&field.name()) => {
            ReflectValueBox::Bytes(value.to_string().into())
        }
        RuntimeType::VecU8 => ReflectValueBox::Bytes(BASE64.decode(text()).expect("base64")),
        RuntimeType::Enum(descriptor) => {
            let number = match value {
                Value::String(name) => descriptor
                    .value_by_name(&format!("{}{}", prefix(descriptor), name.to_uppercase()))
                    .unwrap_or_else(|| panic!("the schema has no choice {name}"))
                    .value(),
                number => i32::try_from(number.as_i64().expect("a number")).expect("32 bits"),
            };
            ReflectValueBox::Enum(descriptor.clone(), number)
        }
        RuntimeType::Message(descriptor) => ReflectValueBox::Message(from_twin(descriptor, value)),
        other => panic!("the schema has no such field: {other:?}"),
    }
}

pub(crate) fn field_of(descriptor: &MessageDescriptor, name: &str) -> FieldDescriptor {
    descriptor
        .field_by_name(name)
        .unwrap_or_else(|| panic!("{} has no field {name}", descriptor.name()))
}

/// What a zero, an empty text or no bytes mean in a choice (`oneof`). The schema says that they are chosen, and the other
/// implementation reads them so, but its writer by reflection leaves them out.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Zero {
    KeptInChoice,
    DroppedEverywhere,
}

/// Leaves out what protobuf would not write, so that twins compare; every name must be one of the schema.
pub(crate) fn without_defaults(descriptor: &MessageDescriptor, twin: &Value, zero: Zero) -> Value {
    let mut kept = Map::new();
    for (name, value) in twin.as_object().expect("a message is an object") {
        let field = field_of(descriptor, name);
        let value = match field.runtime_field_type() {
            RuntimeFieldType::Singular(RuntimeType::Message(inner)) => without_defaults(&inner, value, zero),
            RuntimeFieldType::Repeated(RuntimeType::Message(inner)) => {
                let list = value.as_array().expect("a list is an array");
                if list.is_empty() {
                    continue;
                }
                list.iter()
                    .map(|value| without_defaults(&inner, value, zero))
                    .collect()
            }
            RuntimeFieldType::Singular(RuntimeType::Enum(choice)) if *value == name_of(&choice, 0) => {
                continue;
            }
            _ => {
                let is_default = match value {
                    Value::Bool(yes) => !yes,
                    Value::Number(number) => number.as_u64() == Some(0),
                    Value::String(text) => text.is_empty(),
                    Value::Array(list) => list.is_empty(),
                    Value::Null | Value::Object(_) => false,
                };
                let is_chosen = zero == Zero::KeptInChoice && field.containing_oneof().is_some();
                if is_default && !is_chosen && !JSON_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                value.clone()
            }
        };
        kept.insert(name.clone(), value);
    }
    Value::Object(kept)
}
