//! The zero that is never sent. Firmware before 1.5/1.6 may switch off and forget to say that the power is zero, so a
//! plug would seem to draw its last watts for ever. After a short wait for the real value, zero is derived, and said
//! to be derived.

use serde_json::Value;

use super::status::Object;

/// How long a switch that went off may take to report its power, in milliseconds.
pub(super) const POWER_WAIT_MS: u64 = 2_000;

/// Most switches watched at once. The largest device has eight.
const SWITCHES_MAX: usize = 32;

/// Switches whose power is derived at present.
#[derive(Clone, Debug, Default)]
pub(super) struct DerivedPower {
    keys: Vec<Box<str>>,
}

impl DerivedPower {
    pub(super) fn keys(&self) -> &[Box<str>] {
        &self.keys
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.keys.iter().any(|known| **known == *key)
    }
}

/// Waits for the power of switches that went off.
#[derive(Clone, Debug, Default)]
pub(super) struct PowerWatch {
    /// Switch and the monotonic time at which zero is derived.
    waits: Vec<(Box<str>, u64)>,
    pub(super) derived: DerivedPower,
}

impl PowerWatch {
    /// The device has told everything it knows: no wait and no derived value stands beside it.
    pub(super) fn clear(&mut self) {
        self.waits.clear();
        self.derived.keys.clear();
    }

    /// Before a partial status is merged: where the device itself tells a power, our derivation ends.
    pub(super) fn before_overlay(&mut self, partial: &Object) {
        if self.waits.is_empty() && self.derived.keys.is_empty() {
            return;
        }
        let tells = |key: &str, field: &str| {
            partial
                .get(key)
                .is_some_and(|component| component.get(field).is_some())
        };
        // Whatever the output became, a switch that went off anew is watched anew by `after_overlay`.
        self.waits
            .retain(|(key, _)| !tells(key, "apower") && !is_true(partial.get(&**key), "output"));
        self.derived.keys.retain(|key| !tells(key, "apower"));
    }

    /// After the merge: watches each switch that just went off while its last known power was not zero.
    /// `told_power` says which of them sent their power in the same frame.
    pub(super) fn after_overlay(
        &mut self,
        now_mono_ms: u64,
        delta: &Object,
        components: &Object,
        told_power: &[Box<str>],
    ) {
        for (key, change) in delta {
            if !key.starts_with("switch:") || change.get("output") != Some(&Value::Bool(false)) {
                continue;
            }
            let draws = components
                .get(key)
                .and_then(|component| component.get("apower"))
                .and_then(Value::as_f64)
                .is_some_and(|watts| watts != 0.0);
            let told = told_power.iter().any(|told| **told == **key);
            // Each wait becomes at most one derived key, so this bounds both lists.
            let has_room = self.waits.len() + self.derived.keys.len() < SWITCHES_MAX;
            if draws && !told && has_room {
                self.waits
                    .push((key.as_str().into(), now_mono_ms.saturating_add(POWER_WAIT_MS)));
            }
        }
    }

    /// The earliest end of a wait.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.waits.iter().map(|(_, deadline)| *deadline).min()
    }

    /// Ends the waits that are due: a partial status that sets their power to zero. Empty if none is.
    pub(super) fn expire(&mut self, now_mono_ms: u64, components: &Object) -> Object {
        let mut zeros = Object::new();
        let derived = &mut self.derived;
        self.waits.retain(|(key, deadline)| {
            if *deadline > now_mono_ms {
                return true;
            }
            // A switch or a power that is gone by now is not brought back by us.
            if components
                .get(&**key)
                .is_some_and(|component| component.get("apower").is_some())
            {
                zeros.insert(String::from(&**key), serde_json::json!({ "apower": 0 }));
                if !derived.contains(key) {
                    derived.keys.push(key.clone());
                }
            }
            false
        });
        zeros
    }
}

/// The switches that tell their power in this status.
pub(super) fn told_power(partial: &Object) -> Vec<Box<str>> {
    partial
        .iter()
        .filter(|(key, component)| {
            key.starts_with("switch:")
                && component.get("output") == Some(&Value::Bool(false))
                && component.get("apower").is_some()
        })
        .map(|(key, _)| Box::from(key.as_str()))
        .collect()
}

fn is_true(component: Option<&Value>, field: &str) -> bool {
    component.and_then(|component| component.get(field)) == Some(&Value::Bool(true))
}
