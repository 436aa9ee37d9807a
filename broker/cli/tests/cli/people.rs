//! Calls, notifications, connections and revocations, from the command line.

use std::ffi::{OsStr, OsString};

use serde_json::{Value, json};

use super::support::{Broker, Running, cauce, json as answer, printed, run};

fn with(args: &[&str], access: &[&OsStr]) -> Vec<OsString> {
    let args = args.iter().map(OsString::from);
    args.chain(access.iter().map(|&arg| arg.to_owned())).collect()
}

#[test]
fn what_one_shell_answers_another_can_call() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let mut echo = Running::start(cauce(with(
        &["answer", "echo.*", "--echo", "--count", "2"],
        &access,
    )));
    echo.err.next_with("serving");
    let by_api = answer(with(&["call", "echo.text", "{\"a\":1}", "--json"], &access));
    assert_eq!(by_api["result"]["params"], json!({"a": 1}), "{by_api}");
    let rights = [
        "token",
        "--user",
        "ana",
        "--room",
        "$method:echo.*",
        "--allow",
        "call",
    ];
    let token = printed(with(&rights, &access));
    let by_socket = answer(with(&["call", "echo.text", "--token", token.trim()], &access));
    assert_eq!(by_socket["user"], "ana", "{by_socket}");
    assert_eq!(echo.end(), Some(0));
    let nobody = run(with(&["call", "echo.text"], &access));
    assert_eq!(nobody.status.code(), Some(1));
    let said = String::from_utf8_lossy(&nobody.stderr);
    assert!(said.contains("not_served"), "{said}");
}

#[test]
fn a_program_answers_or_fails_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let script =
        "grep -q fail && { echo no luck >&2; exit 3; }; echo \"{\\\"did\\\":\\\"$CAUCE_METHOD\\\"}\"";
    let serving = Running::start(cauce(with(
        &["answer", "work", "--exec", script, "--json"],
        &access,
    )));
    serving.err.next_with("serving");
    let done = answer(with(&["call", "work", "{\"n\":1}"], &access));
    assert_eq!(done, json!({"did": "work"}));
    let failed = run(with(&["call", "work", "{\"n\":\"fail\"}"], &access));
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(
        said.contains("method_error") && said.contains("no luck"),
        "{said}"
    );
    let told: Value = serde_json::from_str(&serving.out.next_with("no luck")).unwrap();
    assert_eq!(told["params"], json!({"n": "fail"}), "{told}");
}

#[test]
fn a_notification_is_left_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let leave = || {
        let args = [
            "notify",
            "--user",
            "ana",
            "Paid",
            "Order 42",
            "--kind",
            "success",
            "--priority",
            "high",
            "--data",
            "{\"id\":42}",
            "--expires",
            "1h",
            "--idempotency-key",
            "k",
            "--json",
        ];
        answer(with(&args, &access))
    };
    let (first, second) = (leave(), leave());
    assert_eq!(
        (&first["repeated"], &second["repeated"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(first["id"], second["id"]);
}

#[test]
fn a_revoked_user_is_sent_away_and_stays_out() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let token = printed(with(&["token", "--user", "ana"], &access));
    let mut sub = Running::start(cauce(with(&["sub", "orders", "--token", token.trim()], &access)));
    sub.err.next_with("listening");
    printed(with(
        &["revoke", "--user", "ana", "--reason", "lost her phone"],
        &access,
    ));
    assert_eq!(sub.end(), Some(1));
    let listed = answer(with(&["revoke", "--list", "--json"], &access));
    assert_eq!(listed["items"][0]["id"], "user:ana", "{listed}");
    printed(with(&["revoke", "--lift", "user:ana"], &access));
    let publish = ["pub", "orders", "made", "1", "--token", token.trim()];
    assert!(run(with(&publish, &access)).status.success());
}

#[test]
fn connections_are_listed_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let listen = |user: &str| {
        let token = printed(with(&["token", "--user", user], &access));
        let sub = Running::start(cauce(with(
            &["sub", "orders", "--json", "--token", token.trim()],
            &access,
        )));
        sub.err.next_with("listening");
        sub
    };
    let (ana, mut luis) = (listen("ana"), listen("luis"));
    let listed = answer(with(&["connections", "--json"], &access));
    assert_eq!(listed["items"].as_array().unwrap().len(), 2, "{listed}");
    let of_luis = answer(with(&["connections", "--user", "luis", "--json"], &access));
    let id = of_luis["items"][0]["id"].to_string();
    assert_eq!(of_luis["items"][0]["rooms"], 1, "{of_luis}");
    // Ana comes back by herself, Luis may not.
    printed(with(&["disconnect", "--user", "ana"], &access));
    ana.out.next_with("reconnected");
    let away = [
        "disconnect",
        "--connection",
        &id,
        "--stay-away",
        "--reason",
        "please update",
    ];
    printed(with(&away, &access));
    assert_eq!(luis.end(), Some(1));
}
