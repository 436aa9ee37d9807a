//! The server's side of TLS on one socket: rustls until the handshake is over, then, in TLS 1.3, our own records.
//!
//! What must stay true: an idle connection holds its keys and no buffer. Records are read and sealed in buffers that all
//! connections of a thread share; a connection keeps only the beginning of a record whose end has not come, content that its
//! reader had no room for, and records that the kernel has not taken. Each of them is bounded, and given back when it is
//! empty. A connection that an error has ended holds no keys.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

use rustls::ServerConfig;

use super::handshake::{self, Handshake};
use super::plain::Plain;
use super::record::{Alert, RecordError};
use super::traffic::{self, Traffic};

/// Bytes of records that are looked at in one go. What makes no whole message within them ends the connection.
const RECORDS_BYTES: usize = 64 * 1024;
/// Bytes of content that are sealed in one go.
const CONTENT_BYTES: usize = 64 * 1024;

/// What the connections of a thread share.
struct Room {
    records: Vec<u8>,
    content: Vec<u8>,
    sealed: Vec<u8>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(Room {
        records: vec![0; RECORDS_BYTES],
        content: Vec::new(),
        sealed: Vec::new(),
    });
}

/// TLS of one connection.
pub struct Tls {
    layer: Layer,
    /// What comes and goes and, when the connection is idle, is not there.
    kept: Kept,
    /// The peer has said that nothing more comes.
    peer_closed: bool,
}

/// Who speaks TLS.
#[derive(Debug)]
enum Layer {
    /// rustls: every handshake, and the whole of TLS 1.2.
    Handshake(Box<Handshake>),
    /// We: TLS 1.3 after its handshake.
    Traffic(Box<Traffic>),
    /// An error has ended it.
    Ended,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("layer", &self.layer)
            .field("kept", &self.kept)
            .field("peer_closed", &self.peer_closed)
            .finish()
    }
}

#[derive(Default)]
struct Kept {
    /// The beginning of a record.
    incoming: Vec<u8>,
    /// Content that its reader had no room for.
    opened: Vec<u8>,
    /// Records that the kernel has not taken.
    outgoing: Vec<u8>,
}

/// Lengths alone: what is in it is nobody's business.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("incoming", &self.incoming.len())
            .field("opened", &self.opened.len())
            .field("outgoing", &self.outgoing.len())
            .finish()
    }
}

/// What became of one read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// So many bytes of content.
    Content(usize),
    /// Bytes came, but no content yet.
    Nothing,
    /// The peer has said that it is done.
    End,
}

impl Tls {
    /// The beginning of a connection that a peer has made. The configuration must allow extraction of secrets: TLS 1.3 ends
    /// after the handshake without it.
    ///
    /// # Errors
    /// As rustls has it.
    pub fn accept(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            layer: Layer::Handshake(Box::new(Handshake::new(config)?)),
            kept: Kept::default(),
            peer_closed: false,
        })
    }

    /// Takes content that was opened before, if there is any.
    pub(super) fn take_opened(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.kept.opened.is_empty() {
            return self.peer_closed.then_some(0);
        }
        let bytes = buffer.len().min(self.kept.opened.len());
        buffer[..bytes].copy_from_slice(&self.kept.opened[..bytes]);
        remove_front(&mut self.kept.opened, bytes);
        Some(bytes)
    }

    /// Reads once with `read`, and puts the content of what came into `buffer`. What is to be answered, and the alert if an
    /// error ends the connection, then waits in [`Self::outgoing`].
    ///
    /// # Errors
    /// As `read` has it, and if what came is no TLS of this connection.
    pub(super) fn open(
        &mut self,
        buffer: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Opened> {
        ROOM.with_borrow_mut(|room| {
            let kept = self.kept.incoming.len();
            if kept >= room.records.len() {
                return Err(invalid("a message that does not end"));
            }
            // Read first: when nothing is there, nothing has moved.
            let count = read(&mut room.records[kept..])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            room.records[..kept].copy_from_slice(&self.kept.incoming);
            self.kept.incoming = Vec::new();
            let opened = self.open_records(&mut room.records[..kept + count], buffer);
            if let Err(error) = &opened {
                tracing::debug!(%error, "a TLS connection ends");
                self.layer = Layer::Ended;
            }
            opened
        })
    }

    fn open_records(&mut self, records: &mut [u8], buffer: &mut [u8]) -> io::Result<Opened> {
        let Kept {
            incoming,
            opened,
            outgoing,
        } = &mut self.kept;
        let mut plain = Plain::new(buffer, opened);
        let mut from = 0;
        loop {
            let rest = &mut records[from..];
            match &mut self.layer {
                Layer::Handshake(handshake) => {
                    let (used, outcome) = handshake.open(rest, &mut plain, outgoing);
                    from += used;
                    match outcome.map_err(invalid)? {
                        handshake::Stop::Starved => break,
                        handshake::Stop::PeerClosed => {
                            self.peer_closed = true;
                            break;
                        }
                        // What is left is for who takes over.
                        handshake::Stop::Over => self.layer.take_over().map_err(invalid)?,
                    }
                }
                Layer::Traffic(traffic) => {
                    let (used, outcome) = traffic.open(rest, &mut plain, outgoing);
                    from += used;
                    self.peer_closed = outcome? == traffic::Stop::PeerClosed;
                    break;
                }
                Layer::Ended => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        // What comes behind the peer's goodbye is nothing.
        if !self.peer_closed {
            *incoming = records[from..].to_vec();
        }
        Ok(match plain.filled() {
            0 if self.peer_closed => Opened::End,
            0 => Opened::Nothing,
            bytes => Opened::Content(bytes),
        })
    }

    /// Records that wait for the kernel.
    pub(super) fn outgoing(&self) -> &[u8] {
        &self.kept.outgoing
    }

    /// The kernel has taken so many bytes of [`Self::outgoing`].
    pub(super) fn advance(&mut self, bytes: usize) {
        remove_front(&mut self.kept.outgoing, bytes);
    }

    /// Seals as much of `slices` as one go may, and hands it to `write`, which answers how much the kernel took. The rest waits
    /// in [`Self::outgoing`], which must be empty. Answers how many bytes of content are sealed.
    ///
    /// # Errors
    /// As `write` has it; if the handshake is not over, or the connection is.
    pub(super) fn seal(
        &mut self,
        slices: &[IoSlice<'_>],
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        ROOM.with_borrow_mut(|Room { content, sealed, .. }| {
            sealed.clear();
            let bytes = match &mut self.layer {
                Layer::Traffic(traffic) => match traffic.seal(slices, CONTENT_BYTES, sealed) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        // A record may be sealed that never goes: the peer would miss it. Who has said goodbye may still read.
                        if error != RecordError::Closed {
                            self.layer = Layer::Ended;
                        }
                        return Err(error.into());
                    }
                },
                Layer::Handshake(handshake) => {
                    content.clear();
                    for slice in slices {
                        let fits = slice.len().min(CONTENT_BYTES - content.len());
                        content.extend_from_slice(&slice[..fits]);
                    }
                    handshake.seal(content, &mut self.kept.incoming, sealed)?;
                    content.len()
                }
                Layer::Ended => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            self.write_sealed(sealed, write)?;
            Ok(bytes)
        })
    }

    /// Says that nothing more comes from us. What cannot be said now is not said.
    pub(super) fn close(&mut self, write: impl FnOnce(&[u8]) -> io::Result<usize>) {
        if !self.kept.outgoing.is_empty() {
            return;
        }
        ROOM.with_borrow_mut(|Room { sealed, .. }| {
            sealed.clear();
            let said = match &mut self.layer {
                Layer::Traffic(traffic) => traffic
                    .alert(Alert::CLOSE_NOTIFY, sealed)
                    .map_err(io::Error::from),
                Layer::Handshake(handshake) => handshake.close(&mut self.kept.incoming, sealed),
                Layer::Ended => return,
            }
            .and_then(|()| self.write_sealed(sealed, write));
            // The connection ends either way.
            drop(said);
        });
    }

    fn write_sealed(
        &mut self,
        sealed: &[u8],
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let taken = match write(sealed) {
            Ok(taken) => taken,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(e) => return Err(e),
        };
        if taken < sealed.len() {
            self.kept.outgoing = sealed[taken..].to_vec();
        }
        Ok(())
    }
}

impl Layer {
    /// From rustls to us.
    fn take_over(&mut self) -> Result<(), rustls::Error> {
        if let Self::Handshake(handshake) = std::mem::replace(self, Self::Ended) {
            *self = Self::Traffic(Box::new(Traffic::take_over(handshake.into_server())?));
        }
        Ok(())
    }
}

/// Drops the beginning, and the buffer with it when nothing is left.
fn remove_front(bytes: &mut Vec<u8>, count: usize) {
    if count >= bytes.len() {
        *bytes = Vec::new();
    } else {
        bytes.drain(..count);
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
