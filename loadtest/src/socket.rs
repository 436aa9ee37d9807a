//! A socket that never blocks, with or without TLS: reads go into a buffer that all sockets of a thread share, and only what
//! is left of an incomplete frame is kept; writes that the kernel does not take wait in order.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::tls::{self, RECORD_BYTES_MAX, Sealed, Session};

/// The longest frame that there can be, in bytes, with its head.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// What a thread reads into, in bytes: behind an incomplete frame, TLS puts the record that it opens at a distance of one
/// record, and reads two more.
pub(crate) const BUFFER_BYTES: usize = READ_BYTES + 4 * RECORD_BYTES_MAX;

/// Content that is sealed at a time, in bytes, so that a long backlog is not held twice.
const SEAL_BYTES_MAX: usize = 256 * 1024;

/// Bytes that may wait for one socket. Beyond, the peer does not read, and the run ends rather than pretend.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a connection ends at the bound.
pub(crate) const UNREAD: &str = "the peer has left 64 MiB unread";
/// Why a connection ends that sends a message of TLS without end.
const OVERLONG: &str = "a message of TLS that does not end";
const _: () = assert!(WAITING_BYTES_MAX == 64 * 1024 * 1024);

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    tls: Option<Box<Session>>,
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
    /// `stream` must not block, or its owner wants to wait.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            tls: None,
            partial: Vec::new(),
            waiting: Vec::new(),
            written: 0,
        }
    }

    /// The same, through TLS.
    pub(crate) fn secured(stream: TcpStream, session: Session) -> Self {
        Self {
            tls: Some(Box::new(session)),
            ..Self::new(stream)
        }
    }

    /// Connects and, with a session, secures the connection: for who comes before anything is measured. Blocks, for `patience` at
    /// most in each of the two; the socket still blocks then, and no read for longer.
    ///
    /// # Errors
    /// If there is no connection; in words for people where TLS is why.
    pub(crate) fn dial(
        target: SocketAddr,
        session: Option<Session>,
        patience: Duration,
        shared: &mut [u8],
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let Some(session) = session else {
            return Ok(Self::new(stream));
        };
        let mut socket = Self::secured(stream, session);
        let secured = socket.shake_hands(Instant::now() + patience, shared);
        secured.map_err(|error| io::Error::other(tls::words(&error)))?;
        Ok(socket)
    }

    fn shake_hands(&mut self, until: Instant, shared: &mut [u8]) -> io::Result<()> {
        while self.tls().is_some_and(Session::is_handshaking) {
            self.flush()?;
            if let Some(end) = self.fill(shared)? {
                self.keep(&shared[..end]);
            }
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        self.flush().map(|_| ())
    }

    pub(crate) fn tls(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// Reads once into `shared`, behind what was incomplete before. Returns how many bytes of `shared` are to be looked at:
    /// None when there is nothing to read now.
    ///
    /// # Errors
    /// If the connection has ended or broken, or its TLS has failed.
    #[inline]
    pub(crate) fn fill(&mut self, shared: &mut [u8]) -> io::Result<Option<usize>> {
        let kept = self.partial.len();
        if kept > 0 {
            shared[..kept].copy_from_slice(&self.partial);
            self.partial.clear();
        }
        if self.tls.is_some() {
            return self.fill_sealed(shared, kept);
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

    /// The same through TLS: behind the `kept` bytes at a record's distance come records, whose content moves forward.
    fn fill_sealed(&mut self, shared: &mut [u8], kept: usize) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else {
            return Ok(None);
        };
        if tls.is_peer_closed() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from = kept + RECORD_BYTES_MAX;
        let at = tls
            .restore(shared, from)
            .ok_or_else(|| io::Error::other(OVERLONG))?;
        let end = match self.stream.read(&mut shared[at..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => at + count,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => at,
            Err(e) => return Err(e),
        };
        let opened = tls.open(shared, kept, from, end);
        // What the handshake has to say goes out at once, an alert too; what the kernel does not take goes with the next write.
        let flushed = tls.flush(&self.stream);
        let opened = opened.map_err(io::Error::other)?;
        flushed?;
        if opened > kept {
            return Ok(Some(opened));
        }
        if tls.is_peer_closed() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.keep(&shared[..kept]);
        Ok(None)
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
        self.waiting.is_empty() && self.tls.as_ref().is_none_or(|tls| tls.waiting() == 0)
    }

    /// Writes `bytes` now if nothing waits before them; what the kernel does not take waits.
    ///
    /// # Errors
    /// If the connection has broken, or the peer has left too much unread.
    pub(crate) fn write_or_queue(&mut self, bytes: &[u8]) -> io::Result<Flushed> {
        if self.tls.is_some() {
            self.check_bound()?;
            let idle = self.is_flushed();
            self.queue(bytes);
            return if idle { self.flush() } else { Ok(Flushed::Blocked) };
        }
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
        if self.tls.is_some() {
            return self.flush_sealed();
        }
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

    /// The same through TLS: what waits is sealed when all that was sealed before it is written, as few records as can be.
    fn flush_sealed(&mut self) -> io::Result<Flushed> {
        let Self {
            stream,
            tls: Some(tls),
            waiting,
            written,
            ..
        } = self
        else {
            return Ok(Flushed::All);
        };
        loop {
            if tls.flush(stream)? == Flushed::Blocked {
                self.check_bound()?;
                return Ok(Flushed::Blocked);
            }
            if *written == waiting.len() && !tls.is_handshaking() {
                waiting.clear();
                *written = 0;
                return Ok(Flushed::All);
            }
            let end = waiting.len().min(*written + SEAL_BYTES_MAX);
            match tls.seal(&waiting[*written..end]).map_err(io::Error::other)? {
                Sealed::Yes => *written = end,
                // The peer's turn: until it has spoken there is nothing to write.
                Sealed::NotYet if tls.waiting() == 0 => return Ok(Flushed::All),
                Sealed::NotYet => {}
            }
        }
    }

    /// The peer does not read: what waits for it has passed the bound, and who queues must stop.
    #[inline]
    pub(crate) fn is_over_bound(&self) -> bool {
        let sealed = self.tls.as_ref().map_or(0, |tls| tls.waiting());
        self.waiting.len() - self.written + sealed > WAITING_BYTES_MAX
    }

    fn check_bound(&self) -> io::Result<()> {
        if self.is_over_bound() {
            return Err(io::Error::other(UNREAD));
        }
        Ok(())
    }
}

/// Writes what the kernel takes at once.
pub(crate) fn write(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Ok(count) => return Ok(count),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
