//! A certificate for loopback, and who trusts it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, SupportedCipherSuite};

/// A self-signed certificate for loopback, in a folder. Answers its PEM text.
pub fn certify(folder: &Path) -> String {
    let certified =
        rcgen::generate_simple_self_signed(["127.0.0.1".into(), "localhost".into()]).expect("a certificate");
    let pem = certified.cert.pem();
    std::fs::write(folder.join("cert.pem"), &pem).expect("a file");
    let key = folder.join("key.pem");
    std::fs::write(&key, certified.signing_key.serialize_pem()).expect("a file");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    pem
}

/// The broker's settings that use it.
pub fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!("tls.cert={folder}/cert.pem\ntls.key={folder}/key.pem\n")
}

/// A client that trusts nobody else.
pub fn trusting(pem: &str) -> ClientConfig {
    trusting_with(pem, aws_lc_rs::DEFAULT_CIPHER_SUITES)
}

/// The same with these suites alone.
pub fn trusting_with(pem: &str, suites: &[SupportedCipherSuite]) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"))
        .expect("a root");
    let provider = CryptoProvider {
        cipher_suites: suites.to_vec(),
        ..aws_lc_rs::default_provider()
    };
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
