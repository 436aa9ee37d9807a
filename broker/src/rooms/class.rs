//! What holds in a room: how much is kept, who is told, how fast it may be written to. Immutable and shared; a change makes
//! a new class and gives it to the rooms that are open.

use cauce_protocol::message::Policy;

use crate::rate::Quota;

/// How much of a room's past is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Messages; 0 keeps nothing.
    pub messages: u32,
    /// Milliseconds; 0 means no bound by age.
    pub age_ms: u64,
    /// Bytes as counted by [`crate::publication::Publication::cost`]; 0 means no bound by size.
    pub bytes: u64,
}

impl Keep {
    /// Keeps nothing.
    pub const NONE: Self = Self {
        messages: 0,
        age_ms: 0,
        bytes: 0,
    };

    pub fn keeps(&self) -> bool {
        self.messages > 0
    }
}

/// Whether who is in a room can be asked and watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PresenceMode {
    #[default]
    Off,
    On {
        /// From the end of a user's last connection to the leave, in milliseconds: a reconnect within it is neither leave
        /// nor join.
        grace_ms: u64,
    },
}

/// Where a room's messages live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// In memory, for as long as the room is used.
    #[default]
    Memory,
    /// In the store as well: history outlives restarts.
    Durable,
}

/// What holds in the rooms of one pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomClass {
    /// What is kept in memory for those who come back, or, in a durable room, in the store.
    pub history: Keep,
    pub presence: PresenceMode,
    pub durability: Durability,
    /// For subscribers that name none.
    pub policy: Policy,
    /// Messages that may be published to one room.
    pub rate: Option<Quota>,
}

impl RoomClass {
    pub fn is_durable(&self) -> bool {
        self.durability == Durability::Durable
    }
}
