//! A process that is killed in the middle leaves a database that the next one opens, with the last states in it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::support::{Broker, Running, cauce, json, printed, until};

/// Transactions of rows that the broker has committed so far, as its metrics tell.
fn commits(broker: &Broker) -> u64 {
    let address = broker.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let mut lines = answer.lines();
    let count = lines.find_map(|line| line.strip_prefix("cauce_store_flush_duration_seconds_count "));
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_killed_demo_is_followed_by_one_that_knows_the_devices() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let common = [
        "demo",
        "--listen",
        "127.0.0.1:0",
        "--devices",
        "10",
        "--rate",
        "5",
        "--data-dir",
        data,
    ];
    let mut first = Running::start(cauce(common));
    first.out.next_with("10 devices online");
    // At the next line five more seconds of frames have gone to the database, and more are on their way.
    first.out.next_with("10 devices online");
    first.signal("KILL");
    assert_eq!(first.end(), None);

    let second = json([&common[..], &["--seconds", "2", "--json"]].concat());
    assert_eq!(second["agree"], true, "{second:#}");
    for tenant in second["tenants"].as_array().unwrap() {
        assert_eq!(tenant["devices_restored"], 5, "{second:#}");
    }
    let third = printed([&common[..], &["--seconds", "1"]].concat());
    assert!(
        third.contains("10 devices are known from an earlier run"),
        "{third}"
    );
    let states = third.lines().filter(|line| line.contains("switch:0 o"));
    assert_eq!(states.count(), 6, "{third}");
}

#[test]
fn a_killed_broker_shows_the_last_states_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let broker = Broker::start(data, &[]);
    let args = |args: &[&str], broker: &Broker| {
        let mut all: Vec<std::ffi::OsString> = args.iter().map(Into::into).collect();
        all.extend(broker.access(data).iter().map(|&arg| arg.to_owned()));
        all
    };
    let made = json(args(&["device", "token", "create", "--json"], &broker));
    let token = made["token"].as_str().unwrap_or_else(|| panic!("{made}"));
    let door = format!("{}/shelly", broker.url.replace("http", "ws"));
    let fleet = Running::start(cauce([
        "simulate",
        "--url",
        &door,
        "--token",
        token,
        "--devices",
        "4",
        "--rate",
        "5",
    ]));
    fleet.out.next_with("4 of 4 connected");
    let listed = json(args(&["device", "list", "--json"], &broker));
    assert_eq!(listed["items"].as_array().unwrap().len(), 4, "{listed}");
    let device = listed["items"][0]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{listed}"))
        .to_owned();
    let called = json(args(
        &["device", "call", &device, "Switch.GetStatus", "{\"id\":0}"],
        &broker,
    ));
    assert_eq!(called["id"], 0, "{called}");
    let off = printed(args(&["device", "off", &device], &broker));
    assert!(off.contains("off"), "{off}");
    // The device tells what it did, and that is written: with the second of two commits that are seen from then on, for one may have
    // been under way.
    until("the device is off", || {
        let shown = json(args(&["device", "show", &device, "--json"], &broker));
        shown["state"]["state"]["switch:0"]["output"] == false
    });
    let written = commits(&broker);
    until("it is written", || commits(&broker) >= written + 2);
    let mut broker = broker;
    broker.process.signal("KILL");
    assert_eq!(broker.process.end(), None);
    drop(fleet);

    let broker = Broker::start(data, &[]);
    let listed = json(args(&["device", "list", "--json"], &broker));
    assert_eq!(listed["items"].as_array().unwrap().len(), 4, "{listed}");
    let shown = json(args(&["device", "show", &device, "--json"], &broker));
    assert_eq!(shown["state"]["state"]["switch:0"]["output"], false, "{shown:#}");
    assert_eq!(shown["state"]["stale"], true, "{shown:#}");
}
