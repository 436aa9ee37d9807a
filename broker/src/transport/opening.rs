//! The first bytes of a socket: read its head on the shard, within a time and a size, and send it where it belongs.

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cauce_protocol::server::Dialect;
use cauce_protocol::{Code, Refusal, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO, SUBPROTOCOL_TOKEN_PREFIX};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use super::websocket::{Opened, Service};
use crate::config::Origins;
use crate::hub::{Arrival, DeviceCredential, Permit, Purpose, ShardMessage};
use crate::shard::{ClientArrival, Reception, Shard};
use crate::socket::{Parts, Socket};
use crate::websocket::handshake::{self, Head, HeadError};

/// Where clients connect.
pub(super) const CLIENT_PATH: &str = "/v1/ws";
/// Where devices connect.
pub(super) const DEVICE_PATH: &str = "/shelly";
/// A socket that returns each message, for conformance tests of the framing. Only with the feature `testing`.
#[cfg(feature = "testing")]
const ECHO_PATH: &str = "/echo";

/// Where a device's subprotocol is answered, if offered.
const DEVICE_SUBPROTOCOL: &str = "json-rpc";

/// What every shard needs to know at the door.
#[derive(Clone, Debug)]
pub struct Doors {
    pub origins: Arc<RwLock<Origins>>,
    /// Everything that is not a WebSocket goes to the HTTP server.
    pub http: mpsc::Sender<HttpArrival>,
}

/// A socket whose first request is plain HTTP.
#[derive(Debug)]
pub struct HttpArrival {
    pub parts: Parts,
    /// What was read of it.
    pub prefix: Bytes,
    pub address: IpAddr,
    pub permit: Permit,
}

/// Where a socket goes.
enum Route {
    Client {
        answer: String,
        dialect: Dialect,
        token: Option<String>,
    },
    Device {
        answer: String,
        credential: DeviceCredential,
    },
    #[cfg(feature = "testing")]
    Echo {
        answer: String,
    },
    Http,
    Refuse {
        status: u16,
        refusal: Refusal,
    },
}

impl Reception for Doors {
    fn receive(&self, shard: &Rc<Shard>, arrival: Arrival) {
        let Arrival {
            parts,
            address,
            permit,
            purpose,
        } = arrival;
        let socket = match Socket::adopt(parts) {
            Ok(socket) if !shard.is_ending() => socket,
            _ => return shard.hub.displaced(shard.index),
        };
        let (shard, doors) = (shard.clone(), self.clone());
        match purpose {
            Purpose::Fresh => Service::spawn(doors.open(shard, socket, address, permit)),
            Purpose::Device {
                credential,
                greeting,
                leftover,
            } => Service::spawn(async move {
                if write_all(&socket, &greeting).await.is_err() {
                    shard.hub.displaced(shard.index);
                    return None;
                }
                let peer = shard.admit_device(socket, address, permit, credential);
                let first = leftover.into();
                Some(Opened { shard, peer, first })
            }),
        }
    }
}

impl Doors {
    /// Reads the head and sends the socket where it belongs. Answers the client if it is one.
    async fn open(self, shard: Rc<Shard>, socket: Socket, address: IpAddr, permit: Permit) -> Option<Opened> {
        let tunables = shard.tunables();
        let limit = Duration::from_millis(tunables.handshake_ms);
        let mut input = BytesMut::new();
        let route = tokio::time::timeout(limit, async {
            let mut looked_at = 0;
            loop {
                // Garbage is known by its beginning. After that a head is parsed once it may be whole, so that one that comes
                // byte by byte costs no more than one that comes at once.
                let parsed = if looked_at == 0 || handshake::may_end(&input, looked_at) {
                    handshake::parse(&input)
                } else {
                    Ok(None)
                };
                looked_at = input.len();
                match parsed {
                    Ok(Some(head)) => {
                        let (route, len) = (self.route(&shard, &head), head.len);
                        return Some((route, len));
                    }
                    Err(error) => return Some((refuse_head(error), 0)),
                    Ok(None) if input.len() >= tunables.handshake_bytes_max => {
                        let refusal = Refusal::new(Code::TooLarge, "the request head is too long");
                        return Some((Route::Refuse { status: 431, refusal }, 0));
                    }
                    Ok(None) => {}
                }
                if read_more(&shard, &socket, &mut input, tunables.handshake_bytes_max).await == 0 {
                    return None;
                }
            }
        });
        let (route, head_len) = match route.await {
            Ok(Some(found)) => found,
            Ok(None) => {
                shard.hub.displaced(shard.index);
                return None;
            }
            Err(_) => {
                let refusal = Refusal::new(
                    Code::HandshakeTimeout,
                    "no request came within the handshake time",
                );
                (Route::Refuse { status: 408, refusal }, 0)
            }
        };
        let leftover = input.split_off(head_len.min(input.len()));
        match route {
            Route::Client {
                answer,
                dialect,
                token,
            } => {
                if write_all(&socket, answer.as_bytes()).await.is_err() {
                    shard.hub.displaced(shard.index);
                    return None;
                }
                let arrival = ClientArrival {
                    address,
                    permit,
                    dialect,
                    token,
                };
                let peer = shard.admit_client(socket, arrival);
                let first = leftover.into();
                return Some(Opened { shard, peer, first });
            }
            Route::Device { answer, credential } => {
                shard.hub.displaced(shard.index);
                let parts = socket.into_parts().ok()?;
                let purpose = Purpose::Device {
                    credential,
                    greeting: answer.into(),
                    leftover: leftover.freeze(),
                };
                let target = shard.hub.place_device();
                let arrival = Arrival {
                    parts,
                    address,
                    permit,
                    purpose,
                };
                shard.hub.shards[target].send(ShardMessage::Arrival(Box::new(arrival)));
            }
            #[cfg(feature = "testing")]
            Route::Echo { answer } => {
                if write_all(&socket, answer.as_bytes()).await.is_ok() {
                    echo(&shard, &socket, leftover.into()).await;
                }
                shard.hub.displaced(shard.index);
                drop(permit);
            }
            Route::Http => {
                shard.hub.displaced(shard.index);
                let parts = socket.into_parts().ok()?;
                // The whole head goes along: the HTTP server parses it for itself.
                let mut prefix = input;
                prefix.unsplit(leftover);
                let arrival = HttpArrival {
                    parts,
                    prefix: prefix.freeze(),
                    address,
                    permit,
                };
                if let Err(mpsc::error::TrySendError::Full(arrival)) = self.http.try_send(arrival)
                    && let Ok(socket) = Socket::adopt(arrival.parts)
                {
                    let refusal = Refusal::new(Code::Overloaded, "too many requests wait").retry_after(1_000);
                    refuse(&shard, &socket, 503, &refusal).await;
                }
            }
            Route::Refuse { status, refusal } => {
                refuse(&shard, &socket, status, &refusal).await;
                shard.hub.displaced(shard.index);
                drop(permit);
            }
        }
        None
    }

    fn route(&self, shard: &Shard, head: &Head<'_>) -> Route {
        if head.upgrade.is_some() && shard.hub.leaving.has_begun() {
            let refusal = shard.hub.leaving.refusal();
            return Route::Refuse { status: 503, refusal };
        }
        match (head.path, head.upgrade) {
            (CLIENT_PATH, Some(_)) => self.route_client(head, shard.tunables().query_token),
            (DEVICE_PATH, Some(_)) => route_device(shard, head),
            #[cfg(feature = "testing")]
            (ECHO_PATH, Some(upgrade)) => Route::Echo {
                answer: handshake::accept(upgrade, None),
            },
            (CLIENT_PATH | DEVICE_PATH, None) => {
                let refusal = Refusal::new(Code::Invalid, "this path speaks WebSocket");
                Route::Refuse { status: 426, refusal }
            }
            (_, Some(_)) => {
                let message = format!("clients connect to {CLIENT_PATH}, devices to {DEVICE_PATH}");
                Route::Refuse {
                    status: 404,
                    refusal: Refusal::new(Code::NotFound, message),
                }
            }
            (_, None) => Route::Http,
        }
    }

    fn route_client(&self, head: &Head<'_>, query_token: bool) -> Route {
        let Some(upgrade) = head.upgrade else {
            return Route::Http;
        };
        if !self.origins.read().allows(head.origin) {
            let message = "this page's origin is not on the list `origins`";
            return Route::Refuse {
                status: 403,
                refusal: Refusal::new(Code::OriginRefused, message),
            };
        }
        let chosen = head.subprotocols.iter().copied().find_map(|name| match name {
            SUBPROTOCOL_PROTO => Some((Dialect::Proto, Some(name))),
            SUBPROTOCOL_JSON => Some((Dialect::Json, Some(name))),
            _ => None,
        });
        // Plain tools offer nothing and mean text.
        let (dialect, subprotocol) = chosen.unwrap_or((Dialect::Json, None));
        let in_subprotocol = head
            .subprotocols
            .iter()
            .find_map(|p| p.strip_prefix(SUBPROTOCOL_TOKEN_PREFIX));
        // A browser closes the connection unless one of the subprotocols that it offered is chosen.
        let subprotocol = subprotocol.or_else(|| {
            head.subprotocols
                .iter()
                .copied()
                .find(|p| p.starts_with(SUBPROTOCOL_TOKEN_PREFIX))
        });
        let in_query = query_token
            .then(|| head.query.and_then(|q| handshake::query_value(q, "token")))
            .flatten();
        let token = bearer(head).or(in_subprotocol).map(str::to_owned).or(in_query);
        Route::Client {
            answer: handshake::accept(upgrade, subprotocol),
            dialect,
            token,
        }
    }
}

/// Devices are not browsers: their origin, which some firmware sends, is not asked.
fn route_device(shard: &Shard, head: &Head<'_>) -> Route {
    let Some(upgrade) = head.upgrade else {
        return Route::Http;
    };
    let in_query = head.query.and_then(|q| handshake::query_value(q, "token"));
    let token = bearer(head).map(str::to_owned).or(in_query).unwrap_or_default();
    match shard.hub.device_credential(&token) {
        Ok(credential) => {
            let subprotocol = head
                .subprotocols
                .iter()
                .copied()
                .find(|&p| p == DEVICE_SUBPROTOCOL);
            Route::Device {
                answer: handshake::accept(upgrade, subprotocol),
                credential,
            }
        }
        Err(refusal) => {
            let status = if refusal.code == Code::TenantDisabled {
                403
            } else {
                401
            };
            Route::Refuse { status, refusal }
        }
    }
}

fn bearer<'a>(head: &Head<'a>) -> Option<&'a str> {
    let (scheme, token) = head.authorization?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn refuse_head(error: HeadError) -> Route {
    let (status, words) = error.status();
    let code = if status == 431 {
        Code::TooLarge
    } else {
        Code::Malformed
    };
    Route::Refuse {
        status,
        refusal: Refusal::new(code, words),
    }
}

async fn refuse(shard: &Shard, socket: &Socket, status: u16, refusal: &Refusal) {
    shard.metrics().handshakes_refused.increment();
    // A peer that does not wait for its refusal has missed it.
    if write_all(socket, handshake::refuse(status, refusal).as_bytes())
        .await
        .is_ok()
    {
        socket.close_notify();
        socket.shutdown(std::net::Shutdown::Write);
    }
}

/// Reads once; 0 at the end or on an error.
async fn read_more(shard: &Shard, socket: &Socket, input: &mut BytesMut, bytes_max: usize) -> usize {
    poll_fn(|cx| {
        let mut scratch = shard.scratch().borrow_mut();
        let len = scratch.len().min(bytes_max);
        socket.poll_read(cx, &mut scratch[..len]).map(|read| {
            let n = read.unwrap_or(0);
            input.extend_from_slice(&scratch[..n]);
            n
        })
    })
    .await
}

/// How long an answer to a handshake may take to write: it fits into any socket's buffer, so this is for the malicious.
const ANSWER_TIME: Duration = Duration::from_secs(5);

async fn write_all(socket: &Socket, mut bytes: &[u8]) -> std::io::Result<()> {
    let write = async {
        while !bytes.is_empty() {
            match socket.try_write_vectored(&[std::io::IoSlice::new(bytes)]) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => socket.writable().await?,
                Err(e) => return Err(e),
            }
        }
        loop {
            socket.try_flush()?;
            if !socket.wants_write() {
                return Ok(());
            }
            socket.writable().await?;
        }
    };
    tokio::time::timeout(ANSWER_TIME, write).await?
}

/// Returns each message with the product's own framing, for conformance tests.
#[cfg(feature = "testing")]
async fn echo(shard: &Shard, socket: &Socket, mut first: Vec<u8>) {
    use crate::websocket::frame::{close, frame};
    use crate::websocket::reader::ReaderLimits;
    use crate::websocket::{Event, Opcode, Reader};

    let limits = ReaderLimits {
        message_bytes_max: 64 << 20,
        fragments_max: 1 << 20,
    };
    let (mut reader, mut events) = (Reader::default(), Vec::new());
    loop {
        let verdict = reader.read(&mut first, limits, &mut events);
        for event in events.drain(..) {
            let answer = match event {
                Event::Text(text) => frame(Opcode::Text, &text),
                Event::Binary(bytes) => frame(Opcode::Binary, &bytes),
                Event::Ping(payload) => frame(Opcode::Pong, &payload),
                Event::Pong(_) => continue,
                Event::Close { code } => {
                    // The peer has said its last word; ours need not arrive.
                    let _ = write_all(socket, &close(code.unwrap_or(1000), "")).await;
                    return;
                }
            };
            if write_all(socket, &answer).await.is_err() {
                return;
            }
        }
        if let Err(violation) = verdict {
            let _ = write_all(socket, &close(violation.close_code(), &violation.to_string())).await;
            return;
        }
        let mut input = BytesMut::new();
        if read_more(shard, socket, &mut input, usize::MAX).await == 0 {
            return;
        }
        first = input.into();
    }
}
