//! What goes through the node: messages and how long they took, devices, calls, presence.

use std::fmt;

use super::Node;
use crate::http::exposition::Writer;
use crate::hub::PublishLimit;
use crate::metrics::{Counter, ShardMetrics, Snapshot};
use crate::publication::Source;

impl Node {
    pub(super) fn traffic(&self, out: &mut Writer<'_>) -> fmt::Result {
        let counters = &self.0.counters;
        let mut sum =
            |name, help, counter: fn(&ShardMetrics) -> &Counter| out.counter(name, help, self.total(counter));
        sum("cauce_messages_received", "WebSocket messages that came", |m| {
            &m.messages_in
        })?;
        sum("cauce_received_bytes", "Bytes that came over WebSocket", |m| {
            &m.bytes_in
        })?;
        sum("cauce_sent_bytes", "Bytes handed to sockets", |m| &m.bytes_out)?;
        sum("cauce_writes", "Calls that handed bytes to sockets", |m| {
            &m.writes
        })?;
        sum("cauce_requests", "Requests of clients", |m| &m.requests)?;
        sum("cauce_deliveries", "Messages handed to subscribers", |m| {
            &m.deliveries
        })?;
        sum(
            "cauce_fell_behind",
            "Subscribers that read too slowly and went on from the room's history",
            |m| &m.fell_behind,
        )?;
        sum(
            "cauce_recovered",
            "Messages given from history to those who came back or fell behind",
            |m| &m.recovered,
        )?;
        sum("cauce_gaps", "Losses that subscribers were told", |m| &m.gaps)?;
        sum("cauce_lost", "Messages that those losses add up to", |m| &m.lost)?;
        out.counters(
            "cauce_requests_refused",
            "Requests of clients that were refused by reason",
            "code",
            self.0
                .hub
                .metrics
                .total_by_code(|m| &m.refusals)
                .map(|(code, n)| (code.name(), n)),
        )?;
        out.counters(
            "cauce_publications",
            "Messages taken by the door they came through",
            "door",
            [
                ("socket", self.total(|m| &m.publications)),
                ("api", counters.publications.value()),
            ],
        )?;
        out.counters(
            "cauce_publications_refused",
            "Messages refused by the door they came through",
            "door",
            [
                ("socket", self.total(|m| &m.publications_refused)),
                ("api", counters.publications_refused.value()),
            ],
        )?;
        out.counters(
            "cauce_publications_limited",
            "Messages refused by a limit on publishing, by its name",
            "limit",
            PublishLimit::ALL
                .iter()
                .zip(&self.0.hub.metrics.publish_limited)
                .map(|(limit, counter)| (limit.name(), counter.value())),
        )?;
        out.counters(
            "cauce_notices",
            "Pushes of notifications and of what was read: made, left out for a congested reader of low priority, left out for a \
             full queue",
            "outcome",
            [
                ("pushed", self.total(|m| &m.notices_pushed)),
                ("gave_way", self.total(|m| &m.notices_gave_way)),
                ("unpushed", self.total(|m| &m.notices_unpushed)),
            ],
        )?;
        self.latency(out)
    }

    fn latency(&self, out: &mut Writer<'_>) -> fmt::Result {
        let shards = &self.0.hub.metrics.shards;
        let by_source = Source::ALL.map(|source| {
            let mut sum = Snapshot::default();
            shards
                .iter()
                .for_each(|shard| shard.latency.read(source, &mut sum));
            (source.name(), sum)
        });
        out.histograms(
            "cauce_delivery_latency_seconds",
            "From the broker's taking a message to its bytes being offered to the subscriber's socket, one count a delivery, \
             by where the message came from. What is in history first, or waits for a reader that takes nothing, is not in it",
            "source",
            &by_source,
        )?;
        let mut stalls = Snapshot::default();
        shards.iter().for_each(|shard| shard.stalls.read(&mut stalls));
        out.histogram(
            "cauce_reader_stall_seconds",
            "From a socket's taking no more to all that waited for it being written",
            &stalls,
        )
    }

    pub(super) fn devices(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut sum =
            |name, help, counter: fn(&ShardMetrics) -> &Counter| out.counter(name, help, self.total(counter));
        sum("cauce_device_frames", "Frames of devices", |m| &m.device_frames)?;
        sum(
            "cauce_device_changes",
            "Frames of devices that changed something",
            |m| &m.device_changes,
        )?;
        sum(
            "cauce_device_frames_malformed",
            "Frames of devices that could not be read",
            |m| &m.device_frames_malformed,
        )?;
        sum(
            "cauce_device_frames_throttled",
            "Frames of devices that came too fast",
            |m| &m.device_frames_throttled,
        )?;
        let (mut tenants, mut rooms, mut history, mut full, mut devices) = (0, 0, 0, 0, 0);
        self.0.hub.tenants.for_each(|tenant| {
            tenants += 1;
            rooms += tenant.rooms.len() as u64;
            history += tenant.rooms.history_bytes() as u64;
            full += u64::from(tenant.rooms.is_history_full());
            devices += tenant.devices_len() as u64;
        });
        out.gauge("cauce_tenants", "Tenants", tenants)?;
        out.gauge("cauce_rooms", "Rooms that exist now", rooms)?;
        out.gauge(
            "cauce_history_bytes",
            "Bytes of history that rooms keep in memory",
            history,
        )?;
        out.gauge(
            "cauce_history_full_tenants",
            "Tenants whose rooms keep less than their classes say because the tenant's memory for history is taken",
            full,
        )?;
        out.gauge("cauce_devices", "Devices that are known", devices)
    }

    pub(super) fn calls(&self, out: &mut Writer<'_>) -> fmt::Result {
        let calls = &self.0.hub.metrics.calls;
        out.gauge(
            "cauce_calls_outstanding",
            "Calls of methods that have no answer yet",
            calls.outstanding(),
        )?;
        out.counters(
            "cauce_calls",
            "Calls of methods by how they ended",
            "end",
            calls.ends().map(|(end, n)| (end.name(), n)),
        )?;
        out.counter(
            "cauce_calls_retried",
            "Calls given to another server because the one before was lost",
            calls.retried.value(),
        )
    }

    pub(super) fn presence(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut sum =
            |name, help, counter: fn(&ShardMetrics) -> &Counter| out.counter(name, help, self.total(counter));
        sum(
            "cauce_presence_changes",
            "Changes of who is in a room that were handed to watchers",
            |m| &m.presence_changes,
        )?;
        sum(
            "cauce_presence_truncated",
            "Those among them that told counts because names were too many or had been missed",
            |m| &m.presence_truncated,
        )?;
        sum(
            "cauce_presence_missed",
            "Changes of who is in a room that a watcher did not get because he reads slowly",
            |m| &m.presence_missed,
        )?;
        out.gauge(
            "cauce_presence_users",
            "Users in rooms that keep presence; one in two rooms counts twice",
            self.0.hub.presence.present() as u64,
        )
    }
}
