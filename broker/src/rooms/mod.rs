//! Rooms of a tenant: a table that readers never wait for, and a small critical section a room.
//!
//! What must stay true:
//! - Looking up a room never waits for a writer (papaya). A room found may have closed since; its lock says so, and the
//!   caller looks again.
//! - Numbering a message and handing it to every listening shard is one step under the room's lock, so all shards see one
//!   order. Nothing in that step waits: room in the mailboxes is reserved first, and if one has none the message is refused
//!   before it has a number.
//! - A shard that joins learns the position under the same lock: it gets every later message and none before.
//! - A room without listeners lingers for a while (its numbering survives a quick reconnect), then closes and leaves the table.

mod class;
#[cfg(all(test, shuttle))]
mod models;
mod news;
mod presence;
mod room;
mod table;

pub use class::{Durability, Keep, PresenceMode, RoomClass};
pub use news::{NewsForm, NewsKind, PresenceNews};
pub use presence::{Arriving, Change, Exit, PageQuery, PresencePage, PresentUser};
pub use room::{
    Accepted, Budget, CatchUp, DURABLE_IN_MEMORY, Entered, Head, HeadKey, Joined, Journal, JournalEntry,
    LEASE_NUMBERS, Listener, Lost, Manner, OnCommit, Page, PresenceDesk, Reclassified, Recovered, Repeat,
    Room, SHARDS_MAX, Start, Tap, Written,
};
pub use table::{Classify, RoomKeys, RoomTable, TableLimits, overloaded, share_overloaded};
