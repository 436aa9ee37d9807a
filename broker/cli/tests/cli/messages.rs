//! From a token to a message and back, through the real doors.

use std::process::Stdio;

use serde_json::{Value, json};

use super::support::{Broker, Running, cauce, json as answer, printed, run};

fn text(args: &[&str]) -> Vec<std::ffi::OsString> {
    args.iter().map(Into::into).collect()
}

fn with(args: &[&str], access: &[&std::ffi::OsStr]) -> Vec<std::ffi::OsString> {
    let mut all = text(args);
    all.extend(access.iter().map(|&arg| arg.to_owned()));
    all
}

#[test]
fn what_is_published_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let token = printed(with(&["token", "--user", "ana"], &access));
    let token = token.trim();

    let sub = with(
        &["sub", "orders", "--json", "--count", "3", "--token", token],
        &access,
    );
    let mut sub = Running::start(cauce(sub));
    sub.err.next_with("listening");

    let by_socket = answer(with(
        &["pub", "orders", "made", "{\"id\":1}", "--json", "--token", token],
        &access,
    ));
    assert_eq!(
        (&by_socket["seq"], &by_socket["receivers"]),
        (&json!(1), &json!(1))
    );
    let by_api = answer(with(
        &["pub", "orders", "paid", "in cash", "--text", "--json"],
        &access,
    ));
    assert_eq!(by_api["seq"], 2);
    printed(with(&["pub", "orders", "photo", "AAEC", "--binary"], &access));

    let heard: Vec<Value> = (0..3)
        .map(|_| serde_json::from_str(&sub.out.next()).unwrap())
        .collect();
    let epoch = &by_socket["epoch"];
    assert_eq!(
        heard[0],
        json!({"room": "orders", "epoch": epoch, "seq": 1, "event": "made", "json": {"id": 1}})
    );
    assert_eq!(
        heard[1],
        json!({"room": "orders", "epoch": epoch, "seq": 2, "event": "paid", "text": "in cash"})
    );
    assert_eq!(heard[2]["binary"], "AAEC");
    assert_eq!(sub.end(), Some(0));
}

#[test]
fn listening_needs_no_token_where_the_operators_key_lies() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let mut sub = Running::start(cauce(with(&["sub", "orders", "--count", "1"], &access)));
    sub.err.next_with("listening");
    printed(with(&["pub", "orders", "made", "\"\\u001b[2J\""], &access));
    assert_eq!(
        sub.out.next(),
        "orders 1 made \"\\\\u001b[2J\"".replace("\\\\", "\\")
    );
    assert_eq!(sub.end(), Some(0));
}

#[test]
fn a_repeat_with_the_same_key_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let publish = || {
        answer(with(
            &["pub", "orders", "made", "1", "--json", "--idempotency-key", "k"],
            &access,
        ))
    };
    let (first, second) = (publish(), publish());
    assert_eq!(
        (&first["repeated"], &second["repeated"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(first["seq"], second["seq"]);
}

#[test]
fn a_token_allows_what_was_said_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let token = printed(with(
        &[
            "token",
            "--user",
            "ana",
            "--room",
            "chat.*",
            "--allow",
            "subscribe",
        ],
        &access,
    ));
    let refused = |args: &[&str]| {
        let output = run(with(&[args, &["--token", token.trim()]].concat(), &access));
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["pub", "chat.a", "said", "1"]).contains("forbidden"));
    assert!(refused(&["sub", "orders"]).contains("forbidden"));
    assert!(refused(&["sub", "$devices"]).contains("forbidden"));
}

#[test]
fn tenants_with_equal_rooms_do_not_hear_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    for tenant in ["clinic", "shop"] {
        printed(with(&["tenant", "create", tenant], &access));
    }
    let listen = |tenant: &str| {
        let sub = Running::start(cauce(with(
            &["sub", "orders", "--count", "1", "--tenant", tenant],
            &access,
        )));
        sub.err.next_with("listening");
        sub
    };
    let (mut clinic, shop) = (listen("clinic"), listen("shop"));
    printed(with(
        &["pub", "orders", "made", "\"clinic\"", "--tenant", "clinic"],
        &access,
    ));
    printed(with(
        &["pub", "orders", "made", "\"shop\"", "--tenant", "shop"],
        &access,
    ));
    assert_eq!(clinic.out.next(), "orders 1 made \"clinic\"");
    assert_eq!(shop.out.next(), "orders 1 made \"shop\"");
    assert_eq!(clinic.end(), Some(0));
    let listed = answer(with(&["tenant", "list", "--json"], &access));
    let ids: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].clone())
        .collect();
    assert_eq!(ids, ["clinic", "default", "shop"]);
}

#[test]
fn a_disabled_tenant_is_not_served_until_it_is_enabled() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    printed(with(&["tenant", "create", "shop"], &access));
    let token = printed(with(&["token", "--user", "ana", "--tenant", "shop"], &access));
    let publish = || {
        run(with(
            &["pub", "orders", "made", "1", "--token", token.trim()],
            &access,
        ))
    };
    printed(with(&["tenant", "disable", "shop"], &access));
    let said = String::from_utf8_lossy(&publish().stderr).into_owned();
    assert!(said.contains("tenant_disabled"), "{said}");
    printed(with(&["tenant", "enable", "shop"], &access));
    assert_eq!(publish().status.code(), Some(0));
}

#[test]
fn a_payload_comes_through_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let mut sub = Running::start(cauce(with(&["sub", "orders", "--count", "1"], &access)));
    sub.err.next_with("listening");
    let mut publish = cauce(with(&["pub", "orders", "made", "-"], &access));
    let mut child = publish
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"{\"id\": 7}").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(sub.out.next(), "orders 1 made {\"id\":7}");
    assert_eq!(sub.end(), Some(0));
}

#[test]
fn listening_ends_in_peace_when_nobody_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let mut command = cauce(with(&["sub", "orders"], &access));
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut err = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut err, &mut line).unwrap();
    assert!(line.contains("listening"), "{line}");
    printed(with(&["pub", "orders", "made", "1"], &access));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    line.clear();
    std::io::BufRead::read_line(&mut err, &mut line).unwrap();
    assert_eq!(line, "");
}

#[test]
fn a_wrong_key_is_refused_in_the_brokers_words() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let output = run([
        "pub",
        "orders",
        "made",
        "1",
        "--url",
        &broker.url,
        "--api-key",
        "ck_aaaaaaaaaaaaaaaa_bbbb",
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("token_invalid"), "{said}");
}

#[test]
fn keys_are_made_used_listed_and_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let access = broker.access(dir.path());
    let made = answer(with(
        &[
            "apikey", "create", "billing", "--scope", "publish", "--tenant", "default", "--json",
        ],
        &access,
    ));
    let key = made["key"].as_str().unwrap_or_else(|| panic!("{made}"));
    let publish = || {
        run([
            "pub",
            "orders",
            "made",
            "1",
            "--url",
            &broker.url,
            "--api-key",
            key,
        ])
    };
    assert!(publish().status.success());
    let listed = answer(with(
        &["apikey", "list", "--tenant", "default", "--json"],
        &access,
    ));
    assert_eq!(listed["items"][0]["name"], "billing", "{listed}");
    assert!(!listed.to_string().contains(key));
    printed(with(
        &[
            "apikey",
            "revoke",
            made["id"].as_str().unwrap(),
            "--tenant",
            "default",
        ],
        &access,
    ));
    assert_eq!(publish().status.code(), Some(1));
}
