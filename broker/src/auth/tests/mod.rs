//! Tokens good and bad against key rings of one, two and many tenants.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use cauce_protocol::limits::{REASON_BYTES_MAX, TOKEN_BYTES_MAX};
use cauce_protocol::{Code, Refusal, Role, TenantId, UserId};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::grant::{Action, Defaults, Pattern, RoleGrants, Rule, Rules};
use super::keys::{CANDIDATES_MAX, KeyError, KeyOwner, KeySource, KeySpec, Keys, VerifyingKey};
use super::sign::{Claims, SignError, SigningKey, random_secret, sign};
use super::token::{Denied, Expiry, Policy, Standing, verify};
use super::{Authenticator, Principal};
use crate::clock::Now;
use crate::config::Algorithm;

const SECRET: &[u8] = b"a secret of the tenant acme, 40 bytes!!";
const OTHER_SECRET: &[u8] = b"a secret of the tenant zeta, 40 bytes!!";
const RSA_PRIVATE: &str = include_str!("../../../tests/keys/test-rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../../tests/keys/test-rsa.pub.pem");
const RSA_WEAK: &str = include_str!("../../../tests/keys/test-rsa-1024.pub.pem");

/// 2026-11-23, in seconds.
const NOW: u64 = 1_795_000_000;

const POLICY: Policy = Policy {
    leeway_ms: 10_000,
    expiry: Expiry::Required,
    lifetime_ms_max: 86_400_000,
};

fn now() -> Now {
    Now {
        mono_ms: 5_000,
        unix_ms: NOW * 1_000,
    }
}

fn tenant(name: &str) -> KeyOwner {
    KeyOwner::Tenant(TenantId::new(name).unwrap())
}

fn spec(owner: KeyOwner, kid: Option<&str>, algorithm: Algorithm) -> KeySpec {
    KeySpec {
        owner,
        kid: kid.map(Into::into),
        algorithm,
        issuer: None,
        audience: None,
    }
}

fn ring(keys: Vec<VerifyingKey>) -> Keys {
    let ring = Keys::default();
    ring.replace(KeySource::Config, keys).unwrap();
    ring
}

/// One tenant, acme, with one secret.
fn acme() -> Keys {
    let spec = spec(tenant("acme"), Some("k1"), Algorithm::Hs256);
    ring(vec![VerifyingKey::from_secret(spec, SECRET).unwrap()])
}

fn active(_: &TenantId) -> Standing {
    Standing::Active(Arc::default())
}

fn check(keys: &Keys, token: &str) -> Result<Principal, Denied> {
    verify(token, &keys.ring(), POLICY, now(), active)
}

fn refused(keys: &Keys, token: &str) -> Refusal {
    let refusal: Refusal = check(keys, token).expect_err(token).into();
    assert!(refusal.message.len() <= REASON_BYTES_MAX, "{refusal}");
    refusal
}

fn encode(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

/// Signs any header and claims, however wrong.
fn forge_text(header: &str, claims: &str, secret: &[u8]) -> String {
    use aws_lc_rs::hmac;
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = BASE64.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

fn forge(header: &Value, claims: &Value) -> String {
    forge_text(&header.to_string(), &claims.to_string(), SECRET)
}

fn good_claims() -> Value {
    json!({"sub": "ada", "tenant": "acme", "iat": NOW, "exp": NOW + 3_600})
}

fn with(name: &str, value: Value) -> String {
    let mut claims = good_claims();
    claims[name] = value;
    forge(&json!({"alg": "HS256", "kid": "k1"}), &claims)
}

fn without(name: &str) -> String {
    let mut claims = good_claims();
    claims.as_object_mut().unwrap().remove(name);
    forge(&json!({"alg": "HS256", "kid": "k1"}), &claims)
}

mod claims;
mod forged;
mod memory;
mod rings;
