//! Sockets: HTTP/1.1 over what the shards hand on, and over the internal listener.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::{Api, Side, router};
use crate::socket::{Socket, SocketStream};
use crate::transport::{HttpArrival, Listener};

/// Largest head of a request, in bytes; what a connection may hold unread.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// For the head of the next request, so also how long an idle connection is kept.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// After this a connection is told to end with its present request; whoever has more to ask connects again.
const CONNECTION_TIME: Duration = Duration::from_secs(600);

/// For that present request and its answer to a slow reader.
const LAST_REQUEST_TIME: Duration = Duration::from_secs(60);

/// For answers on their way when the broker ends.
const FAREWELL_TIME: Duration = Duration::from_millis(500);

/// Connections of the internal listener, which the door does not count.
const INTERNAL_CONNECTIONS_MAX: usize = 256;

/// Pause after a failed accept: as a rule there are no file descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// Whether the connection speaks TLS with us.
    pub(super) tls: bool,
}

/// Serves until `ending`, and then what was asked before. Runs on a runtime of one thread, for sockets stay on it.
pub async fn serve(
    api: Api,
    arrivals: mpsc::Receiver<HttpArrival>,
    internal: Option<Listener>,
    ending: CancellationToken,
) {
    let open = Connections {
        tasks: TaskTracker::new(),
        ending: ending.clone(),
    };
    let main = serve_arrivals(router(&api, Side::Main), arrivals, &open);
    let both = async {
        match internal {
            None => main.await,
            Some(listener) => {
                let internal = serve_internal(&api, router(&api, Side::Internal), listener, &open);
                tokio::join!(main, async {
                    if let Err(error) = internal.await {
                        tracing::error!(%error, "the internal listener has ended");
                    }
                });
            }
        }
    };
    tokio::select! {
        () = both => {}
        () = ending.cancelled() => {}
    }
    open.tasks.close();
    // What is left then is not read by its peer, or not asked to its end.
    let _ = timeout(FAREWELL_TIME, open.tasks.wait()).await;
}

/// The connections that are served, each in a task of its own.
#[derive(Clone, Debug)]
struct Connections {
    tasks: TaskTracker,
    /// Idle ones end, and busy ones with their present request.
    ending: CancellationToken,
}

async fn serve_arrivals(router: Router, mut arrivals: mpsc::Receiver<HttpArrival>, open: &Connections) {
    while let Some(arrival) = arrivals.recv().await {
        let (router, ending) = (router.clone(), open.ending.clone());
        open.tasks.spawn_local(async move {
            let HttpArrival {
                parts,
                prefix,
                address,
                permit,
            } = arrival;
            let tls = parts.tls.is_some();
            // An error means that the peer is gone already.
            if let Ok(socket) = Socket::adopt(parts) {
                let stream = SocketStream::new(socket, prefix);
                serve_connection(stream, router, Peer { address, tls }, ending).await;
            }
            drop(permit);
        });
    }
    // The shards are gone; whoever runs this decides when to end.
    std::future::pending::<()>().await;
}

async fn serve_internal(api: &Api, router: Router, listener: Listener, open: &Connections) -> io::Result<()> {
    let listener = listener.into_tokio()?;
    let slots = Arc::new(Semaphore::new(INTERNAL_CONNECTIONS_MAX));
    loop {
        // Nobody closes the semaphore.
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((tcp, address)) => {
                let (router, address, ending) = (router.clone(), address.ip(), open.ending.clone());
                open.tasks.spawn_local(async move {
                    if let Ok(stream) = plain(tcp) {
                        let peer = Peer { address, tls: false };
                        serve_connection(stream, router, peer, ending).await;
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                api.hub.metrics.accept.errors.increment();
                tracing::warn!(%error, "cannot accept internal connections; check the limit on open files");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn plain(tcp: tokio::net::TcpStream) -> io::Result<SocketStream> {
    tcp.set_nodelay(true)?;
    let parts = crate::socket::Parts {
        tcp: tcp.into_std()?,
        tls: None,
    };
    Ok(SocketStream::new(Socket::adopt(parts)?, Bytes::new()))
}

async fn serve_connection<S>(stream: S, router: Router, peer: Peer, ending: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let router = router.clone();
        async move {
            Ok::<_, Infallible>(
                router
                    .oneshot(request)
                    .await
                    .unwrap_or_else(|never| match never {}),
            )
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Whatever ends a connection is the peer's affair; refusals have been answered by then.
    let ended = tokio::select! {
        _ = connection.as_mut() => true,
        () = sleep(CONNECTION_TIME) => false,
        () = ending.cancelled() => false,
    };
    if !ended {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_REQUEST_TIME, connection).await;
    }
}
