//! What a fleet is to be, and why it cannot be: plain values, checked before anything starts.

use crate::device::{Cadence, Mode, Setup, Stamp};
use crate::faults::FaultPlan;
use crate::firmware::Firmware;
use crate::models::{DEFAULT_MODELS, ModelError, ModelMix};
use crate::secret::Password;
use crate::target::{TargetError, Tokens, Trust};
use crate::time::Timestamp;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Most devices in one fleet.
pub const DEVICES_MAX: u32 = 100_000;
/// Most status frames per device and second.
pub const RATE_MAX: f64 = 1000.0;

/// Where the devices of a LAN fleet listen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LanBind {
    /// All at one address: device `n` at port `first + n`, or, for a `first` of 0, at any free port.
    Ports {
        /// The address.
        ip: Ipv4Addr,
        /// The port of the first device, or 0.
        first: u16,
    },
    /// All at one port: device `n` at address `first + n`, as on a real network. On Linux all of 127.0.0.0/8
    /// can be used without further ado.
    Addresses {
        /// The address of the first device.
        first: Ipv4Addr,
        /// The port.
        port: u16,
    },
}

impl LanBind {
    pub(crate) fn address(self, index: u32) -> Option<SocketAddr> {
        match self {
            Self::Ports { ip, first: 0 } => Some((ip, 0).into()),
            Self::Ports { ip, first } => Some((ip, first.checked_add(u16::try_from(index).ok()?)?).into()),
            Self::Addresses { first, port } => {
                Some((Ipv4Addr::from(u32::from(first).checked_add(index)?), port).into())
            }
        }
    }
}

/// How server and devices find each other.
#[derive(Clone)]
pub enum Reach {
    /// The devices dial the server.
    Outbound {
        /// `ws://` or `wss://`; without the token unless `tokens` is [`Tokens::None`].
        url: String,
        /// Their credentials.
        tokens: Tokens,
        /// Which certificates they accept.
        trust: Trust,
    },
    /// The devices listen.
    Lan {
        /// Where.
        bind: LanBind,
        /// One for all devices; `None`: anyone may call them.
        password: Option<Password>,
    },
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A query may hold a token.
            Self::Outbound { url, .. } => {
                let shown = url.split('?').next().unwrap_or_default();
                f.debug_struct("Outbound")
                    .field("url", &shown)
                    .finish_non_exhaustive()
            }
            Self::Lan { bind, password } => f
                .debug_struct("Lan")
                .field("bind", bind)
                .field("password", password)
                .finish(),
        }
    }
}

/// What a fleet is to be. [`FleetOptions::outbound`] and [`FleetOptions::lan`] give a faithful fleet; change what
/// should differ.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// How server and devices find each other.
    pub reach: Reach,
    /// How many there are, up to [`DEVICES_MAX`].
    pub devices: u32,
    /// Which models.
    pub models: ModelMix,
    /// Status frames per device and second, each with a change, instead of the natural cadence; up to
    /// [`RATE_MAX`].
    pub rate: Option<f64>,
    /// What goes wrong.
    pub faults: FaultPlan,
    /// Same seed, same fleet.
    pub seed: u64,
    /// Whether status frames carry the moment of their emission.
    pub stamp: Stamp,
    /// One firmware for all; `None` keeps what each model was captured with.
    pub firmware: Option<Firmware>,
    /// How often sleepers wake; `None` keeps hours.
    pub wakeup: Option<Duration>,
    /// The first dials are spread over this time.
    pub ramp: Duration,
}

impl FleetOptions {
    /// A fleet of `devices` plugs that dial `url` and behave as real ones.
    ///
    /// # Errors
    /// Only if the built-in list of models is broken, which a test excludes.
    pub fn outbound(url: impl Into<String>, tokens: Tokens, devices: u32) -> Result<Self, FleetError> {
        Self::new(
            Reach::Outbound {
                url: url.into(),
                tokens,
                trust: Trust::default(),
            },
            devices,
        )
    }

    /// A fleet of `devices` plugs that listen at `bind` and behave as real ones.
    ///
    /// # Errors
    /// Only if the built-in list of models is broken, which a test excludes.
    pub fn lan(bind: LanBind, password: Option<Password>, devices: u32) -> Result<Self, FleetError> {
        Self::new(Reach::Lan { bind, password }, devices)
    }

    fn new(reach: Reach, devices: u32) -> Result<Self, FleetError> {
        Ok(Self {
            reach,
            devices,
            models: ModelMix::parse(DEFAULT_MODELS).map_err(FleetError::Models)?,
            rate: None,
            faults: FaultPlan::default(),
            seed: 1,
            stamp: Stamp::Off,
            firmware: None,
            wakeup: None,
            ramp: Duration::from_secs(1),
        })
    }

    fn cadence(&self) -> Result<Cadence, FleetError> {
        match self.rate {
            None => Ok(Cadence::Natural),
            Some(rate) if rate > 0.0 && rate <= RATE_MAX => {
                Ok(Cadence::Every(Duration::from_secs_f64(1.0 / rate)))
            }
            Some(_) => Err(FleetError::Rate),
        }
    }

    pub(crate) fn setup(&self, now: Timestamp) -> Result<Setup, FleetError> {
        let (mode, password_set) = match &self.reach {
            Reach::Outbound { .. } => (Mode::Outbound, false),
            Reach::Lan { password, .. } => (Mode::Lan, password.is_some()),
        };
        Ok(Setup {
            seed: self.seed,
            started_at: now,
            mode,
            cadence: self.cadence()?,
            spread_over: None,
            faults: self.faults.clone(),
            stamp: self.stamp,
            firmware: self.firmware.clone(),
            wakeup: self.wakeup,
            password_set,
        })
    }
}

/// Why a fleet does not start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FleetError {
    /// A device cannot listen at its address.
    Bind(SocketAddr, io::ErrorKind),
    /// Not between 1 and [`DEVICES_MAX`] devices.
    Devices(u32),
    /// The list of models is wrong.
    Models(ModelError),
    /// There are fewer addresses or ports behind the first than devices.
    NoAddress(u32),
    /// This model has no outbound WebSocket in its firmware.
    NotOutbound(&'static str),
    /// Not above 0 and up to [`RATE_MAX`] frames a second.
    Rate,
    /// The URL or its certificates cannot be used.
    Target(TargetError),
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address, kind) => write!(f, "a device cannot listen at {address}: {kind}"),
            Self::Devices(count) => write!(f, "{count} devices: a fleet has from 1 to {DEVICES_MAX}"),
            Self::Models(error) => error.fmt(f),
            Self::NoAddress(index) => {
                write!(
                    f,
                    "device {index} has no address: start lower, or at port 0 for any free port"
                )
            }
            Self::NotOutbound(name) => {
                write!(
                    f,
                    "model {name} cannot dial out: its firmware has no outbound WebSocket; use LAN mode"
                )
            }
            Self::Rate => write!(
                f,
                "a rate is above 0 and at most {RATE_MAX} frames per device and second"
            ),
            Self::Target(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FleetError {}
