//! What a broker counts, read from its metrics.

use crate::http::Door;

/// The text of its metrics.
///
/// # Errors
/// If the broker does not tell; in words for people.
pub(crate) fn read(door: &Door) -> Result<String, String> {
    let answer = door.request("GET", "/metrics", None, "")?;
    if answer.status != 200 {
        return Err(format!(
            "{door}/metrics answers {}: if the broker has an internal address, name it with --api",
            answer.status
        ));
    }
    Ok(answer.body)
}

/// The sum of a metric over its labels, or over those with this in them.
pub(crate) fn sum(text: &str, name: &str, label: &str) -> f64 {
    let lines = text.lines().filter_map(|line| {
        let (metric, value) = line.rsplit_once(' ')?;
        let labels = metric.strip_prefix(name)?;
        let same = labels.is_empty() || labels.starts_with('{');
        (same && labels.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    lines.sum()
}
