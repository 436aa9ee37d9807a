//! Configuration: one TOML file, then the environment (`CAUCE_LIMITS__FRAME_BYTES`), then flags (`limits.frame_bytes=…`); the
//! later one wins. [`load`] is pure: it is given texts and answers with plain typed fields, so everybody else reads fields
//! and nobody else reads the environment.
//!
//! What must stay true:
//! - The table in `schema` is the only list of settings. Whatever is not on it is an error that names the place and the nearest key.
//! - Every value has a [`Source`].
//! - No secret is in an error, in `Debug`, or in what [`Loaded::to_toml`] and [`Loaded::to_json`] print.

mod check;
mod choice;
mod file;
mod files;
mod kind;
mod load;
mod names;
mod origin;
mod schema;
mod show;

pub use choice::{Algorithm, LogFormat};
pub use files::{FileError, Readers, SECRET_FILE_BYTES_MAX, read_file, read_secret_file};
pub use kind::{Kind, MASK, SECRET_BYTES_MIN, Value, is_weak_secret};
pub(crate) use kind::{duration_ms, show_duration, show_size, size_bytes};
pub use load::{Entry, LoadInputs, Loaded, Source, environment, load};
pub use origin::Origins;
pub use schema::{
    Admin, Auth, AuthJwks, AuthKey, Config, Drain, Heartbeat, Limits, Log, Reload, Rooms, SECTIONS, Section,
    Setting, Store, Threads, Tls,
};
pub use show::{markdown, template};

/// Why a configuration was refused: one line that says where, what and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub source: Source,
    /// Empty if the text as a whole is wrong.
    pub key: String,
    pub message: String,
}

impl ConfigError {
    /// What a process that refuses its configuration exits with: `EX_CONFIG` of sysexits(3).
    pub const EXIT_CODE: u8 = 78;
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.source)?;
        // A flag's source names its key already.
        let named = matches!(&self.source, Source::Flag(key) if **key == *self.key);
        if !self.key.is_empty() && !named {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

impl Default for Config {
    /// What holds when nothing is configured.
    fn default() -> Self {
        match load(LoadInputs::default()) {
            Ok(loaded) => loaded.config,
            // The table is constant and a test loads it.
            Err(e) => unreachable!("{e}"),
        }
    }
}

#[cfg(test)]
mod tests;
