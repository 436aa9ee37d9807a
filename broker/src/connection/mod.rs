//! What a client may do and when: pure, given a message and the time, answers what follows.
//!
//! Two stages, two types: an [`Opening`] takes nothing but a hello; only a verified token makes a [`Connection`] of it.

mod open;
mod opening;

pub(crate) use open::method_room;
pub use open::{Action, Connection, ConnectionSettings, REFUSALS_A_MINUTE_MAX, Subscription};
pub use opening::{Opening, Step};
