//! Where devices dial and what they show at the door. The URL carries the token, so it is a secret from the
//! moment it is complete: it has no `Display`, its `Debug` is empty, and errors are told without it.

use crate::identity::DeviceId;
use crate::rng::Rng;
use crate::secret::SecretUrl;
use crate::session::socket_config;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::UrlError;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};

/// What an outbound connection runs over.
pub(crate) type Stream = MaybeTlsStream<TcpStream>;
/// An outbound connection.
pub(crate) type Socket = WebSocketStream<Stream>;

/// The credentials of the devices.
#[derive(Clone, Default)]
pub enum Tokens {
    /// The URL is complete as it is.
    #[default]
    None,
    /// One token for all devices.
    Shared(String),
    /// A token for each device.
    PerDevice(Arc<dyn Fn(&DeviceId) -> String + Send + Sync>),
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Shared(_) => "Shared(secret)",
            Self::PerDevice(_) => "PerDevice(secret)",
        })
    }
}

/// Which certificates of the server devices accept; the three choices a real device has.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// Those of the authorities the system knows.
    #[default]
    System,
    /// Those of the authorities in this PEM text.
    Authorities(Vec<u8>),
    /// Any. Only for servers of one's own.
    Anything,
}

/// What a device offers in its upgrade request. Real firmware differs here, and servers must take each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Offer {
    /// Nothing beyond the upgrade.
    Plain,
    /// Subprotocol `json-rpc` and an Origin, as the firmware's ancestor does.
    JsonRpc,
    /// Compression, which the server has to decline: the device would not understand it.
    Deflate,
}

impl Offer {
    /// A third of a fleet each.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match rng.below(3) {
            0 => Self::Plain,
            1 => Self::JsonRpc,
            _ => Self::Deflate,
        }
    }

    fn write(self, request: &mut Request) {
        let headers = request.headers_mut();
        match self {
            Self::Plain => {}
            Self::JsonRpc => {
                headers.insert("Sec-WebSocket-Protocol", HeaderValue::from_static("json-rpc"));
                headers.insert("Origin", HeaderValue::from_static("https://mongoose-os.com"));
            }
            Self::Deflate => {
                let offer = HeaderValue::from_static("permessage-deflate; client_max_window_bits");
                headers.insert("Sec-WebSocket-Extensions", offer);
            }
        }
    }
}

/// The server, without any device's token.
#[derive(Clone)]
pub(crate) struct Target {
    url: String,
    host: String,
    port: u16,
    connector: Option<Connector>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The query may hold a token that the caller put there.
        f.debug_struct("Target")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Why a URL or its certificates cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TargetError {
    /// Not `ws://` or `wss://` with a host.
    Url(&'static str),
    /// The PEM text holds no usable certificate.
    Authorities,
    /// The system has no authorities.
    NoSystemAuthorities,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(problem) => write!(
                f,
                "the server's URL {problem}; for example ws://127.0.0.1:8000/shelly"
            ),
            Self::Authorities => write!(f, "the authorities' PEM text holds no usable certificate"),
            Self::NoSystemAuthorities => {
                write!(
                    f,
                    "this system has no certificate authorities; name your own, or trust anything"
                )
            }
        }
    }
}

impl std::error::Error for TargetError {}

impl Target {
    pub(crate) fn new(url: &str, trust: &Trust) -> Result<Self, TargetError> {
        let uri: Uri = url.parse().map_err(|_| TargetError::Url("cannot be read"))?;
        let default_port = match uri.scheme_str() {
            Some("ws") => 80,
            Some("wss") => 443,
            _ => return Err(TargetError::Url("starts neither with ws:// nor with wss://")),
        };
        let host = uri.host().ok_or(TargetError::Url("has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(default_port);
        let connector = if default_port == 443 {
            Some(Connector::Rustls(tls(trust)?))
        } else {
            None
        };
        Ok(Self {
            url: url.to_owned(),
            host,
            port,
            connector,
        })
    }

    /// The URL a device dials. The token is percent-encoded; a query already there is kept.
    pub(crate) fn url_for(&self, device: &DeviceId, tokens: &Tokens) -> SecretUrl {
        let token = match tokens {
            Tokens::None => return SecretUrl::new(&self.url),
            Tokens::Shared(token) => token.clone(),
            Tokens::PerDevice(token_of) => token_of(device),
        };
        let separator = if self.url.contains('?') { '&' } else { '?' };
        SecretUrl::new(&format!(
            "{}{separator}token={}",
            self.url,
            percent_encode(&token)
        ))
    }

    /// Dials and upgrades. Cancel-safe in the sense that a dropped dial leaves nothing but a closed socket.
    pub(crate) async fn dial(&self, url: &SecretUrl, offer: Offer) -> Result<Socket, DialError> {
        // The library's `log` records of the handshake show the request; nothing here forwards them to `tracing`.
        let mut request = url.reveal().into_client_request().map_err(DialError::from)?;
        offer.write(&mut request);
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| DialError::Io(error.kind()))?;
        stream
            .set_nodelay(true)
            .map_err(|error| DialError::Io(error.kind()))?;
        let dialled = tokio_tungstenite::client_async_tls_with_config(
            request,
            stream,
            Some(socket_config()),
            self.connector.clone(),
        );
        let (socket, response) = dialled.await?;
        if response.headers().contains_key("Sec-WebSocket-Extensions") {
            return Err(DialError::Extension);
        }
        Ok(socket)
    }
}

/// Why a dial failed, told without the URL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum DialError {
    /// The server accepted an extension that a device cannot speak.
    Extension,
    Io(std::io::ErrorKind),
    /// The server answered, but not with an upgrade.
    Refused(u16),
    /// Anything else, by its kind only.
    Other(&'static str),
}

impl From<WsError> for DialError {
    fn from(error: WsError) -> Self {
        match error {
            WsError::Http(response) => Self::Refused(response.status().as_u16()),
            WsError::Io(error) => Self::Io(error.kind()),
            WsError::Protocol(_) => Self::Other("the server broke the WebSocket protocol"),
            WsError::Tls(_) => Self::Other("TLS failed"),
            WsError::Url(UrlError::UnsupportedUrlScheme | UrlError::TlsFeatureNotEnabled) => {
                Self::Other("the scheme of the URL is not supported")
            }
            WsError::Url(_) => Self::Other("the URL cannot be dialled"),
            _ => Self::Other("the handshake failed"),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extension => f.write_str("the server accepted an extension that devices do not speak"),
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Refused(status) => write!(f, "the server answered {status} instead of an upgrade"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// Everything but unreserved characters (RFC 3986, 2.3) as `%XX`.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn tls(trust: &Trust) -> Result<Arc<rustls::ClientConfig>, TargetError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|_| TargetError::Authorities)?;
    let config = match trust {
        Trust::System => builder
            .with_root_certificates(system_roots()?)
            .with_no_client_auth(),
        Trust::Authorities(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| TargetError::Authorities)?;
                roots.add(certificate).map_err(|_| TargetError::Authorities)?;
            }
            if roots.is_empty() {
                return Err(TargetError::Authorities);
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::Anything => {
            let verifier = Arc::new(AcceptAnything { provider });
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth()
        }
    };
    Ok(Arc::new(config))
}

/// The system's authorities, loaded once for the whole fleet.
fn system_roots() -> Result<rustls::RootCertStore, TargetError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        Err(TargetError::NoSystemAuthorities)
    } else {
        Ok(roots)
    }
}

/// What a device does whose `ssl_ca` is `*`: it encrypts, and asks nobody with whom.
#[derive(Debug)]
struct AcceptAnything {
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl rustls::client::danger::ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
