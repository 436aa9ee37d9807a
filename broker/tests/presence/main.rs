//! Who is in a room, over real sockets: tabs, reconnects, deaths, slow watchers, rights and tenants.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod load;
mod people;
mod rights;
