//! What we seal.

use std::fmt;
use std::io::IoSlice;

use aws_lc_rs::aead::{Aad, LessSafeKey};

use super::key_update::{UpdateRequest, message};
use super::keys::{Sequence, TrafficKey};
use super::{
    Alert, CONTENT_BYTES_MAX, HEAD_BYTES, OVERHEAD_BYTES, RecordError, TAG_BYTES, VERSION, content_type,
};

/// Numbers that are left for an alert when content may have no more, whatever the suite allows.
const SEQUENCE_RESERVE: u64 = 1 << 16;

/// What may be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    /// The peer has asked for a key update; it goes before the next content. Asking again changes nothing.
    OwesUpdate,
    /// Nothing more.
    Closed,
}

/// The sending direction at rest.
#[derive(Debug)]
pub struct Sealer {
    key: TrafficKey,
    sequence: Sequence,
    /// Records that one key may seal; the last of them is the key update that ends it.
    records_max: u64,
    standing: Standing,
}

impl Sealer {
    /// Goes on where somebody else stopped: the next record has the number `sequence` under `key`. No key seals more than
    /// `records_max` records.
    pub fn new(key: TrafficKey, sequence: u64, records_max: u64) -> Self {
        Self {
            key,
            sequence: Sequence::from(sequence),
            // Below two there would be key updates alone.
            records_max: records_max.clamp(2, u64::MAX - SEQUENCE_RESERVE),
            standing: Standing::Open,
        }
    }

    /// The peer wants us to change our key.
    pub fn owe_update(&mut self) {
        if self.standing == Standing::Open {
            self.standing = Standing::OwesUpdate;
        }
    }

    /// Seals records until the turn is dropped.
    ///
    /// # Errors
    /// If aws-lc has no memory.
    pub fn turn(&mut self) -> Result<Sealing<'_>, RecordError> {
        let expanded = self.key.expand()?;
        Ok(Sealing {
            sealer: self,
            expanded,
        })
    }
}

/// The sending direction in a turn. Records are appended to what they are given.
pub struct Sealing<'a> {
    sealer: &'a mut Sealer,
    /// Of the sealer's key.
    expanded: LessSafeKey,
}

impl fmt::Debug for Sealing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealing").field(self.sealer).finish()
    }
}

impl Sealing<'_> {
    /// Whether [`Self::update`] must come before the next content: the peer has asked for it, or this key has one record left.
    pub fn wants_update(&self) -> bool {
        match self.sealer.standing {
            Standing::Open => self.sealer.sequence.used() >= self.sealer.records_max - 1,
            Standing::OwesUpdate => true,
            Standing::Closed => false,
        }
    }

    /// Says that our key changes, under the old one, and changes to `next`. It asks for no update of the peer's: each side
    /// counts its own records.
    ///
    /// # Errors
    /// If the connection is closed, or there is no key.
    pub fn update(&mut self, next: TrafficKey, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.open_only()?;
        self.seal(out, content_type::HANDSHAKE, |out| {
            out.extend_from_slice(&message(UpdateRequest::NotRequested));
        })?;
        self.expanded = next.expand()?;
        self.sealer.key = next;
        self.sealer.sequence = Sequence::from(0);
        self.sealer.standing = Standing::Open;
        Ok(())
    }

    /// Seals what fits into one record, and answers how many bytes of content that are.
    ///
    /// # Errors
    /// If the connection is closed, or the key must change first.
    pub fn content(&mut self, from: &mut Gather<'_, '_>, out: &mut Vec<u8>) -> Result<usize, RecordError> {
        self.open_only()?;
        if self.wants_update() {
            return Err(RecordError::Key);
        }
        let mut bytes = 0;
        self.seal(out, content_type::APPLICATION_DATA, |out| {
            bytes = from.take(CONTENT_BYTES_MAX, out);
        })?;
        Ok(bytes)
    }

    /// Says how the connection ends. Nothing is sealed after it.
    ///
    /// # Errors
    /// If it has ended already.
    pub fn alert(&mut self, alert: Alert, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.open_only()?;
        self.sealer.standing = Standing::Closed;
        self.seal(out, content_type::ALERT, |out| {
            out.extend_from_slice(&[alert.level(), alert.0]);
        })
    }

    fn open_only(&self) -> Result<(), RecordError> {
        match self.sealer.standing {
            Standing::Open | Standing::OwesUpdate => Ok(()),
            Standing::Closed => Err(RecordError::Closed),
        }
    }

    fn seal(
        &mut self,
        out: &mut Vec<u8>,
        kind: u8,
        content: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), RecordError> {
        self.seal_inner(out, |out| {
            content(out);
            out.push(kind);
        })
    }

    /// Seals what `inner` appends, type and padding with it: at most 64 KiB less a tag.
    pub(super) fn seal_inner(
        &mut self,
        out: &mut Vec<u8>,
        inner: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), RecordError> {
        let from = out.len();
        out.extend_from_slice(&[content_type::APPLICATION_DATA, VERSION[0], VERSION[1], 0, 0]);
        inner(out);
        let sealed = self.seal_at(from, out);
        if sealed.is_err() {
            // What is not sealed must not stay where it would be sent from.
            out.truncate(from);
        }
        sealed
    }

    fn seal_at(&mut self, from: usize, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let Some((head, inner)) = out[from..].split_first_chunk_mut::<HEAD_BYTES>() else {
            return Err(RecordError::Key);
        };
        let length =
            u16::try_from(inner.len() + TAG_BYTES).map_err(|_| RecordError::ContentTooLong(inner.len()))?;
        [head[3], head[4]] = length.to_be_bytes();
        // The number is used up even if sealing fails.
        let nonce = self.sealer.key.nonce(self.sealer.sequence.take()?);
        let tag = self
            .expanded
            .seal_in_place_separate_tag(nonce, Aad::from(*head), inner)
            .map_err(|_| RecordError::Key)?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

/// Content that lies in many places, in the order in which it is to be sealed, up to a limit.
#[derive(Debug)]
pub struct Gather<'a, 'b> {
    slices: &'a [IoSlice<'b>],
    /// Bytes of the first slice that are taken.
    offset: usize,
    left: usize,
}

impl<'a, 'b> Gather<'a, 'b> {
    /// The first `bytes_max` bytes of `slices`.
    pub fn new(slices: &'a [IoSlice<'b>], bytes_max: usize) -> Self {
        let there: usize = slices.iter().map(|slice| slice.len()).sum();
        Self {
            slices,
            offset: 0,
            left: there.min(bytes_max),
        }
    }

    /// Bytes that are not taken.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Room that all of it takes when it is sealed, with a key update before it, in bytes.
    pub fn sealed_bytes(&self) -> usize {
        let records = self.left.div_ceil(CONTENT_BYTES_MAX) + 1;
        self.left + (records + 1) * OVERHEAD_BYTES
    }

    /// Appends at most `bytes_max` bytes to `out`, and answers how many they are.
    fn take(&mut self, bytes_max: usize, out: &mut Vec<u8>) -> usize {
        let wanted = self.left.min(bytes_max);
        let mut missing = wanted;
        while missing > 0
            && let Some((slice, later)) = self.slices.split_first()
        {
            let rest = &slice[self.offset..];
            let fits = rest.len().min(missing);
            out.extend_from_slice(&rest[..fits]);
            missing -= fits;
            if fits == rest.len() {
                (self.slices, self.offset) = (later, 0);
            } else {
                self.offset += fits;
            }
        }
        self.left -= wanted;
        wanted
    }
}
