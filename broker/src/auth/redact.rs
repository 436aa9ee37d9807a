//! Taking credentials out of what is about to be logged.

use std::borrow::Cow;

/// Parameters that are shown by name only. The comparison ignores case and undoes percent signs.
const SECRET_PARAMETERS: [&str; 6] = ["access_token", "api_key", "key", "password", "secret", "token"];

/// The target of a request with the values of secret parameters replaced: `/x?token=abc&y=1` becomes `/x?token=…&y=1`.
pub fn redact_query(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else {
        return Cow::Borrowed(target);
    };
    if !query.split(['&', ';', '?', '#']).any(is_secret) {
        return Cow::Borrowed(target);
    }
    let mut out = String::with_capacity(target.len());
    out.push_str(path);
    out.push('?');
    for piece in query.split_inclusive(['&', ';', '?', '#']) {
        let (pair, separator) = match piece.strip_suffix(['&', ';', '?', '#']) {
            Some(pair) => (pair, &piece[pair.len()..]),
            None => (piece, ""),
        };
        match pair.split_once('=') {
            Some((name, _)) if is_secret(pair) => {
                out.push_str(name);
                out.push_str("=…");
            }
            _ => out.push_str(pair),
        }
        out.push_str(separator);
    }
    Cow::Owned(out)
}

fn is_secret(pair: &str) -> bool {
    let Some((name, _)) = pair.split_once('=') else {
        return false;
    };
    let name = decoded(name);
    SECRET_PARAMETERS
        .iter()
        .any(|secret| name.eq_ignore_ascii_case(secret))
}

/// Percent signs undone where they stand for ASCII; enough to recognise a name.
fn decoded(name: &str) -> String {
    let mut bytes = name.bytes();
    let mut out = String::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        let mut rest = bytes.clone();
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (byte, digit(rest.next()), digit(rest.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push(char::from((high * 16 + low) as u8));
                bytes = rest;
            }
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secret_values_go_and_all_else_stays() {
        for (from, to) in [
            ("/x?token=abc&y=1", "/x?token=…&y=1"),
            ("/x?y=1&token=abc", "/x?y=1&token=…"),
            ("/x?token=abc=def", "/x?token=…"),
            ("/x?a=1;TOKEN=abc#token=def", "/x?a=1;TOKEN=…#token=…"),
            ("/x?a?token=abc", "/x?a?token=…"),
            ("/x?%74oken=abc&to%6ben=def", "/x?%74oken=…&to%6ben=…"),
            (
                "/x?access_token=a&api_key=b&key=c",
                "/x?access_token=…&api_key=…&key=…",
            ),
            ("/x?tokens=1&token", "/x?tokens=1&token"),
            ("/x", "/x"),
            ("", ""),
            ("?", "?"),
            ("/x?token=", "/x?token=…"),
        ] {
            assert_eq!(redact_query(from), to);
        }
    }

    proptest! {
        #[test]
        fn a_token_never_survives(before in "[a-z?&=%;#]{0,20}", after in "([&;#][a-z=%]{0,10})?") {
            let target = format!("/shelly?{before}&token=CANARY{after}");
            prop_assert!(!redact_query(&target).contains("CANARY"));
        }
    }
}
