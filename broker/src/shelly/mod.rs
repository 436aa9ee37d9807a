//! Shelly Gen2+ devices, as pure logic: text frames and the time go in, state, messages and frames to send come out.
//!
//! What must stay true:
//! - Nothing here does I/O, reads a clock, logs or allocates without a named bound; a frame of any bytes whatever
//!   is answered with an [`Outcome`], never with a panic.
//! - A device's state is the merge of what the device said and nothing else. An attribute that a frame does not
//!   mention keeps its value; one that is absent is *unknown*, never "off" or zero. The single exception, the zero
//!   power that old firmware forgets to send, is named in `derived` of every update that shows it.
//! - The deltas that leave here are JSON Merge Patches (RFC 7396): whoever applies them in sequence order to the
//!   previous state holds exactly the current one.
//! - Only frames make a device online and only the loss of *its current* session makes it offline ([`Session`]).
//!
//! Reading order: [`frame`](Frame) (bytes to meaning), `status` (merge), `device` ([`Device`], where both meet time),
//! `update` (what is published). The driver's whole duty towards a [`Device`] is to call `connect`, `handle`,
//! `handle_timeout` at `poll_timeout`, `call`, `disconnect`, and to perform the [`Outcome`] of each.

mod calls;
mod counters;
mod device;
mod error;
mod frame;
mod fuzz;
mod identity;
mod info;
mod outcome;
mod power;
mod presence;
mod reading;
mod resync;
mod scan;
mod status;
mod update;

#[cfg(test)]
mod tests;

pub use calls::{CALL_WAIT_MS_MAX, CALLS_PENDING_MAX, CallError, CallFailure, CallReply, CallToken};
pub use counters::Counters;
pub use device::{Device, RESTORED_SEQ_GAP};
pub use error::{DeviceError, DeviceErrorKind};
pub use frame::{
    Body, CALLER, Call, DeviceEvent, EVENTS_MAX, Frame, Notification, PARAMS_BYTES_MAX, Response,
};
#[doc(hidden)]
pub use fuzz::fuzz_device;
pub use identity::{DeviceKey, Identity, IdentityError, SRC_BYTES_MAX};
pub use info::Info;
pub use outcome::{Changes, Outcome, Stamp};
pub use presence::{LossReason, Offline, OfflineReason, Presence, Session, Superseded};
pub use reading::{Reading, Vitals};
pub use scan::{FRAME_BYTES_MAX, FRAME_DEPTH_MAX, FRAME_VALUES_MAX, FrameError};
pub use status::{COMPONENTS_MAX, KEY_BYTES_MAX, Merged, Object, STATE_BYTES_MAX, STATE_NODES_MAX, State};
pub use update::{Saved, SavedError};
