//! The twin of the schema for plain clients: the same messages, the same field names, as JSON.
//!
//! A frame towards the broker is an object with `id` and the request under its name:
//! `{"id":1,"publish":{"room":"a","event":"b","json":{}}}`. A frame towards the client is an object with the message under
//! its name. A payload lies beside the other fields as `json` (any value), `text` (a string) or `binary` (base64). Choices
//! stand by name, in lower case. Fields that the schema does not have are ignored, as protobuf does.
//!
//! Most messages are simply their fields: their serde code hangs on the generated types (`build.rs`), with the helpers of
//! `choice`, `list` and `value`. What holds a choice of payloads or recipients has a struct of its own, in `client` or
//! `server` by direction.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Serialize;

use crate::frame::DecodeError;

/// Reads the three forms of a payload into the generated choice.
macro_rules! payload_from {
    ($twin:expr, $choice:path) => {{
        use $choice as Choice;
        match ($twin.json, $twin.text, $twin.binary) {
            (None, None, None) => None,
            (Some(json), None, None) => Some(Choice::Json(value::copied(json))),
            (None, Some(text), None) => Some(Choice::Text(text.into_owned())),
            (None, None, Some(binary)) => Some(Choice::Binary(from_base64(&binary)?)),
            // Two payloads in one message: which was meant?
            _ => return Err(DecodeError::Choice),
        }
    }};
}

/// Writes the generated choice into the three forms of a payload.
macro_rules! payload_into {
    ($payload:expr, $choice:path, $twin:expr) => {{
        use $choice as Choice;
        match $payload {
            None => {}
            Some(Choice::Json(json)) => $twin.json = Some(value::shown(json)),
            Some(Choice::Text(text)) => $twin.text = Some(Cow::Borrowed(text)),
            Some(Choice::Binary(binary)) => $twin.binary = Some(Cow::Owned(BASE64.encode(binary))),
        }
    }};
}

pub(crate) mod choice;
mod client;
pub(crate) mod list;
mod server;
pub(crate) mod value;

pub use client::{decode_client, encode_client};
pub use server::{decode_server, encode_server};
pub(crate) use server::{direct, push};

pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn from_base64(text: &str) -> Result<Bytes, DecodeError> {
    BASE64
        .decode(text)
        .map(Bytes::from)
        .map_err(|_| DecodeError::Base64)
}

fn at(error: &serde_json::Error) -> DecodeError {
    DecodeError::Json {
        column: error.column(),
    }
}

/// Our types have string keys and no failing parts, so this always succeeds.
fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
