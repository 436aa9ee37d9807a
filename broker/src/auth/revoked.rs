//! Tokens that are refused although they verify: all of a user's up to a moment, or one by its id. Pure: the time is an
//! argument.
//!
//! What must stay true:
//! - What is revoked is refused from the moment that it is here until its revocation ends, whatever a cache of tokens says.
//! - A revocation is dropped once it has ended, and only then. There are never more than a fixed number; one too many is
//!   refused, and no other is dropped for it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

use cauce_protocol::{Code, Refusal, UserId};

use super::keys::is_plain;
use super::principal::Principal;
use super::token::JTI_BYTES_MAX;

/// Revocations of one tenant that have not ended, some 200 bytes each.
pub const REVOCATIONS_A_TENANT_MAX: usize = 10_000;

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revoked {
    /// All tokens of a user that were issued up to the moment of revocation; one that does not say when counts as one.
    User(UserId),
    /// The token with this `jti`.
    Token(Box<str>),
}

impl Revoked {
    /// # Errors
    /// `invalid`, if no token could have it.
    pub fn token(jti: &str) -> Result<Self, Refusal> {
        if is_plain(jti, JTI_BYTES_MAX) {
            return Ok(Self::Token(jti.into()));
        }
        let message = format!("jti is empty, longer than {JTI_BYTES_MAX} bytes, or has control characters");
        Err(Refusal::new(Code::Invalid, message))
    }

    /// `user` or `jti`: how the API and the database call its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Token(_) => "jti",
        }
    }

    /// The user's name or the token's id.
    pub fn name(&self) -> &str {
        match self {
            Self::User(user) => user.as_str(),
            Self::Token(jti) => jti,
        }
    }
}

/// `user:ann`, `jti:1234`.
impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.name())
    }
}

/// The same read back.
impl std::str::FromStr for Revoked {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let wrong = || Refusal::new(Code::Invalid, "a revocation is user:<name> or jti:<id>");
        match text.split_once(':').ok_or_else(wrong)? {
            ("user", user) => match UserId::new(user) {
                Ok(user) => Ok(Self::User(user)),
                Err(error) => Err(Refusal::new(Code::Invalid, format!("user {error}"))),
            },
            ("jti", jti) => Self::token(jti),
            _ => Err(wrong()),
        }
    }
}

/// Since when, until when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub revoked_unix_ms: u64,
    /// After that it is dropped; `None` keeps it for ever.
    pub until_unix_ms: Option<u64>,
    /// For people.
    pub reason: String,
}

impl Revocation {
    pub fn has_ended(&self, unix_ms: u64) -> bool {
        self.until_unix_ms.is_some_and(|until| until <= unix_ms)
    }
}

/// The revocations of one tenant.
#[derive(Clone, Debug, Default)]
pub struct Revocations(BTreeMap<Revoked, Revocation>);

impl Revocations {
    /// Whether there is room for another, or this one would take the place of itself. Drops what has ended.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub fn make_room(&mut self, revoked: &Revoked, unix_ms: u64) -> Result<(), Refusal> {
        self.0.retain(|_, revocation| !revocation.has_ended(unix_ms));
        if self.0.len() < REVOCATIONS_A_TENANT_MAX || self.0.contains_key(revoked) {
            return Ok(());
        }
        let message = format!(
            "the tenant has {REVOCATIONS_A_TENANT_MAX} revocations, and may have no more; remove some, or let them end"
        );
        Err(Refusal::new(Code::QuotaExceeded, message).retry_after(60_000))
    }

    /// What a repeat comes to: the later moment and the later end of the two, so that it never means less than what holds.
    pub fn merged(&self, revoked: &Revoked, revocation: Revocation) -> Revocation {
        let Some(held) = self.0.get(revoked) else {
            return revocation;
        };
        let ends = held.until_unix_ms.zip(revocation.until_unix_ms);
        Revocation {
            revoked_unix_ms: held.revoked_unix_ms.max(revocation.revoked_unix_ms),
            until_unix_ms: ends.map(|(one, other)| one.max(other)),
            ..revocation
        }
    }

    /// Takes the place of an earlier one of the same.
    pub fn insert(&mut self, revoked: Revoked, revocation: Revocation) {
        self.0.insert(revoked, revocation);
    }

    pub fn remove(&mut self, revoked: &Revoked) {
        self.0.remove(revoked);
    }

    /// Whether there is one that has not ended.
    pub fn stands(&self, revoked: &Revoked, unix_ms: u64) -> bool {
        self.in_force(revoked, unix_ms).is_some()
    }

    /// In their order, those after `after`, without what has ended.
    pub fn list(&self, after: Option<&Revoked>, unix_ms: u64, limit: usize) -> Vec<(Revoked, Revocation)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.0.range::<Revoked, _>((from, Bound::Unbounded));
        range
            .filter(|(_, revocation)| !revocation.has_ended(unix_ms))
            .take(limit)
            .map(|(revoked, revocation)| (revoked.clone(), revocation.clone()))
            .collect()
    }

    /// # Errors
    /// `token_revoked`.
    pub fn check(&self, principal: &Principal, unix_ms: u64) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        let user = Revoked::User(principal.user.clone());
        let by_user = self.in_force(&user, unix_ms);
        let issued_unix_ms = principal.issued_unix_ms.unwrap_or(0);
        if by_user.is_some_and(|revocation| issued_unix_ms <= revocation.revoked_unix_ms) {
            let message = "the tokens of this user were revoked; bring one that was issued since";
            return Err(Refusal::new(Code::TokenRevoked, message));
        }
        let token = principal.jti.clone().map(Revoked::Token);
        match token.and_then(|token| self.in_force(&token, unix_ms)) {
            Some(_) => Err(Refusal::new(Code::TokenRevoked, "the token was revoked")),
            None => Ok(()),
        }
    }

    fn in_force(&self, revoked: &Revoked, unix_ms: u64) -> Option<&Revocation> {
        self.0
            .get(revoked)
            .filter(|revocation| !revocation.has_ended(unix_ms))
    }
}
