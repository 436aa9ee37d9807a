//! Choices (protobuf's enums) by name: lower case, without the prefix that the schema gives them. `DELIVERY_DROP_OLDEST` is
//! `"drop_oldest"`. Numbers are read too.
//!
//! A name that this version does not know becomes [`UNKNOWN`], so that the request that holds it is refused alone.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Visitor};
use serde::ser::Serializer;

use crate::wire::{Ack, Delivery, NotificationKind, Priority, Recovery, Watch};

/// Stands for a name that is not known; no choice of the schema has this number.
pub(crate) const UNKNOWN: i32 = -1;

/// Longer than any name of the schema. What is longer is unknown without being looked at.
const NAME_BYTES_MAX: usize = 32;

/// A choice of the schema and what its names begin with there.
pub(crate) trait Choice: Copy + TryFrom<i32> + Into<i32> {
    const PREFIX: &'static str;
    fn schema_name(self) -> &'static str;
    fn of_schema_name(name: &str) -> Option<Self>;
}

macro_rules! choices {
    ($($choice:ident: $prefix:literal),*) => {
        $(impl Choice for $choice {
            const PREFIX: &'static str = $prefix;
            fn schema_name(self) -> &'static str {
                self.as_str_name()
            }
            fn of_schema_name(name: &str) -> Option<Self> {
                Self::from_str_name(name)
            }
        })*
    };
}
choices!(
    Ack: "ACK_",
    Delivery: "DELIVERY_",
    NotificationKind: "NOTIFICATION_KIND_",
    Priority: "PRIORITY_",
    Recovery: "RECOVERY_",
    Watch: "WATCH_"
);

/// The name of a number, if it has one.
fn name_of<C: Choice>(number: i32) -> Option<String> {
    let name = C::try_from(number).ok()?.schema_name();
    name.strip_prefix(C::PREFIX).map(str::to_ascii_lowercase)
}

/// The number of a name, or [`UNKNOWN`].
fn number_of<C: Choice>(name: &str) -> i32 {
    // Lower case is the only spelling.
    if name.len() > NAME_BYTES_MAX || name.bytes().any(|b| b.is_ascii_uppercase()) {
        return UNKNOWN;
    }
    let name = format!("{}{}", C::PREFIX, name.to_ascii_uppercase());
    C::of_schema_name(&name).map_or(UNKNOWN, Into::into)
}

/// Writes the name, or the number where it has none.
pub(crate) fn write<C: Choice, S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    match name_of::<C>(*number) {
        Some(name) => serializer.serialize_str(&name),
        None => serializer.serialize_i32(*number),
    }
}

pub(crate) fn read<'de, C: Choice, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    deserializer
        .deserialize_any(Named::<C>(PhantomData))
        .map(|Number(n)| n)
}

struct Named<C>(PhantomData<C>);

struct Number(i32);

impl<C: Choice> Visitor<'_> for Named<C> {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name in lower case, or its number")
    }

    fn visit_str<E>(self, name: &str) -> Result<Number, E> {
        Ok(Number(number_of::<C>(name)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
        Ok(Number(i32::try_from(number).unwrap_or(UNKNOWN)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
        Ok(Number(i32::try_from(number).unwrap_or(UNKNOWN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number that the choice has, by name and back. Numbers of the schema are small and without holes.
    fn survives<C: Choice>(names: &[&str]) {
        for (number, &name) in (0..).zip(names) {
            assert_eq!(name_of::<C>(number).as_deref(), Some(name));
            assert_eq!(number_of::<C>(name), number);
        }
        let next = i32::try_from(names.len()).unwrap();
        assert_eq!(name_of::<C>(next), None, "a choice without a test");
        assert_eq!(name_of::<C>(UNKNOWN), None);
    }

    #[test]
    fn names_are_those_of_the_schema_without_their_prefix() {
        survives::<Ack>(&["default", "memory", "durable"]);
        survives::<Delivery>(&["default", "reliable", "latest", "drop_oldest", "sample"]);
        survives::<NotificationKind>(&["info", "success", "warning", "error", "alert"]);
        survives::<Priority>(&["normal", "low", "high"]);
        survives::<Recovery>(&["none", "continued", "partial", "reset"]);
        survives::<Watch>(&["none", "counts", "users"]);
    }

    #[test]
    fn another_spelling_is_another_name() {
        for name in [
            "",
            "LATEST",
            "Latest",
            "DELIVERY_LATEST",
            "latest ",
            &"x".repeat(1000),
        ] {
            assert_eq!(number_of::<Delivery>(name), UNKNOWN, "{name}");
        }
    }
}
