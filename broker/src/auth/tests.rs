//! Tokens good and bad against key rings of one, two and many tenants.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use cauce_protocol::limits::{REASON_BYTES_MAX, TOKEN_BYTES_MAX};
use cauce_protocol::{Code, Refusal, Role, TenantId, UserId};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::grant::{Action, Pattern, RoleGrants, Rule, Rules};
use super::keys::{CANDIDATES_MAX, KeyError, KeyOwner, KeySource, KeySpec, Keys, VerifyingKey};
use super::sign::{Claims, SignError, SigningKey, random_secret, sign};
use super::token::{Denied, Expiry, Policy, Standing, verify};
use super::{Authenticator, Principal};
use crate::clock::Now;
use crate::config::Algorithm;

const SECRET: &[u8] = b"a secret of the tenant acme, 40 bytes!!";
const OTHER_SECRET: &[u8] = b"a secret of the tenant zeta, 40 bytes!!";
const RSA_PRIVATE: &str = include_str!("../../tests/keys/test-rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../tests/keys/test-rsa.pub.pem");
const RSA_WEAK: &str = include_str!("../../tests/keys/test-rsa-1024.pub.pem");

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

#[test]
fn a_good_token_becomes_its_principal() {
    let mut claims = Claims::new(UserId::new("ada").unwrap(), NOW, 3_600);
    claims.tenant = Some(TenantId::new("acme").unwrap());
    claims.roles = vec![Role::new("staff").unwrap()];
    claims.jti = Some("j-1".to_owned());
    claims.grants = vec![Rule {
        rooms: vec![Pattern::new("chat:*").unwrap()],
        allow: [Action::Subscribe].into_iter().collect(),
    }];
    let key = SigningKey::from_secret(Algorithm::Hs256, Some("k1".to_owned()), SECRET).unwrap();
    let principal = check(&acme(), &sign(&claims, &key).unwrap()).unwrap();
    assert_eq!(
        (principal.tenant.as_str(), principal.user.as_str()),
        ("acme", "ada")
    );
    assert!(principal.has_role("staff") && !principal.has_role("admin"));
    assert!(principal.grant.allows(Action::Subscribe, "chat:1"));
    assert!(!principal.grant.allows(Action::Publish, "chat:1"));
    assert_eq!(principal.expires_unix_ms, Some((NOW + 3_600) * 1_000));
    assert_eq!(principal.jti.as_deref(), Some("j-1"));
    assert_eq!(
        (principal.signed_by, &*principal.key_name),
        (tenant("acme"), "k1")
    );
}

#[test]
fn every_algorithm_signs_and_verifies_and_no_other_key_does() {
    use Algorithm::*;
    let ec = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap();
    let pem = |pair: &rcgen::KeyPair| (pair.serialize_pem(), pair.public_key_pem());
    let rsa = || (RSA_PRIVATE.to_owned(), RSA_PUBLIC.to_owned());
    let pairs = [
        (Rs256, rsa()),
        (Rs384, rsa()),
        (Rs512, rsa()),
        (Ps256, rsa()),
        (Ps384, rsa()),
        (Ps512, rsa()),
        (Es256, pem(&ec(&rcgen::PKCS_ECDSA_P256_SHA256))),
        (Es384, pem(&ec(&rcgen::PKCS_ECDSA_P384_SHA384))),
        (EdDsa, pem(&ec(&rcgen::PKCS_ED25519))),
    ];
    let mut all = Vec::new();
    for algorithm in [Hs256, Hs384, Hs512] {
        let verifying = VerifyingKey::from_secret(spec(tenant("acme"), None, algorithm), SECRET).unwrap();
        all.push((
            algorithm,
            SigningKey::from_secret(algorithm, None, SECRET).unwrap(),
            verifying,
        ));
    }
    for (algorithm, (private, public)) in &pairs {
        let verifying = VerifyingKey::from_pem(spec(tenant("acme"), None, *algorithm), public).unwrap();
        all.push((
            *algorithm,
            SigningKey::from_pem(*algorithm, None, private).unwrap(),
            verifying,
        ));
    }
    assert_eq!(all.len(), Algorithm::ALL.len());
    for (signed_with, signing, _) in &all {
        let token = sign(&good_claims(), signing).unwrap();
        for (pinned, _, verifying) in &all {
            let outcome = check(&ring(vec![verifying.clone()]), &token);
            // The same RSA key and the same secret stand behind several algorithms: the pin alone tells them apart.
            assert_eq!(outcome.is_ok(), signed_with == pinned, "{signed_with} {pinned}");
        }
    }
}

#[test]
fn a_token_that_claims_another_algorithm_than_its_key_is_refused() {
    let keys = acme();
    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256", "HS256 ",
    ] {
        let header = json!({"alg": alg, "kid": "k1"});
        assert_eq!(
            refused(&keys, &forge(&header, &good_claims())).code,
            Code::TokenInvalid,
            "{alg}"
        );
        let unsigned = format!("{}.{}.", encode(&header), encode(&good_claims()));
        assert_eq!(refused(&keys, &unsigned).code, Code::TokenInvalid, "{alg}");
    }
    for header in [
        json!({}),
        json!({"alg": null}),
        json!({"alg": 1}),
        json!({"alg": ["HS256"]}),
        json!("HS256"),
    ] {
        assert_eq!(
            refused(&keys, &forge(&header, &good_claims())).code,
            Code::TokenInvalid,
            "{header}"
        );
    }
}

#[test]
fn a_public_key_is_never_a_shared_secret() {
    let public =
        VerifyingKey::from_pem(spec(tenant("acme"), Some("k1"), Algorithm::Rs256), RSA_PUBLIC).unwrap();
    let keys = ring(vec![public]);
    let der = pem_body(RSA_PUBLIC);
    for secret in [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim().as_bytes(), &der] {
        for alg in ["HS256", "RS256"] {
            let header = json!({"alg": alg, "kid": "k1"}).to_string();
            let token = forge_text(&header, &good_claims().to_string(), secret);
            assert_eq!(refused(&keys, &token).code, Code::TokenInvalid, "{alg}");
        }
    }
    let hs = spec(tenant("acme"), None, Algorithm::Hs256);
    assert_eq!(
        VerifyingKey::from_secret(hs.clone(), RSA_PUBLIC.as_bytes()).err(),
        Some(KeyError::PemAsSecret)
    );
    assert_eq!(
        VerifyingKey::from_pem(hs, RSA_PUBLIC).err(),
        Some(KeyError::AlgorithmMismatch)
    );
}

fn pem_body(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    base64::prelude::BASE64_STANDARD.decode(body).unwrap()
}

#[test]
fn keys_in_the_header_are_never_looked_at() {
    let secret = b"a secret of the attacker, forty bytes!!!";
    for member in [
        json!({"jwk": {"kty": "oct", "k": BASE64.encode(secret)}}),
        json!({"jku": "http://127.0.0.1:1/jwks"}),
        json!({"x5u": "http://127.0.0.1:1/cert"}),
        json!({"x5c": ["MIIB"]}),
        json!({"kid": "../../../../dev/null"}),
        json!({"kid": "/proc/sys/kernel/randomize_va_space"}),
        json!({"kid": "k1' UNION SELECT 'x"}),
        json!({"kid": "k1\u{0}"}),
        json!({"kid": "k".repeat(1_000)}),
        json!({"kid": ""}),
        json!({"kid": 1}),
        json!({"kid": null}),
        json!({"kid": ["k1"]}),
    ] {
        let mut header = json!({"alg": "HS256", "kid": "k1"});
        header
            .as_object_mut()
            .unwrap()
            .extend(member.as_object().unwrap().clone());
        for secret in [secret.as_slice(), b"", b"\0"] {
            let token = forge_text(&header.to_string(), &good_claims().to_string(), secret);
            assert_eq!(refused(&acme(), &token).code, Code::TokenInvalid, "{header}");
        }
    }
    // A token that is good by itself may carry them: they change nothing.
    let header =
        json!({"alg": "HS256", "kid": "k1", "jku": "http://127.0.0.1:1/", "x5t": "a", "typ": "at+jwt"});
    assert!(check(&acme(), &forge(&header, &good_claims())).is_ok());
}

#[test]
fn extensions_encryption_and_other_types_are_refused() {
    for member in [
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"crit": null}),
        json!({"b64": false, "crit": ["b64"]}),
        json!({"b64": true}),
        json!({"enc": "A128GCM"}),
        json!({"zip": "DEF"}),
        json!({"typ": "JWE"}),
        json!({"typ": 1}),
    ] {
        let mut header = json!({"alg": "HS256", "kid": "k1"});
        header
            .as_object_mut()
            .unwrap()
            .extend(member.as_object().unwrap().clone());
        assert_eq!(
            refused(&acme(), &forge(&header, &good_claims())).code,
            Code::TokenInvalid,
            "{header}"
        );
    }
}

#[test]
fn members_twice_are_refused_in_header_and_claims() {
    let claims = good_claims().to_string();
    let twice = [
        r#"{"sub":"eve","sub":"ada","tenant":"acme","exp":1795003600}"#,
        r#"{"sub":"ada","tenant":"acme","exp":1795003600,"\u0065xp":1795003600}"#,
        r#"{"sub":"ada","tenant":"acme","exp":1795003600,"other":1,"other":2}"#,
    ];
    for claims in twice {
        let token = forge_text(r#"{"alg":"HS256","kid":"k1"}"#, claims, SECRET);
        assert_eq!(refused(&acme(), &token).code, Code::TokenInvalid, "{claims}");
    }
    for header in [
        r#"{"alg":"none","alg":"HS256","kid":"k1"}"#,
        r#"{"alg":"HS256","kid":"k2","kid":"k1"}"#,
    ] {
        assert_eq!(
            refused(&acme(), &forge_text(header, &claims, SECRET)).code,
            Code::TokenInvalid,
            "{header}"
        );
    }
}

#[test]
fn a_valid_signature_of_the_wrong_tenant_is_refused() {
    let keys = ring(vec![
        VerifyingKey::from_secret(spec(tenant("acme"), Some("k1"), Algorithm::Hs256), SECRET).unwrap(),
        VerifyingKey::from_secret(spec(tenant("zeta"), Some("k1"), Algorithm::Hs256), OTHER_SECRET).unwrap(),
    ]);
    let header = r#"{"alg":"HS256","kid":"k1"}"#;
    let token = |tenant: &str, secret: &[u8]| {
        let claims = json!({"sub": "ada", "tenant": tenant, "exp": NOW + 60}).to_string();
        forge_text(header, &claims, secret)
    };
    assert_eq!(
        check(&keys, &token("acme", SECRET)).unwrap().tenant.as_str(),
        "acme"
    );
    assert_eq!(
        check(&keys, &token("zeta", OTHER_SECRET))
            .unwrap()
            .tenant
            .as_str(),
        "zeta"
    );
    // Zeta's key says acme. Nothing tells whether acme exists.
    let crossed = refused(&keys, &token("acme", OTHER_SECRET));
    let unknown = refused(&keys, &token("nobody", OTHER_SECRET));
    assert_eq!(crossed, unknown);
    assert_eq!(crossed.code, Code::TokenInvalid);
}

#[test]
fn two_tenants_with_a_kid_in_common_are_told_apart_by_their_keys() {
    let keys = ring(vec![
        VerifyingKey::from_secret(spec(tenant("acme"), Some("k1"), Algorithm::Hs256), SECRET).unwrap(),
        VerifyingKey::from_secret(spec(tenant("zeta"), Some("k1"), Algorithm::Hs256), OTHER_SECRET).unwrap(),
    ]);
    let claims = json!({"sub": "ada", "exp": NOW + 60}).to_string();
    for header in [r#"{"alg":"HS256","kid":"k1"}"#, r#"{"alg":"HS256"}"#] {
        for (secret, name) in [(SECRET, "acme"), (OTHER_SECRET, "zeta")] {
            let token = forge_text(header, &claims, secret);
            assert_eq!(check(&keys, &token).unwrap().tenant.as_str(), name);
        }
    }
}

#[test]
fn a_tenant_that_registers_the_public_key_of_another_gets_none_of_its_users() {
    let key = |owner| VerifyingKey::from_pem(spec(owner, Some("k1"), Algorithm::Rs256), RSA_PUBLIC).unwrap();
    let signing = SigningKey::from_pem(Algorithm::Rs256, Some("k1".to_owned()), RSA_PRIVATE).unwrap();
    let silent = sign(&json!({"sub": "ada", "exp": NOW + 60}), &signing).unwrap();
    let named = sign(
        &json!({"sub": "ada", "exp": NOW + 60, "tenant": "acme"}),
        &signing,
    )
    .unwrap();
    let zeta = TenantId::new("zeta").unwrap();
    let keys = Keys::default();
    keys.replace(KeySource::Tenant(zeta.clone()), vec![key(tenant("zeta"))])
        .unwrap();
    assert_eq!(refused(&keys, &silent).code, Code::TokenInvalid);
    assert_eq!(refused(&keys, &named).code, Code::TokenInvalid);
    keys.replace(KeySource::Config, vec![key(tenant("acme"))])
        .unwrap();
    assert_eq!(check(&keys, &silent).unwrap().tenant.as_str(), "acme");
    assert_eq!(check(&keys, &named).unwrap().tenant.as_str(), "acme");
    // The operator's own mistake: nobody's rather than anybody's.
    keys.replace(KeySource::Jwks(0), vec![key(tenant("zeta"))])
        .unwrap();
    assert!(refused(&keys, &silent).message.contains("several tenants"));
    assert_eq!(check(&keys, &named).unwrap().tenant.as_str(), "acme");
}

#[test]
fn the_operator_may_speak_for_every_tenant_but_must_name_it() {
    let key =
        VerifyingKey::from_secret(spec(KeyOwner::Operator, Some("op"), Algorithm::Hs256), SECRET).unwrap();
    let keys = ring(vec![key]);
    let header = json!({"alg": "HS256", "kid": "op"});
    let principal = check(&keys, &forge(&header, &good_claims())).unwrap();
    assert_eq!(
        (principal.tenant.as_str(), principal.signed_by),
        ("acme", KeyOwner::Operator)
    );
    let silent = forge(&header, &json!({"sub": "ada", "exp": NOW + 60}));
    assert_eq!(refused(&keys, &silent).code, Code::WrongTenant);
    let nonsense = forge(&header, &json!({"sub": "ada", "exp": NOW + 60, "tenant": " "}));
    assert_eq!(refused(&keys, &nonsense).code, Code::TokenInvalid);
}

#[test]
fn a_tenant_that_is_unknown_or_switched_off_is_refused_after_its_signature() {
    let ring = acme().ring();
    let good = with("sub", json!("ada"));
    let outcome = |standing| {
        verify(&good, &ring, POLICY, now(), |_| standing)
            .unwrap_err()
            .refusal
            .code
    };
    assert_eq!(outcome(Standing::Disabled), Code::TenantDisabled);
    assert_eq!(outcome(Standing::Unknown), Code::WrongTenant);
    let forged = forge_text(
        r#"{"alg":"HS256","kid":"k1"}"#,
        &good_claims().to_string(),
        OTHER_SECRET,
    );
    let never = |_: &TenantId| -> Standing { panic!("asked before the signature was verified") };
    assert!(verify(&forged, &ring, POLICY, now(), never).is_err());
}

#[test]
fn dates_are_kept_with_leeway_and_never_read_from_texts() {
    let keys = acme();
    for (token, code) in [
        (with("exp", json!(NOW - 10)), Code::TokenExpired),
        (with("exp", json!(0)), Code::TokenExpired),
        (with("exp", json!("9999999999")), Code::TokenInvalid),
        (with("exp", json!(null)), Code::TokenInvalid),
        (with("exp", json!(true)), Code::TokenInvalid),
        (with("exp", json!([NOW + 60])), Code::TokenInvalid),
        (with("exp", json!(-1)), Code::TokenInvalid),
        (with("exp", json!(1e300)), Code::TokenInvalid),
        (with("exp", json!((NOW + 60) * 1_000)), Code::TokenInvalid),
        (with("exp", json!(u64::MAX)), Code::TokenInvalid),
        (with("exp", json!(NOW + 2 * 86_400)), Code::TokenInvalid),
        (without("exp"), Code::TokenInvalid),
        (with("nbf", json!(NOW + 11)), Code::TokenNotYetValid),
        (with("nbf", json!("0")), Code::TokenInvalid),
        (with("nbf", json!({})), Code::TokenInvalid),
        (with("iat", json!(NOW + 11)), Code::TokenNotYetValid),
        (with("iat", json!("yesterday")), Code::TokenInvalid),
        // Issued long ago for a long time, nearly over.
        (with("iat", json!(NOW - 10 * 86_400)), Code::TokenInvalid),
    ] {
        assert_eq!(refused(&keys, &token).code, code, "{token}");
    }
    for token in [
        with("exp", json!(NOW - 9)),
        with("exp", json!(NOW as f64 + 60.5)),
        with("nbf", json!(NOW + 10)),
        with("iat", json!(NOW + 10)),
        without("iat"),
        with("exp", json!(NOW + 86_400)),
    ] {
        assert!(check(&keys, &token).is_ok(), "{token}");
    }
    let optional = Policy {
        expiry: Expiry::Optional,
        ..POLICY
    };
    let endless = verify(&without("exp"), &keys.ring(), optional, now(), active).unwrap();
    assert_eq!(endless.expires_unix_ms, None);
}

#[test]
fn claims_of_the_wrong_kind_are_refused_by_name() {
    let long: Vec<_> = (0..33).map(|i| format!("r{i}")).collect();
    let rule = |rooms: Value, allow: Value| json!([{"rooms": rooms, "allow": allow}]);
    for (name, value) in [
        ("sub", json!(1)),
        ("sub", json!(null)),
        ("sub", json!("")),
        ("sub", json!("a\u{202e}b")),
        ("sub", json!("x".repeat(201))),
        ("tenant", json!(1)),
        ("tenant", json!(null)),
        ("tenant", json!(["acme"])),
        ("iss", json!(1)),
        ("aud", json!(1)),
        ("aud", json!([1])),
        ("roles", json!("admin")),
        ("roles", json!([1])),
        ("roles", json!([""])),
        ("roles", json!(long)),
        ("jti", json!(7)),
        ("jti", json!("j".repeat(201))),
        ("grants", json!({"rooms": ["*"], "allow": ["publish"]})),
        ("grants", json!("*")),
        ("grants", rule(json!("*"), json!(["publish"]))),
        ("grants", rule(json!(["*"]), json!(["root"]))),
        ("grants", rule(json!(["*"]), json!("publish"))),
        ("grants", rule(json!([""]), json!(["publish"]))),
        ("grants", rule(json!(vec!["*"; 65]), json!(["publish"]))),
        ("grants", json!([{"rooms": ["*"], "allow": [], "deny": []}])),
    ] {
        let refusal = refused(&acme(), &with(name, value.clone()));
        assert_eq!(refusal.code, Code::TokenInvalid, "{name} {value}");
        assert!(
            refusal.message.contains(name) || refusal.message.contains("key"),
            "{name}: {refusal}"
        );
    }
    assert!(refused(&acme(), &without("sub")).message.contains("sub"));
    assert_eq!(
        check(&acme(), &without("tenant")).unwrap().tenant.as_str(),
        "acme"
    );
}

#[test]
fn issuer_and_audience_are_kept() {
    let mut spec = spec(tenant("acme"), None, Algorithm::Hs256);
    spec.issuer = Some("https://id.example.com".into());
    spec.audience = Some("cauce".into());
    let keys = ring(vec![VerifyingKey::from_secret(spec, SECRET).unwrap()]);
    let token = |iss: Value, aud: Value| {
        let claims = json!({"sub": "ada", "exp": NOW + 60, "iss": iss, "aud": aud});
        forge(&json!({"alg": "HS256"}), &claims)
    };
    let iss = "https://id.example.com";
    assert!(check(&keys, &token(json!(iss), json!("cauce"))).is_ok());
    assert!(check(&keys, &token(json!(iss), json!(["other", "cauce"]))).is_ok());
    for (iss, aud) in [
        (json!(iss), json!("other")),
        (json!(iss), json!([])),
        (json!("https://id.example.com/"), json!("cauce")),
        (json!("https://evil.example"), json!("cauce")),
    ] {
        assert_eq!(refused(&keys, &token(iss, aud)).code, Code::TokenInvalid);
    }
    // No audience is configured for this key, so a token that is for somebody is not for us.
    assert_eq!(
        refused(&acme(), &with("aud", json!("other"))).code,
        Code::TokenInvalid
    );
}

#[test]
fn a_token_of_any_other_shape_is_refused() {
    let good = with("sub", json!("ada"));
    assert!(check(&acme(), &good).is_ok());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    assert_eq!(refused(&acme(), "").code, Code::Unauthenticated);
    for bad in [
        ".".to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{message}."),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{header}.{signature}"),
        format!("{header}..{signature}"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{good}="),
        format!("{message}.{}", signature.replace(['-', '_'], "+")) + "A",
        format!("{message}.{}", &signature[1..]),
        format!("{message}.{}", BASE64.encode([0; 32])),
        format!("{header}=.{payload}.{signature}"),
        format!("Bearer {good}"),
        "é".repeat(100),
        "a".repeat(TOKEN_BYTES_MAX + 1),
        ".".repeat(TOKEN_BYTES_MAX),
        with("more", json!("x".repeat(TOKEN_BYTES_MAX))),
    ] {
        assert_eq!(refused(&acme(), &bad).code, Code::TokenInvalid, "{bad}");
    }
    // Base64url with bits set that mean nothing would give one token several spellings.
    let last = signature.chars().last().unwrap();
    let spelled = char::from(last as u8 + 1);
    assert_eq!(
        refused(&acme(), &format!("{message}.{}{spelled}", &signature[..42])).code,
        Code::TokenInvalid
    );
}

#[test]
fn an_unknown_key_name_is_told_to_the_caller_and_only_that() {
    let unknown = |kid: &str| {
        let token = forge(&json!({"alg": "HS256", "kid": kid}), &good_claims());
        check(&acme(), &token).map_err(|e| e.unknown_kid).err()
    };
    assert_eq!(unknown("k2"), Some(true));
    assert_eq!(unknown("k1"), None);
    let forged = forge_text(
        r#"{"alg":"HS256","kid":"k1"}"#,
        &good_claims().to_string(),
        OTHER_SECRET,
    );
    assert!(!check(&acme(), &forged).unwrap_err().unknown_kid);
}

#[test]
fn a_token_without_a_tenant_cannot_make_us_try_everybodys_keys() {
    let key = |i: usize, kid: Option<&str>| {
        let spec = spec(tenant(&format!("t{i}")), kid, Algorithm::Hs256);
        VerifyingKey::from_secret(
            spec,
            format!("{i:04} {}", "a secret of its own, forty bytes").as_bytes(),
        )
        .unwrap()
    };
    let silent = |secret: usize, kid: Option<&str>| {
        let claims = json!({"sub": "ada", "exp": NOW + 60}).to_string();
        let header = kid
            .map_or(json!({"alg": "HS256"}), |kid| json!({"alg": "HS256", "kid": kid}))
            .to_string();
        forge_text(
            &header,
            &claims,
            format!("{secret:04} {}", "a secret of its own, forty bytes").as_bytes(),
        )
    };
    let few = ring((0..CANDIDATES_MAX).map(|i| key(i, Some("k"))).collect());
    assert_eq!(check(&few, &silent(3, Some("k"))).unwrap().tenant.as_str(), "t3");
    let many = ring((0..=CANDIDATES_MAX).map(|i| key(i, Some("k"))).collect());
    assert!(
        refused(&many, &silent(3, Some("k")))
            .message
            .contains("tenant claim")
    );
    let unnamed = ring((0..200).map(|i| key(i, None)).collect());
    assert!(
        refused(&unnamed, &silent(3, None))
            .message
            .contains("tenant claim")
    );
    // Whoever names the tenant is served whatever the others have.
    let claims = json!({"sub": "ada", "exp": NOW + 60, "tenant": "t150"}).to_string();
    let token = forge_text(
        r#"{"alg":"HS256"}"#,
        &claims,
        b"0150 a secret of its own, forty bytes",
    );
    assert_eq!(check(&unnamed, &token).unwrap().tenant.as_str(), "t150");
}

#[test]
fn keys_are_replaced_by_source_and_generations_rise() {
    let keys = acme();
    let before = keys.ring().generation();
    keys.replace(KeySource::Config, Vec::new()).unwrap();
    assert!(keys.ring().is_empty() && keys.ring().generation() > before);
    let key = VerifyingKey::from_secret(spec(KeyOwner::Operator, None, Algorithm::Hs256), SECRET).unwrap();
    assert_eq!(
        keys.replace(KeySource::Jwks(0), vec![key; 257]),
        Err(KeyError::TooMany)
    );
}

#[test]
fn weak_and_wrong_keys_are_refused() {
    let pem =
        |algorithm, pem: &str| VerifyingKey::from_pem(spec(KeyOwner::Operator, None, algorithm), pem).err();
    let secret = |algorithm, secret: &[u8]| {
        VerifyingKey::from_secret(spec(KeyOwner::Operator, None, algorithm), secret).err()
    };
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    assert_eq!(pem(Algorithm::Rs256, RSA_PRIVATE), Some(KeyError::PrivateKey));
    assert_eq!(pem(Algorithm::Rs256, RSA_WEAK), Some(KeyError::RsaBits(1024)));
    assert_eq!(pem(Algorithm::Es256, RSA_PUBLIC), Some(KeyError::Malformed));
    assert_eq!(pem(Algorithm::EdDsa, RSA_PUBLIC), Some(KeyError::Malformed));
    assert_eq!(
        pem(Algorithm::Es384, &p256.public_key_pem()),
        Some(KeyError::Malformed)
    );
    assert_eq!(pem(Algorithm::Rs256, "not a key"), Some(KeyError::Malformed));
    assert_eq!(secret(Algorithm::Hs256, b"short"), Some(KeyError::WeakSecret));
    assert_eq!(secret(Algorithm::Hs256, &[7; 64]), Some(KeyError::WeakSecret));
    assert_eq!(
        secret(Algorithm::Rs256, SECRET),
        Some(KeyError::AlgorithmMismatch)
    );
    let weak = SigningKey::from_secret(Algorithm::Hs256, None, b"short").unwrap_err();
    assert_eq!(weak, SignError::Key(KeyError::WeakSecret));
}

#[test]
fn nothing_secret_is_in_debug() {
    let secret = std::str::from_utf8(SECRET).unwrap();
    let signing = SigningKey::from_secret(Algorithm::Hs256, None, SECRET).unwrap();
    let shown = format!("{:?} {signing:?} {:?}", acme(), random_secret().unwrap());
    assert!(
        !shown.contains(secret) && !shown.contains(&format!("{:?}", &SECRET[..4])),
        "{shown}"
    );
    let mut auth = Authenticator::new(Arc::new(acme()), POLICY, 8);
    let token = with("sub", json!("ada"));
    auth.authenticate(&token, now(), active).unwrap();
    assert!(!format!("{auth:?}").contains(&token));
}

#[test]
fn a_made_secret_signs_what_verifies() {
    use secrecy::ExposeSecret;
    let secret = random_secret().unwrap();
    let secret = secret.expose_secret().as_bytes();
    let keys = ring(vec![
        VerifyingKey::from_secret(spec(tenant("acme"), None, Algorithm::Hs512), secret).unwrap(),
    ]);
    let claims = Claims::new(UserId::new("ada").unwrap(), NOW, 60);
    let token = sign(
        &claims,
        &SigningKey::from_secret(Algorithm::Hs512, None, secret).unwrap(),
    )
    .unwrap();
    assert_eq!(check(&keys, &token).unwrap().user.as_str(), "ada");
}

#[test]
fn a_remembered_token_ends_with_its_time_its_keys_its_policy_and_its_tenant() {
    let keys = Arc::new(acme());
    let mut auth = Authenticator::new(keys.clone(), POLICY, 8);
    let token = with("exp", json!(NOW + 60));
    let first = auth.authenticate(&token, now(), active).unwrap();
    let at = |seconds: u64| Now {
        unix_ms: (NOW + seconds) * 1_000,
        ..now()
    };
    // The defaults are another Arc each time, so the grant is made anew; with the same one, the principal is the same.
    let defaults = Arc::new(RoleGrants::default());
    let same = |_: &TenantId| Standing::Active(defaults.clone());
    let a = auth.authenticate(&token, at(1), same).unwrap();
    let b = auth.authenticate(&token, at(69), same).unwrap();
    assert!(Arc::ptr_eq(&a, &b) && *a == *first);
    assert_eq!(
        auth.authenticate(&token, at(69), |_| Standing::Disabled)
            .unwrap_err()
            .refusal
            .code,
        Code::TenantDisabled
    );
    assert_eq!(
        auth.authenticate(&token, at(70), same).unwrap_err().refusal.code,
        Code::TokenExpired
    );

    auth.authenticate(&token, at(1), same).unwrap();
    keys.replace(KeySource::Config, Vec::new()).unwrap();
    assert_eq!(
        auth.authenticate(&token, at(1), same).unwrap_err().refusal.code,
        Code::TokenInvalid
    );
}

#[test]
fn a_remembered_token_follows_the_defaults_of_its_roles() {
    let mut auth = Authenticator::new(Arc::new(acme()), POLICY, 8);
    let token = with("roles", json!(["staff"]));
    let rule = Rule {
        rooms: vec![Pattern::new("orders:*").unwrap()],
        allow: [Action::Subscribe].into_iter().collect(),
    };
    let open = RoleGrants::new([(Role::new("staff").unwrap(), Rules::new(vec![rule]).unwrap())]).unwrap();
    let (open, closed) = (Arc::new(open), Arc::new(RoleGrants::default()));
    for defaults in [&open, &closed, &open] {
        let standing = |_: &TenantId| Standing::Active(defaults.clone());
        let principal = auth.authenticate(&token, now(), standing).unwrap();
        assert_eq!(
            principal.grant.allows(Action::Subscribe, "orders:1"),
            Arc::ptr_eq(defaults, &open)
        );
    }
}

#[test]
fn only_what_was_verified_is_remembered_and_not_too_much_of_it() {
    let mut auth = Authenticator::new(Arc::new(acme()), POLICY, 8);
    for i in 0..100 {
        auth.authenticate(&with("sub", json!(format!("u{i}"))), now(), active)
            .unwrap();
        let forged = forge_text(&format!(r#"{{"alg":"HS256","kid":"k{i}"}}"#), "{}", b"x");
        assert!(auth.authenticate(&forged, now(), active).is_err());
        assert!(auth.remembered() <= 8);
    }
    assert!(auth.remembered() > 0);
}

proptest! {
    #[test]
    fn a_changed_character_anywhere_is_refused(at in 0usize..200, to in "[A-Za-z0-9_.-]") {
        let mut token = with("sub", json!("ada"));
        let at = at % token.len();
        prop_assume!(token[at..=at] != to);
        token.replace_range(at..=at, &to);
        prop_assert!(check(&acme(), &token).is_err());
    }

    #[test]
    fn no_token_panics(header in "[ -~]{0,60}", claims in "[ -~]{0,100}", text in ".{0,100}") {
        let _ = check(&acme(), &text);
        let _ = check(&acme(), &forge_text(&header, &claims, SECRET));
        let header = r#"{"alg":"HS256"}"#;
        let _ = check(&acme(), &forge_text(header, &claims, SECRET));
        let _ = check(&acme(), &forge_text(header, &format!(r#"{{"sub":"a","exp":{claims}}}"#), SECRET));
    }
}
