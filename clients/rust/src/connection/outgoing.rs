//! What goes to the broker, and in which order.

use std::time::Instant;

use bytes::BytesMut;
use cauce_protocol::server::Dialect;
use cauce_protocol::wire::{client_frame::Request, respond};
use cauce_protocol::{Code, Refusal, RoomName, wire};
use prost::Message as _;

use super::rooms::ListBounds;
use super::timers::Timer;
use super::{Connection, Open, Phase};

impl Connection {
    /// Asks for every room and service that is wanted now.
    pub(super) fn ask_for_all(&mut self, now: Instant) {
        let Phase::Open(open) = &self.phase else {
            return;
        };
        let bounds = ListBounds {
            rooms_max: open.rooms_max,
            frame_bytes_max: open.frame_bytes_max,
        };
        while self.rooms.is_any_wanted() {
            let id = self.requests.next_id();
            let Some(subscribe) = self.rooms.ask(id, bounds) else {
                break;
            };
            self.timers
                .set(now + self.settings.request_timeout, Timer::Subscribe(id));
            self.control.push_back(wire::ClientFrame {
                id,
                request: Some(Request::Subscribe(subscribe)),
            });
        }
        while self.services.is_any_wanted() {
            let requests = &mut self.requests;
            if let Some((id, request)) = self.services.ask(|| requests.next_id()) {
                self.control.push_back(wire::ClientFrame {
                    id,
                    request: Some(request),
                });
            }
        }
    }

    /// Something that needs no answer, if there is a connection to say it on.
    pub(super) fn say(&mut self, request: Request) {
        if let Phase::Open(_) = &self.phase {
            self.control.push_back(wire::ClientFrame {
                id: 0,
                request: Some(request),
            });
        }
    }

    pub(super) fn unserve(&mut self, method: String) {
        self.say(Request::Unserve(wire::Unserve {
            methods: vec![method],
        }));
    }

    pub(super) fn leave(&mut self, room: &RoomName) {
        let Phase::Open(open) = &self.phase else {
            return;
        };
        let rooms_max = open.rooms_max;
        if let Some(wire::ClientFrame {
            request: Some(Request::Unsubscribe(last)),
            ..
        }) = self.control.back_mut()
            && last.rooms.len() < rooms_max
        {
            last.rooms.push(room.as_str().to_owned());
            return;
        }
        self.say(Request::Unsubscribe(wire::Unsubscribe {
            rooms: vec![room.as_str().to_owned()],
        }));
    }

    /// Appends one frame in the dialect of the connection. `None` if there is none now.
    pub(crate) fn poll_outgoing(&mut self, now: Instant, out: &mut BytesMut) -> Option<()> {
        self.ask_for_all(now);
        let dialect = self.settings.dialect;
        if let Some(frame) = self.control.pop_front() {
            self.encode_control(frame, dialect, out);
            return Some(());
        }
        let Phase::Open(open) = &self.phase else {
            return None;
        };
        // A broker that asked us to go hears nothing more: what waits goes out on the next connection.
        if open.leave_at.is_some() {
            return None;
        }
        let frame_bytes_max = open.frame_bytes_max;
        loop {
            let before = out.len();
            let polled = self.requests.poll_unsent(&mut self.timers, |id, request| {
                let frame = wire::ClientFrame {
                    id,
                    request: Some(request),
                };
                let bytes = encode(&frame, dialect, out);
                if bytes <= frame_bytes_max {
                    return Ok(());
                }
                // The broker would close on it, and a repeat would do it again.
                out.truncate(before);
                Err(too_large("request", bytes, frame_bytes_max).into())
            });
            match polled {
                false => return None,
                true if out.len() > before => return Some(()),
                true => {}
            }
        }
    }

    /// Answers are the only frames of ours whose size the application decides.
    fn encode_control(&self, frame: wire::ClientFrame, dialect: Dialect, out: &mut BytesMut) {
        let before = out.len();
        let bytes = encode(&frame, dialect, out);
        let (Phase::Open(Open { frame_bytes_max, .. }), Some(Request::Respond(respond))) =
            (&self.phase, frame.request)
        else {
            return;
        };
        if bytes <= *frame_bytes_max {
            return;
        }
        out.truncate(before);
        let message = too_large("answer", bytes, *frame_bytes_max).message.into_owned();
        let respond = wire::Respond {
            call: respond.call,
            result: Some(respond::Result::Error(message)),
        };
        let frame = wire::ClientFrame {
            id: frame.id,
            request: Some(Request::Respond(respond)),
        };
        encode(&frame, dialect, out);
    }
}

fn too_large(what: &str, bytes: usize, bytes_max: usize) -> Refusal {
    let message = format!("the {what} takes {bytes} bytes, the broker allows {bytes_max}");
    Refusal::new(Code::TooLarge, message)
}

/// Appends the frame; its bytes without a length in front.
fn encode(frame: &wire::ClientFrame, dialect: Dialect, out: &mut BytesMut) -> usize {
    match dialect {
        Dialect::Proto => {
            // A `BytesMut` grows as needed, so this cannot fail.
            let _ = frame.encode_length_delimited(out);
            frame.encoded_len()
        }
        Dialect::Json => {
            let text = cauce_protocol::json::encode_client(frame);
            out.extend_from_slice(text.as_bytes());
            text.len()
        }
    }
}
