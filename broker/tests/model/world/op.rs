//! What a client, or whoever configures a tenant, may do next. Names are numbers into the world's lists.

use crate::oracle::Policy;

#[derive(Clone, Debug)]
pub(crate) enum Since {
    Plain,
    /// The position that this client would bring, if it has one.
    Remembered,
    /// A number that was never given.
    Wrong,
    Recent(u32),
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Connect {
        slot: usize,
        remember: bool,
    },
    Drop {
        slot: usize,
    },
    Subscribe {
        slot: usize,
        room: usize,
        since: Since,
        policy: Policy,
        events: Vec<usize>,
        keys: Vec<usize>,
        watch: bool,
    },
    Unsubscribe {
        slot: usize,
        room: usize,
    },
    Publish {
        slot: usize,
        room: usize,
        event: usize,
        key: usize,
        myself: bool,
        exclude: Vec<usize>,
        repeat: Option<usize>,
    },
    Burst {
        tenant: usize,
        room: usize,
    },
    History {
        slot: usize,
        room: usize,
        from: u64,
        backwards: bool,
        limit: u32,
    },
    Who {
        slot: usize,
    },
    Keep {
        tenant: usize,
        messages: u32,
    },
    Presence {
        tenant: usize,
        on: bool,
    },
    Read {
        slot: usize,
    },
}
