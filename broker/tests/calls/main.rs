//! Calls of methods over real sockets, from inside the process and through the API.

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod lost;
mod party;
mod process;
mod sharing;
