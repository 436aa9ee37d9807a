//! What a [`Device`](super::Device) answers to an input: the work its driver then does.

use bytes::Bytes;

use super::calls::CallReply;
use super::counters::Counters;
use super::frame::DeviceEvent;
use super::presence::Offline;
use super::reading::Reading;
use super::scan::FrameError;
use super::status::Object;
use crate::clock::Now;

/// Device times before this are seconds since boot: 2001, long before the first Shelly.
const TS_S_MIN: f64 = 1e9;

/// How far a device's clock may run ahead of ours, in milliseconds: a day.
const TS_AHEAD_MS_MAX: u64 = 86_400_000;

/// What follows from one input. Perform `send` first, so that nothing waits for a subscriber.
#[derive(Debug)]
pub struct Outcome {
    /// The times of the input: what `events` are filed under.
    pub at: Stamp,
    /// Something that `device-update` shows has changed: publish and store it.
    pub changes: Option<Changes>,
    /// What happened at the device, in its order.
    pub events: Vec<DeviceEvent>,
    /// Answers to accepted calls.
    pub replies: Vec<CallReply>,
    /// Text frames to send to the device, in order.
    pub send: Vec<Bytes>,
    /// The device went offline: publish it, after `changes`.
    pub offline: Option<Offline>,
    /// Why the frame could not be read, if so. The driver may close a session that opens with such a frame.
    pub malformed: Option<FrameError>,
    /// Oddities to add to the metrics.
    pub counters: Counters,
}

/// A change to publish.
#[derive(Debug)]
pub struct Changes {
    /// Its number among the device's messages.
    pub seq: u64,
    /// The changed leaves, a JSON Merge Patch; empty if only presence, staleness or info changed.
    pub delta: Object,
    /// When.
    pub at: Stamp,
    /// The measurements of the channels touched.
    pub readings: Vec<Reading>,
}

/// The two times of a change. Wall clock, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The device's time if it has one, else that of receipt: the time to show and to file under.
    pub ts_ms: u64,
    /// When we received it.
    pub received_ms: u64,
}

impl Outcome {
    /// Nothing follows yet.
    pub(super) fn new(now: Now) -> Self {
        Self {
            at: Stamp::received(now),
            changes: None,
            events: Vec::new(),
            replies: Vec::new(),
            send: Vec::new(),
            offline: None,
            malformed: None,
            counters: Counters::default(),
        }
    }
}

impl Stamp {
    /// The time to use for a frame that says `ts`.
    pub(super) fn new(ts: Option<f64>, now: Now, counters: &mut Counters) -> Self {
        let Some(ts_s) = ts else {
            return Self::received(now);
        };
        let ahead_s_max = now.unix_ms.saturating_add(TS_AHEAD_MS_MAX) as f64 / 1_000.0;
        if (TS_S_MIN..=ahead_s_max).contains(&ts_s) {
            return Self {
                ts_ms: (ts_s * 1_000.0).round() as u64,
                received_ms: now.unix_ms,
            };
        }
        counters.clock_bad = 1;
        Self::received(now)
    }

    pub(super) fn received(now: Now) -> Self {
        Self {
            ts_ms: now.unix_ms,
            received_ms: now.unix_ms,
        }
    }
}
