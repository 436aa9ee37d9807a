//! The Cauce broker as a library.

pub mod admin;
pub mod auth;
pub mod clock;
pub mod config;
pub mod connection;
mod handle;
pub mod http;
pub mod hub;
pub mod mailbox;
pub mod metrics;
pub mod publication;
pub mod rate;
pub mod rooms;
pub mod seal;
mod server;
pub mod shard;
pub mod shelly;
pub mod socket;
pub mod store;
mod sync;
mod threads;
pub mod transport;
pub mod websocket;

pub use config::Config;
pub use handle::{Handle, Invocation, MethodServer, Subscription, TAP_BYTES_MAX, TenantHandle};
#[cfg(feature = "testing")]
pub use server::hub_alone;
pub use server::{Persistence, Server, StartError, Stopped};
