//! Entries for fuzzing: arbitrary bytes as tokens, key sets, credentials and configuration files.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cauce_protocol::TenantId;

use super::jwks::{self, SetSpec};
use super::keys::{KeyOwner, KeySource, KeySpec, Keys, VerifyingKey};
use super::secret::Presented;
use super::token::{Expiry, Policy, Standing, verify};
use crate::clock::Now;
use crate::config::{self, Algorithm, LoadInputs};

const SECRET: &[u8] = b"a secret for fuzzing, forty bytes long!!";

const NOW: Now = Now {
    mono_ms: 1_000,
    unix_ms: 1_795_000_000_000,
};

const POLICY: Policy = Policy {
    leeway_ms: 10_000,
    expiry: Expiry::Required,
    lifetime_ms_max: 86_400_000,
};

/// Tries `data` as a token, and as the claims of a token whose signature is right.
///
/// # Panics
/// If a token is accepted that should not be: that is its purpose.
pub fn fuzz_token(data: &[u8]) {
    let tenant = TenantId::new("acme").expect("a valid name");
    let spec = KeySpec {
        owner: KeyOwner::Tenant(tenant.clone()),
        kid: None,
        algorithm: Algorithm::Hs256,
        issuer: None,
        audience: None,
    };
    let keys = Keys::default();
    let key = VerifyingKey::from_secret(spec, SECRET).expect("a good secret");
    keys.replace(KeySource::Config, vec![key]).expect("one key");
    let active = |_: &TenantId| Standing::Active(Arc::default());
    let ring = keys.ring();
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = crate::auth::redact_query(text);
        let _ = Presented::parse(text);
        // Nobody guesses a signature, so whatever is accepted was signed by the line below.
        assert!(verify(text, &ring, POLICY, NOW, active).is_err());
    }
    let message = format!(
        "{}.{}",
        BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#),
        BASE64_URL_SAFE_NO_PAD.encode(data)
    );
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    let token = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
    if let Ok(principal) = verify(&token, &ring, POLICY, NOW, active) {
        assert_eq!(principal.tenant, tenant);
        let ends = principal.expires_unix_ms.expect("tokens must end");
        assert!(ends + POLICY.leeway_ms > NOW.unix_ms);
        assert!(ends <= NOW.unix_ms + POLICY.lifetime_ms_max + POLICY.leeway_ms);
    }
}

/// Tries `data` as a key set. No key that comes out may be a shared secret.
///
/// # Panics
/// If one is.
pub fn fuzz_key_set(data: &[u8]) {
    let set = SetSpec {
        owner: KeyOwner::Operator,
        issuer: None,
        audience: None,
    };
    if let Ok(found) = jwks::parse(data, &set) {
        assert!(found.keys.iter().all(|key| !key.spec().algorithm.is_symmetric()));
    }
}

/// Tries `data` as a configuration file. What loads must load again from what it prints, unless it holds secrets.
///
/// # Panics
/// If it does not.
pub fn fuzz_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let file = |text: String| LoadInputs {
        file: Some(("fuzz.toml".to_owned(), text)),
        ..LoadInputs::default()
    };
    if let Ok(loaded) = config::load(file(text.to_owned())) {
        let printed = loaded.to_toml();
        if !printed.contains(config::MASK) {
            let again = config::load(file(printed)).expect("what is printed loads");
            assert_eq!(loaded.changes(&again), (Vec::new(), Vec::new()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_break_nothing(data in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_token(&data);
            fuzz_key_set(&data);
            fuzz_config(&data);
        }

        #[test]
        fn nearly_good_claims_break_nothing(
            claims in r#"\{"sub":"[a-z]{0,3}","exp":17950[0-9]{5,9}(\.[0-9])?(,"(iat|nbf|tenant|roles|grants|aud)":("[a-z]{0,5}"|[0-9]{1,12}|\[\]|null|\[\{"rooms":\["\*"\],"allow":\["call"\]\}\])){0,3}\}"#,
        ) {
            fuzz_token(claims.as_bytes());
        }

        #[test]
        fn nearly_good_files_break_nothing(
            text in r#"(listen = "127\.0\.0\.1:[0-9]{1,5}"\n)?(data_dir = '[ -&(-~é]{0,20}'\n)?(origins = \["(loopback|\*|https://[a-z.]{1,9})"\]\n)?(\[limits\]\nconnections = [0-9]{1,6}\ncall_timeout = "[0-9]{1,5}(ms|s|m|h)"\n)?(\[store\]\npending_bytes = "[0-9]{1,4}(KiB|MiB|GiB)"\n)?"#,
        ) {
            fuzz_config(text.as_bytes());
        }
    }
}
