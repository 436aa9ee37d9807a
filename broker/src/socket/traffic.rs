//! TLS 1.3 after the handshake: our records under rustls's key schedule.
//!
//! What must stay true: rustls has done the handshake, derived every key, and derives every next one; here keys are only used.
//! It is left when the client's Finished has been checked, before a byte behind it has been looked at, and when all that it had
//! to say is sealed.

use std::fmt;
use std::io::{self, IoSlice};

use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, SupportedCipherSuite};

use super::plain::Plain;
use super::record::{
    Alert, Gather, Opened, Opener, RecordError, Sealer, Suite, TrafficKey, UpdateRequest, record_len,
};

/// What became of the records that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The next record is not all there.
    Starved,
    /// The peer has said that nothing more comes.
    PeerClosed,
}

/// Both directions, and what makes their next keys.
pub(super) struct Traffic {
    opener: Opener,
    sealer: Sealer,
    schedule: KernelConnection<ServerConnectionData>,
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic")
            .field("opener", &self.opener)
            .field("sealer", &self.sealer)
            .finish_non_exhaustive()
    }
}

impl Traffic {
    /// Takes a connection over from rustls.
    ///
    /// # Errors
    /// If rustls does not let it go: the handshake is not over, something waits to be sent, or the configuration forbids it.
    pub(super) fn take_over(server: UnbufferedServerConnection) -> Result<Self, rustls::Error> {
        let (ExtractedSecrets { tx, rx }, schedule) = server.dangerous_into_kernel_connection()?;
        let SupportedCipherSuite::Tls13(suite) = schedule.negotiated_cipher_suite() else {
            return Err(rustls::Error::HandshakeNotComplete);
        };
        Ok(Self {
            opener: Opener::new(traffic_key(&rx.1)?, rx.0),
            sealer: Sealer::new(traffic_key(&tx.1)?, tx.0, suite.common.confidentiality_limit),
            schedule,
        })
    }

    /// Opens all whole records of `records` into `plain`, and answers how many bytes of them are done with. If that ends the
    /// connection, the alert that says so is in `outgoing`.
    ///
    /// # Errors
    /// If it ends the connection.
    pub(super) fn open(
        &mut self,
        records: &mut [u8],
        plain: &mut Plain<'_>,
        outgoing: &mut Vec<u8>,
    ) -> (usize, Result<Stop, RecordError>) {
        let mut used = 0;
        let outcome = self.open_records(records, &mut used, plain);
        if let Err(error) = outcome
            && let Some(alert) = error.alert()
        {
            // Without a key or a number left it cannot be said.
            let _ = self.alert(alert, outgoing);
        }
        (used, outcome)
    }

    fn open_records(
        &mut self,
        records: &mut [u8],
        used: &mut usize,
        plain: &mut Plain<'_>,
    ) -> Result<Stop, RecordError> {
        let mut turn = self.opener.turn();
        while let Some(len) = record_len(&records[*used..])? {
            let record = &mut records[*used..*used + len];
            *used += len;
            match turn.open(record)? {
                Opened::Content(bytes) => plain.take(bytes),
                Opened::Nothing => {}
                Opened::KeyUpdate(request) => {
                    turn.rekey(next_key(self.schedule.update_rx_secret())?);
                    if request == UpdateRequest::Requested {
                        self.sealer.owe_update();
                    }
                }
                Opened::Closed => return Ok(Stop::PeerClosed),
            }
        }
        Ok(Stop::Starved)
    }

    /// Seals at most `bytes_max` bytes of `slices` behind what is in `out`, and answers how many they are.
    ///
    /// # Errors
    /// If nothing more may be sealed.
    pub(super) fn seal(
        &mut self,
        slices: &[IoSlice<'_>],
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, RecordError> {
        let mut content = Gather::new(slices, bytes_max);
        let bytes = content.left();
        if bytes == 0 {
            return Ok(0);
        }
        out.reserve(content.sealed_bytes());
        let mut turn = self.sealer.turn()?;
        while content.left() > 0 {
            if turn.wants_update() {
                turn.update(next_key(self.schedule.update_tx_secret())?, out)?;
            }
            turn.content(&mut content, out)?;
        }
        Ok(bytes)
    }

    /// Says how the connection ends, behind what is in `out`.
    ///
    /// # Errors
    /// If it has ended already.
    pub(super) fn alert(&mut self, alert: Alert, out: &mut Vec<u8>) -> Result<(), RecordError> {
        self.sealer.turn()?.alert(alert, out)
    }
}

/// A key that rustls gives, as we keep it. Its own copy is wiped when it is dropped here.
fn traffic_key(secrets: &ConnectionTrafficSecrets) -> Result<TrafficKey, rustls::Error> {
    let (suite, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::Chacha20Poly1305, key, iv),
        _ => return Err(rustls::Error::General("a cipher that we do not have".into())),
    };
    TrafficKey::new(suite, key.as_ref(), iv.as_ref())
        .map_err(|error| rustls::Error::General(error.to_string()))
}

fn next_key(
    secrets: Result<(u64, ConnectionTrafficSecrets), rustls::Error>,
) -> Result<TrafficKey, RecordError> {
    let (_, secrets) = secrets.map_err(|_| RecordError::Key)?;
    traffic_key(&secrets).map_err(|_| RecordError::Key)
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> Self {
        let kind = match error {
            RecordError::Closed => io::ErrorKind::BrokenPipe,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
