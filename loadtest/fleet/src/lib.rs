//! Emulated Shelly devices.
mod device;
mod faults;
mod firmware;
mod frame;
mod identity;
mod load;
mod meter;
mod models;
mod number;
mod outlet;
mod rng;
mod time;

pub use device::{Cadence, Device, Ending, Mode, Output, Setup, Stamp};
pub use faults::{Fault, FaultError, FaultPlan};
pub use firmware::{DigestKind, Firmware, FirmwareError};
pub use frame::{FrameKind, Notification};
pub use identity::{DeviceId, Mac};
pub use models::{DEFAULT_MODELS, Model, ModelError, ModelMix};
pub use time::{FleetClock, Timestamp};
