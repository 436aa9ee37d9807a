//! The records of a TLS 1.3 connection after its handshake (RFC 8446, 4.6.3, 5 and 6). Pure: bytes in, bytes out; no socket, no
//! clock, no key schedule.
//!
//! What must stay true:
//! - No nonce is used twice under one key: each sealed record takes a number, numbers only grow, and they begin anew with a new
//!   key alone. A number that would wrap ends the connection.
//! - Nothing of a record is seen before its tag has been checked, and after a refusal nothing more is opened or sealed but the
//!   alert that tells it.
//! - A connection at rest holds two keys as bytes, 44 each with what makes nonces, and no expanded one: a key is expanded for a
//!   turn, used for all records in it, and wiped by aws-lc when the turn ends.
//! - What a peer can make us keep is bounded: the beginning of one record (the caller's) and of one key update (five bytes).
//! - Keys are wiped when dropped, and no `Debug` here shows any.
//!
//! Whoever drives this gives the next key when [`Opened::KeyUpdate`] or [`Sealing::wants_update`] asks for it: rustls derives it.

mod key_update;
mod keys;
mod open;
mod seal;
#[cfg(any(test, fuzzing))]
pub mod stand_in;
#[cfg(test)]
mod tests;

use std::fmt;

pub use key_update::UpdateRequest;
pub use keys::{Suite, TrafficKey};
pub use open::{Opened, Opener, Opening, record_len};
pub use seal::{Gather, Sealer, Sealing};

/// Outer type, version and length of a record, in bytes.
pub const HEAD_BYTES: usize = 5;
/// Tag of every AEAD of TLS 1.3, in bytes.
pub const TAG_BYTES: usize = 16;
/// Content of a record at most, in bytes (RFC 8446, 5.1).
pub const CONTENT_BYTES_MAX: usize = 1 << 14;
/// What a record is longer than its content when it is ours: head, inner type and tag, without padding. In bytes.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + 1 + TAG_BYTES;

/// `legacy_record_version`: TLS 1.3 says that it is TLS 1.2, for the sake of boxes in between.
const VERSION: [u8; 2] = [3, 3];

/// What is in a record (RFC 8446, 5.1).
mod content_type {
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
}

/// How a connection ends, by its number (RFC 8446, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert(pub u8);

impl Alert {
    pub const CLOSE_NOTIFY: Self = Self(0);
    pub const UNEXPECTED_MESSAGE: Self = Self(10);
    pub const BAD_RECORD_MAC: Self = Self(20);
    pub const RECORD_OVERFLOW: Self = Self(22);
    pub const ILLEGAL_PARAMETER: Self = Self(47);
    pub const DECODE_ERROR: Self = Self(50);
    pub const INTERNAL_ERROR: Self = Self(80);
    pub const USER_CANCELED: Self = Self(90);

    /// The severity that goes with it: ours to say, nobody's to believe.
    const fn level(self) -> u8 {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        match self {
            Self::CLOSE_NOTIFY | Self::USER_CANCELED => WARNING,
            _ => FATAL,
        }
    }

    const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            22 => "record_overflow",
            40 => "handshake_failure",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            86 => "inappropriate_fallback",
            90 => "user_canceled",
            109 => "missing_extension",
            110 => "unsupported_extension",
            112 => "unrecognized_name",
            113 => "bad_certificate_status_response",
            115 => "unknown_psk_identity",
            116 => "certificate_required",
            120 => "no_application_protocol",
            _ => return None,
        })
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "alert {}", self.0),
        }
    }
}

/// Why the records of a connection end. There is no going on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A record that is not protected: `change_cipher_spec`, an alert, or no TLS at all. By its outer type.
    Unprotected(u8),
    Version([u8; 2]),
    /// Longer than a record may be, by its head alone. In bytes.
    RecordTooLong(usize),
    /// It was not sealed with the key and the number that are next.
    BadMac,
    /// Nothing but padding.
    NoContentType,
    /// A record that holds more than a record may, in bytes.
    ContentTooLong(usize),
    /// A type of content that has no place after the handshake.
    ContentType(u8),
    /// An alert or a handshake message of no bytes.
    EmptyMessage,
    /// Another record between the pieces of a handshake message.
    Interleaved,
    AlertLength(usize),
    /// The peer has ended the connection.
    AlertReceived(Alert),
    /// A handshake message that a client does not send after the handshake.
    HandshakeType(u8),
    KeyUpdateLength,
    KeyUpdateRequest(u8),
    /// Something behind a key update in the same record, which it cannot protect.
    KeyUpdateNotLast,
    TooManyKeyUpdates,
    TooManyEmptyRecords,
    /// All numbers of records under this key are used.
    SequenceEnd,
    /// We have said that nothing more comes.
    Closed,
    /// There is no next key, or aws-lc takes none: our fault, not the peer's.
    Key,
}

impl RecordError {
    /// What the peer is told, if there is anything to tell.
    pub const fn alert(self) -> Option<Alert> {
        Some(match self {
            Self::Unprotected(_)
            | Self::NoContentType
            | Self::ContentType(_)
            | Self::EmptyMessage
            | Self::Interleaved
            | Self::HandshakeType(_)
            | Self::KeyUpdateNotLast
            | Self::TooManyKeyUpdates
            | Self::TooManyEmptyRecords => Alert::UNEXPECTED_MESSAGE,
            Self::Version(_) | Self::AlertLength(_) | Self::KeyUpdateLength => Alert::DECODE_ERROR,
            Self::RecordTooLong(_) | Self::ContentTooLong(_) => Alert::RECORD_OVERFLOW,
            Self::BadMac => Alert::BAD_RECORD_MAC,
            Self::KeyUpdateRequest(_) => Alert::ILLEGAL_PARAMETER,
            Self::SequenceEnd | Self::Key => Alert::INTERNAL_ERROR,
            Self::AlertReceived(_) | Self::Closed => return None,
        })
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unprotected(kind) => write!(f, "a record of type {kind} that is not protected"),
            Self::Version([major, minor]) => write!(f, "a record of version {major}.{minor}"),
            Self::RecordTooLong(bytes) => write!(f, "a record of {bytes} bytes"),
            Self::BadMac => f.write_str("a record that was not sealed with our key"),
            Self::NoContentType => f.write_str("a record of padding alone"),
            Self::ContentTooLong(bytes) => write!(f, "a record with {bytes} bytes in it"),
            Self::ContentType(kind) => write!(f, "a record with content of type {kind}"),
            Self::EmptyMessage => f.write_str("an alert or a handshake message of no bytes"),
            Self::Interleaved => f.write_str("a record between the pieces of a handshake message"),
            Self::AlertLength(bytes) => write!(f, "an alert of {bytes} bytes"),
            Self::AlertReceived(alert) => write!(f, "the peer ended TLS: {alert}"),
            Self::HandshakeType(kind) => write!(f, "a handshake message of type {kind} after the handshake"),
            Self::KeyUpdateLength => f.write_str("a key update of a wrong length"),
            Self::KeyUpdateRequest(request) => write!(f, "a key update with request {request}"),
            Self::KeyUpdateNotLast => f.write_str("a key update that does not end its record"),
            Self::TooManyKeyUpdates => f.write_str("key updates without content between them"),
            Self::TooManyEmptyRecords => f.write_str("too many records without content in a row"),
            Self::SequenceEnd => f.write_str("no number is left for a record"),
            Self::Closed => f.write_str("TLS has been closed"),
            Self::Key => f.write_str("there is no key"),
        }
    }
}

impl std::error::Error for RecordError {}
