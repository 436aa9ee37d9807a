//! The catalogue: real devices, as captured, that a fleet is made of.
//!
//! A snapshot is one file with what the device answered to `Shelly.GetDeviceInfo`, `Shelly.GetConfig`,
//! `Shelly.GetStatus` and, where it had any, its dynamic components. Nothing here is invented; what a model can
//! do is read off its snapshot, not listed beside it.

use crate::firmware::Firmware;
use crate::identity::Mac;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

/// Most models one `--models` list may name.
pub const MODEL_LIST_MAX: usize = 64;
/// Most weight a model in a `--models` list may have.
pub const MODEL_WEIGHT_MAX: u32 = 10_000;
/// What a fleet is made of unless told otherwise: plugs, of each generation, in the mix of a clinic.
pub const DEFAULT_MODELS: &str = "plugsg3:5,plusplugs:2,plusplugs-fw1.1:1,outdoorsg3:1,pstripg4:1";

struct Entry {
    name: &'static str,
    snapshot: &'static str,
}

macro_rules! catalogue {
    ($($name:literal => $file:literal,)+) => {
        &[$(Entry {
            name: $name,
            snapshot: include_str!(concat!("../fixtures/snapshots/", $file, ".json")),
        },)+]
    };
}

const CATALOGUE: &[Entry] = catalogue! {
    "azplug" => "matterbridge/shellyazplug-E4B3232DC0CC",
    "blugwg3" => "matterbridge/shellyblugwg3-34CDB077BCD4",
    "emminig4" => "matterbridge/shellyemminig4-D885ACEF41A8",
    "floodg4" => "matterbridge/shellyfloodg4-E8F60A6275D0",
    "htg3" => "matterbridge/shellyhtg3-3030F9EC8468",
    "i4g3" => "matterbridge/shellyi4g3-5432045661B4",
    "mini1g3" => "matterbridge/shelly1minig3-543204547478",
    "outdoorsg3" => "matterbridge/shellyoutdoorsg3-E4B3232D5610",
    "plugsg3" => "matterbridge/shellyplugsg3-8CBFEAA133F0",
    "plugsg3-fw1.2" => "matterbridge/shellyplugsg3-5432045CE094",
    "plus1" => "matterbridge/shellyplus1-E465B8F3028C",
    "plus1pm" => "matterbridge/shellyplus1pm-441793D69718",
    "plus1pm-fw1.1" => "aioshelly/gen2_Shelly_Plus_1PM_SNSW-001P16EU_20231219-133934-1.1.0-g34b5d4f",
    "plus2pm" => "matterbridge/shellyplus2pm-C4D8D5517C68",
    "plus2pm-cover" => "matterbridge/shellyplus2pm-08F9E0FD173C",
    "plusht" => "matterbridge/shellyplusht-FCB467261FD4",
    "plusplugit" => "matterbridge/shellyplusplugit-441793D0B104",
    "plusplugs" => "matterbridge/shellyplusplugs-E86BEAEAA000",
    "plusplugs-fw1.1" => "aioshelly/gen2_Shelly_Plus_Plug_S_SNPL-00112EU_20231219-134003-1.1.0-g34b5d4f",
    "pluspluguk" => "matterbridge/shellypluspluguk-80646FE4F97C",
    "plussmoke" => "matterbridge/shellyplussmoke-E08CFE8BD798",
    "pmminig3" => "matterbridge/shellypmminig3-84FCE63957F4",
    "pro3em" => "matterbridge/shellypro3em-A0DD6CA0C27C.triphase",
    "pro4pm" => "matterbridge/shellypro4pm-34987A67D7D0",
    "prodm1pm" => "matterbridge/shellyprodm1pm-34987A4957C4",
    "pstripg4" => "matterbridge/shellypstripg4-D885ACE52518",
    "walldisplay" => "matterbridge/shellywalldisplay-00082261E102",
};

/// A captured device.
#[derive(Debug)]
pub struct Model {
    name: &'static str,
    pub(crate) info: Map<String, Value>,
    pub(crate) config: Map<String, Value>,
    pub(crate) status: Map<String, Value>,
    /// What `Shelly.GetComponents` lists beyond the fixed components.
    pub(crate) dynamic: Vec<Value>,
    pub(crate) captured_id: Arc<str>,
    pub(crate) captured_mac: Mac,
    pub(crate) firmware: Firmware,
}

/// What a device says first on a new connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Greeting {
    /// One full status, as documented.
    FullStatus,
    /// Wall Displays: a partial status; a full one may or may not follow.
    PartialStatus,
}

impl Model {
    /// Loads the model called `name`.
    ///
    /// # Errors
    /// [`ModelError::Unknown`] with the names there are; [`ModelError::Snapshot`] if an embedded snapshot lacks
    /// what identifies a device, which a test excludes for the snapshots in this crate.
    pub fn load(name: &str) -> Result<Arc<Self>, ModelError> {
        let entry = CATALOGUE
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| ModelError::Unknown(name.chars().take(64).collect()))?;
        Self::from_snapshot(entry.name, entry.snapshot).map(Arc::new)
    }

    /// The names of all models, in alphabetical order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CATALOGUE.iter().map(|entry| entry.name)
    }

    fn from_snapshot(name: &'static str, text: &str) -> Result<Self, ModelError> {
        let broken = |what| ModelError::Snapshot(name, what);
        let mut snapshot: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| broken("is not a JSON object"))?;
        let mut object = |key: &str| match snapshot.remove(key) {
            Some(Value::Object(fields)) => Some(fields),
            _ => None,
        };
        let info = object("shelly").ok_or_else(|| broken("has no device info"))?;
        let config = object("settings")
            .or_else(|| object("config"))
            .ok_or_else(|| broken("has no config"))?;
        let status = object("status").ok_or_else(|| broken("has no status"))?;
        let text_of = |key| info.get(key).and_then(Value::as_str);
        let captured_id: Arc<str> = text_of("id").ok_or_else(|| broken("has no id"))?.into();
        let captured_mac = text_of("mac")
            .and_then(Mac::parse)
            .ok_or_else(|| broken("has no MAC"))?;
        let firmware = text_of("ver")
            .and_then(|ver| ver.parse().ok())
            .ok_or_else(|| broken("has no firmware version"))?;
        let dynamic = match snapshot.remove("components") {
            Some(Value::Array(components)) => components,
            _ => Vec::new(),
        };
        Ok(Self {
            name,
            info,
            config,
            status,
            dynamic,
            captured_id,
            captured_mac,
            firmware,
        })
    }

    /// The name in the catalogue.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The MAC of the captured device, which no emulated one may show.
    pub fn captured_mac_hex(&self) -> String {
        self.captured_mac.to_upper_hex()
    }

    /// The firmware of the captured device.
    pub const fn firmware(&self) -> &Firmware {
        &self.firmware
    }

    /// Whether the device can dial out: without a `ws` component there is nothing to configure.
    pub fn has_outbound_websocket(&self) -> bool {
        self.config.contains_key("ws")
    }

    /// How often a battery device wakes, in seconds; `None` for devices that never sleep.
    pub(crate) fn wakeup_period_seconds(&self) -> Option<u64> {
        let sys = self.status.get("sys")?;
        sys.get("wakeup_reason")?;
        sys.get("wakeup_period")?.as_u64().filter(|seconds| *seconds > 0)
    }

    pub(crate) fn greeting(&self) -> Greeting {
        if self.is_wall_display() {
            Greeting::PartialStatus
        } else {
            Greeting::FullStatus
        }
    }

    /// Wall Displays run another firmware (Android), which differs in small things everywhere.
    pub(crate) fn is_wall_display(&self) -> bool {
        self.app() == Some("WallDisplay")
    }

    /// Outdoor plugs are what balcony power plants are plugged into.
    pub(crate) fn is_outdoor_plug(&self) -> bool {
        self.app() == Some("OutdoorPlugSG3")
    }

    fn app(&self) -> Option<&str> {
        self.info.get("app").and_then(Value::as_str)
    }
}

/// A weighted list of models; device `n` of a fleet is the same model every time.
#[derive(Clone, Debug)]
pub struct ModelMix {
    shares: Vec<(Arc<Model>, u32)>,
    total: u32,
}

impl ModelMix {
    /// Reads a list such as `plugsg3:5,pstripg4:1`; a model without a weight has weight 1.
    ///
    /// # Errors
    /// Says which part is wrong and what would be right.
    pub fn parse(list: &str) -> Result<Self, ModelError> {
        let mut shares = Vec::new();
        let mut total = 0u32;
        for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if shares.len() == MODEL_LIST_MAX {
                return Err(ModelError::TooMany);
            }
            let (name, weight) = part.split_once(':').unwrap_or((part, "1"));
            let weight = match weight.parse() {
                Ok(weight @ 1..=MODEL_WEIGHT_MAX) => weight,
                _ => return Err(ModelError::Weight(part.chars().take(64).collect())),
            };
            shares.push((Model::load(name)?, weight));
            total += weight;
        }
        if shares.is_empty() {
            Err(ModelError::Empty)
        } else {
            Ok(Self { shares, total })
        }
    }

    /// The models in the list.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.shares.iter().map(|(model, _)| model)
    }

    /// The model of device `index`. Any run of as many devices as the weights add up to holds each model
    /// exactly as often as its weight says, so that small fleets keep the mix too.
    pub fn model_of(&self, index: u32) -> &Arc<Model> {
        let mut place = index % self.total;
        for (model, weight) in &self.shares {
            match place.checked_sub(*weight) {
                Some(rest) => place = rest,
                None => return model,
            }
        }
        // `place` started below the sum of all weights, so the loop has returned; a first share always exists.
        &self.shares[0].0
    }
}

/// Why a list of models is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ModelError {
    /// The list names nothing.
    Empty,
    /// An embedded snapshot is incomplete: which, and what it lacks.
    Snapshot(&'static str, &'static str),
    /// More than [`MODEL_LIST_MAX`] entries.
    TooMany,
    /// No such model.
    Unknown(String),
    /// The weight is not a number from 1 to [`MODEL_WEIGHT_MAX`].
    Weight(String),
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the list of models is empty; for example: {DEFAULT_MODELS}"),
            Self::Snapshot(name, what) => write!(f, "the snapshot of model {name} {what}"),
            Self::TooMany => write!(f, "more than {MODEL_LIST_MAX} models in one list"),
            Self::Unknown(name) => {
                write!(f, "no model is called {name:?}; there are:")?;
                Model::names().try_for_each(|name| write!(f, " {name}"))
            }
            Self::Weight(part) => {
                write!(
                    f,
                    "{part:?}: a weight is a number from 1 to {MODEL_WEIGHT_MAX}, as in plugsg3:5"
                )
            }
        }
    }
}

impl std::error::Error for ModelError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_of_the_catalogue_loads() {
        for name in Model::names() {
            let model = Model::load(name).unwrap_or_else(|error| panic!("{error}"));
            assert!(model.status.contains_key("sys"), "{name} has no sys");
            assert!(model.captured_id.contains('-'), "{name} has an odd id");
        }
    }

    #[test]
    fn the_catalogue_is_sorted_and_free_of_doubles() {
        let names: Vec<_> = Model::names().collect();
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn the_catalogue_holds_the_awkward_ones() {
        let load = |name| Model::load(name).expect("in the catalogue");
        assert!(!load("azplug").has_outbound_websocket());
        assert_eq!(load("walldisplay").greeting(), Greeting::PartialStatus);
        assert_eq!(load("htg3").wakeup_period_seconds(), Some(7200));
        assert_eq!(load("plussmoke").wakeup_period_seconds(), Some(86_400));
        assert_eq!(load("plugsg3").wakeup_period_seconds(), None);
        assert_eq!(load("blugwg3").dynamic.len(), 27);
        assert!(load("pmminig3").status.contains_key("pm1:0"));
        assert!(load("pstripg4").status.contains_key("switch:3"));
    }

    #[test]
    fn weights_are_kept_exactly() {
        let mix = ModelMix::parse("plugsg3:3, pstripg4").expect("a list");
        let names: Vec<_> = (0..8).map(|index| mix.model_of(index).name()).collect();
        assert_eq!(names.iter().filter(|name| **name == "plugsg3").count(), 6);
        assert_eq!(names[..4], names[4..]);
    }

    #[test]
    fn the_default_list_is_valid() {
        assert!(ModelMix::parse(DEFAULT_MODELS).is_ok());
    }

    #[test]
    fn wrong_lists_say_what_is_wrong() {
        for (list, word) in [
            ("", "empty"),
            ("plugsg9", "plugsg3"),
            ("plugsg3:0", "from 1"),
            ("plugsg3:many", "from 1"),
        ] {
            let error = ModelMix::parse(list).expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
        }
        let long = vec!["plus1"; MODEL_LIST_MAX + 1].join(",");
        assert_eq!(ModelMix::parse(&long).expect_err("refused"), ModelError::TooMany);
    }
}
