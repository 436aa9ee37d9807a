//! RFC 6455, the server's side, without I/O.
//!
//! What must stay true:
//! - A frame towards the client has no mask, so its bytes are the same for every receiver: it is written once and shared.
//! - A connection keeps bytes only while a frame or a message is incomplete; reading happens in the shard's scratch buffer.
//! - Lengths are judged from the header, before a byte of the payload is kept.
//! - No compression: it would give every connection a window of its own, and a stranger a bomb to throw before he is known.

pub mod frame;
pub mod handshake;
pub mod reader;

pub use frame::Opcode;
pub use reader::{Event, Reader, Violation};
