//! Making tokens, for `cauce token` and tests. The broker itself signs nothing.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cauce_protocol::limits::TOKEN_BYTES_MAX;
use cauce_protocol::{Role, TenantId, UserId};
use jsonwebtoken::{EncodingKey, Header};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::value::RawValue;

use super::grant::Rule;
use super::keys::{KeyError, check_secret, wire_algorithm};
use crate::config::Algorithm;

/// What a token is to say. Dates in seconds since 1970, as on the wire.
#[derive(Clone, Debug, Serialize)]
pub struct Claims {
    pub sub: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Box<RawValue>>,
    pub iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
}

impl Claims {
    /// For this user from `now` on for `seconds`, without any rights.
    pub fn new(sub: UserId, now_seconds: u64, seconds: u64) -> Self {
        Self {
            sub,
            tenant: None,
            roles: Vec::new(),
            grants: Vec::new(),
            info: None,
            iat: now_seconds,
            nbf: None,
            exp: Some(now_seconds.saturating_add(seconds)),
            iss: None,
            aud: None,
            jti: None,
        }
    }
}

/// Why a token could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    Key(KeyError),
    /// The signature could not be made with this key.
    Failed,
    /// It would be longer than any broker accepts.
    TooLong,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(e) => e.fmt(f),
            Self::Failed => write!(f, "the key cannot sign with its algorithm"),
            Self::TooLong => write!(f, "the token would be longer than {TOKEN_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for SignError {}

/// A key that signs with one algorithm.
pub struct SigningKey {
    algorithm: Algorithm,
    kid: Option<String>,
    material: EncodingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { algorithm, kid, .. } = self;
        f.debug_struct("SigningKey")
            .field("algorithm", algorithm)
            .field("kid", kid)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// # Errors
    /// If the secret is weak or the algorithm takes no secret.
    pub fn from_secret(algorithm: Algorithm, kid: Option<String>, secret: &[u8]) -> Result<Self, SignError> {
        if !algorithm.is_symmetric() {
            return Err(SignError::Key(KeyError::AlgorithmMismatch));
        }
        check_secret(secret).map_err(SignError::Key)?;
        Ok(Self {
            algorithm,
            kid,
            material: EncodingKey::from_secret(secret),
        })
    }

    /// A private key in PEM: PKCS #8 for all, PKCS #1 for RSA too.
    ///
    /// # Errors
    /// If it does not parse as a private key of the algorithm.
    pub fn from_pem(algorithm: Algorithm, kid: Option<String>, pem: &str) -> Result<Self, SignError> {
        let material = match algorithm {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
                return Err(SignError::Key(KeyError::AlgorithmMismatch));
            }
            Algorithm::Es256 | Algorithm::Es384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDsa => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        Ok(Self {
            algorithm,
            kid,
            material: material.map_err(|_| SignError::Key(KeyError::Malformed))?,
        })
    }
}

/// Signs claims.
///
/// # Errors
/// If the key cannot sign, or the token would be too long.
pub fn sign(claims: &impl Serialize, key: &SigningKey) -> Result<String, SignError> {
    let mut header = Header::new(wire_algorithm(key.algorithm));
    header.kid.clone_from(&key.kid);
    let token = jsonwebtoken::encode(&header, claims, &key.material).map_err(|_| SignError::Failed)?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(SignError::TooLong);
    }
    Ok(token)
}

/// A new shared secret: 256 random bits in base64url, 43 characters.
///
/// # Errors
/// [`SignError::Failed`] if the system has no randomness to give.
pub fn random_secret() -> Result<SecretString, SignError> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| SignError::Failed)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes).into())
}
