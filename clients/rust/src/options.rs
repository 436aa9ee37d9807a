//! How to connect. Everything has a default but the address.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cauce_protocol::server::Dialect;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type TokenFuture = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;

/// Longer times are shortened to this: a clock holds it, and nobody waits for more.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Whether a lost connection is made again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconnect {
    /// Until it works, the application closes, or the broker says never.
    #[default]
    Always,
    /// Once there was a connection. The first attempt fails at once if it fails: for command lines.
    AfterWelcome,
    /// Not at all.
    Never,
}

/// Whether acknowledged publishes get an idempotency key of their own, so that one whose answer was lost with the connection
/// is sent again without harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idempotency {
    /// A random key for each publish that has none. About 20 bytes on the wire.
    #[default]
    Automatic,
    /// Only keys that the application gives.
    Manual,
}

/// Options of a client, for [`crate::Client::connect`].
///
/// ```
/// use std::time::Duration;
/// use cauce_client::Options;
///
/// let options = Options::new("wss://realtime.example.com/v1/ws")
///     .token("eyJ…")
///     .client_name("billing/2.1")
///     .request_timeout(Duration::from_secs(5));
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) url: String,
    pub(crate) token: Token,
    pub(crate) dialect: Dialect,
    pub(crate) client_name: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) roots_pem: Option<Arc<[u8]>>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) reconnect: Reconnect,
    pub(crate) idempotency: Idempotency,
    pub(crate) offline_count_max: usize,
    pub(crate) offline_bytes_max: usize,
    pub(crate) offline_age_max: Duration,
    pub(crate) in_flight_max: usize,
    pub(crate) buffer_events: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) read_buffer_bytes: usize,
    pub(crate) notifications: bool,
}

#[derive(Clone)]
pub(crate) enum Token {
    None,
    Fixed(String),
    Provider(Arc<dyn Fn() -> TokenFuture + Send + Sync>),
}

impl Options {
    /// `url` is `ws://` or `wss://`, with the path of the broker's endpoint: `ws://127.0.0.1:7700/v1/ws`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: Token::None,
            dialect: Dialect::Proto,
            client_name: concat!("cauce-rust/", env!("CARGO_PKG_VERSION")).into(),
            headers: Vec::new(),
            roots_pem: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            reconnect: Reconnect::default(),
            idempotency: Idempotency::default(),
            offline_count_max: 256,
            offline_bytes_max: 4 * 1024 * 1024,
            offline_age_max: Duration::from_secs(30),
            in_flight_max: 4096,
            buffer_events: 1024,
            buffer_bytes: 4 * 1024 * 1024,
            read_buffer_bytes: 8 * 1024,
            notifications: false,
        }
    }

    /// The JWT. It goes in the first frame, never in the address. When the broker wants another, the client closes: use
    /// [`Options::token_provider`] where tokens expire.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Token::Fixed(token.into());
        self
    }

    /// Asked for the first token; again when 60 to 80 % of a token's life is over, at random, so that the connection goes on
    /// with another; and whenever the broker says that the last one is no good. Without a connection a failure is treated like
    /// one that could not be made; with one it is tried again while the old token is good. Its time counts towards
    /// [`Options::connect_timeout`].
    #[must_use]
    pub fn token_provider<F, Fut, E>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.token = Token::Provider(Arc::new(move || {
            let token = provider();
            Box::pin(async move { token.await.map_err(Into::into) })
        }));
        self
    }

    /// JSON texts instead of protobuf: larger and slower, readable in a network trace.
    #[must_use]
    pub fn json(mut self) -> Self {
        self.dialect = Dialect::Json;
        self
    }

    /// Name and version of the program, at most 100 bytes, for the operator's eyes.
    #[must_use]
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// One more header of the handshake request. May be given several times.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Trust exactly these certificates (PEM, one or many) instead of the system's.
    #[must_use]
    pub fn roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots_pem = Some(pem.into().into());
        self
    }

    /// For the token, the name, the socket, TLS and the handshake together. Default 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(TIME_MAX);
        self
    }

    /// From a request to its answer on an open connection. Default 10 s. Time offline is [`Options::offline_queue`]'s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout.min(TIME_MAX);
        self
    }

    /// Default [`Reconnect::Always`].
    #[must_use]
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Default [`Idempotency::Automatic`].
    #[must_use]
    pub fn idempotency(mut self, idempotency: Idempotency) -> Self {
        self.idempotency = idempotency;
        self
    }

    /// What may wait for a connection, and for how long. Default 256 requests, 30 s. With 0 requests nothing waits: without a
    /// connection a request fails at once.
    #[must_use]
    pub fn offline_queue(mut self, requests_max: usize, age_max: Duration) -> Self {
        self.offline_count_max = requests_max;
        self.offline_age_max = age_max.min(TIME_MAX);
        self
    }

    /// Payload bytes that may wait for a connection. Default 4 MiB.
    #[must_use]
    pub fn offline_bytes(mut self, bytes_max: usize) -> Self {
        self.offline_bytes_max = bytes_max;
        self
    }

    /// Requests that may wait for their answers; more wait to be taken. Default 4,096.
    #[must_use]
    pub fn in_flight(mut self, requests_max: usize) -> Self {
        self.in_flight_max = requests_max.max(1);
        self
    }

    /// What each subscription and each inbox holds for a slow reader, in events and in payload bytes; beyond either the oldest
    /// give way and the reader is told ([`crate::Event::Lagged`]). Default 1,024 events, 4 MiB.
    #[must_use]
    pub fn buffer(mut self, events_max: usize, bytes_max: usize) -> Self {
        self.buffer_events = events_max;
        self.buffer_bytes = bytes_max;
        self
    }

    /// Hear of the user's notifications: [`crate::Client::notifications`] and [`crate::Client::unread`]. Default: no, because
    /// the broker then keeps an eye on them for this connection.
    #[must_use]
    pub fn notifications(mut self) -> Self {
        self.notifications = true;
        self
    }

    /// Read buffer of the socket, allocated for as long as the connection lives. Default 8 KiB: larger for one busy client,
    /// 4 KiB for thousands of idle ones.
    #[must_use]
    pub fn read_buffer_bytes(mut self, bytes: usize) -> Self {
        self.read_buffer_bytes = bytes.max(1024);
        self
    }
}

impl fmt::Debug for Options {
    /// Without token and headers, which are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dialect", &self.dialect)
            .field("client_name", &self.client_name)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}
