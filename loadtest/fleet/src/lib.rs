//! A fleet of emulated Shelly devices: the other side of the wire, for demonstrations, tests and load.
//!
//! Devices are made from captured answers of real ones and behave like them: power curves and energy that is
//! their integral, minute reports, drift, timers, reboots, sleep, half-open deaths, firmware quirks. They dial a
//! server ([`FleetOptions::outbound`]) or listen on a network ([`FleetOptions::lan`]).
//!
//! What must stay true:
//! * [`Device`] is pure: no clock, no I/O, its own random numbers. Same seed, same identities; same seed and same
//!   moments of polling, same bytes.
//! * A frame counts in [`FleetStats`] once it was flushed to the socket, so after [`Fleet::stop`] the counts are
//!   what a server that read to the end got.
//! * Tokens and passwords are in no log line, no error and no `Debug` output. A device does answer its `ws.server`
//!   with the token in it to whoever may ask for its configuration, because real ones do.
//! * Nothing is shared with the broker: two programs that agree by accident of one library prove nothing.
//!
//! Floors, each using only those below:
//!
//! 1. [`fleet`](Fleet), `options`
//! 2. the drivers, which do I/O: `outbound`, `lan`
//! 3. their means: `session`, `target`, `stop`, `stats`, `backoff`
//! 4. `digest`
//! 5. `rpc`: calls carried out on a device
//! 6. `device`
//! 7. `outlet`, `models`
//! 8. `load`, `meter`, `identity`, `firmware`, `faults`, `frame`
//! 9. `rng`, `time`, `number`, `secret`

mod backoff;
mod device;
pub mod digest;
mod faults;
mod firmware;
mod fleet;
mod frame;
mod identity;
mod lan;
mod load;
mod meter;
mod models;
mod number;
mod options;
mod outbound;
mod outlet;
mod rng;
mod rpc;
mod secret;
mod session;
mod stats;
mod stop;
mod target;
mod time;

pub use device::{Cadence, Device, Ending, Mode, Output, Setup, Stamp};
pub use faults::{FAULT_RATE_MAX, Fault, FaultError, FaultPlan, HERD_AFTER_MAX, HERDS_MAX};
pub use firmware::{DigestKind, Firmware, FirmwareError};
pub use fleet::Fleet;
pub use frame::{FrameKind, Notification};
pub use identity::{DeviceId, Mac};
pub use lan::CHANNELS_MAX;
pub use models::{DEFAULT_MODELS, MODEL_LIST_MAX, MODEL_WEIGHT_MAX, Model, ModelError, ModelMix};
pub use options::{DEVICES_MAX, FleetError, FleetOptions, LanBind, RATE_MAX, Reach};
pub use rpc::{Door, Request, RpcError};
pub use secret::Password;
pub use stats::{DeviceStats, FleetStats, Totals};
pub use target::{TargetError, Tokens, Trust};
pub use time::{FleetClock, Timestamp};

/// The examples of the README are compiled and run like any other.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
