//! From a token to a [`Principal`] and its [`Grant`].
//!
//! What must stay true:
//! - The key decides the algorithm and the tenant; the token only has to agree.
//! - A key is found by tenant, issuer and name together, never by its name alone.
//! - Nothing that a token says is fetched, opened or looked up before its signature is verified, save the key itself.
//! - A claim that is not understood exactly is a refusal, never a default.
//! - No token and no secret is in a message, in `Debug` or in a log.

mod address;
mod cache;
pub mod fetch;
#[doc(hidden)]
pub mod fuzz;
pub mod grant;
mod json;
pub mod jwks;
pub mod keys;
mod principal;
mod redact;
pub mod revoked;
pub mod secret;
pub mod sign;
pub mod token;

pub use address::Reach;
pub use cache::Authenticator;
pub use grant::{Action, Actions, Allow, ClassGrants, Defaults, Grant, Pattern, RoleGrants, Rule, Rules};
pub use keys::{KeyOwner, KeyRing, KeySource, KeySpec, Keys, VerifyingKey};
pub use principal::{INFO_BYTES_MAX, Principal};
pub use redact::redact_query;
pub use revoked::{Revocation, Revocations, Revoked};
pub use token::{Denied, Expiry, Policy, Standing};

#[cfg(test)]
mod tests;
