//! Devices from the operator's side: let in, seen, commanded, assigned, put out.

use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;

use super::support::{Broker, Running, cauce, json, printed, run};

fn with(args: &[&str], broker: &Broker, data: &Path) -> Vec<OsString> {
    let args = args.iter().map(OsString::from);
    let access = broker.access(data);
    args.chain(access.iter().map(|&arg| arg.to_owned())).collect()
}

#[test]
fn a_device_is_let_in_commanded_assigned_and_put_out() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let args = |args: &[&str]| with(args, &broker, dir.path());

    let made = json(args(&["device", "token", "create", "--label", "desk", "--json"]));
    let door = made["url"].as_str().unwrap();
    let fleet = Running::start(cauce(["simulate", "--devices", "2", "--url", door]));
    fleet.out.next_with("2 of 2 connected");
    let listed = json(args(&["device", "list", "--json"]));
    let id = listed["items"][1]["id"].as_str().unwrap().to_owned();

    let sub = Running::start(cauce(args(&["sub", &format!("$device:{id}"), "--json"])));
    sub.err.next_with("listening");
    let toggled = |answer: &Value| answer["result"]["was_on"].as_bool().unwrap();
    let first = json(args(&["device", "toggle", &id, "--json"]));
    let second = json(args(&["device", "toggle", &id, "--json"]));
    assert_ne!(toggled(&first), toggled(&second));
    sub.out.next_with("device-update");
    let wrong = run(args(&[
        "device",
        "call",
        &id,
        "Switch.Set",
        "{\"id\":99,\"on\":true}",
    ]));
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(said.contains("device_error"), "{said}");

    printed(args(&[
        "device",
        "assign",
        &id,
        "--equipment",
        "laser-2",
        "--label",
        "Room 2",
    ]));
    let told: Value = serde_json::from_str(&sub.out.next_with("smart-plug-assignment-updated")).unwrap();
    assert!(told.to_string().contains("laser-2"), "{told}");
    let table = printed(args(&["device", "list"]));
    let row = table.lines().find(|line| line.starts_with(&id)).unwrap();
    assert!(
        row.contains("laser-2") && row.contains("Room 2") && row.contains("online"),
        "{table}"
    );
    printed(args(&["device", "unassign", &id]));
    assert!(!printed(args(&["device", "list"])).contains("laser-2"));

    printed(args(&["device", "token", "revoke", made["id"].as_str().unwrap()]));
    fleet.out.next_with("0 of 2 connected");
    sub.out.next_with("device-offline-status");
    let offline = run(args(&["device", "on", &id]));
    assert!(String::from_utf8_lossy(&offline.stderr).contains("device_offline"));
}

#[test]
fn what_is_sent_to_a_user_is_heard_with_directs() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let token = printed(with(&["token", "--user", "ana"], &broker, dir.path()));
    let listen = [
        "sub",
        "lobby",
        "--directs",
        "--json",
        "--count",
        "1",
        "--token",
        token.trim(),
    ];
    let mut sub = Running::start(cauce(with(&listen, &broker, dir.path())));
    sub.err.next_with("listening");
    let key = std::fs::read_to_string(dir.path().join("operator.key")).unwrap();
    let sent = std::process::Command::new("curl")
        .args([
            "--silent",
            "--fail",
            "--output",
            "/dev/null",
            "--header",
            "Content-Type: application/json",
        ])
        .args(["--header", &format!("Authorization: Bearer {}", key.trim())])
        .args([
            "--data",
            r#"{"user":"ana","event":"notification","json":{"n":1}}"#,
        ])
        .arg(format!("{}/v1/send", broker.url))
        .status()
        .unwrap();
    assert!(sent.success());
    let heard: Value = serde_json::from_str(&sub.out.next()).unwrap();
    let expected = serde_json::json!({"direct": true, "event": "notification", "json": {"n": 1}});
    assert_eq!(heard, expected);
    assert_eq!(sub.end(), Some(0));
}
