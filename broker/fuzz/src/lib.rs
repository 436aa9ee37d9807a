//! The broker's parsers of what strangers and devices send, taken by path so that the fuzzer builds them and not the whole
//! broker with its database and HTTP server. Tokens, key sets and configuration need more of it: their entries
//! (`cauce_broker::auth::fuzz`) run as property tests with `cargo test`.
#![allow(dead_code, reason = "each target enters by one door")]

#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/socket/record/mod.rs"]
pub mod record;
#[path = "../../src/shelly/mod.rs"]
pub mod shelly;
#[path = "../../src/websocket/mod.rs"]
pub mod websocket;
