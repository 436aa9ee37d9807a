//! The WebSocket: dialling, TLS, whole messages in and out. It decides nothing. Errors name host and port, never the whole
//! address, which may hold a secret.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cauce_protocol::limits::{FRAME_BYTES_MAX, FRAMES_A_MESSAGE_MAX};
use cauce_protocol::server::Dialect;
use cauce_protocol::{Advice, Code, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO, wire};
use futures_util::{Sink, Stream};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use crate::error::{Error, ErrorKind};
use crate::options::{Options, Token};

/// Largest WebSocket message taken, in bytes: a few frames of the largest size, or a great many ordinary ones.
const MESSAGE_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;
/// Frames are gathered into one message until it holds this many bytes: far below what a broker must take as one message
/// (its frame limit), and enough that more would not save system calls.
const BATCH_BYTES: usize = 16 * 1024;
/// Our side of the same limit that brokers hold us to.
const BATCH_FRAMES_MAX: usize = FRAMES_A_MESSAGE_MAX / 4;
/// Bytes that tungstenite may hold for a socket that does not take them: one batch and one frame of the largest size, and
/// room to spare. We stop writing as soon as the socket blocks, so it does not come near.
const WRITE_BUFFER_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// Everything needed to dial, checked.
#[derive(Clone)]
pub(crate) struct Dialler {
    request: Request,
    host: String,
    port: u16,
    tls: Tls,
    dialect: Dialect,
    token: Token,
    config: WebSocketConfig,
    timeout: Duration,
}

#[derive(Clone)]
enum Tls {
    Off,
    /// The system's certificates, read once in the process.
    Native,
    Custom(Arc<rustls::ClientConfig>),
}

impl Dialler {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let invalid = |message: &str| Error::new(ErrorKind::Invalid, message.to_owned());
        let uri: Uri = options
            .url
            .parse()
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "the address is not a URL", e))?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(invalid("the address must begin with ws:// or wss://")),
        };
        let host = uri.host().filter(|h| !h.is_empty());
        let host = host.ok_or_else(|| invalid("the address names no host"))?;
        // The brackets of an IPv6 address belong to the URL, not to the address.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = match (secure, &options.roots_pem) {
            (false, _) => Tls::Off,
            (true, None) => Tls::Native,
            (true, Some(pem)) => Tls::Custom(tls_config(roots_of(pem)?)?),
        };
        if options.client_name.len() > cauce_protocol::limits::CLIENT_NAME_BYTES_MAX {
            return Err(invalid("the client's name is longer than 100 bytes"));
        }
        let mut request = uri
            .into_client_request()
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "the address cannot be asked for", e))?;
        let headers = request.headers_mut();
        for (name, value) in &options.headers {
            let name = HeaderName::try_from(name)
                .map_err(|e| Error::with_source(ErrorKind::Invalid, "a header's name is not one", e))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|e| Error::with_source(ErrorKind::Invalid, "a header's value is not one", e))?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let subprotocol = match options.dialect {
            Dialect::Proto => SUBPROTOCOL_PROTO,
            Dialect::Json => SUBPROTOCOL_JSON,
        };
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(subprotocol),
        );
        let config = WebSocketConfig::default()
            .read_buffer_size(options.read_buffer_bytes)
            .write_buffer_size(BATCH_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        Ok(Self {
            request,
            host,
            port,
            tls,
            dialect: options.dialect,
            token: options.token.clone(),
            config,
            timeout: options.connect_timeout,
        })
    }

    /// A socket past the handshake and the token to say hello with. `last` is the token to use again.
    pub(crate) async fn dial(self, last: Option<String>) -> Result<(Transport, String), Error> {
        let (timeout, host, port) = (self.timeout, self.host.clone(), self.port);
        match tokio::time::timeout(timeout, self.dial_unbounded(last)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(Error::new(
                ErrorKind::Connect,
                format!("no connection to {host}:{port} within {timeout:?}"),
            )),
        }
    }

    /// Another token, for the connection that lives.
    pub(crate) async fn fetch_token(self) -> Result<String, Error> {
        let timeout = self.timeout;
        tokio::time::timeout(timeout, self.token())
            .await
            .unwrap_or_else(|_| {
                let message = format!("the token provider gave no token within {timeout:?}");
                Err(Error::new(ErrorKind::Token, message))
            })
    }

    async fn token(&self) -> Result<String, Error> {
        match &self.token {
            Token::None => Ok(String::new()),
            Token::Fixed(token) => Ok(token.clone()),
            Token::Provider(provider) => provider().await.map_err(|e| {
                Error::with_source(ErrorKind::Token, format!("the token provider failed: {e}"), e)
            }),
        }
    }

    async fn dial_unbounded(self, last: Option<String>) -> Result<(Transport, String), Error> {
        let token = match last {
            Some(token) => token,
            None => self.token().await?,
        };
        let at = format!("{}:{}", self.host, self.port);
        let connect = |e| Error::with_source(ErrorKind::Connect, format!("cannot connect to {at}: {e}"), e);
        let socket = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(connect)?;
        // Batches are gathered here; the kernel need not wait for more.
        socket.set_nodelay(true).map_err(connect)?;
        let connector = match self.tls {
            Tls::Off => Connector::Plain,
            Tls::Native => Connector::Rustls(native_tls_config().await?),
            Tls::Custom(config) => Connector::Rustls(config),
        };
        let (socket, _) =
            client_async_tls_with_config(self.request, socket, Some(self.config), Some(connector))
                .await
                .map_err(|e| handshake_error(e, &at))?;
        let transport = Transport {
            socket,
            dialect: self.dialect,
            batch: BytesMut::new(),
            unflushed: false,
        };
        Ok((transport, token))
    }
}

/// What the system's certificates make, once a process: reading them takes milliseconds and a few hundred kilobytes.
async fn native_tls_config() -> Result<Arc<rustls::ClientConfig>, Error> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    // It reads files.
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs)
        .await
        .map_err(|e| Error::with_source(ErrorKind::Connect, "the system's certificates were not read", e))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        return Err(Error::new(
            ErrorKind::Connect,
            "the system has no certificates to trust; install them, or give some with Options::roots_pem",
        ));
    }
    let config = tls_config(roots)?;
    Ok(Arc::clone(CONFIG.get_or_init(|| config)))
}

/// With the provider named: which one is the process's default is not for a library to say.
fn tls_config(roots: rustls::RootCertStore) -> Result<Arc<rustls::ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::with_source(ErrorKind::Invalid, "TLS cannot be set up", e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots_of(pem: &[u8]) -> Result<rustls::RootCertStore, Error> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|e| Error::with_source(ErrorKind::Invalid, "the roots are not PEM", e))?;
        roots
            .add(certificate)
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "a root is not a certificate", e))?;
    }
    if roots.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "the roots hold no certificate"));
    }
    Ok(roots)
}

fn handshake_error(error: WsError, at: &str) -> Error {
    match error {
        WsError::Http(response) => {
            let status = response.status();
            // A broker says why in the body; a proxy in front of it says what it likes.
            if let Some(error) = response.body().as_deref().and_then(refusal) {
                return error.into();
            }
            let after = response.headers().get(header::RETRY_AFTER);
            let after = after
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs);
            let message = format!("{at} refused the connection: HTTP {status}");
            match status {
                StatusCode::UNAUTHORIZED => Error::from_code(Code::Unauthenticated.number(), message, after),
                StatusCode::TOO_MANY_REQUESTS => Error::from_code(Code::RateLimited.number(), message, after),
                _ if status.is_server_error() => Error::from_code(Code::Unavailable.number(), message, after),
                _ => Error::new(ErrorKind::Protocol, message),
            }
        }
        WsError::Protocol(e) => Error::with_source(
            ErrorKind::Protocol,
            format!("{at} does not speak this protocol: {e}"),
            e,
        ),
        e => Error::with_source(ErrorKind::Connect, format!("cannot connect to {at}: {e}"), e),
    }
}

/// The error in a broker's HTTP answer. What does not hold a code of the table is somebody else's.
fn refusal(body: &[u8]) -> Option<wire::Error> {
    #[derive(serde::Deserialize)]
    struct Body {
        error: wire::Error,
    }
    let Body { error } = serde_json::from_slice(body).ok()?;
    let code = u16::try_from(error.code).ok()?;
    Advice::of(code).map(|_| error)
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Received {
    Frames(Bytes),
    Json(Utf8Bytes),
    /// A ping or pong: a sign of life. Pings are answered beneath.
    Alive,
}

/// A live socket. All progress lies in here, none in a future, so that any poll may be the last.
pub(crate) struct Transport {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    dialect: Dialect,
    batch: BytesMut,
    unflushed: bool,
}

impl Transport {
    /// The next message.
    ///
    /// # Errors
    /// How the connection ended.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Error>> {
        let message = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Poll::Ready(Err(lost(error))),
            None => return Poll::Ready(Err(lost(WsError::ConnectionClosed))),
        };
        Poll::Ready(match message {
            Message::Binary(bytes) => Ok(Received::Frames(bytes)),
            Message::Text(text) => Ok(Received::Json(text)),
            Message::Ping(_) => {
                // The answer lies in the write buffer.
                self.unflushed = true;
                Ok(Received::Alive)
            }
            Message::Pong(_) | Message::Frame(_) => Ok(Received::Alive),
            Message::Close(frame) => Err(closed(frame)),
        })
    }

    /// Writes what `next` appends, one frame a call, until it has no more or the socket takes no more. Ready when all is
    /// written and flushed.
    ///
    /// # Errors
    /// How the connection ended.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut(&mut BytesMut) -> Option<()>,
    ) -> Poll<Result<(), Error>> {
        loop {
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(lost)?;
            let frames_max = match self.dialect {
                Dialect::Proto => BATCH_FRAMES_MAX,
                Dialect::Json => 1,
            };
            let mut frames = 0;
            while frames < frames_max && self.batch.len() < BATCH_BYTES && next(&mut self.batch).is_some() {
                frames += 1;
            }
            if frames == 0 {
                break;
            }
            let bytes = self.batch.split().freeze();
            let message = match self.dialect {
                Dialect::Proto => Message::Binary(bytes),
                Dialect::Json => Message::Text(Utf8Bytes::try_from(bytes).map_err(|e| {
                    Error::with_source(ErrorKind::ConnectionLost, "our own JSON is not UTF-8", e)
                })?),
            };
            self.unflushed = true;
            Pin::new(&mut self.socket).start_send(message).map_err(lost)?;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(lost)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Says goodbye, as far as the socket takes it now.
    pub(crate) fn say_close(&mut self, cx: &mut Context<'_>, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: Utf8Bytes::default(),
        };
        // The connection is given up either way.
        let _ = Pin::new(&mut self.socket).start_send(Message::Close(Some(frame)));
        let _ = Pin::new(&mut self.socket).poll_flush(cx);
    }

    /// Waits for the other side's goodbye after [`Transport::say_close`].
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
    }
}

fn closed(frame: Option<CloseFrame>) -> Error {
    let Some(frame) = frame else {
        return Error::new(ErrorKind::ConnectionLost, "the broker closed the connection");
    };
    let code = u16::from(frame.code);
    match Advice::of(code) {
        Some(_) => Error::from_code(code, frame.reason.as_str(), None),
        None => Error::new(
            ErrorKind::ConnectionLost,
            format!("the connection was closed with {code} {}", frame.reason),
        ),
    }
}

fn lost(error: WsError) -> Error {
    Error::with_source(
        ErrorKind::ConnectionLost,
        format!("the connection was lost: {error}"),
        error,
    )
}
