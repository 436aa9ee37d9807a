//! Requests and answers between clients: who calls, who serves.

use bytes::Bytes;

use crate::code::{Code, Refusal};
use crate::ids::DeviceId;
use crate::limits::{ERROR_BYTES_MAX, METHOD_BYTES_MAX, METHODS_A_REQUEST_MAX, PAYLOAD_DEPTH_MAX};
use crate::payload::check_json;
use crate::wire;

use super::{bounded, bounded_count, invalid};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub to: Callee,
    pub method: String,
    /// A JSON object, or empty.
    pub params: Bytes,
    /// 0 means the default.
    pub timeout_ms: u32,
    /// Ask another server if one is lost before it answers.
    pub retry: bool,
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callee {
    Device(DeviceId),
    /// Whoever serves the method.
    Service,
}

/// Methods that a connection serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    pub methods: Vec<MethodPattern>,
    /// 0 means the default.
    pub concurrency: u32,
}

/// A method's name, or the beginning of many.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MethodPattern {
    Exactly(Box<str>),
    /// Written with a `*` at the end.
    Prefix(Box<str>),
}

impl MethodPattern {
    /// # Errors
    /// `invalid` or `too_large`, with the reason.
    pub fn new(pattern: &str) -> Result<Self, Refusal> {
        match pattern.strip_suffix('*') {
            Some("") => Ok(Self::Prefix("".into())),
            Some(prefix) => check_method(prefix).map(|()| Self::Prefix(prefix.into())),
            None => check_method(pattern).map(|()| Self::Exactly(pattern.into())),
        }
    }

    pub fn matches(&self, method: &str) -> bool {
        match self {
            Self::Exactly(name) => **name == *method,
            Self::Prefix(prefix) => method.starts_with(&**prefix),
        }
    }
}

impl std::fmt::Display for MethodPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// The answer of a server of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    pub call: u64,
    /// JSON, or what went wrong.
    pub result: Result<Bytes, String>,
}

pub(super) fn check_call(call: wire::Call, payload_bytes_max: usize) -> Result<Call, Refusal> {
    let to = match call.device.as_str() {
        "" => Callee::Service,
        device => Callee::Device(DeviceId::new(device).map_err(|e| invalid("device", e))?),
    };
    check_method(&call.method)?;
    check_params(&call.params, payload_bytes_max)?;
    Ok(Call {
        to,
        method: call.method,
        params: call.params,
        timeout_ms: call.timeout_ms,
        retry: call.retry,
    })
}

pub(super) fn check_serve(serve: &wire::Serve) -> Result<Serve, Refusal> {
    Ok(Serve {
        methods: check_methods(&serve.methods)?,
        concurrency: serve.concurrency,
    })
}

pub(super) fn check_methods(methods: &[String]) -> Result<Vec<MethodPattern>, Refusal> {
    if methods.is_empty() {
        return Err(Refusal::new(
            Code::Invalid,
            "methods is empty: name at least one method",
        ));
    }
    bounded_count("methods", methods.len(), METHODS_A_REQUEST_MAX)?;
    methods.iter().map(|method| MethodPattern::new(method)).collect()
}

pub(super) fn check_respond(respond: wire::Respond, payload_bytes_max: usize) -> Result<Respond, Refusal> {
    use wire::respond::Result as Wire;
    let result = match respond.result {
        None => Ok(Bytes::from_static(b"null")),
        Some(Wire::Json(json)) => {
            bounded("json", json.len(), payload_bytes_max)?;
            check_json(&json, PAYLOAD_DEPTH_MAX)?;
            Ok(json)
        }
        Some(Wire::Error(error)) => {
            bounded("error", error.len(), ERROR_BYTES_MAX)?;
            Err(error)
        }
    };
    Ok(Respond {
        call: respond.call,
        result,
    })
}

/// A method's name: ASCII letters, digits, dots, dashes and underscores.
///
/// # Errors
/// `invalid` or `too_large`, with the reason.
pub fn check_method(method: &str) -> Result<(), Refusal> {
    if method.is_empty() {
        return Err(Refusal::new(Code::Invalid, "method is empty"));
    }
    bounded("method", method.len(), METHOD_BYTES_MAX)?;
    if method
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        Ok(())
    } else {
        Err(Refusal::new(
            Code::Invalid,
            "method may have letters, digits, '.', '_' and '-' only",
        ))
    }
}

/// Parameters of a call: nothing, or a JSON object within the limits.
///
/// # Errors
/// `too_large`, `malformed` or `invalid`.
pub fn check_params(params: &[u8], bytes_max: usize) -> Result<(), Refusal> {
    if params.is_empty() {
        return Ok(());
    }
    bounded("params", params.len(), bytes_max)?;
    check_json(params, PAYLOAD_DEPTH_MAX)?;
    match params.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') => Ok(()),
        _ => Err(Refusal::new(Code::Invalid, "params must be a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_its_name_or_what_begins_like_it() {
        let matching = |pattern: &str| {
            let pattern = MethodPattern::new(pattern).unwrap();
            ["a", "a.b", "a.bc", "b"].map(|method| pattern.matches(method))
        };
        assert_eq!(matching("a.b"), [false, true, false, false]);
        assert_eq!(matching("a.b*"), [false, true, true, false]);
        assert_eq!(matching("a*"), [true, true, true, false]);
        assert_eq!(matching("*"), [true; 4]);
    }

    #[test]
    fn a_pattern_is_shown_as_it_was_written() {
        for written in ["*", "a", "a.b*"] {
            assert_eq!(MethodPattern::new(written).unwrap().to_string(), written);
        }
        for bad in ["", "**", "*a", "a*b", "a b*", "é*"] {
            assert_eq!(MethodPattern::new(bad).unwrap_err().code, Code::Invalid, "{bad}");
        }
        let long = format!("{}*", "a".repeat(METHOD_BYTES_MAX + 1));
        assert_eq!(MethodPattern::new(&long).unwrap_err().code, Code::TooLarge);
    }

    #[test]
    fn parameters_are_an_object_or_nothing() {
        for good in ["", "{}", " {\"a\":1} "] {
            assert_eq!(check_params(good.as_bytes(), 100), Ok(()), "{good}");
        }
        for (bad, code) in [
            ("null", Code::Invalid),
            ("[{}]", Code::Invalid),
            ("{", Code::Malformed),
            (" ", Code::Malformed),
            ("{\"a\":12345678}", Code::TooLarge),
        ] {
            assert_eq!(check_params(bad.as_bytes(), 12).unwrap_err().code, code, "{bad}");
        }
    }

    #[test]
    fn an_answer_of_nothing_is_null_and_an_error_may_be_empty() {
        let respond = |result| {
            check_respond(wire::Respond { call: 1, result }, 100)
                .unwrap()
                .result
        };
        assert_eq!(respond(None), Ok(Bytes::from_static(b"null")));
        let nothing = wire::respond::Result::Error(String::new());
        assert_eq!(respond(Some(nothing)), Err(String::new()));
    }
}
