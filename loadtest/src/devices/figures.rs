//! The figures of plugs beside rooms, put to those of the rooms.

use super::Looks;
use super::plugs::Sent;
use super::watch::Heard;
use crate::report::{Better, Figures, Outcome, Unit, Verdict, micros};
use crate::scenario::Scenario;

/// Frames that are made later than this (99th percentile), in microseconds, are the generator's fault: a tenth of what we
/// promise from device to subscriber. Less is part of the latency that is shown.
const LATE_US_MAX: f64 = 500.0;

/// Puts the plugs' figures to the outcome of the rooms beside which they spoke.
pub(super) fn put(
    mut outcome: Outcome,
    scenario: &Scenario,
    sent: &Sent,
    heard: &Heard,
    looks: &Looks,
) -> Outcome {
    let length = scenario.load.seconds;
    let mut figures = Figures::default();
    let rate = |count: u64| count as f64 / length;
    figures.put(
        "device_frames_per_second",
        rate(sent.in_window),
        Unit::PerSecond,
        Better::Higher,
    );
    figures.put(
        "device_updates_per_second",
        rate(heard.in_window),
        Unit::PerSecond,
        Better::Higher,
    );
    figures.percentiles("device_", &heard.latency);
    figures.count("device_measured", heard.latency.len());
    figures.count("device_frames", sent.stamped.iter().sum());
    figures.count("device_answers", sent.frames - sent.stamped.iter().sum::<u64>());
    figures.count("device_updates", heard.updates);
    figures.count("device_updates_by_broker", heard.others);
    figures.fault("device_lost", heard.lost);
    figures.fault("device_duplicates", heard.duplicates);
    figures.fault("device_reordered", heard.reordered);
    figures.fault("device_sequence_breaks", heard.sequence_breaks);
    figures.fault("device_told_lost", heard.told_lost);
    figures.fault("device_foreign", heard.foreign);
    figures.fault("device_disconnected", sent.disconnected + heard.disconnected);
    let mut handshakes = sent.handshakes.clone();
    handshakes.add(&heard.handshakes);
    figures.handshakes("device_", &handshakes);
    let late = micros(sent.lateness.value_at_quantile(0.99));
    figures.put("device_lateness_p99", late, Unit::Micros, Better::Lower);
    figures.put(
        "device_lateness_max",
        micros(sent.lateness.max()),
        Unit::Micros,
        Better::Lower,
    );
    let spent = [("plugs_cpu", sent.spent), ("watchers_cpu", heard.spent)];
    let spent = spent.map(|(name, spent)| (name, spent.as_secs_f64() / length));
    for (name, cores) in spent {
        figures.put(name, cores, Unit::Cores, Better::Neither);
    }
    store(&mut figures, looks);
    outcome.metrics.extend(figures.0);
    leave_out(&mut outcome, spent.iter().map(|(_, cores)| cores).sum());
    outcome.verdict = verdict(
        outcome.verdict,
        (late > LATE_US_MAX).then_some(late),
        faults(sent, heard, looks),
    );
    let reasons = sent.reasons.iter().chain(&heard.reasons);
    outcome
        .notes
        .extend(reasons.map(|(why, count)| format!("{count} × {why}")));
    if heard.foreign > 0 {
        outcome
            .notes
            .push("other devices spoke in the tenant meanwhile".to_owned());
    }
    if looks.drained_seconds.is_none() {
        outcome
            .notes
            .push("the store did not write what waited in time".to_owned());
    }
    outcome
}

/// What the broker says of its store.
fn store(figures: &mut Figures, looks: &Looks) {
    let Looks {
        before,
        loaded,
        still_loaded,
        seconds,
        after,
        drained_seconds,
    } = looks;
    let count = |from: f64, until: f64| (until - from).max(0.0) as u64;
    figures.count("broker_device_frames", count(before.frames, after.frames));
    figures.count("broker_device_changes", count(before.changes, after.changes));
    figures.fault(
        "broker_device_throttled",
        count(before.throttled, after.throttled),
    );
    figures.fault(
        "broker_device_malformed",
        count(before.malformed, after.malformed),
    );
    figures.put(
        "store_readings_per_second",
        (still_loaded.readings - loaded.readings) / seconds,
        Unit::PerSecond,
        Better::Higher,
    );
    figures.put(
        "store_rows_per_second",
        (still_loaded.rows - loaded.rows) / seconds,
        Unit::PerSecond,
        Better::Higher,
    );
    figures.count("store_readings", count(before.readings, after.readings));
    figures.fault("store_refused", count(before.refused, after.refused));
    figures.put("store_backlog", still_loaded.pending, Unit::Count, Better::Lower);
    if let Some(drained) = drained_seconds {
        figures.put("store_drained_in", *drained, Unit::Seconds, Better::Lower);
    }
    let flushes = still_loaded.flushes - loaded.flushes;
    if flushes > 0.0 {
        let mean = (still_loaded.flush_seconds - loaded.flush_seconds) / flushes;
        figures.put("store_flush_mean", mean * 1e6, Unit::Micros, Better::Lower);
    }
}

/// The generator's own cost is that of the rooms, so that it can be held against a run without plugs.
fn leave_out(outcome: &mut Outcome, cores: f64) {
    let mut rooms_alone = None;
    for metric in &mut outcome.metrics {
        if metric.name == "generator_cpu" && metric.value > 0.0 {
            let alone = (metric.value - cores).max(0.0);
            rooms_alone = Some(alone / metric.value);
            metric.value = alone;
        }
    }
    for metric in &mut outcome.metrics {
        if metric.name == "generator_cpu_per_delivery" {
            metric.value *= rooms_alone.unwrap_or(1.0);
        }
    }
}

fn faults(sent: &Sent, heard: &Heard, looks: &Looks) -> Option<String> {
    let refused = (looks.after.refused - looks.before.refused).max(0.0) as u64;
    let faults = [
        (heard.lost, "updates of plugs lost"),
        (heard.duplicates, "doubled"),
        (heard.reordered, "out of order"),
        (sent.disconnected, "plugs disconnected"),
        (heard.disconnected, "watchers disconnected"),
        (refused, "rows not taken by the store"),
    ];
    let faults: Vec<_> = faults
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!faults.is_empty()).then(|| faults.join(", "))
}

fn verdict(rooms: Verdict, late_us: Option<f64>, faults: Option<String>) -> Verdict {
    match (rooms, late_us, faults) {
        (Verdict::GeneratorBound(why), ..) => Verdict::GeneratorBound(why),
        (_, Some(late), _) => Verdict::GeneratorBound(format!(
            "the plugs spoke up to {late:.0} µs late (p99), more than {LATE_US_MAX} µs"
        )),
        (Verdict::NotWhole(why), _, Some(more)) => Verdict::NotWhole(format!("{why}, {more}")),
        (Verdict::Sound, _, Some(why)) => Verdict::NotWhole(why),
        (rooms, ..) => rooms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugs_can_only_make_a_verdict_worse() {
        let bound = || Verdict::GeneratorBound("rooms".into());
        let torn = || Verdict::NotWhole("1 lost".into());
        let lost = || Some("2 updates of plugs lost".to_owned());
        assert_eq!(verdict(Verdict::Sound, None, None), Verdict::Sound);
        assert_eq!(verdict(bound(), Some(900.0), lost()), bound());
        assert!(
            matches!(verdict(torn(), Some(900.0), lost()), Verdict::GeneratorBound(why) if why.contains("900"))
        );
        let both = Verdict::NotWhole("1 lost, 2 updates of plugs lost".into());
        assert_eq!(verdict(torn(), None, lost()), both);
        assert_eq!(verdict(torn(), None, None), torn());
    }
}
