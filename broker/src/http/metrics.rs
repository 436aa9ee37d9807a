//! `/metrics`: the node's counters in the text form of Prometheus. No name or label says anything about a tenant.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cauce_protocol::Code;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use super::Api;
use super::answer::Refused;
use super::exposition::{Writer, classic};
use super::process::ProcessFigures;
use crate::hub::PublishLimit;
use crate::metrics::{Counter, LATENCY_BOUNDS_US, ShardMetrics};
use crate::store::{COMMIT_BUCKETS_US, FLUSH_BUCKETS_MS, Health, StoreHandle};

/// The older text form, which every tool reads.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The newer one, for who asks for it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers by the hundred of their status.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What the API counts.
#[derive(Debug, Default)]
pub(super) struct HttpCounters {
    answers: [Counter; CLASSES.len()],
    pub(super) unauthenticated: Counter,
    pub(super) publications: Counter,
    pub(super) publications_refused: Counter,
}

impl HttpCounters {
    pub(super) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len());
        self.answers[class - 1].increment();
    }
}

/// Counters and gauges in the form of Prometheus; OpenMetrics for who asks for it.
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Refused> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Node(api)));
    let mut text = String::with_capacity(16 * 1024);
    prometheus_client::encoding::text::encode(&mut text, &registry).map_err(|error| {
        tracing::error!(%error, "metrics cannot be written");
        Refused::new(Code::Internal, "the metrics could not be written; see the log")
    })?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    Ok(match accept {
        Some(accept) if accept.contains("application/openmetrics-text") => {
            ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
        }
        _ => ([(header::CONTENT_TYPE, CLASSIC)], classic(&text)).into_response(),
    })
}

/// Reads all counters at each scrape.
#[derive(Debug)]
struct Node(Api);

impl Collector for Node {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        self.connections(&mut out)?;
        self.traffic(&mut out)?;
        self.devices(&mut out)?;
        self.calls(&mut out)?;
        self.presence(&mut out)?;
        self.shards(&mut out)?;
        self.http(&mut out)?;
        if let Some(store) = self.0.admin.store() {
            write_store(&mut out, store)?;
        }
        write_process(&mut out)
    }
}

impl Node {
    fn total(&self, counter: impl Fn(&ShardMetrics) -> &Counter) -> u64 {
        self.0.hub.metrics.total(counter)
    }

    fn connections(&self, out: &mut Writer<'_>) -> fmt::Result {
        let hub = &self.0.hub;
        // The totals have devices in them.
        let opened = self.total(|m| &m.connections_opened);
        let devices_opened = self.total(|m| &m.devices_opened);
        let devices = devices_opened.saturating_sub(self.total(|m| &m.devices_closed));
        let all = opened.saturating_sub(self.total(|m| &m.connections_closed));
        let clients = all.saturating_sub(devices);
        let others = (hub.door.total() as u64).saturating_sub(clients + devices);
        out.gauges(
            "cauce_connections",
            "Open connections by kind; other are those that have not said yet what they want, and HTTP",
            "kind",
            [("client", clients), ("device", devices), ("other", others)],
        )?;
        out.counters(
            "cauce_connections_opened",
            "Connections that have been opened by kind",
            "kind",
            [
                ("client", opened.saturating_sub(devices_opened)),
                ("device", devices_opened),
            ],
        )?;
        let accept = &hub.metrics.accept;
        out.counter(
            "cauce_accepts",
            "Sockets let in at the door",
            accept.accepted.value(),
        )?;
        out.counter(
            "cauce_accepts_refused",
            "Sockets turned away at the door: too many or too fast",
            accept.refused.value(),
        )?;
        out.counter(
            "cauce_accept_errors",
            "Failures to accept, for want of file descriptors as a rule",
            accept.errors.value(),
        )?;
        out.counter(
            "cauce_handshakes_refused",
            "Handshakes that were refused",
            self.total(|m| &m.handshakes_refused),
        )?;
        let closes = Code::ALL.iter().enumerate().map(|(at, code)| {
            let shards = hub.metrics.shards.iter();
            let closed = shards.filter_map(|shard| shard.closes().nth(at)).map(|(_, n)| n);
            (code.name(), closed.sum())
        });
        out.counters(
            "cauce_closes",
            "Connections that the broker closed by reason",
            "code",
            closes,
        )
    }

    fn calls(&self, out: &mut Writer<'_>) -> fmt::Result {
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

    fn traffic(&self, out: &mut Writer<'_>) -> fmt::Result {
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
        sum(
            "cauce_requests_refused",
            "Requests of clients that were refused",
            |m| &m.requests_refused,
        )?;
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
            "Messages refused by a limit on publishing, by its setting",
            "limit",
            PublishLimit::ALL
                .iter()
                .zip(&self.0.hub.metrics.publish_limited)
                .map(|(limit, counter)| (limit.setting(), counter.value())),
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
        let mut buckets = [0; LATENCY_BOUNDS_US.len() + 1];
        let mut sum_us = 0;
        for shard in &self.0.hub.metrics.shards {
            let (counts, us) = shard.latency.snapshot();
            buckets.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
            sum_us += us;
        }
        let bounds = LATENCY_BOUNDS_US.map(|us| us as f64 / 1e6);
        out.histogram(
            "cauce_delivery_latency_seconds",
            "From the broker taking a message to its bytes being handed to the kernel",
            sum_us as f64 / 1e6,
            &bounds,
            &buckets,
        )
    }

    fn devices(&self, out: &mut Writer<'_>) -> fmt::Result {
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
        let (mut tenants, mut rooms, mut history, mut devices) = (0, 0, 0, 0);
        self.0.hub.tenants.for_each(|tenant| {
            tenants += 1;
            rooms += tenant.rooms.len() as u64;
            history += tenant.rooms.history_bytes() as u64;
            devices += tenant.devices_len() as u64;
        });
        out.gauge("cauce_tenants", "Tenants", tenants)?;
        out.gauge("cauce_rooms", "Rooms that exist now", rooms)?;
        out.gauge(
            "cauce_history_bytes",
            "Bytes of history that rooms keep in memory",
            history,
        )?;
        out.gauge("cauce_devices", "Devices that are known", devices)
    }

    fn presence(&self, out: &mut Writer<'_>) -> fmt::Result {
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

    fn shards(&self, out: &mut Writer<'_>) -> fmt::Result {
        let hub = &self.0.hub;
        let each = |figure: &dyn Fn(usize) -> u64| -> Vec<(String, u64)> {
            (0..hub.plan.total())
                .map(|shard| (shard.to_string(), figure(shard)))
                .collect()
        };
        out.gauges(
            "cauce_shard_connections",
            "Connections placed on a shard",
            "shard",
            each(&|shard| hub.load(shard) as u64),
        )?;
        out.gauges(
            "cauce_shard_queue_bytes",
            "Bytes that wait for a shard",
            "shard",
            each(&|shard| hub.shards[shard].used() as u64),
        )?;
        out.gauges(
            "cauce_shard_queue_limit_bytes",
            "Bytes that may wait for a shard",
            "shard",
            each(&|shard| hub.shards[shard].capacity() as u64),
        )?;
        out.counters(
            "cauce_shard_turns",
            "Turns of a shard's loop that found work",
            "shard",
            each(&|shard| hub.metrics.shards[shard].turns.value()),
        )
    }

    fn http(&self, out: &mut Writer<'_>) -> fmt::Result {
        let counters = &self.0.counters;
        let answers = CLASSES
            .iter()
            .zip(&counters.answers)
            .map(|(class, n)| (*class, n.value()));
        out.counters(
            "cauce_http_requests",
            "Requests to the API by kind of answer",
            "status",
            answers,
        )?;
        out.counter(
            "cauce_http_requests_unauthenticated",
            "Requests to the API without a valid key",
            counters.unauthenticated.value(),
        )?;
        let version = env!("CARGO_PKG_VERSION");
        out.gauges(
            "cauce_build_info",
            "Always 1; the label says what runs",
            "version",
            [(version, 1)],
        )?;
        let seconds = self.0.hub.clock.now().mono_ms.saturating_sub(1_000) / 1_000;
        out.gauge("cauce_uptime_seconds", "Since the broker started", seconds)
    }
}

fn write_store(out: &mut Writer<'_>, store: &StoreHandle) -> fmt::Result {
    let counters = store.counters();
    let queued = store.queued();
    out.gauge(
        "cauce_store_healthy",
        "1 if rows reach the database, 0 if they wait because of a trouble",
        u64::from(store.health() == Health::Ready),
    )?;
    out.gauge(
        "cauce_store_pending_rows",
        "Rows that wait for the database",
        queued.rows,
    )?;
    out.gauge(
        "cauce_store_pending_bytes",
        "Bytes that wait for the database",
        queued.bytes,
    )?;
    out.counters(
        "cauce_store_rows_written",
        "Rows in the database by table",
        "table",
        [
            ("devices", counters.device_states_written.load(Relaxed)),
            ("device_readings", counters.readings_written.load(Relaxed)),
            ("device_events", counters.events_written.load(Relaxed)),
            ("audit", counters.audit_written.load(Relaxed)),
            ("connection_logs", counters.connection_logs_written.load(Relaxed)),
        ],
    )?;
    out.counters(
        "cauce_store_rows_refused",
        "Rows that were not taken by reason",
        "reason",
        [
            ("closed", counters.refused_closed.load(Relaxed)),
            ("full", counters.refused_full.load(Relaxed)),
            ("tenant_full", counters.refused_tenant_full.load(Relaxed)),
            ("too_large", counters.refused_too_large.load(Relaxed)),
            ("database", counters.refused_by_database.load(Relaxed)),
        ],
    )?;
    out.gauge(
        "cauce_notifications_waiting",
        "Notifications and marks of what was read that wait for the database",
        store.notifications_waiting() as u64,
    )?;
    out.counters(
        "cauce_notifications",
        "Notifications and marks of what was read by what became of them; a repeat had an idempotency key that was known",
        "outcome",
        [
            ("stored", counters.notifications_stored.load(Relaxed)),
            ("repeated", counters.notifications_repeated.load(Relaxed)),
            ("marked", counters.notification_marks.load(Relaxed)),
            ("refused", counters.notifications_refused.load(Relaxed)),
        ],
    )?;
    let mut count =
        |name, help, value: &std::sync::atomic::AtomicU64| out.counter(name, help, value.load(Relaxed));
    count(
        "cauce_store_states_replaced",
        "States that a newer one of the same device made needless",
        &counters.states_replaced,
    )?;
    count(
        "cauce_store_retries",
        "Attempts after an error",
        &counters.retries,
    )?;
    count("cauce_store_errors", "Errors of the database", &counters.errors)?;
    count(
        "cauce_store_retention_deleted_rows",
        "Rows deleted because of their age",
        &counters.retention_deleted,
    )?;
    count(
        "cauce_store_admin_writes",
        "Changes by administrators that were committed",
        &counters.admin_writes,
    )?;
    count(
        "cauce_store_admin_refused",
        "Changes by administrators that failed",
        &counters.admin_refused,
    )?;
    let buckets: Vec<u64> = counters
        .flush_ms
        .iter()
        .map(|bucket| bucket.load(Relaxed))
        .collect();
    let bounds = FLUSH_BUCKETS_MS.map(|ms| ms as f64 / 1e3);
    out.histogram(
        "cauce_store_flush_duration_seconds",
        "How long a transaction took",
        counters.flush_ms_sum.load(Relaxed) as f64 / 1e3,
        &bounds,
        &buckets,
    )?;
    write_messages(out, store)
}

fn write_messages(out: &mut Writer<'_>, store: &StoreHandle) -> fmt::Result {
    let counters = store.counters();
    let queued = store.messages_queued();
    out.gauge(
        "cauce_store_messages_pending",
        "Durable messages that wait for their commit",
        queued.rows,
    )?;
    out.gauge(
        "cauce_store_messages_pending_bytes",
        "Bytes of durable messages that wait or have a place reserved",
        queued.bytes,
    )?;
    let mut count =
        |name, help, value: &std::sync::atomic::AtomicU64| out.counter(name, help, value.load(Relaxed));
    count(
        "cauce_store_messages_written",
        "Durable messages that were committed",
        &counters.messages_written,
    )?;
    count(
        "cauce_store_commits",
        "Transactions of durable messages",
        &counters.commits,
    )?;
    count(
        "cauce_store_messages_late",
        "Publishers who were told that their message may or may not be committed",
        &counters.messages_late,
    )?;
    count(
        "cauce_store_messages_trimmed",
        "Durable messages deleted because their room keeps no more",
        &counters.messages_trimmed,
    )?;
    count(
        "cauce_store_rooms_forgotten",
        "Durable rooms that were empty and unused for long",
        &counters.rooms_forgotten,
    )?;
    out.counters(
        "cauce_store_messages_refused",
        "Durable messages that were not taken by reason",
        "reason",
        [
            ("closed", counters.messages_refused_closed.load(Relaxed)),
            ("full", counters.messages_refused_full.load(Relaxed)),
            ("tenant_full", counters.messages_refused_tenant_full.load(Relaxed)),
            ("too_large", counters.messages_refused_too_large.load(Relaxed)),
            ("database", counters.messages_given_up.load(Relaxed)),
        ],
    )?;
    let buckets: Vec<u64> = counters
        .commit_us
        .iter()
        .map(|bucket| bucket.load(Relaxed))
        .collect();
    let bounds = COMMIT_BUCKETS_US.map(|us| us as f64 / 1e6);
    out.histogram(
        "cauce_store_commit_duration_seconds",
        "From the hand-over of a durable message to its commit",
        counters.commit_us_sum.load(Relaxed) as f64 / 1e6,
        &bounds,
        &buckets,
    )
}

fn write_process(out: &mut Writer<'_>) -> fmt::Result {
    let figures = ProcessFigures::read();
    if let Some(seconds) = figures.cpu_seconds {
        out.counter("process_cpu_seconds", "CPU time of the process", seconds)?;
    }
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Memory of the process that is in RAM",
            figures.resident_bytes,
        ),
        ("process_open_fds", "Open file descriptors", figures.open_fds),
        (
            "process_max_fds",
            "File descriptors that the process may open",
            figures.fds_max,
        ),
        ("process_threads", "Threads of the process", figures.threads),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            out.gauge(name, help, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_their_hundred() {
        let counters = HttpCounters::default();
        for status in [200, 204, 404, 503] {
            counters.answered(StatusCode::from_u16(status).unwrap());
        }
        assert_eq!(counters.answers.each_ref().map(Counter::value), [0, 2, 0, 1, 1]);
    }
}
