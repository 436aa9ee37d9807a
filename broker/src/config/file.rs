//! The TOML file, flattened to `key, value, line`.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::kind::Raw;
use super::load::{Assignment, Source};
use super::names::{resolve, unknown};
use super::schema::SECTIONS;

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Everything that the file says.
pub(super) fn from_file(path: &str, text: &str) -> Result<Vec<Assignment>, ConfigError> {
    let file = File {
        path: path.into(),
        text,
    };
    if text.len() > FILE_BYTES_MAX {
        return Err(file.error(0, "", format!("the file is longer than {FILE_BYTES_MAX} bytes")));
    }
    let table = DeTable::parse(text).map_err(|e| {
        let line = e.span().map_or(0, |span| file.line(span.start));
        // The first line only, and never the text around the fault: it may be a secret.
        file.error(
            line,
            "",
            e.message().lines().next().unwrap_or("not TOML").to_owned(),
        )
    })?;
    let mut list = Vec::new();
    file.flatten(table.get_ref(), "", &mut list)?;
    Ok(list)
}

struct File<'a> {
    path: Arc<str>,
    text: &'a str,
}

impl File<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self
            .text
            .as_bytes()
            .iter()
            .take(at)
            .filter(|&&b| b == b'\n')
            .count()
    }

    fn source(&self, line: usize) -> Source {
        Source::File {
            path: self.path.clone(),
            line,
        }
    }

    fn error(&self, line: usize, key: &str, message: String) -> ConfigError {
        ConfigError {
            source: self.source(line),
            key: key.to_owned(),
            message,
        }
    }

    /// Recursion is no deeper than the names of sections: what lies below a setting is never entered.
    fn flatten(
        &self,
        table: &DeTable<'_>,
        prefix: &str,
        list: &mut Vec<Assignment>,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{prefix}.{}", name.get_ref())
            };
            let line = self.line(name.span().start);
            let section = SECTIONS.iter().find(|s| s.name == key && !key.is_empty());
            match (section, value.get_ref()) {
                (Some(section), DeValue::Table(table)) if !section.repeats => {
                    self.flatten(table, &key, list)?;
                }
                (Some(section), DeValue::Array(items)) if section.repeats => {
                    for (index, item) in items.iter().enumerate() {
                        let line = self.line(item.span().start);
                        let DeValue::Table(table) = item.get_ref() else {
                            return Err(self.error(line, &key, "expected tables".to_owned()));
                        };
                        if table.is_empty() {
                            return Err(self.error(line, &key, format!("the entry [[{key}]] is empty")));
                        }
                        self.flatten(table, &format!("{key}.{index}"), list)?;
                    }
                }
                (Some(section), _) => {
                    let header = if section.repeats {
                        format!("[[{key}]]")
                    } else {
                        format!("[{key}]")
                    };
                    return Err(self.error(line, &key, format!("is a section: write {header}")));
                }
                (None, value) => {
                    if resolve(&key).is_none() {
                        return Err(self.error(line, &key, unknown(&key)));
                    }
                    list.push(Assignment {
                        key,
                        raw: raw(value),
                        source: self.source(line),
                    });
                }
            }
        }
        Ok(())
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::Array(items) => {
            let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
            items
                .iter()
                .map(text)
                .collect::<Option<_>>()
                .map_or(Raw::Other("a list of something else"), Raw::List)
        }
        DeValue::Boolean(b) => Raw::Bool(*b),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Integer(n) => {
            i128::from_str_radix(n.as_str(), n.radix()).map_or(Raw::Other("an enormous number"), Raw::Integer)
        }
        DeValue::String(text) => Raw::Quoted(text.to_string()),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}
