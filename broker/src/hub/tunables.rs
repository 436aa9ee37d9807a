//! Plain numbers that a new configuration replaces while the broker runs.

use super::{ConnectionLimits, PublishQuotas};
use crate::auth::Policy;
use crate::connection::ConnectionSettings;

/// Plain numbers that may change while the broker runs, read once a decision.
#[derive(Clone, Copy, Debug)]
pub struct Tunables {
    pub connection: ConnectionSettings,
    pub connections: ConnectionLimits,
    /// Requests a second and at once, as `connection.requests` holds them, in words for the client.
    pub requests: (u32, u32),
    pub frame_bytes_max: usize,
    pub payload_bytes_max: usize,
    pub payload_depth_max: usize,
    pub fragments_max: usize,
    pub outbox_bytes_max: usize,
    /// A peer that is behind and has taken nothing for so long is closed.
    pub stall_ms: u64,
    /// How far back a position reaches for those who may not read history.
    pub recovery_window_ms: u64,
    pub control_frames: crate::rate::Quota,
    pub handshake_ms: u64,
    pub handshake_bytes_max: usize,
    /// From the first byte of a message to its last.
    pub assembly_ms: u64,
    pub heartbeat_interval_ms: u64,
    pub heartbeat_timeout_ms: u64,
    pub device_frame_bytes_max: usize,
    pub device_frames: crate::rate::Quota,
    pub devices_max: usize,
    pub dedup_window_ms: u64,
    /// Users of a room that are listed; more are counted only.
    pub presence_users_max: usize,
    /// Idempotency keys that a room remembers.
    pub dedup_keys_max: usize,
    /// How long a notification is kept unless its sender says otherwise.
    pub notifications_kept_ms: u64,
    /// What is asked of tokens.
    pub policy: Policy,
    /// Whether clients may bring a token in the URL.
    pub query_token: bool,
    pub drain: DrainSettings,
    pub publishing: PublishQuotas,
}

/// How the node takes its leave.
#[derive(Clone, Copy, Debug)]
pub struct DrainSettings {
    /// Over how long clients are sent away, one after another.
    pub spread_ms: u64,
    /// What they are told to wait before they come again.
    pub retry_after_ms: u32,
}
