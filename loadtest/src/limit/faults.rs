//! What a broken server does, on purpose, to prove that the generator notices.

use std::collections::HashMap;

/// Faults of the bare server, each at every n-th delivery; 0 means never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub lose_every: u64,
    pub double_every: u64,
    /// The delivery comes after the next one to the same peer.
    pub swap_every: u64,
}

/// Decides about each delivery.
#[derive(Debug)]
pub(super) struct Saboteur {
    faults: Faults,
    deliveries: u64,
    /// By peer: the frame that comes after the next one.
    held: HashMap<usize, Vec<u8>>,
}

/// What becomes of one delivery.
pub(super) enum Copies {
    None,
    Once,
    Twice,
    /// Once, and then this frame that was held back.
    After(Vec<u8>),
}

impl Saboteur {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            faults,
            deliveries: 0,
            held: HashMap::new(),
        }
    }

    #[inline]
    pub(super) fn any(&self) -> bool {
        self.faults.lose_every | self.faults.double_every | self.faults.swap_every != 0
    }

    pub(super) fn copies(&mut self, peer: usize, frame: &[u8]) -> Copies {
        if let Some(held) = self.held.remove(&peer) {
            return Copies::After(held);
        }
        self.deliveries += 1;
        let due = |every: u64| every != 0 && self.deliveries.is_multiple_of(every);
        if due(self.faults.lose_every) {
            Copies::None
        } else if due(self.faults.double_every) {
            Copies::Twice
        } else if due(self.faults.swap_every) {
            self.held.insert(peer, frame.to_vec());
            Copies::None
        } else {
            Copies::Once
        }
    }
}
