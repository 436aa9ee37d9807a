//! Key sets of identity providers (RFC 7517). Pure: what a document holds, and when it should be fetched again.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::keys::{KeyOwner, KeySpec, VerifyingKey};
use crate::config::{self, Algorithm};

/// Largest document, in bytes. A set of ten RSA keys with certificates has some 40 KiB.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// Keys in one document.
pub const DOCUMENT_KEYS_MAX: usize = 100;

/// Between two fetches that tokens with unknown key names cause, in milliseconds.
pub const UNKNOWN_KID_INTERVAL_MS: u64 = 30_000;

/// First wait after a failed fetch, in milliseconds; it doubles up to the ordinary interval.
const RETRY_FIRST_MS: u64 = 5_000;

/// What the configuration says about the keys of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSpec {
    pub owner: KeyOwner,
    pub issuer: Option<Box<str>>,
    pub audience: Option<Box<str>>,
}

impl From<&config::AuthJwks> for SetSpec {
    fn from(set: &config::AuthJwks) -> Self {
        Self {
            owner: super::keys::owner(set.tenant.as_ref()),
            issuer: set.issuer.as_deref().map(Into::into),
            audience: set.audience.as_deref().map(Into::into),
        }
    }
}

/// What was in a document.
#[derive(Debug)]
pub struct KeySet {
    pub keys: Vec<VerifyingKey>,
    /// How many keys are not for us: encryption, other curves, private or shared ones.
    pub skipped: usize,
}

/// Why a document was refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentError {
    /// Not `{"keys": […]}`.
    NotAKeySet,
    TooLong,
    TooManyKeys,
    /// Nothing in it that could verify a token: more likely a mistake than the wish to lock everybody out.
    NoUsableKey,
}

impl std::fmt::Display for DocumentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAKeySet => write!(f, "the document is not a JSON web key set"),
            Self::TooLong => write!(f, "the document is longer than {DOCUMENT_BYTES_MAX} bytes"),
            Self::TooManyKeys => write!(f, "the key set has more than {DOCUMENT_KEYS_MAX} keys"),
            Self::NoUsableKey => write!(f, "the key set has no key that could verify a token"),
        }
    }
}

impl std::error::Error for DocumentError {}

/// Reads a document.
///
/// # Errors
/// If it is not a key set within its bounds with at least one usable key.
pub fn parse(document: &[u8], set: &SetSpec) -> Result<KeySet, DocumentError> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(DocumentError::TooLong);
    }
    let document: Document<'_> = serde_json::from_slice(document).map_err(|_| DocumentError::NotAKeySet)?;
    if document.keys.len() > DOCUMENT_KEYS_MAX {
        return Err(DocumentError::TooManyKeys);
    }
    let all = document.keys.len();
    let read = |raw: &&RawValue| serde_json::from_str::<Jwk>(raw.get()).ok()?.into_key(set);
    let keys: Vec<_> = document.keys.iter().filter_map(read).collect();
    if keys.is_empty() {
        return Err(DocumentError::NoUsableKey);
    }
    Ok(KeySet {
        skipped: all - keys.len(),
        keys,
    })
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// Private part: whoever publishes it has lost the key.
    d: Option<serde::de::IgnoredAny>,
}

impl Jwk {
    /// `None` if it is not for verifying tokens.
    fn into_key(self, set: &SetSpec) -> Option<VerifyingKey> {
        let for_signatures = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures || self.d.is_some() {
            return None;
        }
        let declared = match &self.alg {
            Some(name) => Some(name.parse::<Algorithm>().ok()?),
            None => None,
        };
        let algorithm = self.algorithm(declared)?;
        let material = self.material()?;
        let spec = KeySpec {
            owner: set.owner.clone(),
            kid: self.kid.map(String::into_boxed_str),
            algorithm,
            issuer: set.issuer.clone(),
            audience: set.audience.clone(),
        };
        VerifyingKey::from_public(spec, material).ok()
    }

    /// The one algorithm of the key. Several providers leave `alg` out for RSA and sign with RS256, which every provider of
    /// OpenID Connect must offer, so that is what it means.
    fn algorithm(&self, declared: Option<Algorithm>) -> Option<Algorithm> {
        use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let fits: &[Algorithm] = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => &[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512],
            ("EC", Some("P-256")) => &[Es256],
            ("EC", Some("P-384")) => &[Es384],
            ("OKP", Some("Ed25519")) => &[EdDsa],
            _ => return None,
        };
        let algorithm = declared.unwrap_or(fits[0]);
        fits.contains(&algorithm).then_some(algorithm)
    }

    fn material(&self) -> Option<DecodingKey> {
        let field = |field: &Option<String>| BASE64_URL_SAFE_NO_PAD.decode(field.as_deref()?).ok();
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Some(DecodingKey::from_rsa_raw_components(
                &field(&self.n)?,
                &field(&self.e)?,
            )),
            ("EC", Some(curve)) => {
                let bytes = if curve == "P-256" { 32 } else { 48 };
                let (x, y) = (field(&self.x)?, field(&self.y)?);
                // Uncompressed point (SEC 1 §2.3.3); each coordinate at its full length (RFC 7518 §6.2.1.2).
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                (x.len() == bytes && y.len() == bytes).then(|| DecodingKey::from_ec_der(&point))
            }
            ("OKP", _) => Some(DecodingKey::from_ed_der(&field(&self.x)?)),
            _ => None,
        }
    }
}

/// When to fetch next. Times in milliseconds of a clock that never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    refresh_ms: u64,
    next_ms: u64,
    attempted_ms: Option<u64>,
    failures: u32,
}

impl Schedule {
    /// The first fetch is due at once.
    pub fn new(refresh_ms: u64, now_ms: u64) -> Self {
        Self {
            refresh_ms,
            next_ms: now_ms,
            attempted_ms: None,
            failures: 0,
        }
    }

    /// When the next fetch is due.
    pub fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// A token named an unknown key: fetch soon, but not more often than every [`UNKNOWN_KID_INTERVAL_MS`].
    pub fn want(&mut self, now_ms: u64) {
        let earliest_ms = self
            .attempted_ms
            .map_or(now_ms, |at| now_ms.max(at + UNKNOWN_KID_INTERVAL_MS));
        self.next_ms = self.next_ms.min(earliest_ms);
    }

    /// A fetch ended. `random` is any number; it spreads the nodes of a fleet over a fifth of the interval.
    pub fn attempted(&mut self, now_ms: u64, succeeded: bool, random: u32) {
        self.attempted_ms = Some(now_ms);
        let wait_ms = if succeeded {
            self.failures = 0;
            self.refresh_ms
        } else {
            let doubled = RETRY_FIRST_MS.saturating_mul(1 << self.failures.min(16));
            self.failures = self.failures.saturating_add(1);
            doubled.min(self.refresh_ms)
        };
        let spread_ms = wait_ms / 5;
        self.next_ms = now_ms + wait_ms - spread_ms / 2 + u64::from(random) % (spread_ms + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Public keys of RFC 7515 A.2 (RSA) and A.3 (P-256), RFC 8037 A.2 (Ed25519); the signatures below are from there too.
    const RSA: &str = r#""kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB""#;
    const P256: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;
    const ED: &str = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

    fn spec() -> SetSpec {
        SetSpec {
            owner: KeyOwner::Operator,
            issuer: Some("https://id.example.com".into()),
            audience: None,
        }
    }

    fn one(key: &str) -> Result<VerifyingKey, DocumentError> {
        parse(format!(r#"{{"keys":[{{{key}}}]}}"#).as_bytes(), &spec()).map(|mut set| set.keys.remove(0))
    }

    #[test]
    fn each_key_is_pinned_to_one_algorithm() {
        for (key, algorithm) in [
            (RSA.to_owned(), Algorithm::Rs256),
            (format!(r#"{RSA},"alg":"PS384""#), Algorithm::Ps384),
            (
                format!(r#"{P256},"use":"sig","key_ops":["verify"]"#),
                Algorithm::Es256,
            ),
            (format!(r#"{ED},"alg":"EdDSA","kid":"a""#), Algorithm::EdDsa),
        ] {
            let key = one(&key).unwrap();
            assert_eq!(key.spec().algorithm, algorithm);
            assert_eq!(key.spec().issuer.as_deref(), Some("https://id.example.com"));
        }
    }

    #[test]
    fn the_signatures_of_the_standards_verify() {
        const CLAIMS: &str =
            "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        // RFC 7515 A.1.
        let secret = BASE64_URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let hmac_spec = KeySpec {
            owner: KeyOwner::Operator,
            kid: None,
            algorithm: Algorithm::Hs256,
            issuer: None,
            audience: None,
        };
        let hmac = VerifyingKey::from_secret(hmac_spec, &secret).unwrap();
        for (key, header, claims, signature) in [
            (
                hmac,
                "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
                CLAIMS,
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            ),
            (
                one(RSA).unwrap(),
                "eyJhbGciOiJSUzI1NiJ9",
                CLAIMS,
                "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                one(P256).unwrap(),
                "eyJhbGciOiJFUzI1NiJ9",
                CLAIMS,
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                one(ED).unwrap(),
                "eyJhbGciOiJFZERTQSJ9",
                "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ] {
            let message = format!("{header}.{claims}");
            assert!(
                key.verifies(message.as_bytes(), signature),
                "{:?}",
                key.spec().algorithm
            );
            assert!(!key.verifies(format!("{message}A").as_bytes(), signature));
            assert!(!key.verifies(message.as_bytes(), ""));
            assert!(!key.verifies(message.as_bytes(), &"A".repeat(signature.len())));
        }
    }

    #[test]
    fn keys_that_are_not_for_verifying_are_passed_over() {
        let weak = r#""kty":"RSA","n":"sPKbEQ","e":"AQAB""#;
        for bad in [
            r#""kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow""#,
            r#""kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ","alg":"HS256""#,
            &format!(r#"{RSA},"use":"enc""#),
            &format!(r#"{RSA},"key_ops":["encrypt"]"#),
            &format!(r#"{RSA},"alg":"HS256""#),
            &format!(r#"{RSA},"alg":"none""#),
            &format!(r#"{RSA},"alg":"ES256""#),
            &format!(r#"{RSA},"d":"AQAB""#),
            &format!(r#"{RSA},"kid":"{}""#, "k".repeat(300)),
            &format!(r#"{RSA},"kid":7"#),
            &RSA.replace("AQAB", "AQ"),
            &RSA.replace("AQAB", "Ag"),
            &P256.replace("P-256", "P-521"),
            &P256.replace("P-256", "secp256k1"),
            &P256.replace("f83O", "f83P"),
            &P256.replace("f83OJ", "f83O"),
            &ED.replace("Ed25519", "X25519"),
            &ED.replace("11qY", "11q"),
            weak,
            "",
        ] {
            assert_eq!(one(bad).err(), Some(DocumentError::NoUsableKey), "{bad}");
        }
        let both = format!(r#"{{"keys":[{{"kty":"oct","k":"AA"}},{{{ED}}}],"more":1}}"#);
        let set = parse(both.as_bytes(), &spec()).unwrap();
        assert_eq!((set.keys.len(), set.skipped), (1, 1));
    }

    #[test]
    fn a_document_has_bounds() {
        let refused = |document: &str| parse(document.as_bytes(), &spec()).unwrap_err();
        let many = vec!["{}"; DOCUMENT_KEYS_MAX + 1].join(",");
        assert_eq!(
            refused(&format!(r#"{{"keys":[{many}]}}"#)),
            DocumentError::TooManyKeys
        );
        assert_eq!(
            refused(&" ".repeat(DOCUMENT_BYTES_MAX + 1)),
            DocumentError::TooLong
        );
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            "<html>",
            r#"{"keys":[],"keys":[]}"#,
            &"[".repeat(100_000),
        ] {
            assert_eq!(refused(bad), DocumentError::NotAKeySet, "{bad}");
        }
        assert_eq!(refused(r#"{"keys":[]}"#), DocumentError::NoUsableKey);
    }

    #[test]
    fn unknown_names_cause_a_fetch_at_most_every_thirty_seconds() {
        let mut schedule = Schedule::new(600_000, 1_000);
        assert_eq!(schedule.next_ms(), 1_000);
        schedule.attempted(2_000, true, 0);
        assert!(schedule.next_ms() >= 2_000 + 540_000);
        for at in 2_001..2_100 {
            schedule.want(at);
            assert_eq!(schedule.next_ms(), 2_000 + UNKNOWN_KID_INTERVAL_MS);
        }
        schedule.attempted(32_000, true, 0);
        schedule.want(100_000);
        assert_eq!(schedule.next_ms(), 100_000);
    }

    proptest! {
        #[test]
        fn failures_back_off_up_to_the_interval_and_success_resets(
            outcomes in prop::collection::vec((any::<bool>(), any::<u32>()), 1..40),
        ) {
            let mut schedule = Schedule::new(600_000, 0);
            let mut failures = 0;
            for (succeeded, random) in outcomes {
                let now_ms = schedule.next_ms();
                schedule.attempted(now_ms, succeeded, random);
                let wait_ms = schedule.next_ms() - now_ms;
                let expected_ms = if succeeded {
                    failures = 0;
                    600_000
                } else {
                    failures += 1;
                    (RETRY_FIRST_MS << (failures - 1).min(16)).min(600_000)
                };
                prop_assert!(wait_ms.abs_diff(expected_ms) <= expected_ms / 10 + 1, "{wait_ms} {expected_ms}");
            }
        }

        #[test]
        fn no_document_panics(document in "\\{?(\"keys\":)?\\[?[\\{\\}\\[\\]\",:a-z0-9]{0,60}\\]?\\}?") {
            let _ = parse(document.as_bytes(), &spec());
        }
    }
}
