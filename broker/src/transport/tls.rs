//! The certificate, and the configuration made of it. Replaced while running: connections that are open keep the old one.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::socket::Tls;

/// Tickets that a client gets for resuming its session: one, because a client that has lost its connection opens one.
const TICKETS: usize = 1;

/// Why there is no TLS.
#[derive(Debug)]
pub enum TlsError {
    /// A file that cannot be read as PEM.
    File(PathBuf, rustls::pki_types::pem::Error),
    /// No certificate in the file.
    Empty(PathBuf),
    /// Certificate and key do not fit, or rustls does not take them.
    Config(rustls::Error),
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Empty(path) => write!(f, "{}: there is no certificate in it", path.display()),
            Self::Config(error) => write!(f, "certificate and key cannot be used: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// A certificate with its key, read from files and read again on demand.
#[derive(Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
}

impl Certificate {
    /// Reads a chain, leaf first, and its private key, both PEM.
    ///
    /// # Errors
    /// If the files are not what they should be.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let config = RwLock::new(read(&certificate, &key)?);
        Ok(Self {
            certificate,
            key,
            config,
        })
    }

    /// Reads the files again. On an error the old certificate stays in use.
    ///
    /// # Errors
    /// If the files are not what they should be.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = read(&self.certificate, &self.key)?;
        *self.config.write() = config;
        Ok(())
    }

    /// The server's side of a new connection.
    ///
    /// # Errors
    /// As rustls has it.
    pub fn accept(&self) -> Result<Tls, rustls::Error> {
        let config = self.config.read().clone();
        Tls::accept(config)
    }
}

fn read(certificate: &PathBuf, key: &PathBuf) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| TlsError::File(certificate.clone(), e))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| TlsError::File(key.clone(), e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(TlsError::Config)?;
    // We speak HTTP/1.1 and what is upgraded from it.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Config)?;
    config.send_tls13_tickets = TICKETS;
    // After the handshake the records are ours: see `socket::record`.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}
