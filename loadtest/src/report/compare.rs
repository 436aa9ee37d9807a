//! Two runs side by side.

use std::fmt::Write as _;

use super::{Better, Outcome, show};

/// A table of what both have, with the second as a multiple of the first.
pub(crate) fn compare(first: &Outcome, second: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    if first.scenario != second.scenario {
        let _ = writeln!(
            out,
            "The two ran different scenarios, or with different settings."
        );
    }
    if first.machine.processor != second.machine.processor || first.machine.cores != second.machine.cores {
        let _ = writeln!(out, "The two ran on different machines.");
    }
    let agreed = |o: &Outcome| {
        o.tls
            .as_ref()
            .map(|tls| (tls.version.clone(), tls.cipher.clone()))
    };
    if agreed(first) != agreed(second) {
        let _ = writeln!(
            out,
            "The two spoke different TLS: {} against {}.",
            first.tls_words(),
            second.tls_words()
        );
    }
    let _ = writeln!(
        out,
        "{:<26} {:>16} {:>16} {:>8}",
        first.name,
        shortened(&first.server),
        shortened(&second.server),
        "ratio"
    );
    for metric in &first.metrics {
        let Some(other) = second.metric(&metric.name) else {
            continue;
        };
        let ratio = if metric.value == 0.0 {
            "-".to_owned()
        } else {
            format!("{:.3}", other.value / metric.value)
        };
        let _ = writeln!(
            out,
            "{:<26} {:>16} {:>16} {ratio:>8}{}",
            metric.name,
            show(metric.value, metric.unit),
            show(other.value, other.unit),
            judged(metric.better, metric.value, other.value)
        );
    }
    out
}

/// A change of a tenth is worth a word; less is noise on most machines.
fn judged(better: Better, first: f64, second: f64) -> &'static str {
    let grown = second > first * 1.1;
    let shrunk = second < first * 0.9;
    match better {
        Better::Lower if grown => "  worse",
        Better::Lower if shrunk => "  better",
        Better::Higher if shrunk => "  worse",
        Better::Higher if grown => "  better",
        _ => "",
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_and_worse_depend_on_the_figure() {
        assert_eq!(judged(Better::Lower, 1.0, 2.0), "  worse");
        assert_eq!(judged(Better::Higher, 1.0, 2.0), "  better");
        assert_eq!(judged(Better::Lower, 1.0, 1.05), "");
        assert_eq!(judged(Better::Neither, 1.0, 9.0), "");
        assert_eq!(judged(Better::Lower, 0.0, 3.0), "  worse");
    }
}
