//! A TCP socket, with or without TLS, read and written without waiting: bytes in, bytes out, no decision.
//!
//! Reading goes through tokio's poll, which clears readiness after a short read and so saves the extra `recv` that would only
//! say "nothing more". Writing tries at once: the kernel's buffer takes nearly everything, and only a reader that is behind
//! costs a wait.

mod stream;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;

pub use stream::SocketStream;

/// Bytes of plaintext and of records that rustls may hold for a slow reader, each.
const TLS_BUFFER_BYTES: usize = 64 * 1024;

/// A socket that belongs to no runtime, on its way from one thread to another.
#[derive(Debug)]
pub struct Parts {
    pub tcp: std::net::TcpStream,
    pub tls: Option<Box<RefCell<ServerConnection>>>,
}

/// A socket of the runtime that it was adopted on.
#[derive(Debug)]
pub struct Socket {
    tcp: RefCell<TcpStream>,
    tls: Option<Box<RefCell<ServerConnection>>>,
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
        if let Some(tls) = &tls {
            tls.borrow_mut().set_buffer_limit(Some(TLS_BUFFER_BYTES));
        }
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
        tls: &mut ServerConnection,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match tls.reader().read(buffer) {
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
            match tls.read_tls(&mut PollReader { socket: self, cx }) {
                Ok(0) => return Poll::Ready(Ok(0)),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(e) => return Poll::Ready(Err(e)),
            }
            let processed = tls.process_new_packets();
            // Handshake answers and alerts go out at once; what does not fit goes with the next write.
            self.write_records(tls)?;
            if let Err(e) = processed {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, e)));
            }
        }
    }

    /// Writes as much as the kernel takes now.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing, otherwise as the system or TLS has it.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self.tcp.borrow().try_write_vectored(slices);
        };
        let tls = &mut *tls.borrow_mut();
        self.write_records(tls)?;
        let taken = tls.writer().write_vectored(slices)?;
        self.write_records(tls)?;
        if taken == 0 {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(taken)
        }
    }

    /// Whether bytes that were taken still wait in TLS for the kernel.
    pub fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.borrow().wants_write())
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

    fn write_records(&self, tls: &mut ServerConnection) -> io::Result<()> {
        while tls.wants_write() {
            match tls.write_tls(&mut TryWriter(&self.tcp.borrow())) {
                Ok(_) => {}
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
            tls.send_close_notify();
            // The connection ends either way.
            let _ = self.write_records(tls);
        }
    }

    /// Ends one or both directions; a reader of this socket then wakes with the end of the stream.
    pub fn shutdown(&self, how: Shutdown) {
        // An error means that the peer is gone already.
        let _ = socket2::SockRef::from(&*self.tcp.borrow()).shutdown(how);
    }
}

/// The socket's read side as rustls wants it.
struct PollReader<'a, 'b> {
    socket: &'a Socket,
    cx: &'a mut Context<'b>,
}

impl io::Read for PollReader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.socket.poll_read_tcp(self.cx, buffer) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// The socket's write side as rustls wants it.
struct TryWriter<'a>(&'a TcpStream);

impl io::Write for TryWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
