//! Scenario files: what is connected to what, and how much is sent. TOML that people copy and change; unknown keys are errors.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::stamp::Form;

/// The scenarios that come with the program, by name.
pub(crate) const BUILT_IN: [(&str, &str); 11] = [
    ("fanout", include_str!("../scenarios/fanout.toml")),
    ("rooms", include_str!("../scenarios/rooms.toml")),
    ("pairs", include_str!("../scenarios/pairs.toml")),
    ("echo", include_str!("../scenarios/echo.toml")),
    ("slow", include_str!("../scenarios/slow.toml")),
    ("noisy", include_str!("../scenarios/noisy.toml")),
    ("growth", include_str!("../scenarios/growth.toml")),
    ("devices", include_str!("../scenarios/devices.toml")),
    ("soak", include_str!("../scenarios/soak.toml")),
    ("storm", include_str!("../scenarios/storm.toml")),
    ("idle", include_str!("../scenarios/idle.toml")),
];

/// Connections that one run may ask for.
const CONNECTIONS_MAX: u32 = 1_000_000;
/// Threads that one run may ask for.
const THREADS_MAX: u32 = 64;
/// Rooms that one connection may be asked to join: what a broker allows as it comes.
const ROOMS_A_CONNECTION_MAX: u32 = 128;
/// Plugs of one run: as many as have a port each on one source address.
const PLUGS_MAX: u32 = 20_000;
/// Messages of one burst: what a connection takes in one piece.
const BURST_MAX: u32 = 1_000;
/// Turns of `slow`, in each state.
const TURNS_MAX: u32 = 1_000;
/// Frames a second of one plug.
const PLUG_RATE_MAX: f64 = 1_000.0;
/// Who watch them.
const WATCHERS_MAX: u32 = 1_000;
/// Longest ramp, in seconds.
const RAMP_SECONDS_MAX: f64 = 600.0;
/// Longest payload, in bytes: what the reader's buffer holds, with room to spare.
const PAYLOAD_BYTES_MAX: usize = 128 * 1024;

/// One workload.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// One line for people.
    pub(crate) about: String,
    pub(crate) shape: Shape,
    #[serde(default)]
    pub(crate) load: Load,
}

/// What is connected to what.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Shape {
    /// One publisher, one room, many subscribers.
    Fanout { subscribers: u32 },
    /// Rooms of equal size. Every member subscribes and publishes, and gets its own messages too.
    Rooms { rooms: u32, members: u32 },
    /// Connections in twos; each publishes to the other alone.
    Pairs { connections: u32 },
    /// Connections in twos, in a room of their own: one asks, the other answers, and the way there and back is measured.
    Echo { pairs: u32 },
    /// Like fanout, but some subscribers stop reading, by turns.
    Slow {
        subscribers: u32,
        stalled: u32,
        /// How often they do, and as often read; the turns share the measurement's seconds.
        #[serde(default = "turns")]
        turns: u32,
    },
    /// Rooms, as measured for one tenant while another floods.
    Noisy {
        rooms: u32,
        members: u32,
        /// Messages a second that the other tenant publishes, to one room; 0 means that it is quiet.
        flood_rate: f64,
        /// So many at a time.
        #[serde(default = "one")]
        flood_burst: u32,
        /// Who listen to them.
        flood_subscribers: u32,
    },
    /// Rooms, as measured while many more connections are idle in many more rooms.
    Growth {
        rooms: u32,
        members: u32,
        /// Connections beside the measured ones; 0 means none.
        idle_connections: u32,
        /// Rooms that they share out among them.
        idle_rooms: u32,
    },
    /// Rooms, while emulated plugs send frames beside them.
    Devices {
        rooms: u32,
        members: u32,
        /// 0 means the rooms alone.
        plugs: u32,
        /// Status frames of each plug.
        frames_per_second: f64,
        /// Connections that read what the plugs say.
        watchers: u32,
        watch: Watch,
        /// Models with their weights.
        models: String,
        /// Same seed, same plugs.
        seed: u64,
        /// Over how long they connect.
        ramp_seconds: f64,
    },
    /// Rooms with one publisher each, whose subscribers come and go, for as long as one likes.
    Soak {
        rooms: u32,
        subscribers: u32,
        /// Subscribers a second that lose their connection and come back for what they missed.
        churn_per_second: f64,
    },
    /// Connects, authenticates and subscribes all as fast as possible; then all lose their connection, miss some messages,
    /// come back and catch up.
    Storm {
        connections: u32,
        room_size: u32,
        in_flight: u32,
        /// Messages that each misses while away; 0 leaves the second half out.
        missed: u32,
    },
    /// Opens connections, and reads the server's memory at each of these numbers.
    Idle {
        connections: Vec<u32>,
        room_size: u32,
        in_flight: u32,
        /// For the server to come to rest before its memory is read.
        rest_seconds: f64,
    },
}

/// Turns of `slow` where nothing else is said.
fn turns() -> u32 {
    12
}

/// Where watchers hear of plugs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Watch {
    /// In the tenant's room of all devices, each watcher of all plugs.
    All,
    /// In the plugs' own rooms, each plug by one watcher.
    Each,
}

/// How much is sent, and for how long.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Load {
    /// Open loop: messages a second in all, whatever becomes of them. Give this or `outstanding`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    /// So many messages are due at the same moment and leave together, at the same rate.
    #[serde(skip_serializing_if = "is_one")]
    pub(crate) burst: u32,
    /// Closed loop: so many messages are under way at any time; the next is sent when all receivers have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outstanding: Option<u32>,
    /// Load before anything is measured.
    pub(crate) warmup_seconds: f64,
    /// The measurement.
    pub(crate) seconds: f64,
    /// How long messages may still arrive after the last was sent, before they count as lost.
    pub(crate) drain_seconds: f64,
    pub(crate) payload_bytes: usize,
    pub(crate) payload: Form,
    /// Threads of the generator.
    pub(crate) threads: u32,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_one(burst: &u32) -> bool {
    *burst == 1
}

impl Default for Load {
    fn default() -> Self {
        Self {
            rate: None,
            burst: 1,
            outstanding: None,
            warmup_seconds: 2.0,
            seconds: 10.0,
            drain_seconds: 5.0,
            payload_bytes: 128,
            payload: Form::Binary,
            threads: 1,
        }
    }
}

impl Scenario {
    /// The scenario of this name or in this file, with `overrides` such as `load.rate=500` put over it.
    ///
    /// # Errors
    /// If there is none, or it says something impossible; in words for people.
    pub(crate) fn load(name: &str, overrides: &[String]) -> Result<Self, String> {
        let text = match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(Path::new(name)).map_err(|error| {
                let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                format!(
                    "{name} is neither a scenario ({}) nor a file: {error}",
                    names.join(", ")
                )
            })?,
        };
        Self::parse(&text, overrides).map_err(|error| format!("{name}: {error}"))
    }

    fn parse(text: &str, overrides: &[String]) -> Result<Self, String> {
        let mut table: toml::Table = toml::from_str(text).map_err(|e| e.to_string())?;
        for change in overrides {
            put(&mut table, change)?;
        }
        let scenario: Self = table.try_into().map_err(|e: toml::de::Error| e.to_string())?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let load = &self.load;
        let connections = self.shape.connections();
        if connections == 0 {
            return Err(
                "every number in [shape] but `stalled`, `missed`, `plugs` and those of the idle must be at least 1".to_owned(),
            );
        }
        if connections > u64::from(CONNECTIONS_MAX) {
            return Err(format!("at most {CONNECTIONS_MAX} connections"));
        }
        match &self.shape {
            Shape::Pairs { connections } if connections % 2 == 1 => {
                return Err("pairs need an even number of connections".to_owned());
            }
            Shape::Slow {
                subscribers, stalled, ..
            } if stalled >= subscribers => {
                return Err("somebody must go on reading: fewer stalled than subscribers".to_owned());
            }
            Shape::Slow { turns, .. } if !(1..=TURNS_MAX).contains(turns) => {
                return Err(format!("shape.turns must be 1 to {TURNS_MAX}"));
            }
            Shape::Noisy { flood_rate, .. } if !flood_rate.is_finite() || *flood_rate < 0.0 => {
                return Err("shape.flood_rate must be messages a second, or 0".to_owned());
            }
            Shape::Noisy { flood_burst, .. } if !(1..=BURST_MAX).contains(flood_burst) => {
                return Err(format!("shape.flood_burst must be 1 to {BURST_MAX}"));
            }
            Shape::Growth {
                idle_connections,
                idle_rooms,
                ..
            } if idle_rooms.div_ceil((*idle_connections).max(1)) > ROOMS_A_CONNECTION_MAX => {
                return Err(format!(
                    "at most {ROOMS_A_CONNECTION_MAX} rooms a connection: more shape.idle_connections or fewer shape.idle_rooms"
                ));
            }
            Shape::Devices {
                plugs,
                frames_per_second,
                watchers,
                ramp_seconds,
                ..
            } => {
                if *plugs > PLUGS_MAX {
                    return Err(format!("shape.plugs must be at most {PLUGS_MAX}"));
                }
                if !(*frames_per_second > 0.0 && *frames_per_second <= PLUG_RATE_MAX) {
                    return Err(format!(
                        "shape.frames_per_second must be above 0 and at most {PLUG_RATE_MAX}"
                    ));
                }
                if !(1..=WATCHERS_MAX).contains(watchers) {
                    return Err(format!("shape.watchers must be 1 to {WATCHERS_MAX}"));
                }
                if !(0.0..=RAMP_SECONDS_MAX).contains(ramp_seconds) {
                    return Err(format!("shape.ramp_seconds must be 0 to {RAMP_SECONDS_MAX}"));
                }
            }
            Shape::Soak { churn_per_second, .. } if !(0.0..=100_000.0).contains(churn_per_second) => {
                return Err("shape.churn_per_second must be 0 to 100000".to_owned());
            }
            Shape::Storm { .. } | Shape::Idle { .. } => return Ok(()),
            _ => {}
        }
        match (load.rate, load.outstanding) {
            (Some(rate), None) if rate.is_finite() && rate > 0.0 => {}
            (None, Some(1..)) => {}
            (Some(_), Some(_)) | (None, None) => {
                return Err(
                    "give load.rate (open loop) or load.outstanding (closed loop), not both".to_owned(),
                );
            }
            _ => return Err("load.rate and load.outstanding must be above 0".to_owned()),
        }
        if !(1..=BURST_MAX).contains(&load.burst) {
            return Err(format!("load.burst must be 1 to {BURST_MAX}"));
        }
        let times = [load.warmup_seconds, load.seconds, load.drain_seconds];
        if times.iter().any(|t| !t.is_finite() || *t < 0.0) || load.seconds <= 0.0 {
            return Err("times must be seconds, and load.seconds above 0".to_owned());
        }
        if !(load.payload.bytes_min()..=PAYLOAD_BYTES_MAX).contains(&load.payload_bytes) {
            return Err(format!(
                "load.payload_bytes must be {} to {PAYLOAD_BYTES_MAX} to hold what is measured",
                load.payload.bytes_min()
            ));
        }
        if !(1..=THREADS_MAX).contains(&load.threads) {
            return Err(format!("load.threads must be 1 to {THREADS_MAX}"));
        }
        Ok(())
    }
}

impl Shape {
    /// Connections of the measured run; 0 where a number that must not be is 0.
    fn connections(&self) -> u64 {
        match self {
            Self::Fanout { subscribers } | Self::Slow { subscribers, .. } => match subscribers {
                0 => 0,
                n => u64::from(*n) + 1,
            },
            Self::Rooms { rooms, members } | Self::Devices { rooms, members, .. } => {
                u64::from(*rooms) * u64::from(*members)
            }
            Self::Growth {
                rooms,
                members,
                idle_connections,
                ..
            } => match u64::from(*rooms) * u64::from(*members) {
                0 => 0,
                measured => measured + u64::from(*idle_connections),
            },
            Self::Noisy {
                rooms,
                members,
                flood_subscribers,
                ..
            } => u64::from(*rooms) * u64::from(*members) * u64::from(*flood_subscribers.min(&1)),
            Self::Soak {
                rooms, subscribers, ..
            } => u64::from(*rooms) * (u64::from(*subscribers) + 1) * u64::from(*subscribers.min(&1)),
            Self::Pairs { connections } => u64::from(*connections),
            Self::Echo { pairs } => 2 * u64::from(*pairs),
            Self::Storm {
                connections,
                room_size,
                in_flight,
                ..
            } => u64::from(*connections) * u64::from(*room_size.min(in_flight).min(&1)),
            Self::Idle {
                connections,
                room_size,
                in_flight,
                ..
            } => {
                u64::from(connections.iter().copied().max().unwrap_or(0))
                    * u64::from(*room_size.min(in_flight).min(&1))
            }
        }
    }
}

/// Puts `a.b=value` into the table.
fn put(table: &mut toml::Table, change: &str) -> Result<(), String> {
    let Some((path, value)) = change.split_once('=') else {
        return Err(format!("{change:?}: write it as load.rate=500"));
    };
    let Some((section, key)) = path.trim().split_once('.') else {
        return Err(format!(
            "{path:?}: name the section too, as in shape.rooms or load.rate"
        ));
    };
    // What is no TOML value is a string, so that load.payload=json needs no quotes.
    let value = toml::from_str::<toml::Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.trim().to_owned()));
    let section = table
        .entry(section)
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let toml::Value::Table(section) = section else {
        return Err(format!("{path}: no such section"));
    };
    // The two loops exclude each other: who names one means it instead of the file's.
    match key {
        "rate" => section.remove("outstanding"),
        "outstanding" => section.remove("rate"),
        _ => None,
    };
    section.insert(key.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_parses_and_is_of_the_kind_it_is_named_after() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::load(name, &[]).unwrap();
            assert_eq!(serde_json::to_value(&scenario.shape).unwrap()["kind"], name);
            assert!(!scenario.about.is_empty());
        }
    }

    #[test]
    fn flags_go_over_the_file() {
        let changes = ["shape.rooms=3", "load.outstanding=9", "load.payload=json"].map(str::to_owned);
        let scenario = Scenario::load("rooms", &changes).unwrap();
        assert_eq!(
            scenario.shape,
            Shape::Rooms {
                rooms: 3,
                members: 10
            }
        );
        assert_eq!((scenario.load.rate, scenario.load.outstanding), (None, Some(9)));
        assert_eq!(scenario.load.payload, Form::Json);
    }

    #[test]
    fn what_is_misspelt_or_impossible_is_refused_in_words() {
        let refused = |change: &str| Scenario::load("rooms", &[change.to_owned()]).unwrap_err();
        assert!(refused("shape.roms=3").contains("roms"));
        assert!(refused("load.speed=3").contains("speed"));
        assert!(refused("load.rate=-1").contains("above 0"));
        assert!(refused("load.rate=nan").contains("above 0"));
        assert!(refused("load.payload_bytes=4").contains("payload_bytes"));
        assert!(refused("shape.members=0").contains("at least 1"));
        assert!(refused("rate=1").contains("section"));
        let crowded = Scenario::load("growth", &["shape.idle_connections=10".to_owned()]);
        assert!(crowded.unwrap_err().contains("rooms a connection"));
        assert!(refused("load.burst=0").contains("burst"));
        assert!(refused("load.threads=0").contains("threads"));
        assert!(Scenario::load("romms", &[]).unwrap_err().contains("neither"));
        let plugs = |change: &str| Scenario::load("devices", &[change.to_owned()]).unwrap_err();
        assert!(plugs("shape.frames_per_second=0").contains("frames_per_second"));
        assert!(plugs("shape.watchers=0").contains("watchers"));
        assert!(plugs("shape.watch=none").contains("none"));
        assert!(plugs("shape.plugs=20001").contains("20000"));
        let odd = Scenario::load("pairs", &["shape.connections=3".to_owned()]);
        assert!(odd.unwrap_err().contains("even"));
    }
}
