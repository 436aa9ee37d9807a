//! Texts that may reach a socket but no log: their `Debug` says nothing, and they have no `Display`.

use std::fmt;
use std::sync::Arc;

/// A password that cannot be printed by accident.
#[derive(Clone)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A complete URL with a token in it.
#[derive(Clone)]
pub(crate) struct SecretUrl(Arc<str>);

impl SecretUrl {
    pub(crate) fn new(url: &str) -> Self {
        Self(url.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
