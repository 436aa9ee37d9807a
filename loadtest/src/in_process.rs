//! Figures of a program that measures within one process: we start it, and read what it prints.

use std::path::Path;
use std::process::{Command, Stdio};

use cauce_threads::{Priority, outrank};
use serde::Deserialize;

use crate::process;

/// One setting that it measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    /// Empty where the program knows only one.
    pub(crate) name: String,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

#[derive(Deserialize)]
struct Figures {
    p50_ns: f64,
    p99_ns: f64,
}

/// How long each setting is measured, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lengths {
    /// First, and not counted.
    pub(crate) warm_up: f64,
    pub(crate) measured: f64,
}

/// Runs `program --json` with these lengths on these cores, until it ends.
///
/// # Errors
/// If it fails, or prints something else; in words for people.
pub(crate) fn measure(
    program: &Path,
    lengths: Lengths,
    cores: Option<&[usize]>,
    priority: Priority,
) -> Result<Vec<Setting>, String> {
    let mut command = Command::new(program);
    command
        .arg("--json")
        .args(["--warm-up", &lengths.warm_up.to_string()])
        .args(["--seconds", &lengths.measured.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    // A child inherits the cores and the priority of the thread that makes it.
    let output = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            // Some of its threads spin.
            outrank(priority)?;
            if let Some(cores) = cores {
                process::pin(None, cores)?;
            }
            command.output()
        });
        running
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")))
    });
    let output = output.map_err(|e| format!("{}: {e}", program.display()))?;
    if !output.status.success() {
        return Err(format!("{}: {}", program.display(), output.status));
    }
    settings(&output.stdout).map_err(|e| format!("{}: {e}", program.display()))
}

/// Each object with `p50_ns` and `p99_ns` that lies in the printed one is a setting of that name; without any, the printed one itself is.
fn settings(printed: &[u8]) -> Result<Vec<Setting>, String> {
    let whole: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(printed).map_err(|e| e.to_string())?;
    let setting = |name: &str, value: &serde_json::Value| {
        let figures: Figures = serde_json::from_value(value.clone()).ok()?;
        Some(Setting {
            name: name.to_owned(),
            p50_us: figures.p50_ns / 1e3,
            p99_us: figures.p99_ns / 1e3,
        })
    };
    let mut found: Vec<_> = whole
        .iter()
        .filter_map(|(name, value)| setting(name, value))
        .collect();
    if found.is_empty() {
        found.extend(setting("", &serde_json::Value::Object(whole)));
    }
    if found.is_empty() {
        return Err("p50_ns and p99_ns are expected".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_their_names_or_the_whole_is_one() {
        let one = settings(br#"{"p50_ns": 480, "p99_ns": 5300}"#).unwrap();
        assert_eq!(
            (one[0].name.as_str(), one[0].p50_us, one[0].p99_us),
            ("", 0.48, 5.3)
        );
        let two = settings(br#"{"p50_ns": 1, "p99_ns": 2, "rate": 9, "a": {"p50_ns": 1000, "p99_ns": 2000}, "b": {"p50_ns": 3, "p99_ns": 4}}"#);
        let names: Vec<_> = two.unwrap().into_iter().map(|setting| setting.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(settings(b"{}").is_err() && settings(b"oops").is_err());
    }
}
