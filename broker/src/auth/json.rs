//! A JSON object read member by member, so that each member is understood exactly or refused by name: no member twice, no
//! `null` where nothing is meant, no text where a number belongs.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Members that the header or the claims of a token may have.
const MEMBERS_MAX: usize = 128;

/// The members of an object, not yet understood.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// `None` if the bytes are not one JSON object, or it has a member twice or too many of them.
    pub(super) fn parse(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// The member, if it is there.
    ///
    /// # Errors
    /// If it is there and not a `T`. `null` is not.
    pub(super) fn read<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, NotThat> {
        let member = self.0.iter().find(|(n, _)| n == name);
        member
            .map(|(_, raw)| serde_json::from_str(raw.get()).map_err(|_| NotThat))
            .transpose()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
}

/// The member is something else than it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotThat;

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    if members.len() >= MEMBERS_MAX {
                        return Err(A::Error::custom("too many members"));
                    }
                    if members.iter().any(|(n, _)| *n == name) {
                        return Err(A::Error::custom("a member twice"));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// Borrowed unless it has escapes in it.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_what_it_should_be_or_refused() {
        let members = Members::parse(br#"{"a":"x","n":1,"z":null,"e\u0078p":2}"#).unwrap();
        assert_eq!(members.read("a"), Ok(Some("x".to_owned())));
        assert_eq!(members.read::<u64>("a"), Err(NotThat));
        assert_eq!(members.read::<String>("n"), Err(NotThat));
        assert_eq!(members.read::<String>("z"), Err(NotThat));
        assert_eq!(members.read::<u64>("absent"), Ok(None));
        assert_eq!(members.read("exp"), Ok(Some(2_u64)));
    }

    #[test]
    fn what_is_not_one_object_with_each_member_once_is_refused() {
        let many: Vec<_> = (0..=MEMBERS_MAX).map(|i| format!(r#""m{i}":0"#)).collect();
        for bad in [
            "",
            "[]",
            "1",
            r#"{"a":1} {"b":2}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"a":1,}"#,
            "{\"a\":\"\x01\"}",
            &format!("{{{}}}", many.join(",")),
            &format!(r#"{{"a":{}"#, "[".repeat(100_000)),
        ] {
            assert!(Members::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Members::parse(b"{\"a\":\"\xff\"}").is_none());
    }
}
