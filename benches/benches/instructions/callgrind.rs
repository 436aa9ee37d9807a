//! Runs this program under callgrind and reads what it counted.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cauce_benches::instructions::{each, total};

use crate::Failure;
use crate::operations::Operation;

/// What the C library chooses by processor is pinned, so that `memcpy` is the same everywhere.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-ERMS,-FSRM,-AVX_Fast_Unaligned_Load";

/// The function in which instructions are counted, with all that it calls.
const COUNTED: &str = "--toggle-collect=*operations::repeat*";

/// Where callgrind's files stay, for `callgrind_annotate`.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("instructions")
}

/// Instructions of one such operation.
pub(crate) fn count(operation: &Operation) -> Result<f64, Failure> {
    let once = run(operation, operation.count, "once")?;
    let twice = run(operation, 2 * operation.count, "twice")?;
    Ok(each(once, twice, operation.count))
}

fn run(operation: &Operation, count: u64, suffix: &str) -> Result<u64, Failure> {
    let folder = folder();
    fs::create_dir_all(&folder)?;
    let out = folder.join(format!("{}.{suffix}.out", operation.name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let answer = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", COUNTED])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["one", operation.name, &count.to_string()])
        .env_clear()
        .env("PATH", path)
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()
        .map_err(|error| format!("valgrind does not start, scripts/install-tools.sh installs it: {error}"))?;
    if !answer.status.success() {
        let said = String::from_utf8_lossy(&answer.stderr);
        return Err(format!("{} under callgrind: {}\n{said}", operation.name, answer.status).into());
    }
    let counted = fs::read_to_string(&out)?;
    total(&counted).ok_or_else(|| format!("{} has no total", out.display()).into())
}
