//! Disturbances of the load test against the real program: emulated plugs, and readers that stop. What is checked are counts, which do not depend on how busy the machine is.

use std::path::Path;

use clap::Parser as _;
use serde_json::Value;

use super::support::{self, Broker, json};
use super::tls::certify;

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

/// The same over TLS.
fn secured(dir: &Path, more: &[&str]) -> Broker {
    let (cert, key) = certify(dir);
    let settings = [
        "--set",
        &format!("tls.cert={cert}"),
        "--set",
        &format!("tls.key={key}"),
    ];
    broker(dir, &[&settings, more].concat())
}

/// The certificate of the broker in `dir`, if it has one.
fn ca(dir: &Path) -> Option<String> {
    let file = dir.join("cert.pem");
    file.exists().then(|| file.to_str().unwrap().to_owned())
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
    let (key_file, result) = (dir.join("data/operator.key"), dir.join("result.json"));
    let arguments = [
        "loadtest",
        "run",
        scenario,
        "--quiet",
        "--target",
        broker.address(),
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
    let ca = ca(dir);
    let settings = ["load.drain_seconds=30"].iter().chain(settings);
    let settings = settings.flat_map(|setting| ["--set", setting]);
    let trust = ca.iter().flat_map(|ca| ["--ca", ca]);
    let parsed = LoadTest::try_parse_from(arguments.into_iter().chain(settings).chain(trust)).unwrap();
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
    for begin in [broker, secured] {
        let dir = tempfile::tempdir().unwrap();
        let broker = begin(dir.path(), &[]);
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
}

#[test]
fn every_frame_of_every_plug_is_accounted_for_wherever_it_is_watched_and_over_tls() {
    type Begin = fn(&Path, &[&str]) -> Broker;
    let places: [(Begin, &str, &str, u32); 3] = [
        (broker, "threads.ingest_shards=1", "all", 2),
        (broker, "threads.ingest_shards=0", "each", 3),
        (secured, "threads.ingest_shards=1", "each", 3),
    ];
    for (begin, shards, watch, watchers) in places {
        let dir = tempfile::tempdir().unwrap();
        let broker = begin(dir.path(), &["--set", shards]);
        let watching = [
            format!("shape.watch={watch}"),
            format!("shape.watchers={watchers}"),
        ];
        let outcomes = devices(&broker, dir.path(), &watching.each_ref().map(String::as_str));
        account(&outcomes, watch, watchers);
        let ca = ca(dir.path());
        let (with_plugs, calm) = (&outcomes[0], &outcomes[1]);
        match &ca {
            Some(_) => {
                let handshakes = figure(with_plugs, "device_handshakes_full");
                // Each is somebody else, who has never been here.
                assert_eq!(handshakes, Some(20.0 + f64::from(watchers)), "{with_plugs}");
                assert_eq!(figure(with_plugs, "device_handshakes_resumed"), Some(0.0));
                for outcome in [with_plugs, calm] {
                    assert_eq!(figure(outcome, "handshakes_full"), Some(6.0), "{outcome}");
                    assert_eq!(outcome["tls"]["verified"], true, "{outcome}");
                }
            }
            None => assert_eq!(figure(with_plugs, "device_handshakes_full"), None),
        }
        let listed = json(
            ["device", "token", "list", "--json"]
                .iter()
                .map(std::ffi::OsStr::new)
                .chain(broker.access(&dir.path().join("data")))
                .chain(ca.iter().flat_map(|ca| ["--ca".as_ref(), ca.as_ref()]))
                .collect::<Vec<_>>(),
        );
        assert!(
            listed["items"].as_array().unwrap().is_empty(),
            "the plugs' token is revoked: {listed}"
        );
    }
}

/// Checks the counts of a run with twenty plugs.
fn account(outcomes: &Value, watch: &str, watchers: u32) {
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
}

#[test]
fn plugs_are_not_let_loose_on_a_broker_whose_certificate_nobody_named() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let broker = secured(dir.path(), &[]);
    let (stranger, _) = certify(other.path());
    let key_file = dir.path().join("data/operator.key");
    let refusal = |trust: &[&str]| {
        let arguments = [
            "loadtest",
            "run",
            "devices",
            "--quiet",
            "--target",
            broker.address(),
        ];
        let key = ["--key", SECRET, "--api-key-file", key_file.to_str().unwrap()];
        let output = support::run(arguments.iter().chain(&key).chain(trust));
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let words = refusal(&[]);
    assert!(
        words.contains("the server speaks TLS") && words.contains("--ca FILE"),
        "{words}"
    );
    let words = refusal(&["--ca", &stranger]);
    assert!(words.contains("is not trusted for 127.0.0.1"), "{words}");
}
