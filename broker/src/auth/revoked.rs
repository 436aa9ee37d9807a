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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Grant, KeyOwner, KeySpec};
    use crate::config::Algorithm;
    use cauce_protocol::TenantId;
    use proptest::prelude::*;

    fn user(name: &str) -> Revoked {
        Revoked::User(UserId::new(name).unwrap())
    }

    fn principal(name: &str, issued_unix_ms: Option<u64>, jti: Option<&str>) -> Principal {
        let tenant = TenantId::new("t").unwrap();
        Principal {
            user: UserId::new(name).unwrap(),
            info: bytes::Bytes::new(),
            roles: Box::default(),
            grant: Grant::none(),
            expires_unix_ms: None,
            issued_unix_ms,
            jti: jti.map(Into::into),
            key: std::sync::Arc::new(KeySpec {
                owner: KeyOwner::Tenant(tenant.clone()),
                kid: None,
                algorithm: Algorithm::Hs256,
                issuer: None,
                audience: None,
            }),
            tenant,
        }
    }

    fn at(revoked_unix_ms: u64, until_unix_ms: Option<u64>) -> Revocation {
        Revocation {
            revoked_unix_ms,
            until_unix_ms,
            reason: String::new(),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Revoke(Revoked, Option<u64>),
        Reinstate(Revoked),
        Wait(u64),
    }

    fn subjects() -> impl Strategy<Value = Revoked> {
        prop_oneof![
            "[ab]".prop_map(|name| user(&name)),
            "[ab]".prop_map(|jti| Revoked::token(&jti).unwrap())
        ]
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (subjects(), prop::option::of(1u64..50)).prop_map(|(subject, lasts)| Step::Revoke(subject, lasts)),
            1 => subjects().prop_map(Step::Reinstate),
            3 => (1u64..40).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// The model keeps every revocation that was ever made, and asks all of them.
        #[test]
        fn a_token_is_refused_exactly_while_one_of_the_revocations_that_were_made_says_so(
            steps in prop::collection::vec(steps(), 1..40),
        ) {
            let (mut revocations, mut made, mut now) = (Revocations::default(), Vec::new(), 100u64);
            for step in steps {
                match step {
                    Step::Revoke(subject, lasts) => {
                        let revocation = at(now, lasts.map(|lasts| now + lasts));
                        revocations.make_room(&subject, now).unwrap();
                        let merged = revocations.merged(&subject, revocation.clone());
                        revocations.insert(subject.clone(), merged);
                        made.push((subject, revocation));
                    }
                    Step::Reinstate(subject) => {
                        revocations.remove(&subject);
                        made.retain(|(other, _)| *other != subject);
                    }
                    Step::Wait(ms) => now += ms,
                }
                for name in ["a", "b"] {
                    for jti in [None, Some("a"), Some("b")] {
                        for issued in [None, Some(100), Some(now - 1), Some(now), Some(now + 1)] {
                            let principal = principal(name, issued, jti);
                            // The moment is the latest of those that have not all ended together.
                            let of = |subject: &Revoked| {
                                let mut latest: Option<(u64, Option<u64>)> = None;
                                for (_, r) in made.iter().filter(|(other, _)| other == subject) {
                                    let ended = latest.is_some_and(|(_, until)| until.is_some_and(|until| until <= r.revoked_unix_ms));
                                    latest = match latest {
                                        Some((_, until)) if !ended =>
                                            Some((r.revoked_unix_ms, until.zip(r.until_unix_ms).map(|(a, b)| a.max(b)))),
                                        _ => Some((r.revoked_unix_ms, r.until_unix_ms)),
                                    };
                                }
                                latest.filter(|(_, until)| until.is_none_or(|until| until > now))
                            };
                            let by_user = of(&user(name)).is_some_and(|(moment, _)| issued.unwrap_or(0) <= moment);
                            let by_token = jti.is_some_and(|jti| of(&Revoked::token(jti).unwrap()).is_some());
                            prop_assert_eq!(revocations.check(&principal, now).is_err(), by_user || by_token);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn one_too_many_is_refused_and_what_has_ended_makes_room() {
        let mut revocations = Revocations::default();
        for n in 0..REVOCATIONS_A_TENANT_MAX {
            let subject = user(&format!("u{n}"));
            revocations.make_room(&subject, 0).unwrap();
            revocations.insert(subject, at(0, Some(if n == 0 { 10 } else { 1_000 })));
        }
        let more = user("more");
        let refusal = revocations.make_room(&more, 9).unwrap_err();
        assert_eq!(refusal.code, Code::QuotaExceeded);
        revocations.make_room(&user("u7"), 9).unwrap();
        revocations.make_room(&more, 10).unwrap();
        assert!(!revocations.stands(&user("u0"), 9));
        assert!(revocations.stands(&user("u1"), 999));
    }

    #[test]
    fn subjects_are_written_and_read_back() {
        for subject in [user("ann"), user("a:b"), Revoked::token("jti:user:1 2").unwrap()] {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        for bad in [
            "",
            "ann",
            "user:",
            "jti:",
            "role:x",
            "User:x",
            "jti:a\nb",
            "user:\u{200b}",
        ] {
            assert!(bad.parse::<Revoked>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lists_come_in_order_and_without_what_has_ended() {
        let mut revocations = Revocations::default();
        for (subject, until) in [
            (Revoked::token("x").unwrap(), None),
            (user("b"), Some(5)),
            (user("a"), Some(6)),
            (user("c"), None),
        ] {
            revocations.insert(subject, at(0, until));
        }
        let list = |after: Option<&Revoked>, limit| {
            let list = revocations.list(after, 5, limit).into_iter();
            list.map(|(subject, _)| subject.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(list(None, 9), ["user:a", "user:c", "jti:x"]);
        assert_eq!(list(Some(&user("a")), 1), ["user:c"]);
    }
}
