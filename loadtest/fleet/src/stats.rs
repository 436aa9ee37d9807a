//! What the fleet did, counted exactly: a frame counts once it was handed to the socket and flushed, not when
//! it was made. Counters belong to one device each, so counting never makes two devices meet.

use crate::frame::FrameKind;
use crate::identity::DeviceId;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one device. Each is written by its device's task alone and read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    full_frames: AtomicU64,
    greeting_frames: AtomicU64,
    status_frames: AtomicU64,
    repeat_frames: AtomicU64,
    event_frames: AtomicU64,
    reply_frames: AtomicU64,
    bytes_sent: AtomicU64,
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
    connects: AtomicU64,
    connect_failures: AtomicU64,
    disconnects: AtomicU64,
    half_open: AtomicU64,
    connected: AtomicU64,
}

/// What a sent frame was.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sent {
    Notification(FrameKind),
    Reply,
}

impl Counters {
    pub(crate) fn sent(&self, what: Sent, bytes: usize) {
        let counter = match what {
            Sent::Notification(FrameKind::Full) => &self.full_frames,
            Sent::Notification(FrameKind::Greeting) => &self.greeting_frames,
            Sent::Notification(FrameKind::Status) => &self.status_frames,
            Sent::Notification(FrameKind::Repeat) => &self.repeat_frames,
            Sent::Notification(FrameKind::Event) => &self.event_frames,
            Sent::Reply => &self.reply_frames,
        };
        add(counter, 1);
        add(&self.bytes_sent, bytes as u64);
    }

    pub(crate) fn received(&self, bytes: usize) {
        add(&self.frames_received, 1);
        add(&self.bytes_received, bytes as u64);
    }

    pub(crate) fn connected(&self) {
        add(&self.connects, 1);
        add(&self.connected, 1);
    }

    pub(crate) fn connect_failed(&self) {
        add(&self.connect_failures, 1);
    }

    pub(crate) fn disconnected(&self) {
        add(&self.disconnects, 1);
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn went_half_open(&self) {
        add(&self.half_open, 1);
    }

    pub(crate) fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            connected: load(&self.connected),
            connects: load(&self.connects),
            connect_failures: load(&self.connect_failures),
            disconnects: load(&self.disconnects),
            half_open: load(&self.half_open),
            full_frames: load(&self.full_frames),
            greeting_frames: load(&self.greeting_frames),
            status_frames: load(&self.status_frames),
            repeat_frames: load(&self.repeat_frames),
            event_frames: load(&self.event_frames),
            reply_frames: load(&self.reply_frames),
            frames_received: load(&self.frames_received),
            bytes_sent: load(&self.bytes_sent),
            bytes_received: load(&self.bytes_received),
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Sums of counters, of one device or of all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// Connections open now; in LAN mode those of all peers.
    pub connected: u64,
    /// Connections made.
    pub connects: u64,
    /// Dials that ended without a connection.
    pub connect_failures: u64,
    /// Connections that ended, by whichever side.
    pub disconnects: u64,
    /// Connections left open in silence; counted in `disconnects` too.
    pub half_open: u64,
    /// `NotifyFullStatus` sent.
    pub full_frames: u64,
    /// Partial `NotifyStatus` that Wall Displays greet with.
    pub greeting_frames: u64,
    /// `NotifyStatus` sent, each with at least one change.
    pub status_frames: u64,
    /// `NotifyStatus` sent again unchanged.
    pub repeat_frames: u64,
    /// `NotifyEvent` sent.
    pub event_frames: u64,
    /// Answers sent.
    pub reply_frames: u64,
    /// Text frames received.
    pub frames_received: u64,
    /// Payload bytes sent, without WebSocket headers.
    pub bytes_sent: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
}

impl Totals {
    /// All frames sent.
    pub const fn frames_sent(&self) -> u64 {
        self.full_frames
            + self.greeting_frames
            + self.status_frames
            + self.repeat_frames
            + self.event_frames
            + self.reply_frames
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.connected += other.connected;
        self.connects += other.connects;
        self.connect_failures += other.connect_failures;
        self.disconnects += other.disconnects;
        self.half_open += other.half_open;
        self.full_frames += other.full_frames;
        self.greeting_frames += other.greeting_frames;
        self.status_frames += other.status_frames;
        self.repeat_frames += other.repeat_frames;
        self.event_frames += other.event_frames;
        self.reply_frames += other.reply_frames;
        self.frames_received += other.frames_received;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }
}

/// What the whole fleet did since it started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct FleetStats {
    /// How many devices there are.
    pub devices: u64,
    /// Their sums.
    #[serde(flatten)]
    pub totals: Totals,
}

/// What one device did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStats {
    /// Which device.
    pub id: DeviceId,
    /// Its sums.
    pub totals: Totals,
}
