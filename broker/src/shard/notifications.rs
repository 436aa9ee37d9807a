//! Notifications of the user behind a connection.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::{MarkRead, Notifications, Notify};
use cauce_protocol::{Code, Refusal};

use super::Shard;
use super::peer::Peer;
use crate::hub::Tenant;

impl Shard {
    pub(super) fn notify(&self, peer: &Rc<Peer>, _: &Arc<Tenant>, id: u32, _: Notify) {
        self.refuse(peer, id, &not_yet());
    }

    pub(super) fn notifications(&self, peer: &Rc<Peer>, _: &Arc<Tenant>, id: u32, _: Notifications) {
        self.refuse(peer, id, &not_yet());
    }

    pub(super) fn mark_read(&self, peer: &Rc<Peer>, _: &Arc<Tenant>, id: u32, _: MarkRead) {
        self.refuse(peer, id, &not_yet());
    }
}

fn not_yet() -> Refusal {
    Refusal::new(Code::Unsupported, "this broker does not do that")
}
