//! What the connection is doing, for displays and decisions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cauce_protocol::{ConnectionId, TenantId, UserId};

use crate::error::Error;

/// Seen through [`crate::Client::status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// Dialling, or waiting for the broker's welcome.
    Connecting,
    Online(Arc<Session>),
    /// The connection was lost or not made; the next try comes at `until`.
    Waiting {
        until: Instant,
        reason: Error,
    },
    /// For good. `None` if the application closed it.
    Closed {
        reason: Option<Error>,
    },
}

/// What the broker said in its welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// Changes with every connection.
    pub connection: ConnectionId,
    pub tenant: TenantId,
    pub user: UserId,
    /// The broker pings at this interval.
    pub heartbeat: Duration,
    /// When the token expires, by this machine's clock; `None` means never.
    pub token_expires: Option<Instant>,
}
