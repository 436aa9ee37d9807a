//! How many instructions one operation takes, by callgrind: the same on a noisy machine as on a quiet one.
//!
//! `scripts/check-instructions.sh` compiles this as it must be compiled and runs it. The program starts itself under callgrind, twice for
//! each operation, with N and with 2·N of them; the difference is what N take ([`cauce_benches::instructions`]).
//!
//! What must stay true:
//! - A run depends on nothing but the program: one thread, an empty environment, and no input but the name and the number.

mod callgrind;
#[path = "../scenes/codec.rs"]
mod codec;
#[path = "../scenes/delivery.rs"]
mod delivery;
#[path = "../scenes/device.rs"]
mod device;
mod operations;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use cauce_benches::instructions::{Recorded, Verdict, compare, passes};

use self::operations::OPERATIONS;

/// Architectures whose counts are recorded.
const TARGET: &str = "x86_64-linux";

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["one", name, count] => one(name, count),
        ["check"] => check(),
        ["record"] => record(),
        _ => {
            // `cargo bench` starts every bench; compiled so, counts cannot be compared with the recorded ones.
            println!("instructions are counted by scripts/check-instructions.sh");
            return ExitCode::SUCCESS;
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What runs under callgrind.
fn one(name: &str, count: &str) -> Result<ExitCode, Failure> {
    let operation = OPERATIONS.iter().find(|operation| operation.name == name);
    let operation = operation.ok_or_else(|| format!("there is no operation {name:?}"))?;
    (operation.run)(count.parse()?);
    Ok(ExitCode::SUCCESS)
}

fn check() -> Result<ExitCode, Failure> {
    let path = record_path();
    let recorded = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let recorded = Recorded::parse(&recorded).map_err(|error| format!("{}: {error}", path.display()))?;
    if target() != recorded.target {
        println!(
            "NOT COMPARED: counts are recorded for {}, and this is {}",
            recorded.target,
            target()
        );
        return Ok(ExitCode::SUCCESS);
    }
    let rustc = rustc()?;
    let lines = compare(&recorded.instructions, &measure()?);
    println!(
        "{:<34} {:>12} {:>12} {:>10}",
        "instructions of one operation", "recorded", "now", "growth"
    );
    for line in &lines {
        println!("{line}");
    }
    if rustc != recorded.rustc {
        println!(
            "recorded with {}, compiled now with {rustc}: what changed may be the compiler's doing",
            recorded.rustc
        );
    }
    if lines.iter().any(|line| line.verdict == Verdict::Fell) {
        println!("what fell by more than 5 % is worth recording: scripts/check-instructions.sh --record");
    }
    if passes(&lines) {
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "An operation takes over 5 % more instructions than recorded, or is not recorded. To see where they are spent:\n  \
         callgrind_annotate --inclusive=yes {}/<operation>.twice.out\n\
         If it must be so, record the new counts and commit them with the reason:\n  scripts/check-instructions.sh --record",
        callgrind::folder().display()
    );
    Ok(ExitCode::FAILURE)
}

fn record() -> Result<ExitCode, Failure> {
    if target() != TARGET {
        return Err(format!("counts are recorded for {TARGET}, and this is {}", target()).into());
    }
    let recorded = Recorded {
        rustc: rustc()?,
        target: target(),
        instructions: measure()?,
    };
    for (name, count) in &recorded.instructions {
        println!("{name:<34} {count:>12.1}");
    }
    let path = record_path();
    fs::write(&path, recorded.to_toml()?)?;
    println!("written to {}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn measure() -> Result<BTreeMap<String, f64>, Failure> {
    OPERATIONS
        .iter()
        .map(|operation| Ok((operation.name.to_owned(), callgrind::count(operation)?)))
        .collect()
}

fn record_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

fn target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

fn rustc() -> Result<String, Failure> {
    let answer = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}
