//! The broker as a process.

use super::support::{Broker, Running, cauce, run, until};

#[test]
fn four_lines_say_what_is_open_where_the_data_lies_and_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &["--set", "threads.client_shards=2"]);
    let [listening, data, threads, token] = broker.banner.clone();
    for part in ["/v1/ws", "/shelly", "/v1 ", "/metrics"] {
        assert!(listening.contains(part), "{listening}");
    }
    assert!(data.contains(dir.path().to_str().unwrap()), "{data}");
    assert!(threads.contains("2 for clients, 1 for devices"), "{threads}");
    assert!(token.contains("cauce token --user"), "{token}");
    broker.process.signal("TERM");
    assert_eq!(broker.process.end(), Some(0));
    assert_eq!(broker.process.out.rest(), [""; 0]);
}

#[test]
fn the_command_of_the_fourth_line_gives_a_token_as_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let command = broker.banner[3].split_once("cauce ").unwrap().1;
    let args: Vec<&str> = command.split_whitespace().collect();
    let output = run(&args);
    let token = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        token.trim().split('.').count(),
        3,
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn interrupting_stops_in_order_and_an_echo_of_the_signal_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    broker.process.signal("INT");
    broker.process.signal("INT");
    assert_eq!(broker.process.end(), Some(0));
}

#[test]
fn a_taken_port_is_said_to_be_taken() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("first"), &[]);
    let address = broker.url.strip_prefix("http://").unwrap();
    let second = dir.path().join("second");
    let output = run([
        "serve",
        "--listen",
        address,
        "--data-dir",
        second.to_str().unwrap(),
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("taken"), "{said}");
}

#[test]
fn two_brokers_do_not_share_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Broker::start(dir.path(), &[]);
    let output = run([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        dir.path().to_str().unwrap(),
    ]);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn hanging_up_reads_the_configuration_again_and_says_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cauce.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("[limits]\ncall_timeout = \"10s\"\n");
    let data = dir.path().join("data");
    let mut broker = Broker::start(&data, &["--config", file.to_str().unwrap()]);
    write("[limits]\ncall_timeout = \"12s\"\n[log]\nlevel = \"debug\"\n[threads]\npin = true\n");
    broker.process.signal("HUP");
    let line = broker.process.err.next_with("reloaded");
    assert!(
        line.contains("limits.call_timeout") && line.contains("log.level"),
        "{line}"
    );
    assert!(broker.process.err.next_with("next start").contains("threads.pin"));
    write("[limits]\nnonsense = 1\n");
    broker.process.signal("HUP");
    assert!(
        broker
            .process
            .err
            .next_with("reload refused")
            .contains("nonsense")
    );
    broker.process.signal("TERM");
    assert_eq!(broker.process.end(), Some(0));
}

#[test]
fn logs_for_machines_are_json() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path(), &["--set", "log.format=json"]);
    broker.process.signal("TERM");
    broker.process.end();
    let lines = broker.process.err.rest();
    assert!(!lines.is_empty());
    for line in lines {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(
            event["level"].is_string() && event["message"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn a_broker_serves_with_its_standard_output_closed() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"exec "$0" serve --listen 127.0.0.1:0 --data-dir "$1" >&-"#;
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", script, env!("CARGO_BIN_EXE_cauce")])
        .arg(dir.path());
    let mut broker = Running::start(shell);
    // It cannot say that it serves. What it makes at its start it makes when it hears signals already.
    until("it starts", || dir.path().join("operator.key").exists());
    broker.signal("TERM");
    assert_eq!(broker.end(), Some(0));
    let said = broker.err.rest().join("\n");
    assert!(!said.contains("panic"), "{said}");
}

#[test]
fn no_broker_no_answer_but_advice() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{free}");
    for way in ["--api-key", "--token"] {
        let mut command = cauce(["pub", "orders", "made", "1", way, "x", "--url", &url]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("cauce serve") && said.lines().count() == 1,
            "{said}"
        );
    }
}
