//! What a caller shows to prove that it knows the password, read from a frame or from a header.

use serde_json::Value;

/// A caller's signature, from a frame or a header.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Signature {
    /// Whom the caller thinks it talks to.
    pub realm: String,
    /// Must be `admin`.
    pub username: String,
    /// As text, also where it was a number.
    pub nonce: String,
    /// The use count as it was hashed: decimal in frames, eight hexadecimal digits in headers.
    pub nc_text: Option<String>,
    /// The use count.
    pub nc: Option<u64>,
    /// The caller's own random text.
    pub cnonce: String,
    /// The proof.
    pub response: String,
}

impl Signature {
    /// Reads the `auth` object of a frame.
    pub fn from_frame(auth: &Value) -> Option<Self> {
        let text = |field: &str| match auth.get(field) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let nc_text = text("nc");
        Some(Self {
            realm: text("realm")?,
            username: text("username")?,
            nonce: text("nonce")?,
            nc: nc_text.as_deref().and_then(|nc| nc.parse().ok()),
            nc_text,
            cnonce: text("cnonce")?,
            response: text("response")?,
        })
    }

    /// Reads the value of an `Authorization` header; `uri` must be the one of the request.
    pub fn from_header(value: &str, uri: &str) -> Option<Self> {
        let mut signature = Self::default();
        let (mut signed_uri, mut qop) = (None, None);
        for (name, value) in header_pairs(value.strip_prefix("Digest ")?) {
            let field = match name.as_str() {
                "realm" => &mut signature.realm,
                "username" => &mut signature.username,
                "nonce" => &mut signature.nonce,
                "cnonce" => &mut signature.cnonce,
                "response" => &mut signature.response,
                "nc" => {
                    signature.nc = u64::from_str_radix(&value, 16).ok();
                    signature.nc_text = Some(value);
                    continue;
                }
                "uri" => signed_uri.insert(String::new()),
                "qop" => qop.insert(String::new()),
                _ => continue,
            };
            *field = value;
        }
        (signed_uri.as_deref() == Some(uri) && qop.as_deref() == Some("auth")).then_some(signature)
    }
}

/// `name=value` pairs of a header, values with or without quotes.
fn header_pairs(mut rest: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after
                .split_once(',')
                .map_or((after, ""), |(value, _)| (value, &after[value.len()..])),
        };
        pairs.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        rest = next.trim_start().trim_start_matches(',').trim_start();
    }
    pairs
}
