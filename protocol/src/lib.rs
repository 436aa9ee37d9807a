//! The wire of Cauce, shared by broker, clients and load test.
//!
//! Nothing here does I/O, reads a clock or names a runtime. Input from a peer is bounded in size, count and nesting before
//! anything is kept of it, never panics, and is either a checked message or an error that says whose fault it is:
//! [`DecodeError`] for bytes that break the protocol (the connection ends), [`Rejected`] for one request (it is answered,
//! the connection lives on).
//!
//! - [`frame`] finds frames in bytes
//! - [`message`] is the checked form of what a client asks; [`server`] writes what the broker answers
//! - [`wire`] is generated from `proto/cauce.proto`; [`json`] is its twin for plain clients
//! - [`code`] is the table of reasons, [`limits`] the bounds, [`ids`] the names and numbers

pub mod code;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod json;
pub mod limits;
pub mod message;
pub mod payload;
mod publish;
pub mod server;
mod varint;

/// Generated from the schema.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/cauce.v1.rs"));
}

pub use code::{Advice, Code, Refusal};
pub use frame::DecodeError;
pub use ids::{
    ConnectionId, DeviceId, Epoch, EventName, NameError, Position, Role, RoomId, RoomName, Seq, TenantId,
    UserId,
};
pub use message::{ClientMessage, Rejected, Request};
pub use payload::Payload;

/// WebSocket subprotocol of protobuf frames.
pub const SUBPROTOCOL_PROTO: &str = "cauce.v1.proto";
/// WebSocket subprotocol of JSON texts.
pub const SUBPROTOCOL_JSON: &str = "cauce.v1.json";
/// A subprotocol of this prefix carries the token, for browsers that can set no header: `cauce.token.<jwt>`.
pub const SUBPROTOCOL_TOKEN_PREFIX: &str = "cauce.token.";
/// The version that this crate speaks.
pub const VERSION: u32 = 1;
