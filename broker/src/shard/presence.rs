//! Who is in a room.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::Presence;
use cauce_protocol::{Code, Refusal};

use super::Shard;
use super::peer::Peer;
use crate::hub::Tenant;

impl Shard {
    pub(super) fn presence(&self, peer: &Rc<Peer>, _: &Arc<Tenant>, id: u32, _: Presence) {
        self.refuse(peer, id, &not_yet());
    }
}

fn not_yet() -> Refusal {
    Refusal::new(Code::Unsupported, "this broker does not do that")
}
