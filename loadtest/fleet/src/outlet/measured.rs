//! The measuring half of an outlet: what flows, and which of it a server has been told.

use crate::load::Load;
use crate::meter::{Flow, Meter};
use crate::number::{milli, number};
use serde_json::{Map, Value};

/// Whether a server has been told that power fell to zero with the output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ZeroPower {
    Told,
    /// Old firmware: the frame comes late.
    Owed,
    /// Old firmware: the frame got lost inside the device, and a server keeps the old power.
    Lost,
}

/// Which `aenergy` was last reported.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ReportedEnergy {
    pub(super) minute_ts: u64,
    /// All its numbers were zero.
    pub(super) empty: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) load: Load,
    pub(super) meter: Meter,
    /// The mains voltage the captured device saw: 120 V or 230 V land.
    pub(super) nominal_mv: i64,
    pub(super) voltage_mv: i64,
    pub(super) frequency_mhz: i64,
    /// Hundredths; a load's power factor hardly changes.
    pub(super) power_factor_percent: i64,
    pub(super) has_frequency: bool,
    pub(super) has_power_factor: bool,
    pub(super) has_returned: bool,
    pub(super) reported_mw: i64,
    pub(super) reported_voltage_mv: i64,
    pub(super) reported_energy: ReportedEnergy,
    pub(super) zero_power: ZeroPower,
}

impl Measured {
    pub(super) fn write_power(&self, fields: &mut Map<String, Value>) {
        let power_mw = self.meter.power_mw();
        let volts = (self.voltage_mv as f64 / 1000.0) * (self.power_factor_percent as f64 / 100.0);
        let amperes = if volts > 0.0 {
            power_mw.abs() as f64 / 1000.0 / volts
        } else {
            0.0
        };
        fields.insert("apower".into(), milli(power_mw, 1));
        fields.insert("voltage".into(), milli(self.voltage_mv, 1));
        fields.insert("current".into(), number(amperes, 3));
    }

    pub(super) fn mark_power_reported(&mut self) {
        self.reported_mw = self.meter.power_mw();
        self.reported_voltage_mv = self.voltage_mv;
        self.zero_power = ZeroPower::Told;
    }

    pub(super) fn write_energy(&self, fields: &mut Map<String, Value>, minute_ts: u64) {
        fields.insert("aenergy".into(), self.meter.to_json(Flow::All, minute_ts));
    }

    pub(super) fn mark_energy_reported(&mut self, minute_ts: u64) {
        self.reported_energy = ReportedEnergy {
            minute_ts,
            empty: self.meter.prints_as_empty(Flow::All),
        };
    }

    pub(super) fn write_zero_power(&mut self, fields: &mut Map<String, Value>) {
        fields.insert("apower".into(), 0.into());
        fields.insert("current".into(), 0.into());
        self.reported_mw = 0;
        self.zero_power = ZeroPower::Told;
    }

    /// What newer hardware also measures.
    pub(super) fn write_extras(&self, fields: &mut Map<String, Value>, minute_ts: u64) {
        if self.has_frequency {
            fields.insert("freq".into(), milli(self.frequency_mhz, 2));
        }
        if self.has_power_factor {
            let percent = if self.meter.power_mw() == 0 {
                0
            } else {
                self.power_factor_percent
            };
            fields.insert("pf".into(), number(percent as f64 / 100.0, 2));
        }
        if self.has_returned {
            fields.insert(
                "ret_aenergy".into(),
                self.meter.to_json(Flow::Returned, minute_ts),
            );
        }
    }
}
