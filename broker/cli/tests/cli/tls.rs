//! The same commands where the broker speaks TLS with a certificate of one's own.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::support::{Broker, Running, cauce, in_seconds, json, printed, run};

/// A certificate for this machine, its own authority, and its key.
pub(crate) fn certify(dir: &Path) -> (String, String) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).unwrap();
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    (
        write("cert.pem", certified.cert.pem()),
        write("key.pem", certified.signing_key.serialize_pem()),
    )
}

#[test]
fn messages_and_devices_come_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certify(dir.path());
    let data = dir.path().join("data");
    let settings = [
        "--set",
        &format!("tls.cert={cert}"),
        "--set",
        &format!("tls.key={key}"),
    ];
    let broker = Broker::start(&data, &settings);
    let (url, banner) = (&broker.url, &broker.banner);
    assert!(
        url.starts_with("https://") && banner[3].contains(&format!("--url {url}")),
        "{}",
        banner[3]
    );
    let with = |args: &[&str]| -> Vec<OsString> {
        let access = broker.access(&data);
        let args = args.iter().map(OsString::from);
        let all = args.chain(access.iter().map(|&arg| arg.to_owned()));
        all.chain(["--ca".into(), cert.clone().into()]).collect()
    };

    let mut sub = Running::start(cauce(with(&["sub", "orders", "--count", "2"])));
    sub.err.next_with("listening");
    let token = printed(with(&["token", "--user", "ana"]));
    printed(with(&["pub", "orders", "made", "1"]));
    printed(with(&["pub", "orders", "made", "2", "--token", token.trim()]));
    assert_eq!(
        [sub.out.next(), sub.out.next()],
        ["orders 1 made 1", "orders 2 made 2"]
    );
    assert_eq!(sub.end(), Some(0));

    let made = json(with(&["device", "token", "create", "--json"]));
    let door = made["url"].as_str().unwrap();
    assert!(door.starts_with("wss://"), "{made}");
    in_seconds(|seconds| {
        let fleet = [
            "simulate",
            "--devices",
            "2",
            "--seconds",
            seconds,
            "--json",
            "--ca",
            &cert,
            "--url",
            door,
        ];
        let counted = json(fleet);
        let connects = counted["total"]["connects"].as_u64();
        (connects == Some(2)).then_some(()).ok_or(counted.to_string())
    });

    let mut stranger = with(&["pub", "orders", "made", "3"]);
    stranger.truncate(stranger.len() - 2);
    let output = run(stranger);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("certificate"), "{said}");
}
