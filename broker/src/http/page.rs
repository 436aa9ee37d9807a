//! Lists, a page at a time.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cauce_protocol::{Code, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Rows of a page unless asked otherwise.
const LIMIT_DEFAULT: u32 = 100;

/// Rows of a page at most: as many as the store gives.
const LIMIT_MAX: u32 = 1_000;

const _: () = assert!(LIMIT_MAX <= crate::store::PAGE_ROWS_MAX);

/// Which tenant, where an operator's key has the choice.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TenantQuery {
    /// With an operator's key: the tenant; `default` unless given. A tenant's key has its own.
    pub(super) tenant: Option<String>,
}

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// With an operator's key: the tenant; `default` unless given. A tenant's key has its own.
    pub(super) tenant: Option<String>,
    /// Items of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

impl ListQuery {
    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        limit(self.limit)
    }

    pub(super) fn after(&self) -> Result<Option<String>, Refusal> {
        after(self.cursor.as_deref())
    }
}

pub(super) fn limit(limit: Option<u32>) -> Result<usize, Refusal> {
    match limit.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit as usize),
        _ => Err(Refusal::new(Code::Invalid, format!("limit is 1 to {LIMIT_MAX}"))),
    }
}

/// What a cursor says: the key of the last item that was shown.
pub(super) fn after(cursor: Option<&str>) -> Result<Option<String>, Refusal> {
    let read = |cursor: &str| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?;
        String::from_utf8(bytes).ok()
    };
    cursor
        .map(|cursor| read(cursor).ok_or_else(bad_cursor))
        .transpose()
}

pub(super) fn bad_cursor() -> Refusal {
    Refusal::new(Code::Invalid, "this cursor is not one of ours")
}

/// A cursor that says so much.
pub(super) fn cursor(key: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(key)
}

/// Part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// `cursor` of the next page; null at the end.
    pub(super) next: Option<String>,
}

impl<T> Page<T> {
    /// From one item more than `limit`, if there are so many: then there is a next page.
    pub(super) fn cut(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> &str) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| cursor(key(last)));
        Self { items, next }
    }

    /// Everything at once.
    pub(super) fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

/// The first `limit + 1` names after `after`, in order, out of any number in no order.
pub(super) fn first_after<N: Ord>(mut names: Vec<N>, limit: usize) -> Vec<N> {
    if names.len() > limit + 1 {
        names.select_nth_unstable(limit);
        names.truncate(limit + 1);
    }
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pages_show_every_name_once_and_in_order(
            names in prop::collection::hash_set("[a-c]{1,4}", 0..60), limit in 1usize..20,
        ) {
            let (mut seen, mut after) = (Vec::new(), None::<String>);
            loop {
                let rest: Vec<&String> = names.iter().filter(|n| after.as_ref().is_none_or(|a| *n > a)).collect();
                let page = Page::cut(first_after(rest, limit), limit, |name| name.as_str());
                prop_assert!(page.items.len() <= limit);
                seen.extend(page.items.into_iter().cloned());
                match page.next {
                    None => break,
                    Some(next) => after = super::after(Some(&next)).unwrap(),
                }
            }
            let mut all: Vec<String> = names.into_iter().collect();
            all.sort();
            prop_assert_eq!(seen, all);
        }

        #[test]
        fn a_cursor_of_anybody_is_read_or_refused(text in ".{0,40}") {
            let _ = after(Some(&text));
            prop_assert_eq!(after(Some(&cursor(&text))).unwrap(), Some(text));
        }
    }

    #[test]
    fn a_page_has_one_to_a_thousand_items() {
        assert_eq!(limit(None).unwrap(), 100);
        assert!(limit(Some(0)).is_err() && limit(Some(1_001)).is_err() && limit(Some(1_000)).is_ok());
    }
}
