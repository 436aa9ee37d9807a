//! Loads a broker from outside, over its sockets, and says what it measured and whether that may be claimed.
//!
//! It never links the broker: what it knows of it is the wire.
//!
//! - [`cli`] is what people type; `scenario` the files they change; `topology` and `schedule` what these mean
//! - `dialect` is what is said to a server and heard from it: our protocol, and others'
//! - `engine` connects, sends and counts; `wire`, `stamp` and `ledger` are its hot path
//! - [`limit`] is the bare server that gives the machine's own limit
//! - `steady`, `disturbed`, `storm` and `idle` run a scenario; `report` shows what they found, `assertion`, `search` and `standard` judge it

mod assertion;
mod beside;
pub mod cli;
mod clock;
mod dialect;
mod disturbed;
mod engine;
mod idle;
mod ledger;
pub mod limit;
mod poll;
mod process;
mod report;
mod scenario;
mod schedule;
mod search;
mod session;
mod socket;
mod stamp;
mod standard;
mod steady;
mod storm;
mod token;
mod topology;
mod wire;
