//! Which key may speak for whom.

use super::*;

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
        (principal.tenant.as_str(), &principal.key.owner),
        ("acme", &KeyOwner::Operator)
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
    let named = |kid: &str| {
        VerifyingKey::from_secret(spec(KeyOwner::Operator, Some(kid), Algorithm::Hs256), SECRET).err()
    };
    assert_eq!(
        (named("k"), named(""), named("k\n")),
        (None, Some(KeyError::Kid), Some(KeyError::Kid))
    );
    let weak = SigningKey::from_secret(Algorithm::Hs256, None, b"short").unwrap_err();
    assert_eq!(weak, SignError::Key(KeyError::WeakSecret));
}

#[test]
fn key_sets_of_two_tenants_that_share_an_issuer_and_a_kid_are_kept_apart() {
    let shared = |owner, secret| {
        let spec = KeySpec {
            issuer: Some("https://id.example.com".into()),
            ..spec(owner, Some("k1"), Algorithm::Hs256)
        };
        VerifyingKey::from_secret(spec, secret).unwrap()
    };
    let keys = Keys::default();
    let sets = [
        (KeySource::Jwks(0), vec![shared(tenant("acme"), SECRET)]),
        (KeySource::Jwks(1), vec![shared(tenant("zeta"), OTHER_SECRET)]),
    ];
    keys.replace_many(sets).unwrap();
    let token = |tenant: &str, secret| {
        let claims =
            json!({"sub": "ada", "tenant": tenant, "iss": "https://id.example.com", "exp": NOW + 60});
        forge_text(r#"{"alg":"HS256","kid":"k1"}"#, &claims.to_string(), secret)
    };
    for (name, own, other) in [("acme", SECRET, OTHER_SECRET), ("zeta", OTHER_SECRET, SECRET)] {
        assert_eq!(check(&keys, &token(name, own)).unwrap().tenant.as_str(), name);
        assert_eq!(refused(&keys, &token(name, other)).code, Code::TokenInvalid);
    }
    // One set is fetched anew and has lost its key: the other's key of the same name does not stand in for it.
    keys.replace(KeySource::Jwks(0), Vec::new()).unwrap();
    let denied = check(&keys, &token("acme", SECRET)).unwrap_err();
    assert!(denied.unknown_kid, "its key set is worth another look");
    assert_eq!(
        check(&keys, &token("zeta", OTHER_SECRET))
            .unwrap()
            .tenant
            .as_str(),
        "zeta"
    );
}
