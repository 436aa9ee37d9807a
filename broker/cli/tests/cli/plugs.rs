//! Disturbances of the load test against the real program: emulated plugs, and readers that stop. What is checked are counts, which do not depend on how busy the machine is.

use std::path::Path;

use clap::Parser as _;
use serde_json::Value;

use super::support::{Broker, between, json};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[derive(clap::Parser)]
struct LoadTest {
    #[command(subcommand)]
    command: cauce_loadtest::cli::Command,
}

/// A broker whose default tenant has a key, and bounds that a generator needs.
fn broker(dir: &Path, more: &[&str]) -> Broker {
    let file = dir.join("cauce.toml");
    let text = format!(
        "[limits]\nconnections_per_address = 10000\nconnects_per_second = 100000\nconnects_burst = 100000\n\
         requests_per_second = 1000000\nrequests_burst = 1000000\n\
         publish_bytes_per_second_per_connection = \"1GiB\"\npublish_bytes_per_second_per_tenant = \"16GiB\"\n\
         [[auth.keys]]\ntenant = \"default\"\nalg = \"HS256\"\nsecret = \"{SECRET}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let config = file.to_str().unwrap();
    Broker::start(&dir.join("data"), &[&["--config", config], more].concat())
}

/// The outcomes of a short run of plugs beside rooms.
fn devices(broker: &Broker, dir: &Path, more: &[&str]) -> Value {
    let settings = [
        "shape.rooms=3",
        "shape.members=2",
        "shape.plugs=20",
        "shape.frames_per_second=10",
        "shape.ramp_seconds=0.1",
    ];
    run("devices", broker, dir, &[&settings[..], more].concat())
}

/// The outcomes of a short run.
fn run(scenario: &str, broker: &Broker, dir: &Path, settings: &[&str]) -> Value {
    let target = between(&broker.banner[0], "ws://", "/v1/ws");
    let (key_file, result) = (dir.join("data/operator.key"), dir.join("result.json"));
    let arguments = [
        "loadtest",
        "run",
        scenario,
        "--quiet",
        "--target",
        target,
        "--key",
        SECRET,
        "--api-key-file",
        key_file.to_str().unwrap(),
        "--json",
        result.to_str().unwrap(),
        "--warmup",
        "0.2",
        "--seconds",
        "1",
        "--rate",
        "100",
    ];
    let settings = ["load.drain_seconds=30"].iter().chain(settings);
    let settings = settings.flat_map(|setting| ["--set", setting]);
    let parsed = LoadTest::try_parse_from(arguments.into_iter().chain(settings)).unwrap();
    // The exit code depends on how late a busy machine lets the generator speak.
    let _ = parsed.command.run(&[]);
    let text = std::fs::read_to_string(result).expect("the run was made");
    serde_json::from_str::<Value>(&text).unwrap()["outcomes"].take()
}

fn figure(outcome: &Value, name: &str) -> Option<f64> {
    let metrics = outcome["metrics"].as_array().unwrap();
    metrics.iter().find(|m| m["name"] == name)?["value"].as_f64()
}

#[test]
fn a_reader_that_stops_fills_what_the_broker_keeps_for_it_and_the_others_get_everything() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(dir.path(), &[]);
    let settings = ["shape.subscribers=10", "shape.stalled=1", "shape.turns=3"];
    let outcomes = run("slow", &broker, dir.path(), &settings);
    let (stalled, calm) = (&outcomes[0], &outcomes[1]);
    let of = |name: &str| figure(stalled, name).unwrap_or_else(|| panic!("no {name}: {stalled}"));
    for fault in [
        "lost",
        "refused",
        "duplicates",
        "reordered",
        "foreign",
        "disconnected",
    ] {
        assert_eq!(of(fault), 0.0, "{fault}: {stalled}");
    }
    // Stalled, calm; calm, stalled; stalled, calm: it stops twice.
    assert_eq!(of("fell_behind"), 2.0, "{stalled}");
    // Three turns share a second; nine read each of its hundred messages.
    assert!((800.0..=1_000.0).contains(&of("measured")), "{stalled}");
    assert!(
        (800.0..=1_000.0).contains(&figure(calm, "measured").unwrap()),
        "{calm}"
    );
    assert!(of("p99_ratio") > 0.0);
}

#[test]
fn what_the_broker_refuses_is_told_and_not_called_lost() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = [
        "--set",
        "limits.publishes_per_second_per_tenant=10",
        "--set",
        "limits.publishes_burst_per_tenant=10",
    ];
    let broker = broker(dir.path(), &bounds);
    let outcomes = run(
        "rooms",
        &broker,
        dir.path(),
        &["shape.rooms=3", "shape.members=2"],
    );
    let of = |name: &str| figure(&outcomes[0], name).unwrap_or_else(|| panic!("no {name}: {outcomes}"));
    assert!(of("refused") > 0.0, "{outcomes}");
    assert!(of("received") > 0.0, "{outcomes}");
    assert_eq!(of("lost"), 0.0, "{outcomes}");
    assert_eq!(of("sent"), of("refused") + of("received") / 2.0, "{outcomes}");
    assert!(
        outcomes[0]["notes"].to_string().contains("rate_limited"),
        "{outcomes}"
    );
}

#[test]
fn every_frame_of_every_plug_is_accounted_for_wherever_it_is_watched() {
    for (shards, watch, watchers) in [
        ("threads.ingest_shards=1", "all", 2),
        ("threads.ingest_shards=0", "each", 3),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let broker = broker(dir.path(), &["--set", shards]);
        let watching = [
            format!("shape.watch={watch}"),
            format!("shape.watchers={watchers}"),
        ];
        let outcomes = devices(&broker, dir.path(), &watching.each_ref().map(String::as_str));
        let with_plugs = &outcomes[0];
        let of = |name: &str| figure(with_plugs, name).unwrap_or_else(|| panic!("no {name}: {with_plugs}"));
        for fault in [
            "lost",
            "disconnected",
            "device_lost",
            "device_duplicates",
            "device_reordered",
            "device_sequence_breaks",
            "device_foreign",
            "device_disconnected",
            "store_refused",
        ] {
            assert_eq!(of(fault), 0.0, "{fault}: {with_plugs}");
        }
        assert!(of("device_frames") >= 200.0, "{with_plugs}");
        let audience = if watch == "all" { f64::from(watchers) } else { 1.0 };
        assert_eq!(
            of("device_updates"),
            of("device_frames") * audience,
            "{with_plugs}"
        );
        assert_eq!(
            of("broker_device_frames"),
            of("device_frames") + of("device_answers"),
            "{with_plugs}"
        );
        assert!(
            of("store_readings") > 0.0 && of("store_readings") <= of("broker_device_changes"),
            "{with_plugs}"
        );
        assert!(
            of("device_measured") > 0.0 && of("p99_ratio") > 0.0,
            "{with_plugs}"
        );

        let calm = &outcomes[1];
        assert_eq!(figure(calm, "device_frames"), None, "{calm}");
        let listed = json(
            ["device", "token", "list", "--json"]
                .iter()
                .map(std::ffi::OsStr::new)
                .chain(broker.access(&dir.path().join("data")))
                .collect::<Vec<_>>(),
        );
        assert!(
            listed["items"].as_array().unwrap().is_empty(),
            "the plugs' token is revoked: {listed}"
        );
    }
}
