//! `/metrics`: the node's counters in the text form of Prometheus. No name or label says anything about a tenant.

mod store;
mod traffic;

use std::fmt;

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
use crate::metrics::{ByCode, Counter, ShardMetrics};

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
    refusals: ByCode,
    pub(super) unauthenticated: Counter,
    pub(super) publications: Counter,
    pub(super) publications_refused: Counter,
}

impl HttpCounters {
    /// A request was answered, and refused for a reason if there is one.
    pub(super) fn answered(&self, status: StatusCode, refused: Option<Code>) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len());
        self.answers[class - 1].increment();
        if let Some(code) = refused {
            self.refusals.increment(code);
        }
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
            store::write(&mut out, store)?;
        }
        process(&mut out)
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
        out.counters(
            "cauce_closes",
            "Connections that the broker closed by reason",
            "code",
            hub.metrics
                .total_by_code(|m| &m.closes)
                .map(|(code, n)| (code.name(), n)),
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
            "cauce_shard_queue_refused",
            "Messages for which a shard's queue had no room",
            "shard",
            each(&|shard| hub.shards[shard].refused() as u64),
        )?;
        let mut share_refused = 0;
        hub.tenants
            .for_each(|tenant| share_refused += tenant.share.refused() as u64);
        out.counter(
            "cauce_tenant_queue_refused",
            "Messages for which a tenant's part of a shard's queue had no room",
            share_refused,
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
        out.counters(
            "cauce_http_requests_refused",
            "Requests to the API that were refused by reason",
            "code",
            counters.refusals.iter().map(|(code, n)| (code.name(), n)),
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

/// What the operating system says of the process, under the names that everybody has for it.
fn process(out: &mut Writer<'_>) -> fmt::Result {
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
            counters.answered(StatusCode::from_u16(status).unwrap(), None);
        }
        counters.answered(StatusCode::SERVICE_UNAVAILABLE, Some(Code::Overloaded));
        let refused: Vec<_> = counters.refusals.iter().filter(|&(_, n)| n > 0).collect();
        assert_eq!(refused, [(Code::Overloaded, 1)]);
        assert_eq!(counters.answers.each_ref().map(Counter::value), [0, 2, 0, 1, 2]);
    }
}
