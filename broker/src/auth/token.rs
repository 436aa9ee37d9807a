//! A JSON web token, verified. Pure: the keys, the time and what is known of tenants are arguments.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use cauce_protocol::limits::{PAYLOAD_DEPTH_MAX, TOKEN_BYTES_MAX};
use cauce_protocol::{Code, Payload, Refusal, Role, TenantId, UserId};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;

use super::grant::{Defaults, Grant, Rule, Rules};
use super::json::{Members, NotThat};
use super::keys::{Candidates, Hint, KeyOwner, KeyRing, VerifyingKey, is_plain};
use super::principal::{INFO_BYTES_MAX, Principal};
use crate::clock::Now;
use crate::config::{self, Algorithm};

/// Roles that one token may carry.
pub const ROLES_MAX: usize = 32;

/// Longest `jti`, in bytes.
pub const JTI_BYTES_MAX: usize = 200;

/// The year 9999, in seconds since 1970. What is later is a mistake: most often milliseconds.
const DATE_MAX_SECONDS: u64 = 253_402_300_799;

/// What is asked of a token besides its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How far the clocks of issuer and broker may differ.
    pub leeway_ms: u64,
    pub expiry: Expiry,
    /// How long a token may be good for.
    pub lifetime_ms_max: u64,
}

/// Whether a token must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Optional,
    Required,
}

impl From<&config::Auth> for Policy {
    fn from(auth: &config::Auth) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            leeway_ms: ms(auth.leeway),
            expiry: if auth.require_exp {
                Expiry::Required
            } else {
                Expiry::Optional
            },
            lifetime_ms_max: ms(auth.max_lifetime),
        }
    }
}

/// What is known of a tenant when a token of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Served, with these rights where a token says nothing.
    Active(Arc<Defaults>),
    Disabled,
    Unknown,
}

/// Why a token was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// For the peer.
    pub refusal: Refusal,
    /// The token names a key that is not known (yet): worth a look whether a key set has changed.
    pub unknown_kid: bool,
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        denied.refusal
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl std::error::Error for Denied {}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            unknown_kid: false,
        }
    }
}

/// One answer for every token whose signature fits no key, so that it tells nothing about which tenants and keys exist.
const NO_KEY_FITS: &str = "no key for this tenant fits the token's kid, alg, iss and signature";
const NO_KEY_FITS_SILENT: &str =
    "no key fits the token's kid, alg, iss and signature; a tenant claim may be missing";

/// Verifies a token. `standing` is asked once, after the signature is verified.
///
/// # Errors
/// `unauthenticated` without a token; `token_invalid`, `token_expired`, `token_not_yet_valid`, `wrong_tenant` or
/// `tenant_disabled` otherwise. The words hold nothing of the token but the names of its claims.
pub fn verify(
    token: &str,
    ring: &KeyRing,
    policy: Policy,
    now: Now,
    standing: impl FnOnce(&TenantId) -> Standing,
) -> Result<Principal, Denied> {
    let parts = Parts::split(token)?;
    let header = Header::parse(parts.header)?;
    let payload = decode(parts.payload).ok_or_else(|| invalid("the token's claims are not base64url"))?;
    let claims = Members::parse(&payload)
        .ok_or_else(|| invalid("the token's claims are not one JSON object with each claim once"))?;
    let tenant: Option<String> = claim(&claims, "tenant", "a text")?;
    let issuer: Option<String> = claim(&claims, "iss", "a text")?;

    let hint = Hint {
        algorithm: header.algorithm,
        kid: header.kid.as_deref(),
        tenant: tenant.as_deref(),
        issuer: issuer.as_deref(),
    };
    let key = signer(ring.candidates(hint), &parts, tenant.as_deref())?.ok_or_else(|| Denied {
        refusal: invalid(if hint.tenant.is_some() {
            NO_KEY_FITS
        } else {
            NO_KEY_FITS_SILENT
        }),
        unknown_kid: hint.kid.is_some_and(|kid| !ring.knows_kid(kid, hint.tenant)),
    })?;

    // From here on the claims are the key owner's word.
    let tenant = tenant_of(key, tenant.as_deref())?;
    audience(key, &claims)?;
    let Times { ends, issued } = times(&claims, policy, now)?;
    let user: String =
        claim(&claims, "sub", "a text")?.ok_or_else(|| invalid("the token has no sub: whose is it?"))?;
    let user = UserId::new(&user).map_err(|e| invalid(format!("claim sub {e}")))?;
    let roles: Vec<Role> = claim(&claims, "roles", "a list of names")?.unwrap_or_default();
    if roles.len() > ROLES_MAX {
        return Err(invalid(format!("claim roles: more than {ROLES_MAX}")).into());
    }
    let rules: Vec<Rule> = claim(
        &claims,
        "grants",
        "a list of {rooms: [patterns], allow: [rights]}",
    )?
    .unwrap_or_default();
    let rules = Rules::new(rules).map_err(|e| invalid(format!("claim grants: {e}")))?;
    let jti: Option<Box<str>> = claim(&claims, "jti", "a text")?;
    if jti.as_ref().is_some_and(|jti| !is_plain(jti, JTI_BYTES_MAX)) {
        let message =
            format!("claim jti: empty, longer than {JTI_BYTES_MAX} bytes, or with control characters");
        return Err(invalid(message).into());
    }
    let info: Option<&RawValue> = claim(&claims, "info", "a JSON value")?;
    let info = info.map_or(Ok(Bytes::new()), |info| check_info(info.get()))?;
    let defaults = active(standing(&tenant))?;
    Ok(Principal {
        info,
        grant: Grant::new(rules, &defaults, &roles),
        tenant,
        user,
        roles: roles.into(),
        expires_unix_ms: ends,
        issued_unix_ms: issued,
        jti,
        key: key.spec().clone(),
    })
}

/// What a token says of its user to others.
///
/// # Errors
/// `token_invalid` if it is too long or nests too deep.
pub(crate) fn check_info(info: &str) -> Result<Bytes, Refusal> {
    let info = Bytes::copy_from_slice(info.as_bytes());
    Payload::Json(info.clone())
        .check(INFO_BYTES_MAX, PAYLOAD_DEPTH_MAX)
        .map_err(|_| {
            let message = format!(
                "claim info: longer than {INFO_BYTES_MAX} bytes of JSON, or nested deeper than {PAYLOAD_DEPTH_MAX}"
            );
            invalid(message)
        })?;
    Ok(info)
}

/// The defaults of a tenant that is served.
pub(super) fn active(standing: Standing) -> Result<Arc<Defaults>, Refusal> {
    match standing {
        Standing::Active(defaults) => Ok(defaults),
        Standing::Disabled => Err(Refusal::new(Code::TenantDisabled, "the tenant is switched off")),
        Standing::Unknown => Err(Refusal::new(Code::WrongTenant, "there is no such tenant here")),
    }
}

struct Parts<'a> {
    /// Header and payload with the dot between: what is signed.
    message: &'a str,
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, Refusal> {
        if token.is_empty() {
            return Err(Refusal::new(Code::Unauthenticated, "no token was given"));
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid(format!(
                "the token is longer than {TOKEN_BYTES_MAX} bytes"
            )));
        }
        let shape = || invalid("the token is not a signed JSON web token: three parts with dots between");
        let (message, signature) = token.rsplit_once('.').ok_or_else(shape)?;
        let (header, payload) = message.split_once('.').ok_or_else(shape)?;
        if payload.contains('.') || header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(shape());
        }
        Ok(Self {
            message,
            header,
            payload,
            signature,
        })
    }
}

/// What of the header is used. Keys and addresses of keys in it (`jwk`, `jku`, `x5c`, `x5u`) are never looked at.
struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
}

impl Header {
    fn parse(encoded: &str) -> Result<Self, Refusal> {
        let json = decode(encoded).ok_or_else(|| invalid("the token's header is not base64url"))?;
        let members = Members::parse(&json)
            .ok_or_else(|| invalid("the token's header is not one JSON object with each member once"))?;
        // RFC 7515 §4.1.11: an extension that must be understood and is not is a refusal. None is understood.
        if members.has("crit") {
            return Err(invalid(
                "the token's header has crit, and no extension is understood",
            ));
        }
        if members.has("enc") || members.has("zip") || members.has("b64") {
            return Err(invalid(
                "the token is encrypted, compressed or not encoded; a signed one is needed",
            ));
        }
        let typ: Option<String> = claim(&members, "typ", "a text")?;
        if typ.is_some_and(|typ| !["jwt", "at+jwt"].contains(&typ.to_ascii_lowercase().as_str())) {
            return Err(invalid("the token's typ is neither JWT nor at+jwt"));
        }
        let algorithm: Option<String> = claim(&members, "alg", "a text")?;
        let algorithm = algorithm
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| invalid("the token's alg is not one that is accepted"))?;
        let kid = claim(&members, "kid", "a text")?;
        Ok(Self { algorithm, kid })
    }
}

fn decode(part: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(part).ok()
}

/// The one key that signed.
///
/// A token that names its tenant is tried with keys of that tenant and of the operator only; one that names none and fits
/// keys of two tenants is nobody's.
fn signer<'a>(
    candidates: Candidates<'a>,
    parts: &Parts<'_>,
    tenant: Option<&str>,
) -> Result<Option<&'a VerifyingKey>, Refusal> {
    let mut signers = candidates
        .into_iter()
        .filter(|key| key.verifies(parts.message.as_bytes(), parts.signature));
    let first = signers.next();
    if let (Some(key), None) = (first, tenant)
        && signers.any(|other| other.spec().owner != key.spec().owner)
    {
        return Err(invalid(
            "the token fits keys of several tenants: add a tenant claim",
        ));
    }
    Ok(first)
}

fn tenant_of(key: &VerifyingKey, claimed: Option<&str>) -> Result<TenantId, Refusal> {
    let wrong = |message| Refusal::new(Code::WrongTenant, message);
    match (&key.spec().owner, claimed) {
        (KeyOwner::Tenant(own), None) => Ok(own.clone()),
        (KeyOwner::Tenant(own), Some(claimed)) if own.as_str() == claimed => Ok(own.clone()),
        (KeyOwner::Tenant(_), Some(_)) => Err(wrong("the token's key belongs to another tenant")),
        (KeyOwner::Operator, None) => Err(wrong("a token of the operator must name a tenant")),
        (KeyOwner::Operator, Some(claimed)) => {
            TenantId::new(claimed).map_err(|e| invalid(format!("claim tenant {e}")))
        }
    }
}

fn audience(key: &VerifyingKey, claims: &Members<'_>) -> Result<(), Refusal> {
    let audience: Option<Audience> = claim(claims, "aud", "a text or a list of texts")?;
    match (&key.spec().audience, audience) {
        (None, None) => Ok(()),
        (Some(own), Some(Audience(list))) if list.iter().any(|a| **a == **own) => Ok(()),
        (Some(_), _) => Err(invalid("the token is for another audience")),
        (None, Some(_)) => Err(invalid(
            "the token is for an audience; set the key's audience to it if that is us",
        )),
    }
}

/// In milliseconds since 1970, as far as the token says.
struct Times {
    ends: Option<u64>,
    issued: Option<u64>,
}

/// Checks all dates.
fn times(claims: &Members<'_>, policy: Policy, now: Now) -> Result<Times, Refusal> {
    let date =
        |name| claim::<Date>(claims, name, "a number of seconds since 1970").map(|d| d.map(|Date(ms)| ms));
    let (ends, starts, issued) = (date("exp")?, date("nbf")?, date("iat")?);
    let latest_ms = now.unix_ms.saturating_add(policy.leeway_ms);
    if starts.is_some_and(|starts| starts > latest_ms) {
        return Err(Refusal::new(
            Code::TokenNotYetValid,
            "the token is not valid yet: compare the clocks",
        ));
    }
    if issued.is_some_and(|issued| issued > latest_ms) {
        return Err(Refusal::new(
            Code::TokenNotYetValid,
            "the token was issued in the future: compare the clocks",
        ));
    }
    let Some(ends) = ends else {
        return match policy.expiry {
            Expiry::Optional => Ok(Times { ends, issued }),
            Expiry::Required => Err(invalid("the token has no exp: tokens must end")),
        };
    };
    if ends.saturating_add(policy.leeway_ms) <= now.unix_ms {
        return Err(Refusal::new(
            Code::TokenExpired,
            "the token has expired: bring a new one",
        ));
    }
    let from = issued.or(starts).unwrap_or(now.unix_ms).min(now.unix_ms);
    if ends.saturating_sub(from) > policy.lifetime_ms_max.saturating_add(policy.leeway_ms) {
        let hours = policy.lifetime_ms_max / 3_600_000;
        return Err(invalid(format!(
            "the token is good for too long: at most {hours} h"
        )));
    }
    Ok(Times {
        ends: Some(ends),
        issued,
    })
}

fn claim<'a, T: Deserialize<'a>>(
    claims: &Members<'a>,
    name: &str,
    expected: &str,
) -> Result<Option<T>, Refusal> {
    claims
        .read(name)
        .map_err(|NotThat| invalid(format!("claim {name}: expected {expected}")))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::TokenInvalid, message)
}

/// A NumericDate (RFC 7519 §2), in milliseconds. Never from a text.
#[derive(Debug)]
struct Date(u64);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Date;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Date, E> {
                if seconds > DATE_MAX_SECONDS {
                    return Err(E::custom("after the year 9999"));
                }
                Ok(Date(seconds * 1_000))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Date, E> {
                if !(0.0..=DATE_MAX_SECONDS as f64).contains(&seconds) {
                    return Err(E::custom("not a date"));
                }
                Ok(Date((seconds * 1_000.0) as u64))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// `aud` may be one text or a list.
#[derive(Debug)]
struct Audience(Vec<String>);

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            Many(Vec<String>),
            One(String),
        }
        OneOrMany::deserialize(deserializer).map(|either| match either {
            OneOrMany::Many(list) => Self(list),
            OneOrMany::One(one) => Self(vec![one]),
        })
    }
}
