//! What devices say, carried out, and what is said to them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cauce_protocol::server::Dialect;
use cauce_protocol::{Code, DeviceId, Refusal};

use super::peer::{DevicePeer, Peer, Stage};
use super::{Shard, Tunables};
use crate::clock::Now;
use crate::hub::{
    DeviceCredential, DeviceEntry, DeviceFrames, Link, Permit, Selection, SharedDevice, Tenant, mask_tokens,
};
use crate::rate::Gcra;
use crate::shelly::{self, Frame, Identity, LossReason};
use crate::socket::Socket;
use crate::websocket::Opcode;
use crate::websocket::frame::frame;

/// Close codes that Shelly's own server uses, so that firmware which looks at them finds what it knows.
mod close {
    pub(super) const NOT_JSON: u16 = 4100;
    pub(super) const MALFORMED: u16 = 4101;
    pub(super) const REFUSED: u16 = 1008;
    pub(super) const TRY_LATER: u16 = 1013;
}

impl Shard {
    /// Begins to serve a device whose handshake has been answered.
    pub fn admit_device(
        self: &Rc<Self>,
        socket: Socket,
        address: std::net::IpAddr,
        permit: Permit,
        credential: DeviceCredential,
    ) -> Rc<Peer> {
        let now = self.now();
        let stands = self.hub.still_stands(&credential);
        let stage = Stage::Device(Box::new(DevicePeer {
            credential,
            session: self.hub.next_session(),
            frames: Gcra::default(),
            device: None,
        }));
        let peer = self.register(socket, address, permit, Dialect::Json, stage, now);
        self.metrics().devices_opened.increment();
        self.close_if_stopping(&peer);
        if let Err(refusal) = stands {
            self.close(&peer, &refusal);
        }
        self.arm_next(&peer, now);
        peer
    }

    pub(super) fn handle_device_text(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        text: &Bytes,
        now: Now,
        tunables: &Tunables,
    ) {
        let accepted = Instant::now();
        self.metrics().device_frames.increment();
        let (credential, session, known) = {
            let mut stage = peer.stage.borrow_mut();
            let Stage::Device(device) = &mut *stage else {
                return;
            };
            if device
                .frames
                .check(tunables.device_frames, now.mono_ms, 1)
                .is_err()
            {
                drop(stage);
                // The next connection begins with the full status, so nothing is lost for good.
                self.metrics().device_frames_throttled.increment();
                self.close_plainly(peer, close::TRY_LATER, "more frames than a device may send");
                return;
            }
            (device.credential.clone(), device.session, device.device.clone())
        };
        // Raw frames for whoever asks for them: `--log info,cauce_broker::shard::devices=trace`.
        if tracing::enabled!(tracing::Level::TRACE) {
            let frame = mask_tokens(text.clone());
            let frame = String::from_utf8_lossy(&frame);
            tracing::trace!(tenant = %credential.tenant.id, address = %peer.address, %frame, "a device says");
        }
        let parsed = match Frame::parse(text) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.metrics().device_frames_malformed.increment();
                tracing::debug!(connection = %peer.id, tenant = %credential.tenant.id, %error, "a device's frame cannot be read");
                if known.is_none() {
                    self.close_plainly(peer, close::NOT_JSON, "the first frame is not a JSON-RPC frame");
                }
                return;
            }
        };
        let device = match known {
            Some(device) => device,
            None => match self.identify(peer, &credential, session, parsed.src.as_deref(), now, tunables) {
                Ok(device) => device,
                Err((code, refusal)) => {
                    tracing::info!(tenant = %credential.tenant.id, token = %credential.id, address = %peer.address, %refusal, "refused a device");
                    self.metrics().closed(refusal.code);
                    self.close_plainly(peer, code, &refusal.message);
                    return;
                }
            },
        };
        let frames = {
            let mut side = device.lock();
            let outcome = side.device.handle(session, now, parsed);
            self.hub.perform(
                self.metrics(),
                &credential.tenant,
                &device,
                &mut side,
                outcome,
                accepted,
            )
        };
        self.send_to_device(peer, frames);
        self.arm_next(peer, now);
    }

    /// Which device this is, by its first frame. The newest connection of a device is the device.
    fn identify(
        &self,
        peer: &Rc<Peer>,
        credential: &DeviceCredential,
        session: shelly::Session,
        src: Option<&str>,
        now: Now,
        tunables: &Tunables,
    ) -> Result<SharedDevice, (u16, Refusal)> {
        let src = src.ok_or_else(|| {
            (
                close::MALFORMED,
                Refusal::new(Code::Malformed, "the first frame has no src"),
            )
        })?;
        let malformed = |e: String| (close::MALFORMED, Refusal::new(Code::Malformed, e));
        let identity = Identity::parse(src).map_err(|e| malformed(e.to_string()))?;
        let id = DeviceId::new(identity.key().as_str()).map_err(|e| malformed(format!("device id {e}")))?;
        if credential.device.as_ref().is_some_and(|bound| *bound != id) {
            let message = "the token belongs to another device";
            return Err((close::REFUSED, Refusal::new(Code::Forbidden, message)));
        }
        let tenant = &credential.tenant;
        let device = tenant
            .device_or_make(&id, tunables.devices_max, || {
                DeviceEntry::new(id.clone(), shelly::Device::new(identity))
            })
            .map_err(|refusal| (close::TRY_LATER, refusal))?;
        let mut side = device.lock();
        let outcome = side
            .device
            .connect(session, now)
            .map_err(|e| (close::REFUSED, Refusal::new(Code::Replaced, e.to_string())))?;
        let link = Link {
            shard: self.index,
            peer: peer.id,
            session,
        };
        let before = side.link.replace(link);
        // Only calls of the connection before can fail here; nothing is to be sent.
        self.hub.perform(
            self.metrics(),
            tenant,
            &device,
            &mut side,
            outcome,
            Instant::now(),
        );
        drop(side);
        if let Some(before) = before {
            let refusal = Refusal::new(Code::Replaced, "the device has connected anew");
            self.hub
                .close_one(before.shard, Selection::Connection(before.peer), refusal);
        }
        if let Stage::Device(stage) = &mut *peer.stage.borrow_mut() {
            stage.device = Some(device.clone());
        }
        tracing::debug!(tenant = %tenant.id, device = %id, "a device has connected");
        Ok(device)
    }

    pub(super) fn device_left(&self, peer: DevicePeer, code: Code) {
        self.metrics().devices_closed.increment();
        let DevicePeer {
            credential,
            session,
            device: Some(device),
            ..
        } = peer
        else {
            return;
        };
        if self.is_stopping() {
            // We go, not the device: it is as it was, and the next start will say "stale" until it speaks.
            device.lock().abandon_callers();
            return;
        }
        let now = self.now();
        let reason = match code {
            Code::HeartbeatTimeout => LossReason::Timeout,
            Code::TokenRevoked | Code::TenantDisabled => LossReason::Refused,
            _ => LossReason::Closed,
        };
        let mut side = device.lock();
        if side.link.is_some_and(|link| link.session == session) {
            side.link = None;
        }
        let outcome = side.device.disconnect(session, now, reason);
        self.hub.perform(
            self.metrics(),
            &credential.tenant,
            &device,
            &mut side,
            outcome,
            Instant::now(),
        );
        let timer = side.link.is_none() && side.device.poll_timeout().is_some();
        drop(side);
        if timer {
            self.watch(credential.tenant, device);
        }
    }

    /// Frames that a caller has for a device on this shard. If the socket has gone, the session's end has answered the caller.
    pub(super) fn to_device(self: &Rc<Self>, frames: &DeviceFrames) {
        let Some(peer) = self.peer(frames.peer) else {
            return;
        };
        self.send_to_device(&peer, frames.frames.iter().cloned());
        self.arm_next(&peer, self.now());
    }

    fn send_to_device(&self, peer: &Rc<Peer>, frames: impl IntoIterator<Item = Bytes>) {
        if peer.is_closing() {
            return;
        }
        for text in frames {
            self.say(peer, frame(Opcode::Text, &text));
        }
    }

    pub(super) fn device_timeout(self: &Rc<Self>, peer: &Rc<Peer>, now: Now) {
        let (tenant, device) = match &*peer.stage.borrow() {
            Stage::Device(device) => match &device.device {
                Some(known) => (device.credential.tenant.clone(), known.clone()),
                None => return,
            },
            _ => return,
        };
        let frames = self.time_passed(&tenant, &device, now);
        self.send_to_device(peer, frames);
    }

    fn time_passed(&self, tenant: &Arc<Tenant>, device: &SharedDevice, now: Now) -> Vec<Bytes> {
        let mut side = device.lock();
        if side.device.poll_timeout().is_none_or(|at| at > now.mono_ms) {
            return Vec::new();
        }
        let outcome = side.device.handle_timeout(now);
        self.hub
            .perform(self.metrics(), tenant, device, &mut side, outcome, Instant::now())
    }

    /// Looks after a device that has a timer but no socket.
    pub(super) fn watch(&self, tenant: Arc<Tenant>, device: SharedDevice) {
        let mut sleepers = self.sleepers.borrow_mut();
        if !sleepers.iter().any(|(_, other)| Arc::ptr_eq(other, &device)) {
            sleepers.push((tenant, device));
        }
    }

    pub(super) fn wake_sleepers(&self, now: Now) {
        if self.sleepers.borrow().is_empty() {
            return;
        }
        let sleepers = std::mem::take(&mut *self.sleepers.borrow_mut());
        let mut kept = Vec::with_capacity(sleepers.len());
        for (tenant, device) in sleepers {
            // A device without a socket has nothing to be sent.
            self.time_passed(&tenant, &device, now);
            let side = device.lock();
            let waits = side.link.is_none() && side.device.poll_timeout().is_some();
            drop(side);
            if waits {
                kept.push((tenant, device));
            }
        }
        self.sleepers.borrow_mut().append(&mut kept);
    }
}
