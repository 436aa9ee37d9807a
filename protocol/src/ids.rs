//! Names and numbers with a type each. A name that exists has been checked, so nobody checks it again.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use unicode_normalization::is_nfc;

use crate::code::Code;
use crate::limits::{EVENT_BYTES_MAX, NAME_BYTES_MAX};

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    Empty,
    /// Longer than the limit, in bytes.
    TooLong(usize),
    /// Control, bidirectional or other invisible characters, or blanks at an end: two names that look alike would differ.
    Character(char),
    /// Not in Unicode normal form C, for the same reason.
    NotNormalized,
}

impl NameError {
    /// The code of the answer.
    pub const fn code(self) -> Code {
        match self {
            Self::TooLong(_) => Code::TooLarge,
            Self::Empty | Self::Character(_) | Self::NotNormalized => Code::Invalid,
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "is empty"),
            Self::TooLong(max) => write!(f, "is longer than {max} bytes"),
            Self::Character(c) => write!(f, "contains the character {}", c.escape_unicode()),
            Self::NotNormalized => write!(f, "is not in Unicode normal form C"),
        }
    }
}

impl std::error::Error for NameError {}

/// The rule for all names: UTF-8 in normal form C, 1 to `bytes_max` bytes, nothing invisible, no blank at either end.
pub(crate) fn check(name: &str, bytes_max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > bytes_max {
        return Err(NameError::TooLong(bytes_max));
    }
    // Nearly every name is plain ASCII: one pass without tables.
    if name.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    if let Some(c) = name.chars().find(|&c| is_invisible(c)) {
        return Err(NameError::Character(c));
    }
    let (first, last) = (name.chars().next(), name.chars().next_back());
    if let Some(c) = [first, last].into_iter().flatten().find(|c| c.is_whitespace()) {
        return Err(NameError::Character(c));
    }
    if !is_nfc(name) {
        return Err(NameError::NotNormalized);
    }
    Ok(())
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $bytes_max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// # Errors
            /// If the name breaks the rule of this module.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check(name, $bytes_max)?;
                Ok(Self(name.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&name).map_err(|e| serde::de::Error::custom(format_args!("name {e}")))
            }
        }
    };
}

name!(
    /// A customer of the SaaS. Rooms, users, devices and everything else belong to exactly one.
    TenantId, NAME_BYTES_MAX
);
name!(
    /// A room's name within its tenant. Names that begin with `$` are the broker's own: see [`RoomName::is_reserved`].
    RoomName, NAME_BYTES_MAX
);
name!(
    /// Subject of a token: a person or a service, within its tenant.
    UserId, NAME_BYTES_MAX
);
name!(
    /// A group of users within a tenant.
    Role, NAME_BYTES_MAX
);
name!(
    /// A device within its tenant. Shelly devices are known by their MAC in upper case: `8CBFEAA133F0`.
    DeviceId, NAME_BYTES_MAX
);
name!(
    /// What a message is about: `task_event`, `device-update`.
    EventName, EVENT_BYTES_MAX
);

impl RoomName {
    /// Reserved rooms are written by the broker alone, and no `*` in a grant reaches them.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub u64);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// One connection to one node, never reused while the node runs.
    ConnectionId
);
number!(
    /// Stands for a room in pushes. Counted per tenant, so that it tells nothing about others.
    RoomId
);
number!(
    /// Position in a room: the first message is 1.
    Seq
);
number!(
    /// Which numbering a [`Seq`] belongs to.
    Epoch
);

/// A place in a room that is never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Position {
    pub epoch: Epoch,
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_accepted() {
        for name in ["a", "chat:lobby", "Büro 3", "$devices", "日本語", "a b"] {
            assert!(RoomName::new(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_cannot_be_seen_or_told_apart_are_refused() {
        assert_eq!(RoomName::new(""), Err(NameError::Empty));
        for name in [
            "a\0b",
            "a\nb",
            "a\u{1b}[2J",
            "\u{202e}abc",
            "a\u{200b}",
            " a",
            "a ",
            "a\u{a0}",
            "\u{feff}a",
        ] {
            assert!(
                matches!(RoomName::new(name), Err(NameError::Character(_))),
                "{name:?}"
            );
        }
        assert_eq!(RoomName::new("e\u{301}"), Err(NameError::NotNormalized));
        assert!(RoomName::new("\u{e9}").is_ok());
    }

    #[test]
    fn the_limit_counts_bytes() {
        assert!(RoomName::new(&"é".repeat(NAME_BYTES_MAX / 2)).is_ok());
        assert_eq!(
            RoomName::new(&"a".repeat(NAME_BYTES_MAX + 1)),
            Err(NameError::TooLong(NAME_BYTES_MAX))
        );
        assert_eq!(
            EventName::new(&"a".repeat(EVENT_BYTES_MAX + 1)),
            Err(NameError::TooLong(EVENT_BYTES_MAX))
        );
    }
}
