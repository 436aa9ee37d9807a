//! The one handshake message that either side may send after the handshake (RFC 8446, 4.6.3).

use super::RecordError;

const KEY_UPDATE: u8 = 24;
/// Type, length in three bytes, request.
pub(super) const MESSAGE_BYTES: usize = 5;
const LENGTH: [u8; 3] = [0, 0, 1];

/// Whether the sender of a key update wants one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateRequest {
    NotRequested,
    Requested,
}

/// The message itself.
pub(super) const fn message(request: UpdateRequest) -> [u8; MESSAGE_BYTES] {
    [KEY_UPDATE, LENGTH[0], LENGTH[1], LENGTH[2], request as u8]
}

/// A key update of which a part has come.
#[derive(Debug, Default)]
pub(super) struct Partial {
    bytes: [u8; MESSAGE_BYTES],
    len: usize,
}

impl Partial {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes what a record has of it. Judged byte by byte: what cannot become a key update is refused at once.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<Option<UpdateRequest>, RecordError> {
        let fits = piece.len().min(MESSAGE_BYTES - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&piece[..fits]);
        self.len += fits;
        let [kind, length @ .., request] = &self.bytes;
        if self.len >= 1 && *kind != KEY_UPDATE {
            return Err(RecordError::HandshakeType(*kind));
        }
        let known = (self.len.max(1) - 1).min(LENGTH.len());
        if length[..known] != LENGTH[..known] {
            return Err(RecordError::KeyUpdateLength);
        }
        if self.len < MESSAGE_BYTES {
            return Ok(None);
        }
        let request = match request {
            0 => UpdateRequest::NotRequested,
            1 => UpdateRequest::Requested,
            other => return Err(RecordError::KeyUpdateRequest(*other)),
        };
        // What follows in this record was sealed with the key that just ended.
        if fits < piece.len() {
            return Err(RecordError::KeyUpdateNotLast);
        }
        self.len = 0;
        Ok(Some(request))
    }
}
