//! The Cauce broker as a library.

pub mod clock;
pub mod seal;
pub mod store;
