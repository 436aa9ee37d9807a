//! The files that a configuration names: keys and secrets. The only part of this module that touches the disk.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::kind::{SECRET_BYTES_MIN, is_weak_secret};

/// Largest file with a key or secret, in bytes: an RSA key of 16,384 bits in PEM has 12.
pub const SECRET_FILE_BYTES_MAX: usize = 64 * 1024;

/// Who may read a file with a secret in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Anybody: public keys, certificates.
    Anybody,
    /// Its owner, perhaps a group, but not the whole machine.
    NotTheWorld,
}

/// Why a file could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    pub path: PathBuf,
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.message)
    }
}

impl std::error::Error for FileError {}

/// Reads a small text file. Blocks.
///
/// # Errors
/// If it cannot be read, is too large, not UTF-8, or open to more readers than allowed.
pub fn read_file(path: &Path, readers: Readers) -> Result<String, FileError> {
    let error = |message: String| FileError {
        path: path.to_owned(),
        message,
    };
    let file = std::fs::File::open(path).map_err(|e| error(format!("cannot be read: {e}")))?;
    let metadata = file
        .metadata()
        .map_err(|e| error(format!("cannot be read: {e}")))?;
    if !metadata.is_file() {
        return Err(error("is not a file".to_owned()));
    }
    if readers == Readers::NotTheWorld && is_world_readable(&metadata) {
        return Err(error(
            "holds a secret and everybody may read it: chmod o-rwx it".to_owned(),
        ));
    }
    let mut text = String::new();
    let limit = SECRET_FILE_BYTES_MAX as u64 + 1;
    file.take(limit)
        .read_to_string(&mut text)
        .map_err(|e| error(format!("cannot be read: {e}")))?;
    if text.len() > SECRET_FILE_BYTES_MAX {
        return Err(error(format!("is longer than {SECRET_FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Reads a shared secret; line ends at its end are not part of it. Blocks.
///
/// # Errors
/// As [`read_file`], and if the secret is weak.
pub fn read_secret_file(path: &Path) -> Result<SecretString, FileError> {
    let text = read_file(path, Readers::NotTheWorld)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if is_weak_secret(secret.as_bytes()) {
        return Err(FileError {
            path: path.to_owned(),
            message: format!("the secret is weak: at least {SECRET_BYTES_MIN} random bytes are needed"),
        });
    }
    Ok(secret.to_owned().into())
}

#[cfg(unix)]
fn is_world_readable(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o007 != 0
}

#[cfg(not(unix))]
fn is_world_readable(_: &std::fs::Metadata) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_that_everybody_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        let secret = read_secret_file(&path).unwrap();
        assert_eq!(secret.expose_secret(), "0123456789abcdef0123456789abcdef");
        mode(0o644);
        assert!(read_secret_file(&path).unwrap_err().message.contains("chmod"));
        assert!(read_file(&path, Readers::Anybody).is_ok());
    }

    #[test]
    fn weak_missing_and_endless_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(read_secret_file(&path).is_err());
        assert!(read_secret_file(dir.path()).is_err());
        assert!(
            read_file(Path::new("/dev/zero"), Readers::Anybody)
                .unwrap_err()
                .message
                .contains("not a file")
        );
        for weak in ["", "short", &"a".repeat(64)] {
            std::fs::write(&path, weak).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(
                read_secret_file(&path).unwrap_err().message.contains("weak"),
                "{weak}"
            );
        }
        std::fs::write(&path, vec![b'a'; SECRET_FILE_BYTES_MAX + 1]).unwrap();
        assert!(read_file(&path, Readers::Anybody).is_err());
    }
}
