//! Why administration does not start, and what the store's troubles mean to whoever asked for a change.

use std::fmt;
use std::path::PathBuf;

use cauce_protocol::{Code, Refusal};

use crate::auth::keys;
use crate::seal;
use crate::store::StoreError;

/// Why administration cannot start.
#[derive(Debug)]
pub enum AdminError {
    /// A key of the configuration cannot be used, in one line.
    Config(String),
    /// The file of the operator's key.
    KeyFile { path: PathBuf, source: std::io::Error },
    /// The file of the operator's key holds a key that this database does not know.
    KeyFileStale { path: PathBuf },
    /// The key that secrets are sealed with.
    MasterKey(seal::KeyError),
    /// A first tenant or key could not be made.
    Refused(Refusal),
    /// A stored key that cannot be used.
    SigningKey {
        tenant: String,
        kid: String,
        reason: String,
    },
    /// The operating system gives no thread, or the runtime no timer.
    Thread(std::io::Error),
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(message) => f.write_str(message),
            Self::KeyFile { path, source } => {
                write!(f, "the operator's key in {}: {source}", path.display())
            }
            Self::KeyFileStale { path } => write!(
                f,
                "{} holds a key of another database, and this one has no operator's key yet; move the file away, or set \
                 `data_dir` to the data it belongs to",
                path.display()
            ),
            Self::MasterKey(error) => error.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::SigningKey { tenant, kid, reason } => {
                write!(f, "signing key {kid:?} of tenant {tenant:?}: {reason}")
            }
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for AdminError {}

impl From<Refusal> for AdminError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a caller is told when the store did not do it.
pub(crate) fn store_refusal(error: &StoreError) -> Refusal {
    error.refusal()
}

/// A key that somebody handed in and that cannot be used.
pub(super) fn key_refusal(error: keys::KeyError) -> Refusal {
    let code = match error {
        keys::KeyError::TooMany => Code::QuotaExceeded,
        _ => Code::Invalid,
    };
    Refusal::new(code, error.to_string())
}

/// Sealing fails for reasons that are the broker's own.
pub(super) fn seal_refusal(error: seal::SealError) -> Refusal {
    match error {
        seal::SealError::TooLarge => Refusal::new(Code::TooLarge, error.to_string()),
        _ => {
            tracing::error!(%error, "a secret cannot be sealed");
            Refusal::new(Code::Internal, "the secret could not be sealed; see the log")
        }
    }
}
