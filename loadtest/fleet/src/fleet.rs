//! A running fleet: starts the devices, counts what they do, stops them.

use crate::device::{Cadence, Device, Mode, Setup, Stamp};
use crate::faults::FaultPlan;
use crate::firmware::Firmware;
use crate::identity::DeviceId;
use crate::models::{DEFAULT_MODELS, ModelError, ModelMix};
use crate::outbound::Driver;
use crate::rng::Rng;
use crate::stats::{Counters, DeviceStats, FleetStats};
use crate::target::{Target, TargetError, Tokens, Trust};
use crate::time::FleetClock;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
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

/// What a fleet is to be. [`FleetOptions::outbound`] gives a faithful fleet; change what should differ.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// What devices dial, `ws://` or `wss://`, without the token unless `tokens` is [`Tokens::None`].
    pub url: String,
    /// Their credentials.
    pub tokens: Tokens,
    /// Which certificates they accept.
    pub trust: Trust,
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
        Ok(Self {
            url: url.into(),
            tokens,
            trust: Trust::default(),
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
}

/// Why a fleet does not start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FleetError {
    /// Not between 1 and [`DEVICES_MAX`] devices.
    Devices(u32),
    /// The list of models is wrong.
    Models(ModelError),
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
            Self::Devices(count) => write!(f, "{count} devices: a fleet has from 1 to {DEVICES_MAX}"),
            Self::Models(error) => error.fmt(f),
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

/// A fleet of devices that dial out. Dropping it ends all devices at once, without goodbye.
#[derive(Debug)]
pub struct Fleet {
    counters: Vec<(DeviceId, Arc<Counters>)>,
    clock: FleetClock,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts a fleet on the current tokio runtime, one task per device.
    ///
    /// # Errors
    /// See [`FleetError`]; nothing has been dialled then.
    ///
    /// # Panics
    /// Outside a tokio runtime with time and I/O.
    pub fn start(options: FleetOptions) -> Result<Self, FleetError> {
        let cadence = options.cadence()?;
        if !(1..=DEVICES_MAX).contains(&options.devices) {
            return Err(FleetError::Devices(options.devices));
        }
        if let Some(model) = options
            .models
            .models()
            .find(|model| !model.has_outbound_websocket())
        {
            return Err(FleetError::NotOutbound(model.name()));
        }
        let target = Arc::new(Target::new(&options.url, &options.trust).map_err(FleetError::Target)?);
        let clock = FleetClock::start();
        let now = clock.now();
        let setup = Arc::new(Setup {
            seed: options.seed,
            started_at: now,
            mode: Mode::Outbound,
            cadence,
            faults: options.faults,
            stamp: options.stamp,
            firmware: options.firmware,
            wakeup: options.wakeup,
            password_set: false,
        });
        let (stop, stopped) = watch::channel(false);
        let mut fleet = Self {
            counters: Vec::new(),
            clock,
            stop,
            tasks: JoinSet::new(),
        };
        for index in 0..options.devices {
            let model = options.models.model_of(index).clone();
            let mut device = Device::new(model, setup.clone(), index, now);
            let url = target.url_for(device.id(), &options.tokens);
            device.set_server(url.clone());
            let counters = Arc::new(Counters::default());
            fleet.counters.push((device.id().clone(), counters.clone()));
            let mut rng = Rng::new(options.seed, CONNECTION_STREAMS + u64::from(index));
            let first_dial = now.plus(rng.duration(Duration::ZERO, options.ramp));
            let (target, stop) = (target.clone(), stopped.clone());
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
            fleet.tasks.spawn(driver.run());
        }
        Ok(fleet)
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
