//! Calls: to devices, and to whoever serves a method.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::{Call, Callee, MethodPattern, Respond, Serve};
use cauce_protocol::{Code, Refusal};

use super::Shard;
use super::peer::{Peer, Stage};
use crate::hub::{Caller, OutgoingCall, Tenant};

impl Shard {
    pub(super) fn call(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, call: Call, timeout_ms: u64) {
        let Call {
            to, method, params, ..
        } = call;
        let Callee::Device(device) = to else {
            return self.refuse(peer, id, &not_yet());
        };
        let actor = match &*peer.stage.borrow() {
            Stage::Client(client) => client.connection.principal.user.clone(),
            _ => return,
        };
        let call = OutgoingCall {
            method,
            params,
            timeout_ms,
        };
        self.hub
            .audit_call(tenant, actor.as_str(), device.as_str(), &call);
        self.hub.call(
            tenant,
            device.as_str(),
            &call,
            Caller::Connection {
                connection: peer.id,
                request: id,
            },
        );
    }

    pub(super) fn serve(&self, peer: &Rc<Peer>, _: &Arc<Tenant>, id: u32, _: Serve) {
        self.refuse(peer, id, &not_yet());
    }

    pub(super) fn unserve(&self, peer: &Rc<Peer>, _: &Arc<Tenant>, id: u32, _: Vec<MethodPattern>) {
        self.refuse(peer, id, &not_yet());
    }

    pub(super) fn respond(&self, peer: &Rc<Peer>, _: &Arc<Tenant>, id: u32, _: Respond) {
        self.refuse(peer, id, &not_yet());
    }

    pub(super) fn cancel(&self, peer: &Rc<Peer>, _: &Arc<Tenant>, id: u32, _request: u32) {
        self.refuse(peer, id, &not_yet());
    }
}

fn not_yet() -> Refusal {
    Refusal::new(Code::Unsupported, "this broker does not do that")
}
