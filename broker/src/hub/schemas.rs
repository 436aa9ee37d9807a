//! JSON schemas of a class's events. Compiled when they are configured; nothing is ever fetched for one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use cauce_protocol::limits::REASON_BYTES_MAX;
use cauce_protocol::{Code, Payload, Refusal};
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// What one `pattern` of a schema may take when compiled, in bytes, and its cache while it is matched. The engine matches in
/// a time that is linear in the text; in return it knows neither look-around nor back references.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Longest path in a refusal, in bytes: what is left is for the reason.
const PATH_BYTES_MAX: usize = 60;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema(Validator);

/// The schemas of one class by event.
pub type Schemas = BTreeMap<Box<str>, Arc<Schema>>;

impl Schema {
    /// # Errors
    /// If it is no schema, or refers to one outside itself: in words, with where in the schema.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX);
        let built = jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .build(schema);
        built
            .map(Self)
            .map_err(|error| match error.instance_path().as_str() {
                "" => error.masked_with("the schema").to_string(),
                path => format!("at {path}: {}", error.masked_with("the schema")),
            })
    }

    /// # Errors
    /// `schema_violation` with the path of the first fault, as a JSON pointer, and a reason.
    pub fn check(&self, payload: &Payload) -> Result<(), Refusal> {
        let Payload::Json(json) = payload else {
            let message = "the schema of this event asks for JSON; the payload is text or bytes";
            return Err(Refusal::new(Code::SchemaViolation, message));
        };
        let value: Value = serde_json::from_slice(json)
            .map_err(|_| Refusal::new(Code::Malformed, "the payload is not JSON"))?;
        let Err(error) = self.0.validate(&value) else {
            return Ok(());
        };
        let mut message = String::with_capacity(REASON_BYTES_MAX);
        // Writing to a `String` does not fail.
        let _ = match error.instance_path().as_str() {
            "" => write!(message, "at the top: "),
            path => write!(message, "at {}: ", shortened(path, PATH_BYTES_MAX)),
        };
        let _ = write!(message, "{}", error.masked());
        let message = shortened(&message, REASON_BYTES_MAX).into_owned();
        Err(Refusal::new(Code::SchemaViolation, message))
    }
}

/// The text in at most so many bytes.
fn shortened(text: &str, bytes_max: usize) -> std::borrow::Cow<'_, str> {
    const CUT: &str = "…";
    if text.len() <= bytes_max {
        return text.into();
    }
    let end = text.floor_char_boundary(bytes_max - CUT.len());
    format!("{}{CUT}", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, payload: &str) -> Result<(), Refusal> {
        let payload = Payload::Json(payload.to_owned().into());
        Schema::compile(&schema).unwrap().check(&payload)
    }

    #[test]
    fn a_payload_that_breaks_its_schema_is_refused_with_the_path_of_the_fault() {
        let schema = json!({
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": { "type": "integer" },
                "items": { "type": "array", "items": { "properties": { "a/b": { "maxLength": 2 } } } },
            },
        });
        check(schema.clone(), r#"{"id":1,"items":[{"a/b":"xy"}]}"#).unwrap();
        let message = |payload| {
            let refusal = check(schema.clone(), payload).unwrap_err();
            assert_eq!(refusal.code, Code::SchemaViolation);
            refusal.message
        };
        assert!(message(r#"{"id":1,"items":[{},{"a/b":"xyz"}]}"#).starts_with("at /items/1/a~1b: "));
        assert!(message(r#"{"id":"1"}"#).starts_with("at /id: "));
        assert!(message("{}").starts_with("at the top: "));
    }

    #[test]
    fn what_a_payload_says_is_not_repeated_and_the_reason_fits_a_close_frame() {
        let names: String = "é".repeat(90);
        let schema = json!({ "additionalProperties": { "enum": ["never mind"] } });
        let refusal = check(schema, &format!(r#"{{"{names}":"SECRET"}}"#)).unwrap_err();
        assert!(!refusal.message.contains("SECRET"), "{refusal}");
        assert!(refusal.message.len() <= REASON_BYTES_MAX, "{refusal}");
        assert!(refusal.message.contains("…: "), "{refusal}");
    }

    #[test]
    fn text_and_bytes_break_every_schema() {
        let any = Schema::compile(&json!(true)).unwrap();
        for payload in [Payload::text("{}"), Payload::binary("{}")] {
            assert_eq!(any.check(&payload).unwrap_err().code, Code::SchemaViolation);
        }
    }

    #[test]
    fn a_schema_that_is_none_or_looks_elsewhere_is_refused_when_it_is_configured() {
        for bad in [
            json!({ "type": "colour" }),
            json!({ "$ref": "https://example.com/schema.json" }),
            json!({ "$ref": "file:///etc/passwd" }),
            json!({ "$ref": "#/$defs/none" }),
            json!({ "pattern": "(?=look)ahead" }),
            json!({ "pattern": "(a{1000}){1000}" }),
            json!(7),
        ] {
            let error = Schema::compile(&bad).unwrap_err();
            assert!(!error.is_empty(), "{bad}");
        }
        let error = Schema::compile(&json!({ "properties": { "a": { "minLength": -1 } } })).unwrap_err();
        assert!(error.starts_with("at /properties/a/minLength: "), "{error}");
    }

    #[test]
    fn a_hostile_text_is_matched_at_once() {
        let schema = Schema::compile(&json!({ "pattern": "^(a+)+$" })).unwrap();
        let payload = Payload::json(&format!("{}b", "a".repeat(50_000))).unwrap();
        let start = std::time::Instant::now();
        schema.check(&payload).unwrap_err();
        assert!(start.elapsed().as_secs() < 5);
    }
}
