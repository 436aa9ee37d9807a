//! Tokens that somebody made up or bent.

use super::*;

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
