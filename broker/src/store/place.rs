//! The data directory: made private, and owned by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::config::StoreConfig;
use super::error::OpenError;

/// Ownership of a data directory, until dropped or the process ends, however it ends: the lock is the kernel's. The file
/// itself stays, and its content only serves the message to whoever comes second.
#[derive(Debug)]
pub(super) struct Place {
    lock: File,
}

impl Place {
    /// Makes the directory (for its owner alone) and an empty database file, takes the lock.
    pub(super) fn take(config: &StoreConfig) -> Result<Self, OpenError> {
        let failed = |path: &std::path::Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { path, source }
        };
        let dir = &config.data_dir;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed(dir))?;

        let path = config.lock_file();
        let mut lock = private().read(true).open(&path).map_err(failed(&path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Read for the message only; whatever is there, the answer is no.
                let _ = lock.read_to_string(&mut text);
                return Err(OpenError::InUse {
                    path: dir.clone(),
                    pid: text.trim().parse().ok(),
                });
            }
            Err(errno) => return Err(failed(&path)(errno.into())),
        }
        lock.set_len(0).map_err(failed(&path))?;
        writeln!(lock, "{}", std::process::id()).map_err(failed(&path))?;

        // SQLite would make it readable for the group; its side files take the mode of this one.
        let database = config.database();
        private().open(&database).map_err(failed(&database))?;
        Ok(Self { lock })
    }
}

impl Drop for Place {
    /// Closing the file would do, if nobody else had it open; but a child process that is just being started shares it
    /// for a moment.
    fn drop(&mut self) {
        // Should this fail, closing the file is next.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
}
