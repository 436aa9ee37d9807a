//! The end of the demo: everything that was counted, compared. Pure.

use cauce_fleet::FleetStats;
use serde::Serialize;

use super::hands::Commands;
use super::outage::Outage;
use super::tally::{Percentiles, Tally};
use super::view::shown_us;

/// What a subscriber got.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Heard {
    pub(crate) user: String,
    /// `device-update` messages: for frames, and those that the broker made of itself.
    pub(crate) updates: u64,
    pub(crate) updates_for_frames: u64,
    pub(crate) updates_by_broker: u64,
    pub(crate) readings: u64,
    pub(crate) events: u64,
    pub(crate) offline: u64,
    pub(crate) missed: u64,
    pub(crate) unreadable: u64,
}

impl Heard {
    pub(crate) fn new(user: &str, tally: &Tally) -> Self {
        Self {
            user: user.to_owned(),
            updates: tally.updates(),
            updates_for_frames: tally.from_frames,
            updates_by_broker: tally.by_broker,
            readings: tally.readings,
            events: tally.events,
            offline: tally.offline,
            missed: tally.missed,
            unreadable: tally.unreadable,
        }
    }
}

/// What the database gained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rows {
    /// Devices whose state is there, whenever it came.
    pub(crate) devices: u64,
    pub(crate) readings: u64,
    pub(crate) events: u64,
}

/// One tenant.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TenantSummary {
    pub(crate) tenant: String,
    /// Devices with a last state at the start, from an earlier run.
    pub(crate) devices_restored: u64,
    /// Those, and the devices that were heard in this run.
    pub(crate) devices_known: u64,
    pub(crate) fleet: FleetStats,
    pub(crate) subscribers: Vec<Heard>,
    pub(crate) rows: Rows,
}

impl TenantSummary {
    /// Frames of the fleet that change what the broker knows.
    pub(crate) fn changing_frames(&self) -> u64 {
        changing_frames(&self.fleet)
    }
}

/// Frames that change what the broker knows: every full and every partial status, for each carries a new stamp.
pub(crate) fn changing_frames(fleet: &FleetStats) -> u64 {
    fleet.totals.full_frames + fleet.totals.greeting_frames + fleet.totals.status_frames
}

/// What the broker counted.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Counted {
    /// Frames from devices.
    pub(crate) device_frames: u64,
    /// Those and the broker's own findings that changed a device's state.
    pub(crate) device_changes: u64,
    /// Messages handed to subscribers.
    pub(crate) deliveries: u64,
    /// Rows that the database did not take in time.
    pub(crate) unwritten_rows: u64,
}

/// The whole.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) agree: bool,
    /// One line for each count that does not agree.
    pub(crate) disagreements: Vec<String>,
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
    pub(crate) data_dir: String,
    pub(crate) broker: Counted,
    /// Switchings of plugs in the second tenant.
    pub(crate) commands: Commands,
    /// The client that lost its network.
    pub(crate) outage: Outage,
    /// From the frame's making in the device to the message in the subscriber's hands.
    pub(crate) latency_us: Option<Percentiles>,
    pub(crate) tenants: Vec<TenantSummary>,
}

impl Summary {
    /// Compares, and says what does not agree.
    pub(crate) fn judge(mut self) -> Self {
        let mut wrong = Vec::new();
        let mut compare = |what: String, found: u64, wanted: u64| {
            if found != wanted {
                wrong.push(format!("{what}: {found}, should be {wanted}"));
            }
        };
        let mut updates = 0;
        let mut frames = 0;
        for tenant in &self.tenants {
            let name = &tenant.tenant;
            frames += tenant.fleet.totals.frames_sent();
            for heard in &tenant.subscribers {
                let who = format!("{name}: {}", heard.user);
                compare(
                    format!("{who}: updates for frames"),
                    heard.updates_for_frames,
                    tenant.changing_frames(),
                );
                compare(format!("{who}: messages missed"), heard.missed, 0);
                compare(format!("{who}: unreadable messages"), heard.unreadable, 0);
                compare(
                    format!("{who}: readings, by the rows"),
                    heard.readings,
                    tenant.rows.readings,
                );
                compare(
                    format!("{who}: events, by the rows"),
                    heard.events + heard.offline,
                    tenant.rows.events,
                );
            }
            if let [first, others @ ..] = &tenant.subscribers[..] {
                updates += first.updates;
                for other in others {
                    compare(
                        format!("{name}: updates of {} and {}", other.user, first.user),
                        other.updates,
                        first.updates,
                    );
                }
            }
            compare(
                format!("{name}: states in the database"),
                tenant.rows.devices,
                tenant.devices_known,
            );
        }
        compare(
            "broker: changes, by the updates".to_owned(),
            self.broker.device_changes,
            updates,
        );
        compare(
            "broker: frames of devices".to_owned(),
            self.broker.device_frames,
            frames,
        );
        compare(
            "commands answered".to_owned(),
            self.commands.answered,
            self.commands.sent,
        );
        compare(
            format!("{}: messages recovered after the outage", self.outage.user),
            self.outage.recovered,
            self.outage.missed,
        );
        compare(
            format!("{}: returns that continued", self.outage.user),
            self.outage.continued,
            self.outage.returns,
        );
        compare(
            "database: rows not taken".to_owned(),
            self.broker.unwritten_rows,
            0,
        );
        self.agree = wrong.is_empty();
        self.disagreements = wrong;
        self
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new()];
        for tenant in &self.tenants {
            let heard: Vec<String> = tenant
                .subscribers
                .iter()
                .map(|heard| format!("{} {}", heard.user, heard.updates))
                .collect();
            let by_broker = tenant
                .subscribers
                .first()
                .map_or(0, |heard| heard.updates_by_broker);
            lines.push(format!(
                "{}: {} frames of {} devices changed something, {by_broker} changes the broker found itself; updates got: {}",
                tenant.tenant,
                tenant.changing_frames(),
                tenant.fleet.devices,
                heard.join(", ")
            ));
            lines.push(format!(
                "{}: in the database {} states, {} readings, {} events",
                tenant.tenant, tenant.rows.devices, tenant.rows.readings, tenant.rows.events
            ));
        }
        lines.push(format!(
            "{} of {} commands to plugs were answered",
            self.commands.answered, self.commands.sent
        ));
        let Outage {
            user,
            seconds,
            missed,
            recovered,
            continued,
            returns,
            ..
        } = &self.outage;
        lines.push(format!(
            "{user} had no network for {seconds:.1} s and missed {missed} messages; {recovered} came afterwards, in order ({continued} of {returns} returns continued)"
        ));
        if let Some(latency) = &self.latency_us {
            lines.push(format!(
                "device to subscriber, {} messages: p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
                latency.count,
                shown_us(latency.p50),
                shown_us(latency.p90),
                shown_us(latency.p99),
                shown_us(latency.p99_9),
                shown_us(latency.max)
            ));
        }
        if self.agree {
            lines.push(
                "All counts agree: nothing lost, nothing twice, nothing in the wrong tenant.".to_owned(),
            );
        } else {
            lines.push("Counts do not agree:".to_owned());
            lines.extend(self.disagreements.iter().map(|line| format!("  {line}")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let mut fleet = FleetStats {
            devices: 3,
            ..FleetStats::default()
        };
        fleet.totals.full_frames = 3;
        fleet.totals.status_frames = 7;
        fleet.totals.event_frames = 1;
        let heard = |user: &str| Heard {
            user: user.into(),
            updates: 12,
            updates_for_frames: 10,
            updates_by_broker: 2,
            readings: 15,
            events: 1,
            offline: 3,
            missed: 0,
            unreadable: 0,
        };
        Summary {
            agree: false,
            disagreements: Vec::new(),
            seconds: 1.0,
            seed: 1,
            data_dir: "/tmp/x".into(),
            broker: Counted {
                device_frames: 11,
                device_changes: 12,
                deliveries: 24,
                unwritten_rows: 0,
            },
            commands: Commands { sent: 2, answered: 2 },
            outage: Outage {
                user: "eva".into(),
                seconds: 5.0,
                missed: 4,
                recovered: 4,
                lost: 0,
                returns: 1,
                continued: 1,
            },
            latency_us: None,
            tenants: vec![TenantSummary {
                tenant: "clinic".into(),
                devices_restored: 0,
                devices_known: 3,
                fleet,
                subscribers: vec![heard("ana"), heard("luis")],
                rows: Rows {
                    devices: 3,
                    readings: 15,
                    events: 4,
                },
            }],
        }
    }

    #[test]
    fn counts_that_agree_are_said_to() {
        let judged = summary().judge();
        assert_eq!((judged.agree, judged.disagreements.len()), (true, 0));
    }

    #[test]
    fn every_lost_doubled_or_foreign_message_shows() {
        type Spoil = fn(&mut Summary);
        let spoils: [Spoil; 13] = [
            |s| s.tenants[0].subscribers[0].updates_for_frames += 1,
            |s| s.tenants[0].subscribers[1].updates_for_frames -= 1,
            |s| s.tenants[0].subscribers[1].updates += 1,
            |s| s.tenants[0].subscribers[1].missed = 1,
            |s| s.tenants[0].subscribers[1].unreadable = 1,
            |s| s.tenants[0].rows.readings -= 1,
            |s| s.tenants[0].rows.devices -= 1,
            |s| s.tenants[0].rows.events += 1,
            |s| s.broker.device_changes += 1,
            |s| s.broker.device_frames -= 1,
            |s| s.commands.answered -= 1,
            |s| s.outage.recovered -= 1,
            |s| s.outage.continued = 0,
        ];
        for (at, spoil) in spoils.into_iter().enumerate() {
            let mut spoilt = summary();
            spoil(&mut spoilt);
            let judged = spoilt.judge();
            assert!(!judged.agree && !judged.disagreements.is_empty(), "{at}");
        }
    }
}
