//! Who a device is: id, MAC and address, all derived from fleet seed and index, and the rewriting of a captured
//! snapshot so that every place that names the captured device names this one.

use crate::rng::Rng;
use serde_json::Value;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A device id as it stands on the wire, for example `shellyplugsg3-8cbfeaa133f0`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device's hardware address; unique within a fleet.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Mac([u8; 6]);

impl Mac {
    /// Reads twelve hexadecimal digits.
    pub(crate) fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        if hex.len() != 12 || !hex.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Keeps the maker's three bytes of `template` and numbers the rest. Multiplying by an odd number modulo
    /// 2²⁴ is a bijection, so two indexes below 16,777,216 never share an address.
    fn numbered(template: Self, seed: u64, index: u32) -> Self {
        let offset = Rng::new(seed, u64::MAX).next_u64() as u32;
        let low = index.wrapping_mul(0x009e_3779).wrapping_add(offset).to_be_bytes();
        let [a, b, c, ..] = template.0;
        Self([a, b, c, low[1], low[2], low[3]])
    }

    /// Twelve upper-case digits, as in `mac` fields.
    pub fn to_upper_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    fn to_lower_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn to_colons(self) -> String {
        self.0.map(|byte| format!("{byte:02X}")).join(":")
    }

    /// The interface half of an IPv6 address made from this MAC (EUI-64, RFC 4291 appendix A).
    fn to_interface_id(self) -> String {
        let [a, b, c, d, e, f] = self.0;
        let group = |high: u8, low: u8| format!("{:x}", u16::from_be_bytes([high, low]));
        [group(a ^ 2, b), group(c, 0xff), group(0xfe, d), group(e, f)].join(":")
    }
}

/// The names of one device and of the captured device it is made from.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    id: DeviceId,
    mac: Mac,
    ip: Ipv4Addr,
    captured_id: Arc<str>,
    captured_mac: Mac,
}

impl Identity {
    /// The identity of device `index` of the fleet `seed`, made from a captured id and MAC. The id keeps the
    /// captured spelling (`shellyplugsg3-…` lower, `ShellyWallDisplay-…` upper case).
    pub(crate) fn new(captured_id: Arc<str>, captured_mac: Mac, seed: u64, index: u32) -> Self {
        let mac = Mac::numbered(captured_mac, seed, index);
        let (prefix, suffix) = captured_id.rsplit_once('-').unwrap_or((&captured_id, ""));
        let upper = suffix.bytes().any(|byte| byte.is_ascii_uppercase());
        let hex = if upper {
            mac.to_upper_hex()
        } else {
            mac.to_lower_hex()
        };
        let id = DeviceId(format!("{prefix}-{hex}").into());
        let [_, high, middle, low] = index.to_be_bytes();
        Self {
            id,
            mac,
            ip: Ipv4Addr::new(10, high, middle, low),
            captured_id,
            captured_mac,
        }
    }

    pub(crate) const fn id(&self) -> &DeviceId {
        &self.id
    }

    pub(crate) const fn mac(&self) -> Mac {
        self.mac
    }

    /// Replaces every mention of the captured device in `value`.
    pub(crate) fn rewrite(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.rewrite_text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.rewrite(item)),
            Value::Object(fields) => {
                for (key, field) in fields.iter_mut() {
                    match (key.as_str(), &mut *field) {
                        ("sta_ip", Value::String(ip)) => *ip = self.ip.to_string(),
                        ("sta_ip6", Value::Array(addresses)) => {
                            addresses
                                .iter_mut()
                                .for_each(|address| self.rewrite_ipv6(address));
                        }
                        _ => self.rewrite(field),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn rewrite_text(&self, text: &mut String) {
        let (old, new) = (self.captured_mac, self.mac);
        for (from, to) in [
            (self.captured_id.as_ref(), self.id.as_str()),
            (old.to_upper_hex().as_str(), new.to_upper_hex().as_str()),
            (old.to_lower_hex().as_str(), new.to_lower_hex().as_str()),
            (old.to_colons().as_str(), new.to_colons().as_str()),
        ] {
            if text.contains(from) {
                *text = text.replace(from, to);
            }
        }
    }

    /// Keeps the network half of the address (which may be written with `::`) and puts our own half behind it.
    fn rewrite_ipv6(&self, address: &mut Value) {
        let Value::String(text) = address else { return };
        let interface = self.mac.to_interface_id();
        *text = if text.starts_with("fe80::") {
            format!("fe80::{interface}")
        } else {
            let network: Vec<&str> = text.split(':').take(4).collect();
            format!("{}:{interface}", network.join(":"))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashSet;

    fn identity(index: u32) -> Identity {
        let mac = Mac::parse("8CBFEAA133F0").expect("a MAC");
        Identity::new("shellyplugsg3-8cbfeaa133f0".into(), mac, 42, index)
    }

    #[test]
    fn every_index_has_its_own_mac_and_id() {
        let mut seen = HashSet::new();
        for index in 0..50_000 {
            let identity = identity(index);
            assert!(seen.insert(identity.mac()));
            assert!(identity.id().as_str().starts_with("shellyplugsg3-8cbfea"));
        }
    }

    #[test]
    fn all_spellings_of_the_captured_device_are_rewritten() {
        let identity = identity(7);
        let mut value = json!({
            "id": "shellyplugsg3-8cbfeaa133f0", "mac": "8CBFEAA133F0", "client": "x-8cbfeaa133f0",
            "wifi": {"sta_ip": "192.168.68.55", "mac": "8C:BF:EA:A1:33:F0",
                     "sta_ip6": ["fe80::8ebf:eaff:fea1:33f0", "fd78:cbf8:4939:46e2:8ebf:eaff:fea1:33f0"]},
            "list": [null, 1, "8CBFEAA133F0"],
        });
        identity.rewrite(&mut value);
        let text = value.to_string();
        for old in [
            "8cbfeaa133f0",
            "8CBFEAA133F0",
            "8C:BF:EA:A1:33:F0",
            "fea1:33f0",
            "192.168",
        ] {
            assert!(!text.contains(old), "{old} is still in {text}");
        }
        assert_eq!(value["id"], identity.id().as_str());
        assert_eq!(value["mac"], identity.mac().to_upper_hex());
        assert_eq!(value["wifi"]["sta_ip"], "10.0.0.7");
        assert!(
            value["wifi"]["sta_ip6"][1]
                .as_str()
                .is_some_and(|ip| ip.starts_with("fd78:cbf8:4939:46e2:8ebf:eaff"))
        );
    }

    #[test]
    fn mixed_case_ids_stay_mixed_case() {
        let mac = Mac::parse("00082261E102").expect("a MAC");
        let identity = Identity::new("ShellyWallDisplay-00082261E102".into(), mac, 1, 1);
        let suffix = identity.id().as_str().trim_start_matches("ShellyWallDisplay-");
        assert_eq!(suffix, identity.mac().to_upper_hex());
    }

    #[test]
    fn broken_macs_are_refused() {
        for text in ["", "8CBFEAA133F", "8CBFEAA133FG", "8CBFEAA133F0AA", "ééééé1"] {
            assert_eq!(Mac::parse(text), None);
        }
    }
}
