//! Once a second: what happens in a tenant, to its `$admin` room; what happens on the node, to the operator's `$operator` room.
//! Only while somebody listens there.
//!
//! A tenant's room is fed from that tenant's own logbook, table and devices, and from nothing else.

use std::sync::Arc;

use bytes::Bytes;
use cauce_protocol::Payload;
use cauce_protocol::message::Text;
use serde_json::{Value, json};

use super::Hub;
use super::logbook::{Capped, Period, Visit};
use super::tenants::Tenant;
use crate::clock::Now;
use crate::metrics::{Counter, ShardMetrics};
use crate::publication::Draft;

/// Where a tenant's life can be watched.
pub const ADMIN_ROOM: &str = "$admin";

/// Where the node's can, in the tenant that the operator names.
pub const OPERATOR_ROOM: &str = "$operator";

const STATS: &str = "stats";
const OPENED: &str = "connection-opened";
const CLOSED: &str = "connection-closed";
const LOG: &str = "log";

/// What the last look at the node saw. Belongs to whoever looks every second.
#[derive(Debug, Default)]
pub struct Watching {
    /// When it was, monotonic milliseconds; 0 before the first.
    at_ms: u64,
    node: Option<Totals>,
}

/// Counters that only rise.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    messages: u64,
    deliveries: u64,
    device_frames: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Totals {
    fn of(hub: &Hub) -> Self {
        let total = |counter: fn(&ShardMetrics) -> &Counter| hub.metrics.total(counter);
        Self {
            messages: total(|m| &m.publications),
            deliveries: total(|m| &m.deliveries),
            device_frames: total(|m| &m.device_frames),
            bytes_in: total(|m| &m.bytes_in),
            bytes_out: total(|m| &m.bytes_out),
        }
    }
}

impl Hub {
    /// Tells those who watch what has happened since the last look. To be called every second. `operator` is the tenant in
    /// which the node itself can be watched.
    pub fn tell_watchers(&self, watching: &mut Watching, operator: Option<&Tenant>) {
        let now = self.clock.now();
        let elapsed_ms = now.mono_ms.saturating_sub(watching.at_ms).max(1);
        watching.at_ms = now.mono_ms;
        self.tenants.for_each(|tenant| {
            let wanted = is_heard(tenant, ADMIN_ROOM);
            // What was written while nobody knew that somebody came is no full period: begin with the next.
            if tenant.logbook.watch(wanted) && wanted {
                self.tell_tenant(tenant, now, elapsed_ms);
            } else {
                drop(tenant.logbook.take());
            }
        });
        match operator.filter(|tenant| is_heard(tenant, OPERATOR_ROOM)) {
            None => {
                watching.node = None;
                self.log_lines.watch(false);
            }
            Some(tenant) => {
                self.log_lines.watch(true);
                let totals = Totals::of(self);
                if let Some(before) = watching.node.replace(totals) {
                    self.tell_operator(tenant, now, elapsed_ms, before, totals);
                }
            }
        }
    }

    fn tell_tenant(&self, tenant: &Arc<Tenant>, now: Now, elapsed_ms: u64) {
        let period = tenant.logbook.take();
        let mut devices_online = 0_u64;
        tenant.for_each_device(|device| devices_online += u64::from(device.lock().link.is_some()));
        let stats = json!({
            "unix_ms": now.unix_ms,
            "connections": tenant.connections(),
            "users": tenant.users_len(),
            "devices": tenant.devices_len(),
            "devices_online": devices_online,
            "rooms": tenant.rooms.len(),
            "opened": period.opened.len(),
            "closed": period.closed.len(),
            "messages_per_second": per_second(period.messages, elapsed_ms),
            "deliveries_per_second": per_second(period.deliveries, elapsed_ms),
        });
        self.tell(tenant, ADMIN_ROOM, STATS, &stats);
        for (event, visits) in [(OPENED, &period.opened), (CLOSED, &period.closed)] {
            if !visits.is_empty() {
                self.tell(tenant, ADMIN_ROOM, event, &listed(visits));
            }
        }
        let lines = lines(&period);
        if !lines.is_empty() {
            let log = json!({ "unix_ms": now.unix_ms, "lines": lines });
            self.tell(tenant, ADMIN_ROOM, LOG, &log);
        }
    }

    fn tell_operator(&self, tenant: &Tenant, now: Now, elapsed_ms: u64, before: Totals, totals: Totals) {
        let rate = |count: fn(&Totals) -> u64| per_second(count(&totals) - count(&before), elapsed_ms);
        let (mut tenants, mut clients, mut devices, mut rooms) = (0_u64, 0, 0, 0);
        self.tenants.for_each(|tenant| {
            tenants += 1;
            clients += tenant.connections();
            devices += tenant.devices_len();
            rooms += tenant.rooms.len();
        });
        let total = |counter: fn(&ShardMetrics) -> &Counter| self.metrics.total(counter);
        let shards: Vec<Value> = self
            .shards
            .iter()
            .enumerate()
            .map(
                |(shard, mailbox)| json!({ "connections": self.load(shard), "queued_bytes": mailbox.used() }),
            )
            .collect();
        let stats = json!({
            "unix_ms": now.unix_ms,
            "draining": self.leaving.has_begun(),
            "tenants": tenants,
            "connections": self.door.total(),
            "clients": clients,
            "devices": devices,
            "devices_online": total(|m| &m.devices_opened).saturating_sub(total(|m| &m.devices_closed)),
            "rooms": rooms,
            "messages_per_second": rate(|t| t.messages),
            "deliveries_per_second": rate(|t| t.deliveries),
            "device_frames_per_second": rate(|t| t.device_frames),
            "received_bytes_per_second": rate(|t| t.bytes_in),
            "sent_bytes_per_second": rate(|t| t.bytes_out),
            "shards": shards,
        });
        self.tell(tenant, OPERATOR_ROOM, STATS, &stats);
        let (lines, more) = self.log_lines.take();
        if !lines.is_empty() {
            let lines: Vec<Value> = lines
                .iter()
                .map(|line| {
                    json!({ "unix_ms": line.unix_ms, "level": line.level, "target": line.target, "text": line.text })
                })
                .collect();
            let log = json!({ "unix_ms": now.unix_ms, "lines": lines, "more": more });
            self.tell(tenant, OPERATOR_ROOM, LOG, &log);
        }
    }

    fn tell(&self, tenant: &Tenant, room: &str, event: &'static str, said: &Value) {
        let json = Bytes::from(said.to_string());
        let draft = Draft::new(Text::from_static(event), Payload::Json(json));
        if let Some(Err(refusal)) = self.publish_if_open(tenant, room, draft) {
            // The next second has new figures.
            tracing::debug!(tenant = %tenant.id, room, %refusal, "watchers were not told");
        }
    }
}

fn is_heard(tenant: &Tenant, room: &str) -> bool {
    tenant.rooms.get(room).is_some_and(|room| room.subscribers() > 0)
}

fn per_second(count: u64, elapsed_ms: u64) -> f64 {
    // One decimal says enough.
    (count as f64 * 10_000.0 / elapsed_ms as f64).round() / 10.0
}

fn listed(visits: &Capped) -> Value {
    let item = |visit: &Visit| {
        let mut item = json!({ "connection": visit.connection.0, "user": visit.user });
        if let Some(client) = &visit.client {
            item["client"] = json!(client);
        }
        if let Some(code) = visit.code {
            item["code"] = json!(code.number());
            item["name"] = json!(code.name());
        }
        item
    };
    let items: Vec<Value> = visits.items.iter().map(item).collect();
    json!({ "items": items, "more": visits.more })
}

/// What a tenant's administrator should know: as many lines as there are reasons, each with how often.
fn lines(period: &Period) -> Vec<Value> {
    let refused = period
        .refused
        .iter()
        .map(|&(code, count)| ("messages were refused", code, count));
    let ended = period
        .ended
        .iter()
        .map(|&(code, count)| ("connections were closed", code, count));
    refused
        .chain(ended)
        .map(|(text, code, count)| {
            json!({ "level": "WARN", "text": text, "code": code.number(), "name": code.name(), "count": count })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_second_however_long_the_period_was() {
        assert_eq!(per_second(10, 1_000), 10.0);
        assert_eq!(per_second(10, 4_000), 2.5);
        assert_eq!(per_second(1, 3_000), 0.3);
        assert_eq!(per_second(0, 1), 0.0);
    }
}
