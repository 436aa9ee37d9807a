//! Messages to people and connections.

use crate::code::{Code, Refusal};
use crate::ids::{ConnectionId, Role, UserId};
use crate::limits::{EXCLUDE_MAX, PAYLOAD_DEPTH_MAX};
use crate::payload::Payload;
use crate::wire;

use super::{Text, bounded_count, check_event, invalid};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    pub to: Recipient,
    pub event: Text,
    pub payload: Payload,
    pub exclude_sender: bool,
    pub exclude: Vec<ConnectionId>,
}

/// Whom a message without a room is for, always within one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Recipient {
    User(UserId),
    Connection(ConnectionId),
    Role(Role),
    Tenant,
}

pub(super) fn check_send(send: wire::Send, payload_bytes_max: usize) -> Result<Send, Refusal> {
    use wire::send::{Payload as P, To};
    let to = match send.to {
        Some(To::User(user)) => Recipient::User(UserId::new(&user).map_err(|e| invalid("user", e))?),
        Some(To::Connection(connection)) => Recipient::Connection(ConnectionId(connection)),
        Some(To::Role(role)) => Recipient::Role(Role::new(&role).map_err(|e| invalid("role", e))?),
        Some(To::Tenant(true)) => Recipient::Tenant,
        Some(To::Tenant(false)) | None => {
            return Err(Refusal::new(
                Code::Invalid,
                "send needs a recipient: user, connection, role or tenant",
            ));
        }
    };
    let payload = match send.payload {
        None => Payload::NULL,
        Some(P::Json(json)) => Payload::Json(json),
        Some(P::Text(text)) => Payload::Text(text.into()),
        Some(P::Binary(binary)) => Payload::Binary(binary),
    };
    check_event(&send.event)?;
    payload.check(payload_bytes_max, PAYLOAD_DEPTH_MAX)?;
    bounded_count("exclude", send.exclude.len(), EXCLUDE_MAX)?;
    Ok(Send {
        to,
        event: send.event.into(),
        payload,
        exclude_sender: send.exclude_sender,
        exclude: send.exclude.into_iter().map(ConnectionId).collect(),
    })
}
