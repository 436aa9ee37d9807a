//! What an awake device says by itself: changes, minute reports, drift, events.

use super::{Cadence, Device, Output};
use crate::frame::FrameKind;
use crate::models::Greeting;
use crate::outlet::Outlet;
use crate::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Shortest period of a fleet that sends at a fixed rate: a thousand frames a second from one device.
pub(crate) const TICK_MIN: Duration = Duration::from_millis(1);
/// A device that was held up sends at most this many late frames at once and drops the rest of its schedule.
const TICK_CATCH_UP_MAX: u32 = 32;
/// Temperature and signal move about this often.
const DRIFT_MIN: Duration = Duration::from_secs(10);
pub(super) const DRIFT_MAX: Duration = Duration::from_secs(60);
/// The zero watts of old firmware come this late, if they come.
const ZERO_POWER_DELAY: Duration = Duration::from_millis(900);
/// Advertisements in one scan event; makes the frame about 2.3 kB.
const BLE_ADVERTISEMENTS: usize = 18;

impl Device {
    /// The first words on a new outbound connection.
    pub(super) fn greet(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        self.advance_outlets(now);
        // The full status carries the last full minute; the next report is that of the next minute.
        self.schedule_minute(now);
        match self.model.greeting() {
            Greeting::FullStatus => self.notify_full(now, out),
            Greeting::PartialStatus => {
                let params = self.partial_greeting();
                self.notify(now, FrameKind::Greeting, params, out);
                if self.rng.one_in(2) {
                    self.due.late_greeting = now.plus(Duration::from_millis(30));
                }
            }
        }
        self.stay_awake_after_greeting(now);
    }

    fn notify_full(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let params = self.full_status(now);
        for outlet in &mut self.outlets {
            outlet.mark_reported(now, &self.firmware);
        }
        for sensor in &mut self.sensors {
            sensor.mark_reported();
        }
        self.notify(now, FrameKind::Full, params, out);
    }

    pub(super) fn poll_reports(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        self.advance_outlets(now);
        if take(&mut self.due.late_greeting, now) {
            self.notify_full(now, out);
        }
        if take(&mut self.due.sync_report, now) {
            let fields = self.clock_fields(now);
            self.notify_component(now, "sys", fields, out);
        }
        self.poll_timers(now, out);
        if take(&mut self.due.zero_power, now) {
            for place in 0..self.outlets.len() {
                self.report(now, place, Outlet::zero_power_delta, out);
            }
        }
        match self.setup.cadence {
            Cadence::Natural => self.poll_natural(now, out),
            Cadence::Every(period) => self.poll_ticks(now, period.max(TICK_MIN), out),
        }
    }

    fn poll_natural(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if take(&mut self.due.button, now) {
            self.press_button(now, out);
        }
        for place in 0..self.outlets.len() {
            if self.outlets[place].power_report_is_due() {
                self.report(now, place, Outlet::power_delta, out);
            }
        }
        if self.due.minute <= now {
            self.schedule_minute(now);
            if self.is_synced(now) {
                for place in 0..self.outlets.len() {
                    self.report(
                        now,
                        place,
                        |outlet, firmware| outlet.minute_delta(now, firmware),
                        out,
                    );
                }
            }
        }
        if self.due.drift <= now {
            self.due.drift = now.plus(self.rng.duration(DRIFT_MIN, DRIFT_MAX));
            for place in 0..self.outlets.len() {
                let drift = self.outlets[place].drift_temperature(&self.firmware, &mut self.rng);
                if let Some(fields) = drift {
                    let key = self.outlets[place].key().to_owned();
                    self.notify_component(now, &key, fields, out);
                }
            }
            // Without an audience nothing is told, so nothing may be marked as told.
            let told = self.has_audience();
            for place in 0..self.sensors.len() {
                self.sensors[place].drift(&mut self.rng);
                let delta = if told { self.sensors[place].delta() } else { None };
                if let Some(fields) = delta {
                    let key = self.sensors[place].key().to_owned();
                    self.notify_component(now, &key, fields, out);
                }
            }
        }
    }

    /// A frame per period, each from the next metered outlet, each with a change.
    fn poll_ticks(&mut self, now: Timestamp, period: Duration, out: &mut Vec<Output>) {
        let mut sent = 0;
        while self.due.tick <= now {
            if !self.has_audience() || sent == TICK_CATCH_UP_MAX {
                let missed = now.since(self.due.tick).as_micros() / period.as_micros().max(1) + 1;
                let missed = u32::try_from(missed).unwrap_or(u32::MAX);
                self.due.tick = self.due.tick.plus(period.saturating_mul(missed));
                return;
            }
            self.tick_due = Some(self.due.tick);
            self.due.tick = self.due.tick.plus(period);
            sent += 1;
            self.tick(now, out);
            self.tick_due = None;
        }
    }

    fn tick(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let metered = self.outlets.iter().filter(|outlet| outlet.is_metered()).count();
        if metered > 0 {
            let nth = self.tick_outlet % metered;
            self.tick_outlet = nth + 1;
            let places = (0..self.outlets.len()).filter(|place| self.outlets[*place].is_metered());
            if let Some(place) = places.into_iter().nth(nth) {
                self.report(now, place, Outlet::forced_delta, out);
            }
        } else {
            // Nothing is measured here; the signal strength is what every device has.
            self.rssi += if self.rssi < -60 { 1 } else { -1 };
            let fields = Map::from_iter([("rssi".into(), self.rssi.into())]);
            self.notify_component(now, "wifi", fields, out);
        }
    }

    fn poll_timers(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        for place in 0..self.outlets.len() {
            if self.outlets[place].timer_is_due(now) {
                let on = !self.outlets[place].is_on();
                self.switch_outlet(now, place, on, "timer", None, out);
            }
        }
    }

    /// Switches one outlet and reports it. Returns whether it was on.
    pub(crate) fn switch_outlet(
        &mut self,
        now: Timestamp,
        place: usize,
        on: bool,
        source: &'static str,
        toggle_after: Option<Duration>,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(outlet) = self.outlets.get_mut(place) else {
            return false;
        };
        outlet.advance(now, &mut self.rng);
        let was_on = outlet.is_on();
        let changed = outlet.switch(now, on, source, toggle_after, &self.firmware, &mut self.rng);
        let key = outlet.key().to_owned();
        if outlet.owes_zero_power() {
            if self.rng.one_in(2) {
                self.due.zero_power = now.plus(ZERO_POWER_DELAY);
            } else {
                outlet.lose_zero_power();
            }
        }
        if let Some(fields) = changed {
            self.notify_component(now, &key, fields, out);
        }
        was_on
    }

    fn report(
        &mut self,
        now: Timestamp,
        place: usize,
        delta: impl FnOnce(&mut Outlet, &crate::firmware::Firmware) -> Option<Map<String, Value>>,
        out: &mut Vec<Output>,
    ) {
        let Some(outlet) = self.outlets.get_mut(place) else {
            return;
        };
        if let Some(fields) = delta(outlet, &self.firmware) {
            let key = outlet.key().to_owned();
            self.notify_component(now, &key, fields, out);
        }
    }

    pub(crate) fn advance_outlets(&mut self, now: Timestamp) {
        for outlet in &mut self.outlets {
            outlet.advance(now, &mut self.rng);
        }
    }

    /// A scan result as the scanning script of a gateway emits it: version, then address, signal, advertisement
    /// and scan response of each beacon.
    pub(super) fn emit_ble_scan(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        let beacons: Vec<Value> = (0..BLE_ADVERTISEMENTS).map(|_| self.beacon()).collect();
        let Value::Object(event) = json!({
            "component": "script:1", "id": 1, "event": "ble.scan_result", "data": [2, beacons],
        }) else {
            return;
        };
        self.notify_event(now, event, out);
    }

    fn beacon(&mut self) -> Value {
        let address = self.rng.next_u64().to_be_bytes();
        let address: Vec<String> = address[2..].iter().map(|byte| format!("{byte:02x}")).collect();
        let payload: Vec<u8> = (0..4).flat_map(|_| self.rng.next_u64().to_be_bytes()).collect();
        let (advertisement, response) = payload.split_at(29);
        let advertisement: Vec<u8> = [&[2, 1, 6], advertisement].concat();
        json!([
            address.join(":"),
            self.rng.between(-99, -40),
            STANDARD.encode(advertisement),
            STANDARD.encode(
                [
                    response, response, response, response, response, response, response
                ]
                .concat()
            ),
        ])
    }
}

/// Whether something is due; if so it is no longer scheduled.
fn take(due: &mut Timestamp, now: Timestamp) -> bool {
    let is_due = *due <= now;
    if is_due {
        *due = Timestamp::NEVER;
    }
    is_due
}
