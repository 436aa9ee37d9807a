//! Calls: to devices, and to whoever serves a method.

use std::rc::Rc;
use std::sync::Arc;

use cauce_protocol::message::{Call, Callee, MethodPattern, Respond, Serve};
use cauce_protocol::{Code, Refusal, wire};

use super::Shard;
use super::peer::{Peer, Stage};
use crate::hub::{
    CallId, Caller, MethodCall, OutgoingCall, ServerId, Serving, ServingWord, SharedDevice, Tenant,
    no_such_request,
};
use crate::publication::message_frame;
use crate::shelly::CallToken;

/// What a client has that ever called or served. The others have a null pointer.
#[derive(Debug, Default)]
pub(super) struct Calling {
    /// Calls to devices that can be taken back. Bounded by the calls that a connection may have outstanding.
    to_devices: Vec<DeviceCall>,
}

#[derive(Debug)]
struct DeviceCall {
    request: u32,
    device: SharedDevice,
    token: CallToken,
}

impl Calling {
    /// A call of this request id has been answered.
    pub(super) fn answered(&mut self, request: u32) {
        if let Some(at) = self.to_devices.iter().position(|call| call.request == request) {
            self.to_devices.swap_remove(at);
        }
    }
}

impl Shard {
    pub(super) fn call(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, call: Call, timeout_ms: u64) {
        let Call {
            to,
            method,
            params,
            retry,
            ..
        } = call;
        let Some(user) = self.begin_calling(peer, |client| client.connection.principal.user.clone()) else {
            return;
        };
        let caller = Caller::Connection {
            connection: peer.id,
            request: id,
        };
        match to {
            Callee::Service => {
                let call = MethodCall {
                    method,
                    params,
                    timeout_ms,
                    retry,
                };
                self.hub.call_method(tenant, caller, Some(user), call);
            }
            Callee::Device(device) => {
                let call = OutgoingCall {
                    method,
                    params,
                    timeout_ms,
                };
                self.hub.audit_call(tenant, user.as_str(), device.as_str(), &call);
                let token = self.hub.call(tenant, device.as_str(), &call, caller);
                if let (Some(token), Some(device)) = (token, tenant.device(device.as_str()))
                    && id != 0
                {
                    let call = DeviceCall {
                        request: id,
                        device,
                        token,
                    };
                    self.with_calling(peer, |calling| calling.to_devices.push(call));
                }
            }
        }
    }

    pub(super) fn serve(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, serve: Serve) {
        if self.begin_calling(peer, |_| ()).is_none() {
            return;
        }
        match self.hub.serve(tenant, peer.id, &serve.methods, serve.concurrency) {
            Ok(()) => self.answer(peer, id, wire::Done {}),
            Err(refusal) => self.refuse(peer, id, &refusal),
        }
    }

    pub(super) fn unserve(
        &self,
        peer: &Rc<Peer>,
        tenant: &Arc<Tenant>,
        id: u32,
        methods: Vec<MethodPattern>,
    ) {
        self.hub
            .unserve(tenant, peer.id, |pattern| !methods.contains(pattern));
        self.answer(peer, id, wire::Done {});
    }

    pub(super) fn respond(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, respond: Respond) {
        let Respond { call, result } = respond;
        let server = ServerId::Connection(peer.id);
        let Err(refusal) = self.hub.respond(tenant, server, CallId(call), result) else {
            return self.answer(peer, id, wire::Done {});
        };
        // An answer that was asked for costs nothing, for the call was paid by its caller; others do.
        let refusal = match &mut *peer.stage.borrow_mut() {
            Stage::Client(client) => {
                let settings = &self.tunables().connection;
                client.connection.handle_rejected(self.now(), refusal, settings)
            }
            _ => refusal,
        };
        self.refuse(peer, id, &refusal);
    }

    pub(super) fn cancel(&self, peer: &Rc<Peer>, tenant: &Arc<Tenant>, id: u32, request: u32) {
        let to_method = match request {
            // Nothing has this id: it says that no answer is wanted.
            0 => Err(no_such_request()),
            request => self.hub.cancel_call(tenant, peer.id, request),
        };
        match to_method.or_else(|refusal| self.cancel_device_call(peer, request).ok_or(refusal)) {
            Ok(()) => self.answer(peer, id, wire::Done {}),
            Err(refusal) => self.refuse(peer, id, &refusal),
        }
    }

    /// Answers a call to a device with `cancelled`. What the device says later is heard by nobody.
    fn cancel_device_call(&self, peer: &Peer, request: u32) -> Option<()> {
        let DeviceCall { device, token, .. } = self
            .with_calling(peer, |calling| {
                let at = calling
                    .to_devices
                    .iter()
                    .position(|call| call.request == request)?;
                Some(calling.to_devices.swap_remove(at))
            })
            .flatten()?;
        // None if the device's answer is on its way to us.
        let caller = device.lock().caller(token)?;
        let cancelled = Refusal::new(
            Code::Cancelled,
            "the caller gave up waiting; the device may act all the same",
        );
        self.hub.answer(caller, Err(cancelled));
        Some(())
    }

    /// A word for a client that serves. If it has gone, its calls have been seen to.
    pub(super) fn tell_server(&self, serving: Serving) {
        let Some(peer) = self.peer(serving.connection).filter(|peer| !peer.is_closing()) else {
            return;
        };
        let frame = match serving.word {
            ServingWord::Invoke(invoke) => wire::Invoke {
                call: invoke.call.0,
                method: (*invoke.method).into(),
                params: invoke.params,
                user: invoke.user.map_or_else(String::new, |user| user.as_str().into()),
                timeout_ms: u32::try_from(invoke.timeout_ms).unwrap_or(u32::MAX),
            }
            .into(),
            ServingWord::Revoke(call) => wire::Revoke { call: call.0 }.into(),
        };
        self.say(&peer, message_frame(&frame, peer.dialect));
    }

    /// Notes that the client calls or serves, so that its leaving is told.
    fn begin_calling<T>(&self, peer: &Peer, and: impl FnOnce(&super::peer::Client) -> T) -> Option<T> {
        match &mut *peer.stage.borrow_mut() {
            Stage::Client(client) => {
                client.calling.get_or_insert_default();
                Some(and(client))
            }
            _ => None,
        }
    }

    fn with_calling<T>(&self, peer: &Peer, with: impl FnOnce(&mut Calling) -> T) -> Option<T> {
        match &mut *peer.stage.borrow_mut() {
            Stage::Client(client) => client.calling.as_deref_mut().map(with),
            _ => None,
        }
    }
}
