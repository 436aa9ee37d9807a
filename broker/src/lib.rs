//! The Cauce broker as a library.

pub mod clock;
pub mod store;
