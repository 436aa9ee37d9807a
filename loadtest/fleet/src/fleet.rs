//! A running fleet: starts the devices, counts what they do, stops them.

use crate::device::{Device, Setup};
use crate::digest::Digest;
use crate::identity::DeviceId;
use crate::lan::LanDriver;
use crate::options::{DEVICES_MAX, FleetError, FleetOptions, LanBind, Reach};
use crate::outbound::Driver;
use crate::rng::Rng;
use crate::secret::Password;
use crate::stats::{Counters, DeviceStats, FleetStats};
use crate::stop::Stop;
use crate::target::{Target, Tokens, Trust};
use crate::time::FleetClock;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long [`Fleet::stop`] waits for the devices to say goodbye.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Keeps the chance of connections apart from that of devices, which use their index as stream.
const CONNECTION_STREAMS: u64 = 1 << 32;

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
            let (clock, target, stop) = (self.clock, target.clone(), Stop::new(self.stop.subscribe()));
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
            let (clock, stop) = (self.clock, Stop::new(self.stop.subscribe()));
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
