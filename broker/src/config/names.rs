//! Names of settings: what a key stands for, and which one was meant.

use super::schema::{SECTIONS, Section, Setting};

/// `auth.keys.0.alg`.
pub(super) fn key_at(setting: &Setting, index: Option<usize>) -> String {
    match index {
        Some(index) => format!("{}.{index}.{}", setting.section, setting.name),
        None => setting.key(),
    }
}

/// The setting that a key names, with its index if it is in a list.
pub(super) fn resolve(key: &str) -> Option<(&'static Section, Option<usize>, &'static Setting)> {
    let (section_name, name) = key.rsplit_once('.').unwrap_or(("", key));
    let (section_name, index) = match section_name.rsplit_once('.') {
        Some((list, index)) if index.bytes().all(|b| b.is_ascii_digit()) => (list, Some(index.parse().ok()?)),
        _ => (section_name, None),
    };
    let section = SECTIONS
        .iter()
        .find(|s| s.name == section_name && s.repeats == index.is_some())?;
    let setting = section.settings.iter().find(|s| s.name == name)?;
    Some((section, index, setting))
}

/// The words for a key that is no setting.
pub(super) fn unknown(key: &str) -> String {
    let plain: Vec<&str> = key
        .split('.')
        .filter(|part| part.parse::<usize>().is_err())
        .collect();
    let plain = plain.join(".");
    let names = SECTIONS
        .iter()
        .filter(|s| !s.name.is_empty())
        .map(|s| s.name.to_owned());
    let keys = SECTIONS.iter().flat_map(|s| s.settings).map(Setting::key);
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let nearest = keys
        .chain(names)
        .map(|known| {
            // A right name in the wrong section is nearer than any misspelling.
            let distance = if last(&known) == last(&plain) {
                1
            } else {
                distance(&known, &plain)
            };
            (distance, known)
        })
        .min();
    match nearest {
        Some((distance, known)) if distance <= 2 + plain.len() / 4 => {
            format!("unknown key; did you mean {known}?")
        }
        _ => "unknown key; `cauce config --template` lists all".to_owned(),
    }
}

/// Levenshtein's, on the first 64 bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], &b.as_bytes()[..b.len().min(64)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = if x == y {
                diagonal
            } else {
                1 + diagonal.min(row[j]).min(row[j + 1])
            };
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}
