//! What a message carries: JSON, text or bytes, never copied on the way through.

use bytes::Bytes;

use crate::code::{Code, Refusal};

/// A checked payload. `Json` is one complete JSON text within the depth limit, `Text` is UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    Json(Bytes),
    Text(Bytes),
    Binary(Bytes),
}

impl Payload {
    /// What stands for an absent payload.
    pub const NULL: Self = Self::Json(Bytes::from_static(b"null"));

    /// A value as JSON.
    ///
    /// # Errors
    /// If it cannot be JSON, as a map whose keys are not text.
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(|json| Self::Json(json.into()))
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into().into())
    }

    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self::Binary(bytes.into())
    }

    /// The value, read from JSON.
    ///
    /// # Errors
    /// If the payload is not JSON, or not of that type.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        match self {
            Self::Json(json) => serde_json::from_slice(json),
            Self::Text(_) | Self::Binary(_) => Err(serde::de::Error::custom("the payload is not JSON")),
        }
    }

    pub fn as_bytes(&self) -> &Bytes {
        let (Self::Json(bytes) | Self::Text(bytes) | Self::Binary(bytes)) = self;
        bytes
    }

    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// # Errors
    /// `too_large` over `bytes_max` or nested deeper than `depth_max`, `malformed` where JSON or UTF-8 is broken.
    pub fn check(&self, bytes_max: usize, depth_max: usize) -> Result<(), Refusal> {
        if self.len() > bytes_max {
            let message = format!("payload of {} bytes, allowed are {bytes_max}", self.len());
            return Err(Refusal::new(Code::TooLarge, message));
        }
        match self {
            Self::Json(json) => check_json(json, depth_max),
            Self::Text(text) => utf8(text).map(drop),
            Self::Binary(_) => Ok(()),
        }
    }
}

/// One complete JSON text, nested at most `depth_max` deep.
///
/// # Errors
/// `too_large` if nested deeper, `malformed` otherwise; the message says where.
pub fn check_json(json: &[u8], depth_max: usize) -> Result<(), Refusal> {
    // Depth first: after it the parser's own recursion is bounded by our limit.
    if let Some(at) = deeper_than(json, depth_max) {
        let message = format!("JSON nests deeper than {depth_max} at byte {at}");
        return Err(Refusal::new(Code::TooLarge, message));
    }
    // The parser does not look into strings that it ignores, so their UTF-8 is judged here.
    match serde_json::from_str::<serde::de::IgnoredAny>(utf8(json)?) {
        Ok(_) => Ok(()),
        Err(e) => {
            let message = format!("payload is not JSON: line {}, column {}", e.line(), e.column());
            Err(Refusal::new(Code::Malformed, message))
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|e| {
        Refusal::new(
            Code::Malformed,
            format!("payload is not UTF-8 from byte {}", e.valid_up_to()),
        )
    })
}

/// Where the nesting first passes `depth_max`. Looks at brackets outside strings only, in one pass without a stack.
pub fn deeper_than(json: &[u8], depth_max: usize) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, &byte) in json.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max {
                    return Some(at);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_json_and_come_back() {
        let payload = Payload::json(&[1, 2]).unwrap();
        assert_eq!(payload.as_bytes(), "[1,2]");
        assert_eq!(payload.parse::<Vec<u32>>().unwrap(), [1, 2]);
        assert!(payload.parse::<String>().is_err());
        assert!(Payload::text("[1]").parse::<Vec<u32>>().is_err());
    }

    #[test]
    fn depth_counts_brackets_outside_strings_only() {
        assert!(check_json(br#"{"a":["]]][[[[","\"[["]}"#, 2).is_ok());
        assert_eq!(check_json(b"[[[]]]", 2).unwrap_err().code, Code::TooLarge);
        assert_eq!(deeper_than(b"[[],[[", 2), Some(5));
    }

    #[test]
    fn a_hundred_thousand_brackets_are_refused_without_recursion() {
        assert_eq!(check_json(&[b'['; 100_000], 16).unwrap_err().code, Code::TooLarge);
    }

    #[test]
    fn only_one_complete_json_text_is_json() {
        for bad in ["", "{", "{} {}", "nul", "'a'", "{\"a\":1,}", "\"\n\""] {
            assert_eq!(
                check_json(bad.as_bytes(), 16).unwrap_err().code,
                Code::Malformed,
                "{bad}"
            );
        }
        for good in ["null", " 1.5e3 ", "\"\\u00e9\"", "[{}]"] {
            assert!(check_json(good.as_bytes(), 16).is_ok(), "{good}");
        }
        assert!(check_json(b"\"\xff\"", 16).is_err());
    }

    #[test]
    fn text_must_be_utf8_and_sizes_hold_for_all_kinds() {
        let bytes = Bytes::from_static(b"\xff\xfe");
        assert!(Payload::Text(bytes.clone()).check(10, 1).is_err());
        assert!(Payload::Binary(bytes.clone()).check(10, 1).is_ok());
        assert_eq!(
            Payload::Binary(bytes).check(1, 1).unwrap_err().code,
            Code::TooLarge
        );
    }
}
