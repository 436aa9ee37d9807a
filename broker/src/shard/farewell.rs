//! Comings and goings of clients, left with the records.
//!
//! What must stay true: a client has one row when it is authenticated and one when it leaves, for whatever reason; nothing
//! waits for either, and a row that finds no place is counted by the store.

use cauce_protocol::Refusal;

use super::Shard;
use super::peer::{Client, Peer};
use super::survey::network;
use crate::clock::Now;
use crate::connection::Connection;
use crate::store::{ConnectionEvent, ConnectionLogRow};

/// Bytes of a reason that are kept: as many as a close frame has room for.
const MESSAGE_BYTES_MAX: usize = 123;

/// With what words a connection ends.
#[derive(Debug)]
pub(super) struct Farewell<'a> {
    code: Option<u16>,
    message: &'a str,
}

impl<'a> From<&'a Refusal> for Farewell<'a> {
    fn from(refusal: &'a Refusal) -> Self {
        Self::plain(refusal.code.number(), &refusal.message)
    }
}

impl<'a> Farewell<'a> {
    pub(super) fn plain(websocket_code: u16, message: &'a str) -> Self {
        Self {
            code: Some(websocket_code),
            message,
        }
    }

    /// The socket ended and nobody had said why.
    pub(super) fn unsaid() -> Self {
        Self {
            code: None,
            message: "",
        }
    }
}

impl Shard {
    pub(super) fn log_opened(&self, peer: &Peer, connection: &Connection, now: Now) {
        self.log(peer, connection, ConnectionEvent::Opened, now);
    }

    pub(super) fn log_closed(&self, peer: &Peer, client: &Client, farewell: &Farewell<'_>, now: Now) {
        let message = farewell.message;
        let message = &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)];
        let event = ConnectionEvent::Closed {
            code: farewell.code,
            message: (!message.is_empty()).then(|| message.into()),
            duration_ms: now.unix_ms.saturating_sub(client.since_unix_ms),
        };
        self.log(peer, &client.connection, event, now);
    }

    fn log(&self, peer: &Peer, connection: &Connection, event: ConnectionEvent, now: Now) {
        self.hub.records.connection_log(ConnectionLogRow {
            tenant: connection.principal.tenant.clone(),
            at_ms: now.unix_ms,
            connection: connection.id,
            user: connection.principal.user.clone(),
            address: network(peer.address).into(),
            client: connection.client.clone(),
            event,
        });
    }
}
