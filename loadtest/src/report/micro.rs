//! Criterion's estimates as a table: what `make bench-micro` puts into the documentation.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Machine;
use super::marked::{Part, replaced, write_whole};

/// Directories below the given one: a group, a function, its parameter, and the estimates.
const DEPTH_MAX: u32 = 6;

/// Options of `micro`.
#[derive(Debug, clap::Args)]
pub struct MicroOptions {
    /// Where Criterion has left its estimates: target/criterion, or CRITERION_HOME.
    dir: PathBuf,
    /// How they were made, for the table.
    #[arg(long, default_value = "", hide_default_value = true)]
    how: String,
    /// What was built, for the table.
    #[arg(long, default_value = "", hide_default_value = true)]
    commit: String,
    /// Write the table into this document between <!-- bench-micro:begin --> and <!-- bench-micro:end -->.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
}

/// What a bench is called.
#[derive(Deserialize)]
struct Name {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

/// In nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
struct Bench {
    group: String,
    name: String,
    median: Estimate,
}

impl MicroOptions {
    pub(crate) fn run(&self) -> Result<ExitCode, String> {
        let mut benches = Vec::new();
        find(&self.dir, DEPTH_MAX, &mut benches)?;
        if benches.is_empty() {
            return Err(format!(
                "{}: there are no estimates of Criterion's: run cargo bench first",
                self.dir.display()
            ));
        }
        benches.sort_by(|a, b| {
            let ((one, number), (other, another)) = (natural(&a.name), natural(&b.name));
            let names = a.group.cmp(&b.group).then(one.cmp(other));
            names.then(number.total_cmp(&another))
        });
        let table = self.markdown(&Machine::here(), &benches);
        if let Some(document) = &self.document {
            let words = |e: &dyn std::fmt::Display| format!("{}: {e}", document.display());
            let text = std::fs::read_to_string(document).map_err(|e| words(&e))?;
            let text = replaced(&text, Part::Micro, &table).map_err(|e| words(&e))?;
            write_whole(document, &text)?;
        }
        print!("{table}");
        Ok(ExitCode::SUCCESS)
    }

    fn markdown(&self, machine: &Machine, benches: &[Bench]) -> String {
        let mut out = format!(
            "{} × {}, Linux {}; {}",
            machine.cores,
            machine.processor,
            machine.kernel,
            machine.date()
        );
        for (before, what) in [(", commit ", &self.commit), ("; ", &self.how)] {
            if !what.is_empty() {
                out.push_str(before);
                out.push_str(what);
            }
        }
        out.push_str(".\n\n| bench | | median | 95 % interval |\n| --- | --- | --- | --- |\n");
        for Bench { group, name, median } in benches {
            let Interval {
                lower_bound,
                upper_bound,
            } = median.confidence_interval;
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "| {group} | {name} | {} | {} to {} |",
                time(median.point_estimate),
                time(lower_bound),
                time(upper_bound)
            );
        }
        out
    }
}

/// Collects the benches whose newest estimates lie below `dir`.
fn find(dir: &Path, depth: u32, into: &mut Vec<Bench>) -> Result<(), String> {
    let words = |e: std::io::Error| format!("{}: {e}", dir.display());
    for entry in std::fs::read_dir(dir).map_err(words)? {
        let entry = entry.map_err(words)?;
        let path = entry.path();
        if !entry.file_type().map_err(words)?.is_dir() {
            continue;
        }
        if entry.file_name() == "new" {
            into.extend(read(&path)?);
        } else if depth > 0 {
            find(&path, depth - 1, into)?;
        }
    }
    Ok(())
}

/// None where a bench called `new` holds others.
fn read(dir: &Path) -> Result<Option<Bench>, String> {
    let file = dir.join("benchmark.json");
    if !file.exists() {
        return Ok(None);
    }
    let Name {
        group_id,
        function_id,
        value_str,
    } = json(&file)?;
    let Estimates { median } = json(&dir.join("estimates.json"))?;
    let parts: Vec<String> = function_id.into_iter().chain(value_str).collect();
    Ok(Some(Bench {
        group: group_id,
        name: parts.join(", "),
        median,
    }))
}

fn json<T: DeserializeOwned>(file: &Path) -> Result<T, String> {
    let words = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let text = std::fs::read_to_string(file).map_err(|e| words(&e))?;
    serde_json::from_str(&text).map_err(|e| words(&e))
}

/// Names by what comes before a number at their end, and then by the number.
fn natural(name: &str) -> (&str, f64) {
    let words = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (words, name[words.len()..].parse().unwrap_or(0.0))
}

fn time(ns: f64) -> String {
    match ns {
        _ if ns < 1e3 => format!("{ns:.1} ns"),
        _ if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        _ => format!("{:.2} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_become_a_table_in_order_whatever_lies_beside_them() {
        let dir = std::env::temp_dir().join(format!("micro-{}", std::process::id()));
        let bench = |path: &str, name: &str, ns: f64| {
            let at = dir.join(path).join("new");
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join("benchmark.json"), name).unwrap();
            let median = format!(
                r#"{{"median":{{"confidence_interval":{{"confidence_level":0.95,"lower_bound":{},"upper_bound":{}}},"point_estimate":{ns},"standard_error":1}}}}"#,
                ns * 0.9,
                ns * 1.1
            );
            std::fs::write(at.join("estimates.json"), median).unwrap();
        };
        let name = |value: &str| {
            format!(r#"{{"group_id":"rooms","function_id":"table","value_str":{value},"throughput":null}}"#)
        };
        bench("rooms/table/10", &name("\"10\""), 2_500.0);
        bench("rooms/table/2", &name("\"2\""), 250.0);
        bench(
            "codec/push",
            r#"{"group_id":"codec","function_id":"push","value_str":null}"#,
            68.25,
        );
        std::fs::create_dir_all(dir.join("rooms/report")).unwrap();
        let document = dir.join("page.md");
        let text = "a <!-- bench-micro:begin -->old<!-- bench-micro:end --> b <!-- bench:begin --><!-- bench:end -->";
        std::fs::write(&document, text).unwrap();
        let options = MicroOptions {
            dir: dir.clone(),
            how: "short".to_owned(),
            commit: "abc".to_owned(),
            document: Some(document.clone()),
        };
        options.run().unwrap();
        let written = std::fs::read_to_string(&document).unwrap();
        let rows: Vec<_> = written
            .lines()
            .filter(|line| line.contains("ns |") || line.contains("µs |"))
            .collect();
        assert_eq!(
            rows,
            [
                "| codec | push | 68.2 ns | 61.4 ns to 75.1 ns |",
                "| rooms | table, 2 | 250.0 ns | 225.0 ns to 275.0 ns |",
                "| rooms | table, 10 | 2.50 µs | 2.25 µs to 2.75 µs |",
            ]
        );
        assert!(
            written.contains("commit abc; short.") && !written.contains("old"),
            "{written}"
        );
        assert!(written.ends_with("b <!-- bench:begin --><!-- bench:end -->"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn without_estimates_it_is_said_how_to_make_them() {
        let dir = std::env::temp_dir().join(format!("micro-none-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let options = MicroOptions {
            dir: dir.clone(),
            how: String::new(),
            commit: String::new(),
            document: None,
        };
        assert!(options.run().unwrap_err().contains("cargo bench"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
