//! A TCP socket, with or without TLS, read and written without waiting: bytes in, bytes out, no decision.
//!
//! Reading goes through tokio's poll, which clears readiness after a short read and so saves the extra `recv` that would only
//! say "nothing more". Writing tries at once: the kernel's buffer takes nearly everything, and only a reader that is behind
//! costs a wait.

mod handshake;
mod plain;
pub mod record;
mod stream;
mod tls;
mod traffic;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;

pub use stream::SocketStream;
use tls::Opened;
pub use tls::Tls;

/// A peer that is gone is an error of the call, not a signal to the process.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
/// There the socket has been told so when it was opened.
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: SendFlags = SendFlags::empty();

/// A socket that belongs to no runtime, on its way from one thread to another.
#[derive(Debug)]
pub struct Parts {
    pub tcp: std::net::TcpStream,
    pub tls: Option<Box<RefCell<Tls>>>,
}

/// A socket of the runtime that it was adopted on.
#[derive(Debug)]
pub struct Socket {
    tcp: RefCell<TcpStream>,
    tls: Option<Box<RefCell<Tls>>>,
}

impl Socket {
    /// Registers the socket with the runtime of this thread.
    ///
    /// # Errors
    /// As the system has it.
    pub fn adopt(parts: Parts) -> io::Result<Self> {
        let Parts { tcp, tls } = parts;
        tcp.set_nonblocking(true)?;
        let tcp = RefCell::new(TcpStream::from_std(tcp)?);
        Ok(Self { tcp, tls })
    }

    /// Takes the socket from its runtime.
    ///
    /// # Errors
    /// As the system has it.
    pub fn into_parts(self) -> io::Result<Parts> {
        Ok(Parts {
            tcp: self.tcp.into_inner().into_std()?,
            tls: self.tls,
        })
    }

    /// Reads what is there into `buffer`; 0 is the end.
    ///
    /// # Errors
    /// As the system or TLS has it.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &self.tls {
            None => self.poll_read_tcp(cx, buffer),
            Some(tls) => self.poll_read_tls(&mut tls.borrow_mut(), cx, buffer),
        }
    }

    fn poll_read_tcp(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *self.tcp.borrow_mut()).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_read_tls(
        &self,
        tls: &mut Tls,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(bytes) = tls.take_opened(buffer) {
                return Poll::Ready(Ok(bytes));
            }
            let opened = tls.open(buffer, |room| match self.poll_read_tcp(cx, room) {
                Poll::Ready(result) => result,
                Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            });
            // Handshake answers and alerts go out at once; what does not fit goes with the next write.
            let flushed = self.write_records(tls);
            match opened {
                Ok(Opened::Content(bytes)) => return Poll::Ready(Ok(bytes)),
                Ok(Opened::Nothing) => flushed?,
                Ok(Opened::End) => return Poll::Ready(Ok(0)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Writes as much of one piece as the kernel takes now.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing, otherwise as the system or TLS has it.
    pub fn try_write(&self, piece: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.send(piece),
            Some(tls) => self.seal(&mut tls.borrow_mut(), &[IoSlice::new(piece)]),
        }
    }

    /// The same of several pieces, as if they were one.
    ///
    /// # Errors
    /// As for [`Socket::try_write`].
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.borrow().try_write_vectored(pieces),
            Some(tls) => self.seal(&mut tls.borrow_mut(), pieces),
        }
    }

    fn seal(&self, tls: &mut Tls, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_records(tls)?;
        if !tls.outgoing().is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        tls.seal(pieces, |sealed| self.send(sealed))
    }

    /// One piece goes by `send`, which is a twentieth cheaper than `writev`: no list to copy, no file to write to. And not through the runtime,
    /// whose word on whether it may go costs more than asking the kernel, except for one that does not go: the runtime must learn
    /// of it, or it would not say when the kernel takes bytes again.
    fn send(&self, piece: &[u8]) -> io::Result<usize> {
        let tcp = self.tcp.borrow();
        match rustix::net::send(&*tcp, piece, NO_SIGNAL) {
            Ok(taken) => Ok(taken),
            Err(rustix::io::Errno::WOULDBLOCK) => tcp.try_write(piece),
            Err(e) => Err(e.into()),
        }
    }

    /// Whether bytes that were taken still wait in TLS for the kernel.
    pub fn wants_write(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|tls| !tls.borrow().outgoing().is_empty())
    }

    /// Hands waiting TLS records to the kernel, as many as it takes.
    ///
    /// # Errors
    /// As the system has it.
    pub fn try_flush(&self) -> io::Result<()> {
        match &self.tls {
            None => Ok(()),
            Some(tls) => self.write_records(&mut tls.borrow_mut()),
        }
    }

    fn write_records(&self, tls: &mut Tls) -> io::Result<()> {
        while !tls.outgoing().is_empty() {
            match self.send(tls.outgoing()) {
                Ok(taken) => tls.advance(taken),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Waits until the kernel takes bytes again. Cancel-safe.
    ///
    /// # Errors
    /// As the system has it.
    pub async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_writable(cx)).await
    }

    /// See [`Socket::writable`].
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.borrow().poll_write_ready(cx)
    }

    /// Says TLS's goodbye, if it has one to say. What the kernel does not take is not said.
    pub fn close_notify(&self) {
        if let Some(tls) = &self.tls {
            let tls = &mut *tls.borrow_mut();
            // The connection ends either way.
            let _ = self.write_records(tls);
            tls.close(|sealed| self.send(sealed));
        }
    }

    /// Ends one or both directions; a reader of this socket then wakes with the end of the stream.
    pub fn shutdown(&self, how: Shutdown) {
        // An error means that the peer is gone already.
        let _ = socket2::SockRef::from(&*self.tcp.borrow()).shutdown(how);
    }
}
