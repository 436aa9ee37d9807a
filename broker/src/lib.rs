//! Placeholder while the workspace is laid out.

pub mod clock;
pub mod shelly;
