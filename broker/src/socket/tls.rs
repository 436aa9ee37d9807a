//! The server's side of TLS on one socket, over rustls without its buffers.
//!
//! What must stay true: an idle connection holds its keys and no buffer. Records are read and sealed in buffers that all
//! connections of a thread share; a connection keeps only the beginning of a record whose end has not come, content that its
//! reader had no room for, and records that the kernel has not taken. Each of them is bounded, and given back when it is
//! empty.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

/// Bytes of records that are looked at in one go. What makes no whole message within them ends the connection.
const RECORDS_BYTES: usize = 64 * 1024;
/// Bytes of content that are sealed in one go.
const CONTENT_BYTES: usize = 64 * 1024;
/// What a record is longer than its content at most: head, type, tag and an explicit nonce, in bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Content that a record holds at most, in bytes.
const RECORD_CONTENT_BYTES: usize = 16 * 1024;
/// What a handshake has to say at a time fits in here, in bytes, unless the certificate's chain is long.
const FLIGHT_BYTES: usize = 4 * 1024;
/// What rustls may say together with content: a message that changes keys, an alert. In bytes.
const ASIDE_BYTES: usize = 256;

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
    server: UnbufferedServerConnection,
    /// What comes and goes and, when the connection is idle, is not there.
    kept: Kept,
    /// The peer has said that nothing more comes.
    peer_closed: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("handshaking", &self.server.is_handshaking())
            .field("kept", &self.kept)
            .field("peer_closed", &self.peer_closed)
            .finish_non_exhaustive()
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

/// What one turn of rustls came to.
enum Turn {
    Content,
    Again,
    Starved,
    Open,
    PeerClosed,
}

impl Tls {
    /// The beginning of a connection that a peer has made.
    ///
    /// # Errors
    /// As rustls has it.
    pub fn accept(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            server: UnbufferedServerConnection::new(config)?,
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

    /// Reads once with `read`, and puts the content of what came into `buffer`. What the handshake has to say then waits in
    /// [`Self::outgoing`].
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
            self.open_records(&mut room.records[..kept + count], buffer)
        })
    }

    fn open_records(&mut self, records: &mut [u8], buffer: &mut [u8]) -> io::Result<Opened> {
        let (mut from, mut content) = (0, 0);
        let mut take = |bytes: &[u8], rest: &mut Vec<u8>| {
            let fits = bytes.len().min(buffer.len() - content);
            buffer[content..][..fits].copy_from_slice(&bytes[..fits]);
            content += fits;
            rest.extend_from_slice(&bytes[fits..]);
        };
        loop {
            let (discard, turn) = self.turn(&mut records[from..], &mut take);
            from += discard;
            match turn {
                Ok(Turn::Content | Turn::Again) => {}
                Ok(Turn::Starved | Turn::Open) => {
                    self.kept.incoming = records[from..].to_vec();
                    break;
                }
                Ok(Turn::PeerClosed) => {
                    self.peer_closed = true;
                    break;
                }
                Err(error) => {
                    // The alert that says so.
                    let _ = self.turn(&mut records[from..], &mut |_, _| {});
                    return Err(invalid(error));
                }
            }
        }
        Ok(match content {
            0 if self.peer_closed => Opened::End,
            0 => Opened::Nothing,
            bytes => Opened::Content(bytes),
        })
    }

    /// One turn of rustls, which opens one record at most and gives its content to `take`. Answers how many bytes of `records`
    /// are done with.
    fn turn(
        &mut self,
        records: &mut [u8],
        take: &mut dyn FnMut(&[u8], &mut Vec<u8>),
    ) -> (usize, Result<Turn, rustls::Error>) {
        let UnbufferedStatus { mut discard, state } = self.server.process_tls_records(records);
        let outcome = match state {
            Err(error) => Err(error),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    None => break Ok(Turn::Content),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(record)) => {
                        take(record.payload, &mut self.kept.opened);
                        discard += record.discard;
                    }
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                put(&mut self.kept.outgoing, FLIGHT_BYTES, |room| {
                    data.encode(room).map_err(|error| match error {
                        EncodeError::InsufficientSize(size) => Full::Needs(size.required_size),
                        EncodeError::AlreadyEncoded => Full::Failed(rustls::Error::EncryptError),
                    })
                })
                .map(|()| Turn::Again)
            }
            // It goes to the kernel in order with all else.
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Turn::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Turn::Starved),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Turn::Open),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Turn::PeerClosed),
            // We offer no early data.
            Ok(_) => Err(rustls::PeerMisbehaved::TooMuchEarlyDataReceived.into()),
        };
        (discard, outcome)
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
            content.clear();
            for slice in slices {
                let fits = slice.len().min(CONTENT_BYTES - content.len());
                content.extend_from_slice(&slice[..fits]);
            }
            let records = content.len() / RECORD_CONTENT_BYTES + 1;
            let bytes = content.len() + records * RECORD_OVERHEAD_BYTES + ASIDE_BYTES;
            self.put_sealed(sealed, bytes, |traffic, room| traffic.encrypt(content, room))?;
            self.write_sealed(sealed, write)?;
            Ok(content.len())
        })
    }

    /// Says that nothing more comes from us. What cannot be said now is not said.
    pub(super) fn close(&mut self, write: impl FnOnce(&[u8]) -> io::Result<usize>) {
        if !self.kept.outgoing.is_empty() {
            return;
        }
        ROOM.with_borrow_mut(|Room { sealed, .. }| {
            let said = self
                .put_sealed(sealed, ASIDE_BYTES, |traffic, room| {
                    traffic.queue_close_notify(room)
                })
                .and_then(|()| self.write_sealed(sealed, write));
            // The connection ends either way.
            drop(said);
        });
    }

    /// Lets `seal` fill `sealed` with some `bytes`, behind what rustls itself has to say first.
    fn put_sealed(
        &mut self,
        sealed: &mut Vec<u8>,
        bytes: usize,
        mut seal: impl FnMut(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        sealed.clear();
        loop {
            // What was kept is shown again: rustls counts on its being there.
            let UnbufferedStatus { discard, state } =
                self.server.process_tls_records(&mut self.kept.incoming);
            let done = match state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    put(sealed, bytes, |room| {
                        seal(&mut traffic, room).map_err(|error| match error {
                            EncryptError::InsufficientSize(size) => Full::Needs(size.required_size),
                            EncryptError::EncryptExhausted => Full::Failed(rustls::Error::EncryptError),
                        })
                    })
                    .map_err(invalid)?;
                    true
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    put(sealed, FLIGHT_BYTES, |room| {
                        data.encode(room).map_err(|error| match error {
                            EncodeError::InsufficientSize(size) => Full::Needs(size.required_size),
                            EncodeError::AlreadyEncoded => Full::Failed(rustls::Error::EncryptError),
                        })
                    })
                    .map_err(invalid)?;
                    false
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    false
                }
                ConnectionState::BlockedHandshake => return Err(io::ErrorKind::NotConnected.into()),
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            self.kept.incoming.drain(..discard);
            if done {
                return Ok(());
            }
        }
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

/// Why something was not written into the room that it got.
enum Full {
    Needs(usize),
    Failed(rustls::Error),
}

/// Lets `write` append to `out`, with so much room at first, and with as much as it asks for then.
fn put(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Full>,
) -> Result<(), rustls::Error> {
    let from = out.len();
    out.resize(from + room, 0);
    let mut outcome = write(&mut out[from..]);
    if let Err(Full::Needs(room)) = outcome {
        out.resize(from + room, 0);
        outcome = write(&mut out[from..]);
    }
    match outcome {
        Ok(bytes) => {
            out.truncate(from + bytes);
            Ok(())
        }
        Err(full) => {
            out.truncate(from);
            Err(match full {
                Full::Failed(error) => error,
                Full::Needs(_) => rustls::Error::EncryptError,
            })
        }
    }
}
