//! What a token says, once its signature is right.

use super::*;

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
        (&principal.key.owner, principal.key.name()),
        (&tenant("acme"), "k1")
    );
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
        ("jti", json!("")),
        ("jti", json!("a\nb")),
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
