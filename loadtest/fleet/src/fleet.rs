//! A running fleet: starts the devices, counts what they do, stops them.

use crate::device::{Cadence, Device, Mode, Setup, Stamp};
use crate::digest::Digest;
use crate::faults::FaultPlan;
use crate::firmware::Firmware;
use crate::identity::DeviceId;
use crate::lan::LanDriver;
use crate::models::{DEFAULT_MODELS, ModelError, ModelMix};
use crate::outbound::Driver;
use crate::rng::Rng;
use crate::stats::{Counters, DeviceStats, FleetStats};
use crate::target::{Target, TargetError, Tokens, Trust};
use crate::time::{FleetClock, Timestamp};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Most devices in one fleet.
pub const DEVICES_MAX: u32 = 100_000;
/// Most status frames per device and second.
pub const RATE_MAX: f64 = 1000.0;
/// How long [`Fleet::stop`] waits for the devices to say goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Keeps the chance of connections apart from that of devices, which use their index as stream.
const CONNECTION_STREAMS: u64 = 1 << 32;

/// A password that cannot be printed by accident.
#[derive(Clone)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

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
    fn address(self, index: u32) -> Option<SocketAddr> {
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

    fn setup(&self, now: Timestamp) -> Result<Setup, FleetError> {
        let (mode, password_set) = match &self.reach {
            Reach::Outbound { .. } => (Mode::Outbound, false),
            Reach::Lan { password, .. } => (Mode::Lan, password.is_some()),
        };
        Ok(Setup {
            seed: self.seed,
            started_at: now,
            mode,
            cadence: self.cadence()?,
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

/// A running fleet. Dropping it ends all devices at once, without goodbye.
#[derive(Debug)]
pub struct Fleet {
    counters: Vec<(DeviceId, Arc<Counters>)>,
    addresses: Vec<SocketAddr>,
    clock: FleetClock,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts a fleet on the current tokio runtime, one task per device.
    ///
    /// # Errors
    /// See [`FleetError`]; nothing has been dialled then, and nothing listens.
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O.
    pub fn start(options: FleetOptions) -> Result<Self, FleetError> {
        if !(1..=DEVICES_MAX).contains(&options.devices) {
            return Err(FleetError::Devices(options.devices));
        }
        let clock = FleetClock::start();
        let setup = Arc::new(options.setup(clock.now())?);
        let (stop, _) = watch::channel(false);
        let mut fleet = Self {
            counters: Vec::new(),
            addresses: Vec::new(),
            clock,
            stop,
            tasks: JoinSet::new(),
        };
        match &options.reach {
            Reach::Outbound { url, tokens, trust } => fleet.dial_out(&options, &setup, url, tokens, trust)?,
            Reach::Lan { bind, password } => fleet.listen(&options, &setup, *bind, password.as_ref())?,
        }
        Ok(fleet)
    }

    fn dial_out(
        &mut self,
        options: &FleetOptions,
        setup: &Arc<Setup>,
        url: &str,
        tokens: &Tokens,
        trust: &Trust,
    ) -> Result<(), FleetError> {
        if let Some(model) = options
            .models
            .models()
            .find(|model| !model.has_outbound_websocket())
        {
            return Err(FleetError::NotOutbound(model.name()));
        }
        let target = Arc::new(Target::new(url, trust).map_err(FleetError::Target)?);
        for index in 0..options.devices {
            let (mut device, counters) = self.add(options, setup, index);
            let url = target.url_for(device.id(), tokens);
            device.set_server(url.clone());
            let mut rng = Rng::new(options.seed, CONNECTION_STREAMS + u64::from(index));
            let first_dial = setup.started_at.plus(rng.duration(Duration::ZERO, options.ramp));
            let (clock, target, stop) = (self.clock, target.clone(), self.stop.subscribe());
            let driver = Driver {
                device,
                clock,
                target,
                url,
                counters,
                stop,
                rng,
                first_dial,
            };
            self.tasks.spawn(driver.run());
        }
        Ok(())
    }

    fn listen(
        &mut self,
        options: &FleetOptions,
        setup: &Arc<Setup>,
        bind: LanBind,
        password: Option<&Password>,
    ) -> Result<(), FleetError> {
        let listeners: Vec<TcpListener> = (0..options.devices)
            .map(|index| listener(bind, index))
            .collect::<Result<_, _>>()?;
        for (index, listener) in (0..).zip(listeners) {
            let (device, counters) = self.add(options, setup, index);
            let address = listener
                .local_addr()
                .map_err(|error| FleetError::Bind(any_address(), error.kind()))?;
            self.addresses.push(address);
            let guard = password.map(|password| {
                let nonce_seed = options.seed ^ u64::from(index);
                Digest::new(
                    device.firmware().digest_kind(),
                    device.id().as_str(),
                    &password.0,
                    nonce_seed,
                )
            });
            let (clock, stop) = (self.clock, self.stop.subscribe());
            let driver = LanDriver {
                device,
                guard,
                clock,
                listener,
                counters,
                stop,
            };
            self.tasks.spawn(driver.run());
        }
        Ok(())
    }

    fn add(&mut self, options: &FleetOptions, setup: &Arc<Setup>, index: u32) -> (Device, Arc<Counters>) {
        let model = options.models.model_of(index).clone();
        let device = Device::new(model, setup.clone(), index, setup.started_at);
        let counters = Arc::new(Counters::default());
        self.counters.push((device.id().clone(), counters.clone()));
        (device, counters)
    }

    /// Where the devices of a LAN fleet listen, in the order of their indexes; empty for one that dials out.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The ids of all devices, in the order of their indexes.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = &DeviceId> {
        self.counters.iter().map(|(id, _)| id)
    }

    /// What the fleet did so far.
    pub fn snapshot(&self) -> FleetStats {
        let mut stats = FleetStats {
            devices: self.counters.len() as u64,
            ..FleetStats::default()
        };
        for (_, counters) in &self.counters {
            stats.totals.add(&counters.totals());
        }
        stats
    }

    /// What each device did so far.
    pub fn device_stats(&self) -> impl Iterator<Item = DeviceStats> {
        self.counters.iter().map(|(id, counters)| DeviceStats {
            id: id.clone(),
            totals: counters.totals(),
        })
    }

    /// The clock that stamps frames: compare with it to get a latency.
    pub const fn clock(&self) -> FleetClock {
        self.clock
    }

    /// Stops all devices with a WebSocket close each, so that everything counted as sent arrives, and returns
    /// the final counts. Devices that take longer than a few seconds are ended without one.
    pub async fn stop(mut self) -> FleetStats {
        self.stop.send_replace(true);
        let all_gone = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, all_gone).await.is_err() {
            self.tasks.shutdown().await;
        }
        self.snapshot()
    }
}

fn listener(bind: LanBind, index: u32) -> Result<TcpListener, FleetError> {
    let address = bind.address(index).ok_or(FleetError::NoAddress(index))?;
    let refuse = |error: io::Error| FleetError::Bind(address, error.kind());
    let listener = std::net::TcpListener::bind(address).map_err(refuse)?;
    listener.set_nonblocking(true).map_err(refuse)?;
    TcpListener::from_std(listener).map_err(refuse)
}

const fn any_address() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)
}
