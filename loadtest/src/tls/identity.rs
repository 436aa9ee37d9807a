//! The certificates of the servers that we start.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate for loopback that nobody has signed, and its key (P-256): the same kind for every server that is measured.
///
/// # Errors
/// If the system gives no randomness; in words for people.
pub(crate) fn for_loopback() -> Result<rcgen::CertifiedKey<rcgen::KeyPair>, String> {
    let names = ["127.0.0.1", "::1", "localhost"].map(str::to_owned);
    rcgen::generate_simple_self_signed(names).map_err(|e| e.to_string())
}

/// A server's certificate and key, ready for use.
#[derive(Clone, Debug)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    config: Arc<ServerConfig>,
}

impl Identity {
    /// One that nobody has signed, for loopback, with a key (P-256) that lives as long as the process.
    ///
    /// # Errors
    /// If the system gives no randomness; in words for people.
    pub fn self_signed() -> Result<Self, String> {
        let made = for_loopback()?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Self::new(vec![made.cert.der().clone()], key.into())
    }

    /// A chain, leaf first, and its private key, both PEM.
    ///
    /// # Errors
    /// If the files are not what they should be; in words for people.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let chain = super::read_pem(certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("{}: {e}", key.display()))?;
        Self::new(chain, key)
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, String> {
        let certificate = chain.first().ok_or("there is no certificate")?.clone();
        let mut config = ServerConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|e| format!("certificate and key cannot be used: {e}"))?;
        // As the broker does, so that the two compare.
        config.alpn_protocols = vec![super::HTTP_1_1.to_vec()];
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|e| e.to_string())?;
        config.send_tls13_tickets = 1;
        Ok(Self {
            certificate,
            config: Arc::new(config),
        })
    }

    /// The leaf.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}
