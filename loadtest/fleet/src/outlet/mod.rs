//! One outlet: a switch, metered or not, or a bare meter. Holds what is true, what was last reported, and makes
//! the component objects of status frames. Which fields appear is read off the captured status of the model.

mod measured;

use crate::firmware::{Firmware, InnerId, MinuteReport};
use crate::load::{Load, LoadKind};
use crate::meter::{Flow, Meter};
use crate::number::number;
use crate::rng::Rng;
use crate::time::Timestamp;
use measured::{Measured, ReportedEnergy, ZeroPower};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::time::Duration;

/// A power change below this and below [`REPORT_PERCENT`] is not worth a frame. The real threshold is not
/// documented; these reproduce the captured cadence.
const REPORT_MW_MIN: i64 = 500;
const REPORT_PERCENT: i64 = 5;

/// A component with an output that can be switched, or one that only measures.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OutletKind {
    Switch,
    MeterOnly,
}

/// An output that will turn over by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    started_at: Timestamp,
    duration: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    key: String,
    number: u64,
    kind: OutletKind,
    output: bool,
    source: Cow<'static, str>,
    timer: Option<Timer>,
    measured: Option<Measured>,
    /// Tenths of a degree; `None` where the model shows none.
    temperature_dc: Option<i64>,
    status_has_id: bool,
}

impl Outlet {
    /// The outlet behind component `key` of a captured status; `None` if that component is no outlet.
    pub(crate) fn from_status(
        key: &str,
        status: &Value,
        solar: bool,
        now: Timestamp,
        rng: &mut Rng,
    ) -> Option<Self> {
        let (type_name, number) = key.split_once(':')?;
        let kind = match type_name {
            "switch" => OutletKind::Switch,
            "pm1" => OutletKind::MeterOnly,
            _ => return None,
        };
        let number = number.parse().ok()?;
        let has = |field: &str| status.get(field).is_some();
        let measured = has("apower").then(|| {
            let total = |field: &str| {
                status
                    .pointer(&format!("/{field}/total"))
                    .and_then(Value::as_f64)
                    .unwrap_or(0.0)
            };
            let kind = match rng.below(8) {
                _ if solar => LoadKind::Solar,
                0..=4 => LoadKind::Treatment,
                5 => LoadKind::Cooler,
                _ => LoadKind::Standby,
            };
            let captured_volts = status.get("voltage").and_then(Value::as_f64).unwrap_or(230.0);
            let nominal_mv = if captured_volts > 20.0 && captured_volts < 160.0 {
                120_000
            } else {
                231_000
            };
            let power_factor_percent = if solar { 99 } else { rng.between(62, 99) };
            Measured {
                load: Load::new(kind, now, rng),
                // Where the captured counter stood, and some history of this device's own.
                meter: Meter::new(
                    now,
                    total("aenergy") + rng.below(250_000) as f64 / 1000.0,
                    total("ret_aenergy"),
                ),
                nominal_mv,
                voltage_mv: nominal_mv + rng.between(-2_500, 2_500),
                frequency_mhz: 50_000 + 10 * rng.between(-4, 4),
                power_factor_percent,
                has_frequency: has("freq"),
                has_power_factor: has("pf"),
                has_returned: has("ret_aenergy"),
                reported_mw: 0,
                reported_voltage_mv: 0,
                reported_energy: ReportedEnergy::default(),
                zero_power: ZeroPower::Told,
            }
        });
        let captured_on = status.get("output").and_then(Value::as_bool).unwrap_or(true);
        let mut outlet = Self {
            key: key.to_owned(),
            number,
            kind,
            output: kind == OutletKind::MeterOnly || captured_on || rng.chance(0.8),
            source: Cow::Borrowed("init"),
            timer: None,
            measured,
            temperature_dc: has("temperature").then(|| rng.between(280, 420)),
            status_has_id: has("id"),
        };
        outlet.apply_power(now);
        Some(outlet)
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) const fn kind(&self) -> OutletKind {
        self.kind
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.output
    }

    pub(crate) const fn is_metered(&self) -> bool {
        self.measured.is_some()
    }

    /// When the load or the timer next does something by itself.
    pub(crate) fn next_wakeup(&self) -> Timestamp {
        let step = self
            .measured
            .as_ref()
            .map_or(Timestamp::NEVER, |measured| measured.load.next_step());
        let timer = self
            .timer
            .map_or(Timestamp::NEVER, |timer| timer.started_at.plus(timer.duration));
        step.min(timer)
    }

    /// Takes every step of the load due by `now` at the moment it was due, and counts energy up to `now`.
    pub(crate) fn advance(&mut self, now: Timestamp, rng: &mut Rng) {
        let output = self.output;
        let Some(measured) = &mut self.measured else {
            return;
        };
        while measured.load.next_step() <= now {
            let at = measured.load.next_step();
            measured.load.step(rng);
            measured
                .meter
                .set_power(at, if output { measured.load.power_mw() } else { 0 });
            let voltage = measured.voltage_mv + rng.between(-400, 400);
            measured.voltage_mv = voltage.clamp(measured.nominal_mv - 6_000, measured.nominal_mv + 6_000);
            measured.frequency_mhz = 50_000 + 10 * rng.between(-5, 5);
        }
        measured.meter.advance(now);
    }

    /// The device had no power until `now`: nothing was counted, the load starts anew.
    pub(crate) fn restart(&mut self, now: Timestamp, rng: &mut Rng) {
        self.source = Cow::Borrowed("init");
        self.timer = None;
        if let Some(measured) = &mut self.measured {
            measured.meter.skip_to(now);
            measured.load.restart(now, rng);
        }
        self.apply_power(now);
    }

    /// Switches. Returns the changed fields, or `None` if nothing changed.
    pub(crate) fn switch(
        &mut self,
        now: Timestamp,
        on: bool,
        source: &'static str,
        toggle_after: Option<Duration>,
        firmware: &Firmware,
        rng: &mut Rng,
    ) -> Option<Map<String, Value>> {
        let turned = self.output != on;
        let had_timer = self.timer.is_some();
        if !turned && !had_timer && toggle_after.is_none() {
            return None;
        }
        self.output = on;
        self.source = Cow::Borrowed(source);
        self.timer = toggle_after.map(|duration| Timer {
            started_at: now,
            duration,
        });
        if turned {
            if let (true, Some(measured)) = (on, &mut self.measured) {
                measured.load.restart(now, rng);
            }
            self.apply_power(now);
        }
        let mut fields = self.delta(firmware);
        fields.insert("output".into(), on.into());
        fields.insert("source".into(), source.into());
        match self.timer {
            Some(timer) => timer.write(&mut fields),
            None if had_timer => {
                fields.insert("timer_started_at".into(), Value::Null);
                fields.insert("timer_duration".into(), Value::Null);
            }
            None => {}
        }
        if let (true, Some(measured)) = (turned, &mut self.measured) {
            match (on, firmware.loses_zero_power()) {
                (true, _) => measured.zero_power = ZeroPower::Told,
                (false, true) => measured.zero_power = ZeroPower::Owed,
                (false, false) => measured.write_zero_power(&mut fields),
            }
        }
        Some(fields)
    }

    /// Whether the timer has run out.
    pub(crate) fn timer_is_due(&self, now: Timestamp) -> bool {
        self.timer
            .is_some_and(|timer| timer.started_at.plus(timer.duration) <= now)
    }

    /// Whether power moved far enough from what was last reported.
    pub(crate) fn power_report_is_due(&self) -> bool {
        self.measured.as_ref().is_some_and(|measured| {
            let moved = (measured.meter.power_mw() - measured.reported_mw).abs();
            measured.zero_power == ZeroPower::Told
                && moved >= REPORT_MW_MIN
                && moved * 100 >= measured.reported_mw.abs() * REPORT_PERCENT
        })
    }

    /// Power, current and voltage as a delta; marks them as reported.
    pub(crate) fn power_delta(&mut self, firmware: &Firmware) -> Option<Map<String, Value>> {
        let mut fields = self.delta(firmware);
        let measured = self.measured.as_mut()?;
        measured.write_power(&mut fields);
        measured.mark_power_reported();
        Some(fields)
    }

    /// As [`Outlet::power_delta`], with a voltage that surely differs from the last: for a fleet that must send
    /// a given number of real changes a second.
    pub(crate) fn forced_delta(&mut self, firmware: &Firmware) -> Option<Map<String, Value>> {
        let measured = self.measured.as_mut()?;
        // A tenth of a volt is the last printed digit.
        let printed = (measured.reported_voltage_mv + 50) / 100 * 100;
        measured.voltage_mv = if printed >= measured.nominal_mv {
            printed - 100
        } else {
            printed + 100
        };
        self.power_delta(firmware)
    }

    /// The report of the full minute; `None` if its counters have been reported already, after a reset.
    pub(crate) fn minute_delta(&mut self, now: Timestamp, firmware: &Firmware) -> Option<Map<String, Value>> {
        let mut fields = self.delta(firmware);
        let measured = self.measured.as_mut()?;
        let minute_ts = firmware.minute_ts(now.minute_start().as_seconds());
        if measured.reported_energy.minute_ts == minute_ts {
            return None;
        }
        measured.write_energy(&mut fields, minute_ts);
        measured.mark_energy_reported(minute_ts);
        if firmware.minute_report() == MinuteReport::AllValues {
            measured.write_power(&mut fields);
            measured.write_extras(&mut fields, minute_ts);
            measured.mark_power_reported();
        }
        Some(fields)
    }

    /// Lets the temperature follow the power. Returns the changed field, or `None` if it stayed.
    pub(crate) fn drift_temperature(
        &mut self,
        firmware: &Firmware,
        rng: &mut Rng,
    ) -> Option<Map<String, Value>> {
        let watts = self
            .measured
            .as_ref()
            .map_or(0, |measured| measured.meter.power_mw().abs() / 1000);
        let current = self.temperature_dc?;
        let target = 310 + watts / 10;
        let moved = match target - current {
            gap @ -4..=4 => gap.signum() * rng.between(0, 1),
            gap => gap.signum() * rng.between(1, 4),
        };
        if moved == 0 {
            return None;
        }
        self.temperature_dc = Some(current + moved);
        let mut fields = self.delta(firmware);
        fields.insert("temperature".into(), temperature(current + moved));
        Some(fields)
    }

    /// Sets the counters back. Returns what they showed before, as `Switch.ResetCounters` answers.
    pub(crate) fn reset_counters(&mut self, now: Timestamp, flows: &[Flow]) -> Map<String, Value> {
        let mut before = Map::new();
        if let Some(measured) = &mut self.measured {
            measured.meter.advance(now);
            for flow in flows {
                let (name, present) = match flow {
                    Flow::All => ("aenergy", true),
                    Flow::Returned => ("ret_aenergy", measured.has_returned),
                };
                if present {
                    let shown = measured.meter.to_json(*flow, 0);
                    before.insert(name.into(), json!({"total": shown["total"].clone()}));
                    measured.meter.reset(now, *flow);
                }
            }
        }
        before
    }

    /// The energy counters alone, as reported after a reset; `None` if a server knows them as they are.
    pub(crate) fn energy_delta(&mut self, now: Timestamp, firmware: &Firmware) -> Option<Map<String, Value>> {
        let mut fields = self.delta(firmware);
        let measured = self.measured.as_mut()?;
        let minute_ts = firmware.minute_ts(now.minute_start().as_seconds());
        let before = measured.reported_energy;
        measured.write_energy(&mut fields, minute_ts);
        measured.mark_energy_reported(minute_ts);
        if measured.has_returned {
            fields.insert(
                "ret_aenergy".into(),
                measured.meter.to_json(Flow::Returned, minute_ts),
            );
        }
        let known = before.empty && before == measured.reported_energy;
        (!known).then_some(fields)
    }

    /// Marks everything as reported: a full status went out.
    pub(crate) fn mark_reported(&mut self, now: Timestamp, firmware: &Firmware) {
        if let Some(measured) = &mut self.measured {
            measured.mark_power_reported();
            measured.mark_energy_reported(firmware.minute_ts(now.minute_start().as_seconds()));
        }
    }

    /// Overlays the whole component onto its captured status.
    pub(crate) fn write_status(&self, now: Timestamp, firmware: &Firmware, fields: &mut Map<String, Value>) {
        if self.kind == OutletKind::Switch {
            fields.insert("output".into(), self.output.into());
            fields.insert("source".into(), self.source.as_ref().into());
            fields.remove("timer_started_at");
            fields.remove("timer_duration");
            if let Some(timer) = self.timer {
                timer.write(fields);
            }
        }
        if let Some(measured) = &self.measured {
            let minute_ts = firmware.minute_ts(now.minute_start().as_seconds());
            measured.write_energy(fields, minute_ts);
            measured.write_power(fields);
            measured.write_extras(fields, minute_ts);
        }
        if let Some(temperature_dc) = self.temperature_dc {
            fields.insert("temperature".into(), temperature(temperature_dc));
        }
    }

    /// The zero watts that old firmware sends late; `None` if none are owed, or a server knows them.
    pub(crate) fn zero_power_delta(&mut self, firmware: &Firmware) -> Option<Map<String, Value>> {
        let mut fields = self.delta(firmware);
        let measured = self
            .measured
            .as_mut()
            .filter(|measured| measured.zero_power == ZeroPower::Owed)?;
        let known = measured.reported_mw.abs() < REPORT_MW_MIN;
        measured.write_zero_power(&mut fields);
        (!known).then_some(fields)
    }

    pub(crate) fn owes_zero_power(&self) -> bool {
        self.measured
            .as_ref()
            .is_some_and(|measured| measured.zero_power == ZeroPower::Owed)
    }

    /// The debt is never paid.
    pub(crate) fn lose_zero_power(&mut self) {
        if let Some(measured) = &mut self.measured {
            measured.zero_power = ZeroPower::Lost;
        }
    }

    fn apply_power(&mut self, now: Timestamp) {
        let output = self.output;
        if let Some(measured) = &mut self.measured {
            measured
                .meter
                .set_power(now, if output { measured.load.power_mw() } else { 0 });
        }
    }

    fn delta(&self, firmware: &Firmware) -> Map<String, Value> {
        let mut fields = Map::new();
        if self.status_has_id && firmware.delta_inner_id() == InnerId::Present {
            fields.insert("id".into(), self.number.into());
        }
        fields
    }
}

impl Timer {
    fn write(self, fields: &mut Map<String, Value>) {
        fields.insert("timer_started_at".into(), crate::number::seconds(self.started_at));
        fields.insert("timer_duration".into(), number(self.duration.as_secs_f64(), 3));
    }
}

/// A temperature in both scales, from tenths of a degree Celsius.
pub(crate) fn temperature(tenths: i64) -> Value {
    let celsius = tenths as f64 / 10.0;
    json!({"tC": number(celsius, 1), "tF": number(celsius * 1.8 + 32.0, 1)})
}
