//! The store: what waits for it, what it refused, how long it takes.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::http::exposition::Writer;
use crate::metrics::{Histogram, Snapshot};
use crate::store::{Health, StoreHandle};

pub(super) fn write(out: &mut Writer<'_>, store: &StoreHandle) -> fmt::Result {
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
    let demands = store.demands();
    out.gauges(
        "cauce_store_waiting",
        "Those who want something of the database, waiting or served: changes by administrators, queries, pages of durable \
         rooms, lists of notifications",
        "kind",
        demands.map(|demand| (demand.name, demand.waiting as u64)),
    )?;
    out.counters(
        "cauce_store_turned_away",
        "Those who were refused because too many waited",
        "kind",
        demands.map(|demand| (demand.name, demand.refused)),
    )?;
    let mut count = |name, help, value: &AtomicU64| out.counter(name, help, value.load(Relaxed));
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
    histogram(
        out,
        "cauce_store_flush_duration_seconds",
        "How long a transaction of rows took",
        &counters.flush,
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
    let mut count = |name, help, value: &AtomicU64| out.counter(name, help, value.load(Relaxed));
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
    histogram(
        out,
        "cauce_store_commit_duration_seconds",
        "How long a transaction of durable messages took, the sync to the disk with it",
        &counters.commit,
    )?;
    histogram(
        out,
        "cauce_durable_latency_seconds",
        "From a durable message being taken to its commit: what its publisher waits for",
        &counters.durable,
    )
}

fn histogram(out: &mut Writer<'_>, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
    let mut sum = Snapshot::default();
    histogram.read(&mut sum);
    out.histogram(name, help, &sum)
}
