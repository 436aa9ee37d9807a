//! The load generator as a command of `cauce`: it finds itself again to start a bare server, and its exit codes come through.

use super::support::{Running, cauce, printed, run};

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
