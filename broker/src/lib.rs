//! The Cauce broker as a library.

pub mod auth;
pub mod clock;
pub mod config;
pub mod connection;
pub mod hub;
pub mod mailbox;
pub mod metrics;
pub mod publication;
pub mod rate;
pub mod rooms;
pub mod shard;
pub mod shelly;
pub mod socket;
pub mod store;
mod sync;
pub mod transport;
pub mod websocket;
