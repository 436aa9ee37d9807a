//! One connection's TLS, over rustls without its buffers: records are opened from the buffer that the thread reads into, and
//! sealed into what waits for the kernel.
//!
//! What must stay true: bytes that make no whole record are kept and shown to rustls again before what comes after them;
//! sealed bytes go to the kernel in the order in which they were sealed.

use std::net::TcpStream;
use std::sync::Arc;
use std::{fmt, io};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};

use crate::socket::{Flushed, write};

/// The longest record of TLS, with its head, in bytes.
pub(crate) const RECORD_BYTES_MAX: usize = 16 * 1024 + 256 + 5;
/// What a record is longer than its content at most, in bytes: head, type, tag and an explicit nonce.
const RECORD_OVERHEAD_BYTES_MAX: usize = 64;
/// Room for a handshake's messages, in bytes; more is made when they need it.
const FLIGHT_BYTES: usize = 2 * 1024;

/// Our side of a connection.
enum End {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// TLS of one connection.
pub(crate) struct Session {
    end: End,
    /// The beginning of a record whose end has not come.
    incoming: Vec<u8>,
    /// Records for the kernel.
    outgoing: Vec<u8>,
    /// How much of `outgoing` is written.
    written: usize,
    peer_closed: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("handshaking", &self.is_handshaking())
            .field("incoming", &self.incoming.len())
            .field("outgoing", &(self.outgoing.len() - self.written))
            .finish_non_exhaustive()
    }
}

/// Whether what was to be sealed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sealed {
    Yes,
    /// The handshake waits for the peer.
    NotYet,
}

/// What one turn of rustls came to.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// So many bytes of content came out.
    Opened(usize),
    Again,
    /// The handshake needs more from the peer.
    Starved,
    /// Open, nothing more to be read, and what was to be sealed is.
    Open,
    PeerClosed,
}

impl Session {
    /// # Errors
    /// As rustls has it.
    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
        let client = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Self::new(End::Client(client)))
    }

    /// # Errors
    /// As rustls has it.
    pub(crate) fn server(config: Arc<ServerConfig>) -> io::Result<Self> {
        let server = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self::new(End::Server(server)))
    }

    fn new(end: End) -> Self {
        Self {
            end,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            peer_closed: false,
        }
    }

    /// What rustls knows of the connection.
    pub(crate) fn facts(&self) -> &CommonState {
        match &self.end {
            End::Client(client) => client,
            End::Server(server) => server,
        }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.facts().is_handshaking()
    }

    /// The peer has said that nothing more comes.
    pub(crate) fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Bytes that wait for the kernel.
    pub(crate) fn waiting(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// Puts what was kept of the last read at `buffer[at..]`. Returns where it ends; None where it does not fit.
    pub(crate) fn restore(&mut self, buffer: &mut [u8], at: usize) -> Option<usize> {
        let end = at + self.incoming.len();
        buffer.get_mut(at..end)?.copy_from_slice(&self.incoming);
        self.incoming.clear();
        Some(end)
    }

    /// Opens the records in `buffer[from..end]` and puts their content at `buffer[to..]`, where `from` is at least a record
    /// behind `to`. Returns where the content ends. What makes no whole record is kept.
    ///
    /// # Errors
    /// If they are no records of this connection, or the handshake fails; what there is to say about it waits for the kernel.
    pub(crate) fn open(
        &mut self,
        buffer: &mut [u8],
        to: usize,
        from: usize,
        end: usize,
    ) -> Result<usize, rustls::Error> {
        let (mut plain, mut sealed) = (to, from);
        loop {
            let (before, incoming) = buffer[..end].split_at_mut(sealed);
            let (discard, turn) = match &mut self.end {
                End::Client(c) => turn(c, incoming, &mut before[plain..], &mut self.outgoing, &[]),
                End::Server(s) => turn(s, incoming, &mut before[plain..], &mut self.outgoing, &[]),
            };
            sealed += discard;
            match turn {
                Ok(Turn::Opened(bytes)) => plain += bytes,
                Ok(Turn::Again) => {}
                Ok(Turn::Starved | Turn::Open) => break,
                Ok(Turn::PeerClosed) => {
                    self.peer_closed = true;
                    return Ok(plain);
                }
                Err(error) => {
                    self.queue_alert(&mut buffer[sealed..end]);
                    return Err(error);
                }
            }
        }
        self.incoming.extend_from_slice(&buffer[sealed..end]);
        Ok(plain)
    }

    /// Seals this for the kernel, and with it whatever the handshake has to say.
    ///
    /// # Errors
    /// As rustls has it.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Result<Sealed, rustls::Error> {
        loop {
            // What was kept is shown again: rustls may count on its being there.
            let incoming = &mut self.incoming[..];
            let (discard, turn) = match &mut self.end {
                End::Client(c) => turn(c, incoming, &mut [], &mut self.outgoing, plain),
                End::Server(s) => turn(s, incoming, &mut [], &mut self.outgoing, plain),
            };
            self.incoming.drain(..discard);
            match turn? {
                Turn::Open => return Ok(Sealed::Yes),
                Turn::Starved => return Ok(Sealed::NotYet),
                Turn::Again | Turn::Opened(_) => {}
                Turn::PeerClosed => self.peer_closed = true,
            }
        }
    }

    /// Writes what waits for the kernel.
    ///
    /// # Errors
    /// If the connection has broken.
    pub(crate) fn flush(&mut self, stream: &TcpStream) -> io::Result<Flushed> {
        while self.written < self.outgoing.len() {
            match write(stream, &self.outgoing[self.written..])? {
                0 => return Ok(Flushed::Blocked),
                count => self.written += count,
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Ok(Flushed::All)
    }

    /// After an error: what rustls has to say to the peer about it.
    fn queue_alert(&mut self, incoming: &mut [u8]) {
        let outgoing = &mut self.outgoing;
        match &mut self.end {
            End::Client(c) => encode(c.process_tls_records(incoming), outgoing),
            End::Server(s) => encode(s.process_tls_records(incoming), outgoing),
        }
    }
}

/// The two ends of rustls, as far as they are the same.
trait Process {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Process for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Process for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// One turn of rustls, which opens one record at most. Returns how many bytes of `incoming` are done with, and what came of it.
fn turn(
    end: &mut impl Process,
    incoming: &mut [u8],
    opened: &mut [u8],
    outgoing: &mut Vec<u8>,
    plain: &[u8],
) -> (usize, Result<Turn, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = end.process(incoming);
    let state = match state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error)),
    };
    let outcome = match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            let mut bytes = 0;
            loop {
                match traffic.next_record() {
                    None => break Ok(Turn::Opened(bytes)),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(record)) => {
                        let Some(place) = opened.get_mut(bytes..bytes + record.payload.len()) else {
                            break Err(rustls::Error::PeerSentOversizedRecord);
                        };
                        place.copy_from_slice(record.payload);
                        bytes += record.payload.len();
                        discard += record.discard;
                    }
                }
            }
        }
        ConnectionState::EncodeTlsData(mut data) => put(outgoing, FLIGHT_BYTES, |space| {
            data.encode(space).map_err(|error| match error {
                EncodeError::InsufficientSize(size) => Full::Needs(size.required_size),
                EncodeError::AlreadyEncoded => Full::Failed(rustls::Error::General(error.to_string())),
            })
        })
        .map(|()| Turn::Again),
        // It goes to the kernel in order with all else.
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Turn::Again)
        }
        ConnectionState::BlockedHandshake => Ok(Turn::Starved),
        ConnectionState::WriteTraffic(_) if plain.is_empty() => Ok(Turn::Open),
        ConnectionState::WriteTraffic(mut traffic) => {
            let records = plain.len() / (RECORD_BYTES_MAX - RECORD_OVERHEAD_BYTES_MAX - 256) + 1;
            let room = plain.len() + records * RECORD_OVERHEAD_BYTES_MAX;
            put(outgoing, room, |space| {
                traffic.encrypt(plain, space).map_err(|error| match error {
                    EncryptError::InsufficientSize(size) => Full::Needs(size.required_size),
                    EncryptError::EncryptExhausted => Full::Failed(rustls::Error::EncryptError),
                })
            })
            .map(|()| Turn::Open)
        }
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Turn::PeerClosed),
        _ => Err(rustls::Error::General(
            "early data, which nobody agreed to".into(),
        )),
    };
    (discard, outcome)
}

fn encode<Data>(status: UnbufferedStatus<'_, '_, Data>, outgoing: &mut Vec<u8>) {
    if let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state {
        // The connection has failed already: an alert that cannot be said is not said.
        let _ = put(outgoing, FLIGHT_BYTES, |space| {
            data.encode(space)
                .map_err(|error| Full::Failed(rustls::Error::General(error.to_string())))
        });
    }
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
                Full::Needs(_) => rustls::Error::General("rustls asks for ever more room".into()),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::HandshakeKind;

    use super::*;
    use crate::tls::{Identity, Options};

    /// Two ends and the bytes between them, delivered in pieces.
    struct Pair {
        client: Session,
        server: Session,
    }

    impl Pair {
        fn new() -> Self {
            let identity = Identity::self_signed().unwrap();
            let options = Options::trusting(identity.certificate().clone());
            let dialer = options.dialer("127.0.0.1:1".parse().unwrap()).unwrap().unwrap();
            Self {
                client: dialer.credentials().session().unwrap(),
                server: Session::server(identity.config().clone()).unwrap(),
            }
        }

        /// Carries what both have to say, in pieces of so many bytes, until both are silent. Returns what each has heard.
        fn talk(&mut self, piece: usize) -> (Vec<u8>, Vec<u8>) {
            let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
            self.client.seal(&[]).unwrap();
            loop {
                let said = std::mem::take(&mut self.client.outgoing);
                let answered = std::mem::take(&mut self.server.outgoing);
                if said.is_empty() && answered.is_empty() {
                    return (at_client, at_server);
                }
                for piece in said.chunks(piece) {
                    at_server.extend(hear(&mut self.server, piece).unwrap());
                }
                for piece in answered.chunks(piece) {
                    at_client.extend(hear(&mut self.client, piece).unwrap());
                }
            }
        }
    }

    fn hear(session: &mut Session, piece: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut buffer = vec![0; 5 * RECORD_BYTES_MAX];
        let from = RECORD_BYTES_MAX;
        let at = session.restore(&mut buffer, from).unwrap();
        let end = at + piece.len();
        buffer[at..end].copy_from_slice(piece);
        let plain = session.open(&mut buffer, 0, from, end)?;
        Ok(buffer[..plain].to_vec())
    }

    #[test]
    fn records_that_come_in_pieces_of_any_size_are_opened_whole_and_in_order() {
        for piece in [1, 3, 7, 1_000, 20_000] {
            let mut pair = Pair::new();
            assert_eq!(pair.talk(piece), (vec![], vec![]));
            assert!(!pair.client.is_handshaking() && !pair.server.is_handshaking());
            assert_eq!(pair.client.facts().handshake_kind(), Some(HandshakeKind::Full));
            let long: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
            for part in [&long[..1], &long[1..40_000], &long[40_000..]] {
                assert_eq!(pair.client.seal(part).unwrap(), Sealed::Yes);
            }
            pair.server.seal(b"short").unwrap();
            let (at_client, at_server) = pair.talk(piece);
            assert!(at_server == long && at_client == b"short", "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_sealed_before_the_handshake_is_over_is_not_taken() {
        let mut pair = Pair::new();
        assert_eq!(pair.client.seal(b"early").unwrap(), Sealed::NotYet);
        assert_eq!(pair.talk(1_000), (vec![], vec![]));
    }

    #[test]
    fn bytes_that_are_no_records_end_the_connection_with_an_alert() {
        let mut pair = Pair::new();
        pair.talk(1_000);
        let error = hear(&mut pair.server, b"GET / HTTP/1.1\r\n\r\n").unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidMessage(_)), "{error}");
        assert!(pair.server.waiting() > 0);
    }
}
