//! The text forms of Prometheus, for numbers that are kept elsewhere.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::metrics::{BOUNDS_US, Snapshot};

/// The library's encoder, for numbers that are kept elsewhere.
pub(super) struct Writer<'a>(pub(super) DescriptorEncoder<'a>);

impl Writer<'_> {
    /// The name without `_total`, which the form adds.
    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        value: impl prometheus_client::encoding::EncodeCounterValue,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn counters<L: Into<String>>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            let labels = [(label, of.into())];
            let mut sample = metric.encode_family(&labels)?;
            sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    pub(super) fn gauges<L: Into<String>>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            let labels = [(label, of.into())];
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, sum: &Snapshot) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(seconds(sum.sum_us), sum.count(), &buckets(sum), None)
    }

    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        sums: &[(&'static str, Snapshot)],
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (of, sum) in sums {
            let labels = [(label, *of)];
            let mut sample = metric.encode_family(&labels)?;
            sample.encode_histogram::<NoLabelSet>(seconds(sum.sum_us), sum.count(), &buckets(sum), None)?;
        }
        Ok(())
    }
}

/// Bounds in seconds and counts, not cumulative: the library adds them up.
fn buckets(sum: &Snapshot) -> Vec<(f64, u64)> {
    let bounds = BOUNDS_US.iter().map(|&us| seconds(us));
    bounds.chain([f64::INFINITY]).zip(sum.counts).collect()
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// The older form: there a counter is described under the name that its samples have.
pub(super) fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1_024);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let described = line
            .strip_prefix("# HELP ")
            .or_else(|| line.strip_prefix("# TYPE "));
        match described.and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) => {
                let kind = if line.starts_with("# TYPE ") {
                    Some(line)
                } else {
                    lines.peek().copied()
                };
                let is_counter = kind.is_some_and(|kind| kind.ends_with(" counter"));
                let suffix = if is_counter { "_total" } else { "" };
                out.extend([&line[..7], name, suffix, " ", rest, "\n"]);
            }
            None if line == "# EOF" || line.starts_with("# UNIT ") => {}
            None => out.extend([line, "\n"]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_describes_a_counter_under_its_full_name() {
        let text = "# HELP a Things.\n# TYPE a counter\na_total 1\n# HELP b Now.\n# TYPE b gauge\n# UNIT b bytes\nb 2\n# EOF\n";
        let expected =
            "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n# HELP b Now.\n# TYPE b gauge\nb 2\n";
        assert_eq!(classic(text), expected);
    }
}
