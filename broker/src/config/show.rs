//! The configuration for people and scripts: what holds and where it comes from, a documented template, and the page.

use std::fmt::Write;

use super::kind::{Kind, Value};
use super::load::{Entry, Loaded};
use super::schema::{Reload, SECTIONS, Section, Setting};

impl Loaded {
    /// The whole as TOML, with the source of each value as a comment; secrets masked.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for section in SECTIONS {
            let entries = self.entries.iter().filter(|e| e.setting.section == section.name);
            let mut index = None;
            let mut headed = section.name.is_empty();
            for entry in entries {
                if !headed || entry.index != index {
                    let _ = writeln!(out, "\n{}", header(section));
                    (headed, index) = (true, entry.index);
                }
                let _ = match &entry.value {
                    Value::Absent => writeln!(out, "# {} is not set", entry.setting.name),
                    value => {
                        let shown = entry.setting.kind.show(value);
                        writeln!(
                            out,
                            "{} = {shown} # {}",
                            entry.setting.name,
                            one_line(&entry.source.to_string())
                        )
                    }
                };
            }
        }
        out
    }

    /// The whole as one JSON object: key to `{"value": …, "source": …}`; secrets masked.
    pub fn to_json(&self) -> serde_json::Value {
        let pair = |entry: &Entry| {
            let value = match &entry.value {
                Value::Absent => serde_json::Value::Null,
                Value::Bool(b) => (*b).into(),
                Value::List(list) => list.clone().into(),
                Value::Number(n) if matches!(entry.setting.kind, Kind::Count { .. }) => (*n).into(),
                value => unquoted(&entry.setting.kind.show(value)),
            };
            let about = serde_json::json!({ "value": value, "source": entry.source.to_string() });
            (entry.key(), about)
        };
        serde_json::Value::Object(self.entries.iter().map(pair).collect())
    }
}

fn unquoted(toml: &str) -> serde_json::Value {
    let parsed = toml::de::DeValue::parse(toml).ok();
    parsed
        .and_then(|v| v.get_ref().as_str().map(Into::into))
        .unwrap_or(serde_json::Value::Null)
}

/// A path in a comment must not end it.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn header(section: &Section) -> String {
    if section.repeats {
        format!("[[{}]]", section.name)
    } else {
        format!("[{}]", section.name)
    }
}

/// A file with every setting, its default and its words, commented out.
pub fn template() -> String {
    let mut out = String::from(
        "# Configuration of Cauce. Every setting is here with its default; take away the # to change one.\n\
         # Environment: CAUCE_LIMITS__FRAME_BYTES. Flags: --set limits.frame_bytes=32KiB. The later wins.\n",
    );
    for section in SECTIONS {
        out.push('\n');
        for line in section.doc {
            let _ = writeln!(out, "#{line}");
        }
        if !section.name.is_empty() {
            let comment = if section.repeats { "#" } else { "" };
            let _ = writeln!(out, "{comment}{}", header(section));
        }
        for setting in section.settings {
            out.push('\n');
            for line in setting.doc {
                let _ = writeln!(out, "#{line}");
            }
            let _ = match default(setting) {
                Some(value) => writeln!(out, "#{} = {value}", setting.name),
                None => writeln!(out, "#{} = # not set", setting.name),
            };
        }
    }
    out
}

/// The table of all settings for the manual, as Markdown.
pub fn markdown() -> String {
    let mut out = String::new();
    for section in SECTIONS {
        let title = if section.name.is_empty() {
            "Top of the file".to_owned()
        } else {
            format!("`{}`", header(section))
        };
        let _ = writeln!(out, "### {title}\n\n{}\n", prose(section.doc));
        out.push_str("| key | default | environment | reload | meaning |\n| --- | --- | --- | --- | --- |\n");
        for setting in section.settings {
            let default = default(setting).map_or("not set".to_owned(), |value| format!("`{value}`"));
            let env = match setting.section {
                list if section.repeats => setting.env().replace(
                    &list.to_uppercase().replace('.', "__"),
                    &format!("{}__0", list.to_uppercase().replace('.', "__")),
                ),
                _ => setting.env(),
            };
            let reload = match setting.reload {
                Reload::Live => "yes",
                Reload::Restart => "restart",
            };
            let _ = writeln!(
                out,
                "| `{}` | {default} | `{env}` | {reload} | {} |",
                setting.name,
                prose(setting.doc)
            );
        }
        out.push('\n');
    }
    out
}

fn prose(doc: &[&str]) -> String {
    doc.iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

fn default(setting: &Setting) -> Option<String> {
    if setting.default.is_empty() {
        return None;
    }
    let raw = super::kind::Raw::Typed(setting.default.to_owned());
    setting
        .kind
        .read(&raw)
        .ok()
        .map(|value| setting.kind.show(&value))
}
