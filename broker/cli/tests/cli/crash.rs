//! A process that is killed in the middle leaves a database that the next one opens, with the last states in it.

use std::time::Duration;

use super::support::{Broker, Running, cauce, json, printed};

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
    // Rows wait for others for a fifth of a second at most.
    std::thread::sleep(Duration::from_millis(1_500));
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
