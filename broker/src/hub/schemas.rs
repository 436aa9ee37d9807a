//! JSON schemas of a class's events.
//!
//! What must stay true:
//! - A schema is judged and compiled when it is configured. Nothing is ever fetched for one.
//! - Checking takes at most a time that rises with the payload's size, whatever the schema and the payload say: no schema
//!   refers to itself, what it comes to is bounded, and its patterns are matched in linear time.

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

/// Subschemas that one schema may come to when each reference is replaced by what it refers to. Each is asked about each value
/// of a payload at most once.
const PARTS_MAX: usize = 1_024;

/// Longest path in a refusal, in bytes: what is left is for the reason.
const PATH_BYTES_MAX: usize = 60;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema(Validator);

/// The schemas of one class by event.
pub type Schemas = BTreeMap<Box<str>, Arc<Schema>>;

impl Schema {
    /// # Errors
    /// If it is no schema, refers to itself or to one elsewhere, or comes to too much: in words, with where in the schema.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        Unfolding {
            root: schema,
            parts: 0,
            open: Vec::new(),
        }
        .count(schema)?;
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

/// Counts what a schema comes to. It is not what compiles it, and takes what it does not know for more schemas: too many rather
/// than too few.
struct Unfolding<'a> {
    root: &'a Value,
    parts: usize,
    /// References that are being followed.
    open: Vec<&'a str>,
}

impl<'a> Unfolding<'a> {
    fn count(&mut self, schema: &'a Value) -> Result<(), String> {
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err(format!(
                "with its references it comes to more than {PARTS_MAX} subschemas"
            ));
        }
        let Value::Object(members) = schema else {
            return Ok(());
        };
        for (keyword, value) in members {
            match keyword.as_str() {
                // Values, and what is counted where it is referred to.
                "const" | "default" | "enum" | "examples" | "$defs" | "definitions" => {}
                // Names, whatever they are, and their schemas.
                "dependencies" | "dependentSchemas" | "patternProperties" | "properties" => {
                    let schemas = value.as_object().into_iter().flatten();
                    schemas
                        .map(|(_, schema)| schema)
                        .try_for_each(|schema| self.count(schema))?;
                }
                "$ref" => self.follow(value)?,
                "$dynamicRef" | "$recursiveRef" => {
                    return Err(format!("{keyword} is not supported: use $ref"));
                }
                "$id" if !std::ptr::eq(schema, self.root) => {
                    return Err("$id is supported at the top only".to_owned());
                }
                _ => match value {
                    Value::Array(schemas) => schemas.iter().try_for_each(|schema| self.count(schema))?,
                    Value::Object(_) => self.count(value)?,
                    _ => {}
                },
            }
        }
        Ok(())
    }

    fn follow(&mut self, reference: &'a Value) -> Result<(), String> {
        let target = reference.as_str().and_then(|reference| {
            let pointer = reference.strip_prefix('#')?;
            Some((reference, self.root.pointer(pointer)?))
        });
        let Some((reference, target)) = target else {
            return Err(format!(
                "$ref {reference} leads nowhere in the schema: use {{\"$ref\": \"#/$defs/name\"}}"
            ));
        };
        if self.open.contains(&reference) {
            return Err(format!("$ref {reference:?} leads back to itself"));
        }
        self.open.push(reference);
        self.count(target)?;
        self.open.pop();
        Ok(())
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
            json!({ "$ref": "#" }),
            json!({ "$ref": "#name", "$defs": { "n": { "$anchor": "name" } } }),
            json!({ "properties": { "const": { "$ref": "#" } } }),
            json!({ "allOf": [{ "$ref": "#/$defs/a" }], "$defs": { "a": { "items": { "$ref": "#/$defs/b" } }, "b": { "not": { "$ref": "#/$defs/a" } } } }),
            json!({ "$dynamicRef": "#" }),
            json!({ "properties": { "a": { "$id": "https://example.com/a" } } }),
        ] {
            let error = Schema::compile(&bad).unwrap_err();
            assert!(!error.is_empty(), "{bad}");
        }
        let error = Schema::compile(&json!({ "properties": { "a": { "minLength": -1 } } })).unwrap_err();
        assert!(error.starts_with("at /properties/a/minLength: "), "{error}");
    }

    #[test]
    fn a_schema_that_doubles_with_every_reference_is_refused_before_it_is_compiled() {
        let mut defs = serde_json::Map::new();
        for level in 0..60 {
            let next = json!({ "$ref": format!("#/$defs/d{}", level + 1) });
            defs.insert(format!("d{level}"), json!({ "allOf": [next, next] }));
        }
        defs.insert("d60".to_owned(), json!({ "type": "object" }));
        let error = Schema::compile(&json!({ "$ref": "#/$defs/d0", "$defs": defs })).unwrap_err();
        assert!(error.contains("more than 1024 subschemas"), "{error}");
        // A few times over is what references are for.
        let twice = Schema::compile(&json!({
            "$id": "https://example.com/order",
            "properties": { "from": { "$ref": "#/$defs/place" }, "to": { "$ref": "#/$defs/place" } },
            "$defs": { "place": { "type": "object", "required": ["city"] } },
        }));
        let payload = Payload::Json(r#"{"from":{"city":"x"},"to":{}}"#.into());
        let refusal = twice.unwrap().check(&payload).unwrap_err();
        assert!(refusal.message.starts_with("at /to: "), "{refusal}");
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
