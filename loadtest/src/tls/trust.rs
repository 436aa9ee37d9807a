//! Which certificate is believed, and what is said of one that is not.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Whom the generator believes to be the server.
#[derive(Debug)]
pub(super) struct Trust {
    provider: Arc<CryptoProvider>,
    whom: Whom,
}

#[derive(Debug)]
enum Whom {
    /// Who has a certificate of these authorities for the name, or one of these very certificates.
    Named {
        authorities: Option<Arc<WebPkiServerVerifier>>,
        certificates: Vec<CertificateDer<'static>>,
    },
    /// Whoever answers. Only where the user has said so.
    Anyone,
}

impl Trust {
    /// Trusts the holders of these certificates, and whom they have certified. A certificate that was named itself is
    /// believed whatever name and dates it bears: nobody else has its key.
    ///
    /// # Errors
    /// If none of them can be used; in words for people.
    pub(super) fn named(
        provider: Arc<CryptoProvider>,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let authorities = (!roots.is_empty())
            .then(|| WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build())
            .transpose()
            .map_err(|e| e.to_string())?;
        let whom = Whom::Named {
            authorities,
            certificates,
        };
        Ok(Self { provider, whom })
    }

    pub(super) fn anyone(provider: Arc<CryptoProvider>) -> Self {
        let whom = Whom::Anyone;
        Self { provider, whom }
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Whom::Named {
            authorities,
            certificates,
        } = &self.whom
        else {
            return Ok(ServerCertVerified::assertion());
        };
        if certificates.contains(certificate) {
            return Ok(ServerCertVerified::assertion());
        }
        let verdict = match authorities {
            Some(authorities) => authorities.verify_server_cert(certificate, chain, name, stapled, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        verdict.map_err(|error| Error::General(refusal(certificate, name, &error)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Which certificate was refused, why, and what to do.
fn refusal(certificate: &CertificateDer<'_>, name: &ServerName<'_>, error: &Error) -> String {
    let advice = match error {
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "say with --server-name which name it has, or name the certificate itself with --ca",
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "renew it, or name the certificate itself with --ca",
        _ => "name it, or the authority that signed it, with --ca FILE",
    };
    format!(
        "the server's certificate is not trusted for {}: {error}; {advice} (SHA-256 {})",
        name.to_str(),
        fingerprint(certificate)
    )
}

/// As `openssl x509 -fingerprint -sha256` shows it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let mut out = String::new();
    for (at, byte) in digest::digest(&digest::SHA256, certificate)
        .as_ref()
        .iter()
        .enumerate()
    {
        // Writing to a string cannot fail.
        let _ = write!(out, "{}{byte:02X}", if at == 0 { "" } else { ":" });
    }
    out
}
