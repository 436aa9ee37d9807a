//! Loads a broker from outside, over its sockets, and says what it measured and whether that may be claimed.
//!
//! It never links the broker: what it knows of it is the wire.
//!
//! - [`cli`] is what people type; `scenario` the files they change; `topology` and `schedule` what these mean
//! - `dialect` is what is said to a server and heard from it: our protocol, and others'
//! - `engine` connects, sends and counts; `wire`, `stamp` and `ledger` are its hot path
//! - [`tls`] is what both sides need to speak TLS
//! - [`limit`] is the bare server that gives the machine's own limit
//! - `steady`, `disturbed`, `interleaved`, `devices`, `storm` and `idle` run a scenario; `report` shows what they found, `assertion`, `search`, `sweep`
//!   and `standard` judge it
//! - `served` and `beside` start servers to measure, and `kept` sees to it that none is left behind

mod assertion;
mod beside;
pub mod cli;
mod clock;
mod devices;
mod dialect;
mod disturbed;
mod engine;
mod http;
mod idle;
mod in_process;
mod interleaved;
mod kept;
mod ledger;
pub mod limit;
mod median;
mod metrics;
mod poll;
mod process;
mod report;
mod scenario;
mod schedule;
mod search;
mod served;
mod session;
mod socket;
mod stamp;
mod standard;
mod steady;
mod storm;
mod sweep;
pub mod tls;
mod token;
mod topology;
mod wire;
