//! A plug that reports every minute, as captured: what a report costs until the update is written that subscribers get.

use bytes::Bytes;
use cauce_broker::clock::Now;
use cauce_broker::shelly::{Device, Identity, Session};

const FULL: &str =
    include_str!("../../../loadtest/fleet/fixtures/frames/mqtt_plusplugs_fullstatus_fw1.0.json");

/// 2026-11-23.
const NOW: Now = Now {
    mono_ms: 1_000_000,
    unix_ms: 1_795_000_000_000,
};

const SESSION: Session = Session::new(1);

/// A device that has told its whole status.
pub(crate) struct Plug {
    device: Device,
    reports: [String; 2],
    next: usize,
}

impl Plug {
    pub(crate) fn new() -> Self {
        let identity = Identity::parse("shellyplusplugs-80646fd031f8").expect("a good name");
        let mut device = Device::new(identity);
        device.connect(SESSION, NOW).expect("its first session");
        let full = device.handle_frame(SESSION, NOW, FULL.trim().as_bytes());
        assert!(full.malformed.is_none() && full.changes.is_some(), "{full:?}");
        Self {
            device,
            reports: [
                report("27.3", "0.123", "30473.801"),
                report("28.1", "0.127", "30474.262"),
            ],
            next: 0,
        }
    }

    /// The next minute's report, merged. Two alternate, so that each changes something.
    pub(crate) fn merge(&mut self) -> usize {
        let report = self.reports[self.next].as_bytes();
        self.next ^= 1;
        let outcome = self.device.handle_frame(SESSION, NOW, report);
        outcome.changes.map_or(0, |changes| changes.delta.len())
    }

    /// The same, and the update of it.
    pub(crate) fn merge_and_write(&mut self) -> Bytes {
        let report = self.reports[self.next].as_bytes();
        self.next ^= 1;
        let outcome = self.device.handle_frame(SESSION, NOW, report);
        let changes = outcome.changes.expect("each report changes something");
        self.device.update(&changes)
    }
}

fn report(power: &str, current: &str, energy: &str) -> String {
    format!(
        r#"{{"src":"shellyplusplugs-80646fd031f8","dst":"cauce","method":"NotifyStatus","params":{{"ts":1783004880.01,"switch:0":{{"id":0,"aenergy":{{"by_minute":[446.2,461.0,455.8],"minute_ts":1783004880,"total":{energy}}},"apower":{power},"current":{current},"voltage":233.3,"temperature":{{"tC":36.1,"tF":97.0}}}}}}}}"#
    )
}
