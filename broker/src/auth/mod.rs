//! From a token to a [`Principal`] and its [`Grant`].
//!
//! What must stay true:
//! - The key decides the algorithm and the tenant; the token only has to agree.
//! - A key is found by tenant, issuer and name together, never by its name alone.
//! - Nothing that a token says is fetched, opened or looked up before its signature is verified, save the key itself.
//! - A claim that is not understood exactly is a refusal, never a default.

pub mod grant;
pub mod keys;
pub mod principal;

pub use grant::{Action, Actions, Grant, Pattern, RoleGrants, Rule, Rules};
pub use keys::KeyOwner;
pub use principal::Principal;
