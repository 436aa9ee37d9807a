//! What one subscriber saw, counted so that it can be compared with what was sent. Pure: messages and the time come in.
//!
//! A `device-update` has one of two causes: a frame of the device, which in the demo always carries the moment of its
//! emission (`x_sent`), or the broker itself, which derives a zero that a device forgot to send or learns from an answer
//! what it had asked. Told apart, both counts must come out exactly.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The stamp that emulated devices put into their frames.
const STAMP: &str = "x_sent";

/// Longest latency that is told from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Devices whose last values are shown; more are counted all the same.
const DEVICES_SHOWN_MAX: usize = 100_000;

/// The parts of a `device-update` that are looked at.
#[derive(Deserialize)]
struct Update<'a> {
    #[serde(borrow)]
    device: Cow<'a, str>,
    online: bool,
    #[serde(borrow)]
    changed: HashMap<Cow<'a, str>, &'a RawValue>,
    state: Stamped,
    #[serde(default)]
    derived: Vec<String>,
    #[serde(default)]
    readings: Vec<Reading>,
}

#[derive(Deserialize)]
struct Stamped {
    x_sent: Option<Sent>,
}

#[derive(Deserialize)]
struct Sent {
    us: u64,
}

#[derive(Deserialize)]
struct Reading {
    channel: String,
    output: Option<bool>,
    power_w: Option<f64>,
}

#[derive(Deserialize)]
struct Offline<'a> {
    #[serde(borrow)]
    device: Cow<'a, str>,
}

/// What caused an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Broker,
    Frame,
}

fn cause(update: &Update<'_>, derived_before: &[String]) -> Cause {
    match update.changed.get(STAMP) {
        // The broker asked for the status and got one without a stamp.
        Some(stamp) if stamp.get() == "null" => Cause::Broker,
        Some(_) => Cause::Frame,
        // An answer told make or firmware.
        None if update.changed.is_empty() => Cause::Broker,
        // A zero was derived.
        None if update.derived.iter().any(|key| !derived_before.contains(key)) => Cause::Broker,
        // A second frame within the same microsecond.
        None => Cause::Frame,
    }
}

/// A device as last heard of.
#[derive(Debug, Default)]
struct Seen {
    online: bool,
    derived: Vec<String>,
    channels: BTreeMap<String, (Option<bool>, Option<f64>)>,
}

/// One subscriber's count.
#[derive(Debug)]
pub(crate) struct Tally {
    /// `device-update` messages, by their cause.
    pub(crate) from_frames: u64,
    pub(crate) by_broker: u64,
    /// Readings within them.
    pub(crate) readings: u64,
    /// `device-event` and `device-offline-status` messages.
    pub(crate) events: u64,
    pub(crate) offline: u64,
    /// Messages that were announced as missing.
    pub(crate) missed: u64,
    /// Messages that are not what they should be.
    pub(crate) unreadable: u64,
    /// From the frame's making in the device to the message in the subscriber's hands, in microseconds.
    pub(crate) latency_us: Histogram<u64>,
    /// What lost connections did.
    pub(crate) returned: Return,
    devices: HashMap<String, Seen>,
    /// The last message to the lobby.
    pub(crate) lobby: Option<String>,
}

/// What lost connections did to a subscriber of the devices' room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Return {
    pub(crate) returns: u64,
    /// Returns after which nothing was missing.
    pub(crate) continued: u64,
    /// Messages that were published meanwhile.
    pub(crate) missed: u64,
    /// Those of them that did not come afterwards.
    pub(crate) lost: u64,
}

/// What all devices of a tenant add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Floor {
    pub(crate) devices: usize,
    pub(crate) online: usize,
    pub(crate) on: usize,
    pub(crate) off: usize,
    pub(crate) watts: f64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        // The bounds are constants for which this cannot fail; without a histogram there would only be no percentiles.
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Self {
            from_frames: 0,
            by_broker: 0,
            readings: 0,
            events: 0,
            offline: 0,
            missed: 0,
            unreadable: 0,
            latency_us: latency_us.expect("1 is above 0, the maximum above 2, 3 digits are below 6"),
            returned: Return::default(),
            devices: HashMap::new(),
            lobby: None,
        }
    }

    /// All `device-update` messages.
    pub(crate) fn updates(&self) -> u64 {
        self.from_frames + self.by_broker
    }

    /// All messages of the devices' room.
    pub(crate) fn messages(&self) -> u64 {
        self.updates() + self.events + self.offline
    }

    /// A message of the devices' room that arrived at `now_us`, if the devices' clock is known.
    pub(crate) fn hear(&mut self, event: &str, payload: &[u8], now_us: Option<u64>) {
        match event {
            "device-update" => match serde_json::from_slice::<Update<'_>>(payload) {
                Ok(update) => self.update(update, now_us),
                Err(_) => self.unreadable += 1,
            },
            "device-offline-status" => {
                self.offline += 1;
                match serde_json::from_slice::<Offline<'_>>(payload) {
                    Ok(offline) => {
                        if let Some(seen) = self.devices.get_mut(&*offline.device) {
                            seen.online = false;
                        }
                    }
                    Err(_) => self.unreadable += 1,
                }
            }
            "device-event" => self.events += 1,
            _ => {}
        }
    }

    fn update(&mut self, update: Update<'_>, now_us: Option<u64>) {
        self.readings += update.readings.len() as u64;
        let seen = self.devices.get(&*update.device);
        let caused = cause(&update, seen.map_or(&[][..], |seen| &seen.derived));
        match caused {
            Cause::Broker => self.by_broker += 1,
            Cause::Frame => {
                self.from_frames += 1;
                if let (Some(sent), Some(now_us)) = (&update.state.x_sent, now_us) {
                    self.latency_us
                        .saturating_record(now_us.saturating_sub(sent.us).max(1));
                }
            }
        }
        if seen.is_none() && self.devices.len() >= DEVICES_SHOWN_MAX {
            return;
        }
        let seen = self.devices.entry(update.device.into_owned()).or_default();
        seen.online = update.online;
        seen.derived = update.derived;
        for reading in update.readings {
            if reading.output.is_some() || reading.power_w.is_some() {
                seen.channels
                    .insert(reading.channel, (reading.output, reading.power_w));
            }
        }
    }

    /// Every device that was heard of.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &str> {
        self.devices.keys().map(String::as_str)
    }

    /// Those that are there.
    pub(crate) fn online(&self) -> impl Iterator<Item = &str> {
        self.devices
            .iter()
            .filter(|(_, seen)| seen.online)
            .map(|(device, _)| device.as_str())
    }

    /// Whether a switch is off and yet draws power, as old firmware has it: the broker will derive its zero.
    pub(crate) fn expects_zero(&self) -> bool {
        let mut channels = self.devices.values().flat_map(|seen| seen.channels.values());
        channels.any(|(output, watts)| *output == Some(false) && watts.is_some_and(|watts| watts != 0.0))
    }

    /// The sum over all devices; what is offline draws nothing as far as anybody knows.
    pub(crate) fn floor(&self) -> Floor {
        let mut floor = Floor {
            devices: self.devices.len(),
            ..Floor::default()
        };
        for seen in self.devices.values().filter(|seen| seen.online) {
            floor.online += 1;
            for (output, watts) in seen.channels.values() {
                floor.watts += watts.unwrap_or(0.0);
                match output {
                    Some(true) => floor.on += 1,
                    Some(false) => floor.off += 1,
                    None => {}
                }
            }
        }
        floor
    }
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    #[serde(rename = "p99.9")]
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
}

impl Percentiles {
    /// Of all subscribers together; `None` before the first message.
    pub(crate) fn of<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Option<Self> {
        let all = tallies.fold(None::<Histogram<u64>>, |sum, tally| match sum {
            None => Some(tally.latency_us.clone()),
            Some(mut sum) => {
                // Equal bounds: nothing can be out of range.
                let _ = sum.add(&tally.latency_us);
                Some(sum)
            }
        });
        let all = all.filter(|all| !all.is_empty())?;
        Some(Self {
            count: all.len(),
            p50: all.value_at_quantile(0.5),
            p90: all.value_at_quantile(0.9),
            p99: all.value_at_quantile(0.99),
            p99_9: all.value_at_quantile(0.999),
            max: all.max(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn hear(tally: &mut Tally, changed: Value, sent_us: Option<u64>, derived: &[&str], now_us: u64) {
        let mut state = json!({"switch:0": {"output": true}});
        if let Some(us) = sent_us {
            state["x_sent"] = json!({"us": us});
        }
        let update = json!({
            "device": "A1", "online": true, "changed": changed, "state": state, "derived": derived,
            "readings": [{"channel": "switch:0", "output": true, "power_w": 40.5}],
        });
        tally.hear("device-update", update.to_string().as_bytes(), Some(now_us));
    }

    #[test]
    fn frames_are_told_from_what_the_broker_says_of_itself() {
        let mut tally = Tally::new();
        hear(
            &mut tally,
            json!({"x_sent": {"us": 5}, "switch:0": {"output": true}}),
            Some(5),
            &[],
            105,
        );
        hear(&mut tally, json!({}), Some(5), &[], 110);
        hear(
            &mut tally,
            json!({"switch:0": {"apower": 0}}),
            Some(5),
            &["switch:0"],
            120,
        );
        hear(&mut tally, json!({"switch:0": {"apower": 3}}), Some(5), &[], 130);
        hear(&mut tally, json!({"x_sent": null}), None, &[], 140);
        assert_eq!((tally.from_frames, tally.by_broker, tally.updates()), (2, 3, 5));
        assert_eq!((tally.readings, tally.unreadable), (5, 0));
        let latency = Percentiles::of([&tally].into_iter()).unwrap();
        assert_eq!((latency.count, latency.max), (2, 125));
    }

    #[test]
    fn a_floor_adds_up_who_is_there() {
        let mut tally = Tally::new();
        hear(&mut tally, json!({"x_sent": {"us": 1}}), Some(1), &[], 2);
        let floor = Floor {
            devices: 1,
            online: 1,
            on: 1,
            off: 0,
            watts: 40.5,
        };
        assert_eq!(tally.floor(), floor);
        tally.hear("device-offline-status", br#"{"device":"A1"}"#, None);
        assert_eq!((tally.floor().online, tally.floor().watts), (0, 0.0));
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_not_believed() {
        let mut tally = Tally::new();
        tally.hear("device-update", b"{}", Some(1));
        tally.hear("device-update", b"nonsense", Some(1));
        assert_eq!((tally.unreadable, tally.updates()), (2, 0));
        assert_eq!(Percentiles::of([&tally].into_iter()), None);
    }
}
