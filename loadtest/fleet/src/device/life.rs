//! The ups and downs of a device: boot, reboot, sleep, and the faults that strike it.

use super::report::DRIFT_MAX;
use super::{Cadence, Device, Mode, Output};
use crate::faults::Fault;
use crate::frame::FrameKind;
use crate::meter::Flow;
use crate::outlet::{Outlet, OutletKind};
use crate::time::{MINUTE, Timestamp};
use serde_json::{Map, Value};
use std::time::Duration;

/// How a device leaves its connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// With a WebSocket close and the reason "Bye", as sleepers do.
    Bye,
    /// The TCP connection breaks without a WebSocket close.
    Drop,
    /// Without a trace: no FIN, no RST; the peer's socket stays open.
    Vanish,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Life {
    Awake,
    /// A reboot is pending: calls are refused with -109 until it happens.
    ShuttingDown {
        at: Timestamp,
    },
    /// Without power, booting, or asleep.
    Dark {
        until: Timestamp,
        boot: BootCause,
    },
}

/// Why a device starts; shown as `reset_reason`, for sleepers also as `wakeup_reason`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BootCause {
    PowerOn,
    Reboot,
    DeepSleep,
}

impl BootCause {
    /// Numbers as captured: 1 after power-on, 3 after a reboot by software, 8 after deep sleep.
    const fn reset_reason(self) -> u8 {
        match self {
            Self::PowerOn => 1,
            Self::Reboot => 3,
            Self::DeepSleep => 8,
        }
    }
}

/// From power or reset to the first connection, as the small `ts` of captured first frames show.
const BOOT_MIN: Duration = Duration::from_millis(1_200);
const BOOT_MAX: Duration = Duration::from_millis(5_000);
/// How long a device goes without the time of day after boot.
const SYNC_MIN: Duration = Duration::from_secs(5);
const SYNC_MAX: Duration = Duration::from_secs(20);
/// Delay of a reboot unless the caller names another.
pub(crate) const REBOOT_DELAY: Duration = Duration::from_millis(1000);
/// Longest delay a caller of `Shelly.Reboot` may ask for.
pub(crate) const REBOOT_DELAY_MAX: Duration = Duration::from_secs(60);
/// How long a sleeper stays awake after its greeting, and how long it tries to connect at all.
const AWAKE_MIN: Duration = Duration::from_secs(2);
const AWAKE_MAX: Duration = Duration::from_secs(5);
const AWAKE_UNHEARD: Duration = Duration::from_secs(15);
/// Sleepers of a fresh fleet wake for the first time within this.
const FIRST_WAKE_MAX: Duration = Duration::from_secs(5);
/// How long someone leaves an outlet on and off.
const BUTTON_ON_MEAN: Duration = Duration::from_secs(720);
const BUTTON_OFF_MIN: Duration = Duration::from_secs(10);
const BUTTON_OFF_MAX: Duration = Duration::from_secs(60);

impl Device {
    /// The state a device is in when its fleet starts.
    pub(super) fn start(&mut self, now: Timestamp) {
        if let Some(period) = self.wakeup_period() {
            let first = self.rng.duration(Duration::ZERO, period.min(FIRST_WAKE_MAX));
            self.life = Life::Dark {
                until: now.plus(first),
                boot: BootCause::DeepSleep,
            };
            return;
        }
        if self.rng.one_in(10) {
            self.boot(now, BootCause::PowerOn);
        }
        self.schedule_cadence(now);
        self.schedule_faults(now);
    }

    pub(super) fn wakeup_period(&self) -> Option<Duration> {
        let captured = self.model.wakeup_period_seconds()?;
        Some(
            self.setup
                .wakeup
                .unwrap_or(Duration::from_secs(captured))
                .max(Duration::from_secs(1)),
        )
    }

    /// Whether a call has to be refused because the device is about to reboot, and in how long it will.
    pub(crate) fn shutting_down_in(&self, now: Timestamp) -> Option<Duration> {
        match self.life {
            Life::ShuttingDown { at } => Some(at.since(now)),
            _ => None,
        }
    }

    pub(crate) fn reboot_after(&mut self, now: Timestamp, delay: Duration) {
        if self.life == Life::Awake {
            self.life = Life::ShuttingDown { at: now.plus(delay) };
        }
    }

    pub(super) fn poll_life(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        match self.life {
            Life::Dark { until, boot } if until <= now => self.boot(now, boot),
            Life::ShuttingDown { at } if at <= now => {
                self.close(Ending::Drop, out);
                let until = now.plus(self.rng.duration(BOOT_MIN, BOOT_MAX));
                self.life = Life::Dark {
                    until,
                    boot: BootCause::Reboot,
                };
            }
            Life::Awake if self.due.sleep <= now => self.fall_asleep(now, out),
            _ => {}
        }
    }

    fn boot(&mut self, now: Timestamp, cause: BootCause) {
        self.life = Life::Awake;
        self.reset_reason = cause.reset_reason();
        self.restart_required = false;
        // The time spent booting is part of the uptime: the first frame of a captured device says 4 or 5 s.
        let booting = self.rng.duration(BOOT_MIN, BOOT_MAX);
        self.booted_at = now.minus(booting);
        self.synced_at = self.booted_at.plus(self.rng.duration(SYNC_MIN, SYNC_MAX));
        self.due.sync_report = self.synced_at;
        self.due.zero_power = Timestamp::NEVER;
        for outlet in &mut self.outlets {
            outlet.restart(now, &mut self.rng);
        }
        for sensor in &mut self.sensors {
            sensor.drift(&mut self.rng);
        }
        if self.wakeup_period().is_some() {
            self.due.sleep = now.plus(AWAKE_UNHEARD);
        } else {
            self.schedule_cadence(now);
            self.schedule_faults(now);
        }
    }

    pub(super) fn stay_awake_after_greeting(&mut self, now: Timestamp) {
        if self.wakeup_period().is_some() {
            self.due.sleep = now.plus(self.rng.duration(AWAKE_MIN, AWAKE_MAX));
        }
    }

    fn fall_asleep(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let event = Map::from_iter([
            ("component".into(), "sys".into()),
            ("event".into(), "sleep".into()),
        ]);
        self.notify_event(now, event, out);
        self.close(Ending::Bye, out);
        self.due.sleep = Timestamp::NEVER;
        self.due.sync_report = Timestamp::NEVER;
        let period = self.wakeup_period().unwrap_or(FIRST_WAKE_MAX);
        self.life = Life::Dark {
            until: now.plus(period),
            boot: BootCause::DeepSleep,
        };
    }

    fn close(&mut self, ending: Ending, out: &mut Vec<Output>) {
        if self.linked || self.setup.mode == Mode::Lan {
            out.push(Output::Close(ending));
            self.disconnected();
        }
    }

    fn schedule_cadence(&mut self, now: Timestamp) {
        match self.setup.cadence {
            Cadence::Natural => {
                self.schedule_minute(now);
                self.due.drift = now.plus(self.rng.duration(Duration::from_secs(1), DRIFT_MAX));
                self.schedule_button(now);
            }
            Cadence::Every(period) => {
                let period = period.max(super::report::TICK_MIN);
                self.due.tick = match self.setup.spread_over {
                    None => now.plus(self.rng.duration(Duration::ZERO, period)),
                    Some(devices) => {
                        let part = period / devices.get();
                        let within = self.rng.duration(Duration::ZERO, part);
                        now.plus(part * (self.index % devices.get()) + within)
                    }
                };
            }
        }
    }

    /// The report of the minute that runs now; none where frames come at a fixed rate.
    pub(super) fn schedule_minute(&mut self, now: Timestamp) {
        if self.setup.cadence == Cadence::Natural {
            self.due.minute = now.minute_start().plus(MINUTE + self.minute_offset);
        }
    }

    fn schedule_button(&mut self, now: Timestamp) {
        let mut switches = self
            .outlets
            .iter()
            .filter(|outlet| outlet.kind() == OutletKind::Switch)
            .peekable();
        self.due.button = if switches.peek().is_none() {
            Timestamp::NEVER
        } else if switches.all(Outlet::is_on) {
            now.plus(self.rng.gap(BUTTON_ON_MEAN).max(BUTTON_OFF_MIN))
        } else {
            now.plus(self.rng.duration(BUTTON_OFF_MIN, BUTTON_OFF_MAX))
        };
    }

    /// Someone presses the button: whatever is off goes on again first.
    pub(super) fn press_button(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let off = self
            .outlets
            .iter()
            .position(|outlet| outlet.kind() == OutletKind::Switch && !outlet.is_on());
        let place = off.unwrap_or_else(|| self.rng.below(self.outlets.len() as u64) as usize);
        if self
            .outlets
            .get(place)
            .is_some_and(|outlet| outlet.kind() == OutletKind::Switch)
        {
            let on = !self.outlets[place].is_on();
            self.switch_outlet(now, place, on, "button", None, out);
        }
        self.schedule_button(now);
    }

    pub(super) fn next_herd(&self) -> Timestamp {
        let herds = self.setup.faults.herds();
        herds
            .get(self.herds_seen)
            .map_or(Timestamp::NEVER, |after| self.setup.started_at.plus(*after))
    }

    pub(super) fn poll_herd(&mut self, out: &mut Vec<Output>, now: Timestamp) {
        while self.next_herd() <= now {
            self.herds_seen += 1;
            self.close(Ending::Drop, out);
        }
    }

    fn schedule_faults(&mut self, now: Timestamp) {
        for fault in Fault::ALL {
            self.schedule_fault(now, fault);
        }
    }

    fn schedule_fault(&mut self, now: Timestamp, fault: Fault) {
        let gap = self.setup.faults.mean_gap(fault).map(|mean| self.rng.gap(mean));
        self.due.faults[fault as usize] =
            gap.map_or(Timestamp::NEVER, |gap| now.plus(gap.max(FAULT_GAP_MIN)));
    }

    pub(super) fn poll_faults(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for fault in Fault::ALL {
            if self.due.faults[fault as usize] <= now {
                self.schedule_fault(now, fault);
                self.strike(now, fault, out);
            }
        }
    }

    fn strike(&mut self, now: Timestamp, fault: Fault, out: &mut Vec<Output>) {
        match fault {
            Fault::Ble => self.emit_ble_scan(now, out),
            Fault::Drop => self.close(Ending::Drop, out),
            Fault::HalfOpen => {
                self.close(Ending::Vanish, out);
                if self.rng.one_in(2) {
                    let outage = self.rng.duration(Duration::from_secs(2), Duration::from_secs(20));
                    self.life = Life::Dark {
                        until: now.plus(outage),
                        boot: BootCause::PowerOn,
                    };
                }
            }
            Fault::Reboot => self.reboot_after(now, REBOOT_DELAY),
            Fault::Repeat => {
                if let (true, Some(mut last)) = (
                    self.linked || self.setup.mode == Mode::Lan,
                    self.last_status.clone(),
                ) {
                    last.kind = FrameKind::Repeat;
                    out.push(Output::Notify(last));
                }
            }
            Fault::Reset => {
                for place in 0..self.outlets.len() {
                    self.reset_counters(now, place, &[Flow::All, Flow::Returned], out);
                }
            }
            Fault::Slow => {
                let lasting = self.rng.duration(Duration::from_secs(5), Duration::from_secs(30));
                let delay = self
                    .rng
                    .duration(Duration::from_millis(100), Duration::from_millis(1500));
                out.push(Output::Slow { lasting, delay });
            }
        }
    }

    /// Resets counters of one outlet and reports them, if that changed anything. Answers what they showed.
    pub(crate) fn reset_counters(
        &mut self,
        now: Timestamp,
        place: usize,
        flows: &[Flow],
        out: &mut Vec<Output>,
    ) -> Map<String, Value> {
        let Some(outlet) = self.outlets.get_mut(place) else {
            return Map::new();
        };
        outlet.advance(now, &mut self.rng);
        let before = outlet.reset_counters(now, flows);
        if let (false, Some(fields)) = (before.is_empty(), outlet.energy_delta(now, &self.firmware)) {
            let key = outlet.key().to_owned();
            self.notify_component(now, &key, fields, out);
        }
        before
    }
}

/// Faults of one device keep at least this distance, so that one poll handles each sort at most once.
const FAULT_GAP_MIN: Duration = Duration::from_millis(100);
