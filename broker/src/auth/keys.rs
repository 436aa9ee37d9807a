//! The keys that tokens are verified with.
//!
//! What must stay true:
//! - A key verifies with one algorithm, fixed when it was made. A secret never verifies as a public key, nor the reverse.
//! - A tenant's key answers for that tenant only, even where another tenant's key has the same name or is the same key.

mod ring;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{self as aws, ParsedPublicKey};
use cauce_protocol::TenantId;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;

pub use self::ring::{CANDIDATES_MAX, KEYS_A_SOURCE_MAX, KeyRing, Keys};
pub(super) use self::ring::{Candidates, Hint};
use crate::config::{self, Algorithm, Readers, SECRET_BYTES_MIN};

/// Longest name of a key, in bytes.
pub const KID_BYTES_MAX: usize = 200;

/// Smallest and largest RSA modulus, in bits: below is breakable, above is a way to make us work.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// For whom a key speaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyOwner {
    /// For every tenant; its tokens must name one.
    Operator,
    /// For this one only.
    Tenant(TenantId),
}

/// Where a key comes from. All keys of one source are replaced together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeySource {
    Config,
    /// Number of the entry in `[[auth.jwks]]`.
    Jwks(usize),
    /// The tenant's row in the database.
    Tenant(TenantId),
}

/// What is known about a key besides the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    pub owner: KeyOwner,
    /// Name of the key; a key without one is tried for tokens with any name.
    pub kid: Option<Box<str>>,
    pub algorithm: Algorithm,
    /// The `iss` that its tokens must have.
    pub issuer: Option<Box<str>>,
    /// The `aud` that its tokens must have. Without it, its tokens must have none (RFC 7519 §4.1.3).
    pub audience: Option<Box<str>>,
}

impl KeySpec {
    /// Its name for logs and audit: never secret.
    pub fn name(&self) -> &str {
        self.kid.as_deref().unwrap_or("(unnamed)")
    }
}

/// Why a key was refused. Holds nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// A secret for an algorithm with key pairs, or the reverse.
    AlgorithmMismatch,
    /// A public key that does not parse, or not as one of this algorithm.
    Malformed,
    /// A private key where a public one belongs.
    PrivateKey,
    /// RSA of a size that is not accepted.
    RsaBits(usize),
    /// See [`config::is_weak_secret`].
    WeakSecret,
    /// A PEM text as a shared secret: whoever has the public key could sign.
    PemAsSecret,
    /// Longer than [`KID_BYTES_MAX`], empty, or with control characters in it.
    Kid,
    /// More than [`KEYS_A_SOURCE_MAX`].
    TooMany,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlgorithmMismatch => write!(f, "the key is not of the kind that its algorithm needs"),
            Self::Malformed => write!(
                f,
                "the public key is not a PEM text of the kind that its algorithm needs"
            ),
            Self::PrivateKey => write!(
                f,
                "this is a private key; verifying takes the public one, keep this one away"
            ),
            Self::RsaBits(bits) => write!(
                f,
                "the RSA key has {bits} bits; {} to {} are accepted",
                RSA_BITS.start(),
                RSA_BITS.end()
            ),
            Self::WeakSecret => write!(
                f,
                "the secret is weak: at least {SECRET_BYTES_MIN} random bytes are needed"
            ),
            Self::PemAsSecret => write!(
                f,
                "the secret is a PEM text; whoever knows a public key could sign with it"
            ),
            Self::Kid => write!(
                f,
                "the kid is empty, longer than {KID_BYTES_MAX} bytes, or has control characters in it"
            ),
            Self::TooMany => write!(f, "there are more than {KEYS_A_SOURCE_MAX} keys"),
        }
    }
}

impl std::error::Error for KeyError {}

/// A key with the algorithm it is pinned to.
#[derive(Clone)]
pub struct VerifyingKey {
    spec: Arc<KeySpec>,
    material: DecodingKey,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

impl VerifyingKey {
    /// A shared secret.
    ///
    /// # Errors
    /// If it is weak, looks like a public key, or the algorithm is not HS256, HS384 or HS512.
    pub fn from_secret(spec: KeySpec, secret: &[u8]) -> Result<Self, KeyError> {
        if !spec.algorithm.is_symmetric() {
            return Err(KeyError::AlgorithmMismatch);
        }
        check_secret(secret)?;
        Self::new(spec, DecodingKey::from_secret(secret))
    }

    /// A public key in PEM (SubjectPublicKeyInfo, PKCS #1 or certificate).
    ///
    /// # Errors
    /// If it does not parse, is private, of another kind than the algorithm, or RSA of a size that is not accepted.
    pub fn from_pem(spec: KeySpec, pem: &str) -> Result<Self, KeyError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(KeyError::PrivateKey);
        }
        let material = match spec.algorithm {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
                return Err(KeyError::AlgorithmMismatch);
            }
            Algorithm::Es256 | Algorithm::Es384 => DecodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(pem.as_bytes()),
            _ => DecodingKey::from_rsa_pem(pem.as_bytes()),
        }
        .map_err(|_| KeyError::Malformed)?;
        Self::from_public(spec, material)
    }

    /// A secret or a public key in PEM, as the algorithm needs: what tenants store.
    ///
    /// # Errors
    /// As [`Self::from_secret`] and [`Self::from_pem`].
    pub fn from_text(spec: KeySpec, text: &str) -> Result<Self, KeyError> {
        if spec.algorithm.is_symmetric() {
            Self::from_secret(spec, text.as_bytes())
        } else {
            Self::from_pem(spec, text)
        }
    }

    /// A public key that has been decoded.
    pub(super) fn from_public(spec: KeySpec, material: DecodingKey) -> Result<Self, KeyError> {
        use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        let parses =
            |algorithm, bytes: &[u8]| ParsedPublicKey::new(algorithm, bytes).map_err(|_| KeyError::Malformed);
        match (spec.algorithm, material.kind()) {
            (Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512, _) => {
                return Err(KeyError::AlgorithmMismatch);
            }
            (Algorithm::Es256, SecretOrDer(point)) => drop(parses(&aws::ECDSA_P256_SHA256_FIXED, point)?),
            (Algorithm::Es384, SecretOrDer(point)) => drop(parses(&aws::ECDSA_P384_SHA384_FIXED, point)?),
            (Algorithm::EdDsa, SecretOrDer(point)) => drop(parses(&aws::ED25519, point)?),
            (Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa, RsaModulusExponent { .. }) => {
                return Err(KeyError::AlgorithmMismatch);
            }
            (_, SecretOrDer(der)) => {
                let components = DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
                let (modulus, exponent) = components(der).map_err(|_| KeyError::Malformed)?;
                check_rsa(&modulus, &exponent)?;
            }
            (_, RsaModulusExponent { n, e }) => check_rsa(n, e)?,
        }
        Self::new(spec, material)
    }

    fn new(spec: KeySpec, material: DecodingKey) -> Result<Self, KeyError> {
        match &spec.kid {
            Some(kid) if !is_plain(kid, KID_BYTES_MAX) => Err(KeyError::Kid),
            _ => Ok(Self {
                spec: Arc::new(spec),
                material,
            }),
        }
    }

    pub fn spec(&self) -> &Arc<KeySpec> {
        &self.spec
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let algorithm = wire_algorithm(self.spec.algorithm);
        jsonwebtoken::crypto::verify(signature, message, &self.material, algorithm).unwrap_or(false)
    }
}

/// Whether a name that others chose can stand in a log.
pub(super) fn is_plain(name: &str, bytes_max: usize) -> bool {
    !name.is_empty() && name.len() <= bytes_max && !name.chars().any(char::is_control)
}

/// Refuses what could be guessed, or is a public key.
pub(super) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    if secret.windows(11).any(|window| window == b"-----BEGIN ") {
        return Err(KeyError::PemAsSecret);
    }
    if config::is_weak_secret(secret) {
        return Err(KeyError::WeakSecret);
    }
    Ok(())
}

fn check_rsa(modulus: &[u8], exponent: &[u8]) -> Result<(), KeyError> {
    let strip = |bytes: &[u8]| {
        bytes
            .iter()
            .skip_while(|&&b| b == 0)
            .copied()
            .collect::<Vec<u8>>()
    };
    let (modulus, exponent) = (strip(modulus), strip(exponent));
    let bits = modulus
        .first()
        .map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err(KeyError::RsaBits(bits));
    }
    // Odd, above 1, and small enough that verifying stays cheap (FIPS 186-5 §5.4 allows more, nobody uses it).
    let odd = exponent.last().is_some_and(|last| last % 2 == 1);
    if !odd || exponent == [1] || exponent.len() > 4 {
        return Err(KeyError::Malformed);
    }
    Ok(())
}

pub(super) fn wire_algorithm(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    use jsonwebtoken::Algorithm as Wire;
    match algorithm {
        Algorithm::Hs256 => Wire::HS256,
        Algorithm::Hs384 => Wire::HS384,
        Algorithm::Hs512 => Wire::HS512,
        Algorithm::Rs256 => Wire::RS256,
        Algorithm::Rs384 => Wire::RS384,
        Algorithm::Rs512 => Wire::RS512,
        Algorithm::Ps256 => Wire::PS256,
        Algorithm::Ps384 => Wire::PS384,
        Algorithm::Ps512 => Wire::PS512,
        Algorithm::Es256 => Wire::ES256,
        Algorithm::Es384 => Wire::ES384,
        Algorithm::EdDsa => Wire::EdDSA,
    }
}

/// The keys of `[[auth.keys]]`. Reads files; blocks.
///
/// # Errors
/// The first key that cannot be used, with the words for people.
pub fn from_config(auth: &config::Auth) -> Result<Vec<VerifyingKey>, String> {
    auth.keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let spec = KeySpec {
                owner: owner(key.tenant.as_ref()),
                kid: key.kid.as_deref().map(Into::into),
                algorithm: key.alg,
                issuer: key.issuer.as_deref().map(Into::into),
                audience: key.audience.as_deref().map(Into::into),
            };
            let at = |e: &dyn fmt::Display| format!("auth.keys.{index}: {e}");
            use secrecy::ExposeSecret;
            match (&key.secret, &key.secret_file, &key.public_key_file) {
                (Some(secret), ..) => VerifyingKey::from_secret(spec, secret.expose_secret().as_bytes()),
                (_, Some(path), _) => {
                    let secret = config::read_secret_file(path).map_err(|e| at(&e))?;
                    VerifyingKey::from_secret(spec, secret.expose_secret().as_bytes())
                }
                (_, _, Some(path)) => {
                    let pem = config::read_file(path, Readers::Anybody).map_err(|e| at(&e))?;
                    VerifyingKey::from_pem(spec, &pem)
                }
                (None, None, None) => Err(KeyError::AlgorithmMismatch),
            }
            .map_err(|e| at(&e))
        })
        .collect()
}

/// An entry that names no tenant is the operator's: the configuration was checked to say so.
pub(super) fn owner(tenant: Option<&TenantId>) -> KeyOwner {
    tenant.map_or(KeyOwner::Operator, |tenant| KeyOwner::Tenant(tenant.clone()))
}
