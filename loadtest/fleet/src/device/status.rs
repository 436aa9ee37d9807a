//! The whole status, configuration and info of a device: the captured ones, with what is its own laid over.

use super::{Device, Mode};
use crate::number::{number, seconds};
use crate::outlet::temperature;
use crate::rng::Rng;
use crate::time::Timestamp;
use serde_json::{Map, Value, json};

/// A component that only measures its surroundings.
#[derive(Clone, Debug)]
pub(super) struct Sensor {
    key: String,
    quantity: Quantity,
    /// Tenths of a degree or of a percent.
    tenths: i64,
    /// What was last told; `None` before the first time.
    reported: Option<i64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Quantity {
    Temperature,
    Humidity,
}

impl Sensor {
    pub(super) fn all_of(status: &Map<String, Value>, rng: &mut Rng) -> Vec<Self> {
        let mut sensors: Vec<_> = status
            .iter()
            .filter_map(|(key, fields)| {
                let (quantity, field) = match key.split_once(':')?.0 {
                    "temperature" => (Quantity::Temperature, "tC"),
                    "humidity" => (Quantity::Humidity, "rh"),
                    _ => return None,
                };
                let captured = fields.get(field)?.as_f64()?;
                Some((key.clone(), quantity, (captured * 10.0) as i64))
            })
            .collect();
        sensors.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        sensors
            .into_iter()
            .map(|(key, quantity, captured)| Self {
                key,
                quantity,
                tenths: captured + rng.between(-20, 20),
                reported: None,
            })
            .collect()
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Moves a little, or not.
    pub(super) fn drift(&mut self, rng: &mut Rng) {
        let (low, high) = match self.quantity {
            Quantity::Temperature => (-100, 400),
            Quantity::Humidity => (50, 950),
        };
        self.tenths = (self.tenths + rng.between(-3, 3)).clamp(low, high);
    }

    /// The reading as a delta, if it is not what was last told; marks it as told.
    pub(super) fn delta(&mut self) -> Option<Map<String, Value>> {
        let news = self.reported != Some(self.tenths);
        self.mark_reported();
        news.then(|| {
            let mut fields = Map::new();
            self.write(&mut fields);
            fields
        })
    }

    pub(super) fn mark_reported(&mut self) {
        self.reported = Some(self.tenths);
    }

    fn write(&self, fields: &mut Map<String, Value>) {
        match self.quantity {
            Quantity::Temperature => {
                if let Value::Object(both) = temperature(self.tenths) {
                    fields.extend(both);
                }
            }
            Quantity::Humidity => {
                fields.insert("rh".into(), number(self.tenths as f64 / 10.0, 1));
            }
        }
    }
}

impl Device {
    /// `params.ts`: the time of day, or, before the clock is set, seconds since boot.
    pub(super) fn ts(&self, now: Timestamp) -> Value {
        if self.is_synced(now) {
            seconds(now)
        } else {
            number(now.since(self.booted_at).as_secs_f64(), 2)
        }
    }

    pub(super) fn is_synced(&self, now: Timestamp) -> bool {
        self.synced_at <= now
    }

    /// What `Shelly.GetStatus` answers and a full status carries.
    pub(crate) fn full_status(&mut self, now: Timestamp) -> Map<String, Value> {
        self.advance_outlets(now);
        let mut status = Value::Object(self.model.status.clone());
        self.identity.rewrite(&mut status);
        let Value::Object(mut status) = status else {
            return Map::new();
        };
        for outlet in &self.outlets {
            if let Some(Value::Object(fields)) = status.get_mut(outlet.key()) {
                outlet.write_status(now, &self.firmware, fields);
            }
        }
        for sensor in &self.sensors {
            if let Some(Value::Object(fields)) = status.get_mut(sensor.key()) {
                sensor.write(fields);
            }
        }
        if let Some(Value::Object(sys)) = status.get_mut("sys") {
            self.write_sys(now, sys);
        }
        if let Some(Value::Object(wifi)) = status.get_mut("wifi") {
            wifi.insert("rssi".into(), self.rssi.into());
        }
        if let Some(Value::Object(ws)) = status.get_mut("ws") {
            ws.insert("connected".into(), self.linked.into());
        }
        status
    }

    fn write_sys(&self, now: Timestamp, sys: &mut Map<String, Value>) {
        for (key, value) in self.clock_fields(now) {
            // Old firmware has no last_sync_ts, Wall Displays no time: only what was captured is written.
            if sys.contains_key(&key) {
                sys.insert(key, value);
            }
        }
        sys.insert("uptime".into(), now.since(self.booted_at).as_secs().into());
        sys.insert("cfg_rev".into(), self.cfg_rev.into());
        sys.insert("restart_required".into(), self.restart_required.into());
        if sys.contains_key("reset_reason") {
            sys.insert("reset_reason".into(), self.reset_reason.into());
        }
        if let Some(period) = self.wakeup_period() {
            sys.insert("wakeup_period".into(), period.as_secs().into());
            sys.insert(
                "wakeup_reason".into(),
                json!({"boot": "deepsleep_wake", "cause": "periodic"}),
            );
        }
    }

    /// The fields of `sys` that depend on the clock; null while it is not set.
    pub(super) fn clock_fields(&self, now: Timestamp) -> Map<String, Value> {
        let captured = |field| self.model.status.get("sys").and_then(|sys| sys.get(field));
        let synced = self.is_synced(now);
        let null_unless = |value: Value| if synced { value } else { Value::Null };
        let offset = captured("utc_offset").and_then(Value::as_i64).unwrap_or(0);
        let local = now.as_seconds().saturating_add_signed(offset);
        let mut fields = Map::new();
        if captured("time").is_some() {
            let time = format!("{:02}:{:02}", local / 3600 % 24, local / 60 % 60);
            fields.insert("time".into(), null_unless(time.into()));
        }
        fields.insert("unixtime".into(), null_unless(now.as_seconds().into()));
        if captured("last_sync_ts").is_some() {
            fields.insert(
                "last_sync_ts".into(),
                null_unless(self.synced_at.as_seconds().into()),
            );
        }
        fields
    }

    /// What a Wall Display says first.
    pub(super) fn partial_greeting(&self) -> Map<String, Value> {
        let mut params = Map::new();
        for outlet in &self.outlets {
            params.insert(
                outlet.key().to_owned(),
                json!({"id": outlet.number(), "output": outlet.is_on()}),
            );
        }
        params.insert("wifi".into(), json!({"rssi": self.rssi}));
        params
    }

    /// What `Shelly.GetDeviceInfo` answers.
    pub(crate) fn device_info(&self) -> Map<String, Value> {
        let mut info = Value::Object(self.model.info.clone());
        self.identity.rewrite(&mut info);
        let Value::Object(mut info) = info else {
            return Map::new();
        };
        let realm = if self.setup.password_set {
            self.id().as_str().into()
        } else {
            Value::Null
        };
        info.insert("auth_en".into(), self.setup.password_set.into());
        info.insert("auth_domain".into(), realm);
        if let Some(firmware) = &self.setup.firmware {
            let date = info
                .get("fw_id")
                .and_then(Value::as_str)
                .and_then(|fw_id| fw_id.split_once('/'));
            let fw_id = format!(
                "{}/{firmware}-gemulated",
                date.map_or("20260101-000000", |(date, _)| date)
            );
            info.insert("ver".into(), firmware.as_str().into());
            info.insert("fw_id".into(), fw_id.into());
        }
        info
    }

    /// What `Shelly.GetConfig` answers.
    pub(crate) fn config(&self) -> Map<String, Value> {
        let mut config = Value::Object(self.model.config.clone());
        self.identity.rewrite(&mut config);
        let Value::Object(mut config) = config else {
            return Map::new();
        };
        let info = self.device_info();
        if let Some(Value::Object(sys)) = config.get_mut("sys") {
            sys.insert("cfg_rev".into(), self.cfg_rev.into());
            if let (Some(Value::Object(device)), Some(fw_id)) = (sys.get_mut("device"), info.get("fw_id")) {
                device.insert("fw_id".into(), fw_id.clone());
            }
        }
        if let (Mode::Outbound, Some(Value::Object(ws)), Some(server)) =
            (self.setup.mode, config.get_mut("ws"), &self.server)
        {
            ws.insert("enable".into(), true.into());
            ws.insert("server".into(), server.reveal().into());
        }
        for (key, changes) in &self.config_changes {
            overlay(config.entry(key.clone()).or_insert(Value::Null), changes.clone());
        }
        config
    }
}

/// Lays `changes` over `base`: objects merge, everything else replaces.
pub(crate) fn overlay(base: &mut Value, changes: Value) {
    match (base, changes) {
        (Value::Object(base), Value::Object(changes)) => {
            for (key, change) in changes {
                overlay(base.entry(key).or_insert(Value::Null), change);
            }
        }
        (base, changes) => *base = changes,
    }
}
