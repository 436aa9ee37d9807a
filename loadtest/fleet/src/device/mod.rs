//! One device, pure: time and frames come in as arguments, what it wants done comes out. It owns its random
//! numbers, reads no clock and does no I/O, so a day of it runs in a test in milliseconds and twice the same.
//!
//! What must stay true:
//! * Every `NotifyStatus` of kind [`FrameKind::Status`] changes at least one value a server knew from the frames
//!   before it; frames that do not are of kind [`FrameKind::Repeat`].
//! * On an outbound connection nothing precedes the greeting, and nothing follows a close.
//! * Energy is the exact integral of power; it falls only by a reset.

mod life;
mod report;
mod status;

pub use life::Ending;
pub(crate) use life::{REBOOT_DELAY, REBOOT_DELAY_MAX};
pub(crate) use status::overlay;

use crate::faults::{Fault, FaultPlan};
use crate::firmware::Firmware;
use crate::frame::{Envelope, FrameKind, Notification};
use crate::identity::{DeviceId, Identity, Mac};
use crate::models::Model;
use crate::outlet::Outlet;
use crate::rng::Rng;
use crate::secret::SecretUrl;
use crate::time::Timestamp;
use life::Life;
use serde_json::{Map, Value};
use status::Sensor;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// How a device is reached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// The device dials the server.
    #[default]
    Outbound,
    /// The device listens, as on a local network.
    Lan,
}

/// Whether frames carry the moment of their emission.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stamp {
    /// Frames are as a real device sends them.
    #[default]
    Off,
    /// Status frames carry a component `x_sent` with `us`, microseconds since the Unix epoch.
    EmissionTime,
    /// The same with the moment at which the frame was due, which for frames of a fixed rate is that of the schedule, however
    /// late the device is polled; and with `n`, the frame's number among the device's stamped ones, from 0. For load.
    DueTime,
}

/// How often a device speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Cadence {
    /// As real devices do: on change, every minute, with the temperature.
    #[default]
    Natural,
    /// A status frame each period, each with a change, and no others: for load.
    Every(Duration),
}

/// What the devices of a fleet have in common.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Same seed, same fleet.
    pub seed: u64,
    /// When the fleet started: herds are counted from here.
    pub started_at: Timestamp,
    /// How devices are reached.
    pub mode: Mode,
    /// How often they speak.
    pub cadence: Cadence,
    /// With [`Cadence::Every`]: so many devices share out the period among them, each speaking somewhere within its own part of it, so that
    /// they never come in clusters and are locked to no other rhythm. Without it each has a moment of its own by chance.
    pub spread_over: Option<NonZeroU32>,
    /// What goes wrong.
    pub faults: FaultPlan,
    /// Whether frames are stamped.
    pub stamp: Stamp,
    /// Firmware of all devices; `None` leaves each model the firmware it was captured with.
    pub firmware: Option<Firmware>,
    /// How often sleepers wake; `None` leaves each model its captured period.
    pub wakeup: Option<Duration>,
    /// Whether `Shelly.GetDeviceInfo` says that a password is set.
    pub password_set: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 0,
            started_at: Timestamp::from_micros(0),
            mode: Mode::default(),
            cadence: Cadence::default(),
            spread_over: None,
            faults: FaultPlan::default(),
            stamp: Stamp::default(),
            firmware: None,
            wakeup: None,
            password_set: false,
        }
    }
}

/// What a device wants done, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send this answer to the peer that asked.
    Reply(String),
    /// Send this to everyone who listens.
    Notify(Notification),
    /// End all connections in this way. Nothing follows until the device is connected again.
    Close(Ending),
    /// For `lasting`, wait `delay` before every frame in either direction.
    Slow {
        /// For how long.
        lasting: Duration,
        /// Per frame.
        delay: Duration,
    },
}

/// When the next thing of each sort happens.
#[derive(Clone, Debug)]
struct Due {
    minute: Timestamp,
    drift: Timestamp,
    button: Timestamp,
    tick: Timestamp,
    sync_report: Timestamp,
    zero_power: Timestamp,
    late_greeting: Timestamp,
    sleep: Timestamp,
    faults: [Timestamp; Fault::ALL.len()],
}

impl Due {
    fn earliest(&self) -> Timestamp {
        [
            self.minute,
            self.drift,
            self.button,
            self.tick,
            self.sync_report,
            self.zero_power,
            self.late_greeting,
            self.sleep,
        ]
        .into_iter()
        .chain(self.faults)
        .min()
        .unwrap_or(Timestamp::NEVER)
    }
}

/// An emulated device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Among the fleet's.
    index: u32,
    pub(crate) model: Arc<Model>,
    pub(crate) setup: Arc<Setup>,
    pub(crate) identity: Identity,
    pub(crate) firmware: Firmware,
    pub(crate) rng: Rng,
    pub(crate) outlets: Vec<Outlet>,
    /// Parts of the configuration that were set by a peer, over the captured ones.
    pub(crate) config_changes: Map<String, Value>,
    pub(crate) cfg_rev: u64,
    pub(crate) restart_required: bool,
    /// What the device dials, and answers as its `ws.server`, token included, as real ones do.
    server: Option<SecretUrl>,
    sensors: Vec<Sensor>,
    envelope: Envelope,
    life: Life,
    booted_at: Timestamp,
    /// When the clock is right; before, `ts` counts from boot.
    synced_at: Timestamp,
    reset_reason: u8,
    /// There is an outbound connection.
    linked: bool,
    rssi: i64,
    /// Minute reports come this long after the full minute.
    minute_offset: Duration,
    due: Due,
    herds_seen: usize,
    tick_outlet: usize,
    /// When the frame of the schedule that is being made was due.
    tick_due: Option<Timestamp>,
    /// Stamped frames so far.
    stamped: u64,
    last_status: Option<Notification>,
}

impl Device {
    /// Device `index` of the fleet. It has been running for a while, except sleepers, which sleep, and one in
    /// ten others, which just booted and does not know the time yet.
    pub fn new(model: Arc<Model>, setup: Arc<Setup>, index: u32, now: Timestamp) -> Self {
        let mut rng = Rng::new(setup.seed, u64::from(index));
        let identity = Identity::new(model.captured_id.clone(), model.captured_mac, setup.seed, index);
        let solar = model.is_outdoor_plug() && rng.one_in(3);
        let mut outlets: Vec<_> = model
            .status
            .iter()
            .filter_map(|(key, status)| Outlet::from_status(key, status, solar, now, &mut rng))
            .collect();
        // The order of a JSON object depends on how serde_json was built; the order of outlets may not.
        outlets.sort_unstable_by_key(Outlet::number);
        let sensors = Sensor::all_of(&model.status, &mut rng);
        let firmware = setup.firmware.clone().unwrap_or_else(|| model.firmware().clone());
        let captured_uptime = model
            .status
            .get("sys")
            .and_then(|sys| sys.get("uptime"))
            .and_then(Value::as_u64);
        let uptime = Duration::from_secs(captured_uptime.unwrap_or(3600) / 2 + rng.below(3600));
        let cfg_rev = model
            .config
            .get("sys")
            .and_then(|sys| sys.get("cfg_rev"))
            .and_then(Value::as_u64);
        let envelope = if rng.chance(setup.faults.terse()) {
            Envelope::Terse
        } else {
            Envelope::Complete
        };
        let minute_offset = rng.duration(Duration::ZERO, Duration::from_millis(1500));
        let never = Timestamp::NEVER;
        let mut device = Self {
            index,
            identity,
            firmware,
            outlets,
            config_changes: Map::new(),
            cfg_rev: cfg_rev.unwrap_or(1),
            restart_required: false,
            server: None,
            sensors,
            envelope,
            life: Life::Awake,
            booted_at: now.minus(uptime),
            synced_at: now.minus(uptime),
            reset_reason: 3,
            linked: false,
            rssi: rng.between(-78, -41),
            minute_offset,
            due: Due {
                minute: never,
                drift: never,
                button: never,
                tick: never,
                sync_report: never,
                zero_power: never,
                late_greeting: never,
                sleep: never,
                faults: [never; Fault::ALL.len()],
            },
            herds_seen: setup
                .faults
                .herds()
                .partition_point(|after| setup.started_at.plus(*after) <= now),
            tick_outlet: 0,
            tick_due: None,
            stamped: 0,
            last_status: None,
            rng,
            model,
            setup,
        };
        device.start(now);
        device
    }

    /// The id the device calls itself by.
    pub fn id(&self) -> &DeviceId {
        self.identity.id()
    }

    /// The hardware address.
    pub fn mac(&self) -> Mac {
        self.identity.mac()
    }

    /// The model it was made from.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The firmware it behaves as.
    pub fn firmware(&self) -> &Firmware {
        &self.firmware
    }

    /// Tells the device what it dials, which it repeats to whoever asks for its configuration.
    pub(crate) fn set_server(&mut self, server: SecretUrl) {
        self.server = Some(server);
    }

    /// Whether the device has power and is not asleep: only then can it be reached or dial.
    pub fn is_awake(&self) -> bool {
        !matches!(self.life, Life::Dark { .. })
    }

    /// When [`Device::poll`] has something to do, unless a frame arrives before.
    pub fn next_wakeup(&self) -> Timestamp {
        match self.life {
            Life::Dark { until, .. } => until,
            Life::ShuttingDown { at } => at,
            Life::Awake => {
                let outlets = self
                    .outlets
                    .iter()
                    .map(Outlet::next_wakeup)
                    .min()
                    .unwrap_or(Timestamp::NEVER);
                outlets.min(self.due.earliest()).min(self.next_herd())
            }
        }
    }

    /// Does everything that is due by `now`.
    pub fn poll(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        self.poll_life(now, out);
        if !matches!(self.life, Life::Awake) {
            return;
        }
        self.poll_herd(out, now);
        self.poll_faults(now, out);
        if matches!(self.life, Life::Awake) {
            self.poll_reports(now, out);
        }
    }

    /// The outbound connection is up: the device greets.
    pub fn connected(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        self.linked = true;
        self.greet(now, out);
    }

    /// The outbound connection is gone, whoever ended it.
    pub fn disconnected(&mut self) {
        self.linked = false;
        self.due.late_greeting = Timestamp::NEVER;
    }

    /// Whether anyone could hear a notification.
    fn has_audience(&self) -> bool {
        self.linked || self.setup.mode == Mode::Lan
    }

    pub(crate) fn notify(
        &mut self,
        now: Timestamp,
        kind: FrameKind,
        mut params: Map<String, Value>,
        out: &mut Vec<Output>,
    ) {
        if !self.has_audience() {
            return;
        }
        if self.envelope == Envelope::Complete || kind == FrameKind::Event {
            params.insert("ts".into(), self.ts(now));
        }
        if matches!(kind, FrameKind::Full | FrameKind::Greeting | FrameKind::Status)
            && let Some(stamp) = self.next_stamp(now)
        {
            params.insert("x_sent".into(), stamp);
        }
        let notification = Notification {
            kind,
            src: self.id().clone(),
            envelope: self.envelope,
            params,
        };
        match kind {
            // After a full status the last delta is news of yesterday: sending it again would change something.
            FrameKind::Full | FrameKind::Greeting => self.last_status = None,
            FrameKind::Status if self.setup.faults.mean_gap(Fault::Repeat).is_some() => {
                self.last_status = Some(notification.clone());
            }
            _ => {}
        }
        out.push(Output::Notify(notification));
    }

    fn next_stamp(&mut self, now: Timestamp) -> Option<Value> {
        match self.setup.stamp {
            Stamp::Off => None,
            Stamp::EmissionTime => Some(serde_json::json!({"us": now.as_micros()})),
            Stamp::DueTime => {
                let (due, n) = (self.tick_due.unwrap_or(now), self.stamped);
                self.stamped += 1;
                Some(serde_json::json!({"us": due.as_micros(), "n": n}))
            }
        }
    }

    pub(crate) fn notify_component(
        &mut self,
        now: Timestamp,
        key: &str,
        fields: Map<String, Value>,
        out: &mut Vec<Output>,
    ) {
        let params = Map::from_iter([(key.to_owned(), Value::Object(fields))]);
        self.notify(now, FrameKind::Status, params, out);
    }

    pub(crate) fn notify_event(
        &mut self,
        now: Timestamp,
        mut event: Map<String, Value>,
        out: &mut Vec<Output>,
    ) {
        event.insert("ts".into(), self.ts(now));
        let params = Map::from_iter([("events".to_owned(), Value::Array(vec![Value::Object(event)]))]);
        self.notify(now, FrameKind::Event, params, out);
    }
}
