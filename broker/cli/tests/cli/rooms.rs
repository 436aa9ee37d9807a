//! What rooms keep and who is in them, from the command line.

use std::ffi::{OsStr, OsString};

use serde_json::{Value, json};

use super::support::{Broker, Running, cauce, json as answer, printed};

fn with(args: &[&str], access: &[&OsStr]) -> Vec<OsString> {
    let args = args.iter().map(OsString::from);
    args.chain(access.iter().map(|&arg| arg.to_owned())).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn what_a_room_keeps_is_shown_forwards_backwards_and_from_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    for n in 1..=5 {
        let n = n.to_string();
        printed(with(&["pub", "orders", "made", &n, "--key", &n], &access));
    }
    let numbers = |args: &[&str]| {
        let args = [&["history", "orders", "--json"], args].concat();
        let entries = lines(&printed(with(&args, &access)));
        entries
            .iter()
            .map(|entry| entry["seq"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(&[]), [1, 2, 3, 4, 5]);
    assert_eq!(numbers(&["--after", "3"]), [4, 5]);
    assert_eq!(numbers(&["--last", "2"]), [4, 5]);
    assert_eq!(numbers(&["--backwards", "--limit", "2"]), [5, 4]);
    assert_eq!(numbers(&["--before", "3"]), [2, 1]);
    let newest = lines(&printed(with(
        &["history", "orders", "--json", "--last", "1"],
        &access,
    )));
    assert_eq!(
        (&newest[0]["event"], &newest[0]["key"], &newest[0]["json"]),
        (&json!("made"), &json!("5"), &json!(5))
    );
    assert_eq!(printed(with(&["history", "nothing"], &access)), "");
}

#[test]
fn listening_begins_in_the_past_goes_on_where_it_stood_and_filters() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    // Somebody who stays, so that the room keeps its numbering.
    let stays = Running::start(cauce(with(&["sub", "orders"], &access)));
    stays.err.next_with("listening");
    for n in 1..=4 {
        let n = n.to_string();
        printed(with(&["pub", "orders", "made", &n, "--key", &n], &access));
    }
    let sub = |args: &[&str]| {
        let args = [&["sub", "orders", "--json"], args].concat();
        lines(&printed(with(&args, &access)))
    };
    let recent = sub(&["--recent", "2", "--count", "2"]);
    assert_eq!((&recent[0]["seq"], &recent[1]["seq"]), (&json!(3), &json!(4)));
    let since = format!("{}:2", recent[0]["epoch"]);
    let again = sub(&["--since", &since, "--count", "2"]);
    assert_eq!(
        again[0],
        json!({"room": "orders", "notice": "reconnected", "missed": 0})
    );
    assert_eq!((&again[1]["seq"], &again[2]["seq"]), (&json!(3), &json!(4)));
    let one = sub(&["--recent", "4", "--key", "3", "--event", "made", "--count", "1"]);
    assert_eq!((&one[0]["seq"], &one[0]["key"]), (&json!(3), &json!("3")));
}

#[test]
fn who_is_in_a_room_is_listed_and_watched() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let classes = dir.path().join("classes.json");
    std::fs::write(&classes, r#"[{"rooms": "*", "presence": {"grace_ms": 0}}]"#).unwrap();
    let update = [
        "tenant",
        "update",
        "default",
        "--room-classes",
        classes.to_str().unwrap(),
    ];
    printed(with(&update, &access));
    let listen = |user: &str| {
        let token = printed(with(&["token", "--user", user], &access));
        let sub = Running::start(cauce(with(&["sub", "lobby", "--token", token.trim()], &access)));
        sub.err.next_with("listening");
        sub
    };
    let _ana = listen("ana");
    let there = answer(with(&["presence", "lobby", "--json"], &access));
    assert_eq!(there["items"][0]["user"], "ana", "{there}");
    let watch = Running::start(cauce(with(&["presence", "lobby", "--watch", "--json"], &access)));
    watch.out.next_with("\"loaded\"");
    let luis = listen("luis");
    let joined: Value = serde_json::from_str(&watch.out.next_with("luis")).unwrap();
    assert_eq!(joined["joined"]["connections"], 1, "{joined}");
    drop(luis);
    let left: Value = serde_json::from_str(&watch.out.next_with("luis")).unwrap();
    assert_eq!(left, json!({"room": "lobby", "left": {"user": "luis"}}));
    let counts = answer(with(&["presence", "lobby", "--counts", "--json"], &access));
    // Ana, and the one who watches.
    assert_eq!(counts, json!({"users": 2, "connections": 2}));
}
