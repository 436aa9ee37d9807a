//! Doors for sockets: bytes in, bytes out, no decision about what they mean.
//!
//! `accept` takes connections and hands each to the shard with the fewest; `opening` reads the head on that shard and sends
//! the socket where it belongs; `websocket` reads it from then on; `tls` holds the certificate.

mod accept;
mod opening;
mod tls;
mod websocket;

pub use accept::{Acceptor, Listener};
pub use opening::{Doors, HttpArrival};
pub use tls::{Certificate, TlsError};
