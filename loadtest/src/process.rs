//! What a process costs, read from `/proc`.

use std::io;

/// Memory of a process that is its own, in bytes: what the machine would get back if it ended.
pub(crate) fn private_bytes(pid: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(kib(&text, "Private_Clean:") + kib(&text, "Private_Dirty:"))
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(kib(&text, "VmRSS:"))
}

fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}
