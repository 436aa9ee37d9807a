//! Who a peer is, once its token has been verified.

use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::{Role, TenantId, UserId};

use super::grant::Grant;
use super::keys::KeySpec;

/// What a token may say of its user, in bytes of JSON: every page of presence has it as often as it lists users.
pub const INFO_BYTES_MAX: usize = 1_024;

/// A verified caller. One per token, shared by `Arc` between the connections that brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub tenant: TenantId,
    pub user: UserId,
    pub roles: Box<[Role]>,
    pub grant: Grant,
    /// What the token says of the user to others in a room: JSON of at most [`INFO_BYTES_MAX`], or nothing.
    pub info: Bytes,
    /// When the token ends, in milliseconds since 1970; the leeway is not in it.
    pub expires_unix_ms: Option<u64>,
    /// When it was issued, in milliseconds since 1970, if it says so.
    pub issued_unix_ms: Option<u64>,
    /// The token's own id, for revocation.
    pub jti: Option<Box<str>>,
    /// Which key signed, and whose it is: an operator's principal may do what reaches beyond its tenant.
    pub key: Arc<KeySpec>,
}

impl Principal {
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r.as_str() == role)
    }

    pub fn is_expired(&self, unix_ms: u64) -> bool {
        self.expires_unix_ms.is_some_and(|end| end <= unix_ms)
    }
}
