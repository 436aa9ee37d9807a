//! Opaque credentials: API keys of services (`ck_…`) and tokens of devices (`cd_…`).
//!
//! What must stay true:
//! - The secret exists in the hands of its bearer only: here is its SHA-256. 256 random bits need no slow hash.
//! - Whether an id exists cannot be told from the answer or from its time.
//! - `Debug` shows the id, never the secret.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cauce_protocol::{Code, DeviceId, Refusal};
use secrecy::{ExposeSecret, SecretString};

use super::keys::KeyOwner;

/// Characters of an id: 80 random bits in base32.
pub const ID_CHARS: usize = 16;

/// Characters of a secret: 256 random bits in base64url.
pub const SECRET_CHARS: usize = 43;

/// Characters of a whole credential: `ck_` id `_` secret.
pub const CREDENTIAL_CHARS: usize = 3 + ID_CHARS + 1 + SECRET_CHARS;

/// Credentials that one node holds. A row takes some 300 bytes.
pub const CREDENTIALS_MAX: usize = 1_000_000;

/// Crockford's letters without I, L, O and U, which are misread.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// What a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialKind {
    ApiKey,
    Device,
}

impl CredentialKind {
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "ck_",
            Self::Device => "cd_",
        }
    }
}

/// The public half of a credential: in rows, logs and audit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialId([u8; ID_CHARS]);

impl CredentialId {
    /// `None` unless it is [`ID_CHARS`] characters of ours.
    pub fn new(id: &str) -> Option<Self> {
        let bytes: [u8; ID_CHARS] = id.as_bytes().try_into().ok()?;
        bytes.iter().all(|b| BASE32.contains(b)).then_some(Self(bytes))
    }

    pub fn as_str(&self) -> &str {
        // The constructor lets ASCII in only.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 of a secret, as stored.
pub type SecretHash = [u8; 32];

/// A credential as a peer presents it.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    pub kind: CredentialKind,
    pub id: CredentialId,
    secret: &'a str,
}

impl<'a> Presented<'a> {
    /// Takes `ck_<id>_<secret>` or `cd_<id>_<secret>` apart. `None` if it is neither; allocates nothing.
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.len() != CREDENTIAL_CHARS || !text.is_ascii() {
            return None;
        }
        let (prefix, rest) = text.split_at(3);
        let kind = [CredentialKind::ApiKey, CredentialKind::Device]
            .into_iter()
            .find(|k| k.prefix() == prefix)?;
        let (id, rest) = rest.split_at(ID_CHARS);
        let secret = rest.strip_prefix('_')?;
        let is_base64 = secret
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        is_base64.then_some(Self {
            kind,
            id: CredentialId::new(id)?,
            secret,
        })
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A credential that was just made. The text is shown once and not kept.
#[derive(Clone, Debug)]
pub struct Issued {
    pub id: CredentialId,
    pub secret_sha256: SecretHash,
    pub text: SecretString,
}

/// Makes a credential.
///
/// # Errors
/// `unavailable` if the system has no randomness to give.
pub fn issue(kind: CredentialKind) -> Result<Issued, Refusal> {
    let mut random = [0; ID_CHARS + 32];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| Refusal::new(Code::Unavailable, "the system has no random numbers to give"))?;
    let (id_bytes, secret_bytes) = random.split_at(ID_CHARS);
    let mut id = [0; ID_CHARS];
    // 32 divides 256, so each letter is equally likely.
    id.iter_mut()
        .zip(id_bytes)
        .for_each(|(letter, byte)| *letter = BASE32[usize::from(byte % 32)]);
    let id = CredentialId(id);
    let secret = BASE64_URL_SAFE_NO_PAD.encode(secret_bytes);
    Ok(Issued {
        id,
        secret_sha256: hash(&secret),
        text: format!("{}{id}_{secret}", kind.prefix()).into(),
    })
}

fn hash(secret: &str) -> SecretHash {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    out
}

macro_rules! scopes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $bit:literal, $name:literal;)*) => {
        /// What an API key may be used for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Scope { $($(#[doc = $doc])+ $variant = $bit,)* }

        impl Scope {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As in the API and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|scope| scope.name() == name)
            }
        }
    };
}

scopes! {
    /// Publish to rooms, send to users.
    Publish = 1, "publish";
    /// Look at rooms and their history.
    Rooms = 2, "rooms";
    /// See and change devices.
    Devices = 4, "devices";
    /// Command devices.
    Commands = 8, "commands";
    /// Make, change and disable tenants.
    Tenants = 16, "tenants";
    /// Make and revoke API keys and signing keys.
    Keys = 32, "keys";
    /// Make and revoke device tokens.
    Tokens = 64, "tokens";
    /// See connections and figures.
    Stats = 128, "stats";
    /// Call methods that clients or the embedding program serve.
    Calls = 512, "calls";
    /// Disconnect users and connections.
    Connections = 1024, "connections";
    /// Everything that there is and will be.
    All = 256, "all";
}

/// A set of [`Scope`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u16);

impl Scopes {
    pub const NONE: Self = Self(0);

    /// Whether the key may be used for it.
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope as u16 | Scope::All as u16) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .iter()
            .copied()
            .filter(move |&scope| self.0 & scope as u16 != 0)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope as u16))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Names with commas between, as stored.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "," }, scope.name())?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Scopes {
    /// The name that is not a scope.
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        names
            .map(|name| Scope::from_name(name).ok_or_else(|| name.to_owned()))
            .collect()
    }
}

/// A credential as the store keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialRow {
    pub id: CredentialId,
    pub kind: CredentialKind,
    /// Whom it speaks for.
    pub owner: KeyOwner,
    pub secret_sha256: SecretHash,
    /// Of an API key; a device token has none.
    pub scopes: Scopes,
    /// The only device that may use it; `None` binds it to no device.
    pub device: Option<DeviceId>,
    pub expires_unix_ms: Option<u64>,
    pub revoked_unix_ms: Option<u64>,
}

impl CredentialRow {
    /// Whether an API key may be used for it.
    ///
    /// # Errors
    /// `forbidden`, naming the scope that is missing.
    pub fn require(&self, scope: Scope) -> Result<(), Refusal> {
        if self.kind == CredentialKind::ApiKey && self.scopes.allow(scope) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::Forbidden,
            format!("this API key lacks the scope {}", scope.name()),
        ))
    }
}

impl fmt::Debug for CredentialRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialRow")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("owner", &self.owner)
            .field("scopes", &self.scopes)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// All credentials of the node, by id. Not synchronised: its owner decides how.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    rows: HashMap<CredentialId, Arc<CredentialRow>>,
}

impl Credentials {
    /// Takes a new row, or the newer state of an old one.
    ///
    /// # Errors
    /// `quota_exceeded` beyond [`CREDENTIALS_MAX`].
    pub fn insert(&mut self, row: CredentialRow) -> Result<(), Refusal> {
        if self.rows.len() >= CREDENTIALS_MAX && !self.rows.contains_key(&row.id) {
            let message = format!("there are {CREDENTIALS_MAX} API keys and device tokens; delete some");
            return Err(Refusal::new(Code::QuotaExceeded, message));
        }
        self.rows.insert(row.id, Arc::new(row));
        Ok(())
    }

    /// Revokes; answers with the row as it is now, or `None` if there is no such id.
    pub fn revoke(&mut self, id: CredentialId, unix_ms: u64) -> Option<Arc<CredentialRow>> {
        let row = Arc::make_mut(self.rows.get_mut(&id)?);
        row.revoked_unix_ms.get_or_insert(unix_ms);
        self.rows.get(&id).cloned()
    }

    pub fn remove(&mut self, id: CredentialId) -> Option<Arc<CredentialRow>> {
        self.rows.remove(&id)
    }

    pub fn find(&self, id: CredentialId) -> Option<&Arc<CredentialRow>> {
        self.rows.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<CredentialRow>> {
        self.rows.values()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row that a text stands for, if it is of this kind, known, right, and neither revoked nor over.
    ///
    /// # Errors
    /// `unauthenticated` for an empty text; `token_invalid` alike for a malformed text, an unknown id, another kind and a
    /// wrong secret; `token_revoked` and `token_expired` to who knows the secret only.
    pub fn authenticate(
        &self,
        text: &str,
        kind: CredentialKind,
        unix_ms: u64,
    ) -> Result<&Arc<CredentialRow>, Refusal> {
        if text.is_empty() {
            return Err(Refusal::new(Code::Unauthenticated, "no key was given"));
        }
        let wrong = || Refusal::new(Code::TokenInvalid, "there is no such key");
        let presented = Presented::parse(text)
            .filter(|p| p.kind == kind)
            .ok_or_else(wrong)?;
        let row = self.rows.get(&presented.id).filter(|row| row.kind == kind);
        // An unknown id is compared too, so that it takes as long.
        let expected = row.map_or([0; 32], |row| row.secret_sha256);
        let equal = verify_slices_are_equal(&hash(presented.secret), &expected).is_ok();
        let row = row.filter(|_| equal).ok_or_else(wrong)?;
        if row.revoked_unix_ms.is_some() {
            return Err(Refusal::new(Code::TokenRevoked, "this key was revoked"));
        }
        if row.expires_unix_ms.is_some_and(|end| end <= unix_ms) {
            return Err(Refusal::new(Code::TokenExpired, "this key has expired"));
        }
        Ok(row)
    }
}

impl Issued {
    /// The row to store.
    pub fn row(&self, kind: CredentialKind, owner: KeyOwner, scopes: Scopes) -> CredentialRow {
        CredentialRow {
            id: self.id,
            kind,
            owner,
            secret_sha256: self.secret_sha256,
            scopes,
            device: None,
            expires_unix_ms: None,
            revoked_unix_ms: None,
        }
    }

    /// The text, for showing it to its bearer.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

#[cfg(test)]
mod tests;
