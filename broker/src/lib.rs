//! The Cauce broker as a library.

pub mod auth;
pub mod clock;
pub mod config;
pub mod mailbox;
pub mod publication;
pub mod rooms;
pub mod shelly;
mod sync;
pub mod websocket;
