//! Payloads between the command line and the wire.

use std::io::Read;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cauce_client::Payload;
use cauce_protocol::limits::PAYLOAD_BYTES_MAX;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::harmless;

/// What the typed bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Binary,
    Json,
    Text,
}

/// The payload that an argument stands for; `-` is standard input, nothing is JSON `null`.
pub(crate) fn read(argument: Option<&str>, kind: Kind) -> Result<Payload, Failure> {
    let bytes = match argument {
        None => match kind {
            Kind::Json => b"null".to_vec(),
            Kind::Binary | Kind::Text => Vec::new(),
        },
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .take(PAYLOAD_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)
                .map_err(|e| Failure::failed(format_args!("standard input cannot be read: {e}")))?;
            bytes
        }
        Some(text) if kind == Kind::Binary => BASE64_STANDARD.decode(text).map_err(|e| {
            Failure::Usage(format!(
                "the payload is not base64 ({e}): pipe raw bytes through `-`"
            ))
        })?,
        Some(text) => text.as_bytes().to_vec(),
    };
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Failure::failed(format_args!(
            "the payload is longer than {PAYLOAD_BYTES_MAX} bytes, which no broker takes"
        )));
    }
    match kind {
        Kind::Binary => Ok(Payload::binary(bytes)),
        Kind::Text => String::from_utf8(bytes)
            .map(Payload::text)
            .map_err(|_| Failure::Usage("the text is not UTF-8: use --binary".to_owned())),
        Kind::Json => {
            let value: Value = serde_json::from_slice(&bytes).map_err(|e| {
                Failure::Usage(format!(
                    "the payload is not JSON ({e}): quote it for the shell, or use --text"
                ))
            })?;
            Payload::json(&value).map_err(Failure::failed)
        }
    }
}

/// Adds the payload under the name of its kind, as the API and the JSON dialect do.
pub(crate) fn put(document: &mut Value, payload: &Payload) {
    let (name, value) = match payload {
        // What is not JSON after all is shown as the text that it is.
        Payload::Json(json) => match serde_json::from_slice(json) {
            Ok(value) => ("json", value),
            Err(_) => ("text", json!(String::from_utf8_lossy(json))),
        },
        Payload::Text(text) => ("text", json!(String::from_utf8_lossy(text))),
        Payload::Binary(binary) => ("binary", json!(BASE64_STANDARD.encode(binary))),
    };
    document[name] = value;
}

/// For people.
pub(crate) fn show(payload: &Payload) -> String {
    match payload {
        Payload::Json(text) | Payload::Text(text) => harmless(&String::from_utf8_lossy(text)),
        Payload::Binary(binary) => format!("base64:{}", BASE64_STANDARD.encode(binary)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_the_other_side_prints() {
        let shown = |argument, kind| {
            let payload = read(argument, kind).unwrap();
            let mut document = json!({});
            put(&mut document, &payload);
            document
        };
        assert_eq!(shown(Some("{\"a\": 1}"), Kind::Json), json!({"json": {"a": 1}}));
        assert_eq!(shown(None, Kind::Json), json!({"json": null}));
        assert_eq!(shown(Some("hi"), Kind::Text), json!({"text": "hi"}));
        assert_eq!(shown(Some("AAE="), Kind::Binary), json!({"binary": "AAE="}));
    }

    #[test]
    fn what_is_not_of_its_kind_is_wrong_usage() {
        for (text, kind) in [("{a:1}", Kind::Json), ("plain", Kind::Json), ("%", Kind::Binary)] {
            assert!(matches!(read(Some(text), kind), Err(Failure::Usage(_))), "{text}");
        }
    }
}
