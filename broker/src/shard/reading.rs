//! From bytes to messages: what a peer's socket gave, cut, judged and passed on.

use std::rc::Rc;

use bytes::Bytes;
use cauce_protocol::frame::Frames;
use cauce_protocol::message;
use cauce_protocol::server::Dialect;
use cauce_protocol::{Code, Refusal};

use super::peer::{Peer, Stage};
use super::{Shard, Tunables};
use crate::clock::Now;
use crate::websocket::frame::frame;
use crate::websocket::reader::ReaderLimits;
use crate::websocket::{Event, Opcode, Violation};

impl Shard {
    /// Takes `scratch[..n]` as read from the peer's socket. Nothing is answered before all of it has been understood, so that
    /// the answers go out in one write.
    pub fn handle_bytes(self: &Rc<Self>, peer: &Rc<Peer>, bytes: &mut [u8]) {
        if peer.leaving.get() {
            return;
        }
        let (now, tunables) = (self.now(), self.tunables());
        let mut events = std::mem::take(&mut *self.events.borrow_mut());
        let limits = self.reader_limits(peer, &tunables);
        let (verdict, incomplete, waited) = {
            let mut reader = peer.reader.borrow_mut();
            let verdict = reader.read(bytes, limits, &mut events);
            (verdict, reader.is_incomplete(), reader.has_waited(&events))
        };
        self.metrics().bytes_in.add(bytes.len() as u64);
        peer.time(|timing| {
            timing.heard_ms = now.mono_ms;
            timing.pinged_ms = 0;
            timing.begun_ms = match timing.begun_ms {
                _ if !incomplete => 0,
                begun_ms if begun_ms != 0 && waited => begun_ms,
                _ => now.mono_ms,
            };
        });
        if incomplete {
            self.arm(peer, peer.timing.get().begun_ms + tunables.assembly_ms);
        }
        for event in events.drain(..) {
            if peer.is_closing() {
                break;
            }
            self.handle_event(peer, event, now, &tunables);
        }
        events.clear();
        *self.events.borrow_mut() = events;
        if let Err(violation) = verdict {
            self.violated(peer, violation);
        }
    }

    fn reader_limits(&self, peer: &Peer, tunables: &Tunables) -> ReaderLimits {
        let message_bytes_max = match &*peer.stage.borrow() {
            Stage::Opening(_) => tunables.handshake_bytes_max.min(tunables.frame_bytes_max),
            Stage::Device(_) => tunables.device_frame_bytes_max,
            // A WebSocket message may hold many frames, but not more than the largest frame would take.
            _ => tunables.frame_bytes_max,
        };
        ReaderLimits {
            message_bytes_max,
            fragments_max: tunables.fragments_max,
        }
    }

    fn violated(&self, peer: &Rc<Peer>, violation: Violation) {
        if let Violation::TooLarge { .. } | Violation::TooManyFragments { .. } = violation {
            self.metrics().closed(Code::TooLarge);
        } else {
            self.metrics().closed(Code::Malformed);
        }
        self.close_plainly(peer, violation.close_code(), &violation.to_string());
    }

    fn handle_event(self: &Rc<Self>, peer: &Rc<Peer>, event: Event, now: Now, tunables: &Tunables) {
        match event {
            Event::Text(_) | Event::Binary(_) if matches!(*peer.stage.borrow(), Stage::Device(_)) => {
                self.metrics().messages_in.increment();
                match event {
                    Event::Text(text) => self.handle_device_text(peer, &text, now, tunables),
                    _ => self.close_plainly(peer, 1003, "devices speak text"),
                }
            }
            Event::Text(text) => {
                self.metrics().messages_in.increment();
                if peer.dialect == Dialect::Json {
                    let decoded = message::decode_json(&text, tunables.payload_bytes_max);
                    self.handle_decoded(peer, decoded, now, tunables);
                } else {
                    self.close(
                        peer,
                        &Refusal::new(Code::Malformed, "cauce.v1.proto has binary messages only"),
                    );
                }
            }
            Event::Binary(bytes) => {
                self.metrics().messages_in.increment();
                if peer.dialect == Dialect::Proto {
                    self.handle_frames(peer, bytes, now, tunables);
                } else {
                    self.close(
                        peer,
                        &Refusal::new(Code::Malformed, "cauce.v1.json has text messages only"),
                    );
                }
            }
            Event::Ping(payload) => {
                if self.control_frame(peer, now, tunables) {
                    self.say(peer, frame(Opcode::Pong, &payload));
                }
            }
            Event::Pong(_) => {
                self.control_frame(peer, now, tunables);
            }
            Event::Close { code } => self.close_plainly(peer, code.unwrap_or(1000), ""),
        }
    }

    /// Whether the peer may send another ping or pong.
    fn control_frame(&self, peer: &Rc<Peer>, now: Now, tunables: &Tunables) -> bool {
        let mut control = peer.control.get();
        let allowed = control.check(tunables.control_frames, now.mono_ms, 1).is_ok();
        peer.control.set(control);
        if !allowed {
            self.close(
                peer,
                &Refusal::new(Code::RateLimited, "too many pings and pongs").retry_after(1_000),
            );
        }
        allowed
    }

    fn handle_frames(self: &Rc<Self>, peer: &Rc<Peer>, bytes: Bytes, now: Now, tunables: &Tunables) {
        for frame in Frames::new(bytes, tunables.frame_bytes_max) {
            let decoded = frame.and_then(|frame| message::decode_proto(&frame, tunables.payload_bytes_max));
            self.handle_decoded(peer, decoded, now, tunables);
            if peer.is_closing() {
                return;
            }
        }
    }
}
