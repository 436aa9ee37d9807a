//! The load generator as a command of `cauce`: it finds itself again to start a bare server, and its exit codes come through.

use std::path::Path;
use std::process::Command;

use super::support::{Running, cauce, printed, run, until};

/// A small run against the bare server that the same program starts, and what it says.
fn small(more: &[&str]) -> std::process::Output {
    let args = [
        "loadtest",
        "run",
        "rooms",
        "--quiet",
        "--rate",
        "200",
        "--warmup",
        "0.1",
        "--seconds",
        "0.5",
        "--set",
        "shape.rooms=2",
        "--set",
        "shape.members=2",
        "--set",
        "load.drain_seconds=20",
    ];
    run(args.iter().chain(more))
}

/// A bare server of this program, until dropped.
struct Bare {
    _server: Running,
    address: String,
}

impl Bare {
    fn start() -> Self {
        let server = Running::start(cauce(["loadtest", "limit-server", "--listen", "127.0.0.1:0"]));
        let line = server.out.next_with("listening at");
        let address = line.rsplit(' ').next().unwrap_or_default().to_owned();
        Self {
            _server: server,
            address,
        }
    }
}

#[test]
fn a_run_measures_a_server_and_the_bare_one_that_this_program_starts_beside_it() {
    let bare = Bare::start();
    let output = small(&[
        "--target",
        &bare.address,
        "--limit",
        "one-write",
        "--assert",
        "lost==0",
    ]);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(out.contains("rooms against limit, one write"), "{out}{err}");
    // 4: on a busy machine the generator may be late, which is said and is no fault of the program.
    assert!(
        matches!(output.status.code(), Some(0 | 4)),
        "{}: {err}",
        output.status
    );
}

#[test]
fn the_exit_codes_are_those_of_the_load_generator() {
    let bare = Bare::start();
    // No message can be delivered to more than four, so this cannot hold; a late generator claims nothing either way.
    let broken = small(&["--target", &bare.address, "--assert", "received>1M"]);
    assert!(matches!(broken.status.code(), Some(3 | 4)), "{}", broken.status);
    drop(bare);
    let refused = small(&["--target", "127.0.0.1:1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("cauce loadtest: "));
    assert_eq!(
        run(["loadtest", "run", "rooms", "--assert", "p99"]).status.code(),
        Some(2)
    );
}

#[test]
fn the_examples_are_written_as_they_are_typed() {
    let help = printed(["loadtest", "run", "--help"]);
    assert!(
        help.contains("  cauce loadtest run echo") && !help.contains("cauce-loadtest"),
        "{help}"
    );
}

const DOCUMENT: &str = "# Page\n\n<!-- bench:begin -->\nold\n<!-- bench:end -->\n\nand more\n";

/// The standard set with brokers of this program, into a document in `dir`.
fn standard(dir: &Path, more: &[&str]) -> Command {
    std::fs::write(dir.join("page.md"), DOCUMENT).unwrap();
    std::fs::create_dir(dir.join("tmp")).unwrap();
    let mut command = cauce(["loadtest", "standard", "--serve", env!("CARGO_BIN_EXE_cauce")]);
    command
        .args(["--rounds", "1", "--commit", "abc1234", "--out"])
        .arg(dir.join("plots"))
        .arg("--document")
        .arg(dir.join("page.md"))
        .args(more)
        // Where the brokers' directories lie: what is left in it was left behind.
        .env("TMPDIR", dir.join("tmp"));
    command
}

fn left_behind(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("tmp")).unwrap().count()
}

#[test]
fn the_standard_set_starts_brokers_of_its_own_and_writes_table_and_plots_into_a_document() {
    let dir = tempfile::tempdir().unwrap();
    let output = standard(dir.path(), &["--lines", "4,11", "--seconds", "0.5"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let page = std::fs::read_to_string(dir.path().join("page.md")).unwrap();
    assert!(page.starts_with("# Page\n") && page.ends_with("\nand more\n") && !page.contains("old"));
    assert!(
        page.contains("commit abc1234") && page.contains("(plots/echo.svg)"),
        "{page}"
    );
    assert!(dir.path().join("plots/echo.svg").exists() && dir.path().join("plots/index.html").exists());
    let found = std::fs::read_to_string(dir.path().join("plots/standard.json")).unwrap();
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let rows = found["rows"].as_array().unwrap();
    let lines: Vec<_> = rows.iter().map(|row| row["line"].as_str().unwrap()).collect();
    // Echo without TLS and with it, and two runs of promise 11.
    assert_eq!(lines, ["4", "4", "4", "4", "11", "11"]);
    for row in rows {
        // On a busy machine it may be that nothing is claimed; that nothing could be measured may not.
        let why = row["standing"]["because"].as_str().unwrap_or_default();
        assert!(!why.starts_with("failed") && !why.starts_with("not"), "{row}");
    }
    assert_eq!(left_behind(dir.path()), 0);
}

#[test]
fn a_line_that_fails_says_so_in_its_row_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let more = [
        "--lines",
        "4,10",
        "--seconds",
        "0.5",
        "--in-process",
        "/nowhere/at/all",
    ];
    let output = standard(dir.path(), &more).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let page = std::fs::read_to_string(dir.path().join("page.md")).unwrap();
    assert!(page.contains("failed: /nowhere/at/all"), "{page}");
    assert!(page.contains("| 4 | echo |"), "{page}");
}

#[test]
fn an_end_in_the_middle_leaves_nothing_running_and_the_document_as_it_was() {
    // Not INT, which a shell may have told us to ignore.
    for signal in ["TERM", "KILL"] {
        let dir = tempfile::tempdir().unwrap();
        let mut set = Running::start(standard(dir.path(), &["--lines", "4", "--seconds", "600"]));
        set.err.next_with("round 1");
        // The broker has made its data directory.
        until("the broker has a data directory", || {
            let mut brokers = std::fs::read_dir(dir.path().join("tmp")).unwrap();
            brokers.any(|broker| broker.unwrap().path().join("data").exists())
        });
        set.signal(signal);
        assert_eq!(set.end(), None);
        // Its keeper removes the directory once the broker has ended.
        until("the directory is removed", || left_behind(dir.path()) == 0);
        let page = std::fs::read_to_string(dir.path().join("page.md")).unwrap();
        assert_eq!(page, DOCUMENT);
        assert_eq!(std::fs::read_dir(dir.path().join("plots")).unwrap().count(), 0);
    }
}
