//! What a command prints: text for people, JSON for scripts. A reader that went away ends the command in peace.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;

/// Form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Text,
}

/// The `--json` that every command has.
#[derive(clap::Args)]
pub(crate) struct FormatArgs {
    /// Print JSON for scripts: one document, or one a line for streams
    #[arg(long, global = true)]
    json: bool,
}

impl FormatArgs {
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }
}

/// One line on standard output, at once.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// One JSON document on one line.
pub(crate) fn json(document: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string(document).map_err(Failure::failed)?)
}

/// A remark on standard error, for people who watch. Nobody depends on it.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether to colour what goes to this stream: only on a terminal, and not where the user forbids it (no-color.org).
pub(crate) fn may_colour(stream: &impl IsTerminal) -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !forbidden
}

/// Text of strangers, safe on a terminal: control characters are shown, not obeyed.
pub(crate) fn harmless(text: &str) -> String {
    if !text.chars().any(is_harmful) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmful(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Controls, and the marks that change the direction of writing.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A table for people: one row for each item, one column for each name; a column is a path such as `assignment.label`.
pub(crate) fn table(items: &[Value], columns: &[(&str, &str)]) -> Vec<String> {
    let mut rows = vec![
        columns
            .iter()
            .map(|(title, _)| (*title).to_owned())
            .collect::<Vec<_>>(),
    ];
    rows.extend(
        items
            .iter()
            .map(|item| columns.iter().map(|(_, path)| cell(item, path)).collect()),
    );
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    rows.iter()
        .map(|row| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// A listing: a table, or one document with all items.
pub(crate) fn list(format: Format, items: &[Value], columns: &[(&str, &str)]) -> Result<(), Failure> {
    match format {
        Format::Json => json(&serde_json::json!({ "items": items })),
        Format::Text if items.is_empty() => {
            remark("none");
            Ok(())
        }
        Format::Text => table(items, columns).iter().try_for_each(|row| line(row)),
    }
}

/// One thing: a line for each of its fields, or the document.
pub(crate) fn record(format: Format, item: &Value) -> Result<(), Failure> {
    match (format, item) {
        (Format::Text, Value::Object(fields)) => {
            let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or(0);
            fields
                .keys()
                .try_for_each(|name| line(&format!("{:<width$}  {}", harmless(name), cell(item, name))))
        }
        (Format::Text, Value::Null) => Ok(()),
        _ => json(item),
    }
}

/// Something was done: a sentence for people, the answer for scripts.
pub(crate) fn done(format: Format, answer: &Value, sentence: &str) -> Result<(), Failure> {
    match format {
        Format::Json => json(answer),
        Format::Text => line(&harmless(sentence)),
    }
}

fn cell(item: &Value, path: &str) -> String {
    let value = path.split('.').try_fold(item, |value, name| value.get(name));
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => harmless(text),
        Some(Value::Array(list)) => {
            let words = list.iter().map(|v| match v {
                Value::String(text) => harmless(text),
                other => other.to_string(),
            });
            words.collect::<Vec<_>>().join(",")
        }
        Some(Value::Number(number)) if path.ends_with("_unix_ms") => {
            number.as_u64().map_or_else(|| number.to_string(), moment)
        }
        Some(other) => harmless(&other.to_string()),
    }
}

/// Milliseconds since 1970 as `2026-11-23 05:51:47Z`.
pub(crate) fn moment(unix_ms: u64) -> String {
    const DAY_SECONDS: u64 = 86_400;
    let seconds = unix_ms / 1_000;
    let (days, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    // Years that begin in March have their leap day at the end; 400 of them always have the same days.
    const ERA_DAYS: u64 = 146_097;
    let shifted = days + 719_468;
    let (era, day) = (shifted / ERA_DAYS, shifted % ERA_DAYS);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / (ERA_DAYS - 1)) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_cannot_move_the_cursor() {
        assert_eq!(harmless("a\u{1b}[2Jb\u{202e}c ñ"), "a\\u{1b}[2Jb\\u{202e}c ñ");
        assert_eq!(harmless("plain – text"), "plain – text");
    }

    #[test]
    fn moments_are_read_by_people() {
        for (unix_ms, shown) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (1_709_251_199_999, "2024-02-29 23:59:59Z"),
            (1_709_251_200_000, "2024-03-01 00:00:00Z"),
            (1_795_413_107_000, "2026-11-23 05:51:47Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(moment(unix_ms), shown);
        }
        let items = [json!({"created_unix_ms": 0})];
        assert_eq!(
            table(&items, &[("created", "created_unix_ms")])[1],
            "1970-01-01 00:00:00Z"
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_missing_values_show() {
        let items = [
            json!({"id": "A1", "at": {"label": "sauna"}}),
            json!({"id": "LONGER", "scopes": ["a", "b"]}),
        ];
        let lines = table(
            &items,
            &[("id", "id"), ("label", "at.label"), ("scopes", "scopes")],
        );
        assert_eq!(
            lines,
            ["id      label  scopes", "A1      sauna  -", "LONGER  -      a,b"]
        );
    }
}
