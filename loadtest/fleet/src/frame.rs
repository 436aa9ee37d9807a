//! Frames a device sends: the envelope and its variants. Built field by field in the order real devices use.

use crate::identity::DeviceId;
use serde::Serialize;
use serde_json::{Map, Value};

/// What a notification is, as counted by the fleet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FrameKind {
    /// `NotifyFullStatus`: replaces what the server knew.
    Full,
    /// The partial `NotifyStatus` a Wall Display greets with; it may or may not change anything.
    Greeting,
    /// `NotifyStatus` that changes at least one value the server knew.
    Status,
    /// `NotifyStatus` sent before, byte for byte: changes nothing.
    Repeat,
    /// `NotifyEvent`: something happened; no state in it.
    Event,
}

/// Which of the optional envelope fields a device writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Envelope {
    Complete,
    /// Without `dst` and `params.ts`, as some devices and clients send.
    Terse,
}

/// A notification, not yet addressed: on the LAN the same one goes to several peers.
#[derive(Clone, Debug)]
pub struct Notification {
    pub(crate) kind: FrameKind,
    pub(crate) src: DeviceId,
    pub(crate) envelope: Envelope,
    pub(crate) params: Map<String, Value>,
}

#[derive(Serialize)]
struct NotificationFrame<'a> {
    src: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<&'a str>,
    method: &'static str,
    params: &'a Map<String, Value>,
}

impl Notification {
    /// What it is.
    pub const fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The frame as sent to the peer that calls itself `dst`; on an outbound connection that is `ws`.
    pub fn to_json(&self, dst: &str) -> String {
        let frame = NotificationFrame {
            src: self.src.as_str(),
            dst: (self.envelope == Envelope::Complete).then_some(dst),
            method: match self.kind {
                FrameKind::Full => "NotifyFullStatus",
                FrameKind::Greeting | FrameKind::Status | FrameKind::Repeat => "NotifyStatus",
                FrameKind::Event => "NotifyEvent",
            },
            params: &self.params,
        };
        to_text(&frame)
    }
}

/// The answer to a call. `id` is the caller's, with its JSON type; `dst` is there only if the caller named itself.
#[derive(Serialize)]
pub(crate) struct ReplyFrame<'a> {
    pub(crate) id: &'a Value,
    pub(crate) src: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dst: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Value>,
}

impl ReplyFrame<'_> {
    pub(crate) fn to_json(&self) -> String {
        to_text(self)
    }
}

fn to_text(frame: &impl Serialize) -> String {
    // Strings, maps with string keys and finite numbers: nothing in a frame can fail to serialize.
    serde_json::to_string(frame).expect("a frame holds nothing that JSON cannot")
}
