//! The fleet by itself.

use super::support::{in_seconds, json, printed, run};

#[test]
fn a_fleet_without_a_broker_counts_its_failures() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("ws://{free}/shelly");
    in_seconds(|seconds| {
        let summary = json([
            "simulate",
            "--url",
            &url,
            "--devices",
            "3",
            "--seconds",
            seconds,
            "--json",
        ]);
        assert_eq!(summary["total"]["connects"], 0);
        let failures = summary["total"]["connect_failures"].as_u64().unwrap();
        (failures >= 3).then_some(()).ok_or(summary.to_string())
    });
}

#[test]
fn models_are_listed_and_unknown_ones_refused() {
    let models = printed(["simulate", "--list-models"]);
    assert!(models.lines().any(|line| line == "plugsg3"), "{models}");
    for wrong in [
        &["--models", "toaster"][..],
        &["--faults", "gremlins=1"],
        &["--rate", "-1"],
        &["--devices", "0"],
        &["--url", "http://x"],
    ] {
        let output = run([&["simulate", "--seconds", "1"], wrong].concat());
        assert_eq!(
            output.status.code(),
            Some(2),
            "{wrong:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn devices_of_the_local_network_say_where_they_listen() {
    let out = printed([
        "simulate",
        "--lan",
        "127.0.0.1:0",
        "--devices",
        "2",
        "--seconds",
        "1",
    ]);
    assert_eq!(
        out.lines()
            .filter(|line| line.contains("listens on http://127.0.0.1:"))
            .count(),
        2,
        "{out}"
    );
}
