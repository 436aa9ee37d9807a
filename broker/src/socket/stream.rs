//! A socket as an ordinary byte stream, for the HTTP server.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Socket;

/// A socket from which something has been read already.
#[derive(Debug)]
pub struct SocketStream {
    socket: Socket,
    /// Read before the rest.
    prefix: Bytes,
}

impl SocketStream {
    pub fn new(socket: Socket, prefix: Bytes) -> Self {
        Self { socket, prefix }
    }

    fn poll_flush_records(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.socket.try_flush()?;
            if !self.socket.wants_write() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.socket.poll_writable(cx))?;
        }
    }
}

impl AsyncRead for SocketStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            let n = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let n = ready!(self.socket.poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.try_write_vectored(slices) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_writable(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_records(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush_records(cx))?;
        self.socket.close_notify();
        self.socket.shutdown(std::net::Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
