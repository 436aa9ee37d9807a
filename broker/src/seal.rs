//! Secrets at rest: sealed with AES-256-GCM under a master key that the database never sees.
//!
//! What must stay true:
//! - A sealed blob opens only in the place it was sealed for: purpose, tenant and row are authenticated with it, so a
//!   blob copied to another row, or to another tenant, does not open.
//! - Nonces are random, 96 bits: fine up to 2^32 seals a key (NIST SP 800-38D, 8.3). Secrets are sealed when somebody
//!   administers, which is some seven orders of magnitude less.
//! - Keys and opened secrets are wiped when dropped, and no `Debug` here shows any.
//!
//! A sealed blob is: version (1 byte, 1), id of the key (4), nonce (12), ciphertext, tag (16).

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use cauce_protocol::TenantId;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox, SecretSlice};

pub const MASTER_KEY_BYTES: usize = 32;

/// Largest secret that is sealed, in bytes. An RSA key of 8,192 bits in PEM is about 6,500.
pub const SECRET_BYTES_MAX: usize = 16 * 1024;

/// A key file is a line of 44 or 64 characters; anything much longer is another file.
const KEY_FILE_BYTES_MAX: u64 = 1_024;

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;

/// Tells master keys apart without telling anything about them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why there is no master key.
#[derive(Debug)]
pub enum KeyError {
    /// Neither 64 hexadecimal digits nor the base64 of 32 bytes.
    Form,
    /// The file can be read by others than its owner; the mode is given.
    Exposed {
        path: PathBuf,
        mode: u32,
    },
    /// The file's content is not a key.
    File {
        path: PathBuf,
    },
    Io {
        path: PathBuf,
        source: io::Error,
    },
    /// The system gives no random numbers.
    Random,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => write!(
                f,
                "a master key is 64 hexadecimal digits, or the base64 of 32 bytes"
            ),
            Self::Exposed { path, mode } => write!(
                f,
                "{path} has mode {mode:04o}, so others can read it; chmod 600 {path}, and if others may have read \
                 it, make a new key",
                path = path.display()
            ),
            Self::File { path } => write!(
                f,
                "{} holds no master key (64 hexadecimal digits or the base64 of 32 bytes); restore it from a backup. \
                 Without it the sealed secrets in the database are lost",
                path.display()
            ),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Random => write!(f, "the system gives no random numbers"),
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why something was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// More than [`SECRET_BYTES_MAX`].
    TooLarge,
    /// Not a sealed blob of a version we know.
    Form,
    /// Sealed with a key we were not given.
    UnknownKey(KeyId),
    /// Altered, or sealed for another place. Which of the two cannot be known.
    Refused,
    /// The cryptography library failed; not caused by any input.
    Failed,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "a secret is at most {SECRET_BYTES_MAX} bytes"),
            Self::Form => write!(f, "not a sealed secret of a known version"),
            Self::UnknownKey(id) => {
                write!(
                    f,
                    "sealed with master key {id}, which is not configured; add it as an older key"
                )
            }
            Self::Refused => write!(f, "the sealed secret has been altered, or belongs to another row"),
            Self::Failed => write!(f, "the cryptography library failed"),
        }
    }
}

impl std::error::Error for SealError {}

/// 32 random bytes from the configuration or from a file beside the database.
pub struct MasterKey(SecretBox<[u8; MASTER_KEY_BYTES]>);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

impl MasterKey {
    /// # Errors
    /// If the system gives no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; MASTER_KEY_BYTES]);
        rand::fill(key.as_mut()).map_err(|_| KeyError::Random)?;
        Ok(Self(SecretBox::init_with_mut(
            |secret: &mut [u8; MASTER_KEY_BYTES]| secret.copy_from_slice(key.as_ref()),
        )))
    }

    /// Reads 64 hexadecimal digits or the base64 of 32 bytes; blanks around them do not matter.
    ///
    /// # Errors
    /// [`KeyError::Form`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let bytes = if text.len() == 2 * MASTER_KEY_BYTES {
            from_hex(text)
        } else {
            from_base64(text)
        };
        let bytes = bytes
            .filter(|bytes| bytes.len() == MASTER_KEY_BYTES)
            .ok_or(KeyError::Form)?;
        Ok(Self(SecretBox::init_with_mut(
            |secret: &mut [u8; MASTER_KEY_BYTES]| secret.copy_from_slice(&bytes),
        )))
    }

    /// The key in this file; if there is no such file, a new key, which is in the file and on the disk when this returns.
    ///
    /// # Errors
    /// If the file is not a key, or not for its owner alone, or cannot be read or made.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create(path)?;
                // Read back, so that of two that create at the same time both get the key of the one that won.
                Self::load(path)
            }
            loaded => loaded,
        }
    }

    fn load(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io {
            path: path.to_path_buf(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let not_a_key = || KeyError::File {
            path: path.to_path_buf(),
        };
        if !metadata.is_file() || metadata.len() > KEY_FILE_BYTES_MAX {
            return Err(not_a_key());
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_path_buf(),
                mode,
            });
        }
        // Room for all of it from the start, or growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
        match file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text) {
            Ok(_) => Self::parse(&text).map_err(|_| not_a_key()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(not_a_key()),
            Err(source) => Err(failed(source)),
        }
    }

    /// For messages and for rotation.
    pub fn id(&self) -> KeyId {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose_secret());
        let tag = hmac::sign(&key, b"cauce: id of a master key");
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&tag.as_ref()[..KEY_ID_BYTES]);
        KeyId(id)
    }
}

/// Writes a new key beside its place and then puts it there, unless something is there by now: a crash leaves either
/// no key or a whole one.
fn create(path: &Path) -> Result<(), KeyError> {
    let failed = |source| KeyError::Io {
        path: path.to_path_buf(),
        source,
    };
    let key = MasterKey::generate()?;
    let mut text = Zeroizing::new(String::with_capacity(2 * MASTER_KEY_BYTES + 1));
    for byte in key.0.expose_secret() {
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    text.push('\n');

    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    // Left behind by an earlier process of the same number, if at all.
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    })();
    let removed = fs::remove_file(&draft);
    written.and(removed).map_err(failed)?;
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn from_hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut bytes = Zeroizing::new(Vec::with_capacity(MASTER_KEY_BYTES));
    for pair in text.as_bytes().chunks_exact(2) {
        bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
    }
    Some(bytes)
}

fn from_base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    STANDARD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text))
        .ok()
        .map(Zeroizing::new)
}

/// Where a secret belongs. A blob opens only with the place it was sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// What kind of secret: `signing key`. One constant for each kind, never changed.
    pub purpose: &'static str,
    /// None for the operator's own.
    pub tenant: Option<&'a TenantId>,
    /// The row's id within its tenant.
    pub row: &'a str,
}

impl Place<'_> {
    /// Each part behind its length, so that no two places give the same bytes. A tenant's name is never empty.
    fn bytes(&self) -> Vec<u8> {
        let tenant = self.tenant.map_or("", |t| t.as_str());
        let parts = [self.purpose, tenant, self.row];
        let mut bytes = vec![VERSION];
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

struct Key {
    id: KeyId,
    cipher: RandomizedNonceKey,
}

/// Seals with the current key, opens with that and with older ones.
pub struct Sealer {
    current: Key,
    older: Vec<Key>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let older: Vec<KeyId> = self.older.iter().map(|key| key.id).collect();
        f.debug_struct("Sealer")
            .field("current", &self.current.id)
            .field("older", &older)
            .finish()
    }
}

impl Sealer {
    /// # Errors
    /// [`SealError::Failed`].
    pub fn new(current: &MasterKey, older: &[MasterKey]) -> Result<Self, SealError> {
        let key = |master: &MasterKey| {
            let cipher = RandomizedNonceKey::new(&AES_256_GCM, master.0.expose_secret());
            Ok(Key {
                id: master.id(),
                cipher: cipher.map_err(|_| SealError::Failed)?,
            })
        };
        Ok(Self {
            current: key(current)?,
            older: older.iter().map(key).collect::<Result<_, _>>()?,
        })
    }

    /// # Errors
    /// [`SealError::TooLarge`], [`SealError::Failed`].
    pub fn seal(&self, place: Place<'_>, secret: &[u8]) -> Result<Bytes, SealError> {
        if secret.len() > SECRET_BYTES_MAX {
            return Err(SealError::TooLarge);
        }
        let mut text = Zeroizing::new(secret.to_vec());
        let (nonce, tag) = self
            .current
            .cipher
            .seal_in_place_separate_tag(Aad::from(place.bytes()), &mut text)
            .map_err(|_| SealError::Failed)?;
        let mut sealed = Vec::with_capacity(HEADER_BYTES + text.len() + tag.as_ref().len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.current.id.0);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed.into())
    }

    /// # Errors
    /// If the blob is not one, was altered, was sealed for another place, or with a key that was not given.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<SecretSlice<u8>, SealError> {
        let (id, nonce, text) = split(sealed)?;
        let aad = place.bytes();
        let mut known = false;
        // An id is four bytes, so two keys may share one: try each.
        for key in std::iter::once(&self.current)
            .chain(&self.older)
            .filter(|key| key.id == id)
        {
            known = true;
            let mut text = Zeroizing::new(text.to_vec());
            let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Form)?;
            if let Ok(secret) = key.cipher.open_in_place(nonce, Aad::from(&aad), &mut text) {
                return Ok(SecretSlice::from(secret.to_vec()));
            }
        }
        Err(if known {
            SealError::Refused
        } else {
            SealError::UnknownKey(id)
        })
    }

    /// Whether the blob was sealed with the current key. If not, open it and seal it again: that is how a key retires.
    ///
    /// # Errors
    /// [`SealError::Form`].
    pub fn is_current(&self, sealed: &[u8]) -> Result<bool, SealError> {
        split(sealed).map(|(id, ..)| id == self.current.id)
    }
}

/// Id of the key, nonce, ciphertext with tag.
fn split(sealed: &[u8]) -> Result<(KeyId, &[u8], &[u8]), SealError> {
    let (version, rest) = sealed.split_first().ok_or(SealError::Form)?;
    if *version != VERSION || sealed.len() > HEADER_BYTES + SECRET_BYTES_MAX + AES_256_GCM.tag_len() {
        return Err(SealError::Form);
    }
    let (id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(SealError::Form)?;
    let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Form)?;
    if text.len() < AES_256_GCM.tag_len() {
        return Err(SealError::Form);
    }
    Ok((KeyId(*id), nonce, text))
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
