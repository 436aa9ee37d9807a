//! Lists in JSON, bounded while they are read: one entry too many is kept, so that the check sees the excess, and no more, so
//! that a long list costs no memory.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::limits::{REQUEST_ENTRIES_MAX, ROOMS_A_REQUEST_MAX};
use crate::wire::Subscription;

/// A list of which one entry more than `MAX` is kept.
pub(crate) fn at_most<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(While {
        goes_on: |kept: &[T]| kept.len() <= MAX,
        entry: PhantomData,
    })
}

/// The rooms of a subscribe with their options, of which one more than allowed is kept, or the first whose filter makes
/// those of all too long.
pub(crate) fn subscriptions<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Subscription>, D::Error> {
    let mut entries = 0;
    deserializer.deserialize_seq(While {
        goes_on: move |kept: &[Subscription]| {
            entries += kept.last().map_or(0, |last| last.events.len() + last.keys.len());
            kept.len() <= ROOMS_A_REQUEST_MAX && entries <= REQUEST_ENTRIES_MAX
        },
        entry: PhantomData,
    })
}

/// Keeps entries while `goes_on`, which is asked once before each, and passes over the rest.
struct While<T, F> {
    goes_on: F,
    entry: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, F: FnMut(&[T]) -> bool> Visitor<'de> for While<T, F> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while (self.goes_on)(&kept) {
            match entries.next_element()? {
                Some(entry) => kept.push(entry),
                None => return Ok(kept),
            }
        }
        while let Some(IgnoredAny) = entries.next_element()? {}
        Ok(kept)
    }
}
