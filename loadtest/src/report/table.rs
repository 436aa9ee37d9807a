//! The plain table.

use std::fmt::Write as _;

use super::{Outcome, Verdict, show};

/// All outcomes of one run, one after the other.
pub(crate) fn table(outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{} against {}: {}",
        outcome.name, outcome.server, outcome.about
    );
    let width = outcome.metrics.iter().map(|m| m.name.len()).max().unwrap_or(0);
    for metric in &outcome.metrics {
        let _ = writeln!(
            out,
            "  {:<width$}  {:>14}",
            metric.name,
            show(metric.value, metric.unit)
        );
    }
    let _ = writeln!(out, "  tls: {}", outcome.tls_words());
    for note in &outcome.notes {
        let _ = writeln!(out, "  note: {note}");
    }
    let _ = match &outcome.verdict {
        Verdict::Sound => writeln!(out, "  verdict: sound"),
        Verdict::GeneratorBound(why) => writeln!(
            out,
            "  verdict: GENERATOR-BOUND, so these figures say nothing about the server: {why}"
        ),
        Verdict::NotWhole(why) => writeln!(out, "  verdict: NOT WHOLE: {why}"),
    };
    out
}
