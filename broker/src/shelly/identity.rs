//! Who a device is. The name it gives itself is foreign text: it becomes a type here or not at all.

use std::fmt;

/// Longest `src` accepted. Real ones have up to 30 bytes (`ShellyWallDisplay-00082214DC9F`).
pub const SRC_BYTES_MAX: usize = 64;

/// The key of a device within a tenant: its MAC in upper case, 1 to 64 ASCII letters and digits.
///
/// Not restricted to twelve hex digits: Gen1 names carry six, and captured names exist with fourteen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey(Box<str>);

impl DeviceKey {
    /// The key named by a MAC, in any case.
    ///
    /// # Errors
    /// [`IdentityError`] if `mac` is empty, too long, or not made of letters and digits.
    pub fn parse(mac: &str) -> Result<Self, IdentityError> {
        match mac.len() {
            0 => Err(IdentityError::Empty),
            len if len > SRC_BYTES_MAX => Err(IdentityError::TooLong),
            _ if !mac.bytes().all(|b| b.is_ascii_alphanumeric()) => Err(IdentityError::Charset),
            _ => Ok(Self(mac.to_ascii_uppercase().into())),
        }
    }

    /// The MAC in upper case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device's two names: the key we file it under, and the `src` it wants to be addressed by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    key: DeviceKey,
    /// Verbatim, because it goes back as `dst`; letters, digits, `-`, `_`, `.`, `:`, so it needs no JSON escaping.
    src: Box<str>,
}

impl Identity {
    /// Reads a device's `src`, `<app>-<mac>`.
    ///
    /// # Errors
    /// [`IdentityError`] if it is empty, longer than [`SRC_BYTES_MAX`], or holds characters no device name has.
    pub fn parse(src: &str) -> Result<Self, IdentityError> {
        if src.len() > SRC_BYTES_MAX {
            return Err(IdentityError::TooLong);
        }
        if !src
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
        {
            return Err(IdentityError::Charset);
        }
        Ok(Self {
            key: DeviceKey::parse(mac_part(src))?,
            src: src.into(),
        })
    }

    /// The key: MAC, upper case.
    pub fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// The device's own name, verbatim.
    pub fn src(&self) -> &str {
        &self.src
    }
}

/// Why a `src` names no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// Characters that no device name has.
    Charset,
    /// Nothing after the last `-`, or nothing at all.
    Empty,
    /// The frame carries no `src`; wait for one that does.
    Missing,
    /// Longer than [`SRC_BYTES_MAX`].
    TooLong,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Charset => "device name has characters outside A-Z a-z 0-9 - _ . :",
            Self::Empty => "device name has no MAC after its last '-'",
            Self::Missing => "frame has no src, so the device cannot be told",
            Self::TooLong => "device name is longer than 64 bytes",
        })
    }
}

impl std::error::Error for IdentityError {}

/// The part after the last `-`. X-series and Wall Display names carry several, or other prefixes.
fn mac_part(src: &str) -> &str {
    src.rsplit_once('-').map_or(src, |(_, mac)| mac)
}
