//! The client against a real broker: the examples of README.md as they stand there, and what only the real thing can show.
#![allow(
    unreachable_pub,
    reason = "the examples are written as a program would write them"
)]

mod readme;
mod recovery;
mod world;
