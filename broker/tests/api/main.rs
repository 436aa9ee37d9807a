//! The HTTP API against a whole broker over real sockets, with and without a database.

mod bounds;
mod connection_logs;
mod credentials;
mod devices;
mod listeners;
mod messages;
mod presence;
mod revocations;
mod start;
mod support;
mod tenants;
mod users;
