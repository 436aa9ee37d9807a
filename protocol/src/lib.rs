//! The wire of Cauce, shared by broker, clients and load test.

pub mod code;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod payload;
mod varint;

/// Generated from the schema.
#[allow(missing_debug_implementations, unreachable_pub, clippy::all)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/cauce.v1.rs"));
}

pub use code::{Advice, Code, Refusal};
pub use frame::DecodeError;
pub use ids::{
    ConnectionId, DeviceId, Epoch, EventName, NameError, Role, RoomId, RoomName, Seq, TenantId, UserId,
};
pub use payload::Payload;
