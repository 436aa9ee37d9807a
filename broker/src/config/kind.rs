//! What a setting may hold: how its text is read, which range it must lie in, and how it is written back.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

/// The shortest secret that is accepted, in bytes: RFC 7518 §3.2 wants 256 bits for HS256.
pub const SECRET_BYTES_MIN: usize = 32;

/// Longest text of a setting, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// Elements that a list may have.
const LIST_MAX: usize = 256;

/// The kind of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ip:port`.
    Address,
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    Count {
        min: u64,
        max: u64,
    },
    /// Milliseconds; written `500ms`, `30s`, `5m`, `1h`, `30d`.
    Duration {
        min_ms: u64,
        max_ms: u64,
    },
    /// Origins of web pages: see [`Origins`](super::Origins).
    Origins,
    Path,
    Secret,
    /// Bytes; written `65536`, `64KiB`, `1MiB`, `1GiB`.
    Size {
        min: u64,
        max: u64,
    },
    Text,
}

/// A value that has been read and lies in its range.
#[derive(Clone, Debug)]
pub enum Value {
    /// An optional setting that was not given.
    Absent,
    Bool(bool),
    List(Vec<String>),
    /// Also bytes and milliseconds.
    Number(u64),
    Secret(SecretString),
    Text(String),
}

impl Value {
    /// Whether both say the same; secrets are compared too.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b,
            (Self::Secret(a), Self::Secret(b)) => a.expose_secret() == b.expose_secret(),
            (Self::Text(a), Self::Text(b)) => a == b,
            _ => false,
        }
    }
}

/// What was written, before it is known what it means.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    Bool(bool),
    Integer(i128),
    List(Vec<String>),
    /// In quotes in a file.
    Quoted(String),
    /// From environment or flags, where everything is text.
    Typed(String),
    /// Something that no setting can be.
    Other(&'static str),
}

impl Kind {
    pub(super) fn read(self, raw: &Raw) -> Result<Value, String> {
        match self {
            Self::Bool => self.read_bool(raw),
            Self::Count { min, max } => {
                let count = match raw {
                    Raw::Integer(n) => *n,
                    Raw::Typed(text) => text.parse().map_err(|_| "expected a whole number".to_owned())?,
                    _ => return Err(expected("a whole number without quotes", raw)),
                };
                in_range(count, min, max, &|n| n.to_string())
            }
            Self::Duration { min_ms, max_ms } => {
                let ms = match raw {
                    Raw::Quoted(text) | Raw::Typed(text) => parse_duration_ms(text)?,
                    Raw::Integer(_) => {
                        return Err(r#"needs a unit: "500ms", "30s", "5m", "1h" or "30d""#.to_owned());
                    }
                    _ => return Err(expected(r#"a duration such as "30s""#, raw)),
                };
                in_range(ms, min_ms, max_ms, &show_duration)
            }
            Self::Size { min, max } => {
                let bytes = match raw {
                    Raw::Integer(n) => *n,
                    Raw::Quoted(text) | Raw::Typed(text) => parse_size(text)?,
                    _ => return Err(expected(r#"a size such as "64KiB""#, raw)),
                };
                in_range(bytes, min, max, &show_size)
            }
            Self::Origins => {
                let list = match raw {
                    Raw::List(list) => list.clone(),
                    Raw::Typed(text) if text.is_empty() => Vec::new(),
                    Raw::Typed(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
                    _ => return Err(expected("a list of texts in brackets", raw)),
                };
                if list.len() > LIST_MAX {
                    return Err(format!("has more than {LIST_MAX} entries"));
                }
                super::origin::Origins::new(&list)?;
                Ok(Value::List(list))
            }
            Self::Address | Self::Choice(_) | Self::Path | Self::Secret | Self::Text => self.read_text(raw),
        }
    }

    fn read_bool(self, raw: &Raw) -> Result<Value, String> {
        match raw {
            Raw::Bool(b) => Ok(Value::Bool(*b)),
            Raw::Typed(text) if text == "true" => Ok(Value::Bool(true)),
            Raw::Typed(text) if text == "false" => Ok(Value::Bool(false)),
            _ => Err(expected("true or false, without quotes", raw)),
        }
    }

    fn read_text(self, raw: &Raw) -> Result<Value, String> {
        let (Raw::Quoted(text) | Raw::Typed(text)) = raw else {
            return Err(expected("a text in quotes", raw));
        };
        if text.is_empty() {
            return Err("is empty; leave the key out instead".to_owned());
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("is longer than {TEXT_BYTES_MAX} bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err("contains a control character".to_owned());
        }
        match self {
            Self::Address if text.parse::<SocketAddr>().is_err() => Err(format!(
                r#"expected an IP address and a port such as "127.0.0.1:7700", found "{text}""#
            )),
            Self::Choice(words) if !words.contains(&text.as_str()) => {
                Err(format!(r#"expected one of {}, found "{text}""#, words.join(", ")))
            }
            Self::Secret if text.len() < SECRET_BYTES_MIN => Err(format!(
                "the secret is weak: {} bytes, at least {SECRET_BYTES_MIN} are needed (try `openssl rand -base64 48`)",
                text.len()
            )),
            Self::Secret if is_weak_secret(text.as_bytes()) => Err(
                "the secret is weak: it repeats a few characters (try `openssl rand -base64 48`)".to_owned(),
            ),
            Self::Secret => Ok(Value::Secret(text.clone().into())),
            _ => Ok(Value::Text(text.clone())),
        }
    }

    /// The value in TOML; a secret masked.
    pub fn show(self, value: &Value) -> String {
        match (self, value) {
            (_, Value::Absent) => String::new(),
            (_, Value::Bool(b)) => b.to_string(),
            (_, Value::List(list)) => {
                let items: Vec<_> = list.iter().map(|text| quoted(text)).collect();
                format!("[{}]", items.join(", "))
            }
            (Self::Duration { .. }, Value::Number(ms)) => quoted(&show_duration(*ms)),
            (Self::Size { .. }, Value::Number(bytes)) => quoted(&show_size(*bytes)),
            (_, Value::Number(n)) => n.to_string(),
            (_, Value::Secret(_)) => quoted(MASK),
            (_, Value::Text(text)) => quoted(text),
        }
    }
}

/// Stands where a secret would.
pub const MASK: &str = "********";

/// Fewer different bytes than this make a guessable secret: 32 random hexadecimal digits almost never have under 8.
const SECRET_DISTINCT_BYTES_MIN: usize = 8;

/// Whether a shared secret could be guessed: shorter than [`SECRET_BYTES_MIN`], or a few bytes repeated.
pub fn is_weak_secret(secret: &[u8]) -> bool {
    let mut seen = [false; 256];
    secret.iter().for_each(|&b| seen[usize::from(b)] = true);
    let distinct = seen.iter().filter(|&&s| s).count();
    secret.len() < SECRET_BYTES_MIN || distinct < SECRET_DISTINCT_BYTES_MIN
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn expected(what: &str, raw: &Raw) -> String {
    let found = match raw {
        Raw::Bool(_) => "true or false",
        Raw::Integer(_) => "a number",
        Raw::List(_) => "a list",
        Raw::Quoted(_) => "a text",
        Raw::Typed(_) => "something else",
        Raw::Other(what) => what,
    };
    format!("expected {what}, found {found}")
}

fn in_range(n: i128, min: u64, max: u64, show: &dyn Fn(u64) -> String) -> Result<Value, String> {
    match u64::try_from(n) {
        Ok(n) if (min..=max).contains(&n) => Ok(Value::Number(n)),
        Ok(0) => Err(format!(
            "must not be zero: {} to {} are allowed",
            show(min),
            show(max)
        )),
        _ => Err(format!(
            "is out of range: {} to {} are allowed",
            show(min),
            show(max)
        )),
    }
}

fn number_and_unit(text: &str) -> Option<(i128, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    // Eighteen digits cannot overflow below, whatever the unit.
    if digits == 0 || digits > 18 {
        return None;
    }
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

fn parse_duration_ms(text: &str) -> Result<i128, String> {
    let wrong =
        || format!(r#"expected a duration such as "500ms", "30s", "5m", "1h" or "30d", found "{text}""#);
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let factor = DURATION_UNITS
        .iter()
        .find(|(_, name)| *name == unit)
        .ok_or_else(wrong)?
        .0;
    Ok(number * i128::from(factor))
}

fn parse_size(text: &str) -> Result<i128, String> {
    let wrong = || format!(r#"expected a size such as "65536", "64KiB", "1MiB" or "1GiB", found "{text}""#);
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let factor = SIZE_UNITS
        .iter()
        .find(|(_, name)| *name == unit)
        .ok_or_else(wrong)?
        .0;
    Ok(number * i128::from(factor))
}

const DURATION_UNITS: [(u64, &str); 5] = [
    (86_400_000, "d"),
    (3_600_000, "h"),
    (60_000, "m"),
    (1_000, "s"),
    (1, "ms"),
];
const SIZE_UNITS: [(u64, &str); 5] = [
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1, "B"),
    (1, ""),
];

/// In the largest unit that divides it.
fn show_in(units: &[(u64, &str)], n: u64) -> String {
    let (factor, unit) = units
        .iter()
        .find(|(factor, _)| n != 0 && n.is_multiple_of(*factor))
        .unwrap_or(&units[3]);
    format!("{}{unit}", n / factor)
}

/// `24h` as milliseconds.
///
/// # Errors
/// In words, if it is none or has no unit.
pub(crate) fn duration_ms(text: &str) -> Result<u64, String> {
    let ms = parse_duration_ms(text)?;
    u64::try_from(ms).map_err(|_| "is out of range".to_owned())
}

/// `64KiB` as bytes.
///
/// # Errors
/// In words, if it is none.
pub(crate) fn size_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    u64::try_from(bytes).map_err(|_| "is out of range".to_owned())
}

pub(crate) fn show_duration(ms: u64) -> String {
    show_in(&DURATION_UNITS, ms)
}

pub(crate) fn show_size(bytes: u64) -> String {
    show_in(&SIZE_UNITS, bytes)
}

/// From a checked value to the type of a field.
pub(super) trait FromValue: Sized {
    fn from_value(value: &Value) -> Result<Self, String>;
}

fn mismatch() -> String {
    "is missing".to_owned()
}

macro_rules! from_number {
    ($($type:ty)*) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Result<Self, String> {
                match value {
                    Value::Number(n) => Self::try_from(*n).map_err(|_| "is too large for this machine".to_owned()),
                    _ => Err(mismatch()),
                }
            }
        }
    )*};
}

from_number!(u8 u32 u64 usize);

macro_rules! from_text {
    ($($type:ty)*) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Result<Self, String> {
                match value {
                    Value::Text(text) => text.parse().map_err(|e| format!("{e}")),
                    _ => Err(mismatch()),
                }
            }
        }
    )*};
}

from_text!(
    SocketAddr
    String
    std::path::PathBuf
    cauce_protocol::TenantId
    super::choice::Algorithm
    super::choice::LogFormat
);

impl FromValue for bool {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(b) => Ok(*b),
            _ => Err(mismatch()),
        }
    }
}

impl FromValue for Duration {
    fn from_value(value: &Value) -> Result<Self, String> {
        u64::from_value(value).map(Self::from_millis)
    }
}

impl FromValue for SecretString {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Secret(secret) => Ok(secret.clone()),
            _ => Err(mismatch()),
        }
    }
}

impl FromValue for super::origin::Origins {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::List(list) => Self::new(list),
            _ => Err(mismatch()),
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Absent => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_reads_back(n in 0..u64::MAX / 2) {
            let wide_ms = Kind::Duration { min_ms: 0, max_ms: u64::MAX };
            let wide = Kind::Size { min: 0, max: u64::MAX };
            for (kind, shown) in [(wide_ms, show_duration(n)), (wide, show_size(n))] {
                let read = kind.read(&Raw::Typed(shown));
                prop_assert!(matches!(read, Ok(Value::Number(m)) if m == n) || n >= 10u64.pow(18));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            for kind in [
                Kind::Address, Kind::Bool, Kind::Choice(&["a"]), Kind::Count { min: 1, max: 9 }, Kind::Origins, Kind::Path,
                Kind::Duration { min_ms: 1, max_ms: 9 }, Kind::Size { min: 1, max: 9 }, Kind::Secret, Kind::Text,
            ] {
                let _ = kind.read(&Raw::Typed(text.clone()));
                let _ = kind.read(&Raw::Quoted(text.clone()));
            }
        }
    }

    #[test]
    fn units_are_exact() {
        assert_eq!(parse_duration_ms("90s"), Ok(90_000));
        assert_eq!(parse_duration_ms("30d"), Ok(30 * 86_400_000));
        assert_eq!(show_duration(90_000), "90s");
        assert_eq!(show_duration(0), "0s");
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("10"), Ok(10));
        for bad in [
            "",
            "s",
            "1.5s",
            "1 s",
            "-1s",
            "1S",
            "1week",
            "9999999999999999999s",
        ] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
        for bad in ["", "64kb", "64KB", "64 KiB", "KiB", "0x10"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
