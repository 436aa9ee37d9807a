//! The Cauce broker as a library.

pub mod clock;
pub mod mailbox;
pub mod publication;
pub mod rooms;
mod sync;
pub mod websocket;
