//! The whole program against the bare server, in good order and with faults on purpose. What is checked are counts, which do
//! not depend on how busy the machine is.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use cauce_loadtest::limit::{Faults, LimitServer, Stop, Writing};

struct Server {
    address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(writing: Writing, faults: Faults) -> Self {
        let server = LimitServer::bind("127.0.0.1:0".parse().unwrap(), writing, faults).unwrap();
        let (address, stop) = (server.address().unwrap(), server.stopper());
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            server.run(&stopping).unwrap();
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    fn load(&self, arguments: &[&str]) -> Run {
        self.load_for("0.5", arguments)
    }

    /// A run that is longer where the machine is too busy to do enough in half a second.
    fn load_until(&self, arguments: &[&str], enough: impl Fn(&Run) -> bool) -> Run {
        let mut runs = ["0.5", "2.5", "12"]
            .into_iter()
            .map(|seconds| self.load_for(seconds, arguments));
        runs.find(enough).expect("enough is done within twelve seconds")
    }

    /// A run that is measured for so many seconds.
    fn load_for(&self, seconds: &str, arguments: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_cauce-loadtest"))
            .env_remove("LOADTEST_KEY")
            .arg("run")
            .args(["--quiet", "--json", "-", "--target", &self.address.to_string()])
            .args([
                "--warmup",
                "0.1",
                "--seconds",
                seconds,
                "--set",
                "load.drain_seconds=20",
            ])
            .args(arguments)
            .output()
            .unwrap();
        Run::new(&output)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

struct Run {
    code: i32,
    outcome: serde_json::Value,
    words: String,
}

impl Run {
    fn new(output: &Output) -> Self {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let document: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {words}"));
        Self {
            code: output.status.code().unwrap(),
            outcome: document["outcomes"][0].clone(),
            words,
        }
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.outcome["metrics"].as_array().unwrap();
        metrics.iter().find(|m| m["name"] == name)?["value"].as_f64()
    }

    fn figure(&self, name: &str) -> f64 {
        self.metric(name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn assert_whole(&self, receivers: f64) {
        for fault in [
            "lost",
            "duplicates",
            "reordered",
            "foreign",
            "disconnected",
            "sequence_breaks",
        ] {
            assert_eq!(self.figure(fault), 0.0, "{fault}: {}", self.outcome);
        }
        assert!(self.figure("sent") > 0.0);
        assert_eq!(self.figure("received"), self.figure("sent") * receivers);
    }
}

#[test]
fn every_message_is_counted_once_for_each_receiver_in_every_shape() {
    for writing in [Writing::OneByOne, Writing::Coalesced] {
        let server = Server::start(writing, Faults::default());
        server
            .load(&["fanout", "--set", "shape.subscribers=20", "--outstanding", "4"])
            .assert_whole(20.0);
        server
            .load(&[
                "rooms",
                "--set",
                "shape.rooms=5",
                "--set",
                "shape.members=3",
                "--rate",
                "300",
            ])
            .assert_whole(3.0);
        server
            .load(&["pairs", "--set", "shape.connections=10", "--rate", "200"])
            .assert_whole(1.0);
        server.load(&["echo", "--set", "shape.pairs=2"]).assert_whole(2.0);
    }
}

#[test]
fn several_threads_count_the_same() {
    let server = Server::start(Writing::Coalesced, Faults::default());
    let rooms = [
        "rooms",
        "--set",
        "shape.rooms=4",
        "--set",
        "shape.members=5",
        "--threads",
        "3",
    ];
    let open = server.load(&[&rooms[..], &["--rate", "400"]].concat());
    open.assert_whole(5.0);
    // 0.1 s of warming up and 0.5 s at 400 a second: 240, whatever the machine was doing.
    assert_eq!(open.figure("sent"), 240.0);
    assert_eq!(open.figure("measured"), 200.0 * 5.0);
    server
        .load(&[&rooms[..], &["--outstanding", "7"]].concat())
        .assert_whole(5.0);
}

#[test]
fn all_forms_of_payload_are_measured() {
    let server = Server::start(Writing::Coalesced, Faults::default());
    for form in ["json", "text", "binary"] {
        let form = format!("load.payload={form}");
        let run = server.load(&[
            "pairs",
            "--set",
            "shape.connections=4",
            "--rate",
            "100",
            "--set",
            &form,
        ]);
        run.assert_whole(1.0);
    }
}

/// A run against a server with faults that loses no more than `lost` of its deliveries. What a machine is too slow to bring within the
/// time for the last messages is lost too, so the run is tried with more of it.
fn run_with(writing: Writing, faults: Faults, lost: impl Fn(f64) -> f64) -> Run {
    let run = |drain: &str| {
        let drain = format!("load.drain_seconds={drain}");
        Server::start(writing, faults).load(&[
            "fanout",
            "--set",
            "shape.subscribers=10",
            "--rate",
            "500",
            "--set",
            &drain,
        ])
    };
    let is_slow = |run: &Run| run.figure("lost") > lost(run.figure("sent") * 10.0);
    let tries = ["1", "5"].into_iter().map(run);
    tries
        .into_iter()
        .find(|run| !is_slow(run))
        .unwrap_or_else(|| run("30"))
}

#[test]
fn what_is_lost_doubled_or_swapped_is_counted_exactly() {
    let lossy = Faults {
        lose_every: 50,
        ..Faults::default()
    };
    let every_50th = |deliveries: f64| (deliveries / 50.0).floor();
    let run = run_with(Writing::Coalesced, lossy, every_50th);
    let deliveries = run.figure("sent") * 10.0;
    assert_eq!(run.figure("lost"), every_50th(deliveries));
    assert_eq!(run.figure("received"), deliveries - run.figure("lost"));
    assert!(run.figure("sequence_breaks") > 0.0);

    // Not the last delivery of all: the run is over with its first copy, and need not wait for the second.
    let doubling = Faults {
        double_every: 41,
        ..Faults::default()
    };
    let run = run_with(Writing::OneByOne, doubling, |_| 0.0);
    let deliveries = run.figure("sent") * 10.0;
    assert_ne!(deliveries % 41.0, 0.0);
    assert_eq!(run.figure("duplicates"), (deliveries / 41.0).floor());
    assert_eq!((run.figure("lost"), run.figure("received")), (0.0, deliveries));

    let swapping = Faults {
        swap_every: 33,
        ..Faults::default()
    };
    // One may still be held back for each subscriber when the run ends.
    let held_back = 10.0;
    let run = run_with(Writing::Coalesced, swapping, |_| held_back);
    assert!(run.figure("reordered") > 0.0);
    assert!(run.figure("lost") <= held_back);
    assert_eq!(run.figure("duplicates"), 0.0);
}

#[test]
fn the_exit_code_tells_loss_and_broken_assertions_apart() {
    // A closed loop whose messages are lost comes to rest, so that its generator is never the bottleneck.
    let server = Server::start(
        Writing::Coalesced,
        Faults {
            lose_every: 10,
            ..Faults::default()
        },
    );
    let fanout = [
        "fanout",
        "--set",
        "shape.subscribers=5",
        "--outstanding",
        "2",
        "--set",
        "load.drain_seconds=0.2",
    ];
    let run = server.load(&fanout);
    assert_eq!(
        (run.code, run.outcome["verdict"]["is"].as_str()),
        (5, Some("not-whole"))
    );
    let run = server.load(&[&fanout[..], &["--assert", "lost==0"]].concat());
    assert_eq!(run.code, 3);
    assert!(run.words.contains("lost==0 does not hold"), "{}", run.words);
}

#[test]
fn latency_counts_from_when_a_message_was_due_and_is_sane() {
    let server = Server::start(Writing::OneByOne, Faults::default());
    let run = server.load(&["echo", "--set", "shape.pairs=1"]);
    let (p50, max) = (run.figure("p50"), run.figure("max"));
    assert!(p50 > 1.0 && p50 <= max && max < 20e6, "{p50} {max}");
    let curve = run.outcome["curve"].as_array().unwrap();
    assert!(curve.len() > 3);
    assert!(!run.outcome["bars"].as_array().unwrap().is_empty());
    assert!(!run.outcome["series"].as_array().unwrap().is_empty());
}

#[test]
fn those_who_stop_reading_are_not_waited_for() {
    let server = Server::start(Writing::Coalesced, Faults::default());
    let run = server.load(&[
        "slow",
        "--set",
        "shape.subscribers=10",
        "--set",
        "shape.stalled=3",
        "--set",
        "shape.turns=2",
        "--rate",
        "200",
    ]);
    run.assert_whole(7.0);
    assert!(run.figure("p99_ratio") > 0.0 && run.figure("measured") > 0.0);
}

#[test]
fn those_who_come_and_go_are_dialled_again_and_what_they_missed_is_counted() {
    let server = Server::start(Writing::Coalesced, Faults::default());
    let soak = [
        "soak",
        "--set",
        "shape.rooms=2",
        "--set",
        "shape.subscribers=5",
        "--rate",
        "200",
        "--threads",
        "2",
    ];
    let churn = [
        "--set",
        "shape.churn_per_second=40",
        "--set",
        "load.drain_seconds=0.5",
    ];
    let arguments = [&soak[..], &churn].concat();
    let run = server.load_until(&arguments, |run| run.metric("churned") >= Some(5.0));
    assert_eq!(run.figure("disconnected"), 0.0, "{}", run.outcome);
    // The bare server keeps nothing: what came while they were away is lost, and said so.
    assert_eq!(
        run.figure("received") + run.figure("lost"),
        run.figure("sent") * 5.0
    );
}

#[test]
fn a_flood_runs_beside_the_measured_tenant() {
    let server = Server::start(Writing::Coalesced, Faults::default());
    let noisy = [
        "noisy",
        "--set",
        "shape.rooms=2",
        "--set",
        "shape.members=2",
        "--rate",
        "100",
    ];
    // The flood gives way, and may have to wait long for its turn.
    let arguments = [&noisy[..], &["--set", "shape.flood_rate=500"]].concat();
    let run = server.load_until(&arguments, |run| run.figure("flood_messages_per_second") > 0.0);
    run.assert_whole(2.0);
}

#[test]
fn a_storm_connects_everyone() {
    let server = Server::start(Writing::Coalesced, Faults::default());
    let run = server.load(&[
        "storm",
        "--set",
        "shape.connections=200",
        "--set",
        "shape.in_flight=20",
        "--set",
        "shape.missed=0",
    ]);
    assert_eq!((run.code, run.figure("failed")), (0, 0.0));
    assert!(run.figure("connects_per_second") > 0.0);
}

#[test]
fn a_server_that_is_not_there_is_said_in_words() {
    let output = Command::new(env!("CARGO_BIN_EXE_cauce-loadtest"))
        .args(["run", "echo", "--quiet", "--target", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("2 of 2 connections failed"), "{words}");
}

#[test]
fn the_page_and_the_comparison_are_made_of_the_same_run() {
    let server = Server::start(Writing::Coalesced, Faults::default());
    let directory = std::env::temp_dir().join(format!("cauce-loadtest-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (json, html) = (directory.join("run.json"), directory.join("run.html"));
    let program = env!("CARGO_BIN_EXE_cauce-loadtest");
    let output = Command::new(program)
        .args([
            "run",
            "pairs",
            "--set",
            "shape.connections=4",
            "--rate",
            "100",
            "--quiet",
            "--seconds",
            "1.1",
        ])
        .args([
            "--warmup",
            "0",
            "--limit",
            "one-write",
            "--target",
            &server.address.to_string(),
        ])
        .args([
            "--json".as_ref(),
            json.as_os_str(),
            "--html".as_ref(),
            html.as_os_str(),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("limit, one write") && text.contains("ratio"),
        "{text}"
    );
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.matches("<svg").count() >= 3 && page.contains("Latency by percentile"));
    assert!(
        !page.contains("http:") && !page.contains("https:"),
        "the page needs no network"
    );
    let compared = Command::new(program)
        .arg("compare")
        .args([&json, &json])
        .output()
        .unwrap();
    let compared = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(
        compared.contains("p99") && compared.contains("1.000"),
        "{compared}"
    );
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn rooms_without_plugs_need_no_key_and_plugs_say_which_one_they_need() {
    let server = Server::start(Writing::Coalesced, Faults::default());
    let rooms = [
        "devices",
        "--set",
        "shape.rooms=3",
        "--set",
        "shape.members=2",
        "--rate",
        "200",
        "--set",
    ];
    server
        .load(&[&rooms[..], &["shape.plugs=0"]].concat())
        .assert_whole(2.0);
    let output = Command::new(env!("CARGO_BIN_EXE_cauce-loadtest"))
        .env_remove("LOADTEST_API_KEY")
        .args([
            "run",
            "devices",
            "--quiet",
            "--target",
            &server.address.to_string(),
        ])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("--api-key-file"), "{words}");
}
