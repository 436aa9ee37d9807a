//! The Cauce broker as a library.

pub mod auth;
pub mod clock;
pub mod config;
pub mod rate;
