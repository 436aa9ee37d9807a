//! Pages of what rooms have kept.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::History;
use cauce_protocol::{Code, Refusal};

use super::Shard;
use super::peer::Peer;
use crate::hub::Tenant;

impl Shard {
    pub(super) fn history(&self, peer: &Rc<Peer>, _: &Arc<Tenant>, id: u32, _: History) {
        self.refuse(peer, id, &not_yet());
    }
}

fn not_yet() -> Refusal {
    Refusal::new(Code::Unsupported, "this broker does not do that")
}
