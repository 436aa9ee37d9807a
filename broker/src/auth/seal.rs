//! Sealing secrets that have to be stored and used again, such as a tenant's HMAC secret: AES-256-GCM under a key that lies in
//! a file beside the database and never in it, so that a copied or leaked database gives nobody the right to sign.
//!
//! What must stay true:
//! - A sealed text opens only under the label it was sealed with, so a row cannot be moved to another tenant.
//! - The key file is readable by its owner alone, and is never replaced: with it would go everything that was sealed.

use std::fmt;
use std::io::Write;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::config::{self, FileError, Readers};

/// First byte of a sealed text, for the day of another cipher.
const VERSION: u8 = 1;

const KEY_BYTES: usize = 32;

const TAG_BYTES: usize = 16;

/// Longest text that is sealed, in bytes: a key in PEM.
pub const PLAIN_BYTES_MAX: usize = 64 * 1024;

/// The sealed text is damaged, or was sealed with another key or for another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOurs;

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stored secret does not open: is the key file the one it was sealed with?")
    }
}

impl std::error::Error for NotOurs {}

/// The key of this installation.
pub struct SealKey(RandomizedNonceKey);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    /// The key in the file, which is made if there is none. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read or made, holds something else, or is open to everybody.
    pub fn load_or_create(path: &Path) -> Result<Self, FileError> {
        let error = |message: String| FileError {
            path: path.to_owned(),
            message,
        };
        match Self::create(path) {
            Ok(key) => return Ok(key),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(error(format!("cannot be made: {e}"))),
        }
        let text: SecretString = config::read_file(path, Readers::NotTheWorld)?.into();
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.expose_secret().trim_end());
        let bytes: SecretSlice<u8> = bytes.unwrap_or_default().into();
        Self::from_bytes(bytes.expose_secret())
            .ok_or_else(|| error("is not a key that Cauce made".to_owned()))
    }

    fn create(path: &Path) -> std::io::Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        let no_random = || std::io::Error::other("the system has no random numbers to give");
        SystemRandom::new().fill(&mut bytes).map_err(|_| no_random())?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        writeln!(file, "{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))?;
        // Before anything is sealed with it: a key lost to a power failure would take all that with it.
        file.sync_all()?;
        Self::from_bytes(&bytes).ok_or_else(no_random)
    }

    /// `None` unless they are 32.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; KEY_BYTES] = bytes.try_into().ok()?;
        RandomizedNonceKey::new(&AES_256_GCM, bytes).ok().map(Self)
    }

    /// Seals a text for the place that the label names, such as `signing_key/acme/k1`.
    ///
    /// # Errors
    /// If the text is longer than [`PLAIN_BYTES_MAX`] or the system has no random numbers to give.
    pub fn seal(&self, label: &str, plain: &[u8]) -> Result<Vec<u8>, NotOurs> {
        if plain.len() > PLAIN_BYTES_MAX {
            return Err(NotOurs);
        }
        let mut text = plain.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(label), &mut text)
            .map_err(|_| NotOurs)?;
        Ok([&[VERSION], nonce.as_ref().as_slice(), &text].concat())
    }

    /// Opens what was sealed under the same label.
    ///
    /// # Errors
    /// If it is not that.
    pub fn open(&self, label: &str, sealed: &[u8]) -> Result<SecretSlice<u8>, NotOurs> {
        let Some((&VERSION, rest)) = sealed.split_first() else {
            return Err(NotOurs);
        };
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(NotOurs)?;
        if text.len() > PLAIN_BYTES_MAX + TAG_BYTES {
            return Err(NotOurs);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOurs)?;
        let mut text = text.to_vec();
        let plain = self
            .0
            .open_in_place(nonce, Aad::from(label), &mut text)
            .map_err(|_| NotOurs)?;
        Ok(plain.to_vec().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_under_its_key_and_label_only() {
        let key = SealKey::from_bytes(&[1; 32]).unwrap();
        let sealed = key.seal("signing_key/acme/k1", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(
            key.open("signing_key/acme/k1", &sealed).unwrap().expose_secret(),
            b"secret"
        );
        assert!(key.open("signing_key/zeta/k1", &sealed).is_err());
        assert!(
            SealKey::from_bytes(&[2; 32])
                .unwrap()
                .open("signing_key/acme/k1", &sealed)
                .is_err()
        );
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(key.open("signing_key/acme/k1", &bent).is_err(), "{at}");
            assert!(key.open("signing_key/acme/k1", &sealed[..at]).is_err(), "{at}");
        }
        assert_ne!(
            key.seal("a", b"secret"),
            key.seal("a", b"secret"),
            "a nonce is used once"
        );
        assert!(key.seal("a", &vec![0; PLAIN_BYTES_MAX + 1]).is_err());
        assert!(SealKey::from_bytes(&[1; 31]).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn the_key_file_is_made_once_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        let sealed = SealKey::load_or_create(&path).unwrap().seal("a", b"x").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = SealKey::load_or_create(&path).unwrap();
        assert_eq!(again.open("a", &sealed).unwrap().expose_secret(), b"x");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(SealKey::load_or_create(&path).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "something else").unwrap();
        assert!(
            SealKey::load_or_create(&path)
                .unwrap_err()
                .message
                .contains("not a key")
        );
        assert!(SealKey::load_or_create(&dir.path().join("none/seal.key")).is_err());
    }
}
