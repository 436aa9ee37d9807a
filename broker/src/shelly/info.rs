//! What `Shelly.GetDeviceInfo` says of a device.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::cut;
use super::status::Object;

/// Make and firmware of a device. All optional: old firmware leaves members out, and a null means the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// The name its owner gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Model code, such as `S3PL-00112EU`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Application, such as `PlugSG3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Hardware generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Firmware version, such as `1.7.5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Firmware build, such as `20260311-095902/1.7.5-g9979d16`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware_build: Option<String>,
}

impl Info {
    /// Longest text kept of any member, in bytes.
    pub const TEXT_BYTES_MAX: usize = 128;

    /// Picks the members out of an answer.
    pub(super) fn read(answer: &Object) -> Self {
        let text = |member: &str| {
            let text = answer.get(member).and_then(Value::as_str)?;
            Some(cut(text.to_owned(), Self::TEXT_BYTES_MAX))
        };
        Self {
            name: text("name"),
            model: text("model"),
            app: text("app"),
            generation: answer
                .get("gen")
                .and_then(Value::as_u64)
                .and_then(|n| n.try_into().ok()),
            firmware: text("ver"),
            firmware_build: text("fw_id"),
        }
    }
}
