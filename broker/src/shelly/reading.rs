//! Measurements out of a merged status: what the store keeps as rows and the metrics add up.
//!
//! A reading is taken from the *merged* component, so a frame that carries only `apower` still yields a complete
//! one. What the device never told is `None`; a missing output is not "off".

use serde::Serialize;
use serde_json::Value;

use super::power::DerivedPower;
use super::status::{COMPONENTS_MAX, Object};

/// Component types that measure or switch. `emdata` and `em1data` belong to the channel of their `em` and `em1`.
const CHANNEL_TYPES: &[&str] = &[
    "cct",
    "cover",
    "em",
    "em1",
    "em1data",
    "emdata",
    "light",
    "pm1",
    "rgb",
    "rgbcct",
    "rgbw",
    "switch",
    "temperature",
];

/// The phases of a three-phase meter: the suffix of the channel and the prefix of its fields.
const PHASES: &[(&str, &str)] = &[(".a", "a_"), (".b", "b_"), (".c", "c_")];

/// Most counters whose last value is remembered: three phases and the total of as many meters as fit a device.
const BASELINES_MAX: usize = COMPONENTS_MAX;

/// One channel's measurements at one moment. All finite.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reading {
    /// The component key (`switch:0`, `pm1:0`, `em:0`), for a phase of a meter with its letter (`em:0.a`).
    pub channel: String,
    /// Whether the output is on; `None` for meters, and as long as the device has not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<bool>,
    /// Active power, W; negative when feeding in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_w: Option<f64>,
    /// Voltage, V.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voltage_v: Option<f64>,
    /// Current, A.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_a: Option<f64>,
    /// The device's own counter of energy taken, Wh. Starts again at zero whenever the device feels like it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_wh: Option<f64>,
    /// Energy taken since the reading before, Wh, never negative; `None` at the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumed_wh: Option<f64>,
    /// Temperature of the component, °C.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<f64>,
    /// True if `power_w` is a zero the device did not send but an output that went off implies.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub power_derived: bool,
}

/// What is told of the device as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Vitals<'a> {
    /// Firmware version as `Shelly.GetDeviceInfo` gave it.
    pub firmware: Option<&'a str>,
    /// Wi-Fi signal strength, dBm.
    pub rssi_dbm: Option<f64>,
}

/// The Wi-Fi signal strength in a status, dBm.
pub(super) fn rssi_dbm(components: &Object) -> Option<f64> {
    number(components.get("wifi")?.as_object()?, "rssi")
}

/// The last value of each energy counter, from which consumption is told. Survives the loss of a socket.
#[derive(Clone, Debug, Default)]
pub(super) struct Baselines {
    /// Sorted by nothing: a device has a handful.
    last: Vec<(Box<str>, f64)>,
}

impl Baselines {
    /// The counters as they stand in a restored state, so that what was used meanwhile is not lost.
    pub(super) fn of(components: &Object) -> Self {
        let mut baselines = Self::default();
        take(components, components, &DerivedPower::default(), &mut baselines);
        baselines
    }

    /// What was consumed to reach `now_wh`; `None` for a first value. Also whether the counter was reset.
    fn consume(&mut self, channel: &str, now_wh: f64) -> (Option<f64>, bool) {
        match self.last.iter_mut().find(|(known, _)| **known == *channel) {
            Some((_, last)) => {
                let used = now_wh - *last;
                *last = now_wh;
                // A counter that went backwards was reset at an unknown moment: nothing can be told of the time between.
                if used < 0.0 {
                    (Some(0.0), true)
                } else {
                    (Some(used).filter(|wh| wh.is_finite()), false)
                }
            }
            None => {
                if self.last.len() < BASELINES_MAX {
                    self.last.push((channel.into(), now_wh));
                }
                (None, false)
            }
        }
    }
}

/// The readings of all channels that `delta` touches, from the merged `components`; and how many counters went back.
pub(super) fn take(
    components: &Object,
    delta: &Object,
    derived: &DerivedPower,
    baselines: &mut Baselines,
) -> (Vec<Reading>, u32) {
    let mut taker = Taker {
        components,
        derived,
        baselines,
        readings: Vec::new(),
        resets: 0,
    };
    for key in delta.keys() {
        let Some((kind, id)) = key.split_once(':') else {
            continue;
        };
        if !CHANNEL_TYPES.contains(&kind) {
            continue;
        }
        match kind {
            "em" => taker.meter(id),
            // Its data may come in the same delta as the meter: one reading for both.
            "emdata" if !delta.contains_key(&format!("em:{id}")) => taker.meter(id),
            "em1" => taker.single_phase_meter(id),
            "em1data" if !delta.contains_key(&format!("em1:{id}")) => taker.single_phase_meter(id),
            "emdata" | "em1data" => {}
            _ => taker.component(key),
        }
    }
    (taker.readings, taker.resets)
}

struct Taker<'a> {
    components: &'a Object,
    derived: &'a DerivedPower,
    baselines: &'a mut Baselines,
    readings: Vec<Reading>,
    resets: u32,
}

impl<'a> Taker<'a> {
    fn object(&self, key: &str) -> Option<&'a Object> {
        self.components.get(key)?.as_object()
    }

    fn component(&mut self, key: &str) {
        let Some(component) = self.object(key) else { return };
        let temperature = component
            .get("temperature")
            .and_then(Value::as_object)
            .unwrap_or(component);
        self.push(Reading {
            channel: key.to_owned(),
            output: component.get("output").and_then(Value::as_bool),
            power_w: number(component, "apower"),
            voltage_v: number(component, "voltage"),
            current_a: number(component, "current"),
            energy_wh: component
                .get("aenergy")
                .and_then(Value::as_object)
                .and_then(|e| number(e, "total")),
            temperature_c: number(temperature, "tC"),
            power_derived: self.derived.contains(key),
            consumed_wh: None,
        });
    }

    fn meter(&mut self, id: &str) {
        let channel = format!("em:{id}");
        let live = self.object(&channel);
        let data = self.object(&format!("emdata:{id}"));
        for (suffix, prefix) in PHASES {
            self.push(Reading {
                channel: format!("{channel}{suffix}"),
                power_w: live.and_then(|c| number(c, &format!("{prefix}act_power"))),
                voltage_v: live.and_then(|c| number(c, &format!("{prefix}voltage"))),
                current_a: live.and_then(|c| number(c, &format!("{prefix}current"))),
                energy_wh: data.and_then(|c| number(c, &format!("{prefix}total_act_energy"))),
                ..Reading::default()
            });
        }
        self.push(Reading {
            channel,
            power_w: live.and_then(|c| number(c, "total_act_power")),
            current_a: live.and_then(|c| number(c, "total_current")),
            energy_wh: data.and_then(|c| number(c, "total_act")),
            ..Reading::default()
        });
    }

    fn single_phase_meter(&mut self, id: &str) {
        let channel = format!("em1:{id}");
        let live = self.object(&channel);
        let data = self.object(&format!("em1data:{id}"));
        self.push(Reading {
            power_w: live.and_then(|c| number(c, "act_power")),
            voltage_v: live.and_then(|c| number(c, "voltage")),
            current_a: live.and_then(|c| number(c, "current")),
            energy_wh: data.and_then(|c| number(c, "total_act_energy")),
            channel,
            ..Reading::default()
        });
    }

    fn push(&mut self, mut reading: Reading) {
        if let Some(energy_wh) = reading.energy_wh {
            let (consumed_wh, reset) = self.baselines.consume(&reading.channel, energy_wh);
            reading.consumed_wh = consumed_wh;
            self.resets += u32::from(reset);
        }
        let says_something = reading.output.is_some()
            || [
                reading.power_w,
                reading.voltage_v,
                reading.current_a,
                reading.energy_wh,
                reading.temperature_c,
            ]
            .iter()
            .any(Option::is_some);
        if says_something {
            self.readings.push(reading);
        }
    }
}

/// A measurement: any JSON number, as a float. Words, booleans and absence are no measurement, never zero.
fn number(component: &Object, field: &str) -> Option<f64> {
    component.get(field)?.as_f64().filter(|number| number.is_finite())
}
