//! TLS on both sides: what people ask for, whom is trusted, and what the handshakes came to.
//!
//! What must stay true: no certificate is believed unchecked unless the user says so with a flag that is named after it; each
//! client resumes only a session of its own, so that who comes first makes a full handshake, as it would in the world.

mod identity;
mod session;
mod tickets;
mod trust;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, CommonState, HandshakeKind, ProtocolVersion, StreamOwned};

pub use identity::Identity;
pub(crate) use identity::for_loopback;
pub(crate) use session::{RECORD_BYTES_MAX, Sealed, Session};
use tickets::Tickets;
use trust::Trust;

/// What we speak inside.
const HTTP_1_1: &[u8] = b"http/1.1";
/// The first byte of what a server of TLS answers to plain text ...
pub(crate) const ALERT: u8 = 0x15;
/// ... and what is to be done about it.
pub(crate) const UNEXPECTED: &str = "the server speaks TLS: name its certificate with --ca FILE";
/// For the first handshake, which only asks whether there can be others.
const TRIAL_TIME: Duration = Duration::from_secs(30);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Whether and how the target is spoken to with TLS.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Speak TLS, and trust the authorities that this system trusts.
    #[arg(long)]
    tls: bool,
    /// Speak TLS, and trust the certificates in this PEM file: an authority's, or the server's own.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Speak TLS with whoever answers: its certificate is not looked at.
    #[arg(long, conflicts_with = "ca")]
    tls_without_verification: bool,
    /// The name that the server's certificate must have; the target's address unless given.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Who comes back makes a full TLS handshake again, instead of resuming its session.
    #[arg(long)]
    full_handshakes: bool,
    /// A certificate that is trusted because we have made it.
    #[clap(skip)]
    made: Option<CertificateDer<'static>>,
}

impl Options {
    pub(crate) fn is_on(&self) -> bool {
        self.tls || self.ca.is_some() || self.tls_without_verification || self.made.is_some()
    }

    /// TLS with the holder of this certificate alone.
    #[cfg(test)]
    pub(crate) fn trusting(certificate: CertificateDer<'static>) -> Self {
        Self::default().instead(Some(certificate))
    }

    /// The same towards another server: one with this certificate, or one without TLS.
    pub(crate) fn instead(&self, certificate: Option<CertificateDer<'static>>) -> Self {
        Self {
            full_handshakes: self.full_handshakes,
            made: certificate,
            ..Self::default()
        }
    }

    /// What the connections need; None without TLS.
    ///
    /// # Errors
    /// If a file or a name is not what it should be; in words for people.
    pub(crate) fn dialer(&self, target: SocketAddr) -> Result<Option<Dialer>, String> {
        if !self.is_on() {
            let needless = [
                (self.server_name.is_some(), "--server-name"),
                (self.full_handshakes, "--full-handshakes"),
            ];
            return match needless.iter().find(|(given, _)| *given) {
                // Where a bare server without TLS stands in, none of them is left.
                Some((_, flag)) => Err(format!("{flag} needs --tls or --ca FILE")),
                None => Ok(None),
            };
        }
        let name = match &self.server_name {
            Some(name) => ServerName::try_from(name.clone()).map_err(|e| format!("--server-name: {e}"))?,
            None => ServerName::IpAddress(target.ip().into()),
        };
        let provider = provider();
        let trust = if self.tls_without_verification {
            Trust::anyone(provider.clone())
        } else {
            let mut certificates: Vec<_> = self.made.iter().cloned().collect();
            if let Some(file) = &self.ca {
                certificates.extend(read_pem(file)?);
            } else if self.made.is_none() {
                certificates.extend(rustls_native_certs::load_native_certs().certs);
            }
            Trust::named(provider.clone(), certificates)?
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust))
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Some(Dialer {
            config,
            name,
            resumes: !self.full_handshakes,
            is_verified: !self.tls_without_verification,
        }))
    }
}

/// The certificates of a file, at least one.
fn read_pem(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("{}: {e}", file.display()))?;
    if certificates.is_empty() {
        return Err(format!("{}: there is no certificate in it", file.display()));
    }
    Ok(certificates)
}

/// How the connections of a run speak TLS.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    config: ClientConfig,
    name: ServerName<'static>,
    resumes: bool,
    pub(crate) is_verified: bool,
}

impl Dialer {
    /// What one client needs, and keeps from one connection to its next.
    pub(crate) fn credentials(&self) -> Credentials {
        let mut config = self.config.clone();
        if self.resumes {
            config.resumption = Resumption::store(Arc::new(Tickets::default()));
        }
        Credentials {
            config: Arc::new(config),
            name: self.name.clone(),
        }
    }

    /// Makes one handshake and hangs up, so that a server which cannot be spoken to is known before anything is measured.
    /// Blocks.
    ///
    /// # Errors
    /// Why it cannot; in words for people.
    pub(crate) fn try_out(&self, target: SocketAddr) -> Result<(), String> {
        let said = |why: String| format!("{target}: {why}");
        let stream = TcpStream::connect_timeout(&target, TRIAL_TIME)
            .and_then(|stream| {
                stream.set_read_timeout(Some(TRIAL_TIME))?;
                stream.set_write_timeout(Some(TRIAL_TIME))?;
                Ok(stream)
            })
            .map_err(|e| said(e.to_string()))?;
        let mut stream = self.credentials().shake_hands(stream).map_err(said)?;
        stream.conn.send_close_notify();
        // The question is answered, whether the goodbye arrives or not.
        let _ = stream.conn.write_tls(&mut stream.sock);
        Ok(())
    }
}

/// One client's side of TLS, through all its connections.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Credentials {
    /// # Errors
    /// As rustls has it.
    pub(crate) fn session(&self) -> io::Result<Session> {
        Session::client(self.config.clone(), self.name.clone())
    }

    /// Secures a connection that blocks.
    ///
    /// # Errors
    /// If the handshake fails; in words for people.
    pub(crate) fn shake_hands(
        &self,
        mut stream: TcpStream,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, String> {
        let client = ClientConnection::new(self.config.clone(), self.name.clone());
        let mut client = client.map_err(|e| e.to_string())?;
        while client.is_handshaking() {
            client.complete_io(&mut stream).map_err(|e| words(&e))?;
        }
        Ok(StreamOwned::new(client, stream))
    }
}

/// What a failed handshake means, in words for people.
pub(crate) fn words(error: &io::Error) -> String {
    use rustls::Error;
    const PLAIN: &str = "it does not answer with TLS: try without --tls and --ca";
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match (tls, error.kind()) {
        // Of our own making, and whole sentences.
        (Some(Error::General(said)), _) => said.clone(),
        (Some(Error::InvalidMessage(why)), _) => format!("{PLAIN} ({why:?})"),
        (Some(Error::AlertReceived(alert)), _) => format!("the server refused the TLS handshake: {alert:?}"),
        (Some(other), _) => format!("TLS: {other}"),
        (None, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            format!("the connection ended during the TLS handshake; perhaps {PLAIN}")
        }
        (None, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            format!("no answer to the TLS handshake; perhaps {PLAIN}")
        }
        (None, _) => error.to_string(),
    }
}

/// What two ends have agreed on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Agreed {
    pub(crate) version: &'static str,
    pub(crate) cipher: String,
    pub(crate) group: String,
}

/// Handshakes by what they agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handshakes(BTreeMap<Agreed, Count>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) full: u64,
    pub(crate) resumed: u64,
}

impl Handshakes {
    /// Counts a handshake that is complete.
    pub(crate) fn count(&mut self, facts: &CommonState) {
        let agreed = Agreed {
            version: match facts.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                _ => "unknown",
            },
            cipher: named(facts.negotiated_cipher_suite().map(|suite| suite.suite())),
            group: named(facts.negotiated_key_exchange_group().map(SupportedKxGroup::name)),
        };
        let count = self.0.entry(agreed).or_default();
        match facts.handshake_kind() {
            Some(HandshakeKind::Resumed) => count.resumed += 1,
            _ => count.full += 1,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (agreed, more) in &other.0 {
            let count = self.0.entry(agreed.clone()).or_default();
            count.full += more.full;
            count.resumed += more.resumed;
        }
    }

    /// What most of them agreed on.
    pub(crate) fn most(&self) -> Option<&Agreed> {
        let most = self.0.iter().max_by_key(|(_, count)| count.full + count.resumed);
        most.map(|(agreed, _)| agreed)
    }

    pub(crate) fn total(&self) -> Count {
        self.0.values().fold(Count::default(), |sum, count| Count {
            full: sum.full + count.full,
            resumed: sum.resumed + count.resumed,
        })
    }
}

fn named(thing: Option<impl fmt::Debug>) -> String {
    thing.map_or_else(|| "unknown".to_owned(), |thing| format!("{thing:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_off_unless_asked_for_and_its_flags_are_not_silently_dropped() {
        let target = "127.0.0.1:1".parse().unwrap();
        assert!(Options::default().dialer(target).unwrap().is_none());
        let lonely = Options {
            server_name: Some("cauce.example".to_owned()),
            ..Options::default()
        };
        assert!(
            lonely
                .dialer(target)
                .unwrap_err()
                .contains("--server-name needs --tls")
        );
    }

    #[test]
    fn a_file_without_a_certificate_is_refused_by_name() {
        let options = Options {
            ca: Some("/dev/null".into()),
            ..Options::default()
        };
        let error = options.dialer("127.0.0.1:1".parse().unwrap()).unwrap_err();
        assert!(error.contains("/dev/null: there is no certificate"), "{error}");
    }
}
