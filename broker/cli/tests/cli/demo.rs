//! The demo: everything it counts must agree.

use serde_json::Value;

use super::support::{Running, cauce, in_seconds, json, run};

/// The numbers of a summary by their names, again and without the program's own judgement.
fn check(summary: &Value, devices: u64) {
    assert_eq!(summary["agree"], true, "{summary:#}");
    let number = |value: &Value| {
        value
            .as_u64()
            .unwrap_or_else(|| panic!("a number in {summary:#}"))
    };
    let tenants = summary["tenants"].as_array().unwrap();
    assert_eq!(tenants.len(), 2);
    let (mut updates, mut all) = (0, 0);
    for (at, tenant) in tenants.iter().enumerate() {
        let fleet = &tenant["fleet"];
        all += number(&fleet["devices"]);
        let frames = number(&fleet["full_frames"])
            + number(&fleet["status_frames"])
            + number(&fleet["greeting_frames"]);
        assert!(frames >= number(&fleet["devices"]));
        let subscribers = tenant["subscribers"].as_array().unwrap();
        // One of the first tenant's loses its network.
        assert_eq!(subscribers.len(), if at == 0 { 3 } else { 2 });
        for subscriber in subscribers {
            assert_eq!(number(&subscriber["updates_for_frames"]), frames);
            assert_eq!(subscriber["readings"], tenant["rows"]["readings"]);
        }
        updates += number(&subscribers[0]["updates"]);
    }
    assert_eq!(all, devices);
    assert_eq!(number(&summary["broker"]["device_changes"]), updates);
    let outage = &summary["outage"];
    assert_eq!(outage["missed"], outage["recovered"], "{outage}");
    assert_eq!((&outage["returns"], &outage["continued"]), (&1.into(), &1.into()));
    let latency = &summary["latency_us"];
    let steps = ["p50", "p90", "p99", "p99.9", "max"].map(|name| number(&latency[name]));
    assert!(steps.is_sorted() && steps[0] > 0, "{latency}");
}

#[test]
fn fifty_plugs_two_tenants_and_every_count_agrees() {
    let summary = json(["demo", "--seconds", "3", "--json", "--listen", "127.0.0.1:0"]);
    check(&summary, 50);
    assert_eq!(summary["tenants"][0]["devices_restored"], 0);
    let dir = summary["data_dir"].as_str().unwrap();
    assert!(
        !std::path::Path::new(dir).exists(),
        "a folder of its own making is taken away"
    );
}

#[test]
fn counts_agree_also_when_devices_hurry() {
    in_seconds(|seconds| {
        let summary = json([
            "demo",
            "--seconds",
            seconds,
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--rate",
            "20",
            "--devices",
            "20",
            "--seed",
            "7",
        ]);
        check(&summary, 20);
        let hurried = summary["broker"]["device_frames"].as_u64() > Some(500)
            && summary["outage"]["missed"].as_u64() > Some(20);
        hurried.then_some(()).ok_or(summary.to_string())
    });
}

#[test]
fn data_that_is_named_stays_and_is_known_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let demo = || {
        json([
            "demo",
            "--seconds",
            "2",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--devices",
            "6",
            "--data-dir",
            data,
        ])
    };
    check(&demo(), 6);
    let second = demo();
    check(&second, 6);
    for tenant in second["tenants"].as_array().unwrap() {
        assert_eq!(tenant["devices_restored"], 3, "{second:#}");
    }
}

#[test]
fn the_newcomers_lines_work_as_they_stand_while_the_demo_runs() {
    let mut demo = Running::start(cauce([
        "demo",
        "--listen",
        "127.0.0.1:0",
        "--devices",
        "10",
        "--rate",
        "2",
    ]));
    let join = demo.out.next_with("cauce sub");
    let publish = demo.out.next_with("curl");
    let args: Vec<String> = join
        .split_whitespace()
        .skip(1)
        .map(|word| word.trim_matches('\'').to_owned())
        .chain(["--json".to_owned(), "--count".to_owned(), "5".to_owned()])
        .collect();
    let output = run(&args);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        said.lines().filter(|line| line.contains("device-update")).count(),
        5,
        "{said}"
    );

    let mut lobby = args.clone();
    lobby.retain(|arg| arg != "$devices" && arg != "5");
    lobby.push("1".to_owned());
    let mut lobby = Running::start(cauce(&lobby));
    lobby.err.next_with("listening to lobby");
    let published = std::process::Command::new("sh")
        .args(["-c", publish.trim()])
        .output()
        .unwrap();
    let answer = String::from_utf8_lossy(&published.stdout).into_owned();
    assert!(
        answer.contains("\"seq\":1"),
        "{publish}: {answer} {}",
        String::from_utf8_lossy(&published.stderr)
    );
    assert!(lobby.out.next().contains("hello"));
    assert_eq!(lobby.end(), Some(0));

    demo.signal("INT");
    demo.out.next_with("All counts agree");
    assert_eq!(demo.end(), Some(0));
}

#[test]
fn a_taken_port_makes_the_demo_choose_another() {
    // If somebody else has it, it is taken all the same.
    let _taken = std::net::TcpListener::bind("127.0.0.1:7700");
    check(&json(["demo", "--seconds", "2", "--json", "--devices", "2"]), 2);
}
