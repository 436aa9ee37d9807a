//! TLS that rustls speaks itself, without its buffers: every handshake, and the whole of TLS 1.2.
//!
//! What must stay true: rustls is shown one record more only when it has nothing left to do, so nothing behind the end of a
//! handshake has been touched when a connection is taken over.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ProtocolVersion, ServerConfig};

use super::plain::Plain;
use super::record::HEAD_BYTES;

/// What a record is longer than its content at most: head, type, tag and an explicit nonce, in bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Content that a record holds at most, in bytes.
const RECORD_CONTENT_BYTES: usize = 16 * 1024;
/// What a handshake has to say at a time fits in here, in bytes, unless the certificate's chain is long.
const FLIGHT_BYTES: usize = 4 * 1024;
/// What rustls may say together with content: an alert. In bytes.
const ASIDE_BYTES: usize = 256;

/// What became of the records that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nothing can be done with what is there.
    Starved,
    PeerClosed,
    /// The handshake of TLS 1.3 is over, and all that rustls had to say is sealed.
    Over,
}

/// What one turn of rustls came to.
enum Turn {
    Again,
    Starved,
    PeerClosed,
}

/// A connection of rustls.
pub(super) struct Handshake {
    server: UnbufferedServerConnection,
    /// Bytes of whole records that rustls has seen and is not done with. They stay in front of what it is shown next.
    seen: usize,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("handshaking", &self.server.is_handshaking())
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Handshake {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            server: UnbufferedServerConnection::new(config)?,
            seen: 0,
        })
    }

    /// The connection, to be taken over after [`Stop::Over`].
    pub(super) fn into_server(self) -> UnbufferedServerConnection {
        self.server
    }

    /// Lets rustls go on with `records`, and answers how many bytes of them are done with; the rest is to be shown again, with
    /// more behind it. What it has to say is appended to `outgoing`.
    ///
    /// # Errors
    /// If it ends the connection; the alert that says so is in `outgoing`.
    pub(super) fn open(
        &mut self,
        records: &mut [u8],
        plain: &mut Plain<'_>,
        outgoing: &mut Vec<u8>,
    ) -> (usize, Result<Stop, rustls::Error>) {
        let (mut used, mut turn) = (0, Turn::Starved);
        // How far rustls sees, from `used` on.
        let mut shown = self.seen;
        loop {
            if matches!(turn, Turn::Starved) {
                let there = records.len() - used;
                match whole_record(&records[used + self.seen..]) {
                    Some(len) => {
                        self.seen += len;
                        shown = self.seen;
                    }
                    // The beginning of a record is for rustls to judge: it may be none.
                    None if shown < there => shown = there,
                    None => return (used, Ok(Stop::Starved)),
                }
            }
            let (discard, outcome) = self.turn(&mut records[used..used + shown], plain, outgoing);
            used += discard;
            shown -= discard;
            self.seen = self.seen.saturating_sub(discard);
            turn = match outcome {
                Ok(Turn::PeerClosed) => return (used, Ok(Stop::PeerClosed)),
                Ok(_) if self.is_over() => return (used, Ok(Stop::Over)),
                Ok(turn) => turn,
                Err(error) => {
                    // The alert that says so.
                    while self.server.wants_write() && self.turn(&mut [], plain, outgoing).1.is_ok() {}
                    return (used, Err(error));
                }
            };
        }
    }

    fn is_over(&self) -> bool {
        self.server.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            && !self.server.is_handshaking()
            && !self.server.wants_write()
    }

    /// One turn of rustls, with how many bytes of the records it is done with.
    fn turn(
        &mut self,
        records: &mut [u8],
        plain: &mut Plain<'_>,
        outgoing: &mut Vec<u8>,
    ) -> (usize, Result<Turn, rustls::Error>) {
        let UnbufferedStatus { mut discard, state } = self.server.process_tls_records(records);
        let outcome = match state {
            Err(error) => Err(error),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    None => break Ok(Turn::Again),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(record)) => {
                        plain.take(record.payload);
                        discard += record.discard;
                    }
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut data)) => put(outgoing, FLIGHT_BYTES, |room| {
                data.encode(room).map_err(|error| match error {
                    EncodeError::InsufficientSize(size) => Full::Needs(size.required_size),
                    EncodeError::AlreadyEncoded => Full::Failed(rustls::Error::EncryptError),
                })
            })
            .map(|()| Turn::Again),
            // It goes to the kernel in order with all else.
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Turn::Again)
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(Turn::Starved),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Turn::PeerClosed),
            // We offer no early data.
            Ok(_) => Err(rustls::PeerMisbehaved::TooMuchEarlyDataReceived.into()),
        };
        (discard, outcome)
    }

    /// Seals `content` behind what is in `out`. `incoming` is what was left of the records that came.
    ///
    /// # Errors
    /// If the handshake is not that far, or the connection is over.
    pub(super) fn seal(
        &mut self,
        content: &[u8],
        incoming: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let records = content.len() / RECORD_CONTENT_BYTES + 1;
        let bytes = content.len() + records * RECORD_OVERHEAD_BYTES + ASIDE_BYTES;
        self.put_sealed(incoming, out, bytes, |traffic, room| {
            traffic.encrypt(content, room)
        })
    }

    /// Says that nothing more comes from us, behind what is in `out`.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub(super) fn close(&mut self, incoming: &mut Vec<u8>, out: &mut Vec<u8>) -> io::Result<()> {
        self.put_sealed(incoming, out, ASIDE_BYTES, |traffic, room| {
            traffic.queue_close_notify(room)
        })
    }

    /// Lets `seal` append some `bytes` to `out`, behind what rustls itself has to say first.
    fn put_sealed(
        &mut self,
        incoming: &mut Vec<u8>,
        out: &mut Vec<u8>,
        bytes: usize,
        mut seal: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        loop {
            // What was kept is shown again: rustls counts on its being there.
            let UnbufferedStatus { discard, state } = self.server.process_tls_records(incoming);
            let done = match state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    put(out, bytes, |room| {
                        seal(&mut traffic, room).map_err(|error| match error {
                            EncryptError::InsufficientSize(size) => Full::Needs(size.required_size),
                            EncryptError::EncryptExhausted => Full::Failed(rustls::Error::EncryptError),
                        })
                    })
                    .map_err(invalid)?;
                    true
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    put(out, FLIGHT_BYTES, |room| {
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
            incoming.drain(..discard);
            self.seen = self.seen.saturating_sub(discard);
            if done {
                return Ok(());
            }
        }
    }
}

/// How long the first record is, if all of it is there.
fn whole_record(bytes: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = bytes.first_chunk::<HEAD_BYTES>()?;
    let len = HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]));
    (len <= bytes.len()).then_some(len)
}

fn invalid(error: rustls::Error) -> io::Error {
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
