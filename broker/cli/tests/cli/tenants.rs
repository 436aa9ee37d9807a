//! Tenants and what holds in their rooms.

use std::ffi::OsString;

use serde_json::{Value, json};

use super::support::{Broker, json as answer, run};

#[test]
fn room_classes_come_from_a_file_and_a_bad_one_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let file = dir.path().join("classes.json");
    let with = |args: &[&str]| -> Vec<OsString> {
        let args = args.iter().map(Into::into);
        args.chain(access.iter().map(|&arg| arg.to_owned())).collect()
    };
    let put = |classes: &Value| std::fs::write(&file, classes.to_string()).unwrap();
    let path = file.to_str().unwrap();
    let classes =
        json!([{ "rooms": "orders:*", "history": { "messages": 10 }, "allow": { "*": ["subscribe"] } }]);
    put(&classes);
    let made = answer(with(&[
        "tenant",
        "create",
        "clinic",
        "--room-classes",
        path,
        "--json",
    ]));
    assert_eq!(made["room_classes"], classes);

    let other = json!([{ "rooms": "chat:*", "presence": true }]);
    put(&other);
    let changed = answer(with(&[
        "tenant",
        "update",
        "clinic",
        "--room-classes",
        path,
        "--json",
    ]));
    assert_eq!(changed["room_classes"], other);

    put(&json!([{ "rooms": "chat:*", "colour": 1 }]));
    let refused = run(with(&["tenant", "update", "clinic", "--room-classes", path]));
    assert!(!refused.status.success());
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(words.contains("room_classes[0].colour: unknown field"), "{words}");
    let shown = answer(with(&["tenant", "show", "clinic", "--json"]));
    assert_eq!(shown["room_classes"], other);
    assert!(!run(with(&["tenant", "update", "clinic"])).status.success());
}
