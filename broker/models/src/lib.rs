//! The broker's own files that hand work between threads, and nothing else of it, so that a check is built in a minute.
//!
//! Run by `scripts/model-check.sh`; without `--cfg shuttle` there is nothing here. The same models run inside the broker's
//! crate too: `RUSTFLAGS="--cfg shuttle" cargo test -p cauce-broker --lib models --target-dir target/shuttle`.
#![cfg(shuttle)]

#[path = "../../src/clock.rs"]
mod clock;
#[path = "../../src/mailbox.rs"]
mod mailbox;
#[path = "../../src/publication.rs"]
mod publication;
#[path = "../../src/rate.rs"]
mod rate;
#[path = "../../src/rooms/mod.rs"]
mod rooms;
#[path = "../../src/sync.rs"]
mod sync;

#[path = "../../src/websocket"]
mod websocket {
    pub mod frame;
}
