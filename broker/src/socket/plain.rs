//! Where content goes: to a reader, and what the reader has no room for, to be kept.

/// A reader's buffer.
#[derive(Debug)]
pub(super) struct Plain<'a> {
    buffer: &'a mut [u8],
    filled: usize,
    rest: &'a mut Vec<u8>,
}

impl<'a> Plain<'a> {
    pub(super) fn new(buffer: &'a mut [u8], rest: &'a mut Vec<u8>) -> Self {
        Self {
            buffer,
            filled: 0,
            rest,
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(self.buffer.len() - self.filled);
        self.buffer[self.filled..][..fits].copy_from_slice(&bytes[..fits]);
        self.filled += fits;
        self.rest.extend_from_slice(&bytes[fits..]);
    }

    /// Bytes in the reader's buffer.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }
}
