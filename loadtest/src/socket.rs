//! A socket that never blocks: reads go into a buffer that all sockets of a thread share, and only what is left of an
//! incomplete frame is kept; writes that the kernel does not take wait in order.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

/// What a thread reads into, in bytes. The longest frame there can be.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// Bytes that may wait for one socket. Beyond, the peer does not read, and the run ends rather than pretend.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a connection ends at the bound.
pub(crate) const UNREAD: &str = "the peer has left 64 MiB unread";
const _: () = assert!(WAITING_BYTES_MAX == 64 * 1024 * 1024);

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    waiting: Vec<u8>,
    /// How much of `waiting` is written.
    written: usize,
}

/// Whether everything has been handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    All,
    /// The rest waits until the socket is writable.
    Blocked,
}

impl Socket {
    /// `stream` must not block.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            partial: Vec::new(),
            waiting: Vec::new(),
            written: 0,
        }
    }

    /// Reads once into `shared`, behind what was incomplete before. Returns how many bytes of `shared` are to be looked at:
    /// None when there is nothing to read now.
    ///
    /// # Errors
    /// If the connection has ended or broken.
    #[inline]
    pub(crate) fn fill(&mut self, shared: &mut [u8]) -> io::Result<Option<usize>> {
        let kept = self.partial.len();
        if kept > 0 {
            shared[..kept].copy_from_slice(&self.partial);
            self.partial.clear();
        }
        match self.stream.read(&mut shared[kept..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(Some(kept + count)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.keep(&shared[..kept]);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Keeps what [`Self::fill`] brought and nobody could use yet.
    #[inline]
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.partial.extend_from_slice(rest);
        }
    }

    #[inline]
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes `bytes` now if nothing waits before them; what the kernel does not take waits.
    ///
    /// # Errors
    /// If the connection has broken, or the peer has left too much unread.
    pub(crate) fn write_or_queue(&mut self, bytes: &[u8]) -> io::Result<Flushed> {
        let written = if self.waiting.is_empty() {
            write(&self.stream, bytes)?
        } else {
            0
        };
        if written == bytes.len() {
            return Ok(Flushed::All);
        }
        self.check_bound()?;
        self.queue(&bytes[written..]);
        Ok(Flushed::Blocked)
    }

    /// # Errors
    /// If the connection has broken, or the peer has left too much unread.
    #[inline]
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
        while self.written < self.waiting.len() {
            match write(&self.stream, &self.waiting[self.written..])? {
                0 => {
                    self.check_bound()?;
                    return Ok(Flushed::Blocked);
                }
                count => self.written += count,
            }
        }
        self.waiting.clear();
        self.written = 0;
        Ok(Flushed::All)
    }

    /// The peer does not read: what waits for it has passed the bound, and who queues must stop.
    #[inline]
    pub(crate) fn is_over_bound(&self) -> bool {
        self.waiting.len() - self.written > WAITING_BYTES_MAX
    }

    fn check_bound(&self) -> io::Result<()> {
        if self.is_over_bound() {
            return Err(io::Error::other(UNREAD));
        }
        Ok(())
    }
}

/// Writes what the kernel takes at once.
fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Ok(count) => return Ok(count),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
