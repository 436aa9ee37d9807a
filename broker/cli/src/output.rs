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
        Some(other) => harmless(&other.to_string()),
    }
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
