//! Room classes as administrators write them, and what they mean.
//!
//! What a class does not say is as the node's default, save what only makes sense when it is said: durability, presence,
//! rate, rights, schemas. Inside `history`, what is not said is no bound of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cauce_protocol::message::{Policy, check_event};
use cauce_protocol::{Code, Refusal, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::{Actions, Allow, ClassGrants, Pattern};
use crate::config::{self, duration_ms, show_duration, show_size, size_bytes};
use crate::hub::{ClassRule, RoomClasses, Schema, Schemas};
use crate::rate::Quota;
use crate::rooms::{Durability, Keep, PresenceMode, RoomClass};

/// Classes of a tenant. A room looks for its own among them when it is opened.
pub const CLASSES_A_TENANT_MAX: usize = 64;

/// All classes of a tenant, in bytes of JSON.
pub const CLASSES_BYTES_MAX: usize = 64 * 1024;

/// Schemas in all classes of a tenant.
pub const SCHEMAS_A_TENANT_MAX: usize = 64;

/// One schema, in bytes of JSON.
pub const SCHEMA_BYTES_MAX: usize = 16 * 1024;

/// Messages that a room may keep.
const HISTORY_MESSAGES_MAX: u32 = 1_000_000;

/// How long a room may keep a message, in milliseconds: ten years.
const HISTORY_AGE_MS_MAX: u64 = 3_660 * 86_400_000;

/// Bytes that a room may keep.
const HISTORY_BYTES_MAX: u64 = 16 << 30;

/// Longest grace of presence, in milliseconds.
const PRESENCE_GRACE_MS_MAX: u64 = 600_000;

/// Units of a rate, and of its burst.
const RATE_MAX: u32 = 1_000_000;

/// Slowest sampling, in milliseconds.
const SAMPLE_MS_MAX: u32 = 3_600_000;

/// Stands for everyone in `allow`.
const EVERYONE: &str = "*";

/// One class as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSpec {
    /// Of which rooms.
    pub rooms: Pattern,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistorySpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<PresenceSpec>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
    /// For subscribers that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
    /// Of all publishers of a room together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateSpec>,
    /// Rights by role, `*` for everyone in the tenant, where a token says nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub allow: BTreeMap<String, Actions>,
    /// JSON schemas by event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schemas: BTreeMap<String, Value>,
}

/// How much is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistorySpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<Age>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Size>,
}

/// Milliseconds, written `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Age(pub u64);

/// Bytes, written `1MiB`, or as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrText", into = "String")]
pub struct Size(pub u64);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number of bytes, or a size such as \"1MiB\""
)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

/// Whether who is there can be asked and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected true, false or {\"grace_ms\": milliseconds}")]
pub enum PresenceSpec {
    Switch(bool),
    With(GraceSpec),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraceSpec {
    pub grace_ms: u64,
}

/// What happens when a reader falls behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"reliable\", \"latest\", \"drop_oldest\" or {\"sample_ms\": milliseconds}"
)]
pub enum DeliverySpec {
    Named(DeliveryName),
    Sample(SampleSpec),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryName {
    Reliable,
    Latest,
    DropOldest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleSpec {
    pub sample_ms: u32,
}

/// How fast a room may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSpec {
    pub per_second: u32,
    /// As much as a second's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration_ms(&text).map(Self)
    }
}

impl From<Age> for String {
    fn from(Age(ms): Age) -> Self {
        show_duration(ms)
    }
}

impl TryFrom<NumberOrText> for Size {
    type Error = String;

    fn try_from(size: NumberOrText) -> Result<Self, String> {
        match size {
            NumberOrText::Number(bytes) => Ok(Self(bytes)),
            NumberOrText::Text(text) => size_bytes(&text).map(Self),
        }
    }
}

impl From<Size> for String {
    fn from(Size(bytes): Size) -> Self {
        show_size(bytes)
    }
}

/// What holds on this node where no class says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassDefaults {
    class: Arc<RoomClass>,
    presence_grace_ms: u64,
}

impl From<&config::Rooms> for ClassDefaults {
    fn from(rooms: &config::Rooms) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let history = Keep {
            messages: rooms.history_messages,
            age_ms: ms(rooms.history_age),
            bytes: rooms.history_bytes,
        };
        Self {
            class: Arc::new(RoomClass {
                history,
                ..RoomClass::default()
            }),
            presence_grace_ms: ms(rooms.presence_grace),
        }
    }
}

/// What a tenant's classes mean.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) classes: RoomClasses,
    pub(super) grants: ClassGrants,
}

/// Reads classes from JSON. What they ask for is judged by `compile`.
///
/// # Errors
/// `invalid` or `too_large`, with where in the list.
pub fn read_classes(classes: Vec<Value>) -> Result<Vec<ClassSpec>, Refusal> {
    for (index, class) in classes.iter().enumerate() {
        // A list of the members' values in their order would do for the reader below.
        let members = class
            .as_object()
            .ok_or_else(|| at(index, "", "expected an object"))?;
        for name in ["history", "presence", "delivery", "rate"] {
            if members.get(name).is_some_and(Value::is_array) {
                return Err(at(index, name, "expected no list"));
            }
        }
    }
    let classes = Value::Array(classes);
    // A `Value` is always JSON.
    let bytes = serde_json::to_vec(&classes).map_or(usize::MAX, |json| json.len());
    if bytes > CLASSES_BYTES_MAX {
        let message = format!("room_classes takes {bytes} bytes of JSON; allowed are {CLASSES_BYTES_MAX}");
        return Err(Refusal::new(Code::TooLarge, message));
    }
    serde_path_to_error::deserialize(classes).map_err(|error| {
        let message = format!("room_classes{}: {}", error.path(), error.inner());
        Refusal::new(Code::Invalid, message)
    })
}

/// # Errors
/// `invalid`, `too_large` or `quota_exceeded`, with which class and what to do.
pub(super) fn compile(specs: &[ClassSpec], defaults: &ClassDefaults) -> Result<Compiled, Refusal> {
    if specs.len() > CLASSES_A_TENANT_MAX {
        let message = format!(
            "room_classes: {} classes; a tenant may have {CLASSES_A_TENANT_MAX}",
            specs.len()
        );
        return Err(Refusal::new(Code::Invalid, message));
    }
    let schemas: usize = specs.iter().map(|spec| spec.schemas.len()).sum();
    if schemas > SCHEMAS_A_TENANT_MAX {
        let message =
            format!("room_classes: {schemas} schemas; a tenant may have {SCHEMAS_A_TENANT_MAX} in all");
        return Err(Refusal::new(Code::Invalid, message));
    }
    let mut rules = Vec::with_capacity(specs.len());
    let mut grants = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let class = spec.class(defaults);
        let class = class.map_err(|(member, message)| at(index, member, &message))?;
        let allow = spec.rights();
        let allow = allow.map_err(|message| at(index, "allow", &message))?;
        let schemas = spec.schemas();
        let schemas = schemas.map_err(|(event, message)| at(index, &format!("schemas.{event}"), &message))?;
        grants.push((spec.rooms.clone(), allow));
        rules.push(ClassRule {
            rooms: spec.rooms.clone(),
            class: Arc::new(class),
            schemas,
        });
    }
    let grants = ClassGrants::new(grants)
        .map_err(|error| Refusal::new(Code::Invalid, format!("room_classes: in allow, {error}")))?;
    Ok(Compiled {
        classes: RoomClasses::new(rules, defaults.class.clone()),
        grants,
    })
}

/// No class at all.
pub(super) fn none(defaults: &ClassDefaults) -> Compiled {
    Compiled {
        classes: RoomClasses::new(Vec::new(), defaults.class.clone()),
        grants: ClassGrants::default(),
    }
}

fn at(index: usize, member: &str, message: &str) -> Refusal {
    let dot = if member.is_empty() { "" } else { "." };
    Refusal::new(
        Code::Invalid,
        format!("room_classes[{index}]{dot}{member}: {message}"),
    )
}

/// A member and what is wrong with it.
type Fault = (&'static str, String);

impl ClassSpec {
    fn class(&self, defaults: &ClassDefaults) -> Result<RoomClass, Fault> {
        Ok(RoomClass {
            history: self.keep(defaults)?,
            presence: self.presence(defaults)?,
            durability: if self.durable {
                Durability::Durable
            } else {
                Durability::Memory
            },
            policy: self.policy()?,
            rate: self.rate.map(RateSpec::quota).transpose()?,
        })
    }

    fn keep(&self, defaults: &ClassDefaults) -> Result<Keep, Fault> {
        let Some(history) = &self.history else {
            if self.durable {
                let message = "a durable class must say what is kept: \"history\": {\"messages\": 1000}";
                return Err(("history", message.to_owned()));
            }
            return Ok(defaults.class.history);
        };
        let messages = history.messages.unwrap_or(HISTORY_MESSAGES_MAX);
        if messages > HISTORY_MESSAGES_MAX {
            return Err(("history.messages", format!("at most {HISTORY_MESSAGES_MAX}")));
        }
        if self.durable && messages == 0 {
            return Err(("history.messages", "a durable class keeps at least 1".to_owned()));
        }
        let age_ms = history.age.map_or(0, |Age(ms)| ms);
        if age_ms > HISTORY_AGE_MS_MAX {
            return Err((
                "history.age",
                format!("at most {}", show_duration(HISTORY_AGE_MS_MAX)),
            ));
        }
        let bytes = match history.bytes {
            Some(Size(bytes)) => bytes,
            // A disk has room; memory has a bound in any case.
            None if self.durable => 0,
            None => defaults.class.history.bytes,
        };
        if bytes > HISTORY_BYTES_MAX {
            return Err((
                "history.bytes",
                format!("at most {}", show_size(HISTORY_BYTES_MAX)),
            ));
        }
        Ok(Keep {
            messages,
            age_ms,
            bytes,
        })
    }

    fn presence(&self, defaults: &ClassDefaults) -> Result<PresenceMode, Fault> {
        let grace_ms = match self.presence {
            None | Some(PresenceSpec::Switch(false)) => return Ok(PresenceMode::Off),
            Some(PresenceSpec::Switch(true)) => defaults.presence_grace_ms,
            Some(PresenceSpec::With(GraceSpec { grace_ms })) => grace_ms,
        };
        if grace_ms > PRESENCE_GRACE_MS_MAX {
            return Err(("presence.grace_ms", format!("at most {PRESENCE_GRACE_MS_MAX}")));
        }
        Ok(PresenceMode::On { grace_ms })
    }

    fn policy(&self) -> Result<Policy, Fault> {
        Ok(match self.delivery {
            None | Some(DeliverySpec::Named(DeliveryName::Reliable)) => Policy::Reliable,
            Some(DeliverySpec::Named(DeliveryName::Latest)) => Policy::Latest,
            Some(DeliverySpec::Named(DeliveryName::DropOldest)) => Policy::DropOldest,
            Some(DeliverySpec::Sample(SampleSpec { sample_ms })) => {
                if !(1..=SAMPLE_MS_MAX).contains(&sample_ms) {
                    return Err(("delivery.sample_ms", format!("1 to {SAMPLE_MS_MAX}")));
                }
                Policy::Sample { every_ms: sample_ms }
            }
        })
    }

    fn rights(&self) -> Result<Allow, String> {
        let mut allow = Allow::default();
        for (name, &actions) in &self.allow {
            if name == EVERYONE {
                allow.everyone = actions;
            } else {
                let role = Role::new(name).map_err(|error| format!("role {name:?} {error}"))?;
                allow.roles.insert(role, actions);
            }
        }
        Ok(allow)
    }

    fn schemas(&self) -> Result<Schemas, (&str, String)> {
        let mut schemas = Schemas::new();
        for (event, schema) in &self.schemas {
            // Only the broker publishes there.
            if self.rooms.as_str().starts_with('$') {
                let message =
                    "rooms that begin with $ have no schemas: nobody but the broker publishes there";
                return Err((event, message.to_owned()));
            }
            check_event(event).map_err(|refusal| (event.as_str(), refusal.message.into_owned()))?;
            let bytes = serde_json::to_vec(schema).map_or(usize::MAX, |json| json.len());
            if bytes > SCHEMA_BYTES_MAX {
                let message = format!("takes {bytes} bytes of JSON; allowed are {SCHEMA_BYTES_MAX}");
                return Err((event, message));
            }
            let schema = Schema::compile(schema).map_err(|message| (event.as_str(), message))?;
            schemas.insert(event.as_str().into(), Arc::new(schema));
        }
        Ok(schemas)
    }
}

impl RateSpec {
    fn quota(self) -> Result<Quota, Fault> {
        let in_range = |member, value| match value {
            1..=RATE_MAX => Ok(value),
            _ => Err((member, format!("1 to {RATE_MAX}"))),
        };
        let per_second = in_range("rate.per_second", self.per_second)?;
        let burst = in_range("rate.burst", self.burst.unwrap_or(per_second))?;
        Ok(Quota::per_second(per_second, burst))
    }
}
