//! What a device asks an unknown caller to sign, in the spellings of the various devices.

use crate::firmware::DigestKind;
use serde_json::Value;

/// What a caller has to sign.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    pub(super) kind: DigestKind,
    pub(super) realm: String,
    pub(super) nonce: String,
    /// The credentials were right, only the nonce was too old.
    pub(super) stale: bool,
}

/// How a challenge is spelled: Wall Displays differ from everything else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spelling {
    /// As relays and plugs write it.
    Plain,
    /// `nc` as text, headers with `opaque`.
    WallDisplay,
}

impl Challenge {
    /// The message of error 401 in a frame: JSON in a string.
    pub fn to_message(&self, spelling: Spelling) -> String {
        let nonce = match self.kind {
            DigestKind::Reusable => self.nonce.clone(),
            DigestKind::Counted => Value::from(self.nonce.as_str()).to_string(),
        };
        let realm = Value::from(self.realm.as_str());
        let stale = if self.stale { r#", "stale": true"# } else { "" };
        match spelling {
            Spelling::Plain => format!(
                r#"{{"auth_type": "digest", "nonce": {nonce}, "nc": 1, "realm": {realm}, "algorithm": "SHA-256"{stale}}}"#
            ),
            Spelling::WallDisplay => format!(
                r#"{{"auth_type":"digest","nonce":{nonce},"nc":"1","realm":{realm},"algorithm":"SHA-256"{stale}}}"#
            ),
        }
    }

    /// The value of a `WWW-Authenticate` header.
    pub fn to_header(&self, spelling: Spelling) -> String {
        let (realm, nonce) = (&self.realm, &self.nonce);
        let stale = if self.stale { ", stale=true" } else { "" };
        match spelling {
            Spelling::Plain => {
                format!(r#"Digest qop="auth", realm="{realm}", nonce="{nonce}", algorithm=SHA-256{stale}"#)
            }
            Spelling::WallDisplay => {
                format!(
                    r#"Digest realm="{realm}", qop="auth", nonce="{nonce}", opaque="", algorithm=SHA-256{stale}"#
                )
            }
        }
    }
}
