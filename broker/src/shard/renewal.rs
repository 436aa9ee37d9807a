//! Renewal of tokens in band.

use std::rc::Rc;

use cauce_protocol::{Code, Refusal};

use super::Shard;
use super::Tunables;
use super::peer::Peer;
use crate::clock::Now;

impl Shard {
    pub(super) fn refresh(&self, peer: &Rc<Peer>, id: u32, _token: &str, _: Now, _: &Tunables) {
        self.refuse(peer, id, &not_yet());
    }
}

fn not_yet() -> Refusal {
    Refusal::new(Code::Unsupported, "this broker does not do that")
}
