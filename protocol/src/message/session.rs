//! Requests about the connection itself: who speaks, and by which token.

use crate::code::{Code, Refusal};
use crate::ids::ConnectionId;
use crate::limits::{CLIENT_NAME_BYTES_MAX, PREVIOUS_MAX, TOKEN_BYTES_MAX};
use crate::wire;

use super::{bounded, bounded_count};

/// A token: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    pub version: u32,
    pub features: u64,
    /// A secret: it is never shown.
    pub token: String,
    pub client: String,
    /// This client's earlier connections.
    pub previous: Vec<ConnectionId>,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("version", &self.version)
            .field("features", &self.features)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

pub(super) fn check_hello(hello: wire::Hello) -> Result<Hello, Refusal> {
    let wire::Hello {
        version,
        features,
        token,
        client,
        previous,
    } = hello;
    bounded("token", token.len(), TOKEN_BYTES_MAX)?;
    bounded("client", client.len(), CLIENT_NAME_BYTES_MAX)?;
    bounded_count("previous", previous.len(), PREVIOUS_MAX)?;
    Ok(Hello {
        version,
        features,
        token,
        client,
        previous: previous.into_iter().map(ConnectionId).collect(),
    })
}

pub(super) fn check_refresh(refresh: wire::Refresh) -> Result<Secret, Refusal> {
    bounded("token", refresh.token.len(), TOKEN_BYTES_MAX)?;
    if refresh.token.is_empty() {
        return Err(Refusal::new(Code::Invalid, "refresh has no token"));
    }
    Ok(Secret(refresh.token))
}
