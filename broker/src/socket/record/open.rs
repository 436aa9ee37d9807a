//! What the peer sealed.

use std::fmt;

use aws_lc_rs::aead::{Aad, LessSafeKey};

use super::key_update::{Partial, UpdateRequest};
use super::keys::{Sequence, TrafficKey};
use super::{Alert, CONTENT_BYTES_MAX, HEAD_BYTES, RecordError, TAG_BYTES, VERSION, content_type};

/// A protected record at most, behind its head, in bytes (RFC 8446, 5.2).
const PROTECTED_BYTES_MAX: usize = CONTENT_BYTES_MAX + 256;

/// Key updates without content between them. Each costs us a derivation; rustls and BoringSSL allow as many.
pub(super) const KEY_UPDATES_MAX: u8 = 32;

/// Records in a row that bring nothing: empty content, padding alone around it, pieces of a key update. They are allowed, to hide
/// the length of traffic, and would otherwise be work for nothing without end; rustls and BoringSSL allow as many.
pub(super) const EMPTY_RECORDS_MAX: u8 = 32;

/// What was in one record.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// Never empty.
    Content(&'a [u8]),
    /// Nothing for anybody.
    Nothing,
    /// The peer seals with its next key from the next record on: [`Opening::rekey`] before that one.
    KeyUpdate(UpdateRequest),
    /// The peer has said that nothing more comes.
    Closed,
}

/// How long the first record of `bytes` is with its head, as soon as all of it is there.
///
/// # Errors
/// If it is none of this connection, as soon as its head says so.
pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    if let Some(&kind) = bytes.first()
        && kind != content_type::APPLICATION_DATA
    {
        return Err(RecordError::Unprotected(kind));
    }
    let Some((&[_, major, minor, high, low], rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    if [major, minor] != VERSION {
        return Err(RecordError::Version([major, minor]));
    }
    let bytes = usize::from(u16::from_be_bytes([high, low]));
    if bytes > PROTECTED_BYTES_MAX {
        return Err(RecordError::RecordTooLong(bytes));
    }
    Ok((bytes <= rest.len()).then_some(HEAD_BYTES + bytes))
}

/// The receiving direction at rest.
#[derive(Debug)]
pub struct Opener {
    key: TrafficKey,
    sequence: Sequence,
    partial: Partial,
    /// Since the last content.
    key_updates: u8,
    /// Since the last content.
    empty_records: u8,
}

impl Opener {
    /// Goes on where somebody else stopped: the next record has the number `sequence` under `key`.
    pub fn new(key: TrafficKey, sequence: u64) -> Self {
        Self {
            key,
            sequence: Sequence::from(sequence),
            partial: Partial::default(),
            key_updates: 0,
            empty_records: 0,
        }
    }

    /// Opens records until the turn is dropped.
    pub fn turn(&mut self) -> Opening<'_> {
        Opening {
            opener: self,
            expanded: None,
        }
    }
}

/// The receiving direction in a turn.
pub struct Opening<'a> {
    opener: &'a mut Opener,
    /// Of the opener's key, from the first record on.
    expanded: Option<LessSafeKey>,
}

impl fmt::Debug for Opening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opening").field(self.opener).finish()
    }
}

impl Opening<'_> {
    /// Opens a record in place: as many bytes as [`record_len`] said.
    ///
    /// # Errors
    /// If it must end the connection.
    pub fn open<'r>(&mut self, record: &'r mut [u8]) -> Result<Opened<'r>, RecordError> {
        let inner = self.unseal(record)?;
        // Padding is zeros behind the type, which is not zero (RFC 8446, 5.4).
        let end = inner
            .iter()
            .rposition(|&byte| byte != 0)
            .ok_or(RecordError::NoContentType)?;
        let inner: &'r [u8] = inner;
        let (kind, content) = (inner[end], &inner[..end]);
        if !self.opener.partial.is_empty() && kind != content_type::HANDSHAKE {
            return Err(RecordError::Interleaved);
        }
        match kind {
            content_type::APPLICATION_DATA => self.content(content),
            content_type::HANDSHAKE | content_type::ALERT if content.is_empty() => {
                Err(RecordError::EmptyMessage)
            }
            content_type::HANDSHAKE => self.handshake(content),
            content_type::ALERT => self.alert(content),
            other => Err(RecordError::ContentType(other)),
        }
    }

    /// The key of all records from the next on.
    pub fn rekey(&mut self, key: TrafficKey) {
        self.opener.key = key;
        self.opener.sequence = Sequence::from(0);
        self.expanded = None;
    }

    fn unseal<'r>(&mut self, record: &'r mut [u8]) -> Result<&'r mut [u8], RecordError> {
        let Some((&mut head, protected)) = record.split_first_chunk_mut::<HEAD_BYTES>() else {
            return Err(RecordError::BadMac);
        };
        let expanded = match &mut self.expanded {
            Some(expanded) => expanded,
            none => none.insert(self.opener.key.expand()?),
        };
        let nonce = self.opener.key.nonce(self.opener.sequence.take()?);
        let inner = expanded
            .open_in_place(nonce, Aad::from(head), protected)
            .map_err(|_| RecordError::BadMac)?;
        // With its type and padding (RFC 8446, 5.4).
        if inner.len() > CONTENT_BYTES_MAX + 1 {
            return Err(RecordError::ContentTooLong(inner.len()));
        }
        Ok(inner)
    }

    fn content<'r>(&mut self, content: &'r [u8]) -> Result<Opened<'r>, RecordError> {
        if content.is_empty() {
            return self.nothing();
        }
        self.opener.key_updates = 0;
        self.opener.empty_records = 0;
        Ok(Opened::Content(content))
    }

    fn handshake(&mut self, content: &[u8]) -> Result<Opened<'static>, RecordError> {
        let Some(request) = self.opener.partial.take(content)? else {
            return self.nothing();
        };
        if self.opener.key_updates == KEY_UPDATES_MAX {
            return Err(RecordError::TooManyKeyUpdates);
        }
        self.opener.key_updates += 1;
        Ok(Opened::KeyUpdate(request))
    }

    /// In TLS 1.3 the description alone counts, whatever level it comes with (RFC 8446, 6).
    fn alert(&mut self, content: &[u8]) -> Result<Opened<'static>, RecordError> {
        let &[_, description] = content else {
            return Err(RecordError::AlertLength(content.len()));
        };
        match Alert(description) {
            Alert::CLOSE_NOTIFY => Ok(Opened::Closed),
            // Its close_notify is to follow.
            Alert::USER_CANCELED => self.nothing(),
            alert => Err(RecordError::AlertReceived(alert)),
        }
    }

    fn nothing(&mut self) -> Result<Opened<'static>, RecordError> {
        if self.opener.empty_records == EMPTY_RECORDS_MAX {
            return Err(RecordError::TooManyEmptyRecords);
        }
        self.opener.empty_records += 1;
        Ok(Opened::Nothing)
    }
}

const _: () = assert!(HEAD_BYTES + PROTECTED_BYTES_MAX < 64 * 1024 && TAG_BYTES < PROTECTED_BYTES_MAX);
